"""Access is taken away while much is under way: whatever waits, nothing published from that moment on is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from automoderate.core.hub import AccessChanged, Limits, LoggedOut
from automoderate.server import Server, outbound
from automoderate.testing import Faults, Nodes, SimulatedClient, Simulation, TransportName

SLOW = Faults(max_job_time=0.5)


def begun(faults: Faults | None = None, seed: int = 0) -> Simulation:
    simulation = Simulation(seed=seed, faults=faults, limits=Limits(max_connections_per_minute=10_000))
    for name in ("alice", "bob"):
        simulation.directory.add_user(name)
    simulation.directory.add_project("p", owner="alice", members=["bob"])
    return simulation


def publish(simulation: Simulation, *numbers: int) -> None:
    """Publish without the turn of the loop that comes after it."""
    for number in numbers:
        simulation.server.publish("p", "moderation_update", Server.encode({"n": number}), simulation.now)


def joined(simulation: Simulation, transport: TransportName = "websocket") -> SimulatedClient:
    client = simulation.connect("bob", transport=transport)
    client.emit("join_project", {"project_id": "p"})
    simulation.run()
    assert len(client.events("joined_project")) == 1
    return client


def remove_bob(simulation: Simulation) -> None:
    simulation.directory.projects["p"].discard("bob")
    simulation.access_changed(user_id="bob", project_id="p")


def log_out_bob(simulation: Simulation) -> None:
    simulation.logged_out("bob")


REVOKE = [pytest.param(remove_bob, id="removed"), pytest.param(log_out_bob, id="logged out")]


def numbers(client: SimulatedClient) -> list[int]:
    return [data["n"] for data in client.events("moderation_update")]


@pytest.mark.parametrize("revoke", REVOKE)
def test_with_a_full_queue(monkeypatch: pytest.MonkeyPatch, revoke: Callable[[Simulation], None]) -> None:
    monkeypatch.setattr(outbound, "WRITES_PER_TURN", 1)
    simulation = begun()
    clients = [joined(simulation) for _ in range(20)]
    publish(simulation, *range(50))
    revoke(simulation)
    publish(simulation, *range(50, 100))
    simulation.advance(5)
    for client in clients:
        assert numbers(client) == list(range(50))
        assert client.events("error")


@pytest.mark.parametrize("revoke", REVOKE)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_with_a_reader_that_has_stopped(transport: TransportName, revoke: Callable[[Simulation], None]) -> None:
    simulation = begun()
    client = joined(simulation, transport)
    client.stall()
    publish(simulation, *range(50))
    simulation.run()
    revoke(simulation)
    publish(simulation, *range(50, 100))
    simulation.advance(5)
    client.resume()
    simulation.advance(5)
    assert numbers(client) == list(range(50))[: len(numbers(client))]


@pytest.mark.parametrize("revoke", REVOKE)
def test_in_the_middle_of_catching_up(seed: int, revoke: Callable[[Simulation], None]) -> None:
    simulation = begun(SLOW, seed)
    watcher = joined(simulation)
    publish(simulation, *range(50))
    simulation.run()
    stopped_at = watcher.events("moderation_update")[9]["event_id"]
    client = simulation.connect("bob")
    client.emit("join_project", {"project_id": "p", "last_event_id": stopped_at})
    simulation.advance(simulation.random.random())
    caught_up = len(client.events("joined_project"))
    revoke(simulation)
    publish(simulation, *range(50, 100))
    simulation.advance(10)
    assert not [number for number in numbers(client) if number >= 50]
    assert numbers(client) in ([], list(range(10, 50)))
    assert len(client.events("joined_project")) == caught_up


@pytest.mark.parametrize("revoke", REVOKE)
def test_in_the_middle_of_an_upgrade(seed: int, revoke: Callable[[Simulation], None]) -> None:
    simulation = begun(Faults(max_delay=0.2), seed)
    client = simulation.connect("bob", transport="upgrade", run=False)
    while not client.connected:
        simulation.advance(0.01)
    client.emit("join_project", {"project_id": "p"})
    while not client.events("joined_project"):
        publish(simulation, -1)
        simulation.advance(0.01)
    publish(simulation, *range(50))
    simulation.advance(simulation.random.random() * 0.3)
    revoke(simulation)
    publish(simulation, *range(50, 100))
    simulation.advance(10)
    received = [number for number in numbers(client) if number >= 0]
    assert received == list(range(50))[: len(received)]


WISHES: list[dict[str, Any]] = [
    {"statuses": ["approved", "flagged"]}, {"presence": True}, {"recent": 5},
    {"presence": True, "statuses": ["approved"], "recent": 200},
]  # fmt: skip


def approve(simulation: Simulation, *numbers: int) -> None:
    for number in numbers:
        text = Server.encode({"n": number, "status": "approved"})
        simulation.server.publish("p", "moderation_update", text, simulation.now)


@pytest.mark.parametrize("revoke", REVOKE)
@pytest.mark.parametrize("transport", ["websocket", "polling", "upgrade"])
@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: "+".join(wish))
def test_whatever_the_member_has_asked_for(
    seed: int, wish: dict[str, Any], transport: TransportName, revoke: Callable[[Simulation], None]
) -> None:
    """Neither an update nor a word about who else is there; and those hear that it has gone."""
    simulation = begun(SLOW, seed)
    alice = simulation.connect("alice")
    alice.call("join_project", {"project_id": "p", "presence": True})
    client = simulation.connect("bob", transport=transport)
    client.call("join_project", {"project_id": "p", **wish})
    simulation.advance(2)
    approve(simulation, *range(50))
    simulation.advance(simulation.random.random() * 2)
    revoke(simulation)
    told = len(client.events("presence_change")) + len(client.events("presence_looking"))
    approve(simulation, *range(50, 100))
    alice.emit("looking_at", {"project_id": "p", "content_id": "c"})
    simulation.connect("alice").emit("join_project", {"project_id": "p"})
    simulation.advance(20)
    approve(simulation, *range(100, 150))
    simulation.advance(5)
    assert numbers(client) == list(range(50))[: len(numbers(client))]
    assert len(client.events("presence_change")) + len(client.events("presence_looking")) == told
    assert [user for change in alice.events("presence_change") for user in change["left"]] == [{"user_id": "bob"}]
    assert numbers(alice) == list(range(150))


@pytest.mark.parametrize("item", [AccessChanged("bob", "p"), LoggedOut("bob")], ids=["removed", "logged out"])
@pytest.mark.parametrize("wish", [{}, *WISHES], ids=lambda wish: "+".join(wish) or "nothing")
def test_on_another_node_from_when_it_was_told(seed: int, wish: dict[str, Any], item: Any) -> None:
    nodes = Nodes(seed=seed, faults=Faults(max_job_time=0.5, max_delay=0.2))
    for name in ("alice", "bob"):
        nodes.directory.add_user(name)
    nodes.directory.add_project("p", owner="alice", members=["bob"])
    client = nodes[1].connect("bob")
    client.emit("join_project", {"project_id": "p", **wish})
    nodes.advance(5)
    assert len(client.events("joined_project")) == 1

    def publish(*numbers: int) -> None:
        for number in numbers:
            nodes.publish("p", "moderation_update", {"n": number, "status": "approved"})

    publish(*range(50))
    nodes.advance(nodes.random.random() * 0.2)
    nodes.directory.projects["p"].discard("bob")
    told = nodes[0].server.announce(item, nodes.now)
    assert told is not None
    while not told.done():
        nodes.advance(0.001)
    publish(*range(50, 100))
    nodes.advance(20)
    assert numbers(client) == list(range(50))[: len(numbers(client))]
    assert client.events("error")
