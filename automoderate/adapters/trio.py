"""The trio adapter: one nursery with one task that reads for every connection, and a task for each blocked one.

A parked task for every idle connection would take kilobytes each. So the sockets are in a selector of
their own, whose descriptor is what the one task waits for with ``wait_readable``: it can be read while any of them can.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import selectors
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import anyio
import trio

from automoderate.adapters import Handle
from automoderate.adapters._server import Server, SocketLink, accept
from automoderate.adapters._shared import Jobs, listen
from automoderate.adapters._wsgi import WSGIApplication
from automoderate.protocol.outputs import Driver, Job

READ = 64 * 1024  # bytes taken from a socket at a time
SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXHAUSTED = 0.1  # seconds to wait for a file descriptor to become free

log = logging.getLogger(__name__)


class _Link(SocketLink):
    """One connection: watched for reading, a task that writes while the kernel takes no more, and one that ends it."""

    __slots__ = ("ending",)
    server: _Server

    def __init__(self, server: _Server, sock: socket.socket) -> None:
        super().__init__(server, sock)
        self.ending: trio.CancelScope | None = None  # its deadline is that of the connection

    def read(self) -> None:
        """Take what has arrived."""
        with self._on_its_own():
            try:
                data = self.sock.recv(READ)
            except BlockingIOError:
                return
            if not data:
                self.server.unwatch(self)  # the peer may still be reading: closing is the driver's decision
            self.received(data)

    def start_writing(self) -> None:
        self.server.nursery.start_soon(self._write_unsent)

    async def _write_unsent(self) -> None:
        with self._on_its_own():
            while self.unsent:
                await trio.lowlevel.wait_writable(self.sock)
                self.send_unsent()

    @contextlib.contextmanager
    def _on_its_own(self) -> Iterator[None]:
        """Whatever goes wrong ends this connection and nothing else."""
        try:
            yield
        except trio.ClosedResourceError:
            pass
        except OSError:
            self.abort()  # a reset
        except Exception:
            log.exception("Error in a connection; it is dropped")
            self.abort()

    def end(self, after: float = 0.0) -> None:
        self.server.unwatch(self)
        deadline = trio.current_time() + after
        if self.ending is None:
            self.ending = trio.CancelScope(deadline=deadline)
            # In a task also where it is due at once: the driver may be in the middle of something.
            self.server.nursery.start_soon(self._end, self.ending)
        else:
            self.ending.deadline = min(self.ending.deadline, deadline)

    async def _end(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await trio.sleep_forever()
        finally:
            self.finish()

    def finish(self) -> None:
        """Whatever state it is in: it is over."""
        self.server.unwatch(self)
        trio.lowlevel.notify_closing(self.sock)  # ends the task that writes
        self.let_go()


class _Server(Server):
    """The tasks of a server, and its timer."""

    nursery: trio.Nursery
    stopping: trio.Event
    quiet: trio.Event

    def __init__(self, driver: Driver, app: WSGIApplication | None, threads: int, max_write_buffer: int) -> None:
        token = trio.lowlevel.current_trio_token()
        super().__init__(driver, app, threads, max_write_buffer, lambda: token.run_sync_soon(self.run_inbox))
        self.stopping = trio.Event()
        self.quiet = trio.Event()
        self._jobs = Jobs(driver, self.inbox, threads)
        self._selector = selectors.DefaultSelector()
        self._alarm = trio.CancelScope()

    def now(self) -> float:
        return trio.current_time()

    def arm(self, deadline: float) -> None:
        if deadline < self._alarm.deadline:
            self._alarm.deadline = deadline

    def start_job(self, job: Job) -> None:
        self._jobs.start(job)

    def watch(self, link: _Link) -> None:
        """Call the connection's ``read`` whenever there is something to read."""
        self._selector.register(link.sock, selectors.EVENT_READ, link)

    def unwatch(self, link: _Link) -> None:
        """Stop that; always before the socket is closed. Harmless where it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link.sock)

    async def read(self) -> None:
        """Read from every connection that has something."""
        while True:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            self._read_ready()

    # A function of its own, like _accept_waiting: what it holds of a connection ends with it, not with the next one.
    def _read_ready(self) -> None:
        for key, _ in self._selector.select(0):
            if key.fd in self._selector.get_map():  # one that was read before may have ended this one
                key.data.read()

    async def keep_time(self) -> None:
        """Tick at every deadline."""
        while True:
            if self._alarm.deadline <= self.now():
                # A turn of broadcasts in a row, which is quicker than by being cancelled; the sockets are looked at.
                await trio.lowlevel.checkpoint()
            else:
                with self._alarm:
                    await trio.sleep_forever()
            self._alarm = trio.CancelScope()  # the flush that follows arms it
            self.tick()

    async def accept_from(self, listener: socket.socket) -> None:
        """Watch every connection that comes."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                self._accept_waiting(listener)
            except OSError as error:
                log.warning("Cannot accept connections for now: %s", error.strerror)
                await trio.sleep(EXHAUSTED)

    def _accept_waiting(self, listener: socket.socket) -> None:
        while (sock := accept(listener)) is not None:
            link = _Link(self, sock)
            link.begin()
            if not link.closing and link.ending is None:
                self.watch(link)

    async def heed(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for _ in signals:
            self.on_signal()

    async def stop_when_cancelled(self) -> None:
        """Turn a cancellation from outside into an orderly end."""
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    async def serve(
        self,
        listeners: list[socket.socket],
        signals: AsyncIterator[signal.Signals] | None,
        drain_timeout: float,
        started: Callable[[], None],
    ) -> None:
        """Serve until ``stopping``, then drain."""
        try:
            await self._serve(listeners, signals, drain_timeout, started)
        finally:
            for link in tuple(self.links):
                cast(_Link, link).finish()
            self._jobs.close()
            self._selector.close()

    async def _serve(
        self,
        listeners: list[socket.socket],
        signals: AsyncIterator[signal.Signals] | None,
        drain_timeout: float,
        started: Callable[[], None],
    ) -> None:
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.keep_time)
            self.nursery.start_soon(self.read)
            if signals is not None:
                self.nursery.start_soon(self.heed, signals)
            for listener in listeners:
                self.nursery.start_soon(self.accept_from, listener)
            self.flush()
            started()
            await self.stopping.wait()
            self.begin_draining()
            with trio.move_on_after(drain_timeout) as waiting:
                await self.quiet.wait()
            if waiting.cancelled_caught:
                self.drained_too_slowly(drain_timeout)
            self.let_go()
            self.nursery.cancel_scope.cancel()


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
    task_status: trio.TaskStatus[Handle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``driver`` within a trio program until stopped or cancelled; the arguments are those of ``run``.

    ``handle = await nursery.start(partial(serve, driver, ...))`` returns once connections are accepted. A cancellation
    is an orderly end: it is held back for at most ``drain_timeout`` seconds. Signals are the program's own business
    unless ``handle_signals`` says otherwise.
    """
    listeners = listen(host, port, reuse_port=reuse_port)
    server = _Server(driver, app, threads, max_write_buffer)
    handle = server.handle(listeners)
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        stack.callback(server.let_go)
        signals = stack.enter_context(anyio.open_signal_receiver(*SIGNALS)) if handle_signals else None
        if on_ready is not None:
            on_ready(handle)  # the kernel accepts connections already
        async with trio.open_nursery() as outside:
            outside.start_soon(server.stop_when_cancelled)
            with trio.CancelScope(shield=True):
                await server.serve(listeners, signals, drain_timeout, lambda: task_status.started(handle))
            outside.cancel_scope.cancel()


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

    The arguments are those of every adapter, see ``automoderate.adapters``.
    """
    trio.run(
        functools.partial(
            serve,
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


__all__ = ["run", "serve"]
