"""Presence on one node: who is in a room, what they look at, and what of it the clients that asked are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from automoderate.core.hub import (
    AccessChanged,
    Acknowledge,
    Broadcast,
    BroadcastExcept,
    Closed,
    Connected,
    Effect,
    Emit,
    End,
    Ending,
    Enter,
    Error,
    Failed,
    Identified,
    Identity,
    Leave,
    Limits,
    ReadHistory,
    Recheck,
    Rechecked,
    Replay,
    SharePresence,
)
from kits.hub_bench import HubBench, error, joined, of_type, update

ROOM = "presence:project_p"


def told(effects: list[Effect], sid: str | None = None) -> list[tuple[str, Any]]:
    """What of a room's presence the effects tell: all that were told before, or one session that is told everything."""
    kinds = Broadcast | BroadcastExcept if sid is None else Replay
    found = [effect for effect in of_type(effects, kinds) if sid is None or effect.sid == sid]
    return [(effect.update.event.removeprefix("presence_"), without_project(effect.update.data)) for effect in found]


def without_project(data: dict[str, Any]) -> dict[str, Any]:
    assert data.pop("project_id") == "p"
    return data


def people(*user_ids: str) -> list[dict[str, str]]:
    """As they are named where they come."""
    return [{"user_id": user_id, "username": user_id.upper()} for user_id in user_ids]


def change(joined: str = "", left: str = "") -> tuple[str, Any]:
    return "change", {"joined": people(*joined), "left": [{"user_id": user_id} for user_id in left]}


def look(user_id: str, content_id: str | None) -> tuple[str, Any]:
    return "looking", {"user_id": user_id, "content_id": content_id}


@pytest.fixture
def watched(live: HubBench) -> HubBench:
    """A hub whose session ``s`` of user ``u`` asked who is in the room; nothing was told in the last second."""
    live.join(presence=True)
    live.after(10)
    return live


def enter(bench: HubBench, sid: str, user: str, **more: Any) -> list[Effect]:
    """Another session joins."""
    bench.connect(sid, user)
    return bench.join(sid=sid, **more)


