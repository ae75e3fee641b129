"""A driver with its sockets and threads, for a runtime that can wait for one descriptor or a time.

This is all of an adapter that does not depend on the runtime::

    with Runtime(driver, options, clock) as runtime:
        runtime.begin(on_ready)
        while not runtime.done:
            ...  # wait until runtime.fileno() can be read, but at most until runtime.deadline
            runtime.turn()
"""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from threading import get_ident
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

from attrs import field, frozen

from automoderate._listening import UnixSocket, listen
from automoderate._threads import Inbox, Workers, outcome
from automoderate.adapters._poller import Doorbell, Poller
from automoderate.adapters._tls import Certificate
from automoderate.adapters._wsgi import Bridge, WSGIApplication
from automoderate.protocol.driver import Driver
from automoderate.protocol.error_pages import ErrorPage
from automoderate.protocol.model import Connection
from automoderate.protocol.outputs import Awaited, Fanout, Job, Output, TransportCall, Write, call_transport

__all__ = ["Certificate", "Handle", "OnReady", "Options", "Runtime", "WSGIApplication"]

T = TypeVar("T")

HIGH_WATER = 64 * 1024
"""Bytes waiting for one peer before it counts as slow."""

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Options:
    """Where and how to serve: the same for every adapter."""

    host: str | Sequence[str] = "127.0.0.1"
    """The addresses or names to listen on, "" for all interfaces; ``::`` alone takes IPv4 too."""
    port: int = 6217
    """0: a free one, see ``Handle.addresses``."""
    uds: str | None = None
    """The path of a Unix socket to listen on in place of ``host`` and ``port``. It is removed at the end."""
    reuse_port: bool = False
    """Share the port with other processes that say so too."""
    sockets: Sequence[socket.socket] = ()
    """Sockets that listen already, in place of ``host``, ``port`` and ``uds``. They are closed at the end."""
    app: WSGIApplication | None = None
    """Answers the requests that are not the protocol's."""
    error_pages: Mapping[int, ErrorPage] = field(factory=dict, repr=False)
    """What browsers are answered in place of plain text, by its status, where it cannot answer."""
    threads: int = 16
    """Worker threads for those requests; as many again run the driver's jobs."""
    drain_timeout: float = 10.0
    """Seconds that leaving may take."""
    max_write_buffer: int = 1024 * 1024
    """Bytes that may wait for one peer; more end its connection."""
    certificate: Certificate | None = None
    """Makes it TLS: ``https`` and ``wss``."""


class Handle(Protocol):
    """A running server, for other threads: every method may be called from any of them."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Address and port of every listening socket; of a Unix socket its path, and 0."""

    def submit(self, call: Callable[[float], T | Future[T]], /) -> Future[T]:
        """Run ``call(now)`` on the runtime's thread and flush.

        The future has its result, its exception or ``ServerStopped``, and where the result is a future, what comes of
        that one. Do not wait for it on the runtime's own thread.
        """

    def watch(self, fileno: int, ready: Callable[[float], bool], /) -> Future[None]:
        """Run ``ready(now)`` there and flush, now and whenever the descriptor can be read, until it says False.

        There need not be anything to read each time. The future is done after the first time, or fails as that of
        ``submit``. What is watched already is only run once more. The descriptor may be closed when ``ready`` has said
        False.
        """

    def stop(self) -> None:
        """Begin draining, as SIGTERM does; returns at once."""


OnReady: TypeAlias = Callable[[Handle], None] | None
"""Is called once connections are accepted, on the runtime's thread."""


