"""The notifier of a moderation pipeline, through Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from live_server import PATIENCE, until
from redis_kit import Node, RedisServer

from automoderate.core.hub import AccessChanged
from automoderate.notifier import WebSocketNotifier


def test_every_node_hears_what_the_pipeline_says(new_node: Callable[..., Node], server: RedisServer) -> None:
    nodes = [new_node(), new_node()]
    for node in nodes:
        node.follow()
    notifier = WebSocketNotifier(redis_url=server.url)
    for number in range(50):
        notifier.send_stats_update("p", {"n": number})
    notifier.access_changed("p", "u")
    assert notifier.close(PATIENCE)
    assert (notifier.sent, notifier.failed, notifier.dropped) == (51, 0, 0)
    for node in nodes:
        until(lambda node=node: len(node.numbers) == 50 and AccessChanged("u", "p") in node.told)  # type: ignore[misc]
        assert node.numbers == list(range(50))


def test_it_waits_for_a_redis_that_is_away(node: Node, server: RedisServer) -> None:
    node.follow()
    notifier = WebSocketNotifier(redis_url=server.url, retry_for=PATIENCE)
    server.kill()
    notifier.send_stats_update("p", {"n": 1})
    server.start()
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
