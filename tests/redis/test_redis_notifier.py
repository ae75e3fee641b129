"""The notifier of a moderation pipeline, through Redis."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import anyio
import pytest

from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.notifier import AsyncWebSocketNotifier, WebSocketNotifier
from kits import PATIENCE, until
from kits.redis_server import Node, RedisServer


def test_every_node_hears_what_the_pipeline_says(new_node: Callable[..., Node], server: RedisServer) -> None:
    nodes = [new_node(), new_node()]
    for node in nodes:
        node.follow()
    notifier = WebSocketNotifier(redis_url=server.url)
    for number in range(50):
        notifier.send_stats_update("p", {"n": number})
    notifier.access_changed("p", "u")
    notifier.logged_out("u")
    assert notifier.close(PATIENCE)
    assert (notifier.sent, notifier.failed, notifier.dropped) == (52, 0, 0)
    for node in nodes:
        heard(node, *range(50))


def test_one_that_nobody_holds_sends_what_waits_and_ends(node: Node, server: RedisServer) -> None:
    """Pipelines make one for each content, too."""
    node.follow()
    others = {*threading.enumerate()}
    for number in range(3):
        WebSocketNotifier(redis_url=server.url).send_stats_update("p", {"n": number})
    gc.collect()
    until(lambda: sorted(node.numbers) == [0, 1, 2])
    until(lambda: not {*threading.enumerate()} - others)  # of the others one may end meanwhile


def heard(node: Node, *numbers: int) -> None:
    """Wait until the node was told these, in this order, and of changed access and a logout."""
    until(lambda: len(node.numbers) == len(numbers))
    assert node.numbers == list(numbers)
    until(lambda: {AccessChanged("u", "p"), LoggedOut("u")} <= {*node.told})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_node_hears_an_async_pipeline(new_node: Callable[..., Node], server: RedisServer, backend: str) -> None:
    nodes = [new_node(), new_node()]
    for node in nodes:
        node.follow()

    async def pipeline() -> None:
        async with AsyncWebSocketNotifier(redis_url=server.url) as notifier, anyio.create_task_group() as tasks:
            assert await notifier.send_stats_update("p", {"n": 0})
            for number in range(1, 50):
                tasks.start_soon(notifier.send_stats_update, "p", {"n": number})
            assert await notifier.access_changed("p", "u")
            assert await notifier.logged_out("u")
        assert (notifier.sent, notifier.failed, notifier.dropped) == (52, 0, 0)

    anyio.run(pipeline, backend=backend)
    for node in nodes:
        heard(node, *range(50))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_pipeline_is_told_what_a_redis_that_was_away_took(
    node: Node, server: RedisServer, backend: str
) -> None:
    node.follow()
    server.kill()

    async def pipeline() -> None:
        async with AsyncWebSocketNotifier(redis_url=server.url, retry_for=0.2) as notifier:
            assert not await notifier.send_stats_update("p", {"n": 1})
        async with AsyncWebSocketNotifier(redis_url=server.url, retry_for=PATIENCE) as notifier:
            late = notifier.send_stats_update("p", {"n": 2})
            server.start()
            assert await late

    anyio.run(pipeline, backend=backend)
    until(lambda: node.numbers == [2])


def test_it_waits_for_a_redis_that_is_away(node: Node, server: RedisServer) -> None:
    node.follow()
    notifier = WebSocketNotifier(redis_url=server.url, retry_for=PATIENCE)
    server.kill()
    notifier.send_stats_update("p", {"n": 1})
    server.start()
    until(lambda: notifier.sent == 1)
    until(lambda: node.numbers == [1])
    assert notifier.close(PATIENCE)


def test_it_waits_for_a_redis_that_takes_writes_again(node: Node, server: RedisServer, closed_port: int) -> None:
    node.follow()
    notifier = WebSocketNotifier(redis_url=server.url, retry_for=PATIENCE)
    with server.client() as client:
        client.replicaof("127.0.0.1", closed_port)
        notifier.send_stats_update("p", {"n": 1})
        until(lambda: client.info("commandstats").get("cmdstat_xadd", {}).get("rejected_calls"), "it is refused")
        client.replicaof("NO", "ONE")
    until(lambda: notifier.sent == 1)
    until(lambda: node.numbers == [1])
    assert notifier.close(PATIENCE)


def test_it_says_what_could_not_be_sent(server: RedisServer) -> None:
    server.kill()
    notifier = WebSocketNotifier(redis_url=server.url, retry_for=0.2)
    notifier.send_stats_update("p", {"n": 1})
    until(lambda: notifier.failed == 1)
    assert notifier.close(PATIENCE)


def test_it_is_told_once_where_to_publish() -> None:
    with pytest.raises(ValueError, match="give one of"):
        WebSocketNotifier(redis_url="redis://localhost", url="http://localhost", api_key="am_x")
