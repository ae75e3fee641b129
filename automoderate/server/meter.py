"""How many deliveries a second each project has: counted only while the inspector asks.

The counts of the current span and of the one before it make a rate over the last 5 to 10 seconds. Between two
visits to the inspector nothing is counted, and a broadcast costs one look at an attribute more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Protocol

__all__ = ["Counting", "Meter"]

SPAN = 5.0
"""Seconds that are counted together."""
LEAST = 1.0
"""Seconds that must have been counted before there is a rate."""
PATIENCE = 30.0
"""Seconds after the last question at which counting ends."""


class Counting(Protocol):
    """Who counts."""

    counting: dict[str, int] | None
    """Deliveries of each project, so far; None: nothing is counted."""


class Meter:
    """The rates of one node."""

    def __init__(self, source: Counting) -> None:
        self._source = source
        self._before: dict[str, int] = {}
        self._before_took = 0.0
        self._began = inf
        self._asked = -inf

    def ask(self, now: float) -> None:
        """An operator asks: count deliveries for a while."""
        self._asked = now
        if self._source.counting is None:
            self._before, self._before_took = {}, 0.0
            self._begin(now)

    def rate(self, project_id: str, now: float) -> float | None:
        """A project's deliveries a second; None where they have not been counted for long enough."""
        return self._per_second(lambda counts: counts.get(project_id, 0), now)

    def total(self, now: float) -> float | None:
        """The deliveries a second of all projects together; None as for ``rate``."""
        return self._per_second(lambda counts: sum(counts.values()), now)

    def next_deadline(self) -> float | None:
        """When ``tick`` is next wanted."""
        return None if self._source.counting is None else self._began + SPAN

    def tick(self, now: float) -> None:
        """Begin the next span where this one is over, or end."""
        counts = self._source.counting
        if counts is None or now < self._began + SPAN:
            return
        if now > self._asked + PATIENCE:
            self._source.counting = None
            return
        self._before, self._before_took = counts, now - self._began
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._source.counting, self._began = {}, now

    def _per_second(self, count: Callable[[Mapping[str, int]], int], now: float) -> float | None:
        counts = self._source.counting
        took = self._before_took + now - self._began
        if counts is None or took < LEAST:
            return None
        return round((count(self._before) + count(counts)) / took, 1)
