"""Presence through the whole server in memory: real bytes, virtual time, every transport, and several nodes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from automoderate.core.hub import Limits
from automoderate.testing import Faults, Nodes, SimulatedClient, Simulation, TransportName

TRANSPORTS: tuple[TransportName, ...] = ("websocket", "polling", "upgrade")
ALICE, BOB, CAROL = ({"user_id": name, "username": name.title()} for name in ("alice", "bob", "carol"))


def populate(place: Simulation | Nodes) -> None:
    for user_id in ("alice", "bob", "carol"):
        place.directory.add_user(user_id, username=user_id.title())
    place.directory.add_project("p", owner="alice", members=["bob", "carol"])


@pytest.fixture
def simulation() -> Simulation:
    simulation = Simulation()
    populate(simulation)
    return simulation


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    name: TransportName = request.param
    return name


def join(client: SimulatedClient, **more: Any) -> None:
    assert "error" not in client.call("join_project", {"project_id": "p", **more})


def heard(client: SimulatedClient) -> list[tuple[str, Any]]:
    """What the client was told of presence, without the project."""
    found = [(item.event, dict(item.data)) for item in client.received if item.event.startswith("presence_")]
    assert all(data.pop("project_id") == "p" for _, data in found)
    return found


def test_state_and_changes(simulation: Simulation, transport: TransportName) -> None:
    silent = simulation.connect("carol", transport=transport)
    join(silent)
    alice = simulation.connect("alice", transport=transport)
    join(alice, presence=True)
    bob = simulation.connect("bob", transport=transport)
    simulation.advance(1)
    join(bob, presence=True)
    assert [item.event for item in alice.received] == [
        "connected", "joined_project", "presence_state", "presence_change",
    ]  # fmt: skip
    bob.emit("looking_at", {"project_id": "p", "content_id": "c1"})
    simulation.advance(1.1)
    bob.disconnect()
    simulation.advance(6)
    assert heard(alice) == [
        ("presence_state", {"users": [ALICE, CAROL]}),
        ("presence_change", {"joined": [BOB], "left": []}),
        ("presence_looking", {"user_id": "bob", "content_id": "c1"}),
        ("presence_change", {"joined": [], "left": [{"user_id": "bob"}]}),
    ]
    assert heard(bob) == [("presence_state", {"users": [ALICE, CAROL, BOB]})]
    assert heard(silent) == []


def test_somebody_who_comes_back_within_five_seconds_never_left(
    simulation: Simulation, transport: TransportName
) -> None:
    alice = simulation.connect("alice")
    join(alice, presence=True)
    bob = simulation.connect("bob", transport=transport)
    join(bob)
    simulation.advance(2)
    for _ in range(3):
        bob.cut()
        simulation.advance(4)
        bob = simulation.connect("bob", transport=transport)
        join(bob)
        simulation.advance(2)
    assert len(heard(alice)) == 2


def test_a_client_that_leaves_the_room_is_told_no_more(simulation: Simulation, transport: TransportName) -> None:
    alice = simulation.connect("alice", transport=transport)
    join(alice, presence=True)
    alice.call("leave_project", {"project_id": "p"})
    join(simulation.connect("bob"), presence=True)
    simulation.advance(20)
    assert heard(alice) == [("presence_state", {"users": [ALICE]})]


def test_a_client_outside_learns_nothing(simulation: Simulation) -> None:
    simulation.directory.add_user("dora")
    dora = simulation.connect("dora")
    join(simulation.connect("bob"), presence=True)
    answer = dora.call("join_project", {"project_id": "p", "presence": True})
    assert answer["error"]["code"] == "access_denied"
    answer = dora.call("looking_at", {"project_id": "p", "content_id": "c1"})
    assert answer["error"]["code"] == "presence_required"
    simulation.advance(20)
    assert heard(dora) == []


def test_many_come_at_once(simulation: Simulation) -> None:
    alice = simulation.connect("alice")
    join(alice, presence=True)
    clients = []
    for number in range(100):
        simulation.directory.add_user(f"u{number}")
        simulation.directory.projects["p"].add(f"u{number}")
        clients.append(simulation.connect(f"u{number}", run=False))
    for client in clients:
        client.on_event = lambda item, client=client: (  # type: ignore[misc]
            client.emit("join_project", {"project_id": "p", "presence": True}) if item.event == "connected" else None
        )
    simulation.advance(3)
    changes = [data for event, data in heard(alice) if event == "presence_change"]
    assert sum(len(data["joined"]) for data in changes) == 100
    assert len(changes) <= 3
    for client in clients:
        (state, *rest) = heard(client)
        there = [user["user_id"] for user in state[1]["users"]]
        there += [user["user_id"] for event, data in rest for user in data["joined"]]
        assert len(there) == len(set(there)) == 101


class TestNodes:
    @pytest.fixture
    def nodes(self) -> Nodes:
        nodes = Nodes(limits=Limits(max_connections_per_minute=100_000, max_events_per_minute=10_000))
        populate(nodes)
        return nodes

    def test_users_of_every_node_and_what_they_look_at(self, nodes: Nodes) -> None:
        alice = nodes[0].connect("alice")
        join(alice, presence=True)
        nodes.advance(1)
        bob = nodes[1].connect("bob")
        join(bob, presence=True)
        nodes.advance(1)
        bob.emit("looking_at", {"project_id": "p", "content_id": "c1"})
        nodes.advance(2)
        assert heard(alice)[1:] == [
            ("presence_change", {"joined": [BOB], "left": []}),
            ("presence_looking", {"user_id": "bob", "content_id": "c1"}),
        ]
        assert heard(bob) == [("presence_state", {"users": [ALICE, BOB]})] or heard(bob) == [
            ("presence_state", {"users": [BOB, ALICE]})
        ]

    def test_a_node_is_killed(self, nodes: Nodes) -> None:
        alice = nodes[0].connect("alice")
        join(alice, presence=True)
        join(nodes[1].connect("bob"))
        join(nodes[1].connect("carol"))
        nodes.advance(60)
        nodes[1].restart()
        nodes.advance(4)
        join(nodes[1].connect("carol"))
        nodes.advance(26)
        assert [data for event, data in heard(alice) if event == "presence_change"][-1] == {
            "joined": [],
            "left": [{"user_id": "bob"}],
        }
        assert [user for _, data in heard(alice) for user in data.get("left", [])] == [{"user_id": "bob"}]

    def test_whatever_happens(self, seed: int) -> None:
        print(f"seed {seed}")
        chance = random.Random(seed)
        limits = Limits(max_connections_per_minute=100_000, max_events_per_minute=10_000, check_timeout=5.0)
        faults = Faults(max_delay=0.2, cut=0.2, max_job_time=0.3)
        nodes = Nodes(3, seed=seed, max_delay=0.5, faults=faults, limits=limits)
        people = [Wanderer(nodes, chance, f"u{number}") for number in range(12)]
        nodes.directory.add_project("p", owner="u0", members=[person.user for person in people])
        for _ in range(120):
            chance.choice(people).move()
            if chance.random() < 0.03:
                nodes[chance.randrange(3)].restart()
            nodes.advance(chance.random() * 2)
        for person in people:
            if person.client is not None and person.client.ended:
                person.client = None
        nodes.advance(60)
        there = {person.user for person in people if person.client is not None}
        for person in people:
            if person.client is not None and person.asks:
                assert person.users == there, person.user


class Wanderer:
    """A user who joins on one node or another, with or without asking who is there, and leaves again."""

    def __init__(self, nodes: Nodes, chance: random.Random, user: str) -> None:
        self.nodes, self.chance, self.user = nodes, chance, user
        self.client: SimulatedClient | None = None
        self.asks = False
        self.users: set[str] | None = None
        nodes.directory.add_user(user)

    def move(self) -> None:
        if self.client is not None:
            self.client.on_event = lambda item: None
            self.client.cut()
            self.client = None
            if self.chance.random() < 0.3:
                return
        self.asks, self.users = self.chance.random() < 0.7, None
        self.client = self.nodes[self.chance.randrange(3)].connect(self.user, run=False)
        self.client.on_event = self.on_event

    def on_event(self, item: Any) -> None:
        assert self.client is not None
        if item.event == "connected":
            self.client.emit("join_project", {"project_id": "p", "presence": self.asks})
        elif item.event == "presence_state":
            assert self.asks
            self.users = {user["user_id"] for user in item.data["users"]}
        elif item.event == "presence_change":
            assert self.users is not None
            joined, left = ({user["user_id"] for user in item.data[key]} for key in ("joined", "left"))
            assert not joined & self.users
            assert left <= self.users
            self.users = (self.users | joined) - left
