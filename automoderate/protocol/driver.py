"""What an adapter drives, and the base of everything that is driven: the protocol, the server, an application.

A *driver* is told what happens to sockets and says what is to be done. Drivers stand on one another: ``SocketIOServer``
on ``EngineIOServer``, an application on either. A ``Layer`` hands every input down to the driver below it and then acts
on the events that come up, one at a time, in ``on_event``. An application is a ``Layer`` with that one method::

    class Echo(Layer[EngineIOEvent]):
        def __init__(self, protocol: EngineIOServer) -> None:
            super().__init__(protocol)
            self.protocol = protocol

        def on_event(self, event: EngineIOEvent, now: float) -> None:
            if isinstance(event, MessageReceived):
                self.protocol.send(event.session, event.data, now)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from automoderate.protocol.model import Connection, Peer, Transport
from automoderate.protocol.outputs import Output

__all__ = ["Driver", "EventSource", "Layer"]

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)


class Inputs(Protocol):
    """What can happen to a driver. ``now`` is always the runtime's monotonic clock, seconds as float."""

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        """A TCP connection was accepted."""

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        """Bytes arrived."""

    def receive_eof(self, connection: Connection, now: float) -> None:
        """The peer will send no more. An application request that is complete is still answered."""

    def connection_lost(self, connection: Connection, now: float) -> None:
        """The connection is gone, whichever side ended it; idempotent."""

    def respond(
        self, connection: Connection, status: int, reason: str, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        """Start the answer to the connection's application request; ignored when that is over."""

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        """A piece of the answer's body; ignored before ``respond`` and when the request is over."""

    def respond_end(self, connection: Connection, now: float) -> None:
        """The answer is complete."""

    def tick(self, now: float) -> None:
        """Act on every deadline that has passed; harmless at any other time."""

    def next_deadline(self) -> float | None:
        """When to call ``tick`` at the latest."""

    def outputs(self) -> list[Output]:
        """What is to be done, in order."""

    def drain(self, now: float) -> None:
        """Stop on purpose: end every session so that its client comes back by itself, and refuse new ones with 503.

        Connections are still taken: a client between two polls asks once more, and is told then.
        """

    def drained(self) -> bool:
        """True once ``drain`` was called and nothing is left that deserves waiting for."""


class Driver(Inputs, Protocol):
    """What every adapter drives.

    After *every* call that takes ``now``, and whenever ``next_deadline()`` passes (call ``tick``), the adapter drains
    ``outputs()`` and re-arms its one timer.
    """

    def job_done(self, ticket: int, result: object | BaseException, now: float) -> None:
        """The ``Job`` of that ticket has returned, or raised, ``result``."""

    def turned(self, now: float, took: float) -> None:
        """A turn of the loop that began at ``now`` took so many seconds: all that was handed out is written."""

    def kept(self, waiting: int) -> None:
        """A peer did not take all that was written to it: so many bytes wait for it now."""


class EventSource(Inputs, Protocol[EventT_co]):
    """A driver that a layer stands on."""

    def next_event(self) -> EventT_co | None:
        """The next event; None when all have been handed out."""


class Layer(ABC, Generic[EventT]):
    """A driver on another one; its methods are described in ``Inputs`` and ``Driver``."""

    def __init__(self, below: EventSource[EventT]) -> None:
        self._below = below
        self._acting = False

    @abstractmethod
    def on_event(self, event: EventT, now: float) -> None:
        """Act on an event of the driver below. What this brings about there comes as further events, after it."""

    def pump(self, now: float) -> None:
        """Act on all events that wait: after every input, and after any other call that may have caused some.

        Does nothing inside ``on_event``, which would otherwise find later events acted on before it returns.
        """
        if self._acting:
            return
        while (event := self._below.next_event()) is not None:
            self._acting = True
            try:
                self.on_event(event, now)
            finally:
                self._acting = False

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        connection = self._below.connect(transport, peer, now)
        self.pump(now)
        return connection

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        self._below.receive_data(connection, data, now)
        self.pump(now)

    def receive_eof(self, connection: Connection, now: float) -> None:
        self._below.receive_eof(connection, now)
        self.pump(now)

    def connection_lost(self, connection: Connection, now: float) -> None:
        self._below.connection_lost(connection, now)
        self.pump(now)

    def respond(
        self, connection: Connection, status: int, reason: str, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        self._below.respond(connection, status, reason, headers, now)
        self.pump(now)

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        self._below.respond_body(connection, data, now)
        self.pump(now)

    def respond_end(self, connection: Connection, now: float) -> None:
        self._below.respond_end(connection, now)
        self.pump(now)

    def job_done(self, ticket: int, result: object | BaseException, now: float) -> None:
        raise NotImplementedError("a layer that starts jobs has to take their results")

    def turned(self, now: float, took: float) -> None:
        """Nothing is measured here."""

    def kept(self, waiting: int) -> None:
        """Nothing is measured here, either."""

    def tick(self, now: float) -> None:
        self._below.tick(now)
        self.pump(now)

    def next_deadline(self) -> float | None:
        return self._below.next_deadline()

    def outputs(self) -> list[Output]:
        return self._below.outputs()

    def drain(self, now: float) -> None:
        self._below.drain(now)
        self.pump(now)

    def drained(self) -> bool:
        return self._below.drained()
