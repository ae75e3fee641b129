"""The hub on its own: every input, every row of the error table, every corner of joining and leaving."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any

import pytest

from automoderate.core.hub import (
    WINDOW,
    Access,
    AccessChanged,
    AccessChecked,
    Acknowledge,
    Broadcast,
    CheckAccess,
    Closed,
    Connected,
    Cue,
    Effect,
    Emit,
    End,
    Ending,
    Enter,
    Error,
    Failed,
    Follow,
    History,
    HistoryRead,
    Hub,
    HubError,
    Identified,
    Identify,
    Input,
    Leave,
    Limits,
    LoggedOut,
    Lost,
    Passed,
    Published,
    ReadHistory,
    Received,
    Recheck,
    Rechecked,
    Replay,
    RoomState,
    SessionState,
    Tick,
    Unfollow,
    Update,
    parse_event_id,
    projects_in,
    room_name,
    stamped,
)

ORIGIN = "1000-0"


def update(sequence: int, project: str = "p", **data: Any) -> Update:
    event_id = f"1000-{sequence}"
    return Update(project, "moderation_update", stamped(json.dumps(data, separators=(",", ":")), event_id), event_id)


def error(which: Error, project_id: str | None = None) -> dict[str, Any]:
    code, message = which.value
    named = {} if project_id is None else {"project_id": project_id}
    return {"message": message, "code": code, **named}


def joined(project: str = "p", last: str = ORIGIN, **more: Any) -> dict[str, Any]:
    return {"project_id": project, "room": room_name(project), "last_event_id": last, **more}


class Bench:
    """A hub, a clock, and the answers a test gives by hand."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.hub = Hub(limits)
        self.now = 100.0
        self.following: list[Effect] = []
        """Which projects' updates the backplane was asked for, kept apart from what becomes of sessions."""

    def give(self, item: Input) -> list[Effect]:
        effects = self.hub.handle(item, self.now)
        self.following += [effect for effect in effects if isinstance(effect, Follow | Unfollow)]
        return [effect for effect in effects if not isinstance(effect, Follow | Unfollow)]

    def after(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.give(Tick())

    def connect(self, sid: str = "s", user: str | None = "u", address: str = "10.0.0.1") -> list[Effect]:
        (identify,) = self.give(Connected(sid, f"cookie of {user}", address))
        assert isinstance(identify, Identify)
        assert (identify.sid, identify.credential) == (sid, f"cookie of {user}")
        return self.give(Identified(identify.ticket, user))

    def send(self, event: str, *args: Any, sid: str = "s", ack: int | None = None) -> list[Effect]:
        return self.give(Received(sid, event, args, ack))

    def ask(self, project: str = "p", sid: str = "s", ack: int | None = None, **more: Any) -> CheckAccess:
        """Send a join and return the check it asks for."""
        (check,) = self.send("join_project", {"project_id": project, **more}, sid=sid, ack=ack)
        assert isinstance(check, CheckAccess)
        assert check.project_id == project
        return check

    def join(self, project: str = "p", sid: str = "s", last: str = ORIGIN) -> list[Effect]:
        check = self.ask(project, sid)
        effects = self.give(AccessChecked(check.ticket, Access.GRANTED))
        *_, read = effects
        assert isinstance(read, ReadHistory)
        effects = self.give(HistoryRead(read.ticket, History((), True, last)))
        assert effects[-1] == Enter(sid, room_name(project))
        return effects

    def catching_up(self, after: str | None, sid: str = "s", ack: int | None = None) -> ReadHistory:
        """Bring a join up to where the history is asked for."""
        more = {} if after is None else {"last_event_id": after}
        check = self.ask(sid=sid, ack=ack, **more)
        *_, read = self.give(AccessChecked(check.ticket, Access.GRANTED))
        assert isinstance(read, ReadHistory)
        return read

    def recheck_due(self) -> Recheck:
        """Let time pass until the next re-check is asked for."""
        for _ in range(10):
            deadline = self.hub.next_deadline()
            assert deadline is not None
            self.now = max(self.now, deadline)
            for effect in self.give(Tick()):
                if isinstance(effect, Recheck):
                    return effect
        raise AssertionError("no re-check became due")


def of_type(effects: Sequence[Effect], kind: type[Any] | UnionType) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def live(bench: Bench) -> Bench:
    bench.connect()
    return bench


@pytest.fixture
def member(live: Bench) -> Bench:
    live.join()
    return live


def is_empty(hub: Hub) -> bool:
    counts = hub.counts()
    return not any(counts[name] for name in ("sessions", "users", "rooms", "memberships", "tickets"))


class TestIdentity:
    def test_a_user_is_welcomed(self, bench: Bench) -> None:
        assert bench.connect() == [Emit("s", "connected", {"message": "Connected to AutoModerate"})]

    def test_a_stranger_is_told_and_ended_after_the_grace(self, bench: Bench) -> None:
        assert bench.connect(user=None) == [Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))]
        assert bench.after(0.9) == []
        assert bench.after(0.1) == [End("s", Ending.DISCONNECT)]
        assert is_empty(bench.hub)

    def test_any_event_in_the_grace_gets_the_same_error(self, bench: Bench) -> None:
        bench.connect(user=None)
        assert bench.send("join_project", {"project_id": "p"}, ack=1) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED, "p")),
            Acknowledge("s", 1, {"error": error(Error.AUTHENTICATION_REQUIRED)}),
        ]
        assert bench.send("anything") == [Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))]

    def test_the_grace_does_not_answer_a_flood(self) -> None:
        bench = Bench(Limits(max_events_per_minute=3))
        bench.connect(user=None)
        assert [len(bench.send("x")) for _ in range(5)] == [1, 1, 1, 0, 0]

    def test_a_stranger_may_leave_within_the_grace(self, bench: Bench) -> None:
        bench.connect(user=None)
        assert bench.give(Closed("s")) == []
        assert bench.after(5) == []
        assert is_empty(bench.hub)

    def test_events_sent_before_the_answer_are_served_after_it(self, bench: Bench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert bench.send("join_project", {"project_id": "p"}, ack=3) == []
        assert bench.send("leave_project", {"project_id": "q"}, ack=4) == []
        effects = bench.give(Identified(identify.ticket, "u"))  # type: ignore[union-attr]
        assert effects[0] == Emit("s", "connected", {"message": "Connected to AutoModerate"})
        assert effects[1] == CheckAccess(2, "u", "p")
        assert effects[2:] == [
            Emit("s", "left_project", {"project_id": "q"}),
            Acknowledge("s", 4, {"project_id": "q"}),
        ]

    def test_events_sent_before_the_answer_are_refused_for_a_stranger(self, bench: Bench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        bench.send("join_project", {"project_id": "p"}, ack=3)
        assert bench.give(Identified(identify.ticket, None)) == [  # type: ignore[union-attr]
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED)),
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED, "p")),
            Acknowledge("s", 3, {"error": error(Error.AUTHENTICATION_REQUIRED)}),
        ]

    def test_held_events_are_bounded_and_a_flood_of_them_ends_the_session(self) -> None:
        bench = Bench(Limits(max_events_per_minute=4))
        (identify,) = bench.give(Connected("s", None, "a"))
        for _ in range(1000):
            assert bench.send("x") == []
        effects = bench.give(Identified(identify.ticket, "u"))  # type: ignore[union-attr]
        assert effects[1:] == [Emit("s", "error", error(Error.RATE_LIMITED))] * 2 + [End("s", Ending.DISCONNECT)]
        assert is_empty(bench.hub)

    def test_of_a_held_event_that_nobody_handles_the_name_is_not_kept(self, bench: Bench) -> None:
        class Name(str):
            """Text that can be watched."""

        name = Name("x" * 1000)
        watch = weakref.ref(name)
        bench.give(Connected("s", None, "a"))
        assert bench.give(Received("s", name, ())) == []
        del name
        assert watch() is None

    def test_gone_before_the_answer(self, bench: Bench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert bench.give(Closed("s")) == []
        assert bench.give(Identified(identify.ticket, "u")) == []  # type: ignore[union-attr]
        assert is_empty(bench.hub)

    @pytest.mark.parametrize(("fails", "which"), [(True, Error.SERVER_ERROR), (False, Error.TIMEOUT)])
    def test_a_failed_lookup_drops_the_transport_so_that_the_client_returns(
        self, bench: Bench, fails: bool, which: Error
    ) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        bench.send("join_project", {"project_id": "p"})
        failure = bench.give(Failed(identify.ticket)) if fails else bench.after(10)  # type: ignore[union-attr]
        assert failure == [Emit("s", "error", error(which)), Emit("s", "error", error(which, "p"))]
        assert bench.after(1) == [End("s", Ending.DROP)]

    def test_one_sid_connects_once(self, live: Bench) -> None:
        with pytest.raises(HubError, match="already connected"):
            live.give(Connected("s", None, "a"))


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
        self, live: Bench, event: str, args: tuple[Any, ...], which: Error, named: str | None
    ) -> None:
        assert live.send(event, *args, ack=0) == [
            Emit("s", "error", error(which, named)),
            Acknowledge("s", 0, {"error": error(which)}),
        ]

    @pytest.mark.parametrize("project", ["x" * 100, "é" * 100, " p ", "日本", "a\x00b", "' OR 1=1 --"])
    def test_any_string_up_to_100_characters_may_be_asked_for(self, live: Bench, project: str) -> None:
        assert live.ask(project).project_id == project

    @pytest.mark.parametrize(
        ("access", "which"), [(Access.NOT_FOUND, Error.PROJECT_NOT_FOUND), (Access.DENIED, Error.ACCESS_DENIED)]
    )
    def test_not_for_you(self, live: Bench, access: Access, which: Error) -> None:
        check = live.ask(ack=9)
        assert live.give(AccessChecked(check.ticket, access)) == [
            Emit("s", "error", error(which, "p")),
            Acknowledge("s", 9, {"error": error(which)}),
        ]
        assert live.hub.counts()["memberships"] == 0
        live.join()

    def test_a_user_who_is_no_more_ends_at_the_join(self, member: Bench) -> None:
        check = member.ask("q", ack=2)
        assert member.give(AccessChecked(check.ticket, Access.NO_USER)) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED, "q")),
            Acknowledge("s", 2, {"error": error(Error.AUTHENTICATION_REQUIRED)}),
            Leave("s", "project_p"),
        ]
        assert member.send("x") == [Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))]
        assert member.after(1) == [End("s", Ending.DISCONNECT)]
        assert is_empty(member.hub)

    def test_a_slow_check_times_out_once(self, live: Bench) -> None:
        check = live.ask()
        assert live.after(9.99) == []
        assert live.after(0.01) == [Emit("s", "error", error(Error.TIMEOUT, "p"))]
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == []
        assert live.hub.counts()["memberships"] == 0

    def test_a_deadline_takes_effect_before_the_answer_that_arrives_with_it(self, live: Bench) -> None:
        check = live.ask()
        live.now += 10
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == [
            Emit("s", "error", error(Error.TIMEOUT, "p")),
        ]

    def test_a_failed_check(self, live: Bench) -> None:
        check = live.ask()
        assert live.give(Failed(check.ticket)) == [Emit("s", "error", error(Error.SERVER_ERROR, "p"))]
        assert live.give(Failed(check.ticket)) == []

    def test_room_limit(self, live: Bench) -> None:
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
        bench = Bench(Limits(max_rooms=0))
        bench.connect()
        assert of_type(bench.send("join_project", {"project_id": "p"}), CheckAccess) == []

    def test_rate_comes_before_the_payload_and_ends_who_goes_on(self, live: Bench) -> None:
        for _ in range(100):
            assert live.send("unknown event") == []
        for _ in range(25):
            assert live.send("join_project", None, ack=1) == [
                Emit("s", "error", error(Error.RATE_LIMITED)),
                Acknowledge("s", 1, {"error": error(Error.RATE_LIMITED)}),
            ]
        assert live.send("x") == [
            Emit("s", "error", error(Error.RATE_LIMITED)),
            End("s", Ending.DISCONNECT),
        ]
        assert is_empty(live.hub)

    def test_the_rate_is_counted_over_a_sliding_minute(self, live: Bench) -> None:
        for _ in range(100):
            live.send("x")
        live.after(WINDOW - 0.1)
        assert live.send("x") == [Emit("s", "error", error(Error.RATE_LIMITED))]
        live.after(0.1)
        assert live.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]

    def test_a_flood_leaves_its_rooms_and_answers_waiting_joins(self) -> None:
        bench = Bench(Limits(max_events_per_minute=2))
        bench.connect()
        bench.join()
        bench.ask("q", ack=5)
        bench.send("x")
        effects = bench.send("x")
        assert effects == [
            Emit("s", "error", error(Error.RATE_LIMITED)),
            Leave("s", "project_p"),
            Acknowledge("s", 5, {"error": error(Error.RATE_LIMITED)}),
            End("s", Ending.DISCONNECT),
        ]

    def test_an_event_nobody_handles_is_ignored(self, live: Bench) -> None:
        assert live.send("no_such_event", {"project_id": "p"}, ack=3) == []

    def test_unknown_keys_are_ignored(self, live: Bench) -> None:
        live.ask("p", surprise=[1, 2, 3])


