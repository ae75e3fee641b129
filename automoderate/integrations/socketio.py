"""The rules on a python-socketio server that an application already runs: for the rules rather than for the speed.

    attachment = attach(server, Hub(random=random.random), directory=directory, backplane=backplane)
    attachment.publish(project_id, "stats_update", {"total": 3})

``server`` is a ``socketio.AsyncServer`` (FastAPI, Starlette, ...), a ``socketio.Server`` (threads, eventlet, gevent)
or the ``.server`` of Flask-SocketIO. It keeps its connections, its rooms and the application's handlers, whenever they
are registered; only the events the hub knows are taken from the stream before the library hands them out.

An :class:`Attachment` is a lock around a :class:`~automoderate.integrations.translation.Translator`, and one task that
does what is on its list and sleeps until the hub's next deadline.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import socketio

from automoderate._threads import outcome
from automoderate.backplane.memory import MemoryBackplane
from automoderate.core import hub as rules
from automoderate.core.hub import Hub
from automoderate.integrations.translation import AttachedDirectory, Call, Question, Todo, Translator
from automoderate.realtime import process_name
from automoderate.server import Server
from automoderate.server.gathering import answered_at_once
from automoderate.server.inspection import Inspection
from automoderate.server.interfaces import Asked, Backplane, Heard, NotRunning
from automoderate.server.meter import Meter
from automoderate.server.refusals import Refusals

__all__ = ["AttachedDirectory", "Attachment", "attach"]

DEFAULT_THREADS = 8

T = TypeVar("T")


def attach(
    server: Any, hub: Hub, *, directory: AttachedDirectory, backplane: Backplane, threads: int = DEFAULT_THREADS
) -> Attachment:
    """Put the hub's rules on a ``socketio.AsyncServer`` or ``socketio.Server``; call it before clients connect.

    The hub and the backplane serve this server alone, and the backplane is closed with the attachment. ``threads``
    workers ask the directory; nothing is started before the first client comes.

    Raises TypeError for what is no such server, and for a server on greenlets with a backplane other than
    MemoryBackplane: that one would call from threads of the operating system, which wake no greenlet.
    """
    if isinstance(server, socketio.AsyncServer):
        return _AsyncAttachment(server, hub, directory, backplane, threads)
    if not isinstance(server, socketio.Server):
        raise TypeError(f"no socketio.Server or socketio.AsyncServer: {server!r} (Flask-SocketIO has it as .server)")
    if server.async_mode != "threading" and not isinstance(backplane, MemoryBackplane):
        raise TypeError(f"a server with async_mode {server.async_mode!r} takes a MemoryBackplane and no other")
    return _SyncAttachment(server, hub, directory, backplane, threads)


class _Uncounted:
    """Deliveries are the library's, which does not count them by room."""

    @property
    def counting(self) -> dict[str, int] | None:
        return None

    @counting.setter
    def counting(self, counts: dict[str, int] | None) -> None: ...


class Attachment(ABC):
    """The rules at work on one server. ``publish``, ``access_changed`` and ``logged_out`` never wait.

    They may be called from any thread; where the server runs on greenlets, from any greenlet of its thread. They answer
    with futures, as those of :class:`automoderate.realtime.Realtime` do, so that
    ``WebSocketNotifier(realtime=attachment)`` publishes here too. With a MemoryBackplane the futures are done already.
    """

    def __init__(self, server: Any, hub: Hub, directory: AttachedDirectory, backplane: Backplane, threads: int) -> None:
        self._server = server
        self._threads = threads
        self._backplane = backplane
        hub.other_nodes = backplane.shared
        self._translator = Translator(server, hub, directory, backplane)
        about = {"node": process_name(), "attached": True}
        # Of the sessions the library knows more than we do: they are counted, and none is named.
        self._inspection = Inspection(hub, {}, hub.counts, Meter(_Uncounted()), Refusals(), about)
        self._lock = threading.RLock()
        self._started = False
        self._closed = False
        self._on_message, self._on_disconnect = (server.eio.handlers[name] for name in ("message", "disconnect"))

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], _trace: str | None = None) -> Future[str]:
        """Publish one event to a project's room; the future has its ``event_id``, or NotRunning after ``close``.

        Raises ValueError for data that JSON cannot say. Nothing is traced here.
        """
        try:
            text = Server.encode(data)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the data of {event!r} cannot be sent: {error}") from error
        return self._call(lambda now: self._translator.publish(project_id, event, text, now))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Announce that a user's access, or everyone's to a project, may have changed: it is looked up again now."""
        return self._call(lambda now: self._translator.announce(rules.AccessChanged(user_id, project_id), now))

    def logged_out(self, user_id: str) -> Future[None]:
        """Announce that a user logged out: their live sessions end."""
        return self._call(lambda now: self._translator.announce(rules.LoggedOut(user_id), now))

    def close(self) -> None:
        """Take the rules off again. Clients stay connected, outside the rooms; what they were sent before, they get.

        With a ``socketio.Server`` it returns when that is done, with an ``AsyncServer`` at once: see ``aclose``.
        """
        with self._lock:
            if self._closed:
                return
            self._translator.close(time.monotonic())
            self._closed = True
            self._server.eio.on("message", self._on_message)
            self._server.eio.on("disconnect", self._on_disconnect)
            if self._started:
                self._wake()
        self._finish()

    async def aclose(self) -> None:
        """``close``, and wait until that is done."""
        self.close()

    def _call(self, call: Callable[[float], T | Future[T]]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(NotRunning("the rules were taken off this server"))
                return future
            result = call(time.monotonic())
            self._changed()
        if isinstance(result, Future):
            return result
        future.set_result(result)
        return future

    def _receive(self, items: Sequence[Heard]) -> Future[None]:
        """Hear from other nodes, on a thread of the backplane's."""
        with self._lock:
            for item in items:
                if isinstance(item, Asked):
                    answer = answered_at_once(self._inspection, item)
                    if answer is not None:
                        self._backplane.answer(item.reply_to, answer)
                    continue
                self._translator.handle(item, time.monotonic())
            self._changed()
        heard: Future[None] = Future()
        heard.set_result(None)
        return heard

    def _settle(self, question: Question, outcome: object) -> None:
        with self._lock:
            self._translator.settle(question, outcome, time.monotonic())
            self._changed()

    def _changed(self) -> None:
        # Before the first client there is nothing to do, and maybe no loop to do it on.
        if self._started:
            self._wake()

    def _take(self, engine_id: str, message: str | bytes) -> bool:
        """A message came; whether it was for the hub."""
        with self._lock:
            if self._closed:
                return False
            if not self._started:
                self._start()
                self._backplane.start(self._receive)
                self._started = True
            taken = self._translator.take(engine_id, message, time.monotonic())
            if taken:
                self._wake()
            return taken

    def _look(self, engine_id: str) -> None:
        """The library is through with a message, or with a session."""
        with self._lock:
            if self._started and not self._closed:
                self._translator.look(engine_id, time.monotonic())
                self._wake()

    def _next(self) -> Todo | float | None:
        """The next thing to do; where there is none, the seconds until the hub's deadline, or None: no deadline."""
        with self._lock:
            now = time.monotonic()
            deadline = self._translator.next_deadline()
            if deadline is not None and deadline <= now:
                self._translator.handle(rules.Tick(), now)
                deadline = self._translator.next_deadline()
            if self._translator.todo:
                return self._translator.todo.popleft()
            return None if deadline is None else max(0.0, deadline - now)

    @abstractmethod
    def _start(self) -> None:
        """Start the task; the first client has come, so whatever runs the server is running."""

    @abstractmethod
    def _wake(self) -> None:
        """There is something to do, an earlier deadline, or no more to come."""

    @abstractmethod
    def _finish(self) -> None:
        """Wait for the end of the task where that can be waited for."""


