"""Turns of input: how much of what a connection has sent is worked through before others are heard.

A *word* is worked through at once: so little has arrived that nearly everything is one. What goes beyond a
connection's *bite*, or beyond what all connections together may cost in a turn, waits in a line, and so does what is
more than a word while others wait. Connections in the line take turns; while one stands there the protocol's deadline
is now, so that a runtime looks at its other sockets between two turns.

There are three lines: of words on a WebSocket, of words that are requests, and of everything else. In each turn the
first has half of what all may cost, the second half of what that leaves, and the third the rest. So somebody who says
a word stands neither behind all that have much to say nor behind all that come back at the same time.

A connection that stands in a line with more than a word is not read from. Its peer then has to wait with sending, by
TCP's own means, and what the server keeps of it is what it had read before.

Work is counted in units of a few microseconds, by what is known of an input beforehand, since nothing here has a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from automoderate.protocol.model import Connection
from automoderate.protocol.outbox import Outbox
from automoderate.protocol.outputs import PauseReading, ResumeReading

__all__ = ["BITE", "CHUNK", "FRAME", "MESSAGE", "PACKET", "PER_TURN", "InputTurns", "of_bytes", "of_head", "of_target"]

BITE: Final = 32
"""Units that one connection may cost before the next has its turn."""
PER_TURN: Final = 256
"""Units that all connections may cost until the other sockets are looked at: those whose bytes have just arrived so
much, and those that wait in the line as much again."""
WORD: Final = 4096
"""Bytes of a word: the head of a handshake with its cookies is one, and an event that somebody has typed."""

# What inputs cost, in units.
REQUEST: Final = 16
"""A request that has little in it, with its answer."""
CHUNK: Final = 2
"""A piece of a request's body."""
FRAME: Final = 1
"""A frame of a WebSocket."""
PACKET: Final = 1
"""A packet of Engine.IO."""
MESSAGE: Final = 3
"""A packet of Socket.IO, besides the packet of Engine.IO that it is in."""


def of_bytes(size: int) -> int:
    """What it costs to look at so many bytes."""
    return size >> 12


def of_head(size: int, headers: int) -> int:
    """What a request costs, by the size of its head and how many headers are in there; without its body."""
    return REQUEST + headers // 2 + (size >> 7)


def of_target(parameters: int, escapes: int) -> int:
    """What it costs besides to read what stands in its target."""
    return parameters // 2 + (escapes >> 4)


class InputTurns:
    """The connections whose input waits, and what the one whose turn it is may still cost."""

    def __init__(self, outbox: Outbox, work: Callable[[Connection, float], bool]) -> None:
        """``work`` works through what a connection has sent while ``left`` is above 0; whether more of it waits."""
        self.left = 0
        """Units left of the bite that is being taken."""
        self._outbox = outbox
        self._work = work
        self._allowance = PER_TURN
        self._words: deque[Connection] = deque()
        """The line of connections that say a word on a WebSocket."""
        self._requests: deque[Connection] = deque()
        """The line of connections whose word is a request."""
        self._others: deque[Connection] = deque()
        """The line of all other connections."""
        self._waiting: set[Connection] = set()
        """The connections in any line."""
        self._paused: set[Connection] = set()

    @property
    def busy(self) -> bool:
        """Whether a connection waits for its turn."""
        return bool(self._waiting)

    def spend(self, units: int) -> None:
        """Count work that is done, or is brought about by what has been read."""
        self.left -= units

    def offer(self, connection: Connection, now: float) -> None:
        """There may be something to work through: at once, or in turn."""
        if connection in self._waiting:
            self._hold_back(connection)
            return
        word = len(connection.unread) <= WORD
        if self._allowance > 0 and (word or not self._waiting):
            self._serve(connection, now)
        elif word:
            self._join(self._requests if connection.websocket is None else self._words, connection)
        else:
            self._join(self._others, connection)

    def take(self, now: float) -> None:
        """The other sockets have been looked at: go on with those in the lines."""
        self._allowance = PER_TURN
        while self._waiting and self._allowance > 0:
            self._serve_line(self._words, self._allowance // 2, now)
            self._serve_line(self._requests, self._allowance // 2, now)
            self._serve_line(self._others, 0, now)
        self._allowance = PER_TURN

    def renew(self) -> None:
        """Time has gone on, and so the other sockets were looked at. Where there is a line, that is for ``take``."""
        if not self._waiting:
            self._allowance = PER_TURN

    def pause(self, connection: Connection) -> None:
        """Do not read from a connection until what it has sent is worked through."""
        if connection not in self._paused:
            self._paused.add(connection)
            self._outbox.add(PauseReading(connection))

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._waiting.discard(connection)
        self._paused.discard(connection)

    def _serve_line(self, line: deque[Connection], rest: int, now: float) -> None:
        """Serve a line until so much of the allowance is left."""
        while line and self._allowance > rest:
            connection = line.popleft()
            if connection in self._waiting:  # else it is gone
                self._waiting.discard(connection)
                self._serve(connection, now)

    def _serve(self, connection: Connection, now: float) -> None:
        self.left = BITE
        more = self._work(connection, now)
        self._allowance -= BITE - self.left
        if more:
            self._join(self._others, connection)
        elif connection in self._paused:
            self._paused.discard(connection)
            self._outbox.add(ResumeReading(connection))

    def _join(self, line: deque[Connection], connection: Connection) -> None:
        self._waiting.add(connection)
        line.append(connection)
        self._hold_back(connection)

    def _hold_back(self, connection: Connection) -> None:
        """Do not read more from a connection in the line, unless it has only said a word so far."""
        if len(connection.unread) > WORD:
            self.pause(connection)