class TestConnectionAttempts:
    def test_more_than_allowed_from_one_address(self) -> None:
        bench = Bench(Limits(max_connections_per_minute=2))
        bench.connect("a")
        bench.connect("b")
        assert bench.give(Connected("c", None, "10.0.0.1")) == [
            Emit("c", "error", error(Error.TOO_MANY_CONNECTIONS)),
        ]
        bench.connect("d", address="10.0.0.2")
        assert bench.send("x", sid="c") == [Emit("c", "error", error(Error.TOO_MANY_CONNECTIONS))]
        assert bench.after(1) == [End("c", Ending.DISCONNECT)]
        bench.after(WINDOW)
        bench.connect("e")

    def test_a_quiet_address_is_forgotten(self) -> None:
        bench = Bench()
        bench.connect("a")
        bench.now += 30
        bench.connect("b")
        bench.give(Closed("a"))
        bench.give(Closed("b"))
        bench.after(30)
        assert bench.hub.counts()["addresses"] == 1
        bench.after(30)
        assert bench.hub.counts()["addresses"] == 0
        assert bench.hub.next_deadline() is None or bench.after(3600) == []

    def test_an_address_that_was_only_ever_refused_is_forgotten(self) -> None:
        bench = Bench(Limits(max_connections_per_minute=0))
        bench.give(Connected("a", None, "10.0.0.1"))
        bench.after(WINDOW)
        assert bench.hub.counts()["addresses"] == 0


