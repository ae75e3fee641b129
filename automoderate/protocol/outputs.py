"""What the sans-IO layers ask of an adapter, and what an adapter must be able to drive.

The protocol and the server never touch a socket. They queue *outputs*; after every input the adapter drains
``driver.outputs()`` and performs them strictly in order, because two outputs may address the same connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from automoderate.protocol.events import Request
    from automoderate.protocol.http import Connection


class Transport(Protocol):
    """One accepted TCP connection, as an adapter implements it."""

    @property
    def write(self) -> Callable[[bytes], int]:
        """A non-blocking ``send``, at first: a function that sends what the kernel takes now and returns how many bytes
        that were, or raises BlockingIOError for none. The adapter hands the rest to ``keep``."""

    def keep(self, rest: memoryview, /) -> object:
        """Hold the (bounded) rest of a write. Until it is gone the connection's ``write`` puts data behind it."""

    def close(self) -> object:
        """Close once everything written so far has left; idempotent."""

    def abort(self) -> object:
        """Close at once and forget what has not left; idempotent."""


@frozen
class Peer:
    """The other end of the TCP connection: ``address`` without port ("" for a Unix socket), and what we listen as."""

    address: str
    port: int
    scheme: str = "http"
    local_address: str = "127.0.0.1"
    local_port: int = 0


@frozen
class Write:
    """Write ``data`` to one connection: ``connection.write(data)``."""

    connection: Connection
    data: bytes


@frozen
class Fanout:
    """Write the same data to each of some connections, in a plain loop: the path a broadcast takes."""

    writes: Sequence[tuple[Sequence[Connection], bytes]]


@frozen
class Close:
    """Close the connection once what was written before has left."""

    connection: Connection


@frozen
class Abort:
    """Drop the connection at once."""

    connection: Connection


@frozen
class Job:
    """Run ``call`` in a worker thread, then report with ``driver.job_done(ticket, result_or_exception, now)``."""

    ticket: int
    call: Callable[[], object]


@frozen
class RequestStarted:
    """A request that is not for the protocol (a page, an API call): hand it to the WSGI application."""

    connection: Connection
    request: Request


@frozen
class RequestBody:
    """The next piece of that request's body."""

    connection: Connection
    data: bytes


@frozen
class RequestFinished:
    """That request is complete; the answer may start (``driver.respond``)."""

    connection: Connection


@frozen
class RequestAborted:
    """The connection of that request is gone: stop working on it; answers are ignored from here on."""

    connection: Connection


Output = Write | Fanout | Close | Abort | Job | RequestStarted | RequestBody | RequestFinished | RequestAborted


class Driver(Protocol):
    """What every adapter drives. ``now`` is always the runtime's monotonic clock, seconds as float.

    After *every* call that takes ``now``, and whenever ``next_deadline()`` passes (call ``tick``), the adapter drains
    ``outputs()`` and re-arms its one timer.
    """

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection: ...
    def receive_data(self, connection: Connection, data: bytes, now: float) -> None: ...
    def receive_eof(self, connection: Connection, now: float) -> None: ...
    def connection_lost(self, connection: Connection, now: float) -> None: ...

    def respond(
        self, connection: Connection, status: int, reason: str, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        """Start the answer to the connection's current application request."""

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None: ...
    def respond_end(self, connection: Connection, now: float) -> None: ...

    def job_done(self, ticket: int, result: object | BaseException, now: float) -> None: ...
    def tick(self, now: float) -> None: ...
    def next_deadline(self) -> float | None: ...
    def outputs(self) -> list[Output]: ...

    def drain(self, now: float) -> None:
        """Stop on purpose: end every session so that clients come back by themselves, refuse new ones."""

    def drained(self) -> bool:
        """True once nothing is left that deserves waiting for."""


__all__ = [
    "Abort", "Close", "Driver", "Fanout", "Job", "Output", "Peer", "RequestAborted", "RequestBody",
    "RequestFinished", "RequestStarted", "Transport", "Write",
]  # fmt: skip
