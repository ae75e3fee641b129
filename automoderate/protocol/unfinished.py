"""What one address has begun and not finished.

Connections without a request, sessions that wait to be let in, large bodies and messages whose end is still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from automoderate.protocol.proxies import visitor

__all__ = ["LARGE", "MAX_LARGE", "Large", "Unfinished"]

LARGE = 64 * 1024
"""Bytes of a body or a message from which on it counts as large, until it is complete."""
MAX_LARGE = 100
"""Large bodies and messages that one visitor may have under way: a hundred megabytes by default."""

ItemT = TypeVar("ItemT", bound=Hashable)


class Unfinished(Generic[ItemT]):
    """So many items for each visitor at most. The oldest makes room: what is honest is finished before long."""

    def __init__(self, most: int, say: Callable[[str], object]) -> None:
        """``say`` is called with an address that has too many: once, until its visitor has none."""
        self._most = most
        self._say = say
        self._of: dict[str, dict[ItemT, None]] = {}
        self._told: set[str] = set()
        """Visitors of whom it was said already."""

    def __len__(self) -> int:
        return sum(len(items) for items in self._of.values())

    def add(self, item: ItemT, address: str) -> ItemT | None:
        """Something has begun; returns what has to end for that, if anything."""
        who = visitor(address)
        items = self._of.setdefault(who, {})
        items[item] = None
        if len(items) <= self._most:
            return None
        oldest = next(iter(items))
        self.discard(oldest, address)
        if who not in self._told:
            self._told.add(who)
            self._say(address)
        return oldest

    def discard(self, item: ItemT, address: str) -> None:
        """It is finished, or over. Idempotent."""
        who = visitor(address)
        items = self._of.get(who)
        if items is not None:
            items.pop(item, None)
            if not items:
                del self._of[who]
                self._told.discard(who)


class Large(Generic[ItemT]):
    """Bodies and messages of which much has arrived, and not all: so many for each visitor, by their connections."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._unfinished: Unfinished[ItemT] = Unfinished(MAX_LARGE, say)
        self._addresses: dict[ItemT, str] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def note(self, item: ItemT, address: str, size: int) -> ItemT | None:
        """So many bytes have arrived; returns what has to end for that, if anything."""
        if size <= LARGE:
            self.forget(item)
            return None
        self._addresses[item] = address
        oldest = self._unfinished.add(item, address)
        if oldest is not None:
            del self._addresses[oldest]
        return oldest

    def forget(self, item: ItemT) -> None:
        """It is complete, or over. Idempotent."""
        address = self._addresses.pop(item, None)
        if address is not None:
            self._unfinished.discard(item, address)
