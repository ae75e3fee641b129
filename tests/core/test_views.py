"""What operators are shown of sessions and rooms."""

from __future__ import annotations

from automoderate.core.hub import Closed, Connected, Identified, Identity, LoggedOut, LoginState, RoomState, SessionView
from kits.hub_bench import HubBench


def test_a_session_from_its_first_moment_to_its_last(bench: HubBench) -> None:
    hub = bench.hub
    assert hub.look_at("s") is None
    (identify,) = bench.give(Connected("s", "cookie", "10.0.0.1"))
    assert hub.look_at("s") == SessionView("s", "10.0.0.1", LoginState.IDENTIFYING, None, {})
    bench.give(Identified(identify.ticket, Identity("u", "Ursula")))  # type: ignore[union-attr]
    bench.join()
    rooms = {"p": RoomState.JOINED}
    assert hub.look_at("s") == SessionView("s", "10.0.0.1", LoginState.ACTIVE, Identity("u", "Ursula"), rooms)
    bench.give(Closed("s"))
    assert hub.look_at("s") is None


def test_a_session_that_is_ending_is_nobodys(member: HubBench) -> None:
    member.give(LoggedOut("u"))
    assert member.hub.look_at("s") == SessionView("s", "10.0.0.1", LoginState.ENDING, None, {})


def test_sessions_by_user_and_by_room(member: HubBench) -> None:
    hub = member.hub
    member.connect("t", user="v")
    assert hub.sids() == ["s", "t"]
    assert [hub.sids(user_id=user) for user in ("u", "v", "w")] == [["s"], ["t"], []]
    assert [hub.sids(project_id=project) for project in ("p", "q")] == [["s"], []]


def test_rooms_and_their_members(member: HubBench) -> None:
    hub = member.hub
    member.connect("t")
    member.ask(sid="t")
    assert hub.project_ids() == ["p"]
    assert (hub.members("p"), hub.members("q")) == (1, 0), "who waits for an answer is no member yet"
    assert hub.sids(project_id="p") == ["s", "t"]
