"""How a node knows that it hears Redis, and that Redis takes what it writes: every second it says something there.

To hear and to be able to write are two things, as a full Redis goes on telling everybody what it has:

- *It hears.* What it says over its reading connection comes back by its subscription, and each beat that Redis took
  over its publishing connection is read from the node's own stream, so that no silence goes unnoticed, nor that the two
  connections lead to two Redis that do not know of each other. A Redis that is a read-only replica is not the one that
  others write to; who has only that one hears nothing for certain.
- *It can write.* Its last beat was taken.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import redis

from automoderate._threads import real
from automoderate.backplane.redis.connection import Command
from automoderate.backplane.redis.entries import Entry, fields, node_stream
from automoderate.backplane.redis.refusals import Concern, concern
from automoderate.backplane.redis.subscription import notify

BEAT = 1.0
"""Seconds between two beats."""
SILENCE_LIMIT = 4.0
"""Seconds without having heard a beat after which a node is no longer hearing the others, or able to write."""
_KEPT = 60
"""Seconds that Redis remembers a node that says nothing more."""
_SAID = b"beat "


class Heartbeat:
    """The beats of one node. Thread-safe."""

    def __init__(self, node: str, name: str = "") -> None:
        """``name`` is what operators call the node; its beats say it."""
        self.key = node_stream(node)
        self._name = name
        self.forgotten: threading.Event = real(threading).Event()
        """Set when Redis has lost what it was told: it was flushed, or came back without its data."""
        self._previous: str | None = None
        self._spoilt = False
        self._due = 0.0
        # All times as of time.monotonic; that of a beat is when it was said.
        self._saying = 0.0
        self._written = -math.inf  # the last beat that was taken
        self._unread = math.inf  # the first that was taken and has not been read
        self._read = -math.inf  # the last that was read
        self._astray = math.inf  # since when Redis says that it is not the one to write to
        self._heard = -math.inf  # the last that was heard
        self._delay = 0.0

    # The side that writes

    def due_in(self) -> float:
        """Seconds until the next beat."""
        return max(0.0, self._due - time.monotonic())

    def commands(self) -> list[Command]:
        """Write something now; the answers go to ``answered``."""
        self._saying = now = time.monotonic()
        self._due = now + BEAT
        previous = self._previous or "0-1"
        return [
            *([("DEL", self.key)] if self._spoilt else []),  # it is this node's alone
            ("XADD", self.key, "MAXLEN", "~", 100, "*", "name", self._name, "beat", repr(now)),
            ("EXPIRE", self.key, _KEPT),
            ("XRANGE", self.key, previous, previous),
        ]

    def answered(self, answers: Sequence[Any]) -> redis.ResponseError | None:
        """What Redis answered to ``commands``; returns why it did not take the beat."""
        *_, said, _, previous = answers
        if isinstance(said, redis.ResponseError):
            meaning = concern(said)
            self._spoilt = meaning is Concern.KEY
            if meaning is Concern.ELSEWHERE:
                self._astray = min(self._astray, self._saying)
            return said
        self._spoilt, self._astray, self._written = False, math.inf, self._saying
        if self._unread == math.inf and self._read < self._saying:
            self._unread = self._saying
        if self._previous is not None and not previous:
            self.forgotten.set()
        self._previous = said.decode()
        return None

    @property
    def writable(self) -> bool:
        """Whether Redis takes what this node writes."""
        return time.monotonic() - self._written <= SILENCE_LIMIT

    # The side that listens

    def wake(self) -> Command:
        """What makes the reader come back from its waiting at once."""
        return notify(self.key)

    def say(self) -> Command:
        """Say something that the node's own subscription is to hear."""
        return ("PUBLISH", self.key, _SAID + repr(time.monotonic()).encode())

    def hear(self, message: bytes) -> None:
        """A message on the node's own channel. What others say there is nothing to go by."""
        if message.startswith(_SAID):
            said = _time(message.removeprefix(_SAID))
            self._delay = max(0.0, time.monotonic() - said)
            self._heard = max(self._heard, said)

    def read(self, entry: Entry) -> None:
        """An entry of the node's own stream."""
        _, found = fields(entry)
        self._read = _time(found.get(b"beat", b""))
        if self._read >= self._unread:
            self._unread = math.inf

    @property
    def overdue(self) -> bool:
        """Whether what Redis has taken of this node is not read here."""
        return time.monotonic() - self._unread > SILENCE_LIMIT

    @property
    def hearing(self) -> bool:
        """Whether nothing that another node says is missed here."""
        now = time.monotonic()
        return now - self._heard <= SILENCE_LIMIT and now - self._astray <= SILENCE_LIMIT and not self.overdue

    @property
    def lag(self) -> float:
        """Seconds that the last beat took to be heard, or since when none was."""
        silence = time.monotonic() - self._heard
        return self._delay if silence < 2 * BEAT else min(silence, 1e9)


def _time(text: bytes) -> float:
    """When a beat was said; long ago, where that is no such time."""
    try:
        said = float(text)
    except ValueError:
        return -math.inf
    return said if said <= time.monotonic() else -math.inf
