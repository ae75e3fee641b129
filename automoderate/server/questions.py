"""What requests that the server answers itself ask of the directory, together with all other questions that wait."""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import frozen

from automoderate.core.hub import Access, Identity
from automoderate.server.jobs import Batches
from automoderate.server.requests import RETRY, HttpError, Later, Resume

__all__ = ["Questions", "asked"]

T = TypeVar("T")


@frozen
class Questions:
    """The kinds of questions."""

    identities: Batches[str | None, Identity | None]
    accesses: Batches[tuple[str, str], Access]
    admins: Batches[str, bool]
    rechecks: Batches[tuple[str, tuple[str, ...]], frozenset[str] | None]
    keys: Batches[str, str | None]
    pings: Batches[None, None]


def asked(questions: Batches[Any, T], question: Any) -> Later[T]:
    """The directory's answer. HttpError where it has none."""

    def start(resume: Resume) -> None:
        def answered(answer: Any, now: float) -> None:
            failed = isinstance(answer, BaseException)
            resume(HttpError(503, "unavailable", "The database cannot be reached", RETRY) if failed else answer, now)

        questions.put(question, answered)

    return Later(start)