class TestJoining:
    def test_a_join_answers_and_enters(self, live: Bench) -> None:
        check = live.ask(ack=11)
        (read,) = live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert read == ReadHistory(3, "p", None)
        assert live.give(HistoryRead(3, History((), True, ORIGIN))) == [
            Emit("s", "joined_project", joined()),
            Acknowledge("s", 11, joined()),
            Enter("s", "project_p"),
        ]

    def test_the_second_member_too_is_told_where_the_project_is_now(self, member: Bench) -> None:
        member.connect("t", "v")
        read = member.catching_up(None, sid="t")
        assert read.after is None
        assert member.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == [
            Emit("t", "joined_project", joined()),
            Enter("t", "project_p"),
        ]

    def test_joining_twice_looks_the_user_up_again(self, member: Bench) -> None:
        check = member.ask(ack=1)
        assert member.give(Published(update(1))) == [Broadcast("project_p", update(1))]
        assert member.give(AccessChecked(check.ticket, Access.GRANTED)) == [
            Emit("s", "joined_project", joined(last="1000-1")),
            Acknowledge("s", 1, joined(last="1000-1")),
        ]

    def test_a_second_join_that_is_denied_leaves(self, member: Bench) -> None:
        check = member.ask()
        assert member.give(AccessChecked(check.ticket, Access.DENIED)) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
            Leave("s", "project_p"),
        ]

    def test_a_second_join_that_fails_stays(self, member: Bench) -> None:
        check = member.ask(ack=4)
        assert member.give(Failed(check.ticket)) == [
            Emit("s", "error", error(Error.SERVER_ERROR, "p")),
            Acknowledge("s", 4, {"error": error(Error.SERVER_ERROR)}),
        ]
        assert len(member.give(Published(update(1)))) == 1
        member.ask()
        assert member.after(10) == [Emit("s", "error", error(Error.TIMEOUT, "p"))]
        assert len(member.give(Published(update(2)))) == 1

    def test_joins_under_way_share_one_check(self, live: Bench) -> None:
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

    def test_a_third_join_shares_the_check_of_the_second(self, member: Bench) -> None:
        check = member.ask()
        assert member.send("join_project", {"project_id": "p"}) == []
        effects = member.give(AccessChecked(check.ticket, Access.GRANTED))
        assert effects == [Emit("s", "joined_project", joined())] * 2

    def test_leaving(self, member: Bench) -> None:
        assert member.send("leave_project", {"project_id": "p"}, ack=8) == [
            Leave("s", "project_p"),
            Emit("s", "left_project", {"project_id": "p"}),
            Acknowledge("s", 8, {"project_id": "p"}),
        ]
        assert member.give(Published(update(1))) == []

    def test_leaving_a_room_one_is_not_in(self, live: Bench) -> None:
        assert live.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]

    def test_leaving_a_room_only_others_are_in(self, member: Bench) -> None:
        member.connect("t", "v")
        assert member.send("leave_project", {"project_id": "p"}, sid="t") == [
            Emit("t", "left_project", {"project_id": "p"})
        ]
        assert len(member.give(Published(update(1)))) == 1

    def test_a_leave_that_overtakes_the_check_wins(self, live: Bench) -> None:
        check = live.ask(ack=1)
        assert live.send("leave_project", {"project_id": "p"}, ack=2) == [
            Acknowledge("s", 1, {"project_id": "p"}),
            Emit("s", "left_project", {"project_id": "p"}),
            Acknowledge("s", 2, {"project_id": "p"}),
        ]
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == []
        assert live.after(20) == []

    def test_a_leave_that_overtakes_the_history_wins(self, live: Bench) -> None:
        read = live.catching_up(None)
        assert live.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]
        assert live.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == []

    def test_a_leave_that_overtakes_a_second_join_wins(self, member: Bench) -> None:
        check = member.ask()
        assert member.send("leave_project", {"project_id": "p"})[0] == Leave("s", "project_p")
        assert member.give(AccessChecked(check.ticket, Access.GRANTED)) == []

    def test_join_leave_join_believes_only_the_last_check(self, live: Bench) -> None:
        first = live.ask()
        live.send("leave_project", {"project_id": "p"})
        second = live.ask()
        assert live.give(AccessChecked(first.ticket, Access.GRANTED)) == []
        assert live.give(AccessChecked(second.ticket, Access.DENIED)) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]

    def test_a_session_that_ends_while_checked_leaves_nothing_behind(self, live: Bench) -> None:
        check = live.ask()
        assert live.give(Closed("s")) == []
        assert is_empty(live.hub)
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == []
        assert live.after(100) == []

    def test_a_session_that_ends_while_catching_up_leaves_nothing_behind(self, live: Bench) -> None:
        read = live.catching_up("1000-0")
        live.give(Closed("s"))
        assert is_empty(live.hub)
        assert live.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == []

    def test_a_member_that_ends_leaves_its_rooms(self, member: Bench) -> None:
        member.ask()
        assert member.give(Closed("s")) == [Leave("s", "project_p")]
        assert is_empty(member.hub)
        assert member.give(Closed("s")) == []

    @pytest.mark.parametrize(("fails", "which"), [(True, Error.SERVER_ERROR), (False, Error.TIMEOUT)])
    def test_history_that_cannot_be_read_fails_the_join(self, live: Bench, fails: bool, which: Error) -> None:
        read = live.catching_up("1000-0")
        failure = live.give(Failed(read.ticket)) if fails else live.after(10)
        assert failure == [Emit("s", "error", error(which, "p"))]
        assert live.hub.counts()["memberships"] == 0


