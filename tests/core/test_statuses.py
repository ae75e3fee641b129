"""``statuses``: of decisions only those that a client chose, in a room of their own."""

from __future__ import annotations

from typing import Any

import pytest

from automoderate.core.hub import (
    Acknowledge,
    Broadcast,
    Emit,
    Enter,
    Error,
    Follow,
    Leave,
    Replay,
    Unfollow,
)
from kits.hub_bench import HubBench, error, joined, of_type, update

FLAGGED = "flagged:project_p"


def rooms(effects: list[Any]) -> list[str]:
    """The rooms that an update goes to."""
    return [effect.room for effect in of_type(effects, Broadcast)]


@pytest.fixture
def chosen(live: HubBench) -> HubBench:
    """A hub whose session ``s`` is a member that asked for what is flagged."""
    assert live.join(statuses=["flagged"])[-1] == Enter("s", FLAGGED)
    return live


class TestLive:
    @pytest.mark.parametrize("event", ["moderation_update", "content_received"])
    def test_only_the_named_statuses(self, chosen: HubBench, event: str) -> None:
        assert chosen.publish(update(1, event=event, status="approved")) == []
        flagged = update(2, event=event, status="flagged")
        assert chosen.publish(flagged) == [Broadcast(FLAGGED, flagged)]

    @pytest.mark.parametrize("event", ["stats_update", "rule_update", "anything"])
    def test_other_events_as_always(self, chosen: HubBench, event: str) -> None:
        assert rooms(chosen.publish(update(1, event=event, status="approved"))) == [FLAGGED]

    @pytest.mark.parametrize(
        "data", [{}, {"status": None}, {"status": 7}, {"status": ["flagged"]}, {"status": "Flagged"}]
    )
    def test_a_decision_without_such_a_status_is_not_named(self, chosen: HubBench, data: dict[str, Any]) -> None:
        assert chosen.publish(update(1, **data)) == []

    def test_one_broadcast_for_each_room_however_many_are_in_it(self, chosen: HubBench) -> None:
        chosen.connect("all")
        chosen.join(sid="all")
        for number in range(3):
            chosen.connect(f"f{number}")
            chosen.join(sid=f"f{number}", statuses=["flagged", "flagged"])
            chosen.connect(f"b{number}")
            chosen.join(sid=f"b{number}", statuses=["pending", "flagged"])
        assert rooms(chosen.publish(update(1, status="flagged"))) == ["project_p", FLAGGED, "flagged+pending:project_p"]
        assert rooms(chosen.publish(update(2, status="pending"))) == ["project_p", "flagged+pending:project_p"]
        assert rooms(chosen.publish(update(3, status="approved"))) == ["project_p"]
        assert rooms(chosen.publish(update(3, status="flagged"))) == []

    def test_the_room_is_left_and_the_project_followed_no_more(self, chosen: HubBench) -> None:
        chosen.connect("t")
        chosen.join(sid="t", statuses=["flagged"])
        assert chosen.send("leave_project", {"project_id": "p"})[0] == Leave("s", FLAGGED)
        assert rooms(chosen.publish(update(1, status="flagged"))) == [FLAGGED]
        assert chosen.send("leave_project", {"project_id": "p"}, sid="t")[0] == Leave("t", FLAGGED)
        assert chosen.following == [Follow("p"), Unfollow("p")]
        assert chosen.publish(update(2, status="flagged")) == []


