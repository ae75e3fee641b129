"""Work in slices: one a turn, in order, and none of it is lost."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from automoderate.server.jobs import AT_ONCE
from automoderate.server.slices import MOST, Slices


def work(steps: list[str], name: str, slices: int) -> Generator[None, None, str]:
    for number in range(slices):
        steps.append(f"{name}{number}")
        yield
    return name


def test_each_turn_does_one_slice_however_many_works_wait() -> None:
    slices, steps, done = Slices(), list[str](), list[tuple[Any, float]]()
    assert slices.next_deadline() is None
    slices.tick(0.0)
    slices.start(work(steps, "a", 2), lambda what, now: done.append((what, now)))
    slices.start(work(steps, "b", 1), lambda what, now: done.append((what, now)))
    assert steps == [], "nothing is done before the sockets were looked at"
    for turn in range(5):
        assert slices.next_deadline() == AT_ONCE
        slices.tick(float(turn))
        assert len(steps) <= turn + 1
    assert slices.next_deadline() is None
    assert steps == ["a0", "a1", "b0"]
    assert done == [("a", 2.0), ("b", 4.0)]


def test_a_work_that_fails_is_over_and_the_next_goes_on() -> None:
    slices, done = Slices(), list[Any]()

    def failing() -> Generator[None, None, None]:
        yield
        raise RuntimeError("it broke")

    slices.start(failing(), lambda what, _: done.append(str(what)))
    slices.start(work([], "b", 0), lambda what, _: done.append(what))
    for _ in range(3):
        slices.tick(0.0)
    assert done == ["it broke", "b"]


def test_it_says_when_no_more_should_be_started() -> None:
    slices = Slices()
    for _ in range(MOST):
        assert not slices.full
        slices.start(work([], "a", 1), lambda *_: None)
    assert slices.full
