"""The rules on a python-socketio server that an application already runs: for the rules rather than for the speed.

    attachment = attach(server, Hub(random=random.random), directory=directory, backplane=backplane)
    attachment.publish(project_id, "stats_update", {"total": 3})

``server`` is a ``socketio.AsyncServer`` (FastAPI, Starlette, ...), a ``socketio.Server`` (threads, eventlet, gevent)
or the ``.server`` of Flask-SocketIO. It keeps its connections, its rooms and the application's handlers, whenever they
are registered; only the events the hub knows are taken from the stream before the library hands them out.

How it works: :class:`Translator` knows no runtime. What happens on the server becomes inputs of the hub; the hub's
effects become a list of things to do, ``Call`` (a method of the server, strictly one after the other) and ``Job`` (a
question to the directory). An :class:`Attachment` is what is left:
a lock around the translator, and one task that does what is on the list and sleeps until the hub's next deadline.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import socketio
from attrs import frozen
from socketio import packet

from automoderate.core import hub as rules
from automoderate.core.hub import Access, Hub
from automoderate.server import LocalBackplane, NotRunning, Server

__all__ = ["Attachment", "Directory", "attach"]

logger = logging.getLogger("automoderate.attached")

NAMESPACE = "/"
DEFAULT_THREADS = 8

T = TypeVar("T")


class Directory(Protocol):
    """What is asked here of an :class:`automoderate.server.Directory`. Blocking; an exception is ``server_error``."""

    def identify(self, cookie: str | None) -> str | None:
        """The active user a ``Cookie`` header belongs to, or None."""

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether the user may be in the project's room."""

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """The projects still allowed; None where the user is unknown or inactive."""


def attach(
    server: Any, hub: Hub, *, directory: Directory, backplane: LocalBackplane, threads: int = DEFAULT_THREADS
) -> Attachment:
    """Put the hub's rules on a ``socketio.AsyncServer`` or ``socketio.Server``; call it before clients connect.

    The hub and the backplane serve this server alone. ``threads`` workers ask the directory; nothing is started
    before the first client comes. Raises TypeError for what is no such server.
    """
    if isinstance(server, socketio.AsyncServer):
        return _AsyncAttachment(server, hub, directory, backplane, threads)
    if isinstance(server, socketio.Server):
        return _SyncAttachment(server, hub, directory, backplane, threads)
    raise TypeError(f"no socketio.Server or socketio.AsyncServer: {server!r} (Flask-SocketIO has it as .server)")


# What there is to do ------------------------------------------------------------------------------------------


@frozen
class Call:
    """A method of the server to call, after those before it have returned."""

    perform: Callable[[], Any]
    if_there: bool = False
    """It fails for a session that has just gone, of which the hub hears next."""

    def failed(self) -> None:
        """Called with the exception being handled."""
        if not self.if_there:
            logger.exception("the server did not perform %r", self.perform)


@frozen
class Job:
    """A blocking question to the directory."""

    ticket: int
    ask: Callable[[], Any]
    answer: Callable[[Any], rules.Input]

    def run(self) -> rules.Input:
        """Ask, in a worker thread; what the hub is to be told about it."""
        try:
            return self.answer(self.ask())
        except Exception:
            logger.exception("a question to the directory failed")
            return rules.Failed(self.ticket)


Todo: TypeAlias = Call | Job


# The one translation ------------------------------------------------------------------------------------------


