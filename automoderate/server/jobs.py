"""What worker threads do for the server: jobs, and questions of one kind that are asked together.

A question is put when it arises and asked at the next turn of the loop, together with all others that wait. Questions
that arise while others are under way wait for those, and where several were asked together the next wait a moment for
more. So the number of statements and of thread switches follows the batches and not the clients, however many come back
at once after a restart. A question by itself waits for nothing.

No answer is older than its question: one that waits is asked later, and one that is under way is never joined. Nothing
is kept of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from automoderate.protocol import outputs
from automoderate.protocol.outputs import Output
from automoderate.server.outages import Outage
from automoderate.server.telemetry import Telemetry

__all__ = ["AT_ONCE", "Batches", "Jobs"]

AT_ONCE = 0.0
"""A deadline that has passed already: the next turn of the loop, as soon as the other sockets have been looked at."""

LARGEST = 500
"""Questions in one batch."""

UNDER_WAY = 2
"""Batches of a kind that worker threads have at a time."""

GATHERING = 0.02
"""Seconds from a batch of several questions to the next batch, unless ``ENOUGH`` questions wait."""
ENOUGH = 20
"""Questions that are asked together without a wait for more."""

PATIENCE = 1.0
"""Seconds that a question waits for batches which may never be answered: then it is asked for all that."""

T = TypeVar("T")
QuestionT = TypeVar("QuestionT", bound=Hashable)
AnswerT = TypeVar("AnswerT")


class Jobs:
    """The calls that worker threads make for the server, until each has been answered."""

    def __init__(self, queue: Callable[[Output], None]) -> None:
        """``queue`` takes the outputs."""
        self._queue = queue
        self._under_way: dict[int, Callable[[Any, float], None]] = {}
        self._last = 0
        self.waiting = 0
        """Questions, of whatever kind, that wait to be asked."""

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, call: Callable[[], T], done: Callable[[T | BaseException, float], None]) -> None:
        """Have ``call`` made in a worker thread; ``done`` gets what it returns or raises, and the time."""
        self._last += 1
        self._under_way[self._last] = done
        self._queue(outputs.Job(self._last, call))

    def wait(self, future: Future[T], done: Callable[[T | BaseException, float], None]) -> None:
        """Wait, without a thread, for what comes of ``future``; ``done`` gets that, and the time."""
        self._last += 1
        self._under_way[self._last] = done
        self._queue(outputs.Awaited(self._last, future))

    def finish(self, ticket: int, result: object | BaseException, now: float) -> None:
        """A job has ended."""
        self._under_way.pop(ticket)(result, now)


Answered: TypeAlias = Callable[[Any, float], None]
"""Takes an answer, or the exception that there is instead of one, and the time."""


class Batches(Generic[QuestionT, AnswerT]):
    """Questions of one kind. Equal ones that wait together are asked once."""

    def __init__(
        self,
        jobs: Jobs,
        ask: Callable[[Sequence[QuestionT]], Sequence[AnswerT | Exception]],
        outage: Outage,
        *,
        patience: float = PATIENCE,
        telemetry: Telemetry | None = None,
        what: str = "",
    ) -> None:
        """``ask`` blocks: it answers each question, or with an exception those that it cannot answer.

        Where it raises, none of its questions could be answered. ``patience`` is how long, in seconds, a question waits
        for batches which may never be answered. ``telemetry`` is told how long each batch took, and ``what`` was asked.
        """
        self._jobs = jobs
        self._ask = ask
        self._outage = outage
        self._waiting: dict[QuestionT, list[Answered]] = {}
        self._under_way = 0
        self._patience = patience
        self._telemetry = telemetry
        self._what = what
        self._patient_until = AT_ONCE
        """Until when questions wait for the batches under way."""
        self._gathering_until = AT_ONCE
        """Until when they wait for more of their kind."""

    def put(self, question: QuestionT, answered: Answered) -> None:
        """Ask at the next turn of the loop; ``answered`` is called later, once, unless there never is an answer."""
        askers = self._waiting.get(question)
        if askers is None:
            self._waiting[question] = [answered]
            self._jobs.waiting += 1
        else:
            askers.append(answered)

    def next_deadline(self) -> float | None:
        """When ``tick`` is next wanted."""
        if not self._waiting:
            return None
        if self._under_way >= UNDER_WAY:
            return self._patient_until
        return AT_ONCE if len(self._waiting) >= ENOUGH else self._gathering_until

    def tick(self, now: float) -> None:
        """Ask what waits, as far as it is its time."""
        while (deadline := self.next_deadline()) is not None and now >= deadline:
            questions = tuple(islice(self._waiting, LARGEST))
            askers = [self._waiting.pop(question) for question in questions]
            self._jobs.waiting -= len(questions)
            self._under_way += 1
            self._patient_until = now + self._patience
            self._gathering_until = now + GATHERING if len(questions) > 1 else AT_ONCE
            self._jobs.start(partial(self._ask, questions), partial(self._done, askers, now))

    def _done(
        self,
        askers: Sequence[Sequence[Answered]],
        asked: float,
        result: Sequence[AnswerT | Exception] | BaseException,
        now: float,
    ) -> None:
        self._under_way -= 1
        if self._telemetry is not None:
            failure = result if isinstance(result, BaseException) else None
            self._telemetry.asked(self._what, now - asked, len(askers), failure)
        answers = [result] * len(askers) if isinstance(result, BaseException) else result
        for answer in answers:
            if isinstance(answer, BaseException):
                self._outage.failed(answer, now)
            else:
                self._outage.worked(now)
        for answer, waiting in zip(answers, askers, strict=True):
            for answered in waiting:
                answered(answer, now)
