"""What clients were refused lately, for operators: the newest refusals, and how many of each code in some minutes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice

from attrs import frozen

__all__ = ["MINUTES", "Refusal", "Refusals"]

MINUTES = 15
"""Minutes that are counted."""
KEPT = 100
"""Refusals that are remembered one by one."""


@frozen
class Refusal:
    """One ``error`` that a client was sent."""

    at: float
    code: str
    user_id: str | None
    address: str
    project_id: str | None


class Refusals:
    """The refusals of one node."""

    def __init__(self) -> None:
        self._newest: deque[Refusal] = deque(maxlen=KEPT)
        self._minutes: deque[tuple[float, Counter[str]]] = deque(maxlen=MINUTES)
        """The minutes in which there were any."""

    def note(self, refusal: Refusal) -> None:
        """A client was told."""
        self._newest.append(refusal)
        minute = refusal.at // 60
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, Counter()))
        self._minutes[-1][1][refusal.code] += 1

    def counts(self, now: float) -> Counter[str]:
        """How many of each code there were within ``MINUTES``."""
        total: Counter[str] = Counter()
        for minute, counts in self._minutes:
            if minute > now // 60 - MINUTES:
                total.update(counts)
        return total

    def newest(self, count: int) -> Iterator[Refusal]:
        """The last so many that are remembered, newest first."""
        return islice(reversed(self._newest), count)