class Translator:
    """What happens on the server to hub inputs, hub effects to things to do. Sans-IO; not thread-safe.

    Sessions are known by two ids: the library's events and acknowledgements go by that of Engine.IO, everything else
    by that of Socket.IO, of which a session has a new one each time it connects to the namespace.
    """

    def __init__(self, server: Any, hub: Hub, directory: Directory, backplane: LocalBackplane) -> None:
        self.todo: deque[Todo] = deque()
        self._server = server
        self._hub = hub
        self._directory = directory
        self._backplane = backplane
        self._sids: dict[str, str] = {}
        self._engine_ids: dict[str, str] = {}

    def handle(self, item: rules.Input, now: float) -> None:
        """Tell the hub; what it wants done is added to ``todo``."""
        effects = deque(self._hub.handle(item, now))
        while effects:
            effect = effects.popleft()
            if isinstance(effect, rules.ReadHistory):
                history = self._backplane.read(effect.project_id, effect.after)
                for item in rules.answered_at_once(effect, history):
                    effects.extend(self._hub.handle(item, now))
            else:
                self.todo.extend(_EFFECTS[type(effect)](self, effect))

    def next_deadline(self) -> float | None:
        """When ``handle(Tick())`` is next wanted; None: never."""
        return self._hub.next_deadline()

    def publish(self, project_id: str, event: str, text: str) -> str:
        """Number and remember an update; it comes back by the backplane's listener. Returns its ``event_id``."""
        return self._backplane.publish(project_id, event, text).event_id

    def take(self, engine_id: str, message: str | bytes, now: float) -> bool:
        """Whether a message of a client is an event the hub knows; then the hub was told."""
        sid = self._sids.get(engine_id)
        event = None if sid is None else self._event(message)
        if sid is None or event is None:
            return False
        name, *args = event.data
        self.handle(rules.Received(sid, name, tuple(args), event.id), now)
        return True

    def look(self, engine_id: str, now: float) -> None:
        """Tell the hub if a session has connected to the namespace, or left it, since it was last looked at."""
        manager = self._server.manager
        sid = manager.sid_from_eio_sid(engine_id, NAMESPACE)
        if sid is not None and not manager.is_connected(sid, NAMESPACE):
            sid = None
        known = self._sids.get(engine_id)
        if known is not None and known != sid:
            self.handle(rules.Closed(known), now)
            del self._sids[engine_id], self._engine_ids[known]
        if sid is not None and sid != known:
            self._sids[engine_id], self._engine_ids[sid] = sid, engine_id
            environ = self._server.get_environ(sid, NAMESPACE)
            self.handle(rules.Connected(sid, environ.get("HTTP_COOKIE"), _address(environ)), now)

    def close(self, now: float) -> None:
        """Forget every session: each leaves the rooms of its projects and stays connected."""
        for sid in self._engine_ids:
            self.handle(rules.Closed(sid), now)
        self._sids.clear()
        self._engine_ids.clear()

    def _event(self, message: str | bytes) -> Any:
        """The packet of an event the hub knows, or None: the library judges everything else, nonsense included."""
        packet_class = self._server.packet_class
        if isinstance(message, bytes) and packet_class.uses_binary_events:
            return None  # an attachment, whatever it looks like
        try:
            found = packet_class(encoded_packet=message)
        except Exception:
            return None
        mine = found.packet_type == packet.EVENT and (found.namespace or NAMESPACE) == NAMESPACE
        named = mine and isinstance(found.data, list) and found.data and isinstance(found.data[0], str)
        return found if named and found.data[0] in rules.HANDLED_EVENTS else None

    # Effects

    def _identify(self, effect: rules.Identify) -> Iterator[Todo]:
        ask = partial(self._directory.identify, effect.credential)
        yield Job(effect.ticket, ask, partial(rules.Identified, effect.ticket))

    def _check_access(self, effect: rules.CheckAccess) -> Iterator[Todo]:
        ask = partial(self._directory.check_access, effect.user_id, effect.project_id)
        yield Job(effect.ticket, ask, partial(rules.AccessChecked, effect.ticket))

    def _recheck(self, effect: rules.Recheck) -> Iterator[Todo]:
        ask = partial(self._directory.recheck, effect.user_id, effect.project_ids)
        yield Job(effect.ticket, ask, partial(rules.Rechecked, effect.ticket))

    def _follow(self, effect: rules.Follow) -> Iterator[Todo]:
        self._backplane.follow(effect.project_id)
        return iter(())

    def _unfollow(self, effect: rules.Unfollow) -> Iterator[Todo]:
        self._backplane.unfollow(effect.project_id)
        return iter(())

    def _emit(self, effect: rules.Emit) -> Iterator[Todo]:
        return self._send(effect.event, effect.data, effect.sid)

    def _replay(self, effect: rules.Replay) -> Iterator[Todo]:
        return self._send(effect.update.event, effect.update.data, effect.sid)

    def _broadcast(self, effect: rules.Broadcast) -> Iterator[Todo]:
        return self._send(effect.update.event, effect.update.data, effect.room)

    def _send(self, event: str, data: Mapping[str, Any], room: str) -> Iterator[Todo]:
        # Past a message queue of the application's: on the other nodes it is their own backplane that says it.
        yield Call(partial(self._server.emit, event, dict(data), room=room, namespace=NAMESPACE, ignore_queue=True))

    def _acknowledge(self, effect: rules.Acknowledge) -> Iterator[Todo]:
        packet_class = self._server.packet_class
        answer = packet_class(packet.ACK, namespace=NAMESPACE, id=effect.ack, data=[dict(effect.data)])
        yield Call(partial(self._server.eio.send, self._engine_ids[effect.sid], answer.encode()))

    def _enter(self, effect: rules.Enter) -> Iterator[Todo]:
        yield Call(partial(self._server.enter_room, effect.sid, effect.room, namespace=NAMESPACE), if_there=True)

    def _leave(self, effect: rules.Leave) -> Iterator[Todo]:
        yield Call(partial(self._server.leave_room, effect.sid, effect.room, namespace=NAMESPACE))

    def _end(self, effect: rules.End) -> Iterator[Todo]:
        if effect.ending is rules.Ending.DISCONNECT:
            yield Call(partial(self._server.disconnect, effect.sid, namespace=NAMESPACE, ignore_queue=True))
            return
        connection = self._server.eio.sockets.get(self._engine_ids[effect.sid])
        if connection is not None:
            # Not ``eio.disconnect``: it says goodbye, after which python-socketio's clients do not come back.
            yield Call(partial(connection.close, wait=False, abort=True))
            # The asynchronous server's writer waits on, and keeps the WebSocket open, until this wakes it.
            yield Call(partial(connection.queue.put, None))


