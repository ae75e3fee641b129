"""A driver with its connections and its one timer: what is the same on every runtime.

``Server`` performs what the driver asks for; an adapter's subclass brings the clock, the timer and the threads.
``SocketLink`` is a connection for the runtimes that hand out plain non-blocking sockets and a way to wait for them.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from automoderate.adapters import _shared
from automoderate.adapters._shared import HIGH_WATER, Inbox, ServerHandle, peer_of
from automoderate.adapters._wsgi import Bridge, WSGIApplication
from automoderate.protocol.outputs import Abort, Close, Driver, Fanout, Job, Output, Transport, Write

if TYPE_CHECKING:
    from automoderate.protocol.http import Connection

BUFFERS = 64  # pieces handed to the kernel in one call

log = logging.getLogger(__name__)


class Flag(Protocol):
    """A runtime's event that stays set."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...


class Server(ABC):
    """Everything here runs on the runtime's thread."""

    stopping: Flag  # a signal, a handle or the runtime asked to leave
    quiet: Flag  # nothing left to wait for

    def __init__(
        self,
        driver: Driver,
        app: WSGIApplication | None,
        threads: int,
        max_write_buffer: int,
        wake: Callable[[], object],
    ) -> None:
        self.driver = driver
        self.inbox = Inbox(wake)
        # A worker notices a slow peer up to two pieces late, and may not run into the bound meanwhile.
        self.high_water = min(HIGH_WATER, max_write_buffer // 4)
        self.bridge = Bridge(app, driver, self.inbox, threads=threads, piece=self.high_water)
        self.max_write_buffer = max_write_buffer
        self.links: set[Transport] = set()
        self.dismissed = False  # every connection was told to close, and newcomers have to be
        self._draining = False

    @abstractmethod
    def now(self) -> float:
        """The runtime's monotonic clock."""

    @abstractmethod
    def arm(self, deadline: float) -> None:
        """Make sure that ``tick`` is called at ``deadline`` or before: one that is early is harmless."""

    @abstractmethod
    def start_job(self, job: Job) -> None:
        """Run a job in a worker thread."""

    def handle(self, listeners: Sequence[socket.socket]) -> ServerHandle:
        """The handle for other threads."""
        addresses = tuple(listener.getsockname()[:2] for listener in listeners)
        return ServerHandle(self.inbox, self.stop, addresses)

    def drive(self, link: Transport, call: Callable[..., None], *args: Any) -> None:
        """Call the driver on behalf of one connection, which alone pays for a mistake in there."""
        try:
            call(*args, self.now())
        except Exception:
            log.exception("Error while serving a connection; it is dropped")
            link.abort()
        self.flush()

    def run(self, call: Callable[[float], object]) -> None:
        """Call the driver on nobody's behalf."""
        try:
            call(self.now())
        except Exception:
            log.exception("Error in the driver")
        self.flush()

    def flush(self) -> None:
        """Perform the driver's outputs in order and re-arm the timer: the end of everything that happens."""
        try:
            while outputs := self.driver.outputs():
                for output in outputs:
                    try:
                        self._perform(output)
                    except Exception:  # the outputs behind it belong to others
                        log.exception("Error while performing %s", type(output).__name__)
            if (deadline := self.driver.next_deadline()) is not None:
                self.arm(deadline)
            if self._draining:
                self._dismiss()
        except Exception:
            log.exception("Error in the driver")

    def _dismiss(self) -> None:
        """Close the connections, once, as soon as nothing on them deserves waiting for."""
        if not self.dismissed and self.bridge.idle and self.driver.drained():
            self.dismissed = True
            for link in tuple(self.links):
                link.close()
        if self.dismissed and not self.links:
            self.quiet.set()

    def _perform(self, output: Output) -> None:
        if isinstance(output, Fanout):
            self._write(output.writes)
        elif isinstance(output, Write):
            self._write((((output.connection,), output.data),))
        elif isinstance(output, Close):
            output.connection.transport.close()
        elif isinstance(output, Abort):
            output.connection.transport.abort()
        elif isinstance(output, Job):
            self.start_job(output)
        else:
            self.bridge.perform(output, self.now())

    @staticmethod
    def _write(writes: Iterable[tuple[Iterable[Connection], bytes]]) -> None:
        """The loop that all speed comes from: what happens here happens for every update and every member."""
        for connections, data in writes:
            size = len(data)
            for connection in connections:
                write = connection.write  # not called at once: CPython is slow to find a method that is in a slot
                try:
                    sent = write(data)
                except BlockingIOError:
                    sent = 0
                except OSError:  # the peer has reset the connection
                    connection.transport.abort()
                    continue
                except Exception:
                    log.exception("Error while writing to a connection; it is dropped")
                    connection.transport.abort()
                    continue
                if sent != size:
                    connection.transport.keep(memoryview(data)[sent:])

    def tick(self) -> None:
        """The timer fired."""
        self.run(self.driver.tick)

    def run_inbox(self) -> None:
        """Another thread has put something into the inbox."""
        if not self.inbox.closed:
            self.run(self.inbox.run)

    def stop(self, now: float = 0.0) -> None:
        """Begin to leave."""
        self.stopping.set()

    def on_signal(self) -> None:
        """The first signal begins to leave, the second leaves."""
        if self.stopping.is_set():
            self.quiet.set()
        self.stopping.set()

    def begin_draining(self) -> None:
        """Let the driver end its sessions; ``quiet`` is set once everything that deserves waiting for is done."""
        self._draining = True
        self.run(self.driver.drain)

    def drained_too_slowly(self, timeout: float) -> None:
        """Say that waiting for ``quiet`` was given up."""
        log.warning("Not everything was finished in %g s; %d connections are cut", timeout, len(self.links))

    def let_go(self) -> None:
        """Give up whatever is still there; the runtime then reports each connection lost. Idempotent."""
        self.dismissed = True
        self.bridge.close()
        self.inbox.close()
        for link in tuple(self.links):
            link.abort()


class SocketLink(ABC):
    """One connection on a plain non-blocking socket: the driver's ``Transport``.

    ``write`` is the socket's own ``send``. While the kernel's buffer is full it is a function that puts the data behind
    what waits already, and once the connection is over one that ignores it; ``connection.write`` is always the same
    function, so that a broadcast finds it without a detour.
    """

    __slots__ = ("closing", "connection", "server", "sock", "unsent", "waiting", "write")

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.connection: Connection | None = None
        self.closing = False
        # The pieces are shared with everybody who waits for the same broadcast. A list, as it nearly always is empty,
        # and an empty deque takes ten times the memory.
        self.unsent: list[bytes | memoryview] = []
        self.waiting = 0  # bytes in there
        self.write: Callable[[bytes], int] = sock.send

    @abstractmethod
    def start_writing(self) -> None:
        """Call ``send_unsent`` whenever the kernel takes something, as long as there is something ``unsent``."""

    @abstractmethod
    def end(self, after: float = 0.0) -> None:
        """Stop reading within ``after`` seconds and ``let_go``. Called any number of times; the soonest counts."""

    def begin(self) -> None:
        """Tell the driver that there is a connection."""
        if self.server.dismissed:  # everybody else was just told to go
            self.end()
            return
        sock = self.sock
        peer = peer_of(None, None)
        with contextlib.suppress(OSError):  # the peer has reset the connection already
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = peer_of(sock.getpeername(), sock.getsockname())

        def connect(now: float) -> None:
            self.connection = self.server.driver.connect(self, peer, now)

        self.server.links.add(self)
        self.server.drive(self, connect)

    def received(self, data: bytes) -> None:
        """Hand data to the driver; none of it, ``b""``, is the end of the stream."""
        if self.connection is None or self.closing:
            return
        if data:
            self.server.drive(self, self.server.driver.receive_data, self.connection, data)
        else:
            self.server.drive(self, self.server.driver.receive_eof, self.connection)

    def let_go(self) -> None:
        """Close the socket and report the connection lost; once."""
        if self.unsent:
            self._reset_on_close()
        self.sock.close()
        self.server.links.discard(self)
        self._write_with(discard)
        self._forget()
        if self.connection is not None:
            self.server.bridge.lost(self.connection)
            self.server.drive(self, self.server.driver.connection_lost, self.connection)

    def close(self) -> None:
        self.closing = True
        self._write_with(discard)
        self.end(_shared.CLOSE_TIMEOUT if self.unsent else 0.0)

    def abort(self) -> None:
        if self in self.server.links:
            self.closing = True
            self._write_with(discard)
            self._forget()
            self._reset_on_close()
            self.end()

    def keep(self, rest: memoryview) -> None:
        """Hold what the kernel did not take of a write, and everything written from here on until it takes it."""
        # A worker thread can wait for a slow peer; what the driver writes by itself can only be bounded.
        self.unsent.append(rest)
        self.waiting = len(rest)
        self._write_with(self._put)
        if self.connection is not None:
            self.server.bridge.pause(self.connection)
        self.start_writing()

    def _put(self, data: bytes) -> int:
        """Write while the peer is slow. One that stays slow is dropped: it comes back and catches up."""
        if self.waiting + len(data) <= self.server.max_write_buffer:
            self.unsent.append(data)
            self.waiting += len(data)
        else:
            log.info("Dropped a peer that takes no data while %d bytes wait for it", self.waiting)
            self.abort()
        return len(data)

    def send_unsent(self) -> None:
        """Send what the kernel takes now. When all is gone, writing is direct again, or the close may happen."""
        try:
            sent = self.sock.sendmsg(self.unsent[:BUFFERS])
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        self.waiting -= sent
        gone = 0
        while gone < len(self.unsent) and sent >= len(self.unsent[gone]):
            sent -= len(self.unsent[gone])
            gone += 1
        del self.unsent[:gone]
        if self.unsent:
            self.unsent[0] = memoryview(self.unsent[0])[sent:]
            return
        if self.closing:
            self.end()
            return
        self._write_with(self.sock.send)
        if self.connection is not None:
            self.server.bridge.resume(self.connection)

    def _reset_on_close(self) -> None:
        # So that a cut is no orderly end and the kernel lets go of what the peer never took.
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _forget(self) -> None:
        self.unsent.clear()
        self.waiting = 0

    def _write_with(self, write: Callable[[bytes], int]) -> None:
        self.write = write
        if self.connection is not None:
            self.connection.write = write


def discard(data: bytes) -> int:
    """The ``write`` of a connection that is over."""
    return len(data)


def accept(listener: socket.socket) -> socket.socket | None:
    """The next connection, or None where none waits. ``OSError`` where the process or the system is out of something:
    wait a moment and try again."""
    while True:
        try:
            return listener.accept()[0]
        except BlockingIOError:
            return None
        except ConnectionError:
            continue  # gone before it was accepted
