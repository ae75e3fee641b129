"""The table of hostile inputs over the sans-IO server, however TCP cuts the bytes."""

from __future__ import annotations

import pytest
from echo_server import SocketEcho

from automoderate.protocol import Abort, Close, Config, Driver, PauseReading, Peer, ResumeReading, SendEof, Write
from kits.habits import HABITS, Habit
from kits.hostile import CASES, Case, run


class Clock:
    """The time that all connections of a server share."""

    now = 0.0


class MemoryWire:
    """A connection in memory, whose bytes arrive in pieces of some size."""

    waiting = 0

    def __init__(self, driver: Driver, piece: int, clock: Clock) -> None:
        self._driver = driver
        self._piece = piece
        self._clock = clock
        self._received = bytearray()
        self.ended = self.paused = False
        self._connection = driver.connect(self, Peer("192.0.2.1", 50000), self._clock.now)

    def write(self, data: bytes) -> int:
        self._received += data
        return len(data)

    def keep(self, _rest: memoryview) -> None:
        raise AssertionError("every write takes everything")

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def send_eof(self) -> None:
        """A client closes its end when it sees this."""
        self.close()

    def close(self) -> None:
        self.ended = True
        self._driver.connection_lost(self._connection, self._clock.now)

    def abort(self) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), self._piece):
            if not self.ended:
                self._driver.receive_data(self._connection, data[at : at + self._piece], self._clock.now)
            self._perform()
            assert self.ended or not self.paused

    def receive(self) -> bytes | None:
        if not self._received and not self.ended:
            # Nothing until time has passed: the example greets a little later.
            self._clock.now += 0.01
            self._driver.tick(self._clock.now)
            self._perform()
        data = bytes(self._received)
        self._received.clear()
        return data or (b"" if self.ended else None)

    def end(self) -> None:
        if not self.ended:
            self._driver.receive_eof(self._connection, self._clock.now)
            self._perform()

    def _perform(self) -> None:
        while outputs := self._driver.outputs():
            for output in outputs:
                assert isinstance(output, Write | SendEof | Close | Abort | PauseReading | ResumeReading)
                assert isinstance(output.connection.transport, MemoryWire)
                wire = output.connection.transport
                if isinstance(output, Write):
                    assert not wire.ended
                    wire.write(output.data)
                elif isinstance(output, PauseReading):
                    wire.pause_reading()
                elif isinstance(output, ResumeReading):
                    wire.resume_reading()
                else:
                    wire.close()
        deadline = self._driver.next_deadline()
        if deadline is not None and deadline <= self._clock.now:  # something waits for its turn
            self._driver.tick(self._clock.now)
            self._perform()


@pytest.mark.parametrize("piece", [1, 7, 1_000_000], ids=["bytes", "sevens", "whole"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:40].encode("unicode_escape").decode())
def test_the_answer_is_the_right_one(case: Case, piece: int) -> None:
    driver, clock = SocketEcho(Config()), Clock()
    run(case, lambda: MemoryWire(driver, piece, clock))


@pytest.mark.parametrize("piece", [1, 7, 1_000_000], ids=["bytes", "sevens", "whole"])
@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_native_clients_are_served(habit: Habit, piece: int) -> None:
    driver, clock = SocketEcho(Config()), Clock()
    habit(lambda: MemoryWire(driver, piece, clock))
