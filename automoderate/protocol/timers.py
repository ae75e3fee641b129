"""Deadlines of many owners, and the time of the next."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT", bound=Hashable)


def earliest(*times: float | None) -> float | None:
    """The first of several times, of which None is never."""
    first = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


class Timers(Generic[OwnerT]):
    """One deadline for each owner. Setting, cancelling and expiring one cost O(log n), amortised.

    Moving a deadline further away does not touch the heap: when the early entry comes up, it is pushed again for the
    right time. That makes a heartbeat per session cheap. Entries of cancelled deadlines are swept out once they
    outnumber the others.
    """

    __slots__ = ("_deadlines", "_early", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, OwnerT]] = []
        self._deadlines: dict[OwnerT, float] = {}
        self._early: dict[OwnerT, float] = {}
        """When the entry of an owner comes up whose deadline has moved further away; of others at the deadline."""
        self._serial = 0

    def set(self, owner: OwnerT, deadline: float) -> None:
        """Give the owner a deadline, in place of the one it had."""
        before = self._deadlines.get(owner)
        self._deadlines[owner] = deadline
        if before is None:
            self._push(owner, deadline)
            return
        scheduled = self._early.get(owner, before)
        if scheduled < deadline:
            self._early[owner] = scheduled
            return
        self._early.pop(owner, None)
        if deadline != scheduled:
            self._push(owner, deadline)

    def deadline(self, owner: OwnerT) -> float:
        """The owner's deadline. Raises KeyError where it has none."""
        return self._deadlines[owner]

    def cancel(self, owner: OwnerT) -> None:
        """Take away the owner's deadline; harmless when it has none."""
        if self._deadlines.pop(owner, None) is None:
            return
        self._early.pop(owner, None)
        if len(self._heap) > 2 * len(self._deadlines) + 64:
            self._heap = [entry for entry in self._heap if self._scheduled(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """When to call ``pop_due`` next; nothing need be due then."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> OwnerT | None:
        """Take away a deadline that has passed, the earliest first, and return its owner; None when there is none."""
        while self._heap and self._heap[0][0] <= now:
            scheduled, _, owner = heapq.heappop(self._heap)
            if self._scheduled(owner) != scheduled:
                continue
            self._early.pop(owner, None)
            deadline = self._deadlines[owner]
            if deadline <= now:
                del self._deadlines[owner]
                return owner
            self._push(owner, deadline)
        return None

    def _scheduled(self, owner: OwnerT) -> float | None:
        """When the owner's entry comes up; the others it may have in the heap mean nothing."""
        return self._early.get(owner, self._deadlines.get(owner))

    def _push(self, owner: OwnerT, deadline: float) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (deadline, self._serial, owner))
