"""What the log says of something that is down: when it begins, now and then, and when it is over."""

from __future__ import annotations

import logging

import pytest

from automoderate.server.interfaces import BackplaneUnavailable
from automoderate.server.outages import CAUSES, QUIET, REMINDER, Outage


@pytest.fixture
def outage() -> Outage:
    return Outage(logging.getLogger("test"), "checks")


def test_thousands_of_failures_are_two_lines(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3000):
        outage.failed(BackplaneUnavailable(f"the database is away\nand more of it, {number}"), 10.0 + number / 1000)
    outage.worked(13.0 + QUIET)
    outage.worked(14.0 + QUIET)
    assert caplog.messages == [
        "checks fail: the database is away",
        "checks work again; 3000 failed in 3 seconds",
    ]
    assert outage.total == 3000


def test_one_that_lasts_is_not_forgotten(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for second in range(int(2 * REMINDER) + 1):
        outage.failed(BackplaneUnavailable("away"), float(second))
    assert caplog.messages == ["checks fail: away", "checks go on failing, 61 so far: away",
                               "checks go on failing, 121 so far: away"]  # fmt: skip


def test_different_causes_are_named_but_not_without_end(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for number in (*range(3000), 0):
        outage.failed(BackplaneUnavailable(f"refused by {number}"), 0.0)
    assert caplog.messages == [f"checks fail: refused by {number}" for number in range(CAUSES)]


def test_what_fails_now_and_then_is_one_outage(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10):
        outage.failed(BackplaneUnavailable("busy"), float(number))
        outage.worked(number + 0.5)
    assert caplog.messages == ["checks fail: busy"]


def test_the_next_outage_is_counted_by_itself(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.failed(BackplaneUnavailable("once"), 0.0)
    outage.worked(QUIET)
    outage.failed(BackplaneUnavailable("twice"), 100.0)
    outage.worked(100.0 + QUIET)
    assert caplog.messages[2:] == ["checks fail: twice", "checks work again; 1 failed in 0 seconds"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BackplaneUnavailable("away"), "checks fail: away"),
        (RuntimeError("no thread"), "checks fail: RuntimeError: no thread"),
        (OSError("no route"), "checks fail: OSError: no route"),
        (KeyError(), "checks fail: KeyError"),
    ],
)
def test_the_cause_is_one_line(outage: Outage, caplog: pytest.LogCaptureFixture, error: Exception, line: str) -> None:
    outage.failed(error, 0.0)
    assert caplog.messages == [line]


def test_a_failure_that_looks_like_a_mistake_of_ours_comes_with_its_traceback_once(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        try:
            raise TypeError("no such argument")
        except TypeError as error:
            outage.failed(error, 0.0)
    assert caplog.text.count("Traceback") == 1
