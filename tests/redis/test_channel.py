"""What other processes emit on a channel of Redis, and several nodes that hear it."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NoReturn

import flask_socketio
import pytest
import socketio

from automoderate.backplane.redis import RedisBackplane
from automoderate.backplane.redis import channel as redis_channel
from automoderate.backplane.redis import entries as redis_entries
from automoderate.backplane.redis import waiting as redis_waiting
from automoderate.backplane.redis import writer as redis_writer
from automoderate.backplane.redis.troubles import Troubles
from automoderate.core.hub import Published
from automoderate.server.interfaces import BackplaneUnavailable
from kits import PATIENCE, until
from kits.cables import Cable, Cut
from kits.redis_server import Node, RedisServer, disconnect

KEY = "automoderate:{p}:updates"
ROOM = "project_p"
# What tells a node's connections to Redis apart.
SUBSCRIBE = b"SUBSCRIBE\r\n$8\r\nsocketio\r\n"
CLAIM = b":claim:"
BEAT = b"\r\nbeat\r\n"
LOOK = b"ZRANGEBYSCORE"
"""For nodes that were there before."""
NewNode = Callable[..., Node]
Emit = Callable[..., None]


@pytest.fixture
def listener(new_node: NewNode) -> Callable[..., Node]:
    """Makes nodes that hear the channel and follow the project, perhaps at the end of a cable."""

    def make(cable: Cable | None = None) -> Node:
        node = new_node(cable, channel="socketio")
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


def stat(node: Node, name: str) -> float:
    return node.backplane.stats()[f"backplane_channel_{name}_total"]


def stored(server: RedisServer) -> list[int]:
    """The numbers in the project's stream."""
    with server.client() as client:
        return [json.loads(entry[b"data"])["n"] for _, entry in client.xrange(KEY) if entry[b"event"]]


# What is emitted ----------------------------------------------------------------------------------------------


