"""Several nodes that share their updates, in virtual time: what each of their clients sees."""

from __future__ import annotations

import random
from concurrent.futures import Future
from typing import Any

import pytest

from automoderate.core.hub import Limits
from automoderate.realtime import Realtime
from automoderate.server.interfaces import BackplaneUnavailable, ProjectUnusable
from automoderate.testing import Faults, Nodes, SimulatedClient, Simulation

LIMITS = Limits(max_connections_per_minute=100_000, max_events_per_minute=10_000, check_timeout=5.0)


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes(limits=LIMITS)
    nodes.directory.add_user("alice")
    nodes.directory.add_project("p", owner="alice")
    return nodes


class InThread:
    """A handle for ``Realtime``: the call is made at once."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def watch(self, _fileno: int, _ready: Any) -> Any:
        raise AssertionError("nothing is heard from a descriptor")

    def submit(self, call: Any) -> Any:
        result = call(self._simulation.now)
        self._simulation.run()
        if isinstance(result, Future):
            return result
        future: Future[Any] = Future()
        future.set_result(result)
        return future


def realtime(simulation: Simulation) -> Realtime:
    door = Realtime()
    door.bind(simulation.server, InThread(simulation))
    return door


def join(client: SimulatedClient, after: str | None = None) -> Any:
    more = {} if after is None else {"last_event_id": after}
    return client.call("join_project", {"project_id": "p", **more})


def numbers(client: SimulatedClient) -> list[int]:
    return [data["n"] for data in client.events("stats_update")]


def test_what_is_published_on_one_node_comes_to_the_clients_of_both(nodes: Nodes) -> None:
    clients = [nodes[index].connect("alice") for index in (0, 1)]
    for client in clients:
        join(client)
    door = realtime(nodes[0])
    event_id = door.publish("p", "stats_update", {"n": 1}).result(0)
    nodes.run()
    assert [client.events("stats_update") for client in clients] == [[{"n": 1, "event_id": event_id}]] * 2
    assert nodes[1].server.stats()["updates_total"] == 1
    assert door.stats()["backplane_streams"] == 1
    assert nodes[0].server.backplane.hearing


def test_a_project_without_members_on_a_node_costs_it_nothing(nodes: Nodes) -> None:
    client = nodes[0].connect("alice")
    join(client)
    client.call("leave_project", {"project_id": "p"})
    nodes.publish("p", "stats_update", {"n": 1})
    nodes.run()
    assert nodes[0].server.stats().get("updates_total", 0) == 0


def test_a_client_that_comes_from_a_node_that_is_ahead_waits_for_its_new_one(nodes: Nodes) -> None:
    ahead, behind = nodes[0].connect("alice"), nodes[1].connect("alice")
    join(ahead)
    join(behind)
    nodes.max_delay = 0.0
    published = [nodes.publish("p", "stats_update", {"n": 1})]
    nodes.run()
    nodes.max_delay = 4.0
    published += [nodes.publish("p", "stats_update", {"n": number}) for number in (2, 3)]
    newcomer = nodes[1].connect("alice", run=False)
    newcomer.on_event = lambda item: (
        newcomer.emit("join_project", {"project_id": "p", "last_event_id": published[1]})
        if item.event == "connected"
        else None
    )
    nodes.run()
    assert numbers(behind) == [1, 2, 3]
    assert numbers(newcomer) == [3]
    assert newcomer.events("joined_project") == [
        {"project_id": "p", "room": "project_p", "last_event_id": published[2], "recovered": True}
    ]


def test_a_history_that_was_lost_is_owned_up_to(nodes: Nodes) -> None:
    client = nodes[0].connect("alice")
    join(client)
    last = nodes.publish("p", "stats_update", {"n": 1})
    nodes.advance(1.0)
    nodes.forget()
    nodes.run()
    assert client.ended == "transport close"
    back = nodes[0].connect("alice")
    assert join(back, last)["recovered"] is False
    nodes.publish("p", "stats_update", {"n": 2})
    nodes.run()
    assert numbers(back) == [2]


def test_revocations_reach_the_other_nodes(nodes: Nodes) -> None:
    nodes.directory.add_user("bob")
    nodes.directory.projects["p"].add("bob")
    bob = nodes[1].connect("bob")
    join(bob)
    nodes.directory.projects["p"].remove("bob")
    door = realtime(nodes[0])
    door.access_changed(project_id="p").result(0)
    nodes.run()
    assert [error["code"] for error in bob.events("error")] == ["access_denied"]
    door.logged_out("bob").result(0)
    nodes.advance(2.0)
    assert bob.ended == "io server disconnect"
    door.unbind()


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (BackplaneUnavailable("away"), ["readings of the history fail: away"]),
        (ProjectUnusable("WRONGTYPE", "Redis has something else under the key"), []),
    ],
)
def test_a_history_that_cannot_be_read_is_a_server_error(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    error: Exception, lines: list[str],
) -> None:  # fmt: skip
    def away() -> Any:
        raise error

    monkeypatch.setattr(nodes[0].server.backplane, "read", lambda *_: away)
    answer = join(nodes[0].connect("alice"))
    assert answer["error"]["code"] == "server_error"
    assert caplog.messages == lines, "of one project the backplane has said it"


class Flapper:
    """A client that goes from node to node, and says where it stopped."""

    def __init__(self, nodes: Nodes, chance: random.Random) -> None:
        self.nodes, self.chance = nodes, chance
        self.last: str | None = None
        self.got: list[int] = []
        self.client: SimulatedClient | None = None
        self.in_room = False
        self.gaps = 0

    def move(self) -> None:
        if self.client is not None:
            self.client.on_event = lambda _: None
            self.client.cut()
        self.in_room = False
        self.client = self.nodes[self.chance.randrange(3)].connect("alice", run=False)
        self.client.on_event = self.on_event

    def on_event(self, item: Any) -> None:
        assert self.client is not None
        if item.event == "connected" or (item.event == "error" and item.data["code"] in ("timeout", "server_error")):
            more = {} if self.last is None else {"last_event_id": self.last}
            self.client.emit("join_project", {"project_id": "p", **more})
        elif item.event == "joined_project":
            self.in_room = True
            if item.data.get("recovered") is not True:
                self.got.clear()
                self.gaps += 1
            self.last = item.data["last_event_id"]
        elif item.event == "stats_update":
            self.got.append(item.data["n"])
            assert self.got == list(range(self.got[0], self.got[0] + len(self.got)))
            self.last = item.data["event_id"]


def test_clients_that_go_from_node_to_node_miss_nothing(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    nodes = Nodes(
        3,
        seed=seed,
        max_delay=1.0,
        faults=Faults(max_delay=0.2, cut=0.2, max_job_time=0.5, job_failure=0.02),
        limits=LIMITS,
    )
    nodes.directory.add_user("alice")
    nodes.directory.add_project("p", owner="alice")
    clients = [Flapper(nodes, chance) for _ in range(20)]
    for client in clients:
        client.move()
    for number in range(300):
        nodes.publish("p", "stats_update", {"n": number})
        nodes.advance(chance.random() * 0.2)
        for client in clients:
            if chance.random() < 0.03 or (client.client is not None and client.client.ended):
                client.move()
    for _ in range(20):
        nodes.advance(2.0)
        for client in clients:
            if client.client is None or client.client.ended:
                client.move()
    for client in clients:
        assert client.in_room
        assert client.gaps == 1
        assert client.got
        assert client.got[-1] == 299
