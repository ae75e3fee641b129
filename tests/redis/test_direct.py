"""Who publishes sends an update by itself, and the loop hears what is told: no other thread is woken for that."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import redis
from redis import connection as redis_connection
from redis._parsers import _RESP2Parser

from automoderate.backplane.redis import RedisPublisher, direct
from automoderate.backplane.redis.connection import RedisConnection
from automoderate.backplane.redis.direct import Direct
from automoderate.backplane.redis.entries import stream
from automoderate.core.hub import Published
from automoderate.server.interfaces import BackplaneUnavailable
from kits import PATIENCE, until
from kits.cables import Cable
from kits.redis_server import Loop, Node, RedisServer
from kits.scripted_redis import ScriptedRedis

NewNode = Callable[..., Node]
Senders = list[tuple[int, int]]


@pytest.fixture
def new_publisher(server: RedisServer) -> Any:
    """Makes publishers, which are closed."""
    made: list[RedisPublisher] = []

    def make(url: str = server.url, patience: float = PATIENCE) -> RedisPublisher:
        made.append(RedisPublisher(url, patience=patience, max_waiting=10_000))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(PATIENCE)


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> Senders:
    """The threads that have sent something directly, and how many bytes."""
    seen: Senders = []
    send = Direct.send

    def noted(self: Direct, data: bytes) -> int:
        size = send(self, data)
        seen.append((threading.get_ident(), size))
        return size

    monkeypatch.setattr(Direct, "send", noted)
    return seen


def stored(server: RedisServer, project_id: str = "p") -> list[bytes]:
    with server.client() as client:
        return [fields[b"data"] for _, fields in client.xrange(stream(project_id))]


def publish_until(publisher: RedisPublisher, true: Callable[[], object]) -> int:
    """Publish one by one until something is true; how many."""
    numbers = iter(range(1000))
    while not true():
        publisher.publish("p", "e", {"n": next(numbers)}).result(PATIENCE)
    return next(numbers)


# Who publishes ------------------------------------------------------------------------------------------------


def test_one_by_itself_is_sent_by_who_publishes_it(new_publisher: Any, senders: Senders, server: RedisServer) -> None:
    number = publish_until(new_publisher(), lambda: len(senders) >= 3)
    assert {thread for thread, _ in senders} == {threading.get_ident()}
    assert stored(server) == [b'{"n":%d}' % n for n in range(number)]


def test_what_the_connection_does_not_take_at_once_is_sent_by_the_thread(
    new_publisher: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[int] = []

    def some(self: Direct, data: bytes) -> int:
        rests.append(len(data) - 10)
        return os.writev(self.fileno, [data[:10]])

    monkeypatch.setattr(Direct, "send", some)
    number = publish_until(new_publisher(), lambda: len(rests) >= 3)
    assert stored(server) == [b'{"n":%d}' % n for n in range(number)]


def test_what_the_connection_takes_nothing_of_waits_for_the_thread(
    new_publisher: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def none(_self: Direct, data: bytes) -> int:
        tries.append(len(data))
        return 0

    monkeypatch.setattr(Direct, "send", none)
    number = publish_until(new_publisher(), lambda: len(tries) >= 3)
    assert stored(server) == [b'{"n":%d}' % n for n in range(number)]


def test_of_many_threads_each_keeps_its_order(new_publisher: Any, senders: Senders, server: RedisServer) -> None:
    publisher = new_publisher()
    publish_until(publisher, lambda: senders)

    def publish(name: str) -> None:
        asked = []
        for number in range(300):
            asked.append(publisher.publish(name, "e", {"n": number}))
            if number % 7 == 0:
                asked[-1].result(PATIENCE)  # so that some come by themselves
        for future in asked:
            future.result(PATIENCE)

    threads = [threading.Thread(target=publish, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for n in range(4):
        assert stored(server, f"p{n}") == [b'{"n":%d}' % number for number in range(300)]


def test_one_that_was_sent_and_is_not_answered_fails_or_is_tried_again(
    new_publisher: Any, senders: Senders, server: RedisServer
) -> None:
    publisher = new_publisher()
    before = publish_until(publisher, lambda: senders)
    senders.clear()
    server.pause()
    late: Future[str] = publisher.publish("p", "e", {"n": before})
    assert senders, "it was sent"
    later: Future[str] = publisher.publish("p", "e", {"n": before + 1})
    with pytest.raises(TimeoutError):
        late.result(0.01)
    server.resume()
    assert late.result(PATIENCE) < later.result(PATIENCE)


def test_one_that_is_refused_holds_up_no_other(new_publisher: Any, senders: Senders, server: RedisServer) -> None:
    publisher = new_publisher()
    publish_until(publisher, lambda: senders)
    with server.client() as client:
        client.set(stream("q"), "something else")
    refused: Future[str] = publisher.publish("q", "e", {})
    with pytest.raises(BackplaneUnavailable):
        refused.result(PATIENCE)
    assert publisher.publish("p", "e", {}).result(PATIENCE)


def test_a_connection_that_has_ended_meanwhile_is_not_sent_to(
    new_publisher: Any, senders: Senders, server: RedisServer
) -> None:
    publisher = new_publisher()
    number = publish_until(publisher, lambda: senders)
    for n in range(number, number + 5):
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        publisher.publish("p", "e", {"n": n}).result(PATIENCE)
    assert stored(server) == [b'{"n":%d}' % n for n in range(number + 5)]


def test_it_closes_while_one_is_under_way(senders: Senders, server: RedisServer) -> None:
    publisher = RedisPublisher(server.url, patience=PATIENCE, max_waiting=10)
    publish_until(publisher, lambda: senders)
    server.pause()
    late = publisher.publish("p", "e", {"n": "late"})
    threading.Timer(0.1, server.resume).start()
    assert publisher.close(PATIENCE)
    assert late.result(0)


def test_an_answer_that_comes_in_pieces_is_read_to_its_end(
    new_publisher: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_AT_ONCE", 5)
    publisher = new_publisher()
    asked = [publisher.publish("p", "e", {"n": n}).result(PATIENCE) for n in range(20)]
    with server.client() as client:
        assert [event_id.decode() for event_id, _ in client.xrange(stream("p"))] == asked


@pytest.mark.parametrize("said", [b"-LOADING Redis is loading\r\n", b"*1\r\n$3\r\n1-1\r\n", b"*0\r\n", b"$-1\r\n"])
def test_an_answer_of_another_kind_is_no_end_of_publishing(said: bytes, senders: Senders) -> None:
    usual = b"*2\r\n$3\r\n1-1\r\n$0\r\n\r\n"
    odd: list[bytes] = []
    with ScriptedRedis(lambda command: odd.pop() if odd and command[0] == b"EVAL" else usual) as scripted:
        publisher = RedisPublisher(scripted.url, patience=PATIENCE, max_waiting=10)
        publish_until(publisher, lambda: senders)
        odd.append(said)
        assert publisher.publish("p", "e", {}).result(PATIENCE) == "1-1", "it is tried again"
        publisher.close(PATIENCE)


# The loop -----------------------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Any:
    loop = Loop()
    yield loop
    loop.stop()


def heard_by_loop(node: Node, publisher: RedisPublisher) -> int:
    """Publish one by one until the loop hears what is told; how many."""
    numbers = iter(range(1000))
    while not any(isinstance(item, Published) for item in node.heard_on_loop):
        number = next(numbers)
        publisher.publish("p", "e", {"n": number}).result(PATIENCE)
        until(lambda number=number: number in node.numbers)  # type: ignore[misc]
    return next(numbers)


def test_what_is_told_the_loop_hears_by_itself_and_in_order(new_node: NewNode, new_publisher: Any) -> None:
    node, publisher = new_node(), new_publisher()
    node.follow()
    before = heard_by_loop(node, publisher)
    for number in range(before, before + 500):
        future = publisher.publish("p", "e", {"n": number, "much": "x" * (5000 if number % 50 == 0 else 10)})
        if number % 3 == 0:
            future.result(PATIENCE)
    until(lambda: len(node.numbers) == before + 500)
    assert node.numbers == list(range(before + 500))
    assert node.lost == []


def test_what_the_loop_failed_at_is_lost_to_nobody_unnoticed(new_node: NewNode, new_publisher: Any) -> None:
    node, publisher = new_node(), new_publisher()
    node.follow()
    before = heard_by_loop(node, publisher)
    failed: Future[None] = Future()
    failed.set_exception(RuntimeError("a mistake"))
    node.acted = failed
    publisher.publish("p", "e", {"n": before})
    until(lambda: before in node.numbers)
    node.acted = None
    publisher.publish("p", "e", {"n": before + 1})
    until(lambda: node.lost == ["p"], "those who saw it have to catch up")


def test_a_subscription_that_ends_while_the_loop_hears_it_is_made_anew(
    new_node: NewNode, new_publisher: Any, cable: Cable
) -> None:
    node, publisher = new_node(cable), new_publisher()
    node.follow()
    before = heard_by_loop(node, publisher)
    cable.cut_where(b"SUBSCRIBE")
    publisher.publish("p", "e", {"n": before})
    until(lambda: node.numbers == list(range(before + 1)))
    until(node.hears)
    assert node.lost == []


def test_a_node_whose_loop_has_ended_ends(server: RedisServer, new_publisher: Any) -> None:
    loop = Loop()
    node = Node(server.url, loop)
    until(node.hears)
    node.follow()
    heard_by_loop(node, new_publisher())
    loop.stop()
    node.backplane.close()
    assert "automoderate-redis-reader" not in {thread.name for thread in threading.enumerate()}


# Where it cannot be -------------------------------------------------------------------------------------------


def test_without_hiredis_all_is_done_by_the_threads(
    new_node: NewNode, new_publisher: Any, monkeypatch: pytest.MonkeyPatch, senders: Senders
) -> None:
    init = redis_connection.AbstractConnection.__init__

    def pure(self: Any, *words: Any, **options: Any) -> None:
        init(self, *words, **{**options, "parser_class": _RESP2Parser})

    monkeypatch.setattr(redis_connection.AbstractConnection, "__init__", pure)
    node, publisher = new_node(), new_publisher()
    node.follow()
    for number in range(20):
        publisher.publish("p", "e", {"n": number}).result(PATIENCE)
    until(lambda: node.numbers == list(range(20)))
    assert (senders, node.heard_on_loop) == ([], [])


def test_a_connection_that_blocks_or_is_none_is_not_used_directly(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = redis.Connection(  # type: ignore[no-untyped-call]
        "127.0.0.1", server.port, protocol=2, socket_timeout=PATIENCE
    )
    assert direct.direct(connection) is None
    connection.connect()
    used = direct.direct(connection)
    assert used is not None
    os.set_blocking(used.fileno, True)
    assert direct.direct(connection) is None
    os.set_blocking(used.fileno, False)
    assert direct.direct(connection) is not None
    monkeypatch.setattr(direct, "real", lambda _module: object())  # a system without poll
    assert direct.direct(connection) is None
    connection.disconnect()
    assert direct.direct(connection) is None


def test_an_end_and_a_refusal_are_raised(server: RedisServer) -> None:
    link = RedisConnection(server.url)
    link.connect()
    used = link.direct
    assert used is not None
    used.receive()  # nothing has come
    assert used.messages() == []
    assert used.send(b"*1\r\n$7\r\nNOTHING\r\n")
    assert link.wait(PATIENCE), "an answer has come"
    used.receive()
    with pytest.raises(redis.ResponseError, match="NOTHING"):
        used.messages()
    server.kill()
    assert select.select([used.fileno], [], [], PATIENCE)[0], "its end has come"
    with pytest.raises(redis.ConnectionError):
        used.receive()
    link.close()
