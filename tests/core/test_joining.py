"""The error table in its order, and every corner of joining and leaving."""

from __future__ import annotations

from typing import Any

import pytest

from automoderate.core.hub import (
    WINDOW,
    Access,
    AccessChecked,
    Acknowledge,
    Broadcast,
    CheckAccess,
    Closed,
    Emit,
    End,
    Ending,
    Enter,
    Error,
    Failed,
    History,
    HistoryRead,
    Leave,
    Limits,
    Published,
    ReadHistory,
)
from kits.hub_bench import ORIGIN, HubBench, error, joined, of_type, update


class TestErrors:
    """The error table, in its order."""

    @pytest.mark.parametrize("event", ["join_project", "leave_project"])
    @pytest.mark.parametrize(
        ("args", "which", "named"),
        [
            ((), Error.PROJECT_ID_REQUIRED, None),
            ((None,), Error.PROJECT_ID_REQUIRED, None),
            (("p",), Error.PROJECT_ID_REQUIRED, None),
            (([1],), Error.PROJECT_ID_REQUIRED, None),
            (({},), Error.PROJECT_ID_REQUIRED, None),
            (({"project_id": None},), Error.PROJECT_ID_REQUIRED, None),
            (({"project_id": ""},), Error.PROJECT_ID_REQUIRED, ""),
            (({"project_id": 7},), Error.INVALID_PROJECT_ID, None),
            (({"project_id": 0},), Error.INVALID_PROJECT_ID, None),
            (({"project_id": False},), Error.INVALID_PROJECT_ID, None),
            (({"project_id": ["p"]},), Error.INVALID_PROJECT_ID, None),
            (({"project_id": {"a": 1}},), Error.INVALID_PROJECT_ID, None),
            (({"project_id": "x" * 101},), Error.INVALID_PROJECT_ID, "x" * 101),
            (({"project_id": "x" * 10_001},), Error.INVALID_PROJECT_ID, None),
        ],
    )
    def test_payload_and_format(
        self, live: HubBench, event: str, args: tuple[Any, ...], which: Error, named: str | None
    ) -> None:
        assert live.send(event, *args, ack=0) == [
            Emit("s", "error", error(which, named)),
            Acknowledge("s", 0, {"error": error(which)}),
        ]

    @pytest.mark.parametrize("project", ["x" * 100, "é" * 100, " p ", "日本", "a\x00b", "' OR 1=1 --"])
    def test_any_string_up_to_100_characters_may_be_asked_for(self, live: HubBench, project: str) -> None:
        assert live.ask(project).project_id == project

    @pytest.mark.parametrize(
        ("access", "which"), [(Access.NOT_FOUND, Error.PROJECT_NOT_FOUND), (Access.DENIED, Error.ACCESS_DENIED)]
    )
    def test_not_for_you(self, live: HubBench, access: Access, which: Error) -> None:
        check = live.ask(ack=9)
        assert live.give(AccessChecked(check.ticket, access)) == [
            Emit("s", "error", error(which, "p")),
            Acknowledge("s", 9, {"error": error(which)}),
        ]
        assert live.hub.counts()["memberships"] == 0
        live.join()

    def test_a_user_who_is_no_more_ends_at_the_join(self, member: HubBench) -> None:
        check = member.ask("q", ack=2)
        assert member.give(AccessChecked(check.ticket, Access.NO_USER)) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED, "q")),
            Acknowledge("s", 2, {"error": error(Error.AUTHENTICATION_REQUIRED)}),
            Leave("s", "project_p"),
        ]
        assert member.send("x") == [Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))]
        assert member.after(1) == [End("s", Ending.STAY_AWAY)]
        assert member.is_empty()

    def test_a_slow_check_times_out_once(self, live: HubBench) -> None:
        check = live.ask()
        assert live.after(9.99) == []
        assert live.after(0.01) == [Emit("s", "error", error(Error.TIMEOUT, "p"))]
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == []
        assert live.hub.counts()["memberships"] == 0

    def test_a_deadline_takes_effect_before_the_answer_that_arrives_with_it(self, live: HubBench) -> None:
        check = live.ask()
        live.now += 10
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == [
            Emit("s", "error", error(Error.TIMEOUT, "p")),
        ]

    def test_a_failed_check(self, live: HubBench) -> None:
        check = live.ask()
        assert live.give(Failed(check.ticket)) == [Emit("s", "error", error(Error.SERVER_ERROR, "p"))]
        assert live.give(Failed(check.ticket)) == []

    def test_room_limit(self, live: HubBench) -> None:
        for number in range(49):
            live.join(f"p{number}")
        live.ask("being checked counts")
        assert live.send("join_project", {"project_id": "one more"}) == [
            Emit("s", "error", error(Error.ROOM_LIMIT, "one more"))
        ]
        live.ask("p0")  # a room one is in already is no further room
        live.send("leave_project", {"project_id": "p1"})
        live.ask("one more")

    def test_room_limit_comes_before_the_project_is_looked_up(self) -> None:
        bench = HubBench(Limits(max_rooms=0))
        bench.connect()
        assert of_type(bench.send("join_project", {"project_id": "p"}), CheckAccess) == []

    def test_rate_comes_before_the_payload_and_ends_who_goes_on(self, live: HubBench) -> None:
        for _ in range(100):
            assert live.send("unknown event") == []
        for _ in range(25):
            assert live.send("join_project", None, ack=1) == [
                Emit("s", "error", error(Error.RATE_LIMITED)),
                Acknowledge("s", 1, {"error": error(Error.RATE_LIMITED)}),
            ]
        assert live.send("x") == [
            Emit("s", "error", error(Error.RATE_LIMITED)),
            End("s", Ending.STAY_AWAY),
        ]
        assert live.is_empty()

    def test_the_rate_is_counted_over_a_sliding_minute(self, live: HubBench) -> None:
        for _ in range(100):
            live.send("x")
        live.after(WINDOW - 0.1)
        assert live.send("x") == [Emit("s", "error", error(Error.RATE_LIMITED))]
        live.after(0.1)
        assert live.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]

    def test_a_flood_leaves_its_rooms_and_answers_waiting_joins(self) -> None:
        bench = HubBench(Limits(max_events_per_minute=2))
        bench.connect()
        bench.join()
        bench.ask("q", ack=5)
        bench.send("x")
        effects = bench.send("x")
        assert effects == [
            Emit("s", "error", error(Error.RATE_LIMITED)),
            Leave("s", "project_p"),
            Acknowledge("s", 5, {"error": error(Error.RATE_LIMITED)}),
            End("s", Ending.STAY_AWAY),
        ]

    def test_an_event_nobody_handles_is_ignored(self, live: HubBench) -> None:
        assert live.send("no_such_event", {"project_id": "p"}, ack=3) == []

    def test_unknown_keys_are_ignored(self, live: HubBench) -> None:
        live.ask("p", surprise=[1, 2, 3])


