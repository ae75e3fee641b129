"""``recent``: the newest updates that are kept, before ``joined_project``."""

from __future__ import annotations

from typing import Any

import pytest

from automoderate.core.hub import (
    AccessChanged,
    Acknowledge,
    Broadcast,
    Emit,
    Enter,
    Error,
    Failed,
    Leave,
    ReadHistory,
    Recheck,
    Rechecked,
    Replay,
)
from kits.hub_bench import HubBench, error, joined, of_type, update

FLAGGED = "flagged:project_p"


def recalling(bench: HubBench, recent: int, ack: int | None = None) -> ReadHistory:
    """Let the member ask again with the wish for recent updates, up to where the history is asked for."""
    (read,) = bench.grant(bench.ask(ack=ack, recent=recent))
    assert isinstance(read, ReadHistory)
    return read


class TestJoining:
    def test_the_newest_come_oldest_first_and_before_the_answer(self, live: HubBench) -> None:
        read = live.catching_up(None, recent=2, ack=4)
        assert (read.after, read.newest) == (None, 2)
        assert live.read(read, update(3), update(4)) == [
            Replay("s", update(3)),
            Replay("s", update(4)),
            Emit("s", "joined_project", joined(last="1000-4")),
            Acknowledge("s", 4, joined(last="1000-4")),
            Enter("s", "project_p"),
        ]
        assert live.publish(update(4), update(5)) == [Broadcast("project_p", update(5))]

    def test_what_is_published_meanwhile_counts_among_the_newest(self, live: HubBench) -> None:
        read = live.catching_up(None, recent=3)
        live.publish(update(4), update(5), update(5), update(4), update(6))
        effects = live.read(read, update(2), update(3), update(4))
        assert of_type(effects, Replay) == [Replay("s", update(number)) for number in (4, 5, 6)]
        assert of_type(effects, Emit) == [Emit("s", "joined_project", joined(last="1000-6"))]

    def test_fewer_are_kept(self, live: HubBench) -> None:
        read = live.catching_up(None, recent=200)
        assert of_type(live.read(read, update(1)), Replay) == [Replay("s", update(1))]

    def test_none_are_kept(self, live: HubBench) -> None:
        read = live.catching_up(None, recent=200)
        assert live.read(read)[0] == Emit("s", "joined_project", joined())

    def test_a_history_ahead_of_the_room_waits_until_the_room_has_come_there(self, member: HubBench) -> None:
        member.connect("t")
        read = member.catching_up(None, sid="t", recent=2)
        assert member.read(read, update(1), update(2)) == []
        member.publish(update(1), update(2), update(3))
        assert member.publish(update(4)) == [Broadcast("project_p", update(4))]

    def test_a_client_that_comes_back_has_what_followed_the_oldest_it_was_sent(self, live: HubBench) -> None:
        live.read(live.catching_up(None, recent=2), update(3), update(4))
        for after, recovered in (("1000-3", True), ("1000-4", True), ("1000-2", False)):
            (answer,) = live.grant(live.ask(last_event_id=after))
            assert answer == Emit("s", "joined_project", joined(last="1000-4", recovered=recovered))

    @pytest.mark.parametrize("recent", [1, 200, 7.0])
    def test_numbers_from_1_to_200(self, live: HubBench, recent: object) -> None:
        assert live.catching_up(None, recent=recent).newest == recent

    @pytest.mark.parametrize(
        "recent", [0, 201, -1, 1.5, "5", True, None, [5], {"n": 5}, float("inf"), float("nan"), 10**30]
    )
    def test_anything_else_is_ignored(self, live: HubBench, recent: object) -> None:
        read = live.catching_up(None, recent=recent)
        assert read.newest == 0
        assert live.read(read)[0] == Emit("s", "joined_project", joined())

    @pytest.mark.parametrize("after", ["1000-1", "nonsense"])
    def test_it_is_ignored_beside_last_event_id(self, live: HubBench, after: str) -> None:
        assert live.catching_up(after, recent=5).newest == 0

    def test_joins_under_way_get_what_the_largest_asks_for(self, live: HubBench) -> None:
        check = live.ask(recent=1)
        live.send("join_project", {"project_id": "p", "recent": 5})
        (read,) = live.grant(check)
        assert isinstance(read, ReadHistory)
        assert read.newest == 5

    def test_one_that_names_an_id_decides_for_all_that_are_under_way(self, live: HubBench) -> None:
        check = live.ask(recent=5)
        live.send("join_project", {"project_id": "p", "last_event_id": "1000-1"})
        (read,) = live.grant(check)
        assert isinstance(read, ReadHistory)
        assert (read.after, read.newest) == ("1000-1", 0)

    @pytest.mark.parametrize(
        ("first", "second", "again"), [(None, 2, True), (2, 3, True), (3, 2, False), (2, None, False)]
    )
    def test_a_join_while_the_history_is_read_has_more_of_it_read(
        self, live: HubBench, first: int | None, second: int | None, again: bool
    ) -> None:
        read = live.catching_up(None, recent=first)
        more = live.send("join_project", {"project_id": "p", "recent": second})
        assert more == ([ReadHistory(read.ticket + 1, "p", None, second or 0)] if again else [])

    def test_a_join_while_the_room_is_waited_for_has_more_of_it_read(self, member: HubBench) -> None:
        member.connect("t")
        assert member.read(member.catching_up(None, sid="t", recent=1), update(2)) == []
        (read,) = member.send("join_project", {"project_id": "p", "recent": 2}, sid="t")
        assert isinstance(read, ReadHistory)
        member.publish(update(1), update(2))
        effects = member.read(read, update(1), update(2))
        assert of_type(effects, Replay) == [Replay("t", update(1)), Replay("t", update(2))]
        assert len(of_type(effects, Emit)) == 2

    def test_a_join_that_names_an_id_has_its_history_read_once(self, live: HubBench) -> None:
        live.catching_up("1000-1")
        assert live.send("join_project", {"project_id": "p", "recent": 2}) == []

    def test_only_the_chosen_ones(self, live: HubBench) -> None:
        read = live.catching_up(None, recent=3, statuses=["flagged"])
        flagged, stats = update(2, status="flagged"), update(3, event="stats_update", status="approved")
        effects = live.read(read, update(1, status="approved"), flagged, stats)
        assert of_type(effects, Replay) == [Replay("s", flagged), Replay("s", stats)]


