"""A key that holds something else than we keep there: it costs what needs that key, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import socketio

from automoderate.backplane.redis.entries import CONTROL, stream
from automoderate.core.hub import LoggedOut
from automoderate.server.interfaces import BackplaneRefused, ProjectUnusable
from kits import PATIENCE, until
from kits.redis_server import Node, RedisServer, disconnect

NewNode = Callable[..., Node]


def spoil(client: Any, key: str) -> None:
    """Put a text there, and tell who listens to look."""
    client.set(key, "no stream")
    client.publish(key, "")


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with server.client() as client:
        yield client


def refusals(node: Node) -> float:
    return node.backplane.stats()["backplane_unusable_total"]


def named(caplog: pytest.LogCaptureFixture, key: str, what: str) -> int:
    """How many lines say this of a key."""
    return sum(message.startswith(f"{key} in Redis {what}") for message in caplog.messages)


def test_a_project_whose_stream_is_none_is_lost_and_no_other(
    new_node: NewNode, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = new_node(), new_node()
    for project_id in ("p", "q", "r"):
        far.follow(project_id)
    spoil(client, stream("p"))
    until(lambda: far.lost == ["p"])
    for number, project_id in enumerate("qr"):
        near.publish(number, project_id=project_id)
    until(lambda: far.numbers == [0, 1])
    assert far.hears()
    assert far.backplane.stats()["backplane_reconnects_total"] == 0
    assert refusals(far) == 1
    assert named(caplog, stream("p"), "cannot be used") == 1


def test_whoever_publishes_or_reads_it_is_told_and_the_log_says_it_once(
    node: Node, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(stream("p"), "no stream")
    for _ in range(3):
        with pytest.raises(ProjectUnusable, match="WRONGTYPE") as refused:
            node.publish(1)
        assert refused.value.reason == "Redis has something else under the key"
        with pytest.raises(ProjectUnusable, match="WRONGTYPE"):
            node.backplane.publish_all("p", [("e", "{}"), ("e", "{}")]).result(PATIENCE)
        for after, newest in ((None, 0), (None, 10), ("1-0", 0)):
            with pytest.raises(ProjectUnusable, match="WRONGTYPE"):
                node.read("p", after, newest)
    assert node.backplane.writable
    assert refusals(node) == 15
    assert len(caplog.messages) == 1
    client.delete(stream("p"))
    node.follow()
    node.publish(2)
    until(lambda: node.numbers == [2])
    assert caplog.messages[1:] == [f"{stream('p')} in Redis can be used again; it could not 15 times"]


def test_a_key_of_another_type_is_left_as_it_is(node: Node, client: Any) -> None:
    client.set(stream("p"), "no stream")
    with pytest.raises(ProjectUnusable):
        node.publish(1)
    assert (client.get(stream("p")), client.ttl(stream("p"))) == (b"no stream", -1)


def test_announcements_that_cannot_be_made_cost_no_update(
    new_node: NewNode, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = new_node(), new_node()
    far.follow()
    spoil(client, CONTROL)
    until(lambda: refusals(far), "it looks at them")
    with pytest.raises(BackplaneRefused, match="WRONGTYPE"):
        near.backplane.announce(LoggedOut("u")).result(PATIENCE)
    near.publish(1)
    until(lambda: far.numbers == [1])
    late = new_node()  # also one that starts now
    late.follow()
    near.publish(2)
    until(lambda: far.numbers == [1, 2] and late.numbers == [2])
    assert far.backplane.stats()["backplane_reconnects_total"] == 0
    assert named(caplog, CONTROL, "cannot be used") == 3, "each node says it"
    client.delete(CONTROL)
    near.backplane.announce(LoggedOut("u")).result(PATIENCE)
    until(lambda: LoggedOut("u") in far.told and LoggedOut("u") in late.told)
    assert far.lost == []


def test_a_nodes_own_key_is_put_right_by_the_node(node: Node, client: Any) -> None:
    (key,) = client.keys("automoderate:node:*")
    spoil(client, key.decode())
    until(lambda: client.type(key) == b"stream", "it begins anew")
    node.follow()
    node.publish(1)
    until(lambda: node.numbers == [1] and node.hears() and node.backplane.writable)


def test_a_list_of_listeners_that_is_none_costs_those_who_come_a_moment(
    new_node: NewNode, client: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    key = "automoderate:listeners:socketio"
    client.set(key, "no list")
    node = new_node(channel="socketio")
    node.follow()
    manager = socketio.RedisManager(server.url, write_only=True)
    manager.emit("stats_update", {"n": 1}, room="project_p")
    disconnect(manager)
    until(lambda: node.numbers == [1])
    assert node.backplane.stats()["backplane_channel_reconnects_total"] == 0
    assert named(caplog, key, "cannot be used") == 1


def test_what_a_channel_says_for_a_project_whose_stream_is_none_is_lost_and_no_more(
    new_node: NewNode, client: Any, server: RedisServer
) -> None:
    node = new_node(channel="socketio")
    node.follow("q")
    client.set(stream("p"), "no stream")
    manager = socketio.RedisManager(server.url, write_only=True)
    manager.emit("stats_update", {"n": 1}, room="project_p")
    manager.emit("stats_update", {"n": 2}, room="project_q")
    disconnect(manager)
    until(lambda: node.numbers == [2])
    until(lambda: node.backplane.stats()["backplane_publish_failures_total"] == 1)


def test_however_many_entries_are_no_updates_a_few_lines_say_so(
    node: Node, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node.follow()
    for number in range(500):
        client.xadd(stream("p"), {"event": "e", "data": f"no update {number}"})
        client.publish(stream("p"), f"{{no presence {number}")
    client.publish(stream("p"), "")
    node.publish(1)
    until(lambda: node.numbers == [1])
    until(lambda: node.backplane.stats()["backplane_rejected_total"] == 1000)
    assert 1 <= len(caplog.messages) <= 5
    assert all(message.startswith("readings of what stands in Redis fail: ") for message in caplog.messages)
