"""Says in the log that something which the server needs is down: once, with a count meanwhile, and when it is over."""

from __future__ import annotations

import logging

__all__ = ["Outage"]

REMINDER = 60.0
"""Seconds between two lines that say how often it has failed."""

CAUSES = 5
"""Different causes that are named in one outage."""

QUIET = 5.0
"""Seconds without a failure after which it counts as over: what fails now and then is one outage and not many."""


class Outage:
    """The failures of one thing, such as the database. For one thread."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        """``what`` fails, for people: "checks in the database"."""
        self._logger = logger
        self._what = what
        self._began: float | None = None
        self._last = 0.0
        self._said = 0.0
        self._causes: set[str] = set()
        self._count = 0
        self.total = 0
        """Failures since the server started."""

    def failed(self, error: BaseException, now: float) -> None:
        """It failed. What looks like a mistake in a program rather than an outage is logged with its traceback."""
        self.total += 1
        self._count += 1
        self._last = now
        cause = _one_line(error)
        if self._began is None:
            self._began = now
        if cause not in self._causes and len(self._causes) < CAUSES:
            self._causes.add(cause)
            self._said = now
            expected = isinstance(error, OSError) or _is_ours(error)
            self._logger.error(
                "%s fail: %s", self._what, cause,
                exc_info=None if expected else error, extra={"event": "outage", "reason": cause},
            )  # fmt: skip
        elif now - self._said >= REMINDER:
            self._said = now
            self._logger.error(
                "%s go on failing, %d so far: %s", self._what, self._count, cause,
                extra={"event": "outage_lasts", "reason": cause},
            )  # fmt: skip

    def worked(self, now: float) -> None:
        """It worked."""
        if self._began is None or now - self._last < QUIET:
            return
        self._logger.warning(
            "%s work again; %d failed in %.0f seconds", self._what, self._count, self._last - self._began,
            extra={"event": "outage_over"},
        )  # fmt: skip
        self._began, self._count = None, 0
        self._causes.clear()


def _one_line(error: BaseException) -> str:
    """The message; with the kind of the error where that is none of this package's."""
    first, *_ = str(error).strip().splitlines() or [""]
    kind = type(error).__name__
    if not first:
        return kind
    return first if _is_ours(error) else f"{kind}: {first}"


def _is_ours(error: BaseException) -> bool:
    """Whether it is an error that says in a line what is wrong, such as DatabaseUnavailable."""
    return type(error).__module__.startswith("automoderate.")