class _SyncAttachment(Attachment):
    """On a ``socketio.Server``: tasks, queues and events are those of its ``async_mode``, greenlets included."""

    def __init__(self, server: Any, hub: Hub, directory: AttachedDirectory, backplane: Backplane, threads: int) -> None:
        super().__init__(server, hub, directory, backplane, threads)
        self._event = server.eio.create_event()
        self._questions = server.eio.create_queue()
        self._task: Any = None
        server.eio.on("message", self._message)
        server.eio.on("disconnect", self._disconnect)

    def _message(self, engine_id: str, message: str | bytes) -> None:
        if not self._take(engine_id, message):
            self._on_message(engine_id, message)
            self._look(engine_id)

    def _disconnect(self, engine_id: str, reason: str) -> None:
        self._on_disconnect(engine_id, reason)
        self._look(engine_id)

    def _start(self) -> None:
        self._task = self._server.start_background_task(self._run)
        for _ in range(self._threads):
            self._server.start_background_task(self._work)

    def _wake(self) -> None:
        self._event.set()

    def _finish(self) -> None:
        if self._task is not None:
            self._task.join()
        self._backplane.close()

    def _run(self) -> None:
        while True:
            todo = self._next()
            if isinstance(todo, Question):
                self._questions.put(todo)
            elif isinstance(todo, Call):
                try:
                    todo.perform()
                except Exception:
                    todo.failed()
            elif self._closed:
                break
            else:
                self._event.wait(todo)
                self._event.clear()
        for _ in range(self._threads):
            self._questions.put(None)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            self._settle(question, outcome(question.ask))


class _AsyncAttachment(Attachment):
    """On a ``socketio.AsyncServer``: one task on its loop."""

    def __init__(self, server: Any, hub: Hub, directory: AttachedDirectory, backplane: Backplane, threads: int) -> None:
        super().__init__(server, hub, directory, backplane, threads)
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: threading.Thread | None = None
        server.eio.on("message", self._message)
        server.eio.on("disconnect", self._disconnect)

    async def aclose(self) -> None:
        self.close()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._closing is not None:
            await asyncio.to_thread(self._closing.join)

    async def _message(self, engine_id: str, message: str | bytes) -> None:
        if not self._take(engine_id, message):
            await self._on_message(engine_id, message)
            self._look(engine_id)

    async def _disconnect(self, engine_id: str, reason: str) -> None:
        await self._on_disconnect(engine_id, reason)
        self._look(engine_id)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    def _wake(self) -> None:
        assert self._loop is not None, "it was started"
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    def _finish(self) -> None:
        """Wait for nothing, which ``aclose`` does."""
        self._closing = threading.Thread(target=self._backplane.close, name="automoderate-close")
        self._closing.start()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="automoderate")
        try:
            while True:
                todo = self._next()
                if isinstance(todo, Question):
                    asked = loop.run_in_executor(pool, outcome, todo.ask)
                    asked.add_done_callback(partial(self._asked, todo))
                elif isinstance(todo, Call):
                    try:
                        await todo.perform()
                    except Exception:
                        todo.failed()
                elif self._closed:
                    break
                else:
                    await self._sleep(todo)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.close()  # where the loop ends without having been told

    def _asked(self, question: Question, asked: asyncio.Future[object]) -> None:
        if not asked.cancelled():
            self._settle(question, asked.result())

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