class TestMembers:
    def test_a_member_that_asks_again_is_sent_them_and_misses_nothing(self, member: HubBench) -> None:
        member.publish(update(5))
        read = recalling(member, 2, ack=9)
        assert read.newest == 2
        assert member.publish(update(6)) == [Broadcast("project_p", update(6))]
        assert member.read(read, update(4), update(5)) == [
            Replay("s", update(4)),
            Replay("s", update(5)),
            Emit("s", "joined_project", joined(last="1000-6")),
            Acknowledge("s", 9, joined(last="1000-6")),
        ]
        assert member.publish(update(7)) == [Broadcast("project_p", update(7))]

    def test_what_the_room_has_not_come_to_arrives_live(self, member: HubBench) -> None:
        read = recalling(member, 2)
        assert of_type(member.read(read, update(1), update(2)), Replay) == []
        assert len(member.publish(update(1), update(2))) == 2

    def test_it_has_been_given_more_than_before(self, live: HubBench) -> None:
        live.join(last="1000-5")
        live.read(recalling(live, 2), update(4), update(5))
        (answer,) = live.grant(live.ask(last_event_id="1000-4"))
        assert answer == Emit("s", "joined_project", joined(last="1000-5", recovered=True))

    @pytest.mark.parametrize(("fails", "which"), [(True, Error.SERVER_ERROR), (False, Error.TIMEOUT)])
    def test_a_history_that_cannot_be_read_leaves_it_a_member(
        self, member: HubBench, fails: bool, which: Error
    ) -> None:
        read = recalling(member, 2)
        failure = member.give(Failed(read.ticket)) if fails else member.after(10)
        assert failure == [Emit("s", "error", error(which, "p"))]
        assert len(member.publish(update(1))) == 1

    def test_a_third_join_has_more_read(self, member: HubBench) -> None:
        recalling(member, 2)
        (read,) = member.send("join_project", {"project_id": "p", "recent": 3})
        assert isinstance(read, ReadHistory)
        assert read.newest == 3
        assert len(of_type(member.read(read), Emit)) == 2

    @pytest.mark.parametrize("what", ["leave_project", "revoke"])
    def test_a_way_out_overtakes_it(self, member: HubBench, what: str) -> None:
        read = recalling(member, 2)
        if what == "revoke":
            leave, recheck = member.give(AccessChanged("u"))
            assert isinstance(recheck, Recheck)
            member.give(Rechecked(recheck.ticket, frozenset()))
        else:
            leave = member.send(what, {"project_id": "p"})[0]
        assert leave == Leave("s", "project_p")
        assert member.read(read, update(1)) == []

    def test_held_it_is_read_once_access_is_confirmed(self, member: HubBench) -> None:
        stale = recalling(member, 2, ack=1)
        _, recheck = member.give(AccessChanged("u"))
        assert isinstance(recheck, Recheck)
        assert member.read(stale, update(1)) == []
        enter, read = member.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert enter == Enter("s", "project_p")
        assert isinstance(read, ReadHistory)
        last: Any = member.read(read)[-1]
        assert last == Acknowledge("s", 1, joined())