class TestState:
    def test_who_asks_is_told_after_the_answer(self, live: HubBench) -> None:
        enter(live, "t", "v")
        enter(live, "t2", "v")
        read = live.catching_up(None, presence=True, ack=4)
        effects = live.read(read)
        assert effects[:3] == [
            Emit("s", "joined_project", joined()),
            Acknowledge("s", 4, joined()),
            Enter("s", "project_p"),
        ]
        (state, entered) = effects[3:]
        assert isinstance(state, Replay)
        assert state.update.event == "presence_state"
        assert json.loads(state.update.text) == {"project_id": "p", "users": people("u", "v")}
        assert entered == Enter("s", ROOM)

    @pytest.mark.parametrize("presence", [False, None, 1, "true", [], {}])
    def test_who_does_not_ask_is_told_nothing(self, watched: HubBench, presence: object) -> None:
        effects = enter(watched, "t", "v", presence=presence)
        assert of_type(effects, Replay) == []
        assert [effect.room for effect in of_type(effects, Enter)] == ["project_p"]
        assert told(effects) == [change(joined="v")]

    def test_a_room_where_nobody_asks_costs_nothing(self, live: HubBench) -> None:
        live.join()
        enter(live, "t", "v")
        deadline = live.hub.next_deadline()
        live.give(Closed("t"))
        assert live.hub.next_deadline() == deadline
        assert live.hub._rooms["p"].presence is None

    def test_nothing_is_kept_when_the_last_one_who_asked_is_gone(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        watched.send("leave_project", {"project_id": "p"})
        assert watched.hub._rooms["p"].presence is None
        assert watched.after(60) == [] or of_type(watched.after(0), Broadcast) == []

    def test_those_who_come_at_once_are_told_within_a_second(self, watched: HubBench) -> None:
        assert told(enter(watched, "a", "a", presence=True), "a") == [("state", {"users": people("u", "a")})]
        assert told(enter(watched, "b", "b", presence=True), "b") == []
        assert told(enter(watched, "c", "c", presence=True), "c") == []
        effects = watched.after(1)
        assert told(effects) == [change(joined="bc")]
        for sid in "bc":
            assert told(effects, sid) == [("state", {"users": people(*"uabc")})]
        assert told(effects, "a") == []
        assert effects.index(of_type(effects, Broadcast)[0]) < effects.index(of_type(effects, Enter)[0])

    def test_a_member_that_asks_again_is_told_again(self, watched: HubBench) -> None:
        effects = watched.grant(watched.ask(presence=True))
        assert effects[:2] == [Emit("s", "joined_project", joined()), Leave("s", ROOM)]
        assert told(effects, "s") == [("state", {"users": people("u")})]
        assert effects[-1] == Enter("s", ROOM)

    def test_a_member_that_joins_again_without_asking_is_told_no_more(self, watched: HubBench) -> None:
        enter(watched, "t", "v", presence=True)
        watched.after(1)
        assert watched.grant(watched.ask())[-1] == Leave("s", ROOM)
        assert told(enter(watched, "a", "a")) == [change(joined="a")]
        watched.grant(watched.ask(sid="t"))
        assert watched.hub._rooms["p"].presence is None

    def test_a_name_is_that_of_the_newest_session(self, watched: HubBench) -> None:
        (identify,) = watched.give(Connected("t", None, "a"))
        watched.give(Identified(identify.ticket, Identity("v", "Renamed")))  # type: ignore[union-attr]
        assert told(watched.join(sid="t"))[0][1]["joined"] == [{"user_id": "v", "username": "Renamed"}]


class TestChanges:
    def test_users_not_sessions(self, watched: HubBench) -> None:
        assert told(enter(watched, "t", "v")) == [change(joined="v")]
        watched.after(10)
        assert told(enter(watched, "t2", "v")) == []
        assert told(enter(watched, "s2", "u")) == []
        watched.give(Closed("t"))
        assert told(watched.after(60)) == []

    def test_somebody_who_is_back_in_time_never_left(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        watched.after(10)
        watched.give(Closed("t"))
        assert told(watched.after(4.9)) == []
        assert told(enter(watched, "t2", "v")) == []
        assert told(watched.after(60)) == []

    def test_somebody_who_is_not_back_in_time_left(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        watched.after(10)
        assert told(watched.send("leave_project", {"project_id": "p"}, sid="t")) == []
        assert told(watched.after(4.9)) == []
        assert told(watched.after(0.1)) == [change(left="v")]
        assert told(enter(watched, "t2", "v")) == []
        assert told(watched.after(1)) == [change(joined="v")]

    def test_who_comes_while_somebody_may_come_back_is_told_of_them(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        watched.after(10)
        watched.give(Closed("t"))
        assert told(enter(watched, "a", "a", presence=True), "a") == [("state", {"users": people(*"uva")})]
        assert told(watched.after(5)) == [change(left="v")]

    def test_who_came_and_went_between_two_changes_was_never_there(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        enter(watched, "a", "a")
        watched.give(Closed("a"))
        assert told(watched.after(1)) == []
        assert told(watched.after(10)) == []

    def test_a_second_absence_begins_anew(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        watched.after(10)
        watched.give(Closed("t"))
        watched.after(3)
        enter(watched, "t2", "v")
        watched.give(Closed("t2"))
        assert told(watched.after(3)) == []
        assert told(watched.after(2)) == [change(left="v")]

    def test_at_most_one_a_second_and_only_when_something_changed(self, watched: HubBench) -> None:
        changes = []
        for number in range(40):
            changes += told(enter(watched, f"t{number}", f"v{number}"))
            changes += told(watched.after(0.1))
        assert 4 <= len(changes) <= 5
        came = [user["user_id"] for _, data in changes for user in data["joined"]]
        came += [user["user_id"] for _, data in told(watched.after(1)) for user in data["joined"]]
        assert sorted(came) == sorted(f"v{number}" for number in range(40))
        assert told(watched.after(60)) == []

    def test_who_is_thrown_out_leaves_too(self, watched: HubBench) -> None:
        enter(watched, "t", "v", presence=True)
        watched.after(10)
        effects = watched.give(AccessChanged("v", "p"))
        assert of_type(effects, Leave) == [Leave("t", "project_p"), Leave("t", ROOM)]
        recheck = effects[-1]
        assert isinstance(recheck, Recheck)
        assert watched.give(Rechecked(recheck.ticket, frozenset())) == [
            Emit("t", "error", error(Error.ACCESS_DENIED, "p"))
        ]
        assert told(watched.after(5)) == [change(left="v")]

    def test_who_may_stay_is_told_again_who_is_there(self, watched: HubBench) -> None:
        enter(watched, "t", "v", presence=True)
        watched.after(10)
        recheck = watched.give(AccessChanged("v", "p"))[-1]
        assert isinstance(recheck, Recheck)
        watched.publish(update(1))
        assert told(enter(watched, "a", "a")) == [change(joined="a")]
        watched.after(1)
        effects = watched.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert effects[:2] == [Replay("t", update(1)), Enter("t", "project_p")]
        assert told(effects[2:], "t") == [("state", {"users": people(*"uva")})]
        assert effects[-1] == Enter("t", ROOM)

    def test_the_only_one_who_asked_is_told_again_after_waiting(self, watched: HubBench) -> None:
        recheck = watched.give(AccessChanged("u", "p"))[-1]
        assert isinstance(recheck, Recheck)
        enter(watched, "t", "v")
        effects = watched.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert told(effects, "s") == [("state", {"users": people("u", "v")})]

    def test_who_asked_again_meanwhile_is_told_again_whatever_comes_of_that(self, watched: HubBench) -> None:
        recheck = watched.give(AccessChanged("u", "p"))[-1]
        assert isinstance(recheck, Recheck)
        watched.send("join_project", {"project_id": "p", "recent": 1, "presence": True})
        enter(watched, "t", "v")
        effects = watched.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert told(effects, "s") == [("state", {"users": people("u", "v")})]
        (read,) = of_type(effects, ReadHistory)
        assert watched.give(Failed(read.ticket)) == [Emit("s", "error", error(Error.SERVER_ERROR, "p"))]
        watched.after(1)
        assert told(enter(watched, "a", "a")) == [change(joined="a")]

    def test_who_is_back_in_time_never_left_for_the_only_one_who_asked_and_waits(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        recheck = watched.give(AccessChanged("u", "p"))[-1]
        assert isinstance(recheck, Recheck)
        watched.give(Closed("t"))
        watched.after(1)
        effects = watched.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert told(effects, "s") == [("state", {"users": people("u", "v")})]
        assert told(enter(watched, "t", "v")) == []
        assert told(watched.after(10)) == []

    def test_the_only_one_who_asked_and_waits_is_told_of_changes_once_a_second(self, watched: HubBench) -> None:
        assert told(enter(watched, "t", "v")) == [change(joined="v")]
        recheck = watched.give(AccessChanged("u", "p"))[-1]
        assert isinstance(recheck, Recheck)
        enter(watched, "a", "a")
        watched.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert told(enter(watched, "b", "b")) == []
        watched.after(0.9)
        assert told(enter(watched, "c", "c")) == []

    def test_nothing_is_kept_for_one_that_waited_and_is_gone(self, watched: HubBench) -> None:
        enter(watched, "t", "v")
        watched.give(AccessChanged("u", "p"))
        watched.give(Closed("s"))
        assert watched.hub._rooms["p"].presence is None

    def test_a_session_that_is_dropped_while_it_waits_leaves(self) -> None:
        bench = HubBench(Limits(max_catch_up=0))
        bench.connect()
        bench.join(presence=True)
        enter(bench, "t", "v", presence=True)
        bench.after(10)
        bench.give(AccessChanged("v", "p"))
        assert of_type(bench.publish(update(1)), End) == [End("t", Ending.COME_BACK)]
        assert told(bench.after(5)) == [change(left="v")]

    def test_one_node_alone_tells_no_other(self, watched: HubBench) -> None:
        effects = enter(watched, "t", "v", presence=True) + watched.after(100)
        assert of_type(effects, SharePresence) == []

    def test_the_end_of_a_session_that_never_came_in_changes_nothing(self, watched: HubBench) -> None:
        watched.connect("t", "v")
        watched.catching_up(None, sid="t", presence=True)
        watched.give(Closed("t"))
        assert told(watched.after(10)) == []

    def test_names_and_ids_are_data(self, watched: HubBench) -> None:
        name = '\u2028</script>"😀\x00'
        (identify,) = watched.give(Connected("t", None, "a"))
        watched.give(Identified(identify.ticket, Identity("v", name)))  # type: ignore[union-attr]
        assert told(watched.join(sid="t"))[0][1]["joined"] == [{"user_id": "v", "username": name}]


class TestLooking:
    @pytest.fixture
    def two(self, watched: HubBench) -> HubBench:
        """Two users who asked."""
        enter(watched, "t", "v", presence=True)
        watched.after(10)
        return watched

    def looking_at(self, bench: HubBench, content_id: object, sid: str = "t", **more: Any) -> list[Effect]:
        return bench.send("looking_at", {"project_id": "p", "content_id": content_id}, sid=sid, **more)

    def test_the_others_are_told(self, two: HubBench) -> None:
        effects = self.looking_at(two, "c1", ack=3)
        assert effects[0] == Acknowledge("t", 3, {"project_id": "p", "content_id": "c1"})
        (notice,) = of_type(effects, BroadcastExcept)
        assert (notice.room, notice.sids) == (ROOM, ("t",))
        assert told(effects) == [look("v", "c1")]
        two.after(1)
        assert told(self.looking_at(two, None)) == [look("v", None)]

    def test_it_is_told_at_most_once_a_second_and_only_the_newest(self, two: HubBench) -> None:
        assert told(self.looking_at(two, "c1")) == [look("v", "c1")]
        assert told(self.looking_at(two, "c2")) == []
        assert told(self.looking_at(two, "c3")) == []
        assert told(two.after(1)) == [look("v", "c3")]
        assert told(self.looking_at(two, "c4")) == []
        assert told(self.looking_at(two, "c3")) == []
        assert told(two.after(5)) == []

    def test_who_comes_later_is_told_after_the_state(self, two: HubBench) -> None:
        self.looking_at(two, "c1")
        two.after(1)
        assert told(enter(two, "a", "a", presence=True), "a") == [
            ("state", {"users": people(*"uva")}),
            look("v", "c1"),
        ]
        two.after(1)
        assert told(enter(two, "t2", "v", presence=True), "t2") == [("state", {"users": people(*"uva")})]

    def test_it_is_the_users_whichever_session_says_it(self, two: HubBench) -> None:
        enter(two, "t2", "v", presence=True)
        two.after(1)
        effects = self.looking_at(two, "c1")
        assert of_type(effects, BroadcastExcept)[0].sids == ("t", "t2")
        two.after(1)
        assert told(self.looking_at(two, "c2", sid="t2")) == [look("v", "c2")]
        two.after(1)
        assert told(self.looking_at(two, None, sid="t2")) == [look("v", "c1")], "the other session still does"
        two.after(1)
        assert told(self.looking_at(two, None, sid="t")) == [look("v", None)]

    def test_alone_nobody_is_told(self, watched: HubBench) -> None:
        assert self.looking_at(watched, "c1", sid="s") == []
        assert told(enter(watched, "a", "a", presence=True), "a")[1:] == [look("u", "c1")]

    def test_a_session_that_is_back_in_time_still_looks(self, two: HubBench) -> None:
        self.looking_at(two, "c1")
        two.after(1)
        two.give(Closed("t"))
        assert told(two.after(3)) == []
        enter(two, "t2", "v", presence=True)
        self.looking_at(two, "c1", sid="t2")
        assert told(two.after(60)) == []

    def test_one_that_is_back_and_says_nothing_does_not(self, two: HubBench) -> None:
        self.looking_at(two, "c1")
        two.after(1)
        two.give(Closed("t"))
        two.after(3)
        assert told(enter(two, "t2", "v", presence=True)) == []
        assert told(two.after(2)) == [look("v", None)]

    def test_somebody_who_left_looks_at_nothing_when_they_come_again(self, two: HubBench) -> None:
        self.looking_at(two, "c1")
        two.after(1)
        two.give(Closed("t"))
        assert told(two.after(5)) == [change(left="v")]
        assert told(enter(two, "t2", "v", presence=True)) == []
        assert told(two.after(1)) == [change(joined="v")]

    def test_of_two_sessions_the_one_that_looked_ends(self, two: HubBench) -> None:
        enter(two, "t2", "v", presence=True)
        self.looking_at(two, "c1")
        two.after(1)
        two.give(Closed("t"))
        assert told(two.after(4.9)) == []
        assert told(two.after(0.1)) == [look("v", None)]

    def test_of_two_sessions_both_end_and_one_comes_back(self, two: HubBench) -> None:
        enter(two, "t2", "v", presence=True)
        self.looking_at(two, "c1")
        two.after(1)
        two.give(Closed("t"))
        two.after(3)
        two.give(Closed("t2"))
        assert told(two.after(3)) == []
        enter(two, "t3", "v", presence=True)
        self.looking_at(two, "c1", sid="t3")
        assert told(two.after(60)) == []

    def test_who_asks_no_longer_looks_at_nothing(self, two: HubBench) -> None:
        self.looking_at(two, "c1")
        two.after(1)
        assert told(two.grant(two.ask(sid="t"))) == [look("v", None)]
        assert self.looking_at(two, "c1") == [Emit("t", "error", error(Error.PRESENCE_REQUIRED, "p"))]

    @pytest.mark.parametrize("state", ["absent", "checking", "catching up", "waiting", "without presence"])
    def test_only_from_a_member_that_asked(self, two: HubBench, state: str) -> None:
        two.connect("a", "a")
        if state == "checking":
            two.ask(sid="a", presence=True)
        elif state == "catching up":
            two.catching_up(None, sid="a", presence=True)
        elif state == "waiting":
            two.read(two.catching_up(None, sid="a", presence=True), last="1000-9")
        elif state == "without presence":
            two.join(sid="a")
            two.after(1)
        assert self.looking_at(two, "c1", sid="a", ack=1) == [
            Emit("a", "error", error(Error.PRESENCE_REQUIRED, "p")),
            Acknowledge("a", 1, {"error": error(Error.PRESENCE_REQUIRED)}),
        ]

    def test_the_words_of_the_errors(self) -> None:
        assert error(Error.PRESENCE_REQUIRED) == {
            "message": "Join the project with presence first",
            "code": "presence_required",
        }
        assert error(Error.INVALID_CONTENT_ID) == {
            "message": "Invalid content ID format",
            "code": "invalid_content_id",
        }

    @pytest.mark.parametrize("content_id", ["", "x" * 101, 7, True, ["c1"], {"id": "c1"}])
    def test_what_is_no_content_id(self, two: HubBench, content_id: object) -> None:
        assert self.looking_at(two, content_id) == [Emit("t", "error", error(Error.INVALID_CONTENT_ID, "p"))]

    def test_without_a_content_id_it_is_null(self, two: HubBench) -> None:
        self.looking_at(two, "x" * 100)
        two.after(1)
        assert told(two.send("looking_at", {"project_id": "p"}, sid="t")) == [look("v", None)]

    @pytest.mark.parametrize(
        ("payload", "which", "named"),
        [
            (None, Error.PROJECT_ID_REQUIRED, None),
            ({"content_id": "c1"}, Error.PROJECT_ID_REQUIRED, None),
            ({"project_id": 7, "content_id": "c1"}, Error.INVALID_PROJECT_ID, None),
            ({"project_id": "x" * 101, "content_id": 7}, Error.INVALID_PROJECT_ID, "x" * 101),
        ],
    )
    def test_the_project_id_is_checked_first(
        self, two: HubBench, payload: object, which: Error, named: str | None
    ) -> None:
        assert two.send("looking_at", payload, sid="t") == [Emit("t", "error", error(which, named))]

    def test_it_counts_as_an_event(self) -> None:
        bench = HubBench(Limits(max_events_per_minute=2))
        bench.connect()
        bench.join(presence=True)
        self.looking_at(bench, "c1", sid="s")
        assert self.looking_at(bench, "c2", sid="s") == [Emit("s", "error", error(Error.RATE_LIMITED, "p"))]

    def test_while_access_is_looked_up_it_still_counts(self, two: HubBench) -> None:
        two.give(AccessChanged("v", "p"))
        assert told(self.looking_at(two, "c1")) == [look("v", "c1")]

    def test_the_only_one_who_asked_may_look_while_access_is_looked_up(self, watched: HubBench) -> None:
        watched.give(AccessChanged("u", "p"))
        enter(watched, "t", "v")
        assert self.looking_at(watched, "c1", sid="s") == []
        assert told(enter(watched, "a", "a", presence=True), "a") == [
            ("state", {"users": people("u", "v", "a")}),
            look("u", "c1"),
        ]
