"""What other processes emit on a channel of Redis, and several nodes that hear it."""

from __future__ import annotations

import json
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import flask_socketio
import pytest
import redis
import socketio
from live_server import PATIENCE, until
from redis_kit import Node, RedisServer, disconnect

from automoderate.backplane import _redis_channel, _redis_entries, _redis_publisher
from automoderate.backplane.redis import RedisBackplane
from automoderate.core.hub import Published
from automoderate.server import BackplaneUnavailable

KEY = "automoderate:{p}:updates"
ROOM = "project_p"
NewNode = Callable[..., Node]
Emit = Callable[..., None]


@pytest.fixture
def listener(new_node: NewNode) -> Callable[[], Node]:
    """Makes nodes that hear the channel and follow the project."""

    def make() -> Node:
        node = new_node(channel="socketio")
        node.follow()
        return node

    return make


@pytest.fixture
def emit(server: RedisServer) -> Iterator[Emit]:
    """Emits numbers to a room as another process would."""
    manager = socketio.RedisManager(server.url, write_only=True)

    def emit(*numbers: int, room: object = ROOM, **options: Any) -> None:
        for number in numbers:
            manager.emit("stats_update", {"n": number}, room=room, **options)

    yield emit
    disconnect(manager)


def channel_of(node: Node) -> _redis_channel.Channel:
    channel = node.backplane._channel
    assert channel is not None
    return channel


def stat(node: Node, name: str) -> float:
    return node.backplane.stats()[f"backplane_channel_{name}_total"]


def stored(server: RedisServer) -> list[int]:
    """The numbers in the project's stream."""
    with server.client() as client:
        return [json.loads(entry[b"data"])["n"] for _, entry in client.xrange(KEY) if entry[b"event"]]


# What is emitted ----------------------------------------------------------------------------------------------


def test_each_update_is_heard_once_and_in_order_however_many_nodes_listen(
    listener: Callable[[], Node], emit: Emit, server: RedisServer
) -> None:
    nodes = [listener() for _ in range(3)]
    emit(*range(300))
    for node in nodes:
        until(lambda node=node: len(node.numbers) == 300)  # type: ignore[misc]
        assert node.numbers == list(range(300))
    until(lambda: all(stat(node, "messages") == 300 for node in nodes), "all of them heard all of it")
    until(lambda: all(node.backplane.stats()["backplane_waiting"] == 0 for node in nodes))
    assert stored(server) == list(range(300))
    assert sum(node.backplane.stats()["backplane_published_total"] for node in nodes) == 300


def test_flask_socketio_emits_on_a_channel_of_its_own(new_node: NewNode, server: RedisServer) -> None:
    node = new_node(channel="flask-socketio")
    node.follow()
    emitter = flask_socketio.SocketIO(message_queue=server.url, async_mode="threading")
    emitter.emit("moderation_update", {"n": 1, "event_id": "7-7"}, to=ROOM)
    emitter.emit("a word of its own", {"n": 2}, to=[ROOM, "lobby"])
    until(lambda: node.numbers == [1, 2])
    disconnect(emitter.server.manager)
    updates = [item.update for item in node.told if isinstance(item, Published)]
    assert [update.event for update in updates] == ["moderation_update", "a word of its own"]
    assert [update.data["event_id"] for update in updates] == [update.event_id for update in updates]


def test_a_list_of_rooms_is_an_update_of_each_project(listener: Callable[[], Node], emit: Emit) -> None:
    node = listener()
    node.follow("q")
    emit(1, room=["project_q", "lobby", ROOM])
    until(lambda: node.numbers == [1, 1])
    updates = [item.update for item in node.told if isinstance(item, Published)]
    assert {update.project_id for update in updates} == {"p", "q"}


