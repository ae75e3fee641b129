"""Why a client was refused or ended, in the log: so that an operator finds it, and a client cannot fill it."""

from __future__ import annotations

import logging

from automoderate.protocol.proxies import visitor

__all__ = ["LONGEST", "MOST_REMEMBERED", "SILENCE", "Complaints"]

SILENCE = 60.0
"""Seconds in which nothing more of the same kind is said of the same visitor."""
MOST_REMEMBERED = 1000
"""Kinds of which is known that they were said of a visitor; the oldest is forgotten for another."""
LONGEST = 200
"""Characters of a reason, which may have in it what a client has sent."""

_LOGGER = logging.getLogger("automoderate.protocol")


class Complaints:
    """One line of each kind for each visitor and minute, about the first of what it has done."""

    def __init__(self) -> None:
        self._silent_until: dict[tuple[str, str], float] = {}
        """By visitor and kind, in the order in which something was said."""

    def due(self, address: str, kind: str, now: float) -> bool:
        """Whether something of this kind may be said of what came from this address, which then counts as said."""
        key = visitor(address), kind
        if now < self._silent_until.get(key, now):
            return False
        self._silent_until.pop(key, None)
        if len(self._silent_until) >= MOST_REMEMBERED:
            del self._silent_until[next(iter(self._silent_until))]
        self._silent_until[key] = now + SILENCE
        return True

    def say(self, address: str, kind: str, why: str, now: float) -> None:
        """What came from this address was refused, and its connection or session ends."""
        if self.due(address, kind, now):
            why = why[:LONGEST]
            _LOGGER.info(
                "Refused what %s sent: %s", address, why,
                extra={"event": "client_refused", "address": address, "reason": why},
            )  # fmt: skip
