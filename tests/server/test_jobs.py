"""Questions of one kind: which of them are asked together, and when."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from automoderate.protocol.outputs import Job, Output
from automoderate.server import jobs
from automoderate.server.jobs import AT_ONCE, ENOUGH, GATHERING, PATIENCE, UNDER_WAY, Batches, Jobs
from automoderate.server.outages import Outage


class Asking:
    """Batches of questions that are numbers, each answered with its double."""

    def __init__(self) -> None:
        self.queued: list[Output] = []
        self.answers: list[tuple[int, Any]] = []
        self.jobs = Jobs(self.queued.append)
        self.outage = Outage(logging.getLogger("test"), "doublings")
        self.batches = Batches(self.jobs, self.double, self.outage)

    @staticmethod
    def double(numbers: Sequence[int]) -> Sequence[int | Exception]:
        return [number * 2 for number in numbers]

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.batches.put(number, partial(self.answered, number))

    def answered(self, number: int, answer: Any, now: float) -> None:
        self.answers.append((number, answer))

    def turn(self, now: float) -> list[Job]:
        """The jobs that are started at this turn of the loop."""
        self.batches.tick(now)
        queued = [output for output in self.queued if isinstance(output, Job)]
        self.queued.clear()
        return queued

    def answer(self, job: Job, now: float = 0.0) -> None:
        self.jobs.finish(job.ticket, job.call(), now)


@pytest.fixture
def asking() -> Asking:
    return Asking()


def test_nothing_is_asked_where_nothing_waits(asking: Asking) -> None:
    assert asking.batches.next_deadline() is None
    assert asking.turn(0.0) == []
    assert len(asking.jobs) == 0


def test_what_waits_at_the_same_time_is_one_job(asking: Asking) -> None:
    asking.put(1, 2, 1)
    assert asking.jobs.waiting == 2
    assert asking.batches.next_deadline() == AT_ONCE
    [job] = asking.turn(0.0)
    assert (asking.jobs.waiting, len(asking.jobs)) == (0, 1)
    assert asking.batches.next_deadline() is None
    asking.answer(job)
    assert asking.answers == [(1, 2), (1, 2), (2, 4)]
    assert len(asking.jobs) == 0


def test_a_question_never_joins_an_equal_one_that_was_asked_already(asking: Asking) -> None:
    asking.put(1)
    [first] = asking.turn(0.0)
    asking.put(1)
    [second] = asking.turn(0.0)
    asking.answer(first)
    assert asking.answers == [(1, 2)]
    asking.answer(second)
    assert asking.answers == [(1, 2), (1, 2)]


def test_a_batch_is_bounded_and_the_oldest_are_asked_first(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LARGEST", 3)
    monkeypatch.setattr(jobs, "ENOUGH", 1)
    asking.put(*range(8))
    first, second = asking.turn(0.0)
    assert [list(job.call.args[0]) for job in (first, second)] == [[0, 1, 2], [3, 4, 5]]  # type: ignore[attr-defined]
    assert asking.turn(0.0) == []
    asking.answer(first)
    [third] = asking.turn(0.0)
    for job in (second, third):
        asking.answer(job)
    assert asking.answers == [(number, number * 2) for number in range(8)]


def test_where_several_were_asked_together_the_next_wait_a_moment_for_more(asking: Asking) -> None:
    asking.put(1, 2)
    [first] = asking.turn(10.0)
    asking.put(3)
    assert asking.turn(10.0) == []
    assert asking.batches.next_deadline() == 10.0 + GATHERING
    asking.answer(first)
    assert asking.turn(10.0) == [], "nor does an answer change it"
    asking.put(4)
    [second] = asking.turn(10.0 + GATHERING)
    asking.answer(second)
    asking.put(*range(5, 4 + ENOUGH))
    assert asking.turn(10.0 + GATHERING) == []
    asking.put(100)
    [third] = asking.turn(10.0 + GATHERING)
    asking.answer(third)
    assert len(asking.answers) == 4 + ENOUGH


def test_one_by_itself_waits_for_nothing_however_often_it_is_asked(asking: Asking) -> None:
    for number in range(5):
        asking.put(number)
        assert asking.batches.next_deadline() == AT_ONCE
        [job] = asking.turn(10.0)
        asking.answer(job)
    asking.put(5, 6)
    asking.answer(asking.turn(10.0)[0])
    asking.put(7)
    asking.answer(asking.turn(10.0 + GATHERING)[0])
    asking.put(8)
    assert asking.batches.next_deadline() == AT_ONCE, "the crowd is over"


def test_what_arises_while_others_are_under_way_waits_for_them(asking: Asking) -> None:
    under_way = []
    for number in range(UNDER_WAY):
        asking.put(number)
        under_way += asking.turn(10.0)
    asking.put(7)
    asking.put(8)
    assert asking.turn(10.1) == []
    assert asking.batches.next_deadline() == 10.0 + PATIENCE
    asking.answer(under_way[0])
    assert asking.batches.next_deadline() == AT_ONCE
    [job] = asking.turn(10.2)
    asking.answer(job)
    assert asking.answers[-2:] == [(7, 14), (8, 16)]


def test_batches_that_are_never_answered_hold_nothing_up_for_long(asking: Asking) -> None:
    for number in range(UNDER_WAY):
        asking.put(number)
        asking.turn(0.0)
    asking.put(7)
    assert asking.turn(PATIENCE - 0.1) == []
    [job] = asking.turn(PATIENCE)
    asking.put(8)
    assert asking.turn(PATIENCE) == []
    asking.answer(job)
    assert asking.answers == [(7, 14)]


def test_a_question_that_an_answer_brings_about_is_asked_next(asking: Asking) -> None:
    asking.batches.put(1, lambda answer, now: asking.put(answer))
    [job] = asking.turn(0.0)
    asking.answer(job)
    [job] = asking.turn(0.0)
    asking.answer(job)
    assert asking.answers == [(2, 4)]


def test_a_job_that_fails_fails_each_of_its_questions(asking: Asking) -> None:
    asking.put(1, 2, 2)
    [job] = asking.turn(0.0)
    error = OSError("away")
    asking.jobs.finish(job.ticket, error, 0.0)
    assert asking.answers == [(1, error), (2, error), (2, error)]
    assert asking.outage.total == 2


def test_an_answer_may_be_an_exception(asking: Asking) -> None:
    asking.put(1, 2)
    [job] = asking.turn(0.0)
    error = OSError("away")
    asking.jobs.finish(job.ticket, [error, 4], 0.0)
    assert asking.answers == [(1, error), (2, 4)]
    assert asking.outage.total == 1