class TestMembersThatChooseMore:
    """What is published while the recent updates are read is sent to a member, also where it had not chosen that."""

    @pytest.fixture
    def chosen(self, live: HubBench) -> HubBench:
        """A hub whose session ``s`` is a member that asked for what is flagged."""
        live.join(statuses=["flagged"])
        return live

    def test_it_is_among_the_recent_ones(self, chosen: HubBench) -> None:
        read = recalling(chosen, 3)
        flagged = update(7, status="flagged")
        assert chosen.publish(update(6, status="approved"), flagged) == [Broadcast(FLAGGED, flagged)]
        assert chosen.read(read, update(4), update(5)) == [
            Replay("s", update(5)),
            Replay("s", update(6, status="approved")),
            Leave("s", FLAGGED),
            Emit("s", "joined_project", joined(last="1000-7")),
            Enter("s", "project_p"),
        ]
        (answer,) = chosen.grant(chosen.ask(last_event_id="1000-5"))
        assert answer == Emit("s", "joined_project", joined(last="1000-7", recovered=True))
        (answer,) = chosen.grant(chosen.ask(last_event_id="1000-4"))
        assert answer == Emit("s", "joined_project", joined(last="1000-7", recovered=False))

    def test_where_they_are_more_than_asked_for_the_newest(self, chosen: HubBench) -> None:
        read = recalling(chosen, 2)
        newer = [update(number, status="approved") for number in range(6, 9)]
        assert chosen.publish(*newer) == []
        assert of_type(chosen.read(read, update(4), update(5)), Replay) == [Replay("s", item) for item in newer[1:]]

    def test_what_is_in_the_history_too_comes_once(self, chosen: HubBench) -> None:
        read = recalling(chosen, 3)
        chosen.publish(update(6))
        assert of_type(chosen.read(read, update(5), update(6)), Replay) == [
            Replay("s", update(5)), Replay("s", update(6)),
        ]  # fmt: skip

    def test_a_later_join_that_chooses_more_has_them_read_again(self, chosen: HubBench) -> None:
        (stale,) = chosen.grant(chosen.ask(recent=2, statuses=["flagged"]))
        assert isinstance(stale, ReadHistory)
        chosen.publish(update(1, status="approved"))
        (read,) = chosen.send("join_project", {"project_id": "p"})
        assert read == ReadHistory(stale.ticket + 1, "p", None, 2)
        assert chosen.read(stale) == []
        assert chosen.send("join_project", {"project_id": "p"}) == []
        chosen.publish(update(2, status="approved"))
        effects = chosen.read(ReadHistory(stale.ticket + 1, "p", None, 2), update(1, status="approved"))
        assert of_type(effects, Replay) == [Replay("s", update(number, status="approved")) for number in (1, 2)]
        assert len(of_type(effects, Emit)) == 3

    def test_nothing_is_kept_for_it_where_they_cannot_be_read(self, chosen: HubBench) -> None:
        read = recalling(chosen, 2)
        chosen.publish(update(1, status="approved"))
        chosen.give(Failed(read.ticket))
        (read,) = chosen.grant(chosen.ask(recent=2))  # type: ignore[assignment]
        assert of_type(chosen.read(read), Replay) == []

    def test_nothing_that_it_had_not_chosen_is_kept_while_it_is_held(self, chosen: HubBench) -> None:
        recalling(chosen, 2)
        chosen.publish(update(1, status="approved"))
        _, recheck = chosen.give(AccessChanged("u"))
        assert isinstance(recheck, Recheck)
        chosen.publish(update(2, status="flagged"))
        effects = chosen.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert effects[:2] == [Replay("s", update(2, status="flagged")), Enter("s", FLAGGED)]