def test_each_update_is_heard_once_and_in_order_however_many_nodes_listen(
    listener: Callable[..., Node], emit: Emit, server: RedisServer
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


def test_a_list_of_rooms_is_an_update_of_each_project(listener: Callable[..., Node], emit: Emit) -> None:
    node = listener()
    node.follow("q")
    emit(1, room=["project_q", "lobby", ROOM])
    until(lambda: node.numbers == [1, 1])
    updates = [item.update for item in node.told if isinstance(item, Published)]
    assert {update.project_id for update in updates} == {"p", "q"}


def test_what_is_not_for_a_project_is_passed_over(
    listener: Callable[..., Node], emit: Emit, server: RedisServer, caplog: pytest.LogCaptureFixture
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
    listener: Callable[..., Node], emit: Emit, server: RedisServer, caplog: pytest.LogCaptureFixture
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
    assert caplog.text.count("a message of the channel socketio is skipped") == 4
    assert "is binary" in caplog.text


def test_pickles_are_skipped_and_what_to_do_is_said_once(
    listener: Callable[..., Node], emit: Emit, server: RedisServer, caplog: pytest.LogCaptureFixture
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
    listener: Callable[..., Node], emit: Emit, server: RedisServer
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
    listener: Callable[..., Node], new_cable: Callable[[], Cable], server: RedisServer
) -> None:
    cables = [new_cable(), new_cable()]
    nodes = [listener(cable) for cable in cables]
    rest = threading.Event()

    def burst(source: int) -> None:
        manager = socketio.RedisManager(server.url, write_only=True)
        number = 0
        # With pauses: Redis lets go of a subscriber that is 32 MB behind, and the cuts take long on a busy machine.
        while not rest.wait(0.001) or number < 100:
            manager.emit("stats_update", {"n": source * 1_000_000 + number}, room=ROOM)
            number += 1
        disconnect(manager)

    def record(subscription: Any) -> list[int]:
        said = (json.loads(message["data"]) for message in subscription.listen())
        return [each["data"][0]["n"] for each in itertools.takewhile(lambda each: "end" not in each, said)]

    with server.client() as client, ThreadPoolExecutor(4) as threads:
        recorder = client.pubsub(ignore_subscribe_messages=True)
        recorder.subscribe("socketio")
        recording = threads.submit(record, recorder)
        bursts = [threads.submit(burst, source) for source in range(3)]
        try:
            for number in range(6):
                cut(nodes[number % 2], cables[number % 2])
        finally:
            rest.set()
            for each in bursts:
                each.result(PATIENCE)
            count = client.publish("socketio", b'{"end": true}')
        assert count == 3
        heard = recording.result(PATIENCE)
        recorder.close()
    for node in nodes:
        until(lambda node=node: node.numbers[-1:] == heard[-1:])  # type: ignore[misc]
        until(lambda node=node: node.backplane.stats()["backplane_waiting"] == 0)  # type: ignore[misc]
        assert node.numbers == heard
    assert all(stat(node, "reconnects") == 3 for node in nodes)
    assert all(node.backplane.stats()["backplane_publish_failures_total"] == 0 for node in nodes)


def cut(node: Node, cable: Cable) -> None:
    """Cut one node's subscription, and then what it publishes through, and wait until it is back each time."""
    before = stat(node, "reconnects")
    cable.cut_where(SUBSCRIBE)
    until(lambda: stat(node, "reconnects") == before + 1 and node.hears(), "it has subscribed again")
    cable.cut_where(BEAT)


def held_up(cable: Cable) -> threading.Event:
    """Let nothing of what is emitted be published over this cable until the event is set."""
    may = threading.Event()
    cable.before(CLAIM, lambda: may.wait(PATIENCE))
    return may


def refuse() -> NoReturn:
    raise Cut


@pytest.fixture
def behind(
    listener: Callable[..., Node], cable: Cable, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> tuple[Node, threading.Event]:
    """A node that has heard 1, 2 and 3, and publishes them over its cable once the event is set."""
    monkeypatch.setattr(redis_channel, "HOLD", PATIENCE)
    slow = listener(cable)
    may = held_up(cable)
    emit(1, 2, 3)
    until(lambda: stat(slow, "messages") == 3)
    return slow, may


@pytest.fixture
def newcomer(server: RedisServer, new_cable: Callable[[], Cable]) -> Iterator[tuple[Callable[[], Node], Cable]]:
    """Starts a node, which finds that it has to wait for others; and the cable at whose end it is."""
    cable, made = new_cable(), []

    def start() -> Node:
        made.append(Node(server.through(cable), channel="socketio"))
        looks(cable, 1)
        return made[-1]

    yield start, cable
    for node in made:
        node.backplane.close()


def looks(cable: Cable, times: int) -> None:
    """Wait until a node has looked so often more whether it has to wait."""
    before = cable.heard(LOOK)
    until(lambda: cable.heard(LOOK) >= before + times, "it looks whether it may")


def test_a_node_that_has_just_come_does_not_overtake_one_that_is_behind(
    behind: tuple[Node, threading.Event], newcomer: tuple[Callable[[], Node], Cable], emit: Emit, server: RedisServer
) -> None:
    _, may = behind
    start, its_cable = newcomer
    quick = start()
    emit(4)
    looks(its_cable, 5)
    assert stored(server) == []
    assert not quick.backplane.hearing, "what it has not heard may yet be lost"
    may.set()
    until(lambda: stored(server) == [1, 2, 3, 4])
    until(lambda: stat(quick, "messages") == 1 and quick.hears(), "it goes on")


def test_a_node_that_has_just_come_does_not_overtake_one_that_has_lost_its_subscription(
    behind: tuple[Node, threading.Event], newcomer: tuple[Callable[[], Node], Cable], cable: Cable, emit: Emit,
    server: RedisServer, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    slow, may = behind
    later = [0.0]
    monkeypatch.setattr(redis_channel, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later[0]))
    cable.before(SUBSCRIBE, refuse)
    cable.cut_where(SUBSCRIBE)
    until(lambda: stat(slow, "reconnects") == 1)
    start, its_cable = newcomer
    start()
    emit(4)
    looks(its_cable, 5)
    assert stored(server) == []
    may.set()
    until(lambda: stored(server) == [1, 2, 3])
    later[0] = PATIENCE  # it has waited for long enough
    until(lambda: stored(server) == [1, 2, 3, 4])


def test_nodes_that_come_together_wait_for_each_other_no_longer_than_that(
    new_node: NewNode, cable: Cable, emit: Emit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_channel, "HOLD", 0.5)
    cable.before(b"$3\r\nSET\r\n", refuse)  # none says that it has published everything, as if all were new
    nodes = [new_node(cable, channel="socketio") for _ in range(2)]
    emit(1)
    until(lambda: stored(server) == [1])
    until(lambda: all(stat(node, "messages") == 1 for node in nodes))


def test_an_update_whose_answer_was_lost_is_tried_again_and_is_there_once(
    listener: Callable[..., Node], cable: Cable, emit: Emit, server: RedisServer
) -> None:
    node, lost = listener(cable), threading.Event()

    def lose() -> None:
        if stored(server) and not lost.is_set():
            lost.set()
            raise Cut

    cable.answered(CLAIM, lose)
    emit(1, 2)
    until(lambda: node.numbers == [1, 2])
    assert lost.is_set()
    until(lambda: node.backplane.stats()["backplane_waiting"] == 0)
    assert stored(server) == [1, 2]
    assert node.backplane.stats()["backplane_publish_failures_total"] == 0


# Claims -------------------------------------------------------------------------------------------------------


@pytest.fixture
def publisher(server: RedisServer) -> Iterator[redis_writer.Writer]:
    publisher = redis_writer.Writer(server.url, entries=1000, max_age=1000, patience=0.1, troubles=Troubles())
    yield publisher
    publisher.close(PATIENCE)


def once(publisher: redis_writer.Writer, number: int, digest: str, age: int = 0) -> Future[str]:
    since = str(int(time.time()) - age)
    return publisher.publish_once("p", "e", f'{{"n":{number}}}', digest=digest, since=since)


def test_what_is_claimed_is_not_published_again_and_that_is_no_failure(
    publisher: redis_writer.Writer, server: RedisServer
) -> None:
    assert "-" in once(publisher, 1, "a").result(PATIENCE)
    assert once(publisher, 2, "a").result(PATIENCE) == ""
    assert "-" in once(publisher, 3, "b").result(PATIENCE)
    assert (publisher.published, publisher.failed) == (2, 0)
    assert stored(server) == [1, 3]
    with server.client() as client:
        claims = client.keys("automoderate:{p}:claim:*")
        assert len(claims) == 2
        window = redis_entries.CLAIM_WINDOW
        assert all(window - 60 < client.ttl(claim) <= window + 2 for claim in claims)
        assert 900 < client.ttl(KEY) <= 1000


def test_what_is_older_than_claims_are_kept_is_not_published(
    publisher: redis_writer.Writer, server: RedisServer
) -> None:
    with pytest.raises(BackplaneUnavailable, match="waited too long"):
        once(publisher, 1, "a", age=redis_entries.CLAIM_WINDOW + 5).result(PATIENCE)
    assert "-" in once(publisher, 2, "b", age=redis_entries.CLAIM_WINDOW // 2).result(PATIENCE)
    assert stored(server) == [2]


def test_what_redis_refuses_is_not_claimed(publisher: redis_writer.Writer, server: RedisServer) -> None:
    with server.client() as client:
        client.set(KEY, "no stream")
        with pytest.raises(BackplaneUnavailable, match="WRONGTYPE"):
            once(publisher, 1, "a").result(PATIENCE)
        client.delete(KEY)
    assert "-" in once(publisher, 1, "a").result(PATIENCE)


def test_what_is_claimed_waits_longer_than_what_is_not(publisher: redis_writer.Writer, server: RedisServer) -> None:
    server.kill()
    patient, impatient = once(publisher, 1, "a"), publisher.publish("p", "e", '{"n":2}')
    with pytest.raises(BackplaneUnavailable):
        impatient.result(PATIENCE)
    assert not patient.done()
    server.start()
    assert "-" in patient.result(PATIENCE)
    assert stored(server) == [1]


def test_while_much_waits_nothing_is_read(
    listener: Callable[..., Node], cable: Cable, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = listener(cable)
    may = held_up(cable)
    monkeypatch.setattr(redis_waiting, "MAX_WAITING_BYTES", 100)
    emit(*range(200))
    until(lambda: node.backplane.stats()["backplane_waiting"] >= 5)
    may.set()
    until(lambda: len(node.numbers) == 200)
    assert node.numbers == list(range(200))
    assert node.backplane.stats()["backplane_publish_failures_total"] == 0


# What happens to Redis ----------------------------------------------------------------------------------------


def test_a_redis_that_was_killed_and_came_back_is_heard_again(
    listener: Callable[..., Node], emit: Emit, server: RedisServer
) -> None:
    nodes = [listener(), listener()]
    emit(1)
    until(lambda: all(node.numbers == [1] for node in nodes))
    server.kill()
    until(lambda: all(stat(node, "reconnects") == 1 and not node.backplane.hearing for node in nodes), "they notice")
    server.start()
    until(lambda: all(node.hears() for node in nodes), "they come back")
    emit(2)
    until(lambda: all(node.numbers == [1, 2] for node in nodes))
    assert all(stat(node, "reconnects") == 1 for node in nodes)


def test_a_subscription_that_is_dead_is_noticed(
    listener: Callable[..., Node], cable: Cable, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_channel, "SILENCE", 0.2)
    monkeypatch.setattr(redis_channel, "MILESTONE_AFTER", 0.1)
    node = listener(cable)
    cable.say(SUBSCRIBE, b"UNSUBSCRIBE\r\n")  # nothing comes any more, and nothing says so
    until(lambda: stat(node, "reconnects") >= 1, "it notices")
    monkeypatch.setattr(redis_channel, "SILENCE", PATIENCE)
    until(node.hears)
    emit(1)
    until(lambda: node.numbers == [1])


def test_a_node_that_has_not_subscribed_is_cut_off(new_node: NewNode, cable: Cable, server: RedisServer) -> None:
    node = new_node()
    assert "backplane_channel_messages_total" not in node.backplane.stats()
    cable.before(SUBSCRIBE, refuse)
    waiting = Node(server.through(cable), channel="socketio")
    try:
        before = cable.heard(b"XREAD")
        until(lambda: cable.heard(b"XREAD") >= before + 4, "it reads its own beats")
        assert not waiting.backplane.hearing
        cable.let(SUBSCRIBE)
        until(waiting.hears)
    finally:
        waiting.backplane.close()


def test_what_no_node_has_said_is_no_milestone(listener: Callable[..., Node], emit: Emit, server: RedisServer) -> None:
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
    listener: Callable[..., Node], emit: Emit, server: RedisServer
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