_EFFECTS: Mapping[type[Any], Callable[[Translator, Any], Iterator[Todo]]] = {
    rules.Identify: Translator._identify,
    rules.CheckAccess: Translator._check_access,
    rules.Recheck: Translator._recheck,
    rules.Follow: Translator._follow,
    rules.Unfollow: Translator._unfollow,
    rules.Emit: Translator._emit,
    rules.Replay: Translator._replay,
    rules.Acknowledge: Translator._acknowledge,
    rules.Enter: Translator._enter,
    rules.Leave: Translator._leave,
    rules.Broadcast: Translator._broadcast,
    rules.End: Translator._end,
}


def _address(environ: Mapping[str, Any]) -> str:
    """Where a client connects from: under ASGI python-engineio's environ says 127.0.0.1 of everybody."""
    client = environ.get("asgi.scope", {}).get("client")
    return str(client[0] if client else environ.get("REMOTE_ADDR", ""))


# The two runners ----------------------------------------------------------------------------------------------


class Attachment(ABC):
    """The rules at work on one server. ``publish``, ``access_changed`` and ``logged_out`` never wait.

    They may be called from any thread; where the server runs on greenlets, from any greenlet of its thread. Like
    those of :class:`automoderate.realtime.Realtime` they answer with futures, which are done already, so that
    ``WebSocketNotifier(realtime=attachment)`` publishes here too.
    """

    def __init__(self, server: Any, hub: Hub, directory: Directory, backplane: LocalBackplane, threads: int) -> None:
        self._server = server
        self._threads = threads
        self._translator = Translator(server, hub, directory, backplane)
        self._lock = threading.RLock()
        self._started = False
        self._closed = False
        self._on_message, self._on_disconnect = (server.eio.handlers[name] for name in ("message", "disconnect"))
        backplane.listener = self._deliver

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
        """Publish one event to a project's room; the future has its ``event_id``, or NotRunning after ``close``.

        :raises ValueError: for data that JSON cannot say.
        """
        try:
            text = Server.encode(data)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the data of {event!r} cannot be sent: {error}") from error
        return self._call(lambda: self._translator.publish(project_id, event, text))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Announce that a user's access, or everyone's to a project, may have changed: it is looked up again now."""
        return self._call(lambda: self._tell(rules.AccessChanged(user_id, project_id)))

    def logged_out(self, user_id: str) -> Future[None]:
        """Announce that a user logged out: their live sessions end."""
        return self._call(lambda: self._tell(rules.LoggedOut(user_id)))

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

    def _call(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(NotRunning("the rules were taken off this server"))
            else:
                future.set_result(call())
        return future

    def _deliver(self, update: rules.Update) -> None:
        self._tell(rules.Published(update))

    def _tell(self, item: rules.Input) -> None:
        with self._lock:
            self._translator.handle(item, time.monotonic())
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

    def __init__(self, server: Any, hub: Hub, directory: Directory, backplane: LocalBackplane, threads: int) -> None:
        super().__init__(server, hub, directory, backplane, threads)
        self._event = server.eio.create_event()
        self._jobs = server.eio.create_queue()
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

    def _run(self) -> None:
        while True:
            todo = self._next()
            if isinstance(todo, Job):
                self._jobs.put(todo)
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
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._tell(job.run())


class _AsyncAttachment(Attachment):
    """On a ``socketio.AsyncServer``: one task on its loop."""

    def __init__(self, server: Any, hub: Hub, directory: Directory, backplane: LocalBackplane, threads: int) -> None:
        super().__init__(server, hub, directory, backplane, threads)
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        server.eio.on("message", self._message)
        server.eio.on("disconnect", self._disconnect)

    async def aclose(self) -> None:
        self.close()
        if self._task is not None:
            await asyncio.wait([self._task])

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
        """Nothing: whoever wants to wait has ``aclose``."""

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="automoderate")
        try:
            while True:
                todo = self._next()
                if isinstance(todo, Job):
                    loop.run_in_executor(pool, todo.run).add_done_callback(self._answered)
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

    def _answered(self, job: asyncio.Future[rules.Input]) -> None:
        if not job.cancelled():
            self._tell(job.result())

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