class TestJoining:
    def test_a_join_answers_and_enters(self, live: HubBench) -> None:
        check = live.ask(ack=11)
        (read,) = live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert read == ReadHistory(3, "p", None)
        assert live.give(HistoryRead(3, History((), True, ORIGIN))) == [
            Emit("s", "joined_project", joined()),
            Acknowledge("s", 11, joined()),
            Enter("s", "project_p"),
        ]

    def test_the_second_member_too_is_told_where_the_project_is_now(self, member: HubBench) -> None:
        member.connect("t", "v")
        read = member.catching_up(None, sid="t")
        assert read.after is None
        assert member.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == [
            Emit("t", "joined_project", joined()),
            Enter("t", "project_p"),
        ]

    def test_joining_twice_looks_the_user_up_again(self, member: HubBench) -> None:
        check = member.ask(ack=1)
        assert member.give(Published(update(1))) == [Broadcast("project_p", update(1))]
        assert member.give(AccessChecked(check.ticket, Access.GRANTED)) == [
            Emit("s", "joined_project", joined(last="1000-1")),
            Acknowledge("s", 1, joined(last="1000-1")),
        ]

    def test_a_second_join_that_is_denied_leaves(self, member: HubBench) -> None:
        check = member.ask()
        assert member.give(AccessChecked(check.ticket, Access.DENIED)) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
            Leave("s", "project_p"),
        ]

    def test_a_second_join_that_fails_stays(self, member: HubBench) -> None:
        check = member.ask(ack=4)
        assert member.give(Failed(check.ticket)) == [
            Emit("s", "error", error(Error.SERVER_ERROR, "p")),
            Acknowledge("s", 4, {"error": error(Error.SERVER_ERROR)}),
        ]
        assert len(member.give(Published(update(1)))) == 1
        member.ask()
        assert member.after(10) == [Emit("s", "error", error(Error.TIMEOUT, "p"))]
        assert len(member.give(Published(update(2)))) == 1

    def test_joins_under_way_share_one_check(self, live: HubBench) -> None:
        check = live.ask(ack=1)
        assert live.send("join_project", {"project_id": "p"}, ack=2) == []
        (read,) = live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert live.send("join_project", {"project_id": "p"}) == []
        assert isinstance(read, ReadHistory)
        effects = live.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects == [
            Emit("s", "joined_project", joined()),
            Acknowledge("s", 1, joined()),
            Emit("s", "joined_project", joined()),
            Acknowledge("s", 2, joined()),
            Emit("s", "joined_project", joined()),
            Enter("s", "project_p"),
        ]

    def test_a_third_join_shares_the_check_of_the_second(self, member: HubBench) -> None:
        check = member.ask()
        assert member.send("join_project", {"project_id": "p"}) == []
        effects = member.give(AccessChecked(check.ticket, Access.GRANTED))
        assert effects == [Emit("s", "joined_project", joined())] * 2

    def test_leaving(self, member: HubBench) -> None:
        assert member.send("leave_project", {"project_id": "p"}, ack=8) == [
            Leave("s", "project_p"),
            Emit("s", "left_project", {"project_id": "p"}),
            Acknowledge("s", 8, {"project_id": "p"}),
        ]
        assert member.give(Published(update(1))) == []

    def test_leaving_a_room_one_is_not_in(self, live: HubBench) -> None:
        assert live.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]

    def test_leaving_a_room_only_others_are_in(self, member: HubBench) -> None:
        member.connect("t", "v")
        assert member.send("leave_project", {"project_id": "p"}, sid="t") == [
            Emit("t", "left_project", {"project_id": "p"})
        ]
        assert len(member.give(Published(update(1)))) == 1

    def test_a_leave_that_overtakes_the_check_wins(self, live: HubBench) -> None:
        check = live.ask(ack=1)
        assert live.send("leave_project", {"project_id": "p"}, ack=2) == [
            Acknowledge("s", 1, {"project_id": "p"}),
            Emit("s", "left_project", {"project_id": "p"}),
            Acknowledge("s", 2, {"project_id": "p"}),
        ]
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == []
        assert live.after(20) == []

    def test_a_leave_that_overtakes_the_history_wins(self, live: HubBench) -> None:
        read = live.catching_up(None)
        assert live.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]
        assert live.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == []

    def test_a_leave_that_overtakes_a_second_join_wins(self, member: HubBench) -> None:
        check = member.ask()
        assert member.send("leave_project", {"project_id": "p"})[0] == Leave("s", "project_p")
        assert member.give(AccessChecked(check.ticket, Access.GRANTED)) == []

    def test_join_leave_join_believes_only_the_last_check(self, live: HubBench) -> None:
        first = live.ask()
        live.send("leave_project", {"project_id": "p"})
        second = live.ask()
        assert live.give(AccessChecked(first.ticket, Access.GRANTED)) == []
        assert live.give(AccessChecked(second.ticket, Access.DENIED)) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]

    def test_a_session_that_ends_while_checked_leaves_nothing_behind(self, live: HubBench) -> None:
        check = live.ask()
        assert live.give(Closed("s")) == []
        assert live.is_empty()
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == []
        assert live.after(100) == []

    def test_a_session_that_ends_while_catching_up_leaves_nothing_behind(self, live: HubBench) -> None:
        read = live.catching_up("1000-0")
        live.give(Closed("s"))
        assert live.is_empty()
        assert live.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == []

    def test_a_member_that_ends_leaves_its_rooms(self, member: HubBench) -> None:
        member.ask()
        assert member.give(Closed("s")) == [Leave("s", "project_p")]
        assert member.is_empty()
        assert member.give(Closed("s")) == []

    @pytest.mark.parametrize(("fails", "which"), [(True, Error.SERVER_ERROR), (False, Error.TIMEOUT)])
    def test_history_that_cannot_be_read_fails_the_join(self, live: HubBench, fails: bool, which: Error) -> None:
        read = live.catching_up("1000-0")
        failure = live.give(Failed(read.ticket)) if fails else live.after(10)
        assert failure == [Emit("s", "error", error(which, "p"))]
        assert live.hub.counts()["memberships"] == 0
