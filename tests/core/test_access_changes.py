"""Access that is taken away: announced, found at a re-check, or by logging out."""

from __future__ import annotations

import pytest

from automoderate.core.hub import (
    Access,
    AccessChanged,
    AccessChecked,
    Acknowledge,
    Broadcast,
    CheckAccess,
    Closed,
    Connected,
    Emit,
    End,
    Ending,
    Enter,
    Error,
    Failed,
    Follow,
    HistoryLost,
    Identified,
    Identify,
    Identity,
    Leave,
    Limits,
    LoggedOut,
    Published,
    ReadHistory,
    Recheck,
    Rechecked,
    Replay,
    Tick,
    Unfollow,
)
from kits.hub_bench import ORIGIN, HubBench, error, joined, of_type, update


def changed(bench: HubBench, user_id: str | None = None, project_id: str | None = "p") -> Recheck:
    """Announce a change that concerns one user, and return what is asked about it."""
    *_, recheck = bench.give(AccessChanged(user_id, project_id))
    assert isinstance(recheck, Recheck)
    return recheck


class TestRevocation:
    def test_a_recheck_asks_about_everything_the_user_sees(self, member: HubBench) -> None:
        member.connect("t")
        member.join("q", "t")
        member.connect("other", "v")
        started = member.now
        recheck = member.recheck_due()
        assert (recheck.user_id, recheck.project_ids) == ("u", ("p", "q"))
        assert 45 <= member.now - started <= 60

    def test_nothing_changed(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == []
        assert len(member.give(Published(update(1)))) == 1
        assert member.recheck_due().ticket > recheck.ticket

    def test_a_removed_member_is_told_and_leaves(self, member: HubBench) -> None:
        member.join("q")
        recheck = member.recheck_due()
        assert member.give(Rechecked(recheck.ticket, frozenset({"q"}))) == [
            Leave("s", "project_p"),
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
        ]
        assert member.give(Published(update(1))) == []
        assert len(member.give(Published(update(1, "q")))) == 1

    def test_a_deactivated_user_ends(self, member: HubBench) -> None:
        member.connect("t")
        recheck = member.recheck_due()
        assert member.give(Rechecked(recheck.ticket, None)) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED)),
            Leave("s", "project_p"),
            Emit("t", "error", error(Error.AUTHENTICATION_REQUIRED)),
        ]
        assert member.after(1) == [End("s", Ending.STAY_AWAY), End("t", Ending.STAY_AWAY)]
        assert member.is_empty()

    @pytest.mark.parametrize("waiting", [False, True])
    def test_catching_up_is_revoked_too(self, waiting: bool) -> None:
        bench = HubBench(Limits(check_timeout=1000))
        bench.connect()
        read = bench.catching_up("1000-0", ack=5)
        if waiting:
            bench.connect("t", "v")
            ahead = bench.catching_up(None, sid="t")
            bench.read(ahead, last="1000-2")
            assert bench.read(read, update(1)) == []
        recheck = bench.recheck_due()
        assert bench.give(Rechecked(recheck.ticket, frozenset())) == [
            Acknowledge("s", 5, {"error": error(Error.ACCESS_DENIED)}),
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
        ]
        assert bench.read(read) == []

    def test_a_second_join_under_way_is_revoked_too(self, member: HubBench) -> None:
        check = member.ask(ack=3)
        leave, recheck = member.give(AccessChanged(user_id="u"))
        assert leave == Leave("s", "project_p")
        assert isinstance(recheck, Recheck)
        assert member.give(Rechecked(recheck.ticket, frozenset())) == [
            Acknowledge("s", 3, {"error": error(Error.ACCESS_DENIED)}),
            Emit("s", "error", error(Error.ACCESS_DENIED, "p")),
        ]
        assert member.grant(check) == []

    @pytest.mark.parametrize(
        ("change", "asks"),
        [
            (AccessChanged(user_id="u"), True),
            (AccessChanged(user_id="u", project_id="p"), True),
            (AccessChanged(project_id="p"), True),
            (AccessChanged(user_id="v"), False),
            (AccessChanged(user_id="v", project_id="p"), False),
            (AccessChanged(project_id="elsewhere"), False),
            (AccessChanged(), True),
        ],
    )
    def test_an_announced_change_is_looked_into_at_once(
        self, member: HubBench, change: AccessChanged, asks: bool
    ) -> None:
        assert [type(effect) for effect in member.give(change)] == ([Leave, Recheck] if asks else [])

    def test_a_change_that_may_concern_everyone_is_looked_into_for_each(self, member: HubBench) -> None:
        member.connect("other", "v")  # in no room, and perhaps deactivated
        assert [(type(effect), getattr(effect, "user_id", None)) for effect in member.give(AccessChanged())] == [
            (Leave, None), (Recheck, "u"), (Recheck, "v"),
        ]  # fmt: skip

    def test_a_change_during_a_recheck_is_looked_into_after_it(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        assert member.give(AccessChanged(user_id="u")) == [Leave("s", "project_p")]
        (second,) = member.give(Rechecked(recheck.ticket, frozenset({"p"})))
        assert isinstance(second, Recheck)
        assert member.give(Rechecked(second.ticket, frozenset())) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]

    def test_a_change_during_a_check_asks_again(self, live: HubBench) -> None:
        """The answer under way may have been read before the change."""
        stale = live.ask()
        fresh, recheck = live.give(AccessChanged(project_id="p"))
        assert isinstance(fresh, CheckAccess)
        assert isinstance(recheck, Recheck)
        assert live.give(AccessChecked(stale.ticket, Access.GRANTED)) == []
        assert live.give(AccessChecked(fresh.ticket, Access.DENIED)) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]

    def test_a_grant_asked_for_after_the_recheck_knows_better(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        member.send("leave_project", {"project_id": "p"})
        member.join()
        assert member.give(Rechecked(recheck.ticket, frozenset())) == []
        assert len(member.give(Published(update(1)))) == 1

    def test_a_room_joined_after_the_recheck_is_not_its_business(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        member.ask("q")
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == []

    def test_a_recheck_that_fails_is_tried_again_soon_and_nobody_is_thrown_out(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        assert member.give(Failed(recheck.ticket)) == []
        failed_at = member.now
        again = member.recheck_due()
        assert member.now - failed_at == pytest.approx(5)
        assert member.after(10) == []  # this one timed out
        assert member.give(Rechecked(again.ticket, None)) == []
        assert len(member.give(Published(update(1)))) == 1

    def test_a_change_announced_during_a_recheck_that_fails_is_not_forgotten(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        member.give(AccessChanged(user_id="u"))
        member.give(Failed(recheck.ticket))
        (again,) = member.give(Tick())
        assert isinstance(again, Recheck)

    def test_an_announced_recheck_replaces_the_one_that_was_due(self, member: HubBench) -> None:
        recheck = changed(member, user_id="u")
        member.now += 5
        member.give(Rechecked(recheck.ticket, frozenset({"p"})))
        announced = member.now
        member.recheck_due()
        assert member.now - announced >= 45

    def test_a_user_who_came_back_is_another_record(self, member: HubBench) -> None:
        member.give(Closed("s"))
        member.now += 50
        member.connect()
        assert member.after(10) == []

    def test_a_recheck_answered_after_everybody_left(self, member: HubBench) -> None:
        recheck = member.recheck_due()
        member.give(Closed("s"))
        assert member.give(Rechecked(recheck.ticket, None)) == []

    def test_logging_out_ends_every_session_of_the_user(self, member: HubBench) -> None:
        member.connect("t")
        member.connect("other", "v")
        assert member.give(LoggedOut("u")) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED)),
            Leave("s", "project_p"),
            Emit("t", "error", error(Error.AUTHENTICATION_REQUIRED)),
        ]
        assert member.give(LoggedOut("u")) == []
        assert member.send("leave_project", {"project_id": "q"}, sid="other") != []

    def test_a_logout_counts_for_who_is_still_being_identified(self, bench: HubBench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert isinstance(identify, Identify)
        assert bench.give(LoggedOut("u")) == []
        assert bench.give(Identified(identify.ticket, Identity("u", "U"))) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))
        ]

    def test_a_logout_of_somebody_else_does_not(self, bench: HubBench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert isinstance(identify, Identify)
        bench.give(LoggedOut("v"))
        assert bench.give(Identified(identify.ticket, Identity("u", "U")))[0] == Emit(
            "s", "connected", {"message": "Connected to AutoModerate"}
        )


class TestHeld:
    """From the announcement until the directory has answered nothing is sent to a session that it may concern."""

    def test_a_member_gets_what_was_published_meanwhile_where_it_may_stay(self, member: HubBench) -> None:
        recheck = changed(member)
        assert member.publish(update(1), update(2), update(2), update(1)) == []
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == [
            Replay("s", update(1)),
            Replay("s", update(2)),
            Enter("s", "project_p"),
        ]
        assert member.publish(update(2), update(3)) == [Broadcast("project_p", update(3))]

    def test_a_member_gets_nothing_of_it_where_it_may_not(self, member: HubBench) -> None:
        recheck = changed(member)
        assert member.publish(update(1)) == []
        assert member.give(Rechecked(recheck.ticket, frozenset())) == [
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]
        assert member.publish(update(2)) == []
        assert member.following[-1:] == [Unfollow("p")]

    def test_others_are_served_meanwhile(self, member: HubBench) -> None:
        member.connect("t", "v")
        member.join(sid="t")
        recheck = changed(member, "u")
        assert member.publish(update(1)) == [Broadcast("project_p", update(1))]
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == [
            Replay("s", update(1)),
            Enter("s", "project_p"),
        ]

    def test_an_answer_from_before_the_change_lets_nobody_go_on(self, member: HubBench) -> None:
        stale = member.recheck_due()
        member.give(AccessChanged("u"))
        member.give(AccessChanged("u"))
        member.publish(update(1))
        (fresh,) = member.give(Rechecked(stale.ticket, frozenset({"p"})))
        assert isinstance(fresh, Recheck)
        assert member.publish(update(2)) == []
        assert member.give(Rechecked(fresh.ticket, frozenset({"p"})))[-1] == Enter("s", "project_p")

    def test_while_the_directory_is_away_a_member_waits(self, member: HubBench) -> None:
        recheck = changed(member)
        assert member.give(Failed(recheck.ticket)) == []
        assert member.publish(update(1)) == []
        (again,) = member.after(5)
        assert isinstance(again, Recheck)
        assert member.give(Rechecked(again.ticket, frozenset({"p"}))) == [
            Replay("s", update(1)),
            Enter("s", "project_p"),
        ]

    def test_a_member_that_has_to_wait_for_too_much_is_dropped_so_that_it_catches_up(self) -> None:
        bench = HubBench(Limits(max_catch_up=2))
        bench.connect()
        bench.join()
        bench.join("q")
        recheck = changed(bench)
        assert bench.publish(update(1), update(2)) == []
        assert bench.publish(update(3)) == [Leave("s", "project_q"), End("s", Ending.COME_BACK)]
        assert bench.give(Rechecked(recheck.ticket, frozenset({"p", "q"}))) == []
        assert bench.is_empty()

    @pytest.mark.parametrize("waiting", [False, True])
    def test_a_session_that_catches_up_is_checked_again_first(self, member: HubBench, waiting: bool) -> None:
        member.connect("t", "v")
        read = member.catching_up("1000-0", sid="t")
        if waiting:
            assert member.read(read, update(1), update(2)) == []
        check, recheck = member.give(AccessChanged("v", "p"))
        assert isinstance(check, CheckAccess)
        assert isinstance(recheck, Recheck)
        assert member.read(read, update(1), update(2)) == []
        member.give(Rechecked(recheck.ticket, frozenset()))
        assert member.publish(update(1), update(2)) == [
            Broadcast("project_p", update(1)),
            Broadcast("project_p", update(2)),
        ]
        (again,) = member.grant(check)
        assert again == ReadHistory(again.ticket, "p", "1000-0")  # type: ignore[union-attr]
        effects = member.read(again, update(1), update(2))
        assert of_type(effects, Replay | Enter) == [
            Replay("t", update(1)),
            Replay("t", update(2)),
            Enter("t", "project_p"),
        ]

    def test_the_only_session_that_catches_up_follows_the_project_anew(self, live: HubBench) -> None:
        live.catching_up("1000-0")
        check = live.give(AccessChanged(project_id="p"))[0]
        assert live.following == [Follow("p"), Unfollow("p")]
        assert live.give(AccessChecked(check.ticket, Access.DENIED)) == [  # type: ignore[union-attr]
            Emit("s", "error", error(Error.ACCESS_DENIED, "p"))
        ]
        assert live.hub.counts()["rooms"] == 0

    def test_joins_of_a_member_that_waits_are_answered_with_it(self, member: HubBench) -> None:
        check = member.ask(ack=1)
        recheck = changed(member)
        assert member.grant(check) == []
        assert member.send("join_project", {"project_id": "p", "last_event_id": ORIGIN}, ack=2) == []
        member.publish(update(1))
        assert member.give(Rechecked(recheck.ticket, frozenset({"p"}))) == [
            Replay("s", update(1)),
            Enter("s", "project_p"),
            Emit("s", "joined_project", joined(last="1000-1")),
            Acknowledge("s", 1, joined(last="1000-1")),
            Emit("s", "joined_project", joined(last="1000-1", recovered=True)),
            Acknowledge("s", 2, joined(last="1000-1", recovered=True)),
        ]

    def test_a_member_that_waits_may_leave_or_end(self, member: HubBench) -> None:
        member.connect("t", "v")
        member.join(sid="t")
        for recheck in member.give(AccessChanged(project_id="p"))[-2:]:
            assert isinstance(recheck, Recheck)
        assert member.send("leave_project", {"project_id": "p"}) == [Emit("s", "left_project", {"project_id": "p"})]
        assert member.give(Closed("t")) == []
        assert member.following[-1:] == [Unfollow("p")]
        assert member.hub.counts()["rooms"] == 0

    def test_a_lost_history_drops_a_member_that_waits(self, member: HubBench) -> None:
        changed(member)
        assert member.give(HistoryLost("p")) == [End("s", Ending.COME_BACK)]

    def test_a_member_that_waits_receives_what_it_chose(self, live: HubBench) -> None:
        live.join(statuses=["flagged"])
        recheck = changed(live)
        flagged = update(2, status="flagged")
        assert live.publish(update(1, status="approved"), flagged) == []
        assert live.give(Rechecked(recheck.ticket, frozenset({"p"}))) == [
            Replay("s", flagged),
            Enter("s", "flagged:project_p"),
        ]
