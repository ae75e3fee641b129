"""How a node learns that there is something new in a stream: the publisher of an entry says so on a channel.

A stream's channel has the name of its key, and a message that says nothing more means that: what is new is in the
stream. One that says something is an entry (:mod:`automoderate.backplane.redis.entries`), or what a node tells the
others of who is in the room (:mod:`automoderate.backplane.redis.presence`), or itself
(:mod:`automoderate.backplane.redis.heartbeat`).

Pub/Sub loses messages only together with the connection: Redis also ends one whose messages are not taken, when 32 MiB
of them wait or, for a minute, 8 MiB (``client-output-buffer-limit pubsub``). So after every new subscription all
streams have to be looked at, once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence

import redis

from automoderate.backplane.redis.connection import IO_TIMEOUT, Command, RedisConnection
from automoderate.backplane.redis.direct import Direct

AT_ONCE = 1000
"""Messages taken before the streams they name are looked at."""
_NAMED_AT_ONCE = 64
"""Channels in one command."""


def notify(key: str) -> Command:
    """Tell all nodes that are subscribed that there is something new in this stream."""
    return ("PUBLISH", key, "")


class Subscription:
    """A connection that hears which streams have something new, for one thread."""

    def __init__(self, url: str) -> None:
        self._link = RedisConnection(url)
        self._keys: set[bytes] = set()
        self._expected_since = math.inf

    def close(self) -> None:
        """Hear nothing more."""
        self._link.close()

    def start(self, keys: Collection[bytes]) -> None:
        """Connect, and subscribe to these and no others; returns when Redis has confirmed each."""
        self._link.close()
        self._link.connect()
        self._keys, self._expected_since = set(), math.inf
        self.change(keys, ())
        unconfirmed = set(keys)
        while unconfirmed:
            kind, key, _ = self._link.answer()
            if kind == b"subscribe":
                unconfirmed.discard(key)

    def change(self, wanted: Collection[bytes], unwanted: Collection[bytes]) -> set[bytes]:
        """Subscribe to some and no longer to others; returns which of those wanted it was subscribed to already.

        The others ``hear`` names once, when Redis has confirmed that nothing new in them will be missed.
        """
        known = self._keys.intersection(wanted)
        commands = [
            *_commands("SUBSCRIBE", [key for key in wanted if key not in known]),
            *_commands("UNSUBSCRIBE", [key for key in unwanted if key in self._keys]),
        ]
        if commands:
            self._link.send(commands)
            self._keys.update(wanted)
            self._keys.difference_update(unwanted)
        return known

    def expect(self) -> None:
        """Something has just been said to this subscription: should nothing come, the connection is dead."""
        self._expected_since = min(self._expected_since, time.monotonic())

    def hear(self, timeout: float) -> tuple[set[bytes], list[tuple[bytes, bytes]]]:
        """The streams to be looked at, and what was said on which channel, after up to ``timeout`` seconds of waiting.

        Raises ConnectionError where nothing comes though it was to be expected.
        """
        found: set[bytes] = set()
        said: list[tuple[bytes, bytes]] = []
        if not self._link.wait(timeout):
            # Only now: where this process was stopped for long, what was expected is there.
            if time.monotonic() - self._expected_since > IO_TIMEOUT:
                raise redis.ConnectionError("no messages come")
            return found, said
        self._expected_since = math.inf
        for _ in range(AT_ONCE):
            _sort(self._link.answer(), found, said)
            has_more = self._link.has_more()
            if not (self._link.wait(0.0) if has_more is None else has_more):
                break
        return found, said

    @property
    def direct(self) -> Direct | None:
        """The connection for who may not wait, of which everything that has come was taken; None where that is not so.

        It hears by ``take``.
        """
        return None if self._link.has_more() is not False else self._link.direct

    def take(self, direct: Direct) -> tuple[set[bytes], list[tuple[bytes, bytes]]]:
        """What ``hear`` returns, of what has come by now: nothing is waited for."""
        found: set[bytes] = set()
        said: list[tuple[bytes, bytes]] = []
        direct.receive()
        for answer in direct.messages():
            _sort(answer, found, said)
            self._expected_since = math.inf
        return found, said


def _sort(answer: Sequence[bytes], found: set[bytes], said: list[tuple[bytes, bytes]]) -> None:
    kind, key, message = answer
    if kind == b"message" and message:
        said.append((key, message))
    elif kind != b"unsubscribe":
        found.add(key)


def _commands(name: str, keys: list[bytes]) -> Iterator[Command]:
    for start in range(0, len(keys), _NAMED_AT_ONCE):
        yield (name, *keys[start : start + _NAMED_AT_ONCE])
