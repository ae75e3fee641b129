"""What the sans-IO layers ask of an adapter.

The protocol and the server have no sockets. They queue *outputs*. After every input the adapter drains
``driver.outputs()`` and performs them strictly in order, because two outputs can concern the same connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from attrs import frozen

from automoderate.protocol.model import Connection, Request


@frozen
class Write:
    """Write ``data`` to a connection: ``connection.write(data)``."""

    connection: Connection
    data: bytes


@frozen
class Fanout:
    """Write the same data to each of several connections, in a plain loop: the way of a broadcast."""

    writes: Sequence[tuple[Sequence[Connection], bytes]]


@frozen
class SendEof:
    """Send no more, which the peer sees once everything written before has left.

    The connection is read until the peer has ended it, too, but what the peer sends is thrown away.
    """

    connection: Connection


@frozen
class Close:
    """Close the connection once everything written before has left."""

    connection: Connection


@frozen
class Abort:
    """Close the connection at once, without what has not left."""

    connection: Connection


@frozen
class PauseReading:
    """Read no more from the connection for now: what it has sent is not worked through yet."""

    connection: Connection


@frozen
class ResumeReading:
    """Read from the connection again, unless its stream has ended."""

    connection: Connection


@frozen
class Job:
    """Run ``call`` in a worker thread, then call ``driver.job_done(ticket, result_or_exception, now)``."""

    ticket: int
    call: Callable[[], object]


@frozen
class Awaited:
    """Once ``future`` is done, report with ``driver.job_done(ticket, result_or_exception, now)``."""

    ticket: int
    future: Future[Any]


@frozen
class RequestStarted:
    """A request for another path than the protocol's (a page, an API call): hand it to the WSGI application."""

    connection: Connection
    request: Request


@frozen
class RequestBody:
    """The next piece of that request's body."""

    connection: Connection
    data: bytes


@frozen
class RequestFinished:
    """That request is complete: the application may answer it (``driver.respond``)."""

    connection: Connection


@frozen
class RequestAborted:
    """The connection of that request is gone: stop working on it. Answers are ignored from here on."""

    connection: Connection


TransportCall = SendEof | Close | Abort | PauseReading | ResumeReading
"""What the transport of a connection does by itself; ``call_transport`` has it do that."""

Output = (
    Write | Fanout | TransportCall | Job | Awaited | RequestStarted | RequestBody | RequestFinished | RequestAborted
)
"""Everything that an adapter has to perform, in order."""


def call_transport(output: TransportCall) -> None:
    """Perform an output that is a method of its connection's transport."""
    transport = output.connection.transport
    match output:
        case SendEof():
            transport.send_eof()
        case Close():
            transport.close()
        case Abort():
            transport.abort()
        case PauseReading():
            transport.pause_reading()
        case _:
            transport.resume_reading()


__all__ = [
    "Abort", "Awaited", "Close", "Fanout", "Job", "Output", "PauseReading", "RequestAborted", "RequestBody",
    "RequestFinished", "RequestStarted", "ResumeReading", "SendEof", "TransportCall", "Write", "call_transport",
]  # fmt: skip
