"""The trio adapter: one nursery, in which every connection is a task and a blocked one has a second to write."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import trio

from automoderate.adapters import Handle
from automoderate.adapters._server import Server, SocketLink, accept
from automoderate.adapters._shared import listen, outcome
from automoderate.adapters._wsgi import WSGIApplication
from automoderate.protocol.outputs import Driver, Job

READ = 64 * 1024  # bytes taken from a socket at a time
SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXHAUSTED = 0.1  # seconds to wait for a file descriptor to become free

log = logging.getLogger(__name__)


class _Link(SocketLink):
    """One connection: a task that reads, and as long as the kernel takes no more another one that writes."""

    __slots__ = ("scope",)
    server: _Server

    def __init__(self, server: _Server, sock: socket.socket) -> None:
        super().__init__(server, sock)
        self.scope = trio.CancelScope()

    async def serve(self) -> None:
        """Read until the connection is over, however that happens."""
        try:
            with self.scope, self._on_its_own():
                while data := await self._receive():
                    self.received(data)
                self.received(b"")
                await trio.sleep_forever()  # the peer may still be reading: closing is the driver's decision
        finally:
            trio.lowlevel.notify_closing(self.sock)  # ends the task that writes
            self.let_go()

    async def _receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            with contextlib.suppress(BlockingIOError):
                return self.sock.recv(READ)

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
        except (OSError, trio.ClosedResourceError):  # a reset; the socket is closed
            pass
        except Exception:
            log.exception("Error in a connection; it is dropped")
            self.abort()

    def end(self, after: float = 0.0) -> None:
        if after:
            self.scope.deadline = trio.current_time() + after
        else:
            self.scope.cancel()


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
        self._threads = anyio.CapacityLimiter(threads)
        self._alarm = trio.CancelScope()

    def now(self) -> float:
        return trio.current_time()

    def arm(self, deadline: float) -> None:
        if deadline < self._alarm.deadline:
            self._alarm.deadline = deadline

    def start_job(self, job: Job) -> None:
        self.nursery.start_soon(self._run_job, job)

    async def _run_job(self, job: Job) -> None:
        # Nobody waits for a thread that never ends.
        call = functools.partial(outcome, job.call)
        result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._threads)
        self.run(lambda now: self.driver.job_done(job.ticket, result, now))

    async def keep_time(self) -> None:
        """Tick at every deadline."""
        while True:
            with self._alarm:
                await trio.sleep_forever()
            self._alarm = trio.CancelScope()  # the flush that follows arms it
            self.tick()

    async def accept_from(self, listener: socket.socket) -> None:
        """Make every connection a task."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                while (sock := accept(listener)) is not None:
                    link = _Link(self, sock)
                    link.begin()
                    self.nursery.start_soon(link.serve)
            except OSError as error:
                log.warning("Cannot accept connections for now: %s", error.strerror)
                await trio.sleep(EXHAUSTED)

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
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.keep_time)
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