class Runtime:
    """Everything here runs on the runtime's thread, but for ``stop`` and ``on_signal``.

    ``clock`` is the runtime's monotonic clock. Raises ``OSError`` where it cannot listen. Leaving the ``with`` block
    lets go of everything, whatever its state.
    """

    def __init__(self, driver: Driver, options: Options, clock: Callable[[], float]) -> None:
        self._unix_socket = UnixSocket(options.uds) if options.uds is not None and not options.sockets else None
        if self._unix_socket is not None:
            listeners: Sequence[socket.socket] = [self._unix_socket.sock]
        else:
            listeners = options.sockets or listen(options.host, options.port, reuse_port=options.reuse_port)
        self.done = False
        """Nothing is left to wait for."""
        self.deadline = math.inf
        """When ``turn`` has something to do although the descriptor cannot be read; in the past where it has more."""
        self._driver = driver
        self._due = math.inf  # when the driver wants a tick, as it said last
        self._clock = clock
        self._options = options
        self._bell = Doorbell()
        self._turning: int | None = None  # the thread that takes a turn
        self.inbox = Inbox(self._wake)
        # A worker notices a slow peer up to two pieces late, and may not run into the bound meanwhile.
        high_water = min(HIGH_WATER, options.max_write_buffer // 4)
        self._bridge = Bridge(
            options.app, driver, self.inbox, threads=options.threads, piece=high_water, error_pages=options.error_pages
        )
        self._jobs = Workers("automoderate-job", options.threads)
        self._poller = Poller(
            driver, self._bridge, self._bell, listeners,
            max_write_buffer=options.max_write_buffer, certificate=options.certificate,
        )  # fmt: skip
        self.handle: Handle = _RuntimeHandle(self, self._poller.addresses)
        """For other threads."""
        self._stopping = False  # asked to leave
        self._asked_by = "request"  # or the name of a signal
        self._leaving = False  # asked to leave at once
        self._reloading = False  # asked to read the certificate again
        self._drain_until = math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def begin(self, on_ready: OnReady = None) -> None:
        """Do what the driver wants to be done first, and say that connections are accepted."""
        self._flush(self._clock())
        if on_ready is not None:
            on_ready(self.handle)

    def fileno(self) -> int:
        """The descriptor that can be read while ``turn`` has something to do."""
        return self._poller.fileno()

    def turn(self) -> None:
        """Do what there is to do, in bounded bites, and flush. One too many is harmless."""
        now = self._clock()
        self._turning = get_ident()
        begun = perf_counter()  # the runtime's clock may stand still meanwhile
        try:
            self._take_turn(now)
            self._driver.turned(now, perf_counter() - begun)
        finally:
            self._turning = None
            if self.inbox.waiting:
                self.deadline = now

    def watch(self, fileno: int, ready: Callable[[float], bool], now: float) -> None:
        """As of ``Handle``."""
        self._poller.attend(fileno, ready, now)

    def _take_turn(self, now: float) -> None:
        # What only this turn makes due has the next one: an update to a small room is written without a tick.
        due = self._due <= now
        self.deadline = math.inf
        self._poller.turn(now)
        if self.inbox.waiting:
            self.inbox.run(now)
        try:
            self._heed(now)
            if due:
                self._driver.tick(now)
        except Exception:
            log.exception("Error in the driver", extra={"event": "driver_error"})
        self._flush(now)
        if self._drain_until <= now and not self.done:
            log.warning(
                "Not everything was finished in %g s; %d connections are cut",
                self._options.drain_timeout, len(self._poller.transports), extra={"event": "drain_timed_out"},
            )  # fmt: skip
            self.done = True
        self.done = self.done or self._leaving

    def _wake(self) -> None:
        """Have a turn taken for what was put into the inbox. Of what a turn itself puts there, its end takes note."""
        if self._turning != get_ident():
            self._bell.ring()

    def _heed(self, now: float) -> None:
        """Do what was asked for by a signal, a handle or a cancellation."""
        if self._reloading and self._options.certificate is not None:
            self._reloading = False
            self._options.certificate.reload()
        if self._stopping and self._drain_until == math.inf:
            log.info(
                "Leaving on %s: clients are told to come back elsewhere, running requests have %g s",
                self._asked_by, self._options.drain_timeout, extra={"event": "draining", "reason": self._asked_by},
            )  # fmt: skip
            self._drain_until = now + self._options.drain_timeout
            self._driver.drain(now)
        if self._leaving:
            log.warning(
                "Leaving at once on %s; %d connections are cut", self._asked_by, len(self._poller.transports),
                extra={"event": "leaving_at_once", "reason": self._asked_by},
            )  # fmt: skip

    def stop(self) -> None:
        """Begin to leave: drain, and be ``done`` when nothing deserves waiting for or ``drain_timeout`` is over."""
        self._stopping = True
        self._bell.ring()

    @property
    def signals(self) -> tuple[signal.Signals, ...]:
        """What an adapter that handles signals hands to ``on_signal``.

        SIGHUP is not among them where the process was started with it ignored, as ``nohup`` does, and there is no
        certificate to read again.
        """
        leaving = (signal.SIGTERM, signal.SIGINT)
        ignored = self._options.certificate is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        return leaving if ignored else (*leaving, signal.SIGHUP)

    def on_signal(self, number: int, *_: object) -> None:
        """SIGHUP reads the certificate again where there is one; else the first begins to leave, the second leaves.

        Also to be called from a signal handler, wherever that interrupts.
        """
        if number == signal.SIGHUP and self._options.certificate is not None:
            self._reloading = True
            self._bell.ring()
        else:
            self._asked_by = signal.Signals(number).name
            self._leaving = self._stopping
            self.stop()

    def _flush(self, now: float) -> None:
        """Perform the driver's outputs in order: the end of every turn."""
        try:
            while True:
                outputs = self._driver.outputs()
                for output in outputs:
                    try:
                        self._perform(output, now)
                    except Exception:  # the outputs behind it belong to others
                        log.exception(
                            "Error while performing %s", type(output).__name__, extra={"event": "output_error"}
                        )
                if not outputs and not self._poller.finish_ended(now):
                    break
            if self._drain_until < math.inf:
                self._dismiss(now)
            due, ready = self._driver.next_deadline(), self._poller.next_deadline()
            self._due = math.inf if due is None else due
            self.deadline = min(self._due, math.inf if ready is None else ready, self._drain_until)
        except Exception:
            log.exception("Error in the driver", extra={"event": "driver_error"})

    def _dismiss(self, now: float) -> None:
        """Close the connections, once, as soon as nothing on them deserves waiting for."""
        if not self._poller.turning_away and self._bridge.idle and self._driver.drained():
            self._poller.turning_away = True
            for transport in tuple(self._poller.transports):
                transport.close()
            self._poller.finish_ended(now)
        if self._poller.turning_away and not self._poller.transports:
            self.done = True

    def _perform(self, output: Output, now: float) -> None:
        if isinstance(output, Fanout):
            self._write(output.writes)
        elif isinstance(output, Write):
            self._write((((output.connection,), output.data),))
        elif isinstance(output, TransportCall):
            call_transport(output)
        elif isinstance(output, Job):
            self._jobs.put(lambda: self._run(output))
        elif isinstance(output, Awaited):
            output.future.add_done_callback(lambda future: self._done(output.ticket, outcome(future.result)))
        else:
            self._bridge.perform(output, now)

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
                    log.exception(
                        "Error while writing to a connection; it is dropped", extra={"event": "connection_error"}
                    )
                    connection.transport.abort()
                    continue
                if sent != size:
                    connection.transport.keep(memoryview(data)[sent:])

    def _run(self, job: Job) -> None:
        """One of the driver's jobs, in a worker thread."""
        if not self.inbox.closed:
            self._done(job.ticket, outcome(job.call))

    def _done(self, ticket: int, result: object) -> None:
        """What the driver has waited for is there; from any thread."""
        self.inbox.post(lambda now: self._driver.job_done(ticket, result, now))

    def _close(self) -> None:
        """Let go of everything; each connection is reported lost."""
        self._poller.turning_away = True
        self._bridge.close()
        self.inbox.close()
        self._jobs.close()
        for transport in tuple(self._poller.transports):
            transport.abort()
        self._flush(self._clock())
        if self._unix_socket is not None:
            self._unix_socket.remove()
        self._poller.close()
        self._bell.close()


class _RuntimeHandle:
    def __init__(self, runtime: Runtime, addresses: tuple[tuple[str, int], ...]) -> None:
        self.addresses = addresses
        self._runtime = runtime

    def submit(self, call: Callable[[float], T | Future[T]], /) -> Future[T]:
        return self._runtime.inbox.submit(call)

    def watch(self, fileno: int, ready: Callable[[float], bool], /) -> Future[None]:
        return self._runtime.inbox.submit(lambda now: self._runtime.watch(fileno, ready, now))

    def stop(self) -> None:
        self._runtime.inbox.post(lambda _: self._runtime.stop())
