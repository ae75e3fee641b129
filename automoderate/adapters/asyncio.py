"""The asyncio adapter: one ``asyncio.Protocol`` per connection and no task; uvloop where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from automoderate.adapters import Handle, _shared
from automoderate.adapters._server import Server, discard
from automoderate.adapters._shared import BACKLOG, Jobs, listen, peer_of
from automoderate.adapters._wsgi import WSGIApplication
from automoderate.protocol.outputs import Driver, Job

if TYPE_CHECKING:
    from automoderate.protocol.http import Connection

log = logging.getLogger(__name__)


class _Link(asyncio.Protocol):
    """One connection: hands what happens on it to the driver, whose ``Transport`` it is."""

    __slots__ = ("connection", "server", "sock", "transport")

    def __init__(self, server: _Server) -> None:
        self.server = server
        self.connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # Straight to the kernel, which the transport is asked only to wait for: it holds something while writing is
        # paused, and never else. A second object for the same descriptor, which stays the transport's to close.
        descriptor = transport.get_extra_info("socket").fileno()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
        if self.server.dismissed:  # accepted, but the server is leaving since
            self.transport.abort()
            return
        self.server.links.add(self)
        self.transport.set_write_buffer_limits(0)
        self._set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = peer_of(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))

        def connect(now: float) -> None:
            self.connection = self.server.driver.connect(self, peer, now)

        self.server.drive(self, connect)

    @property
    def write(self) -> Callable[[bytes], int]:
        return self.sock.send

    def keep(self, rest: memoryview) -> None:
        self.transport.write(rest)

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self.server.drive(self, self.server.driver.receive_data, self.connection, data)

    def eof_received(self) -> bool:
        if self.connection is not None:
            self.server.drive(self, self.server.driver.receive_eof, self.connection)
        return True  # the peer may still be reading: closing is the driver's decision

    def connection_lost(self, error: Exception | None) -> None:
        self.server.links.discard(self)
        self.sock.detach()
        if self.connection is not None:
            self.connection.write = discard
            self.server.bridge.lost(self.connection)
            self.server.drive(self, self.server.driver.connection_lost, self.connection)

    def pause_writing(self) -> None:
        # A worker thread can wait for a slow peer; what the driver writes by itself can only be bounded.
        if self.connection is not None:
            self.server.bridge.pause(self.connection)
            self.connection.write = self._put

    def resume_writing(self) -> None:
        if self.connection is not None and not self.transport.is_closing():
            self.server.bridge.resume(self.connection)
            self.connection.write = self.write

    def close(self) -> None:
        if self.connection is not None:
            self.connection.write = discard
        self.transport.close()
        if self in self.server.links and self.transport.get_write_buffer_size():
            self.server.loop.call_later(_shared.CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        if self in self.server.links:
            if self.connection is not None:
                self.connection.write = discard
            # With a reset, so that a cut is no orderly end and the kernel lets go of what the peer never took.
            self._set_option(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _set_option(self, level: int, option: int, value: int | bytes) -> None:
        with contextlib.suppress(OSError):  # the peer has reset the connection already
            self.sock.setsockopt(level, option, value)

    def _put(self, data: bytes) -> int:
        """Write while the peer is slow. One that stays slow is dropped: it comes back and catches up."""
        waiting = self.transport.get_write_buffer_size()
        if waiting + len(data) <= self.server.max_write_buffer:
            self.transport.write(data)
        else:
            log.info("Dropped a peer that takes no data while %d bytes wait for it", waiting)
            self.abort()
        return len(data)


class _Server(Server):
    """The timer, the threads and the way out."""

    stopping: asyncio.Event
    quiet: asyncio.Event

    def __init__(self, driver: Driver, app: WSGIApplication | None, threads: int, max_write_buffer: int) -> None:
        self.loop = asyncio.get_running_loop()
        wake = partial(self.loop.call_soon_threadsafe, self.run_inbox)
        super().__init__(driver, app, threads, max_write_buffer, wake)
        self.jobs = Jobs(driver, self.inbox, threads)
        self.stopping = asyncio.Event()
        self.quiet = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._armed = math.inf  # when the timer fires; uvloop does not tell of one that is due already

    def now(self) -> float:
        return self.loop.time()

    def arm(self, deadline: float) -> None:
        # A timer that fires too early is harmless and re-arms itself, so deadlines that move on cost nothing.
        if self._armed <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(deadline, self._fire)
        self._armed = deadline

    def _fire(self) -> None:
        self._timer, self._armed = None, math.inf
        self.tick()

    def start_job(self, job: Job) -> None:
        self.jobs.start(job)

    async def drain(self, timeout: float) -> None:
        """Let the driver end its sessions, and wait for what deserves it."""
        self.begin_draining()
        try:
            async with asyncio.timeout(timeout):
                await self.quiet.wait()
        except TimeoutError:
            self.drained_too_slowly(timeout)

    async def leave(self) -> None:
        """Let go of everything, whatever its state."""
        self.jobs.close()
        self.let_go()
        while self.links:
            await asyncio.sleep(0)  # until the loop has reported each of them lost
        if self._timer is not None:
            self._timer.cancel()


async def serve(
    driver: Driver,
    *,
    host: str,
    port: int,
    app: WSGIApplication | None = None,
    threads: int = 16,
    drain_timeout: float = 10.0,
    max_write_buffer: int = 1024 * 1024,
    on_ready: Callable[[Handle], None] | None = None,
    handle_signals: bool = False,
    reuse_port: bool = False,
) -> None:
    """Serve ``driver`` on the running loop until stopped or cancelled; the arguments are those of ``run``.

    A cancellation is an orderly end: it is held back for at most ``drain_timeout`` seconds. Signals are the program's
    own business unless ``handle_signals`` says otherwise.
    """
    sockets = listen(host, port, reuse_port=reuse_port)
    server = _Server(driver, app, threads, max_write_buffer)
    signals = (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
    listeners: list[asyncio.Server] = []
    try:
        for sock in sockets:
            listener = await server.loop.create_server(lambda: _Link(server), sock=sock, backlog=BACKLOG)
            listeners.append(listener)
        for number in signals:
            server.loop.add_signal_handler(number, server.on_signal)
        server.flush()
        if on_ready is not None:
            on_ready(server.handle(sockets))
        try:
            await server.stopping.wait()
        finally:
            await server.drain(drain_timeout)
    finally:
        for listener in listeners:
            listener.close()
        for sock in sockets:
            sock.close()
        await server.leave()
        for number in signals:
            server.loop.remove_signal_handler(number)


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

    ``app`` answers the requests that are not the protocol's, in at most ``threads`` worker threads (as many again run
    the driver's jobs). Leaving takes at most ``drain_timeout`` seconds; a second signal cuts it short. More than
    ``max_write_buffer`` bytes waiting for one peer end its connection. ``on_ready`` gets the handle for other threads
    once connections are accepted. ``handle_signals`` has to be False outside the main thread. ``reuse_port`` shares
    the port with other processes that say so too.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(
            serve(
                driver,
                host=host,
                port=port,
                app=app,
                threads=threads,
                drain_timeout=drain_timeout,
                max_write_buffer=max_write_buffer,
                on_ready=on_ready,
                handle_signals=handle_signals,
                reuse_port=reuse_port,
            )
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


__all__ = ["run", "serve"]
