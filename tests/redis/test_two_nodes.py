"""Two nodes in processes of their own, on one Redis: to which of them somebody comes does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from attrs import frozen

from automoderate import adapters
from automoderate.directory import accounts
from automoderate.notifier.http import Refused
from kits import PATIENCE, until
from kits.contract_client import Client
from kits.live_server import LiveServer
from kits.processes import Process
from kits.redis_server import RedisServer, emitting

AUTHENTICATION_REQUIRED = {"message": "Authentication required", "code": "authentication_required"}
Connect = Callable[..., Client]


@frozen
class Nodes:
    """``world`` has the users and their project, and speaks over HTTP with node ``b``."""

    redis: RedisServer
    world: LiveServer
    a: Process
    b: Process

    def publish(self, *numbers: int) -> list[str]:
        """Publish on ``b``; the event ids."""
        return [self.world.publish(number) for number in numbers]


@pytest.fixture(scope="module", params=adapters.names())
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("nodes")
    redis = RedisServer(folder)
    world = LiveServer(folder)
    options = {
        "redis_url": redis.url, "redis_channel": "socketio", "database_url": str(world.database),
        "adapter": request.param, "port": "0",
    }  # fmt: skip
    a, b = (Process(folder / f"{name}.log", auth_grace="0.2", **options) for name in "ab")
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Process.start, (a, b)))
        world.port = b.port
        yield Nodes(redis, world, a, b)
    finally:
        for node in (a, b):
            node.close()
        world.close()
        redis.close()


@pytest.fixture
def connect(nodes: Nodes) -> Iterator[Connect]:
    """A client of one node that has joined the project, with what it was answered."""
    made: list[Client] = []

    def connect(node: Process, user: str, **position: str) -> Client:
        client = Client.connect(("127.0.0.1", node.port), "websocket", {"Cookie": nodes.world.cookie(user)})
        made.append(client)
        client.expect("connected")
        client.request("join_project", {"project_id": nodes.world.project, **position})
        return client

    yield connect
    for client in made:
        client.wire.close()


def numbers(client: Client, last: int) -> list[int]:
    """The numbers of all updates that the client has seen, up to this one."""
    while client.until("moderation_update")["number"] != last:
        pass
    return [data["number"] for data in client.events("moderation_update")]


def joined(client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.until("ack")[1]
    return answer


def test_what_is_published_on_one_node_is_seen_on_the_other_in_order(nodes: Nodes, connect: Connect) -> None:
    clients = [connect(nodes.a, "alice"), connect(nodes.b, "alice")]
    for client in clients:
        joined(client)
    published = nodes.publish(*range(30))
    for client in clients:
        assert numbers(client, 29) == list(range(30))
        assert [data["event_id"] for data in client.events("moderation_update")] == published


def test_what_another_process_emits_with_python_socketio_is_seen_once_on_both(nodes: Nodes, connect: Connect) -> None:
    clients = [connect(nodes.a, "alice"), connect(nodes.b, "alice")]
    for client in clients:
        joined(client)
    with emitting(nodes.redis) as emit:
        for number in range(30):
            emit(nodes.world.project, number)
            emit(nodes.world.other, number)  # which nobody here has joined
    for client in clients:
        assert numbers(client, 29) == list(range(30))
    nodes.publish(30)
    for client in clients:
        assert numbers(client, 30) == list(range(31))
    seen = [client.events("moderation_update") for client in clients]
    assert seen[0] == seen[1], "the event ids are the same, too"


def test_a_client_that_was_cut_off_catches_up_on_the_other_node(nodes: Nodes, connect: Connect) -> None:
    before = connect(nodes.a, "alice")
    joined(before)
    nodes.publish(1, 2)
    assert numbers(before, 2) == [1, 2]
    before.wire.cut()
    nodes.publish(3, 4, 5)
    after = connect(nodes.b, "alice", last_event_id=before.events("moderation_update")[-1]["event_id"])
    assert joined(after)["recovered"] is True
    nodes.publish(6)
    assert numbers(after, 6) == [3, 4, 5, 6]


def test_a_removal_that_is_announced_on_one_node_is_one_on_the_other(nodes: Nodes, connect: Connect) -> None:
    world = nodes.world
    member = world.users["bob"]
    accounts.add_member(world.database, world.project, member)
    removed, other = connect(nodes.a, "bob"), connect(nodes.a, "alice")
    joined(removed)
    joined(other)
    accounts.remove_member(world.database, world.project, member)
    world.announce(user_id=member, project_id=world.project)
    denied = removed.until("error")
    assert (denied["code"], denied["project_id"]) == ("access_denied", world.project)
    nodes.publish(1)
    assert numbers(other, 1) == [1]
    assert removed.settle() == []


def test_a_logout_that_is_announced_on_one_node_is_one_on_the_other(nodes: Nodes, connect: Connect) -> None:
    client = connect(nodes.a, "alice")
    joined(client)
    nodes.world.announce(user_id=nodes.world.users["alice"], logged_out=True)
    assert client.rest() == [("error", AUTHENTICATION_REQUIRED), ("disconnect", None)]


def test_nodes_say_when_they_are_cut_off_from_each_other(nodes: Nodes, connect: Connect) -> None:
    client = connect(nodes.a, "alice")
    joined(client)
    nodes.publish(1)
    assert numbers(client, 1) == [1]
    nodes.redis.kill()
    cut_off = {"database": "ok", "realtime": "cut off from the other nodes", "publishing": "unavailable"}
    for node in (nodes.a, nodes.b):
        until(lambda node=node: ready(node) == (503, cut_off))  # type: ignore[misc]
    nodes.redis.start()
    for node in (nodes.a, nodes.b):
        until(lambda node=node: ready(node)[0] == 200)  # type: ignore[misc]
    nodes.publish(2)
    assert numbers(client, 2) == [1, 2]


def test_nodes_whose_redis_is_full_stay_ready_for_those_who_watch(nodes: Nodes, connect: Connect) -> None:
    client = connect(nodes.a, "alice")
    joined(client)
    nodes.publish(1)
    assert numbers(client, 1) == [1]
    for node in (nodes.a, nodes.b):  # a node that has just come has not written yet
        until(lambda node=node: ready(node)[1]["publishing"] == "ok")  # type: ignore[misc]
    full = {"database": "ok", "realtime": "ok", "publishing": "unavailable"}
    with nodes.redis.full():
        for node in (nodes.a, nodes.b):
            until(lambda node=node: ready(node) == (200, full))  # type: ignore[misc]
        with pytest.raises(Refused, match="The update was not accepted: Redis is full"):
            nodes.publish(2)
        for user in ("alice", "bob"):  # who comes now is let in
            joined(connect(nodes.b, user))
    for node in (nodes.a, nodes.b):
        until(lambda node=node: ready(node)[1]["publishing"] == "ok")  # type: ignore[misc]
        until(lambda node=node: "writes to Redis work again" in node.log)  # type: ignore[misc]
        assert node.log.count("writes to Redis fail: OOM") == 1
    nodes.publish(3)
    assert numbers(client, 3) == [1, 3]


def ready(node: Process) -> tuple[int, dict[str, str]]:
    """What ``/readyz`` says."""
    answer = requests.get(f"http://127.0.0.1:{node.port}/readyz", timeout=PATIENCE)
    checks: dict[str, str] = answer.json()["checks"]
    return answer.status_code, checks