class TestJoining:
    @pytest.mark.parametrize(
        "statuses",
        [None, [], "flagged", ["flagged", "unknown"], ["Flagged"], [None], [["flagged"]], {"flagged": 1}, 7, True],
    )
    def test_a_list_that_is_none_is_an_error(self, live: HubBench, statuses: object) -> None:
        assert live.send("join_project", {"project_id": "p", "statuses": statuses}, ack=2) == [
            Emit("s", "error", error(Error.INVALID_STATUSES, "p")),
            Acknowledge("s", 2, {"error": error(Error.INVALID_STATUSES)}),
        ]
        assert error(Error.INVALID_STATUSES) == {"message": "Invalid statuses", "code": "invalid_statuses"}

    def test_the_project_id_is_checked_first_and_the_room_limit_later(self, live: HubBench) -> None:
        for project_id, which in (("", Error.PROJECT_ID_REQUIRED), ("x" * 101, Error.INVALID_PROJECT_ID)):
            (refusal,) = live.send("join_project", {"project_id": project_id, "statuses": []})
            assert refusal == Emit("s", "error", error(which, project_id))
        for number in range(50):
            live.join(f"p{number}")
        (refusal,) = live.send("join_project", {"project_id": "one more", "statuses": []})
        assert refusal == Emit("s", "error", error(Error.INVALID_STATUSES, "one more"))

    def test_it_means_nothing_to_a_leave(self, member: HubBench) -> None:
        assert member.send("leave_project", {"project_id": "p", "statuses": 7})[0] == Leave("s", "project_p")

    def test_a_refused_list_leaves_a_member_what_it_is(self, chosen: HubBench) -> None:
        chosen.send("join_project", {"project_id": "p", "statuses": []})
        assert rooms(chosen.publish(update(1, status="flagged"))) == [FLAGGED]

    def test_what_was_missed_is_chosen_too(self, live: HubBench) -> None:
        read = live.catching_up("1000-0", statuses=["pending", "flagged"])
        flagged, stats = update(2, status="flagged"), update(3, event="stats_update")
        pending = update(5, event="content_received", status="pending")
        live.publish(update(4, status="rejected"), pending, update(6, status="approved"))
        assert live.read(read, update(1, status="approved"), flagged, stats) == [
            Replay("s", flagged),
            Replay("s", stats),
            Replay("s", pending),
            Emit("s", "joined_project", joined(last="1000-6", recovered=True)),
            Enter("s", "flagged+pending:project_p"),
        ]

    def test_the_newest_join_under_way_decides(self, live: HubBench) -> None:
        check = live.ask(statuses=["approved"])
        live.send("join_project", {"project_id": "p", "statuses": ["flagged"], "recent": 5})
        (read,) = live.grant(check)
        effects = live.read(read, update(1, status="approved"), update(2, status="flagged"))  # type: ignore[arg-type]
        assert of_type(effects, Replay | Enter) == [Replay("s", update(2, status="flagged")), Enter("s", FLAGGED)]

    def test_a_member_chooses_anew_with_its_next_join(self, member: HubBench) -> None:
        assert member.grant(member.ask(statuses=["flagged"])) == [
            Leave("s", "project_p"),
            Emit("s", "joined_project", joined()),
            Enter("s", FLAGGED),
        ]
        assert rooms(member.publish(update(1, status="approved"))) == []
        assert member.grant(member.ask(statuses=["flagged"])) == [Emit("s", "joined_project", joined(last="1000-1"))]
        assert member.grant(member.ask())[-1] == Enter("s", "project_p")
        assert rooms(member.publish(update(2, status="approved"))) == ["project_p"]
        assert member.following == [Follow("p")]

    @pytest.mark.parametrize(
        ("first", "second", "after", "recovered"),
        [
            (["flagged"], None, "1000-0", False),
            (["flagged"], ["flagged", "approved"], "1000-1", False),
            (["flagged"], ["approved"], "1000-2", True),  # nothing was missed
            (["flagged", "approved"], ["approved"], "1000-0", True),
            (None, ["flagged"], "1000-0", True),
        ],
    )
    def test_what_it_had_not_chosen_before_was_not_given_to_it(
        self, live: HubBench, first: list[str] | None, second: list[str] | None, after: str, recovered: bool
    ) -> None:
        once: dict[str, Any] = {} if first is None else {"statuses": first}
        again: dict[str, Any] = {} if second is None else {"statuses": second}
        live.join(**once)
        live.publish(update(1, status="flagged"), update(2, status="approved"))
        (answer, *_) = of_type(live.grant(live.ask(last_event_id=after, **again)), Emit)
        assert answer.data == joined(last="1000-2", recovered=recovered)
        live.publish(update(3, status="approved"))
        (answer, *_) = of_type(live.grant(live.ask(last_event_id="1000-2", **again)), Emit)
        assert answer.data == joined(last="1000-3", recovered=True)
