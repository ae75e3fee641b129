"""Asking nodes over a real Redis: who is there, who says nothing, and what anybody else may say there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from automoderate.backplane.redis.entries import answers_channel, node_stream
from automoderate.backplane.redis.questions import ask_nodes, questioned
from automoderate.server.interfaces import Asked, BackplaneUnavailable
from kits import PATIENCE, until
from kits.redis_server import Node, RedisServer

NewNode = Callable[..., Node]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Asking takes its time, and the nodes have to answer meanwhile."""
    with ThreadPoolExecutor() as threads:
        yield threads


def asked(node: Node) -> Asked:
    """The question that a node was told of, once it was."""
    found: list[Asked] = []

    def told() -> bool:
        found[:] = [item for item in list(node.told) if isinstance(item, Asked)]
        return bool(found)

    until(told, "the node is asked")
    return found[-1]


def test_all_others_are_asked_and_what_they_say_arrives(new_node: NewNode, threads: ThreadPoolExecutor) -> None:
    near, far, third = (new_node(name=name) for name in ("near", "far", "third"))
    asking = threads.submit(near.backplane.ask('{"what": "Ünï 😀"}'))
    for node in (far, third):
        question = asked(node)
        assert question.question == '{"what": "Ünï 😀"}'
        node.backplane.answer(question.reply_to, "{}\n " + "ü" * 100_000)
    assert [answer.text for answer in asking.result(PATIENCE)] == ["{}\n " + "ü" * 100_000] * 2
    assert not [item for item in near.told if isinstance(item, Asked)], "who asks need not be asked"


def test_a_node_by_itself_has_nobody_to_ask(node: Node) -> None:
    assert node.backplane.ask("{}")() == []


def test_one_that_says_nothing_is_named_with_its_last_sign_of_life(
    server: RedisServer, new_node: NewNode, threads: ThreadPoolExecutor
) -> None:
    quick, _ = new_node(name="quick"), new_node(name="silent")
    with server.client() as client:
        until(lambda: len(client.keys(node_stream("*"))) == 2, "both have a heartbeat")
    asking = threads.submit(lambda: ask_nodes(server.url, "{}", within=0.5))
    quick.backplane.answer(asked(quick).reply_to, "here")
    said, silent = sorted(asking.result(PATIENCE), key=lambda answer: answer.text is None)
    assert said.text == "here"
    assert (silent.node, silent.text) == ("silent", None)
    assert silent.silent_for is not None
    assert 0 <= silent.silent_for < PATIENCE


def test_one_that_has_left_is_not_there(server: RedisServer, new_node: NewNode) -> None:
    node = new_node()
    assert len(ask_nodes(server.url, "{}", within=0.0)) == 1
    node.backplane.close()
    until(lambda: ask_nodes(server.url, "{}", within=0.0) == [], "it is gone")


def test_what_others_say_on_the_channels_is_no_answer_and_no_node(
    server: RedisServer, node: Node, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr("automoderate.backplane.redis.questions.secrets.token_hex", lambda _: "0" * 16)
    with server.client() as client, client.pubsub() as stranger:
        stranger.subscribe(node_stream("x"), node_stream("0" * 16))
        until(lambda: len(client.pubsub_channels(node_stream("*"))) == 3, "the stranger is subscribed")
        asking = threads.submit(lambda: ask_nodes(server.url, "{}", within=1.0))
        question = asked(node)
        for nonsense in ("", "x", "x y", b"\xff\xfe \xff"):
            client.publish(answers_channel("0" * 16), nonsense)
        node.backplane.answer(question.reply_to, "mine")
        assert sorted((answer.text or "", answer.node == "0" * 16) for answer in asking.result(PATIENCE)) == [
            ("", True), ("mine", False)
        ]  # fmt: skip
        for message in (b"ask ", b"ask x y z", b"ask \xff"):
            client.publish(node_stream(question.reply_to.partition(" ")[2]), message)
    assert list(questioned(b"ask ")) == []
    until(node.hears)


def test_where_redis_is_away_it_is_said(server: RedisServer, node: Node) -> None:
    server.kill()
    with pytest.raises(BackplaneUnavailable, match="cannot ask the nodes through Redis at"):
        node.backplane.ask("{}")()
    with pytest.raises(ValueError, match="must be redis://"):
        ask_nodes("nonsense", "{}")