def test_what_is_not_for_a_project_is_passed_over(
    listener: Callable[[], Node], emit: Emit, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = listener()
    emit(1, room="lobby")
    emit(2, room=None)
    emit(3, namespace="/admin")
    with server.client() as client:
        client.publish("socketio", '{"method": "disconnect", "sid": "x", "namespace": "/"}')
        client.publish("socketio", f'{{"method": "close_room", "room": "{ROOM}", "namespace": "/"}}')
    emit(4)
    until(lambda: node.numbers == [4])
    assert (stat(node, "messages"), stat(node, "rejected")) == (1, 0)
    assert "skipped" not in caplog.text
    with server.client() as client:
        assert client.keys("*lobby*") == []


def test_what_cannot_be_an_update_is_counted_and_logged(
    listener: Callable[[], Node], emit: Emit, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = listener()
    manager = socketio.RedisManager(server.url, write_only=True)
    manager.emit("stats_update", "text", room=ROOM)
    manager.emit("stats_update", {"text": "x" * 2_000_000}, room=ROOM)
    manager.emit("stats_update", {"picture": b"\x00"}, room=ROOM)
    manager.emit("two\nlines", {}, room=ROOM)
    disconnect(manager)
    emit(1)
    until(lambda: node.numbers == [1])
    assert stat(node, "rejected") == 4
    assert caplog.text.count("A message of the channel socketio is skipped") == 4
    assert "is binary" in caplog.text


def test_pickles_are_skipped_and_what_to_do_is_said_once(
    listener: Callable[[], Node], emit: Emit, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = listener()
    old = {"method": "emit", "event": "stats_update", "data": {"n": 0}, "namespace": "/", "room": ROOM}
    with server.client() as client:
        for _ in range(3):
            client.publish("socketio", pickle.dumps(old))
    emit(1)
    until(lambda: node.numbers == [1])
    assert stat(node, "rejected") == 3
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "python-socketio 5.14 or newer" in record.getMessage()
    assert "\n" not in record.getMessage()


# Once, in order -----------------------------------------------------------------------------------------------


def test_equal_messages_are_each_an_update_also_for_a_node_that_came_between_them(
    listener: Callable[[], Node], emit: Emit, server: RedisServer
) -> None:
    nodes = [listener()]
    for _ in range(4):
        emit(7, 7, 7)
        nodes.append(listener())
    emit(7, 7, 7, 8)
    until(lambda: all(node.numbers[-1:] == [8] for node in nodes))
    assert nodes[0].numbers == [7] * 15 + [8]
    assert stored(server) == [7] * 15 + [8]


def test_a_burst_from_several_processes_survives_connections_that_are_cut(
    listener: Callable[[], Node], server: RedisServer
) -> None:
    nodes = [listener(), listener()]
    heard: list[int] = []
    rest = threading.Event()

    def burst(source: int) -> None:
        manager = socketio.RedisManager(server.url, write_only=True)
        number = 0
        while not rest.is_set() or number < 100:
            manager.emit("stats_update", {"n": source * 1_000_000 + number}, room=ROOM)
            number += 1
        disconnect(manager)

    with server.client() as client, ThreadPoolExecutor(4) as threads:
        recorder = client.pubsub(ignore_subscribe_messages=True)
        recorder.subscribe("socketio")
        bursts = [threads.submit(burst, source) for source in range(3)]
        try:
            for number in range(6):
                cut(nodes[number % 2], server)
        finally:
            rest.set()
        for each in bursts:
            each.result(PATIENCE)
        count = client.publish("socketio", b'{"end": true}')
        assert count == 3
        for message in recorder.listen():
            said = json.loads(message["data"])
            if "end" in said:
                break
            heard.append(said["data"][0]["n"])
        recorder.close()
    for node in nodes:
        until(lambda node=node: node.numbers[-1:] == heard[-1:])  # type: ignore[misc]
        until(lambda node=node: node.backplane.stats()["backplane_waiting"] == 0)  # type: ignore[misc]
        assert node.numbers == heard
    assert all(stat(node, "reconnects") == 3 for node in nodes)
    assert all(node.backplane.stats()["backplane_publish_failures_total"] == 0 for node in nodes)


def cut(node: Node, server: RedisServer) -> None:
    """Cut one node's subscription, and then what it publishes through, and wait until it is back each time."""
    channel, before = channel_of(node), stat(node, "reconnects")
    with server.client() as client:
        client.client_kill_filter(addr=local_address(channel._link))
        until(lambda: stat(node, "reconnects") == before + 1 and channel.subscribed, "it has subscribed again")
        client.client_kill_filter(addr=local_address(node.backplane._publisher._link))


def local_address(link: Any) -> str:
    until(lambda: link._connection._sock is not None, "it is connected")
    host, port = link._connection._sock.getsockname()
    return f"{host}:{port}"


def held_up(publisher: _redis_publisher.Publisher, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let a publisher send nothing until the event is set."""
    exchange, may = publisher._exchange, threading.Event()

    def late(batch: Any) -> None:
        assert may.wait(PATIENCE)
        exchange(batch)

    monkeypatch.setattr(publisher, "_exchange", late)
    return may


@pytest.fixture
def behind(listener: Callable[[], Node], emit: Emit, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, threading.Event]:
    """A node that has heard 1, 2 and 3, and publishes them once the event is set."""
    monkeypatch.setattr(_redis_channel, "HOLD", PATIENCE)
    slow = listener()
    may = held_up(slow.backplane._publisher, monkeypatch)
    emit(1, 2, 3)
    until(lambda: stat(slow, "messages") == 3)
    return slow, may


def newcomer(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, list[bool]]:
    """A node that is about to begin, and what it found each time that it looked whether it has to wait."""
    node, looks = Node(server.url, channel="socketio"), []
    holds = channel_of(node)._holds

    def look() -> bool:
        looks.append(holds())
        return looks[-1]

    monkeypatch.setattr(channel_of(node), "_holds", look)
    until(lambda: channel_of(node)._milestone is not None)
    return node, looks


def test_a_node_that_has_just_come_does_not_overtake_one_that_is_behind(
    behind: tuple[Node, threading.Event], emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, may = behind
    quick, looks = newcomer(server, monkeypatch)
    emit(4)
    before = len(looks)
    until(lambda: len(looks) > before + 5, "it looks whether it may")
    assert stored(server) == []
    assert quick.backplane.deaf, "what it has not heard may yet be lost"
    may.set()
    until(lambda: stored(server) == [1, 2, 3, 4])
    until(lambda: stat(quick, "messages") == 1 and quick.hears(), "it goes on")
    quick.backplane.close()


def test_a_node_that_has_just_come_does_not_overtake_one_that_has_lost_its_subscription(
    behind: tuple[Node, threading.Event], emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, may = behind

    def away() -> None:
        raise redis.ConnectionError("it does not come back")

    monkeypatch.setattr(channel_of(slow), "_subscribe", away)
    with server.client() as client:
        client.client_kill_filter(addr=local_address(channel_of(slow)._link))
    until(lambda: not channel_of(slow).subscribed)
    quick, looks = newcomer(server, monkeypatch)
    emit(4)
    before = len(looks)
    until(lambda: len(looks) > before + 5, "it looks whether it may")
    assert stored(server) == []
    may.set()
    until(lambda: stored(server) == [1, 2, 3])
    channel_of(quick)._hold_until = 0.0  # it has waited for long enough
    until(lambda: stored(server) == [1, 2, 3, 4])
    quick.backplane.close()


def test_nodes_that_come_together_wait_for_each_other_no_longer_than_that(
    new_node: NewNode, emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis_channel, "HOLD", 0.5)
    monkeypatch.setattr(_redis_channel.Channel, "_pass_milestones", lambda channel: None)  # as if all were new
    nodes = [new_node(channel="socketio") for _ in range(2)]
    emit(1)
    until(lambda: stored(server) == [1])
    until(lambda: all(stat(node, "messages") == 1 for node in nodes))


def test_an_update_whose_answer_was_lost_is_tried_again_and_is_there_once(
    listener: Callable[[], Node], emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = listener()
    link = node.backplane._publisher._link
    answer, lost = link.answer, threading.Event()

    def lose() -> Any:
        said = answer()
        if stored(server) and not lost.is_set():
            lost.set()
            raise redis.ConnectionError("cut before the answer")
        return said

    monkeypatch.setattr(link, "answer", lose)
    emit(1, 2)
    until(lambda: node.numbers == [1, 2])
    assert lost.is_set()
    until(lambda: node.backplane.stats()["backplane_waiting"] == 0)
    assert stored(server) == [1, 2]
    assert node.backplane.stats()["backplane_publish_failures_total"] == 0


# Claims -------------------------------------------------------------------------------------------------------


@pytest.fixture
def publisher(server: RedisServer) -> Iterator[_redis_publisher.Publisher]:
    publisher = _redis_publisher.Publisher(server.url, entries=1000, max_age=1000, patience=0.1)
    yield publisher
    publisher.close(PATIENCE)


def once(publisher: _redis_publisher.Publisher, number: int, digest: str, age: int = 0) -> Future[str]:
    since = str(int(time.time()) - age)
    return publisher.publish_once("p", "e", f'{{"n":{number}}}', digest=digest, since=since)


def test_what_is_claimed_is_not_published_again_and_that_is_no_failure(
    publisher: _redis_publisher.Publisher, server: RedisServer
) -> None:
    assert "-" in once(publisher, 1, "a").result(PATIENCE)
    assert once(publisher, 2, "a").result(PATIENCE) == ""
    assert "-" in once(publisher, 3, "b").result(PATIENCE)
    assert (publisher.published, publisher.failed) == (2, 0)
    assert stored(server) == [1, 3]
    with server.client() as client:
        claims = client.keys("automoderate:{p}:claim:*")
        assert len(claims) == 2
        window = _redis_entries.CLAIM_WINDOW
        assert all(window - 60 < client.ttl(claim) <= window + 2 for claim in claims)
        assert 900 < client.ttl(KEY) <= 1000


def test_what_is_older_than_claims_are_kept_is_not_published(
    publisher: _redis_publisher.Publisher, server: RedisServer
) -> None:
    with pytest.raises(BackplaneUnavailable, match="waited too long"):
        once(publisher, 1, "a", age=_redis_entries.CLAIM_WINDOW + 5).result(PATIENCE)
    assert "-" in once(publisher, 2, "b", age=_redis_entries.CLAIM_WINDOW // 2).result(PATIENCE)
    assert stored(server) == [2]


def test_what_redis_refuses_is_not_claimed(publisher: _redis_publisher.Publisher, server: RedisServer) -> None:
    with server.client() as client:
        client.set(KEY, "no stream")
        with pytest.raises(BackplaneUnavailable, match="WRONGTYPE"):
            once(publisher, 1, "a").result(PATIENCE)
        client.delete(KEY)
    assert "-" in once(publisher, 1, "a").result(PATIENCE)


def test_what_is_claimed_waits_longer_than_what_is_not(
    publisher: _redis_publisher.Publisher, server: RedisServer
) -> None:
    server.kill()
    patient, impatient = once(publisher, 1, "a"), publisher.publish("p", "e", '{"n":2}')
    with pytest.raises(BackplaneUnavailable):
        impatient.result(PATIENCE)
    assert not patient.done()
    server.start()
    assert "-" in patient.result(PATIENCE)
    assert stored(server) == [1]


def test_while_much_waits_nothing_is_read(
    listener: Callable[[], Node], emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = listener()
    publisher = node.backplane._publisher
    may = held_up(publisher, monkeypatch)
    monkeypatch.setattr(publisher, "_max_waiting", 10)
    emit(*range(200))
    until(lambda: publisher.waiting >= 5)
    may.set()
    until(lambda: len(node.numbers) == 200)
    assert node.numbers == list(range(200))
    assert publisher.failed == 0


# What happens to Redis ----------------------------------------------------------------------------------------


def test_a_redis_that_was_killed_and_came_back_is_heard_again(
    listener: Callable[[], Node], emit: Emit, server: RedisServer
) -> None:
    nodes = [listener(), listener()]
    emit(1)
    until(lambda: all(node.numbers == [1] for node in nodes))
    server.kill()
    until(lambda: not any(channel_of(node).subscribed for node in nodes), "they notice")
    assert all(node.backplane.deaf for node in nodes)
    server.start()
    until(lambda: all(node.hears() for node in nodes), "they come back")
    emit(2)
    until(lambda: all(node.numbers == [1, 2] for node in nodes))
    assert all(stat(node, "reconnects") == 1 for node in nodes)


def test_a_subscription_that_is_dead_is_noticed(
    listener: Callable[[], Node], emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis_channel, "SILENCE", 0.2)
    monkeypatch.setattr(_redis_channel, "MILESTONE_AFTER", 0.1)
    node = listener()
    channel_of(node)._link.send([("UNSUBSCRIBE",)])  # nothing comes any more, and nothing says so
    until(lambda: stat(node, "reconnects") >= 1, "it notices")
    monkeypatch.setattr(_redis_channel, "SILENCE", PATIENCE)
    until(node.hears)
    emit(1)
    until(lambda: node.numbers == [1])


def test_a_node_that_has_not_subscribed_is_deaf(
    new_node: NewNode, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = new_node()
    assert "backplane_channel_messages_total" not in node.backplane.stats()

    def refuse(channel: _redis_channel.Channel) -> None:
        raise redis.ConnectionError("not yet")

    monkeypatch.setattr(_redis_channel.Channel, "_subscribe", refuse)
    waiting = Node(server.url, channel="socketio")
    try:
        until(lambda: waiting.backplane._reader.connected and not waiting.backplane._pulse.deaf)
        assert waiting.backplane.deaf
    finally:
        waiting.backplane.close()


def test_what_no_node_has_said_is_no_milestone(listener: Callable[[], Node], emit: Emit, server: RedisServer) -> None:
    node = listener()
    with server.client() as client:
        for said in (b"", b"\xff", b"1", b"now 0123456789abcdef", b"1 0123456789abcdef last", b"1" * 1000):
            client.publish("automoderate:milestones:socketio", said)
    emit(1)
    until(lambda: node.numbers == [1])
    assert stat(node, "reconnects") == 0


def test_a_channel_that_may_not_be_heard_is_said_in_one_line(server: RedisServer) -> None:
    with server.client() as client:
        client.acl_setuser(
            "ann", enabled=True, passwords=["+hush"], keys=["automoderate:*"], categories=["+@all"],
            channels=["automoderate:*"], reset=True,
        )  # fmt: skip
        url = server.url.replace("//", "//ann:hush@")
        RedisBackplane(url).check()
        with pytest.raises(BackplaneUnavailable, match=r"^cannot use Redis at .*channels") as caught:
            RedisBackplane(url, channel="socketio").check()
        assert "\n" not in str(caught.value)
        client.acl_setuser("ann", enabled=True, channels=["socketio"])
        RedisBackplane(url, channel="socketio").check()


def test_how_many_nodes_there_are_and_when_they_come_and_go_changes_nothing(
    listener: Callable[[], Node], emit: Emit, server: RedisServer
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    witness, come, sent = listener(), [listener()], 0
    for _ in range(12):
        count = chance.randrange(1, 60)
        emit(*range(sent, sent + count))
        sent += count
        if come and chance.random() < 0.5:
            come.pop(chance.randrange(len(come))).backplane.close()
        else:
            come.append(listener())
    until(lambda: len(witness.numbers) >= sent)
    assert witness.numbers == list(range(sent)), f"seed {seed}"
    assert stored(server) == list(range(sent)), f"seed {seed}"
