"""How a node knows that it hears Redis: every second it says something there, and listens for it.

What a node says goes through its publishing connection, is announced on its subscription, and comes back through its
reading connection, so that one silence covers all three, and a Redis in between that answers and does nothing.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from automoderate.adapters._shared import real
from automoderate.backplane._redis_entries import Entry, fields, node_stream
from automoderate.backplane._redis_link import Command
from automoderate.backplane._redis_subscription import notify

BEAT = 1.0
"""Seconds between two beats."""
DEAF_AFTER = 4.0
"""Seconds without having heard a beat after which a node counts as deaf."""
_KEPT = 60
"""Seconds that Redis remembers a node that says nothing more."""


class Pulse:
    """The beats of one node. Thread-safe."""

    def __init__(self, node: str) -> None:
        self.key = node_stream(node)
        self.forgotten: threading.Event = real(threading).Event()
        """Set when Redis has lost what it was told: it was flushed, or came back without its data."""
        self._previous: str | None = None
        self._due = 0.0
        self._heard = -math.inf  # when the last beat that was heard was said, as of time.monotonic
        self._delay = 0.0

    # The side that speaks

    def due_in(self) -> float:
        """Seconds until the next beat."""
        return max(0.0, self._due - time.monotonic())

    def commands(self) -> list[Command]:
        """Say something now; the answers go to ``answered``."""
        now = time.monotonic()
        self._due = now + BEAT
        previous = self._previous or "0-1"
        return [
            ("XADD", self.key, "MAXLEN", "~", 100, "*", "beat", repr(now)),
            ("EXPIRE", self.key, _KEPT),
            ("XRANGE", self.key, previous, previous),
            self.wake(),
        ]

    def wake(self) -> Command:
        """What makes the reader come back from its waiting at once."""
        return notify(self.key)

    def answered(self, answers: list[Any]) -> None:
        """What Redis answered to ``commands``."""
        said, _, previous, _ = answers
        if self._previous is not None and not previous:
            self.forgotten.set()
        self._previous = said.decode()

    # The side that listens

    def hear(self, entry: Entry) -> None:
        """An entry of the node's own stream."""
        _, found = fields(entry)
        if b"beat" in found:
            said = float(found[b"beat"])
            self._delay = max(0.0, time.monotonic() - said)
            self._heard = max(self._heard, said)  # what is read again after a reconnection is older

    @property
    def deaf(self) -> bool:
        """Whether nothing was heard for too long."""
        return time.monotonic() - self._heard > DEAF_AFTER

    @property
    def lag(self) -> float:
        """Seconds that the last beat took, or since when none was heard."""
        silence = time.monotonic() - self._heard
        return self._delay if silence < 2 * BEAT else min(silence, 1e9)
