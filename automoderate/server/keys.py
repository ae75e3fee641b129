"""The API keys that programs publish with: whose they are, asked of the directory in batches.

A good key is believed for ``BELIEVED`` seconds from when the directory was asked, so that a program that publishes all
the time waits for no question. While it is used, it is asked about again before that time is over. An announcement that
concerns its project ends it at once.
"""

from __future__ import annotations

from functools import partial

from attrs import define

from automoderate.server.jobs import Batches
from automoderate.server.requests import RETRY, HttpError, Later, Resume

__all__ = ["BELIEVED", "Keys"]

BELIEVED = 5.0
"""Seconds for which an answer counts: how long a key that was revoked without an announcement goes on working."""

ASKED_AGAIN = 2.5
"""Seconds after which a key that is used is asked about again."""

MOST = 10_000
"""Keys that are remembered."""

LONGEST = 200
"""Characters of a key. No directory has a longer one."""


@define
class _Known:
    project_id: str
    asked: float
    asking: bool = False


class Keys:
    """Which project each API key belongs to."""

    def __init__(self, questions: Batches[str, str | None]) -> None:
        self._questions = questions
        self._known: dict[str, _Known] = {}
        self._announcements = 0

    async def project_of(self, key: str, now: float) -> str | None:
        """The project that a key may publish to; None for what is no key, or one that was revoked.

        Raises HttpError where the directory has no answer.
        """
        if not 0 < len(key) <= LONGEST:
            return None
        known = self._known.get(key)
        if known is None or now >= known.asked + BELIEVED:
            return await Later[str | None](lambda resume: self._ask(key, now, resume))
        if now >= known.asked + ASKED_AGAIN and not known.asking:
            known.asking = True
            self._ask(key, now, _nothing)
        return known.project_id

    def forget(self, project_id: str | None) -> None:
        """Something was announced that concerns a project, or perhaps any: its keys are asked about anew.

        An answer that is under way may be older than what was announced.
        """
        self._announcements += 1
        for key in [key for key, known in self._known.items() if project_id in (None, known.project_id)]:
            del self._known[key]

    def _ask(self, key: str, now: float, resume: Resume) -> None:
        self._questions.put(key, partial(self._answered, key, now, self._announcements, resume))

    def _answered(
        self, key: str, asked: float, announcements: int, resume: Resume, answer: str | BaseException | None, now: float
    ) -> None:
        known = self._known.pop(key, None)
        if isinstance(answer, str) and announcements == self._announcements:
            self._known[key] = _Known(answer, asked)
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]
        elif isinstance(answer, BaseException) and known is not None:
            known.asking = False
            self._known[key] = known  # it counts as long as it would have
        if isinstance(answer, BaseException):
            answer = HttpError(503, "unavailable", "The database cannot be reached", RETRY)
        resume(answer, now)


def _nothing(answer: object, now: float) -> None:
    """The asker does not wait for the answer."""
