"""Updates live and caught up, once and in order, also where several nodes know different things."""

from __future__ import annotations

import pytest

from automoderate.core.hub import (
    Access,
    AccessChecked,
    Acknowledge,
    Broadcast,
    Closed,
    Emit,
    End,
    Ending,
    Enter,
    Error,
    Follow,
    History,
    HistoryLost,
    HistoryRead,
    Leave,
    Limits,
    PositionAdvanced,
    Published,
    ReadHistory,
    Replay,
    Unfollow,
    Update,
)
from kits.hub_bench import ORIGIN, HubBench, error, joined, of_type, update


class TestUpdates:
    def test_one_broadcast_however_many_members(self, member: HubBench) -> None:
        for number in range(10):
            member.connect(f"s{number}")
            member.join(sid=f"s{number}")
        assert member.give(Published(update(1))) == [Broadcast("project_p", update(1))]

    def test_nobody_there(self, live: HubBench) -> None:
        assert live.give(Published(update(1))) == []
        live.ask()
        assert live.give(Published(update(2))) == []

    def test_what_was_delivered_is_not_delivered_again(self, member: HubBench) -> None:
        assert len(member.give(Published(update(2)))) == 1
        assert member.give(Published(update(2))) == []
        assert member.give(Published(update(1))) == []
        assert len(member.give(Published(update(3)))) == 1

    def test_what_is_older_than_the_join_is_not_delivered(self, live: HubBench) -> None:
        live.join(last="1000-5")
        assert live.give(Published(update(5))) == []
        assert len(live.give(Published(update(6)))) == 1

    def test_an_update_during_a_fresh_join_comes_before_it(self, live: HubBench) -> None:
        read = live.catching_up(None)
        assert live.give(Published(update(1))) == []
        effects = live.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-1"))

    def test_events_that_are_no_ids_come_before_every_id(self, member: HubBench) -> None:
        assert member.give(Published(Update("p", "stats_update", "{}", "nonsense"))) == []


