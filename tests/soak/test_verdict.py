"""That a fault run can fail: every kind of violation, in histories made up for it, and none where there is none."""

from __future__ import annotations

import pytest

from kits.soak.verdict import (
    Accepted,
    Asked,
    Attempts,
    Cut,
    Entry,
    Follower,
    Got,
    Joined,
    Kind,
    Left,
    Limits,
    Record,
    Role,
    judge_follower,
    judge_stream,
    recoveries,
)

STREAM = [Entry(f"{number}00-0", number, size=100) for number in range(1, 8)]
LIMITS = Limits(entries=3, size=1000)
START = (Asked(None), Joined("200-0"))


def got(*numbers: int) -> list[Got]:
    return [Got(f"{number}00-0", number) for number in numbers]


def back(after: int, *, recovered: bool | None, position: int) -> list[Record]:
    """Cut off, back again, and let in at once: nothing was missed, or it is not made up for."""
    return [Cut(), Asked(f"{after}00-0"), Joined(f"{position}00-0", recovered)]


def kinds(role: Role, *records: Record) -> list[Kind]:
    return [each.kind for each in judge_follower(Follower("somebody", role, records), STREAM, LIMITS)]


@pytest.mark.parametrize(
    "records",
    [
        (*START, *got(3, 4, 5, 6, 7)),
        (Asked(None), Joined("250-3"), *got(3, 4, 5, 6, 7)),  # where an entry is that is no update
        (Asked(None), Joined("700-0")),
        (Cut(), *START, *got(3, 4), Cut(), Cut(), Asked("400-0"), *got(5, 6), Joined("600-0", True), *got(7)),
        (*START, *got(3), *back(3, recovered=True, position=3), *got(4, 5, 6, 7)),
        (*START, *got(3), Cut(), Asked("300-0"), Asked("300-0"), Joined("300-0", True), *got(4, 5, 6, 7)),
        (*START, *back(2, recovered=False, position=6), *got(7)),  # 4 updates are more than 3
    ],
    ids=["live", "behind a mark", "after everything", "caught up", "nothing missed", "asked twice", "out of reach"],
)
def test_a_gapless_piece_in_order_and_once_is_what_a_member_is_to_get(records: tuple[Record, ...]) -> None:
    assert kinds(Role.MEMBER, *records) == []


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ((*START, *got(3, 4, 6, 7)), [Kind.LOST]),
        ((*START, *got(3, 4, 5, 6)), [Kind.LOST]),
        ((*START, *got(4, 5, 6, 7)), [Kind.LOST]),
        ((), [Kind.LOST]),
        ((*START, *got(3, 4, 5, 6, 7), Cut()), [Kind.LOST]),
        ((*START, *got(3, 4, 4, 5, 6, 7)), [Kind.DOUBLED]),
        ((*START, *got(3, 4, 5), Cut(), Asked("400-0"), *got(5, 6), Joined("600-0", True), *got(7)), [Kind.DOUBLED]),
        ((*START, *got(3, 5, 4, 6, 7)), [Kind.REORDERED]),
        ((*START, *got(3, 4, 5, 6, 7), Got("750-0", 8)), [Kind.INVENTED]),
        ((*START, *got(3, 4, 5, 6), Got("700-0", 6)), [Kind.INVENTED, Kind.LOST]),
        ((*START, *got(2, 3, 4, 5, 6, 7)), [Kind.LEAKED]),
        ((Asked(None), *got(3), Joined("300-0"), *got(4, 5, 6, 7)), [Kind.LEAKED]),
        ((*START, *got(3), Cut(), *got(4), Asked("300-0"), *got(4, 5, 6, 7), Joined("700-0", True)), [Kind.LEAKED]),
        ((Joined("200-0"), *got(3)), [Kind.LET_IN, Kind.LEAKED, *[Kind.LOST] * 5]),
        ((*START, *got(3), *back(3, recovered=True, position=5), *got(6, 7)), [Kind.SILENT_GAP] * 2),
        ((*START, *got(3), *back(3, recovered=None, position=3), *got(4, 5, 6, 7)), [Kind.SILENT_GAP]),
        ((*START, *got(3), Left(), Asked("300-0"), Joined("300-0", True), *got(4, 5, 6, 7)), [Kind.SHUT_OUT]),
        ((*START, *got(3), *back(3, recovered=False, position=5), *got(6, 7)), [Kind.UNEXPLAINED]),
        ((*START, *got(3), *back(3, recovered=False, position=3), *got(4, 5, 6, 7)), [Kind.UNEXPLAINED]),
    ],
    ids=[
        "lost in the middle", "lost at the end", "lost after joining", "never let in", "not in the room at the end",
        "doubled", "replayed and live", "reordered", "invented", "another's content", "from before it joined",
        "before it was let in", "before it asked", "let in unasked", "silent gap", "nothing said of a gap",
        "shut out", "unexplained", "unexplained with nothing missed",
    ],
)  # fmt: skip
def test_what_is_wrong_for_a_member_is_found(records: tuple[Record, ...], found: list[Kind]) -> None:
    assert kinds(Role.MEMBER, *records) == found


