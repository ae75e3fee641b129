"""What happens to Redis, and what a node makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from unittest import mock

import pytest
import redis
from live_server import until
from redis_kit import Node, RedisServer

from automoderate.backplane import _redis_feeds, _redis_publisher, _redis_pulse, _redis_reader
from automoderate.backplane._redis_entries import CONTROL, READ_COUNT, Announcement
from automoderate.core.hub import Input, LoggedOut
from automoderate.server import BackplaneUnavailable

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
    until(lambda: far.backplane.deaf, "the node notices")
    server.start()
    near.publish(2)
    until(lambda: far.numbers == [1, 2] and far.hears(), "it goes on")
    assert far.lost == []
    assert far.backplane.stats()["backplane_reconnects_total"] >= 1
    assert [update.data["n"] for update in far.backplane.read("p", before).updates] == [2]


def test_a_redis_that_came_back_empty_has_lost_the_project(node: Node, server: RedisServer) -> None:
    node.follow()
    (last,) = node.publish(1)
    until(lambda: node.numbers == [1])
    server.kill()
    server.forget()
    server.start()
    until(lambda: node.lost == ["p"], "the loss is noticed")
    assert not node.backplane.read("p", last).complete


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
    until(lambda: near.backplane.deaf and far.backplane.deaf, "both notice")
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
    node: Node, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.follow()
    gone, cuts = _redis_reader.Reader._gone, 1

    def cut(reader: _redis_reader.Reader, feeds: Sequence[_redis_feeds.Feed]) -> list[_redis_feeds.Feed]:
        nonlocal cuts
        if feeds and cuts:
            cuts -= 1
            raise redis.ConnectionError("cut")
        return gone(reader, feeds)

    def busy(items: list[Input]) -> Future[None]:
        node.told.extend(items)
        return done

    done: Future[None] = Future()
    monkeypatch.setattr(node.backplane, "_receive", busy)
    node.publish(0)
    until(lambda: node.numbers == [0])
    node.publish(1)  # it waits for the server here, so that all of this is there when it reads again
    with server.client() as client, client.pipeline(transaction=True) as pipeline:
        for number in range(READ_COUNT):
            pipeline.xadd(KEY, {"event": "e", "data": f'{{"n":{number + 2}}}'})
        pipeline.xadd(CONTROL, {"said": Announcement("another", LoggedOut("u")).encode()})
        pipeline.execute()
    monkeypatch.setattr(_redis_reader.Reader, "_gone", cut)
    done.set_result(None)
    until(lambda: LoggedOut("u") in node.told and len(node.numbers) == READ_COUNT + 2)
    assert node.numbers == list(range(READ_COUNT + 2))
    assert node.told.count(LoggedOut("u")) == 1
    assert cuts == 0


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
    publisher = _redis_publisher.Publisher(server.url, entries=1000, max_age=1000, patience=60, max_waiting=3)
    futures = [publisher.publish("p", "e", "{}") for _ in range(300)]
    until(lambda: publisher.failed)
    assert not publisher.close(0.0)
    for future in futures:
        with pytest.raises(BackplaneUnavailable):
            future.result(60)
    assert publisher.published == 0


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis_publisher, "MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(_redis_publisher.Publisher, "_start", lambda publisher: None)  # so that all of it waits
    publisher = _redis_publisher.Publisher("redis://127.0.0.1:1", entries=1000, max_age=1000, patience=60)
    text = '{"text":"' + "x" * 400 + '"}'
    futures = [publisher.publish("p", "e", text) for _ in range(3)]
    assert [future.done() for future in futures] == [False, False, True]
    with pytest.raises(BackplaneUnavailable, match="wait to be published"):
        futures[2].result(0)
    assert not publisher.close(0.0)


def test_a_persistent_publisher_tries_again_what_may_have_been_stored(server: RedisServer) -> None:
    publisher = _redis_publisher.Publisher(server.url, entries=1000, max_age=1000, patience=60, persistent=True)
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
        until(lambda: node.backplane.deaf, "it misses its own beat")
        client.replicaof("NO", "ONE")
    until(node.hears)
    node.publish(1)
    until(lambda: node.numbers == [1])


def test_a_publisher_whose_thread_cannot_start_starts_it_with_the_next_update(server: RedisServer) -> None:
    publisher = _redis_publisher.Publisher(server.url, entries=100, max_age=60.0, patience=60.0)
    no_more_threads = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with no_more_threads, pytest.raises(RuntimeError):
        publisher.publish("p", "e", "{}")
    assert publisher.publish("p", "e", "{}").result(60)
    assert publisher.close(60.0)


def test_what_is_old_is_trimmed_now_and_then(new_node: NewNode, server: RedisServer) -> None:
    node = new_node(max_age=1000)
    with server.client() as client, mock.patch.object(_redis_publisher, "_TRIM_CHANCE", 1.0):
        for number in range(150):
            client.xadd(KEY, {"event": "e", "data": "{}"}, id=f"{number + 1}-0")
        node.publish(1)
        node.publish(2)
        until(lambda: client.xlen(KEY) < 150, "it is trimmed")


def test_silence_is_deafness() -> None:
    pulse = _redis_pulse.Pulse("node")
    assert pulse.deaf
    assert pulse.lag == 1e9
    pulse.hear((b"2-0", [b"beat", repr(time.monotonic()).encode()]))
    assert not pulse.deaf


def test_what_was_said_long_ago_and_is_read_again_breaks_no_silence() -> None:
    pulse = _redis_pulse.Pulse("node")
    pulse.hear((b"1-0", [b"beat", repr(time.monotonic() - 100).encode()]))
    assert pulse.deaf
    assert pulse.lag >= 100


def test_what_the_server_failed_at_is_lost_to_nobody_unnoticed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.follow()
    failed: Future[None] = Future()
    failed.set_exception(RuntimeError("a mistake"))
    heard: list[Input] = []

    def fail(items: list[Input]) -> Future[None]:
        heard.extend(items)
        monkeypatch.undo()
        return failed

    monkeypatch.setattr(node.backplane, "_receive", fail)
    node.publish(1)
    until(lambda: heard)
    node.publish(2)
    until(lambda: node.lost == ["p"], "those who saw it have to catch up")
