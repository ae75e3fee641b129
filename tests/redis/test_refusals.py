"""A Redis that answers and refuses: it is full, its disk is, it is a replica, it allows nothing, or is not ready yet.

To hear and to be able to write are two things, and the log says once that one of them is missing.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from automoderate.backplane import redis as backplane
from automoderate.backplane.redis import RedisBackplane, RedisPublisher
from automoderate.backplane.redis import connection as redis_connection
from automoderate.backplane.redis import writer as redis_writer
from automoderate.backplane.redis.troubles import Troubles
from automoderate.core.hub import LoggedOut, PresenceReport, PresenceShared
from automoderate.server import outages
from automoderate.server.interfaces import BackplaneRefused, BackplaneUnavailable
from kits import PATIENCE, until
from kits.redis_server import Node, RedisServer
from kits.scripted_redis import ScriptedRedis

KEY = "automoderate:{p}:updates"
NewNode = Callable[..., Node]
Refusing = Callable[[RedisServer], AbstractContextManager[None]]

TAKES_NOTHING: list[tuple[Refusing, str, str]] = [
    (RedisServer.full, "OOM", "Redis is full"),
    (RedisServer.without_disk, "MISCONF", "Redis cannot write to its disk"),
    (lambda server: server.set(min_replicas_to_write="1"), "NOREPLICAS", "Redis has too few replicas"),
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails no more is over at once."""
    monkeypatch.setattr(outages, "QUIET", 0.0)


def stat(node: Node, name: str) -> float:
    return node.backplane.stats()[f"backplane_{name}"]


def stored_as(command: list[bytes], event_id: bytes) -> bytes:
    """How Redis answers that an entry was added, and told where it is by itself."""
    answer = b"$%d\r\n%s\r\n" % (len(event_id), event_id)
    return b"*2\r\n%s$0\r\n\r\n" % answer if command[0] == b"EVAL" else answer


def stored(server: RedisServer) -> list[int]:
    """The numbers in the project's stream."""
    with server.client() as client:
        return [json.loads(entry[b"data"])["n"] for _, entry in client.xrange(KEY) if entry[b"event"]]


# A Redis that takes nothing, and is heard ----------------------------------------------------------------------


@pytest.mark.parametrize(("refusing", "word", "reason"), TAKES_NOTHING)
def test_it_is_heard_for_all_that_and_whoever_publishes_is_told_why(
    new_node: NewNode, server: RedisServer, refusing: Refusing, word: str, reason: str
) -> None:
    near, far = new_node(), new_node()
    position = far.follow()
    near.publish(1)
    until(lambda: far.numbers == [1])
    with refusing(server):
        until(lambda: not near.backplane.writable and not far.backplane.writable, "both find out")
        with pytest.raises(BackplaneRefused, match=word) as refused:
            near.publish(2)
        assert refused.value.reason == reason
        with pytest.raises(BackplaneRefused):
            near.backplane.publish_all("p", [("e", "{}"), ("e", "{}")]).result(PATIENCE)
        with pytest.raises(BackplaneRefused):
            near.backplane.announce(LoggedOut("u")).result(PATIENCE)
        near.backplane.share_presence(PresenceReport("p", 1, None, (), (), True, True))
        until(lambda: any(isinstance(item, PresenceShared) for item in far.told), "who is there is told")
        assert [update.data["n"] for update in far.read("p", position).updates] == [1]
        assert near.hears()
        assert far.hears()
        assert (stat(far, "up"), stat(far, "writable")) == (1, 0)
    until(lambda: near.backplane.writable and far.backplane.writable, "both find out")
    near.publish(3)
    until(lambda: far.numbers == [1, 3])
    assert far.lost == []
    assert (stat(far, "reconnects_total"), stat(far, "writable")) == (0, 1)


def test_a_project_without_history_can_be_joined_on_a_full_redis(node: Node, server: RedisServer) -> None:
    with server.full():
        position = node.follow()
        assert node.read("p", position, 10).updates == ()
    node.publish(1)
    until(lambda: node.numbers == [1])
    assert not node.read("p", position).complete, "nobody knows what came before the first"


def test_a_node_starts_on_a_full_redis(server: RedisServer, new_node: NewNode) -> None:
    with server.full():
        RedisBackplane(server.url).check()
        node = new_node()
        assert not node.backplane.writable
    until(lambda: node.backplane.writable)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("refusing", "word"), [(refusing, word) for refusing, word, _ in TAKES_NOTHING])