def test_many_bytes_explain_a_history_that_is_out_of_reach_as_many_updates_do() -> None:
    stream = [Entry(f"{number}00-0", number, size=600) for number in range(1, 4)]
    records = (Asked(None), Joined("100-0"), *back(1, recovered=False, position=3))
    assert judge_follower(Follower("somebody", Role.MEMBER, records), stream, LIMITS) == []


def test_an_outsider_gets_nothing_and_is_told_so() -> None:
    assert kinds(Role.OUTSIDER, Asked(None), Left(), Cut(), Asked(None), Left()) == []
    assert kinds(Role.OUTSIDER, Asked(None)) == [Kind.NOT_TOLD]
    assert kinds(Role.OUTSIDER, Asked(None), Left(), *got(3)) == [Kind.LEAKED]
    assert kinds(Role.OUTSIDER, Asked(None), Joined("200-0"), Left()) == [Kind.LET_IN]


@pytest.mark.parametrize("role", [Role.REMOVED, Role.LEAVER])
def test_who_is_no_longer_there_has_a_piece_up_to_some_end(role: Role) -> None:
    assert kinds(role, *START, *got(3, 4), Left()) == []
    assert kinds(role, Asked(None), Left()) == []
    assert kinds(role, *START, *got(3), Cut(), Asked("300-0"), Left(), Cut(), Asked("300-0"), Left()) == []
    assert kinds(role, *START, *got(3, 4)) == [Kind.NOT_TOLD]
    assert kinds(role, *START, *got(3, 5), Left()) == [Kind.LOST]
    assert kinds(role, *START, *got(3), Left(), *got(4)) == [Kind.AFTER_LEAVING]
    assert kinds(role, *START, Left(), Cut(), Asked("200-0"), Joined("200-0", True)) == [Kind.LET_IN]
    assert kinds(role, *START, Left(), Cut(), Asked("200-0"), *got(3)) == [Kind.AFTER_LEAVING]


def test_recoveries_are_counted() -> None:
    records = (*START, *back(2, recovered=True, position=2), *back(2, recovered=False, position=6))
    assert recoveries([Follower("somebody", Role.MEMBER, records)] * 2) == {True: 2, False: 2}


TRUTH = [Accepted(1, "100-0"), Accepted(3, "300-0")]


def stream_kinds(truth: list[Accepted], attempts: Attempts, *stream: Entry) -> list[Kind]:
    return [each.kind for each in judge_stream("p", truth, attempts, stream)]


def test_a_stream_has_what_was_accepted_and_perhaps_what_nobody_knows_of() -> None:
    tried = Attempts(frozenset(range(10)))
    assert stream_kinds(TRUTH, tried, Entry("100-0", 1), Entry("300-0", 3)) == []
    assert stream_kinds(TRUTH, tried, Entry("100-0", 1), Entry("200-0", 4), Entry("300-0", 3), Entry("400-0", 2)) == []


def test_what_is_wrong_with_a_stream_is_found() -> None:
    one, three = Entry("100-0", 1), Entry("300-0", 3)
    tried = Attempts(frozenset({1, 3}))
    assert stream_kinds(TRUTH, tried, three) == [Kind.LOST]
    assert stream_kinds(TRUTH, tried, Entry("100-0", 3), three) == [Kind.INVENTED, Kind.DOUBLED]
    assert stream_kinds(TRUTH[::-1], tried, one, three) == [Kind.REORDERED]
    assert stream_kinds(TRUTH, tried, one, three, Entry("400-0", 4)) == [Kind.INVENTED]
    assert stream_kinds(TRUTH, tried, one, Entry("200-0", 1), three) == [Kind.DOUBLED]
    assert stream_kinds(TRUTH, Attempts(tried.tried, frozenset({1})), one, Entry("200-0", 1), three) == []
