"""Threads of the operating system beside a runtime: workers that run what blocks, and the way back to the loop."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import select
import selectors
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
Call = Callable[[float], object]

CALLS = 64
"""Calls from other threads that are run between two looks at the sockets."""

log = logging.getLogger(__name__)


class ServerStopped(RuntimeError):
    """A call was handed to a server that is no longer running."""


def real(module: ModuleType) -> ModuleType:
    """``socket`` or ``threading`` as the standard library has it, also where eventlet has put green ones in its place.

    Green locks wake no other thread, and what is shared here is shared by threads of the operating system.
    """
    patcher = sys.modules.get("eventlet.patcher")
    name = {"threading": "thread"}.get(module.__name__, module.__name__)
    if patcher is None or not patcher.is_monkey_patched(name):
        return module
    original: ModuleType = patcher.original(module.__name__)
    return original


@cache
def real_selectors() -> ModuleType:
    """``selectors`` with the kernel's own selectors, also where they have been taken out of it for green ones."""
    if real(select) is select:
        return selectors
    spec = importlib.util.find_spec("selectors")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    green, sys.modules["select"] = select, real(select)  # what the copy imports
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules["select"] = green
    return module


def real_future() -> Future[Any]:
    """A future for which threads of the operating system can wait, green or not."""
    future: Future[Any] = Future()
    original = real(threading)
    if original is not threading:
        # Waiting for it has to be real as well, for which there is no public way.
        future._condition = original.Condition()  # noqa: SLF001
    return future


class Bell:
    """Makes a descriptor readable, from any thread and from a signal handler."""

    def __init__(self) -> None:
        self.sock, self._rope = real(socket).socketpair()
        self.sock.setblocking(False)
        self._rope.setblocking(False)

    def ring(self) -> None:
        """Have who waits for ``sock`` come back."""
        with contextlib.suppress(OSError):  # it has been rung often enough, or is closed
            self._rope.send(b"!")

    def hush(self) -> None:
        """Be quiet again."""
        with contextlib.suppress(BlockingIOError):
            self.sock.recv(4096)

    def close(self) -> None:
        """Let go of both ends; no thread waits for it any more."""
        self.sock.close()
        self._rope.close()


class Workers:
    """At most ``count`` threads, started as needed, that run tasks in the order they were put.

    The threads are daemons: a database that never answers must not keep the process from leaving. ``waiting`` bounds
    the tasks that no worker has begun (None: no bound).
    """

    def __init__(self, name: str, count: int, waiting: int | None = None) -> None:
        self._name = name
        self._count = count
        self._waiting = waiting
        self._tasks: deque[Callable[[], object]] = deque()
        self._threading = real(threading)
        self._ready: threading.Condition = self._threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def put(self, task: Callable[[], object]) -> bool:
        """Queue ``task``; False where the queue is full or closed."""
        with self._ready:
            if self._closed or (self._waiting is not None and len(self._tasks) >= self._waiting + self._idle):
                return False
            self._tasks.append(task)
            if len(self._tasks) > self._idle and self._threads < self._count:
                self._threads += 1
                name = f"{self._name}-{self._threads}"
                self._threading.Thread(target=self._work, name=name, daemon=True).start()
            else:
                self._ready.notify()
            return True

    def close(self) -> None:
        """Take nothing more; the threads leave once the queue is empty. Does not wait for them."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _work(self) -> None:
        while (task := self._take()) is not None:
            try:
                task()
            except BaseException:  # a worker outlives whatever a task does, sys.exit() included
                log.exception("Error in a worker thread", extra={"event": "worker_thread_error"})
            del task  # an idle thread keeps nothing of its last task alive

    def _take(self) -> Callable[[], object] | None:
        with self._ready:
            self._idle += 1
            while not self._tasks and not self._closed:
                self._ready.wait()
            self._idle -= 1
            return self._tasks.popleft() if self._tasks else None


class Inbox:
    """Calls from other threads, waiting for the runtime's thread.

    ``wake()`` is called, on the caller's thread, when the first call is put into an empty inbox: it has to make the
    runtime's thread call ``run(now)`` soon and flush afterwards.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._calls: deque[tuple[Call, Callable[[BaseException], object]]] = deque()
        self._threading = real(threading)
        self._lock: threading.Lock = self._threading.Lock()
        self.closed = False

    def post(self, call: Call) -> None:
        """Run ``call(now)`` on the runtime's thread; an exception is logged, and so nothing comes back."""
        self._put(call, lambda _: None)

    def submit(self, call: Callable[[float], T | Future[T]]) -> Future[T]:
        """Run ``call(now)`` on the runtime's thread; the future has its result.

        Where the call returns a future itself, it has what comes of that one.
        """
        future: Future[T] = real_future()

        def run(now: float) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(now)
            except BaseException as error:
                future.set_exception(error)
            else:
                if isinstance(result, Future):
                    result.add_done_callback(pass_on)
                else:
                    future.set_result(result)

        def pass_on(settled: Future[T]) -> None:
            error = settled.exception()
            if error is None:
                future.set_result(settled.result())
            else:
                future.set_exception(error)

        def drop(error: BaseException) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

        self._put(run, drop)
        return future

    def _put(self, call: Call, drop: Callable[[BaseException], object]) -> None:
        with self._lock:
            if not self.closed:
                self._calls.append((call, drop))
                if len(self._calls) == 1:
                    # Under the lock, so that the runtime cannot be gone between the check and the wake-up.
                    self._wake()
                return
        drop(ServerStopped("the server is not running any more"))

    def run(self, now: float) -> None:
        """Run what has been put so far, on the runtime's thread.

        Of much of it only the first is run: then there is still something ``waiting``.
        """
        with self._lock:
            calls = [self._calls.popleft() for _ in range(min(len(self._calls), CALLS))]
        for call, _ in calls:
            try:
                call(now)
            except Exception:
                log.exception("Error in a call from another thread", extra={"event": "call_error"})

    @property
    def waiting(self) -> bool:
        """Whether ``run`` has something to do."""
        return bool(self._calls)

    def close(self) -> None:
        """Fail what is waiting and everything that comes later."""
        with self._lock:
            self.closed = True
            calls, self._calls = self._calls, deque()
        for _, drop in calls:
            drop(ServerStopped("the server stopped before the call was run"))


def outcome(call: Callable[[], object]) -> object:
    """What a job returned or raised, ``sys.exit()`` included."""
    try:
        return call()
    except BaseException as error:
        return error
