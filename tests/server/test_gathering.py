"""What several nodes answered, put together; and answers that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from automoderate.core.hub import Hub
from automoderate.server.gathering import Gathered, answered_at_once, rooms_of_all, sessions_of_all
from automoderate.server.inspection import MAX_ROWS, MAX_TEXT, Inspection, checked_question
from automoderate.server.interfaces import Asked
from automoderate.server.meter import Meter
from automoderate.server.refusals import Refusals


def room(project_id: str, members: int, rate: float | None) -> dict[str, Any]:
    return {"project_id": project_id, "members": members, "deliveries_per_second": rate}


ROOMS = Gathered([
    ("a", {"total": 2, "rooms": [room("p", 2, 1.5), room("q", 3, None)]}),
    ("b", {"total": 7, "rooms": [room("p", 2, 0.1), room("r", 1, 9.0)]}),
])  # fmt: skip


def test_rooms_are_there_once_with_the_members_of_all_nodes() -> None:
    answer = rooms_of_all(ROOMS, "members", 0, 2)
    assert answer == {"total": 7, "rooms": [room("p", 4, 1.6), room("q", 3, None)], "silent": [], "problem": None}
    assert rooms_of_all(ROOMS, "members", 2, 2)["rooms"] == [room("r", 1, 9.0)]
    assert [each["project_id"] for each in rooms_of_all(ROOMS, "deliveries", 0, 9)["rooms"]] == ["r", "p", "q"]


def test_sessions_of_all_nodes_are_sorted_by_what_waits() -> None:
    def session(sid: str, waiting: int) -> dict[str, Any]:
        return {"sid": sid, "waiting_bytes": waiting}

    silent = [{"node": "c", "seconds": 3.0}]
    gathered = Gathered(
        [
            ("a", {"total": 5, "sessions": [session("1", 10), session("3", 0)]}),
            ("b", {"total": 2, "sessions": [session("2", 20), session("0", 0)]}),
        ],
        silent,
    )
    answer = sessions_of_all(gathered, 0, 3)
    assert [(row["sid"], row["node"]) for row in answer.pop("sessions")] == [("2", "b"), ("1", "a"), ("0", "b")]
    assert answer == {"total": 7, "silent": silent, "problem": None}
    assert [row["sid"] for row in sessions_of_all(gathered, 3, 3)["sessions"]] == ["3"]


@pytest.mark.parametrize(
    "said",
    [
        None, [], "status", {}, {"what": "secrets"}, {"what": ["status"]}, {"what": "rooms", "count": 0},
        {"what": "rooms", "count": MAX_ROWS + 1}, {"what": "rooms", "count": True}, {"what": "rooms", "count": "1"},
        {"what": "rooms", "search": 7}, {"what": "rooms", "sort": None}, {"what": "sessions", "user_id": 7},
        {"what": "sessions", "project_id": ["p"]},
    ],
)  # fmt: skip
def test_what_is_no_question(said: object) -> None:
    with pytest.raises(ValueError, match=r"no such question|of another kind"):
        checked_question(said)


def test_a_question_with_what_it_leaves_out() -> None:
    assert checked_question({"what": "rooms", "search": "X" * 1000}) == {
        "what": "rooms", "search": "x" * MAX_TEXT, "sort": "members", "count": MAX_ROWS, "user_id": None,
        "project_id": None,
    }  # fmt: skip


class Source:
    counting: dict[str, int] | None = None


def test_a_server_that_does_nothing_in_slices_answers_at_once() -> None:
    hub = Hub()
    inspection = Inspection(hub, {}, hub.counts, Meter(Source()), Refusals(), {"node": "n", "attached": True})
    answer = answered_at_once(inspection, Asked('{"what": "status"}', "x"))
    assert answer is not None
    said = json.loads(answer)
    assert said["node"] == "n"
    assert said["answer"]["attached"] is True
    assert (said["answer"]["sessions"], said["answer"]["deliveries_per_second"]) == (0, None)
    assert "updates_total" not in said["answer"], "what is not counted is not said"
    assert answered_at_once(inspection, Asked("?", "x")) is None
