"""Work that would hold up the loop if it were done at once: a slice a turn, with a look at the sockets in between.

A work is a generator: what it does between two ``yield`` is one slice, and what it returns is what comes of it. However
many works wait, each turn does one slice of one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from automoderate.server.jobs import AT_ONCE

__all__ = ["MOST", "Slices", "Work"]

MOST = 32
"""Works that may wait at a time."""

Work: TypeAlias = Generator[None, None, Any]


class Slices:
    """Works that wait for their next turn, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Work, Callable[[Any, float], None]]] = deque()

    @property
    def full(self) -> bool:
        """Whether no more should be started."""
        return len(self._waiting) >= MOST

    def start(self, work: Work, done: Callable[[Any, float], None]) -> None:
        """Do the work from the next turn on; ``done`` gets what comes of it, or the exception, and the time."""
        self._waiting.append((work, done))

    def next_deadline(self) -> float | None:
        """When ``tick`` is next wanted."""
        return AT_ONCE if self._waiting else None

    def tick(self, now: float) -> None:
        """Do one slice."""
        if not self._waiting:
            return
        work, done = self._waiting.popleft()
        try:
            next(work)
        except StopIteration as finished:
            done(finished.value, now)
        except Exception as error:
            done(error, now)
        else:
            self._waiting.appendleft((work, done))
