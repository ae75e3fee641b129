"""The tables, and what happens to inputs that nothing waits for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from automoderate.core import hub
from automoderate.core.hub import (
    Access,
    AccessChecked,
    Closed,
    Effect,
    Failed,
    History,
    HistoryRead,
    Hub,
    HubError,
    Identified,
    Identity,
    LoginState,
    Rechecked,
    RoomState,
    Tick,
    Trigger,
    parse_event_id,
    projects_in,
)
from kits.hub_bench import ORIGIN, HubBench


class TestTheMachine:
    def test_inputs_for_sessions_that_are_gone_are_ignored(self, bench: HubBench) -> None:
        assert bench.send("join_project", {"project_id": "p"}) == []
        assert bench.give(Closed("s")) == []
        for item in (
            Identified(9, Identity("u", "U")),
            AccessChecked(9, Access.GRANTED),
            HistoryRead(9, History((), True, ORIGIN)),
            Rechecked(9, None),
            Failed(9),
        ):
            assert bench.give(item) == []

    def test_an_idle_hub_wants_nothing(self, bench: HubBench) -> None:
        assert bench.hub.next_deadline() is None
        assert bench.give(Tick()) == []

    def test_an_answered_ticket_leaves_no_deadline(self, live: HubBench) -> None:
        live.now += 1
        check = live.ask()
        assert live.hub.next_deadline() == live.now + live.hub.limits.check_timeout
        live.give(AccessChecked(check.ticket, Access.DENIED))
        # What is left is the re-check of the user, due within the last quarter of the interval.
        due = live.hub.next_deadline()
        assert due is not None
        assert 100 + 0.75 * live.hub.limits.recheck_interval <= due <= 100 + live.hub.limits.recheck_interval

    def test_a_missing_pair_is_an_error(self, live: HubBench) -> None:
        session = live.hub._sessions["s"]
        with pytest.raises(HubError, match="cannot be told 'grace_over' while active"):
            list(live.hub._trigger_session(session, Trigger.GRACE_OVER, None, 0))
        live.join()
        with pytest.raises(HubError, match="cannot be told 'granted' while joined"):
            list(live.hub._trigger_room(session.rooms[0], Trigger.GRANTED, Access.GRANTED, 0))

    def test_a_handler_that_leads_elsewhere_than_its_row_says_is_an_error(
        self, live: HubBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def astray(self: Hub, machine: Any, detail: object, now: float) -> Iterator[Effect]:
            machine.state = RoomState.JOINED if isinstance(machine.state, RoomState) else LoginState.ENDING
            yield from ()

        monkeypatch.setitem(hub._SESSION_HANDLERS, (LoginState.ACTIVE, Trigger.CLOSED), astray)
        with pytest.raises(HubError, match="'closed' led a session to ending"):
            live.give(Closed("s"))
        monkeypatch.undo()
        live.connect("t")
        monkeypatch.setitem(hub._ROOM_HANDLERS, (RoomState.ABSENT, Trigger.JOIN), astray)
        with pytest.raises(HubError, match="'join' led a membership to joined"):
            live.send("join_project", {"project_id": "p"}, sid="t")

    def test_every_state_is_left_again_but_the_one_that_is_the_end(self) -> None:
        assert {state for state, _ in hub.SESSION_TRANSITIONS} == set(LoginState) - {LoginState.GONE}
        assert {state for state, _ in hub.ROOM_TRANSITIONS} == set(RoomState)

    def test_every_state_can_be_come_to(self) -> None:
        assert set().union(*hub.SESSION_TRANSITIONS.values()) == set(LoginState)
        assert set().union(*hub.ROOM_TRANSITIONS.values()) == set(RoomState)

    def test_a_pair_without_a_handler_and_a_handler_without_a_pair_are_errors(self) -> None:
        def handler() -> Iterator[Effect]:
            yield from ()

        handlers: dict[str, Any] = {}
        assert hub._bind(handlers, ["a", "b"])(handler) is handler
        hub._check_bound(["b", "a"], handlers)
        with pytest.raises(HubError, match="handlers and table differ: c"):
            hub._check_bound(["a", "b", "c"], handlers)
        with pytest.raises(HubError, match="handlers and table differ: b"):
            hub._check_bound(["a"], handlers)
        with pytest.raises(HubError, match="a has two handlers"):
            hub._bind(handlers, ["a"])(handler)

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
