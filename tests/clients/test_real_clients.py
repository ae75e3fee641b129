"""Unmodified clients against the real server: each library on polling, on WebSocket, and upgrading."""

from __future__ import annotations

import signal

import pytest

from automoderate import adapters
from automoderate.core.hub import parse_event_id
from kits.live_server import LiveServer
from kits.real_clients import LIBRARIES, TRANSPORTS, Clients, RealClient


def numbers(client: RealClient, count: int, since: int = 0) -> list[int]:
    """The numbers of the first ``count`` updates, in the order in which they came."""
    updates = client.wait_all("moderation_update", count, since)
    if not client.in_order:
        updates.sort(key=lambda update: parse_event_id(update["event_id"]) or (0, 0))
    return [update["number"] for update in updates]


@pytest.fixture(params=[f"{library} {transports}" for library in LIBRARIES for transports in TRANSPORTS])
def every(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Every choice of transports with every library."""
    library, transports = request.param.split()
    return transports, library


@pytest.fixture
def alice(every: tuple[str, str], server: LiveServer, client: Clients) -> RealClient:
    """A client of alice's, connected, and on the transport where it should end up."""
    return client(server.url, server.cookie("alice"), *every).welcomed()


def test_joining_and_leaving(alice: RealClient, server: LiveServer) -> None:
    project, room = server.project, f"project_{server.project}"
    alice.emit("join_project", {"project_id": project})
    joined = alice.wait("joined_project")
    assert (joined["project_id"], joined["room"]) == (project, room)
    for number in range(20):
        server.publish(number)
    assert numbers(alice, 20) == list(range(20))
    alice.emit("leave_project", {"project_id": project})
    assert alice.wait("left_project") == {"project_id": project}
    server.publish(20)
    answer = alice.call("join_project", {"project_id": project})
    assert (answer["project_id"], answer["room"]) == (project, room)
    assert "recovered" not in answer
    server.publish(21)
    assert numbers(alice, 21) == [*range(20), 21]
    assert alice.call("leave_project", {"project_id": project}) == {"project_id": project}
    assert alice.call("leave_project", {"project_id": project}) == {"project_id": project}


def test_refusals(alice: RealClient, server: LiveServer) -> None:
    asked = [
        ({"project_id": ""}, "Project ID required", "project_id_required"),
        ("no object", "Project ID required", "project_id_required"),
        ({"project_id": 7}, "Invalid project ID format", "invalid_project_id"),
        ({"project_id": "x" * 101}, "Invalid project ID format", "invalid_project_id"),
        ({"project_id": "no such project"}, "Project not found", "project_not_found"),
        ({"project_id": server.other}, "Access denied - you are not a member of this project", "access_denied"),
    ]
    for count, (request, message, code) in enumerate(asked, 1):
        assert alice.call("join_project", request) == {"error": {"message": message, "code": code}}
        # The event comes as well, for clients that asked for no acknowledgement.
        errors = [error for error in alice.wait_all("error", count) if error["code"] == code]
        named = request.get("project_id") if isinstance(request, dict) else None
        expected = {"message": message, "code": code, **({"project_id": named} if isinstance(named, str) else {})}
        assert expected in errors
    assert alice.call("join_project", {"project_id": server.project})["project_id"] == server.project


def test_nobody_is_told_so_and_the_session_ends(every: tuple[str, str], server: LiveServer, client: Clients) -> None:
    stranger = client(server.url, None, *every)
    stranger.connect()
    error = {"message": "Authentication required", "code": "authentication_required"}
    assert stranger.wait("error") == error
    assert stranger.wait("disconnect") == stranger.reasons["server"]
    assert "connected" not in dict(stranger.events)


def test_a_logout_ends_the_session(alice: RealClient, server: LiveServer) -> None:
    alice.call("join_project", {"project_id": server.project})
    server.announce(user_id=server.users["alice"], logged_out=True)
    assert alice.wait("error")["code"] == "authentication_required"
    assert alice.wait("disconnect") == alice.reasons["server"]


def test_leaving_on_purpose_and_catching_up(alice: RealClient, server: LiveServer) -> None:
    alice.call("join_project", {"project_id": server.project})
    server.publish(0)
    last = alice.wait("moderation_update")["event_id"]
    alice.disconnect()
    assert alice.wait("disconnect") == alice.reasons["client"]
    for number in (1, 2, 3):
        server.publish(number)
    alice.connect()
    alice.wait("connected", 2)
    answer = alice.call("join_project", {"project_id": server.project, "last_event_id": last})
    server.publish(4)
    assert answer["recovered"] is True
    assert numbers(alice, 5) == [0, 1, 2, 3, 4]
    again = alice.call("join_project", {"project_id": server.project, "last_event_id": "1-0"})
    assert again["recovered"] is False


def test_a_server_that_is_away(every: tuple[str, str], closed_port: int, client: Clients) -> None:
    alone = client(f"http://127.0.0.1:{closed_port}", None, *every)
    alone.connect()
    alone.wait("connect_error")


# Everybody on every transport, through a restart: worth the time on every adapter. To be killed is the same on each.
@pytest.mark.parametrize(
    ("adapter", "number"),
    [*((name, signal.SIGTERM) for name in adapters.names()), ("asyncio", signal.SIGKILL)],
    ids=[*(f"{name} terminated" for name in adapters.names()), "asyncio killed"],
)
def test_everybody_comes_back_to_a_restarted_server(
    own_server: LiveServer, client: Clients, number: signal.Signals
) -> None:
    clients = {
        f"{library} on {transports}": client(own_server.url, own_server.cookie("alice"), transports, library)
        for library in LIBRARIES
        for transports in TRANSPORTS
    }
    positions = {}
    for name, one in clients.items():
        one.welcomed()
        positions[name] = one.call("join_project", {"project_id": own_server.project})["last_event_id"]
    own_server.publish(0)
    for one in clients.values():
        assert numbers(one, 1) == [0]
    own_server.stop(number)
    reasons = {name: one.wait("disconnect") for name, one in clients.items()}
    own_server.start()
    for name, one in clients.items():
        assert one.wait("connected", 2), name
        # History is in memory, so that of the old process is gone and the client must be told so.
        answer = one.call("join_project", {"project_id": own_server.project, "last_event_id": positions[name]})
        assert answer["recovered"] is False, name
    own_server.publish(1)
    for one in clients.values():
        assert numbers(one, 2) == [0, 1]
    if number is signal.SIGTERM:
        assert "Not everything was finished" not in own_server.log
        for name, reason in reasons.items():
            if name.startswith("python"):
                assert reason == "transport error", name
            else:
                # A polling client that is between two polls finds nobody there when it comes for the next.
                assert reason in ("transport close", *["transport error"] * name.endswith("polling")), name
