"""The simulated network: TCP connections whose streams are cut anywhere and delayed."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from automoderate.protocol.model import Connection, Peer


@frozen
class Faults:
    """What goes wrong, and how often. By default nothing does, and nothing takes time."""

    max_delay: float = 0.0
    """Each piece of a TCP stream takes up to this many seconds to arrive."""
    cut: float = 0.0
    """Probability that a write arrives in pieces, cut anywhere."""
    max_job_time: float = 0.0
    """A question to the directory takes up to this many seconds to be read, and as many to be answered."""
    job_failure: float = 0.0
    """Probability that a question to the directory fails."""


class SimulatedNetwork(Protocol):
    """What connections and clients need of their simulation: its clock, its chance and its server."""

    now: float
    random: random.Random
    faults: Faults
    max_write_buffer: int

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Call ``act`` at this time."""

    def call(self, act: Callable[[], None]) -> None:
        """Call ``act`` as soon as what is being done now is done."""

    def accept(self, transport: SimulatedConnection, peer: Peer) -> Connection:
        """Give the server a connection."""

    def receive(self, connection: Connection, data: bytes) -> None:
        """Give the server bytes."""

    def lost(self, connection: Connection) -> None:
        """Tell the server that a connection broke."""

    def run(self) -> None:
        """Let everything happen that is under way."""


class SimulatedConnection:
    """Both ends of one TCP connection. To the server it is what an adapter gives it as ``Transport``."""

    def __init__(self, simulation: SimulatedNetwork, address: str) -> None:
        self.open = True
        self.on_data: Callable[[bytes], None] = lambda _: None
        self.on_lost: Callable[[], None] = lambda: None
        self.stalled = False
        self._simulation = simulation
        self._paused = False
        self._unread: deque[bytes] = deque()
        self._arrivals = {"up": 0.0, "down": 0.0}
        self._waiting: deque[bytes] = deque()
        self._in_flight = 0
        self.server_closed = False
        self._connection = simulation.accept(self, Peer(address, 40_000))

    # The server's end

    def write(self, data: bytes) -> int:
        """Take all of the data, as a transport's ``write`` may; beyond the write buffer the connection breaks."""
        if self.open and not self.server_closed:
            self._in_flight += len(data)
            if self._in_flight > self._simulation.max_write_buffer:
                self.abort()
            else:
                self._transmit("down", data, self._arrive)
        return len(data)

    @property
    def waiting(self) -> int:
        """Bytes that were written and have not reached the client."""
        return self._in_flight

    def keep(self, _rest: memoryview) -> None:
        """Never called: ``write`` takes everything, so no rest is left to keep."""
        raise AssertionError("nothing is left of a write here")

    def send_eof(self) -> None:
        """As ``close``: this client closes its end as soon as it sees that of the server."""
        self.close()

    def close(self) -> None:
        """End the connection once what the server has written has arrived."""
        if self.open and not self.server_closed:
            self.server_closed = True
            self._at("down", self.cut)

    def pause_reading(self) -> None:
        """Let what the client sends wait, in order."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read again, starting with what waits."""
        self._paused = False
        self._simulation.call(self._read)

    def abort(self) -> None:
        """End the connection at once."""
        self._simulation.call(self.cut)

    # The client's end

    def send(self, data: bytes) -> None:
        """Send data to the server."""
        if self.open and data:
            self._transmit("up", data, self._reach_server)

    def cut(self) -> None:
        """Break the connection: both ends learn of it, and what is in flight is lost."""
        if self.open:
            self.open = False
            self._waiting.clear()
            self._simulation.lost(self._connection)
            self.on_lost()

    def stall(self) -> None:
        """Stop reading at the client's end."""
        self.stalled = True

    def resume(self) -> None:
        """Read again at the client's end, starting with what waits."""
        self.stalled = False
        while self._waiting and self.open:
            self._take(self._waiting.popleft())

    def _transmit(self, direction: str, data: bytes, deliver: Callable[[bytes], None]) -> None:
        chance, faults = self._simulation.random, self._simulation.faults
        while data:
            size = chance.randint(1, len(data)) if chance.random() < faults.cut else len(data)
            piece, data = data[:size], data[size:]
            self._at(direction, lambda piece=piece: deliver(piece))  # type: ignore[misc]

    def _at(self, direction: str, act: Callable[[], None]) -> None:
        """Call ``act`` when a piece arrives: later than every piece sent before it in the same direction."""
        simulation = self._simulation
        arrival = simulation.now + simulation.random.random() * simulation.faults.max_delay
        self._arrivals[direction] = max(self._arrivals[direction], arrival)
        simulation.at(self._arrivals[direction], lambda: act() if self.open else None)

    def _reach_server(self, data: bytes) -> None:
        self._unread.append(data)
        self._read()

    def _read(self) -> None:
        while self._unread and self.open and not self._paused:
            self._simulation.receive(self._connection, self._unread.popleft())

    def _arrive(self, data: bytes) -> None:
        if self.stalled:
            self._waiting.append(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._in_flight -= len(data)
        self.on_data(data)