class TestCatchUp:
    def test_what_was_missed_comes_first_and_once(self, live: HubBench) -> None:
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

    def test_an_update_in_both_history_and_buffer_comes_once(self, live: HubBench) -> None:
        read = live.catching_up("1000-0")
        live.give(Published(update(1)))
        effects = live.give(HistoryRead(read.ticket, History((update(1),), True, "1000-1")))
        assert of_type(effects, Replay) == [Replay("s", update(1))]

    def test_members_are_served_while_another_catches_up(self, member: HubBench) -> None:
        member.connect("t")
        read = member.catching_up("1000-0", sid="t")
        assert len(member.give(Published(update(1)))) == 1
        effects = member.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects == [
            Replay("t", update(1)),
            Emit("t", "joined_project", joined(last="1000-1", recovered=True)),
            Enter("t", "project_p"),
        ]

    def test_the_last_member_leaves_while_another_catches_up(self, member: HubBench) -> None:
        member.connect("t")
        read = member.catching_up("1000-0", sid="t")
        member.send("leave_project", {"project_id": "p"})
        assert member.give(Published(update(1))) == []
        effects = member.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects[0] == Replay("t", update(1))

    def test_nothing_missed(self, live: HubBench) -> None:
        read = live.catching_up("1000-3")
        effects = live.give(HistoryRead(read.ticket, History((), True, "1000-3")))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-3", recovered=True))

    def test_a_history_that_does_not_reach_back(self, live: HubBench) -> None:
        read = live.catching_up("5-0")
        effects = live.give(HistoryRead(read.ticket, History((), False, "1000-9")))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-9", recovered=False))

    @pytest.mark.parametrize(
        "after", ["", "x", "1", "-", "1-", "-1", "1-1-1", "１-０", 7, True, [], {}, "9" * 21 + "-0"]
    )
    def test_what_is_no_event_id_is_not_recovered(self, live: HubBench, after: object) -> None:
        check = live.ask(last_event_id=after)
        (read,) = live.give(AccessChecked(check.ticket, Access.GRANTED))
        assert isinstance(read, ReadHistory)
        assert read.after == ""
        effects = live.give(HistoryRead(read.ticket, History((), False, ORIGIN)))
        assert effects[0] == Emit("s", "joined_project", joined(recovered=False))

    def test_null_is_as_good_as_absent(self, live: HubBench) -> None:
        check = live.ask(last_event_id=None)
        assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == [ReadHistory(3, "p", None)]

    def test_too_much_at_once_is_owned_up_to(self) -> None:
        bench = HubBench(Limits(max_catch_up=2))
        bench.connect()
        read = bench.catching_up("1000-0")
        for number in (1, 2, 3):
            bench.give(Published(update(number)))
        effects = bench.give(HistoryRead(read.ticket, History((), True, ORIGIN)))
        assert effects[0] == Emit("s", "joined_project", joined(last="1000-3", recovered=False))
        assert len(bench.give(Published(update(4)))) == 1

    def test_a_member_asking_again_has_missed_nothing_since_it_came(self, live: HubBench) -> None:
        live.join(last="1000-5")
        live.give(Published(update(6)))
        for after, recovered in (("1000-5", True), ("1000-6", True), ("1000-4", False), ("1000-7", False)):
            check = live.ask(last_event_id=after)
            assert live.give(AccessChecked(check.ticket, Access.GRANTED)) == [
                Emit("s", "joined_project", joined(last="1000-6", recovered=recovered))
            ]

    def test_the_first_id_named_is_what_is_read_from(self, live: HubBench) -> None:
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

    def test_a_project_is_followed_from_the_first_member_to_the_last(self, live: HubBench) -> None:
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

    def test_it_is_followed_before_the_history_is_read(self, live: HubBench) -> None:
        check = live.ask()
        effects = live.hub.handle(AccessChecked(check.ticket, Access.GRANTED), live.now)
        assert [type(effect) for effect in effects] == [Follow, ReadHistory]

    def test_a_refused_join_follows_nothing(self, live: HubBench) -> None:
        check = live.ask()
        live.give(AccessChecked(check.ticket, Access.DENIED))
        assert live.following == []

    def test_a_history_ahead_of_the_room_waits_until_the_room_has_come_there(self, member: HubBench) -> None:
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

    def test_who_comes_from_a_node_that_is_ahead_gets_nothing_twice(self, member: HubBench) -> None:
        member.connect("t")
        read = member.catching_up("1000-2", sid="t")
        assert member.give(HistoryRead(read.ticket, History((), True, "1000-2"))) == []
        member.give(Published(update(1)))
        assert of_type(member.give(Published(update(3))), Emit | Replay | Enter) == [
            Replay("t", update(3)),
            Emit("t", "joined_project", joined(last="1000-3", recovered=True)),
            Enter("t", "project_p"),
        ]

    def test_what_is_passed_without_an_update_counts_as_heard(self, member: HubBench) -> None:
        member.connect("t")
        read = member.catching_up(None, sid="t")
        assert member.give(HistoryRead(read.ticket, History((), True, "1000-2"))) == []
        assert member.give(PositionAdvanced("p", "1000-1")) == []
        assert member.give(PositionAdvanced("elsewhere", "1000-2")) == []
        assert member.give(PositionAdvanced("p", "1000-2")) == [
            Emit("t", "joined_project", joined(last="1000-2")),
            Enter("t", "project_p"),
        ]

    def test_a_shorter_history_waits_for_what_a_longer_one_knew(self, live: HubBench) -> None:
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

    def test_the_wait_has_an_end(self, member: HubBench) -> None:
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

    def test_a_leave_overtakes_the_wait(self, member: HubBench) -> None:
        member.connect("t")
        read = member.catching_up(None, sid="t")
        member.give(HistoryRead(read.ticket, History((), True, "1000-2")))
        assert member.send("leave_project", {"project_id": "p"}, sid="t") == [
            Emit("t", "left_project", {"project_id": "p"})
        ]
        assert member.give(Published(update(2))) == [Broadcast("project_p", update(2))]

    def test_where_updates_may_be_missing_everybody_who_saw_them_is_dropped(self, member: HubBench) -> None:
        for sid in ("joining", "again", "elsewhere", "checking"):
            member.connect(sid)
        member.catching_up("1000-0", sid="joining")
        member.join(sid="again")
        member.ask(sid="again")
        member.join("q", sid="elsewhere")
        check = member.ask(sid="checking")
        assert member.give(HistoryLost("p")) == [
            Leave("s", "project_p"),
            End("s", Ending.COME_BACK),
            End("joining", Ending.COME_BACK),
            Leave("again", "project_p"),
            End("again", Ending.COME_BACK),
        ]
        assert member.following[-1:] == [Unfollow("p")]
        assert member.give(HistoryLost("p")) == []
        assert member.give(HistoryLost("nobody's")) == []
        member.give(AccessChecked(check.ticket, Access.GRANTED))
        assert member.following[-1:] == [Follow("p")]

    def test_a_room_that_was_left_starts_anew(self, member: HubBench) -> None:
        member.give(Published(update(7)))
        member.give(Closed("s"))
        member.connect()
        assert member.join(last="1000-3")[0] == Emit("s", "joined_project", joined(last="1000-3"))
