"""Presence over a real Redis: what nodes tell one another, and two servers of which one is killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from automoderate.backplane.redis.entries import BadEntry, stream
from automoderate.backplane.redis.presence import heard, tell
from automoderate.core.hub import PresenceReport, PresenceShared, PresentUser
from automoderate.directory import accounts
from kits import until
from kits.contract_client import Client
from kits.live_server import LiveServer
from kits.processes import Process
from kits.redis_server import Node, RedisServer

NewNode = Callable[..., Node]
REPORT = PresenceReport(
    "p",
    number=7,
    base=6,
    present=(PresentUser("u", "\u2028 Ünï 😀"), PresentUser("v", "V", "c1")),
    gone=("w", "x"),
    wanted=True,
    asks=True,
)


def shared(node: Node) -> list[PresenceReport]:
    """What a node was told by others."""
    return [item.report for item in list(node.told) if isinstance(item, PresenceShared)]


def test_nodes_that_follow_the_project_hear_it_as_it_was_said_and_in_order(new_node: NewNode) -> None:
    near, far, elsewhere = new_node(), new_node(), new_node()
    for node, project_id in ((near, "p"), (far, "p"), (elsewhere, "q")):
        node.follow(project_id)
    reports = [REPORT, *(PresenceReport("p", number, None) for number in range(8, 300))]
    for report in reports:
        near.backplane.share_presence(report)
    elsewhere.backplane.share_presence(PresenceReport("q", 1, None))
    until(lambda: len(shared(far)) >= len(reports))
    assert shared(far) == reports
    near.publish(1)
    until(lambda: near.numbers == far.numbers == [1])
    assert shared(near) == shared(elsewhere) == [], "neither its own words nor those of other projects"
    senders = {item.node for item in far.told if isinstance(item, PresenceShared)}
    assert len(senders) == 1


def test_it_leaves_nothing_in_redis(node: Node, server: RedisServer) -> None:
    node.follow()
    with server.client() as client:
        before = sorted(client.keys())
        node.backplane.share_presence(REPORT)
        node.publish(1)
        until(lambda: node.numbers == [1])
        assert sorted(client.keys()) == before


def test_what_is_no_such_message_is_skipped(new_node: NewNode, server: RedisServer) -> None:
    near, far = new_node(), new_node()
    far.follow()
    with server.client() as client:
        until(lambda: dict(client.pubsub_numsub(stream("p"))) == {stream("p").encode(): 1}, "it listens")
        for message in (b"{", b"{}", b"{\xff", b'{"node":' * 50_000, b'{"node":"x"}'):
            client.publish(stream("p"), message)
    near.backplane.share_presence(REPORT)
    until(lambda: shared(far))
    assert shared(far) == [REPORT]
    assert far.backplane.stats()["backplane_rejected_total"] == 5
    near.publish(1)
    until(lambda: far.numbers == [1])


@pytest.mark.parametrize(
    "change",
    [
        {"node": 7},
        {"project_id": None},
        {"number": "7"},
        {"number": True},
        {"base": 1.5},
        {"present": [["u"]]},
        {"present": [["u", "U", None, 1]]},
        {"present": [["u", "U", 7]]},
        {"present": [["u", None, None]]},
        {"present": 7},
        {"gone": [7]},
    ],
)
def test_every_part_of_a_message_is_checked(change: dict[str, Any]) -> None:
    command = tell("a", REPORT)
    said = json.loads(str(command[2]))
    assert heard(str(command[2]).encode()) == PresenceShared("a", REPORT)
    with pytest.raises(BadEntry, match="it says nothing of who is there"):
        heard(json.dumps(said | change).encode())


def test_what_is_said_while_redis_is_away_is_lost_and_later_words_are_not(
    new_node: NewNode, server: RedisServer
) -> None:
    near, far = new_node(), new_node()
    for node in (near, far):
        node.follow()
    server.kill()
    until(lambda: not near.hears() and not far.hears())
    for number in range(5000):
        near.backplane.share_presence(PresenceReport("p", number, None))
    server.start()
    until(lambda: near.hears() and far.hears())
    last = PresenceReport("p", 5000, None)
    near.backplane.share_presence(last)
    until(lambda: last in shared(far))
    assert len(shared(far)) <= 1001


# Two servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(adapter: str, tmp_path: Path) -> Iterator[tuple[LiveServer, Process, Process]]:
    """Users, and two servers that share a Redis."""
    redis = RedisServer(tmp_path)
    world = LiveServer(tmp_path)
    accounts.add_member(world.database, world.project, world.users["bob"])
    options = {"redis_url": redis.url, "database_url": str(world.database), "adapter": adapter, "port": "0"}
    a, b = (Process(tmp_path / f"{name}.log", **options) for name in "ab")
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Process.start, (a, b)))
        yield world, a, b
    finally:
        for node in (a, b):
            node.close()
        world.close()
        redis.close()


def enter(world: LiveServer, node: Process, user: str, **more: Any) -> Client:
    client = Client.connect(("127.0.0.1", node.port), "websocket", {"Cookie": world.cookie(user)})
    client.expect("connected")
    client.request("join_project", {"project_id": world.project, **more})
    client.until("ack")
    return client


def test_users_of_both_nodes_until_one_is_killed(pair: tuple[LiveServer, Process, Process]) -> None:
    world, a, b = pair
    people = {name: {"user_id": world.users[name], "username": name} for name in ("alice", "bob")}
    bob = enter(world, b, "bob", presence=True)
    assert bob.until("presence_state")["users"] == [people["bob"]]
    alice = enter(world, a, "alice", presence=True)
    state = alice.until("presence_state")["users"]
    if people["bob"] not in state:  # the other node is slow to say who is there
        state += alice.until("presence_change")["joined"]
    assert sorted(state, key=lambda user: str(user["username"])) == [people["alice"], people["bob"]]
    assert bob.until("presence_change")["joined"] == [people["alice"]]
    bob.request("looking_at", {"project_id": world.project, "content_id": "c1"})
    looks = {"project_id": world.project, "user_id": world.users["bob"], "content_id": "c1"}
    assert alice.until("presence_looking") == looks
    b.stop(signal.SIGKILL)
    left = alice.until("presence_change")
    assert (left["joined"], left["left"]) == ([], [{"user_id": world.users["bob"]}])
    b.start()
    bob = enter(world, b, "bob")
    assert alice.until("presence_change")["joined"] == [people["bob"]]
    b.stop(signal.SIGTERM)
    assert alice.until("presence_change")["left"] == [{"user_id": world.users["bob"]}]
    for client in (alice, bob):
        client.wire.close()
