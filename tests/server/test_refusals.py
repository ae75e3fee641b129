"""The newest refusals, and how many of each code there were in the last minutes."""

from __future__ import annotations

from automoderate.server.refusals import KEPT, MINUTES, Refusal, Refusals


def refusal(at: float, code: str = "access_denied") -> Refusal:
    return Refusal(at, code, "u", "10.0.0.1", "p")


def test_those_of_the_last_minutes_are_counted_by_code() -> None:
    refusals = Refusals()
    assert refusals.counts(0.0) == {}
    for at in (0.0, 10.0, 59.0, 61.0):
        refusals.note(refusal(at))
    refusals.note(refusal(62.0, "timeout"))
    assert refusals.counts(62.0) == {"access_denied": 4, "timeout": 1}
    assert refusals.counts(MINUTES * 60.0) == {"access_denied": 1, "timeout": 1}
    assert refusals.counts(MINUTES * 60.0 + 60) == {}


def test_what_is_kept_is_bounded() -> None:
    refusals = Refusals()
    for minute in range(10 * KEPT):
        refusals.note(refusal(minute * 60.0))
    newest = [each.at for each in refusals.newest(10 * KEPT)]
    assert newest == [minute * 60.0 for minute in range(10 * KEPT - 1, 9 * KEPT - 1, -1)]
    assert [each.at for each in refusals.newest(2)] == newest[:2]
    assert refusals.counts((10 * KEPT - 1) * 60.0) == {"access_denied": MINUTES}