def test_a_node_that_publishes_nothing_says_once_that_it_could_not(
    node: Node, server: RedisServer, caplog: pytest.LogCaptureFixture, refusing: Refusing, word: str
) -> None:
    until(lambda: node.backplane.writable)
    with refusing(server):
        until(lambda: not node.backplane.writable)
    until(lambda: len(caplog.messages) == 2, "it says that it is over")
    began, ended = caplog.messages
    assert began.startswith(f"writes to Redis fail: {word}")
    assert ended.startswith("writes to Redis work again; ")


def test_what_a_pipeline_publishes_waits_for_room_and_keeps_its_order(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = RedisPublisher(server.url, patience=PATIENCE, max_waiting=1000)
    with server.full():
        futures = [publisher.publish("p", "e", {"n": number}) for number in range(300)]
        until(lambda: "OOM" in caplog.text, "it was refused")
    for future in futures:
        future.result(PATIENCE)
    assert stored(server) == list(range(300))
    assert publisher.close(PATIENCE)
    assert len(caplog.messages) == 1


def test_what_a_pipeline_publishes_does_not_wait_for_ever(server: RedisServer) -> None:
    publisher = RedisPublisher(server.url, patience=0.2, max_waiting=10)
    with server.full(), pytest.raises(BackplaneRefused, match="OOM"):
        publisher.publish("p", "e", {}).result(PATIENCE)
    assert publisher.close(PATIENCE)


def test_what_was_overtaken_in_its_stream_is_not_tried_again() -> None:
    """Where Redis has room for the second of three, the first comes no more, and the third when there is room."""
    rooms, ready = {b"1": 0, b"2": 1, b"3": 2}, threading.Event()

    def answer(command: list[bytes]) -> bytes:
        if command[0] not in (b"XADD", b"EVAL"):
            return b":1\r\n"
        number = command[-1]
        if number == b"0":
            assert ready.wait(PATIENCE)
        elif rooms[number] != 1:
            rooms[number] -= 1
            return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        return stored_as(command, b"%s-0" % number)

    with ScriptedRedis(answer) as server:
        publisher = redis_writer.Writer(
            server.url, entries=100, max_age=60, patience=PATIENCE, persistent=True, troubles=Troubles()
        )
        publisher.publish("p", "e", "0")
        futures = [publisher.publish(project, "e", str(number)) for number, project in enumerate("ppq", 1)]
        ready.set()
        with pytest.raises(BackplaneRefused, match="OOM"):
            futures[0].result(PATIENCE)
        assert [future.result(PATIENCE) for future in futures[1:]] == ["2-0", "3-0"]
        assert publisher.close(PATIENCE)


# A Redis that is not the one to ask ----------------------------------------------------------------------------


def test_a_failover_is_waited_for(node: Node, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    node.follow()
    with server.a_replica():
        waiting = node.backplane.publish("p", "stats_update", '{"n":1}')
        until(lambda: "writes to Redis fail: READONLY" in caplog.text, "it was refused")
        assert not waiting.done()
    waiting.result(PATIENCE)
    until(lambda: node.numbers == [1])
    assert node.lost == []


def test_a_replica_is_not_where_others_publish(node: Node, server: RedisServer) -> None:
    with server.a_replica():
        until(lambda: not node.hears() and not node.backplane.writable)
        with pytest.raises(BackplaneRefused, match="READONLY") as refused:
            node.publish(1)
        assert refused.value.reason == "Redis is a read-only replica"
        with pytest.raises(BackplaneUnavailable, match=r"cannot use Redis at .*READONLY"):
            RedisBackplane(server.url).check()
    until(lambda: node.hears() and node.backplane.writable)


def test_a_replica_that_answers_nobody_is_waited_for(
    node: Node, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node.follow()
    node.publish(1)
    with server.set(replica_serve_stale_data="no"), server.a_replica():
        until(lambda: "MASTERDOWN" in caplog.text)
        with pytest.raises(BackplaneUnavailable, match="MASTERDOWN"):
            node.read("p", None)
        until(lambda: not node.hears())
    until(node.hears)
    node.publish(2)
    until(lambda: node.numbers == [1, 2])
    assert node.lost == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("CLUSTERDOWN The cluster is down", "Redis is part of a cluster"),
        ("MOVED 1 127.0.0.1:1", "Redis is part of a cluster"),
        ("ASK 1 127.0.0.1:1", "Redis is part of a cluster"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "Redis is part of a cluster"),
        ("ERR Error running script: @user_script:3: -READONLY You can't write", "Redis is a read-only replica"),
        ("LOADING Redis is loading the dataset in memory", None),
        ("NOAUTH Authentication required.", None),
    ],
)
def test_what_was_certainly_not_done_is_tried_again(said: str, reason: str | None) -> None:
    refusals = [f"-{said}\r\n".encode()] * 4  # the first few times, whatever it asks

    def answer(command: list[bytes]) -> bytes:
        if refusals:
            return refusals.pop()
        return stored_as(command, b"1-0") if command[0] in (b"XADD", b"EVAL") else b":1\r\n"

    with ScriptedRedis(answer) as server:
        publisher = redis_writer.Writer(server.url, entries=100, max_age=60, patience=PATIENCE, troubles=Troubles())
        assert publisher.publish("p", "e", "{}").result(PATIENCE) == "1-0"
        assert publisher.close(PATIENCE)
        server.answer = lambda _: f"-{said}\r\n".encode()
        impatient = redis_writer.Writer(server.url, entries=100, max_age=60, patience=0.0, troubles=Troubles())
        with pytest.raises(BackplaneUnavailable) as failed:
            impatient.publish("p", "e", "{}").result(PATIENCE)
        assert getattr(failed.value, "reason", None) == reason
        assert impatient.close(PATIENCE)


# A Redis that lets nobody in -----------------------------------------------------------------------------------


def test_a_redis_with_too_many_clients_is_tried_until_there_is_room(
    node: Node, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node.follow()
    with server.client() as client:
        before = client.config_get("maxclients")["maxclients"]
        client.config_set("maxclients", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)
        until(lambda: "max number of clients reached" in caplog.text)
        until(lambda: not node.hears() and not node.backplane.writable)
        with pytest.raises(BackplaneUnavailable):
            node.publish(1)
        client.config_set("maxclients", before)
    until(lambda: node.hears() and node.backplane.writable)
    node.publish(2)
    until(lambda: node.numbers == [2])


def test_a_password_that_counts_no_more_is_said_and_tried_again(
    node: Node, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node.follow()
    with server.client() as client:
        client.config_set("requirepass", "new")
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)
        until(lambda: "connections to Redis fail: Authentication required" in caplog.text)
        client.config_set("requirepass", "")
    until(node.hears)
    node.publish(1)
    until(lambda: node.numbers == [1])


def test_a_user_who_may_not_write_any_more_hears_for_all_that(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        user: dict[str, Any] = {"enabled": True, "passwords": ["+hush"], "channels": ["automoderate:*"]}
        client.acl_setuser("ann", **user, keys=["automoderate:*"], categories=["+@all"], reset=True)
        node = Node(server.url.replace("//", "//ann:hush@"))
        until(node.hears)
        client.acl_setuser("ann", **user, keys=["automoderate:*"], categories=["+@all"], commands=["-xadd"])
        until(lambda: not node.backplane.writable)
        with pytest.raises(BackplaneRefused) as refused:
            node.publish(1)
        assert refused.value.reason == "Redis does not allow it"
        assert node.hears()
        assert caplog.text.count("writes to Redis fail: NOPERM") == 1
        client.acl_setuser("ann", **user, keys=["automoderate:*"], categories=["+@all"])
        until(lambda: node.backplane.writable)
        node.publish(2)
        node.backplane.close()


# What the log says ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    server.pause()
    yield
    server.resume()


@pytest.mark.parametrize("down", [killed, frozen, RedisServer.full, RedisServer.without_disk, RedisServer.a_replica])
def test_however_much_fails_a_few_lines_say_so(
    new_node: NewNode, server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    down: Refusing,
) -> None:  # fmt: skip
    monkeypatch.setattr(redis_connection, "IO_TIMEOUT", 0.2)
    monkeypatch.setattr(backplane, "PATIENCE", 0.5)
    monkeypatch.setattr(outages, "QUIET", 1.0)
    node = new_node(channel="socketio")
    node.follow()
    with down(server):
        failed = 0
        while failed < 60:
            for future in [node.backplane.publish("p", "e", "{}") for _ in range(20)]:
                failed += future.exception(PATIENCE) is not None
            with contextlib.suppress(BackplaneUnavailable):
                node.read("p", None)
    until(lambda: node.hears() and node.backplane.writable, "it is back")
    whats = {message.partition(" fail: ")[0] for message in caplog.messages if " fail: " in message}
    until(lambda: all(f"{what} work again" in caplog.text for what in whats), "it says that it is over")
    print(*caplog.messages, sep="\n")
    assert whats <= {"writes to Redis", "connections to Redis"}
    assert len(caplog.messages) <= len(whats) * (outages.CAUSES + 1)
