"""The eventlet adapter: callbacks of eventlet's hub on plain sockets, with or without monkey-patching. Legacy.

The driver runs in the hub's own greenlet, which cannot switch to another: nothing green that it happens to reach, a
log handler for instance, can let a second call into the driver before the first has returned.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from automoderate.adapters import Handle
from automoderate.adapters._server import Server, SocketLink, accept
from automoderate.adapters._shared import Jobs, listen, real
from automoderate.adapters._wsgi import WSGIApplication
from automoderate.protocol.outputs import Driver, Job

with warnings.catch_warnings():
    # It is for who chooses eventlet, and they have read it in the documentation; -W error is for who runs tests.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    import eventlet
    from eventlet import event, hubs, patcher

READ = 64 * 1024  # bytes taken from a socket at a time
ACCEPT = 256  # connections taken at a time, so that those that are there already get their turn
EXHAUSTED = 0.1  # seconds to wait for a file descriptor to become free

log = logging.getLogger(__name__)


class _Flag(event.Event):  # type: ignore[misc]
    """An event that may be set again."""

    def set(self) -> None:
        if not self.ready():
            self.send(True)

    def is_set(self) -> bool:
        return bool(self.ready())


class _Link(SocketLink):
    """One connection: watched for reading, and for writing as long as the kernel takes no more."""

    __slots__ = ("ending",)
    server: _Server

    def __init__(self, server: _Server, sock: socket.socket) -> None:
        super().__init__(server, sock)
        self.ending: Any = None  # the timer of the end
        hubs.notify_opened(sock.fileno())  # whoever had this number before may not have closed properly

    def start_reading(self) -> None:
        if not self.closing:
            self.server.watch(hubs.hub.READ, self.sock, self._read)

    def start_writing(self) -> None:
        self.server.watch(hubs.hub.WRITE, self.sock, self._write)

    def end(self, after: float = 0.0) -> None:
        hub = self.server.hub
        self.server.unwatch(self.sock, hub.READ)
        if not after:
            self.server.unwatch(self.sock, hub.WRITE)
        if self in self.server.links and (self.ending is None or after < self.ending.seconds):
            if self.ending is not None:
                self.ending.cancel()
            # By the timer also where it is due at once: the driver may be in the middle of something.
            self.ending = hub.schedule_call_global(after, self._finish)

    def _finish(self) -> None:
        self.server.unwatch(self.sock, self.server.hub.WRITE)
        self.let_go()

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self.abort()  # a reset
            return
        if not data:
            self.server.unwatch(self.sock, self.server.hub.READ)
        self.received(data)

    def _write(self) -> None:
        self.send_unsent()
        if not self.unsent:
            self.server.unwatch(self.sock, self.server.hub.WRITE)


class _Server(Server):
    """What a server has on the hub of the thread that runs it."""

    stopping: _Flag
    quiet: _Flag

    def __init__(self, driver: Driver, app: WSGIApplication | None, threads: int, max_write_buffer: int) -> None:
        super().__init__(driver, app, threads, max_write_buffer, self.wake)
        self.hub = hubs.get_hub()
        self.stopping = _Flag()
        self.quiet = _Flag()
        self._watched: dict[tuple[str, int], Any] = {}
        self._jobs = Jobs(driver, self.inbox, threads)
        self._timer: Any = None
        self._armed = math.inf
        self._signals = 0
        self._bell, self._rope = real(socket).socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self.watch(self.hub.READ, self._bell, self._woken)

    def watch(self, kind: str, sock: socket.socket, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever the socket can be read or written."""
        key = kind, sock.fileno()

        def call(fileno: int) -> None:
            if self._watched.get(key) is listener:  # the hub collects what to call before it calls the first
                ready()

        listener = self._watched[key] = self.hub.add(*key, call, _stolen, None)

    def unwatch(self, sock: socket.socket, kind: str) -> None:
        """Stop that; always before the socket is closed. Harmless where it is not watched."""
        if (listener := self._watched.pop((kind, sock.fileno()), None)) is not None:
            self.hub.remove(listener)

    def now(self) -> float:
        return float(self.hub.clock())

    def arm(self, deadline: float) -> None:
        if deadline < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.hub.schedule_call_global(deadline - self.now(), self._fire)
            self._armed = deadline

    def _fire(self) -> None:
        self._timer, self._armed = None, math.inf
        self.tick()

    def start_job(self, job: Job) -> None:
        self._jobs.start(job)

    def wake(self) -> None:
        """Have the hub look for signals and into the inbox; from any thread."""
        with contextlib.suppress(BlockingIOError):  # it has been rung often enough
            self._rope.send(b"!")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(READ)
        signals, self._signals = self._signals, 0
        for _ in range(signals):
            self.on_signal()
        self.run_inbox()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        # Nothing but this: it may have interrupted anything, a thread that holds the inbox's lock for instance.
        self._signals += 1
        self.wake()

    @contextlib.contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Leave on SIGTERM and SIGINT."""
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def accept_from(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        if listener.fileno() != -1:
            self.watch(self.hub.READ, listener, functools.partial(self._accept, listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            for _ in range(ACCEPT):
                if (sock := accept(listener)) is None:
                    break
                link = _Link(self, sock)
                link.begin()
                link.start_reading()
        except OSError as error:
            log.warning("Cannot accept connections for now: %s", error.strerror)
            self.unwatch(listener, self.hub.READ)
            self.hub.schedule_call_global(EXHAUSTED, self.accept_from, listener)

    def close(self) -> None:
        """Let go of everything, whatever its state."""
        self.let_go()
        self._jobs.close()
        while self.links:
            eventlet.sleep(0)  # until each of them is reported lost
        if self._timer is not None:
            self._timer.cancel()
        self.unwatch(self._bell, self.hub.READ)
        self._bell.close()
        self._rope.close()
        self._end_hub()

    def _end_hub(self) -> None:
        """End the hub's greenlet, which a thread that ends would leave behind, unless others wait for the hub."""
        timers = [timer for _, timer in (*self.hub.timers, *self.hub.next_timers) if timer.pending]
        outermost = eventlet.getcurrent().parent is None
        if self.hub.running and outermost and not (timers or self.hub.get_readers() or self.hub.get_writers()):
            self.hub.abort(wait=True)


