"""What happens to Redis, and what a node makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from unittest import mock

import pytest
import redis

from automoderate.backplane.redis import heartbeat as redis_heartbeat
from automoderate.backplane.redis import waiting as redis_waiting
from automoderate.backplane.redis import writer as redis_writer
from automoderate.backplane.redis.entries import CONTROL, READ_COUNT, Announcement
from automoderate.backplane.redis.troubles import Troubles
from automoderate.core.hub import LoggedOut
from automoderate.server.interfaces import BackplaneUnavailable
from kits import until
from kits.cables import Cable, Cut
from kits.redis_server import Node, RedisServer

KEY = "automoderate:{p}:updates"
NewNode = Callable[..., Node]


def test_a_redis_that_was_killed_and_came_back_is_continued_where_it_was(
    new_node: NewNode, server: RedisServer
) -> None:
    near, far = new_node(), new_node()
    far.follow()
    before = near.publish(1)[0]
    until(lambda: far.numbers == [1])
    server.kill()
    until(lambda: not far.backplane.hearing, "the node notices")
    server.start()
    near.publish(2)
    until(lambda: far.numbers == [1, 2] and far.hears(), "it goes on")
    assert far.lost == []
    assert far.backplane.stats()["backplane_reconnects_total"] >= 1
    assert [update.data["n"] for update in far.read("p", before).updates] == [2]


def test_a_redis_that_came_back_empty_has_lost_the_project(node: Node, server: RedisServer) -> None:
    node.follow()
    (last,) = node.publish(1)
    until(lambda: node.numbers == [1])
    server.kill()
    server.forget()
    server.start()
    until(lambda: node.lost == ["p"], "the loss is noticed")
    assert not node.read("p", last).complete


def test_a_redis_that_was_flushed_has_lost_the_project(node: Node, server: RedisServer) -> None:
    node.follow()
    node.publish(1)
    until(lambda: node.numbers == [1])
    with server.client() as client:
        client.flushall()
    until(lambda: node.lost == ["p"], "the loss is noticed")
    until(node.hears)


def test_what_was_trimmed_before_it_was_read_is_lost(node: Node, server: RedisServer) -> None:
    node.follow()
    node.publish(1)
    until(lambda: node.numbers == [1])
    with server.client() as client, client.pipeline(transaction=True) as pipeline:
        for number in range(300):
            pipeline.xadd(KEY, {"event": "e", "data": f'{{"n":{number}}}'})
        pipeline.xtrim(KEY, 150, approximate=False)
        pipeline.execute()
    until(lambda: node.lost == ["p"], "the gap is noticed")
    assert node.numbers == [1]


def test_a_redis_that_answers_nobody_makes_deaf_and_publishing_fail(new_node: NewNode, server: RedisServer) -> None:
    near, far = new_node(), new_node()
    far.follow()
    server.pause()
    future = near.backplane.publish("p", "stats_update", '{"n":1}')
    with pytest.raises(BackplaneUnavailable, match="may have been stored"):
        future.result(60)
    until(lambda: not near.backplane.hearing and not far.backplane.hearing, "both notice")
    assert near.backplane.stats()["backplane_lag_seconds"] > 1
    server.resume()
    until(lambda: near.hears() and far.hears(), "both come back")
    near.publish(2)
    until(lambda: 2 in far.numbers)
    assert far.numbers in ([2], [1, 2])  # nobody knew
    assert far.lost == []


def test_connections_that_are_cut_come_back(node: Node, server: RedisServer) -> None:
    node.follow()
    for number in range(5):
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        published = False
        while not published:
            try:
                node.publish(number)
                published = True
            except BackplaneUnavailable:
                pass  # cut in mid-answer
        until(lambda number=number: number in node.numbers)  # type: ignore[misc]
    assert list(dict.fromkeys(node.numbers)) == [0, 1, 2, 3, 4]
    assert node.lost == []


def test_announcements_outlive_a_connection_that_is_cut_while_they_are_read(
    new_node: NewNode, cable: Cable, server: RedisServer
) -> None:
    node, cuts = new_node(cable), threading.Semaphore(1)
    node.follow()

    def cut() -> None:
        if cuts.acquire(blocking=False):
            raise Cut

    done: Future[None] = Future()
    node.acted = done
    node.publish(0)
    until(lambda: node.numbers == [0])
    node.publish(1)  # it waits for the server here, so that all of this is there when it reads again
    with server.client() as client, client.pipeline(transaction=True) as pipeline:
        for number in range(READ_COUNT):
            pipeline.xadd(KEY, {"event": "e", "data": f'{{"n":{number + 2}}}'})
        pipeline.xadd(CONTROL, {"said": Announcement("another", LoggedOut("u")).encode()})
        pipeline.execute()
    cable.before(b"XRANGE\r\n$%d\r\n%s" % (len(KEY), KEY.encode()), cut)  # it looks whether there is a gap
    done.set_result(None)
    until(lambda: LoggedOut("u") in node.told and len(node.numbers) == READ_COUNT + 2)
    assert node.numbers == list(range(READ_COUNT + 2))
    assert node.told.count(LoggedOut("u")) == 1
    assert not cuts.acquire(blocking=False), "it was cut"


def test_while_redis_is_away_an_update_waits_and_then_fails(node: Node, server: RedisServer) -> None:
    server.kill()
    with pytest.raises(BackplaneUnavailable, match="not taken"):
        node.backplane.publish("p", "e", "{}").result(60)
    waiting = node.backplane.publish("p", "stats_update", '{"n":1}')
    server.start()
    try:
        waiting.result(60)
    except BackplaneUnavailable:
        node.publish(1)  # it took long to start: the wait has its bound
    assert node.backplane.stats()["backplane_publish_failures_total"] >= 1


def test_the_queue_of_what_waits_is_bounded(server: RedisServer) -> None:
    server.kill()
    publisher = redis_writer.Writer(
        server.url, entries=1000, max_age=1000, patience=60, max_waiting=3, troubles=Troubles()
    )
    futures = [publisher.publish("p", "e", "{}") for _ in range(300)]
    until(lambda: publisher.failed)
    assert not publisher.close(0.0)
    for future in futures:
        with pytest.raises(BackplaneUnavailable):
            future.result(60)
    assert publisher.published == 0


def test_what_waits_is_bounded_in_bytes(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_waiting, "MAX_WAITING_BYTES", 1000)
    publisher = redis_writer.Writer(
        f"redis://127.0.0.1:{closed_port}", entries=1000, max_age=1000, patience=60, troubles=Troubles()
    )
    text = '{"text":"' + "x" * 400 + '"}'
    futures = [publisher.publish("p", "e", text) for _ in range(100)]
    refused = [future for future in futures if future.done()]
    assert len(refused) >= 97, "two may wait, and one be on its way"
    for future in refused:
        with pytest.raises(BackplaneUnavailable, match="wait to be published"):
            future.result(0)
    assert not publisher.close(0.0)


def test_a_persistent_publisher_tries_again_what_may_have_been_stored(server: RedisServer) -> None:
    publisher = redis_writer.Writer(
        server.url, entries=1000, max_age=1000, patience=60, persistent=True, troubles=Troubles()
    )
    publisher.publish("p", "e", "{}").result(60)
    server.pause()
    future = publisher.publish("p", "e", "{}")
    server.kill()
    server.start()
    assert future.result(60)
    assert publisher.close(60)


def test_what_redis_refuses_is_an_error_of_its_own_and_holds_nobody_up(node: Node, server: RedisServer) -> None:
    with server.client() as client:
        client.set(KEY, "no stream")
        before = [each["id"] for each in client.client_list()]
        with pytest.raises(BackplaneUnavailable, match="WRONGTYPE"):
            node.backplane.publish("p", "e", "{}").result(60)
        node.publish(1, project_id="q")
        assert [each["id"] for each in client.client_list()] == before, "nothing was wrong with the connection"


def test_a_redis_that_takes_no_writes_makes_publishing_fail_until_it_does(
    node: Node, server: RedisServer, closed_port: int
) -> None:
    node.follow()
    with server.client() as client:
        client.replicaof("127.0.0.1", closed_port)
        with pytest.raises(BackplaneUnavailable, match="read only replica"):
            node.backplane.publish("p", "e", "{}").result(60)
        until(lambda: not node.backplane.hearing, "it misses its own beat")
        client.replicaof("NO", "ONE")
    until(node.hears)
    node.publish(1)
    until(lambda: node.numbers == [1])


def test_a_publisher_whose_thread_cannot_start_starts_it_with_the_next_update(server: RedisServer) -> None:
    publisher = redis_writer.Writer(server.url, entries=100, max_age=60.0, patience=60.0, troubles=Troubles())
    no_more_threads = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with no_more_threads, pytest.raises(RuntimeError):
        publisher.publish("p", "e", "{}")
    assert publisher.publish("p", "e", "{}").result(60)
    assert publisher.close(60.0)


def test_what_is_old_is_trimmed_now_and_then(new_node: NewNode, server: RedisServer) -> None:
    node = new_node(max_age=1000)
    with server.client() as client, mock.patch.object(redis_writer, "_TRIM_CHANCE", 1.0):
        for number in range(150):
            client.xadd(KEY, {"event": "e", "data": "{}"}, id=f"{number + 1}-0")
        node.publish(1)
        node.publish(2)
        until(lambda: client.xlen(KEY) < 150, "it is trimmed")


def beat(ago: float = 0.0) -> bytes:
    return f"beat {time.monotonic() - ago!r}".encode()


def test_a_silent_node_is_cut_off() -> None:
    heartbeat = redis_heartbeat.Heartbeat("node")
    assert not heartbeat.hearing
    assert heartbeat.lag == 1e9
    heartbeat.hear(beat())
    assert heartbeat.hearing


def test_what_was_said_long_ago_breaks_no_silence() -> None:
    heartbeat = redis_heartbeat.Heartbeat("node")
    heartbeat.hear(beat(ago=100))
    assert not heartbeat.hearing
    assert heartbeat.lag >= 100


@pytest.mark.parametrize("said", [b"beat", b"beat x", b"beat nan", b"beat 1e300", b"beat -1e300", b"\xff", b"{}"])
def test_what_others_say_on_its_channel_is_no_beat(said: bytes) -> None:
    heartbeat = redis_heartbeat.Heartbeat("node")
    heartbeat.hear(said)
    assert not heartbeat.hearing


def test_a_beat_that_is_taken_and_not_read_cuts_a_node_off_and_one_that_is_not_taken_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heartbeat = redis_heartbeat.Heartbeat("node")
    heartbeat.commands()
    heartbeat.answered([redis.ResponseError("OOM command not allowed"), 0, []])
    heartbeat.hear(beat())
    assert (heartbeat.hearing, heartbeat.overdue, heartbeat.writable) == (True, False, False)
    taken = heartbeat.commands()[0][-1]
    heartbeat.answered([b"1-0", 1, []])
    assert (heartbeat.hearing, heartbeat.overdue, heartbeat.writable) == (True, False, True)
    monkeypatch.setattr(redis_heartbeat, "SILENCE_LIMIT", 0.0)
    assert heartbeat.overdue
    heartbeat.read((b"1-0", [b"beat", str(taken).encode()]))
    assert not heartbeat.overdue


def test_what_the_server_failed_at_is_lost_to_nobody_unnoticed(node: Node) -> None:
    node.follow()
    node.acted = Future()
    node.acted.set_exception(RuntimeError("a mistake"))
    node.publish(1)
    until(lambda: node.numbers == [1])
    node.acted = None
    node.publish(2)
    until(lambda: node.lost == ["p"], "those who saw it have to catch up")