class TestUpdates:
    def test_one_broadcast_however_many_members(self, member: Bench) -> None:
        for number in range(10):
            member.connect(f"s{number}")
            member.join(sid=f"s{number}")
        assert member.give(Published(update(1))) == [Broadcast("project_p", update(1))]

    def test_nobody_there(self, live: Bench) -> None:
        assert live.give(Published(update(1))) == []
        live.ask()
        assert live.give(Published(update(2))) == []

    def test_what_was_delivered_is_not_delivered_again(self, member: Bench) -> None:
        assert len(member.give(Published(update(2)))) == 1
        assert member.give(Published(update(2))) == []
        assert member.give(Published(update(1))) == []
        assert len(member.give(Published(update(3)))) == 1

    def test_what_is_older_than_the_join_is_not_delivered(self, live: Bench) -> None:
        live.join(last="1000-5")
        assert live.give(Published(update(5))) == []
        assert len(live.give(Published(update(6)))) == 1

    def test_an_update_during_a_fresh_join_comes_before_it(self, live: Bench) -> None:
        read = live.catching_up(None)
        assert live.give(Published(update(1))) == []
        effects = live.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-1"))

    def test_events_that_are_no_ids_come_before_every_id(self, member: Bench) -> None:
        assert member.give(Published(Update("p", "stats_update", "{}", "nonsense"))) == []