def _stolen(error: Exception) -> None:
    """The hub was told that the number of a watched file belongs to another file now."""
    log.error("The hub has lost a socket: %s", error)


def run(
    driver: Driver,
    *,
    host: str,
    port: int,
    app: WSGIApplication | None = None,
    threads: int = 16,
    drain_timeout: float = 10.0,
    max_write_buffer: int = 1024 * 1024,
    on_ready: Callable[[Handle], None] | None = None,
    handle_signals: bool = True,
    reuse_port: bool = False,
) -> None:
    """Serve ``driver`` until SIGTERM, SIGINT or ``Handle.stop``; ``OSError`` where it cannot listen.

    The arguments are those of every adapter, see ``automoderate.adapters``. Other greenlets run meanwhile.
    """
    _mind_green_locks()
    listeners = listen(host, port, reuse_port=reuse_port)
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        server = _Server(driver, app, threads, max_write_buffer)
        stack.callback(server.close)
        if handle_signals:
            stack.enter_context(server.heeding_signals())
        try:
            for listener in listeners:
                server.accept_from(listener)
            server.flush()
            if on_ready is not None:
                on_ready(server.handle(listeners))
            server.stopping.wait()
            server.begin_draining()
            if not server.quiet.wait(drain_timeout):
                server.drained_too_slowly(drain_timeout)
        finally:
            for listener in listeners:
                server.unwatch(listener, hubs.hub.READ)
                listener.close()


def _mind_green_locks() -> None:
    """Where ``threading`` is monkey-patched, log with real locks, and warn of all the others.

    A green lock wakes nobody in another thread: who waits for one that another thread holds waits for ever.
    """
    if not patcher.is_monkey_patched("thread"):
        return
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            handler.lock = real(threading).RLock()
    log.warning("Threads are monkey-patched; use eventlet.monkey_patch(thread=False), or worker threads may hang")


__all__ = ["run"]
