"""Deadlines of many owners behind one absolute "next"."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT", bound=Hashable)


def earliest(*times: float | None) -> float | None:
    """The first of those times that are any; None where none is. Asked for after every input."""
    first = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


class Timers(Generic[OwnerT]):
    """One deadline per owner; setting, cancelling and expiring cost O(log n), amortised.

    Moving a deadline further away does not touch the heap: the early entry is looked at when it comes up and pushed
    again for the right time. That is what makes a heartbeat per session cheap. Entries nobody needs any more are
    swept out once they outnumber the live ones.
    """

    __slots__ = ("_deadlines", "_heap", "_scheduled", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, OwnerT]] = []
        self._deadlines: dict[OwnerT, float] = {}
        self._scheduled: dict[OwnerT, float] = {}
        self._serial = 0

    def set(self, owner: OwnerT, deadline: float) -> None:
        """Arm the owner's timer, replacing the deadline it had."""
        self._deadlines[owner] = deadline
        if deadline < self._scheduled.get(owner, float("inf")):
            self._push(owner, deadline)

    def cancel(self, owner: OwnerT) -> None:
        """Disarm the owner's timer; harmless when it has none."""
        self._deadlines.pop(owner, None)
        self._scheduled.pop(owner, None)
        if len(self._heap) > 2 * len(self._deadlines) + 64:
            self._heap = [entry for entry in self._heap if self._scheduled.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The time of the next ``pop_due`` worth making; it may turn out that nothing is due then."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> OwnerT | None:
        """Disarm and return one owner whose deadline has passed, earliest first; None when there is none."""
        while self._heap and self._heap[0][0] <= now:
            scheduled, _, owner = heapq.heappop(self._heap)
            if self._scheduled.get(owner) != scheduled:
                continue
            del self._scheduled[owner]
            deadline = self._deadlines[owner]
            if deadline <= now:
                del self._deadlines[owner]
                return owner
            self._push(owner, deadline)
        return None

    def _push(self, owner: OwnerT, deadline: float) -> None:
        self._serial += 1
        self._scheduled[owner] = deadline
        heapq.heappush(self._heap, (deadline, self._serial, owner))
