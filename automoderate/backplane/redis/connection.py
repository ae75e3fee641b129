"""One connection to Redis, and what goes wrong with it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import redis
from attrs import define
from redis.backoff import NoBackoff
from redis.retry import Retry

IO_TIMEOUT = 4.0
"""Seconds that Redis has for an answer, or for a new connection, before the connection is given up."""

FAILURES = (redis.RedisError, OSError)
"""What a call fails with while Redis is away, or does not want to."""

Command: TypeAlias = Sequence[str | bytes | int]


class Link:
    """One connection, for one thread at a time. It connects when it is used, also after it was lost."""

    def __init__(self, url: str) -> None:
        """ValueError for a bad URL."""
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=IO_TIMEOUT,
            socket_connect_timeout=IO_TIMEOUT,
            # Whether it is safe to try again is for whoever asked to know.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            client_name="automoderate",
        )
        self._connection: Any = pool.make_connection()

    def connect(self) -> None:
        """Connect where it is not, or is no longer: nothing has been sent if this fails."""
        self._connection.connect()
        try:
            ended = self.wait(0.0)  # nothing was asked, so that only an end can have come
        except FAILURES:
            ended = True
        if ended:
            self._connection.disconnect()
            self._connection.connect()

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        self._connection.disconnect()

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands; each is to be answered by ``answer``."""
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def answer(self) -> Any:
        """The next answer, as Redis says it; raises ResponseError for a refusal, anything else ends the connection."""
        return self._connection.read_response()

    def wait(self, seconds: float) -> bool:
        """Wait for something to come that nothing was asked for; False if nothing has."""
        return bool(self._connection.can_read(seconds))

    def call(self, *commands: Command) -> list[Any]:
        """Send commands at once and return all their answers; raises the first refusal after the last answer."""
        self.send(commands)
        answers, refusal = [], None
        for _ in commands:
            try:
                answers.append(self.answer())
            except redis.ResponseError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return answers


@define
class Pauses:
    """Jittered pauses that grow, so that many processes do not come back to Redis in step."""

    first: float = 0.05
    longest: float = 2.0
    _tries: int = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        self._tries += 1
        return min(self.longest, self.first * 2.0 ** min(self._tries, 20)) * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked."""
        self._tries = 0


def address(url: str) -> str:
    """Where a Redis is, for people: without what its URL says of user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
