"""Why a client was refused or ended, in the log: so that an operator finds it, and a client cannot fill it."""

from __future__ import annotations

import logging

from automoderate.protocol.proxies import visitor

__all__ = ["LONGEST", "MOST_REMEMBERED", "SILENCE", "Complaints"]

SILENCE = 60.0
"""Seconds in which nothing more of the same kind is said of the same visitor."""
MOST_REMEMBERED = 1000
"""Lines within ``SILENCE``, of however many visitors: somebody may have a thousand networks."""
LONGEST = 200
"""Characters of a reason, which may have in it what a client has sent."""

_LOGGER = logging.getLogger("automoderate.protocol")


class Complaints:
    """One line of each kind for each visitor and minute, about the first of what it has done."""

    def __init__(self) -> None:
        self._silent_until: dict[tuple[str, str], float] = {}
        """By visitor and kind, in the order in which something was said."""
        self._too_many_until = float("-inf")

    def due(self, address: str, kind: str, now: float) -> bool:
        """Whether something of this kind may be said of what came from this address, which then counts as said."""
        key = visitor(address), kind
        if now < self._silent_until.get(key, now):
            return False
        self._silent_until.pop(key, None)
        if len(self._silent_until) >= MOST_REMEMBERED:
            oldest, until = next(iter(self._silent_until.items()))
            if now < until:
                self._say_too_many(now)
                return False
            del self._silent_until[oldest]
        self._silent_until[key] = now + SILENCE
        return True

    def _say_too_many(self, now: float) -> None:
        """Say that others were refused of whom nothing is said, as an operator may wait for a line about them."""
        if now >= self._too_many_until:
            self._too_many_until = now + SILENCE
            _LOGGER.warning(
                "Refused more than %d times what visitors sent, within %.0f seconds; not all of it is said",
                MOST_REMEMBERED, SILENCE,
                extra={"event": "complaints_left_out", "reason": "too many are refused"},
            )  # fmt: skip

    def say(self, address: str, kind: str, why: str, now: float) -> None:
        """What came from this address was refused, and its connection or session ends."""
        if self.due(address, kind, now):
            why = why[:LONGEST]
            _LOGGER.info(
                "Refused what %s sent: %s", address, why,
                extra={"event": "client_refused", "address": address, "reason": why},
            )  # fmt: skip