class TestCatchUp:
    def test_what_was_missed_comes_first_and_once(self, live: Bench) -> None:
        read = live.catching_up("1000-1", ack=6)
        assert read.after == "1000-1"
        live.give(Published(update(4)))
        history = History((update(2), update(3)), True, "1000-3")
        assert live.give(HistoryRead(read.ticket, history)) == [
            Replay("s", update(2)),
            Replay("s", update(3)),
            Replay("s", update(4)),
            Emit("s", "joined_project", joined(last="1000-4", recovered=True)),
            Acknowledge("s", 6, joined(last="1000-4", recovered=True)),
            Enter("s", "project_p"),
        ]
        assert live.give(Published(update(4))) == []
        assert len(live.give(Published(update(5)))) == 1

    def test_an_update_in_both_history_and_buffer_comes_once(self, live: Bench) -> None:
        read = live.catching_up("1000-0")
        live.give(Published(update(1)))
        effects = live.give(HistoryRead(read.ticket, History((update(1),), True, "1000-1")))
        assert of_type(effects, Replay) == [Replay("s", update(1))]

    def test_members_are_served_while_another_catches_up(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up("1000-0", sid="t")
        assert len(member.give(Published(update(1)))) == 1
        effects = member.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects == [
            Replay("t", update(1)),
            Emit("t", "joined_project", joined(last="1000-1", recovered=True)),
            Enter("t", "project_p"),
        ]

    def test_the_last_member_leaves_while_another_catches_up(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up("1000-0", sid="t")
        member.send("leave_project", {"project_id": "p"})
        assert member.give(Published(update(1))) == []
        effects = member.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects[0] == Replay("t", update(1))

    def test_nothing_missed(self, live: Bench) -> None:
        read = live.catching_up("1000-3")
        effects = live.give(HistoryRead(read.ticket, History((), True, "1000-3")))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-3", recovered=True))

    def test_a_history_that_does_not_reach_back(self, live: Bench) -> None:
        read = live.catching_up("5-0")
        effects = live.give(HistoryRead(read.ticket, History((), False, "1000-9")))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-9", recovered=False))

    @pytest.mark.parametrize(
        "after", ["", "x", "1", "-", "1-", "-1", "1-1-1", "１-０", 7, True, [], {}, "9" * 21 + "-0"]
    )
    def test_what_is_no_event_id_is_not_recovered(self, live: Bench, after: object) -> None:
        check = live.ask(last_event_id=after)
        (read,) = live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert isinstance(read, ReadHistory)
        assert read.after == ""
        effects = live.give(HistoryRead(read.ticket, History((), False, ORIGIN)))
        assert effects[0] == Emit("s", "joined_project", joined(recovered=False))

    def test_null_is_as_good_as_absent(self, live: Bench) -> None:
        check = live.ask(last_event_id=None)
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == [ReadHistory(3, "p", None)]

    def test_too_much_at_once_is_owned_up_to(self) -> None:
        bench = Bench(Limits(max_catch_up=2))
        bench.connect()
        read = bench.catching_up("1000-0")
        for number in (1, 2, 3):
            bench.give(Published(update(number)))
        effects = bench.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-3", recovered=False))
        assert len(bench.give(Published(update(4)))) == 1

    def test_a_member_asking_again_has_missed_nothing_since_it_came(self, live: Bench) -> None:
        live.join(last="1000-5")
        live.give(Published(update(6)))
        for after, recovered in (("1000-5", True), ("1000-6", True), ("1000-4", False), ("1000-7", False)):
            check = live.ask(last_event_id=after)
            assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == [
                Emit("s", "joined_project", joined(last="1000-6", recovered=recovered))
            ]

    def test_the_first_id_named_is_what_is_read_from(self, live: Bench) -> None:
        check = live.ask()
        live.send("join_project", {"project_id": "p", "last_event_id": "1000-2"})
        (read,) = live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert read == ReadHistory(3, "p", "1000-2")
        effects = live.give(HistoryRead(3, History((update(3),), True, "1000-3")))
        assert effects == [
            Replay("s", update(3)),
            Emit("s", "joined_project", joined(last="1000-3")),
            Emit("s", "joined_project", joined(last="1000-3", recovered=True)),
            Enter("s", "project_p"),
        ]


class TestSeveralNodes:
    """What a node has heard may be behind what a history knows, and two histories may know different things."""

    def test_a_project_is_followed_from_the_first_member_to_the_last(self, live: Bench) -> None:
        live.connect("t")
        check = live.ask()
        assert live.following == []
        live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert live.following == [Follow("p")]
        live.join(sid="t")
        live.send("leave_project", {"project_id": "p"}, sid="t")
        assert live.following == [Follow("p")]
        live.give(Closed("s"))
        assert live.following == [Follow("p"), Unfollow("p")]

    def test_it_is_followed_before_the_history_is_read(self, live: Bench) -> None:
        check = live.ask()
        effects = live.hub.handle(AccessChecked(check.ticket, Access.GRANTED), live.now)
        assert [type(effect) for effect in effects] == [Follow, ReadHistory]

    def test_a_refused_join_follows_nothing(self, live: Bench) -> None:
        check = live.ask()
        live.give(AccessChecked(check.ticket, Access.DENIED))
        assert live.following == []

    def test_a_history_ahead_of_the_room_waits_until_the_room_has_come_there(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up("1000-0", sid="t")
        assert member.give(HistoryRead(read.ticket, History((update(1), update(2)), True, "1000-2"))) == []
        assert member.give(Published(update(1))) == [Broadcast("project_p", update(1))]
        assert member.give(Published(update(2))) == [
            Broadcast("project_p", update(2)),
            Replay("t", update(1)),
            Replay("t", update(2)),
            Emit("t", "joined_project", joined(last="1000-2", recovered=True)),
            Enter("t", "project_p"),
        ]
        assert member.give(Published(update(3))) == [Broadcast("project_p", update(3))]

    def test_who_comes_from_a_node_that_is_ahead_gets_nothing_twice(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up("1000-2", sid="t")
        assert member.give(HistoryRead(read.ticket, History((), True, "1000-2"))) == []
        member.give(Published(update(1)))
        assert of_type(member.give(Published(update(3))), Emit | Replay | Enter) == [
            Replay("t", update(3)),
            Emit("t", "joined_project", joined(last="1000-3", recovered=True)),
            Enter("t", "project_p"),
        ]

    def test_what_is_passed_without_an_update_counts_as_heard(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up(None, sid="t")
        assert member.give(HistoryRead(read.ticket, History((), True, "1000-2"))) == []
        assert member.give(Passed("p", "1000-1")) == []
        assert member.give(Passed("elsewhere", "1000-2")) == []
        assert member.give(Passed("p", "1000-2")) == [
            Emit("t", "joined_project", joined(last="1000-2")),
            Enter("t", "project_p"),
        ]

    def test_a_shorter_history_waits_for_what_a_longer_one_knew(self, live: Bench) -> None:
        """Both were read before anything was heard: the room is where the longer one ends."""
        live.connect("t")
        short, long = live.catching_up("1000-0"), live.catching_up("1000-0", sid="t")
        live.give(HistoryRead(long.ticket, History((update(1), update(2)), True, "1000-2")))
        assert live.give(HistoryRead(short.ticket, History((update(1),), True, "1000-1"))) == []
        assert live.give(Published(update(2))) == [
            Replay("s", update(1)),
            Replay("s", update(2)),
            Emit("s", "joined_project", joined(last="1000-2", recovered=True)),
            Enter("s", "project_p"),
        ]

    def test_the_wait_has_an_end(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up(None, sid="t", ack=1)
        member.give(HistoryRead(read.ticket, History((), True, "1000-2")))
        member.after(5)
        assert member.give(Published(update(1))) == [Broadcast("project_p", update(1))]
        assert member.after(5) == [
            Emit("t", "error", error(Error.TIMEOUT, "p")),
            Acknowledge("t", 1, {"error": error(Error.TIMEOUT)}),
        ]
        assert member.give(Published(update(2))) == [Broadcast("project_p", update(2))]

    def test_a_leave_overtakes_the_wait(self, member: Bench) -> None:
        member.connect("t")
        read = member.catching_up(None, sid="t")
        member.give(HistoryRead(read.ticket, History((), True, "1000-2")))
        assert member.send("leave_project", {"project_id": "p"}, sid="t") == [
            Emit("t", "left_project", {"project_id": "p"})
        ]
        assert member.give(Published(update(2))) == [Broadcast("project_p", update(2))]

    def test_where_updates_may_be_missing_everybody_who_saw_them_is_dropped(self, member: Bench) -> None:
        for sid in ("joining", "again", "elsewhere", "checking"):
            member.connect(sid)
        member.catching_up("1000-0", sid="joining")
        member.join(sid="again")
        member.ask(sid="again")
        member.join("q", sid="elsewhere")
        check = member.ask(sid="checking")
        assert member.give(Lost("p")) == [
            Leave("s", "project_p"),
            End("s", Ending.DROP),
            End("joining", Ending.DROP),
            Leave("again", "project_p"),
            End("again", Ending.DROP),
        ]
        assert member.following[-1:] == [Unfollow("p")]
        assert member.give(Lost("p")) == []
        assert member.give(Lost("nobody's")) == []
        member.give(AccessChecked(check.ticket, Access.GRANTED))
        assert member.following[-1:] == [Follow("p")]

    def test_a_room_that_was_left_starts_anew(self, member: Bench) -> None:
        member.give(Published(update(7)))
        member.give(Closed("s"))
        member.connect()
        assert member.join(last="1000-3")[0] == Emit("s", "joined_project", joined(last="1000-3"))


class TestRevocation:
    def test_a_recheck_asks_about_everything_the_user_sees(self, member: Bench) -> None:
        member.connect("t")
        member.join("q", "t")
        member.connect("other", "v")
        started = member.now
        recheck = member.recheck_due()
        assert (recheck.user_id, recheck.project_ids) == ("u", ("p", "q"))
        assert 45 <= member.now - started <= 60

    def test_nothing_changed(self, member: Bench) -> None:
        recheck = member.recheck_due()
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == []
        assert len(member.give(Published(update(1)))) == 1
        assert member.recheck_due().ticket > recheck.ticket

    def test_a_removed_member_is_told_and_leaves(self, member: Bench) -> None:
        member.join("q")
        recheck = member.recheck_due()
        assert member.give(Rechecked(recheck.ticket, frozenset({"q"}))) == [
            Leave("s", "project_p"),
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
        ]
        assert member.give(Published(update(1))) == []
        assert len(member.give(Published(update(1, "q")))) == 1

    def test_a_deactivated_user_ends(self, member: Bench) -> None:
        member.connect("t")
        recheck = member.recheck_due()
        assert member.give(Rechecked(recheck.ticket, None)) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED)),
            Leave("s", "project_p"),
            Emit("t", "error", error(Error.AUTHENTICATION_REQUIRED)),
        ]
        assert member.after(1) == [End("s", Ending.DISCONNECT), End("t", Ending.DISCONNECT)]
        assert is_empty(member.hub)

    def test_catching_up_is_revoked_too(self, live: Bench) -> None:
        read = live.catching_up("1000-0", ack=5)
        (recheck,) = live.give(AccessChanged(project_id="p"))
        assert isinstance(recheck, Recheck)
        assert live.give(Rechecked(recheck.ticket, frozenset())) == [
            Acknowledge("s", 5, {"error": error(Error.ACCESS_DENIED)}),
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
        ]
        assert live.give(HistoryRead(read.ticket, History((), True, ORIGIN))) == []

    def test_a_second_join_under_way_is_revoked_too(self, member: Bench) -> None:
        check = member.ask()
        recheck = member.give(AccessChanged(user_id="u"))[-1]
        assert isinstance(recheck, Recheck)
        assert Leave("s", "project_p") in member.give(Rechecked(recheck.ticket, frozenset()))
        assert member.give(AccessChecked(check.ticket, Access.GRANTED)) == []

    @pytest.mark.parametrize(
        ("change", "asks"),
        [
            (AccessChanged(user_id="u"), True),
            (AccessChanged(user_id="u", project_id="p"), True),
            (AccessChanged(project_id="p"), True),
            (AccessChanged(user_id="v"), False),
            (AccessChanged(user_id="v", project_id="p"), False),
            (AccessChanged(project_id="elsewhere"), False),
            (AccessChanged(), False),
        ],
    )
    def test_an_announced_change_is_looked_into_at_once(self, member: Bench, change: AccessChanged, asks: bool) -> None:
        assert [type(effect) for effect in member.give(change)] == ([Recheck] if asks else [])

    def test_a_change_during_a_recheck_is_looked_into_after_it(self, member: Bench) -> None:
        recheck = member.recheck_due()
        assert member.give(AccessChanged(user_id="u")) == []
        (second,) = member.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert isinstance(second, Recheck)
        assert Leave("s", "project_p") in member.give(Rechecked(second.ticket, frozenset()))

    def test_a_change_during_a_check_asks_again(self, live: Bench) -> None:
        """The answer under way may have been read before the change."""
        stale = live.ask()
        fresh, recheck = live.give(AccessChanged(project_id="p"))
        assert isinstance(fresh, CheckAccess)
        assert isinstance(recheck, Recheck)
        assert live.give(AccessChecked(stale.ticket, Access.GRANTED)) == []
        assert live.give(AccessChecked(fresh.ticket, Access.DENIED)) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]

    def test_a_change_during_a_second_join_asks_again(self, member: Bench) -> None:
        stale = member.ask()
        fresh = member.give(AccessChanged(user_id="u", project_id="p"))[0]
        assert isinstance(fresh, CheckAccess)
        assert member.give(AccessChecked(stale.ticket, Access.GRANTED)) == []
        assert member.give(AccessChecked(fresh.ticket, Access.GRANTED)) == [Emit("s", "joined_project", joined())]

    def test_a_grant_asked_for_after_the_recheck_knows_better(self, member: Bench) -> None:
        recheck = member.recheck_due()
        member.send("leave_project", {"project_id": "p"})
        member.join()
        assert member.give(Rechecked(recheck.ticket, frozenset())) == []
        assert len(member.give(Published(update(1)))) == 1

    def test_a_room_joined_after_the_recheck_is_not_its_business(self, member: Bench) -> None:
        recheck = member.recheck_due()
        member.ask("q")
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == []

    def test_a_recheck_that_fails_is_tried_again_soon_and_nobody_is_thrown_out(self, member: Bench) -> None:
        recheck = member.recheck_due()
        assert member.give(Failed(recheck.ticket)) == []
        failed_at = member.now
        again = member.recheck_due()
        assert member.now - failed_at == pytest.approx(5)
        assert member.after(10) == []  # this one timed out
        assert member.give(Rechecked(again.ticket, None)) == []
        assert len(member.give(Published(update(1)))) == 1

    def test_a_change_announced_during_a_recheck_that_fails_is_not_forgotten(self, member: Bench) -> None:
        recheck = member.recheck_due()
        member.give(AccessChanged(user_id="u"))
        member.give(Failed(recheck.ticket))
        (again,) = member.give(Tick())
        assert isinstance(again, Recheck)

    def test_an_announced_recheck_replaces_the_one_that_was_due(self, member: Bench) -> None:
        (recheck,) = member.give(AccessChanged(user_id="u"))
        member.now += 5
        member.give(Rechecked(recheck.ticket, frozenset({"p"})))  # type: ignore[union-attr]
        announced = member.now
        member.recheck_due()
        assert member.now - announced >= 45

    def test_a_user_who_came_back_is_another_record(self, member: Bench) -> None:
        member.give(Closed("s"))
        member.now += 50
        member.connect()
        assert member.after(10) == []

    def test_a_recheck_answered_after_everybody_left(self, member: Bench) -> None:
        recheck = member.recheck_due()
        member.give(Closed("s"))
        assert member.give(Rechecked(recheck.ticket, None)) == []

    def test_logging_out_ends_every_session_of_the_user(self, member: Bench) -> None:
        member.connect("t")
        member.connect("other", "v")
        assert member.give(LoggedOut("u")) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED)),
            Leave("s", "project_p"),
            Emit("t", "error", error(Error.AUTHENTICATION_REQUIRED)),
        ]
        assert member.give(LoggedOut("u")) == []
        assert member.send("leave_project", {"project_id": "q"}, sid="other") != []

    def test_a_logout_counts_for_who_is_still_being_identified(self, bench: Bench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert isinstance(identify, Identify)
        assert bench.give(LoggedOut("u")) == []
        assert bench.give(Identified(identify.ticket, "u")) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))
        ]

    def test_a_logout_of_somebody_else_does_not(self, bench: Bench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert isinstance(identify, Identify)
        bench.give(LoggedOut("v"))
        assert bench.give(Identified(identify.ticket, "u"))[0] == Emit(
            "s", "connected", {"message": "Connected to AutoModerate"}
        )


class TestTheMachine:
    def test_inputs_for_sessions_that_are_gone_are_ignored(self, bench: Bench) -> None:
        assert bench.send("join_project", {"project_id": "p"}) == []
        assert bench.give(Closed("s")) == []
        for item in (
            Identified(9, "u"),
            AccessChecked(9, Access.GRANTED),
            HistoryRead(9, History((), True, ORIGIN)),
            Rechecked(9, None),
            Failed(9),
        ):
            assert bench.give(item) == []

    def test_an_idle_hub_wants_nothing(self, bench: Bench) -> None:
        assert bench.hub.next_deadline() is None
        assert bench.give(Tick()) == []

    def test_an_answered_ticket_leaves_no_deadline(self, live: Bench) -> None:
        live.now += 1
        check = live.ask()
        assert live.hub.next_deadline() == live.now + live.hub.limits.check_timeout
        live.give(AccessChecked(check.ticket, Access.DENIED))
        # What is left is the re-check of the user, due within the last quarter of the interval.
        assert live.hub.next_deadline() == pytest.approx(100 + 0.875 * live.hub.limits.recheck_interval)

    def test_a_missing_pair_is_an_error(self, live: Bench) -> None:
        session = live.hub._sessions["s"]
        with pytest.raises(HubError, match="cannot be told 'grace_over' while active"):
            list(live.hub._cue_session(session, Cue.GRACE_OVER, None, 0))
        live.join()
        with pytest.raises(HubError, match="cannot be told 'granted' while joined"):
            list(live.hub._cue_room(session.rooms["p"], Cue.GRANTED, Access.GRANTED, 0))

    def test_a_handler_that_leads_elsewhere_than_its_row_says_is_an_error(
        self, live: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from automoderate.core import hub

        def astray(self: Hub, machine: Any, detail: object, now: float) -> Iterator[Effect]:
            machine.state = RoomState.JOINED if isinstance(machine.state, RoomState) else SessionState.ENDING
            yield from ()

        nowhere = hub.Rule(astray, frozenset())
        monkeypatch.setattr(hub, "SESSION_RULES", {(SessionState.ACTIVE, Cue.CLOSED): nowhere})
        with pytest.raises(HubError, match="'closed' led a session to ending"):
            live.give(Closed("s"))
        monkeypatch.undo()
        live.connect("t")
        monkeypatch.setattr(hub, "ROOM_RULES", {(RoomState.ABSENT, Cue.JOIN): nowhere})
        with pytest.raises(HubError, match="'join' led a membership to joined"):
            live.send("join_project", {"project_id": "p"}, sid="t")

    @pytest.mark.parametrize(
        ("text", "value"),
        [("1-0", (1, 0)), ("1768473000000-12", (1768473000000, 12)), ("0-0", (0, 0)), ("1", None), (None, None)],
    )
    def test_event_ids(self, text: object, value: object) -> None:
        assert parse_event_id(text) == value

    @pytest.mark.parametrize(
        ("rooms", "projects"),
        [
            ("project_p", ["p"]),
            (["project_q", "lobby", "project_p", "project_q"], ["q", "p"]),
            (("project_project_p",), ["project_p"]),
            ({"project_p"}, ["p"]),
            (["project_" + "x" * 100, "project_" + "x" * 101], ["x" * 100]),
            (["project_", "project_\ud800", "Project_p", None, 7, ["project_p"]], []),
            (None, []),
            ({"project_p": 1}, []),
        ],
    )
    def test_projects_whose_rooms_are_named(self, rooms: object, projects: list[str]) -> None:
        assert projects_in(rooms) == projects
