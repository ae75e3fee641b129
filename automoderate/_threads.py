"""What every adapter needs and no runtime provides: listening sockets, worker threads, calls from other threads."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import ModuleType
from typing import Any, TypeVar

from automoderate.adapters import ServerStopped
from automoderate.protocol.outputs import Driver, Job, Peer

T = TypeVar("T")
Call = Callable[[float], object]

CALLS = 64  # calls from other threads that are run between two looks at the sockets
BACKLOG = 2048  # after a restart every client comes back within a second or two
CLOSE_TIMEOUT = 30.0  # seconds a peer has to take the rest of what was written before its connection was closed
HIGH_WATER = 64 * 1024  # bytes waiting for one peer before it counts as slow

log = logging.getLogger(__name__)


def real(module: ModuleType) -> ModuleType:
    """``socket`` or ``threading`` as the standard library has it, also where eventlet has put green ones in its place.

    Green locks wake nobody in another thread, and what is shared here is shared by threads of the operating system.
    """
    patcher = sys.modules.get("eventlet.patcher")
    name = {"threading": "thread"}.get(module.__name__, module.__name__)
    if patcher is None or not patcher.is_monkey_patched(name):
        return module
    original: ModuleType = patcher.original(module.__name__)
    return original


def real_future() -> Future[Any]:
    """A future for which threads of the operating system can wait, green or not."""
    future: Future[Any] = Future()
    # Waiting for it has to be real as well, for which there is no public way.
    future._condition = real(threading).Condition()
    return future


def listen(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Non-blocking listening sockets for every address of ``host`` ("" for all interfaces), all on one port.

    With ``port`` 0 the first socket's free port is taken for the others too. Connections are shared with every other
    socket on the port where all of them say ``reuse_port``. Raises ``OSError`` naming the address.
    """
    sockets = bind(host, port, reuse_port=reuse_port)
    for listener in sockets:
        try:
            listener.listen(BACKLOG)
        except OSError as error:
            address = listener.getsockname()
            for opened in sockets:
                opened.close()
            raise _cannot_listen(error, address) from error
    return sockets


def bind(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """The sockets of ``listen`` before they listen: the port is taken, and nobody can connect."""
    flags = socket.AI_PASSIVE
    try:
        found = real(socket).getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {host!r}: {error.strerror}") from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            if sockets and not port:
                port = sockets[0].getsockname()[1]
            sockets.append(_bind(family, kind, protocol, (address[0], port, *address[2:]), reuse_port))
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _bind(family: int, kind: int, protocol: int, address: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    listener: socket.socket = real(socket).socket(family, kind, protocol)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Otherwise "::" would also claim the IPv4 port that the next socket is about to bind.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(error, address) from error
    return listener


def _cannot_listen(error: OSError, address: tuple[Any, ...]) -> OSError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, f"cannot listen on {address[0]} port {address[1]}: {reason}")


def peer_of(remote: tuple[Any, ...] | None, local: tuple[Any, ...] | None) -> Peer:
    """A connection's two ends from ``getpeername``/``getsockname``; None where it is already reset."""
    address, port = remote[:2] if remote else ("", 0)
    local_address, local_port = local[:2] if local else ("", 0)
    return Peer(address=address, port=port, local_address=local_address, local_port=local_port)


class Workers:
    """At most ``count`` threads, started as needed, that run tasks in the order they were put.

    The threads are daemons: a database that never answers must not keep the process from leaving. ``waiting`` bounds
    the tasks nobody has begun (None: no bound).
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
                log.exception("Error in a worker thread")
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
        self._put(call, lambda error: None)

    def submit(self, call: Callable[[float], T]) -> Future[T]:
        """The same, with a future for the result."""
        future: Future[T] = real_future()

        def run(now: float) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call(now))
            except BaseException as error:
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
        """Run what has been put so far, or the first of it and the rest soon; on the runtime's thread."""
        with self._lock:
            calls = [self._calls.popleft() for _ in range(min(len(self._calls), CALLS))]
            if self._calls:
                self._wake()
        for call, _ in calls:
            try:
                call(now)
            except Exception:
                log.exception("Error in a call from another thread")

    def close(self) -> None:
        """Fail what is waiting and everything that comes later."""
        with self._lock:
            self.closed = True
            calls, self._calls = self._calls, deque()
        for _, drop in calls:
            drop(ServerStopped("the server stopped before the call was run"))


class ServerHandle:
    """The ``Handle`` of every adapter."""

    def __init__(self, inbox: Inbox, stop: Call, addresses: tuple[tuple[str, int], ...]) -> None:
        self.addresses = addresses
        self._inbox = inbox
        self._stop = stop

    def submit(self, call: Callable[[float], T], /) -> Future[T]:
        return self._inbox.submit(call)

    def stop(self) -> None:
        self._inbox.post(self._stop)


class Jobs:
    """Runs the driver's jobs in worker threads of their own.

    The queue has no bound of its own: how many checks may be under way is the driver's rule.
    """

    def __init__(self, driver: Driver, inbox: Inbox, threads: int) -> None:
        self._driver = driver
        self._inbox = inbox
        self._workers = Workers("automoderate-job", threads)

    def start(self, job: Job) -> None:
        self._workers.put(lambda: self._run(job))

    def close(self) -> None:
        self._workers.close()

    def _run(self, job: Job) -> None:
        if self._inbox.closed:
            return
        result = outcome(job.call)
        self._inbox.post(lambda now: self._driver.job_done(job.ticket, result, now))


def outcome(call: Callable[[], object]) -> object:
    """What a job returned or raised, ``sys.exit()`` included."""
    try:
        return call()
    except BaseException as error:
        return error
