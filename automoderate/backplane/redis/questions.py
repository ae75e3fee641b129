"""Asking nodes: a message on the channel of each, and a channel of the asker's own on which they answer.

A running node subscribes to its own channel, by which it knows that it hears Redis. So Redis says which nodes there
are: one that was killed is gone at once, and one that is stopped, or very busy, is there and says nothing. The asker
waits for ``ANSWERED_WITHIN`` seconds, and knows the name of a silent node from its last beat.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from automoderate.backplane import redis_url
from automoderate.backplane.redis.connection import FAILURES, Command, RedisConnection
from automoderate.backplane.redis.entries import Entry, answers_channel, fields, node_stream
from automoderate.backplane.redis.refusals import described
from automoderate.server.interfaces import Asked, BackplaneUnavailable, NodeAnswer

ANSWERED_WITHIN = 2.0
"""Seconds that a node has for an answer."""
MOST_NODES = 1000
"""Nodes that are asked."""
ASK = b"ask "
"""How a message to a node begins that is a question; the asker's token follows, and the question."""

_QUESTION = re.compile(rb"ask ([0-9a-f]{16}) ([0-9a-f]{0,16}) (.*)", re.DOTALL)


def questioned(message: bytes) -> Iterator[Asked]:
    """The question that a message is; nothing, where it is none."""
    found = _QUESTION.fullmatch(message)
    if found is not None:
        yield Asked(found[3].decode(errors="replace"), f"{found[1].decode()} {found[2].decode()}")


def answering(reply_to: str, text: str) -> Command:
    """The command that answers a question."""
    asker, _, node = reply_to.partition(" ")
    return ("PUBLISH", answers_channel(asker), f"{node} {text}")


def ask_nodes(url: str, question: str, *, but: str = "", within: float = ANSWERED_WITHIN) -> list[NodeAnswer]:
    """Ask all nodes but one; those that do not answer in time are in the list without an answer.

    Blocks. Raises BackplaneUnavailable while Redis cannot be asked, ValueError for a bad URL.
    """
    asking = _Asking(RedisConnection(url), RedisConnection(url), but)
    try:
        return asking.ask(question, within)
    except FAILURES as error:
        shown = redis_url.parse(url).shown
        raise BackplaneUnavailable(f"cannot ask the nodes through Redis at {shown}: {described(error)}") from error
    finally:
        asking.hearing.close()
        asking.saying.close()


@define
class _Asking:
    """One question, with the two connections that it takes: one that has subscribed can ask nothing."""

    saying: RedisConnection
    hearing: RedisConnection
    but: str
    answers: dict[str, str | None] = field(factory=dict)
    """What each node has said, by its id."""

    def ask(self, question: str, within: float) -> list[NodeAnswer]:
        """Ask, and wait."""
        token = secrets.token_hex(8)
        self.hearing.call(("SUBSCRIBE", answers_channel(token)))
        asked = self._nodes()
        messages = [("PUBLISH", node_stream(node), f"ask {token} {node} {question}") for node in asked]
        reached = self.saying.call(*messages) if messages else []
        # The channel of a node that ended a moment ago has no subscriber.
        self.answers = {node: None for node, count in zip(asked, reached, strict=True) if count}
        deadline = time.monotonic() + within
        while None in self.answers.values() and (left := deadline - time.monotonic()) > 0:
            if self.hearing.wait(left):
                self._hear(self.hearing.answer())
        silent = {node: self._silent(node) for node, said in self.answers.items() if said is None}
        return [silent.get(node) or NodeAnswer(node, said) for node, said in self.answers.items()]

    def _nodes(self) -> list[str]:
        (channels,) = self.saying.call(("PUBSUB", "CHANNELS", f"{node_stream('')}*"))
        prefix = node_stream("").encode()
        nodes = sorted(channel.removeprefix(prefix).decode(errors="replace") for channel in channels)
        return [node for node in nodes if re.fullmatch("[0-9a-f]{16}", node) and node != self.but][:MOST_NODES]

    def _hear(self, message: Any) -> None:
        """What came on the asker's channel, which anybody may have said."""
        node, _, text = message[2].partition(b" ")
        named = node.decode(errors="replace")
        if named in self.answers:
            self.answers[named] = text.decode(errors="replace")

    def _silent(self, node: str) -> NodeAnswer:
        """What is known of a node that has not answered."""
        clock, beats = self.saying.call(("TIME",), ("XREVRANGE", node_stream(node), "+", "-", "COUNT", 1))
        if not beats:
            return NodeAnswer(node, None)
        beat: Entry = beats[0]
        event_id, found = fields(beat)
        now = int(clock[0]) + int(clock[1]) / 1e6
        said = int(event_id.partition("-")[0]) / 1000
        name = found.get(b"name", b"").decode(errors="replace")
        return NodeAnswer(name or node, None, round(max(0.0, now - said), 1))
