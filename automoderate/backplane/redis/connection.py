"""One connection to Redis, and what goes wrong with it."""

from __future__ import annotations

import math
import random
import select
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import redis
from attrs import define
from redis.backoff import NoBackoff
from redis.retry import Retry

from automoderate._threads import real
from automoderate.backplane import redis_url
from automoderate.backplane.redis.direct import Direct, direct

IO_TIMEOUT = 4.0
"""Seconds that Redis has for an answer, or for a new connection, before the connection is given up."""

FAILURES = (redis.RedisError, OSError)
"""What a call fails with while Redis is away, or does not want to."""

Command: TypeAlias = Sequence[str | bytes | int] | bytes
"""Its words; or all of it, packed already."""

_KINDS: dict[str, Any] = {
    "redis": redis.Connection, "rediss": redis.SSLConnection, "unix": redis.UnixDomainSocketConnection,
}  # fmt: skip


class RedisConnection:
    """One connection, for one thread at a time. It connects when it is used, also after it was lost."""

    def __init__(self, url: str) -> None:
        """ValueError for a bad URL."""
        address = redis_url.parse(url)
        options: dict[str, Any] = {
            "socket_timeout": IO_TIMEOUT,
            "socket_connect_timeout": IO_TIMEOUT,
            "client_name": "automoderate",
            **address.options,
        }
        pool = redis.ConnectionPool(
            connection_class=_KINDS[address.scheme],
            # Whether it is safe to try again is for the caller to know.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **options,
        )
        self._connection: Any = pool.make_connection()
        self._direct: Direct | None = None
        self._direct_of: Any = None  # the socket

    def connect(self) -> None:
        """Connect where it is not, or is no longer: nothing has been sent if this fails."""
        self._connection.connect()
        try:
            # Nothing was asked, so that only an end can have come, or what TLS says to itself.
            ended = self._readable() and self.wait(0.0)
        except FAILURES:
            ended = True
        if ended:
            self._connection.disconnect()
            self._connection.connect()

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        self._connection.disconnect()

    @property
    def direct(self) -> Direct | None:
        """The connection for who may not wait; None where there is none, or it cannot be used so.

        It is of use until this thread uses the connection again.
        """
        if self._connection._sock is not self._direct_of:  # noqa: SLF001 - another one since, or none
            self._direct_of = self._connection._sock  # noqa: SLF001
            self._direct = direct(self._connection)
        return self._direct

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands; each is to be answered by ``answer``."""
        self.send_packed(packed(commands))

    def send_packed(self, data: bytes) -> None:
        """Send what ``packed`` has made of commands, or the rest of it."""
        self._connection.send_packed_command([data])

    def answer(self) -> Any:
        """The next answer, as Redis says it; raises ResponseError for a refusal, anything else ends the connection."""
        return self._connection.read_response()

    def wait(self, seconds: float) -> bool:
        """Wait for something to come that nothing was asked for, or for the end; False if nothing has."""
        has_more = self.has_more()
        if has_more is None:
            return bool(self._connection.can_read(seconds))
        return has_more or self._readable(seconds)

    def has_more(self) -> bool | None:
        """Whether something that has come has not been answered yet; None where only ``wait`` can say."""
        # What redis-py has for this asks the kernel three times, for every update.
        reader = getattr(self._connection._parser, "_reader", None)  # noqa: SLF001 - hiredis, where it is installed
        tls = hasattr(self._connection._sock, "pending")  # noqa: SLF001 - which may hold something, too
        if reader is None or tls or not hasattr(real(select), "poll"):
            return None
        return bool(reader.has_data())

    def _readable(self, seconds: float = 0.0) -> bool:
        """Whether the kernel has anything for this connection. Asked before every update, and so with one call."""
        system = real(select)
        if not hasattr(system, "poll"):
            return True
        poll = system.poll()
        poll.register(self._connection._sock, system.POLLIN)  # noqa: SLF001 - its own way takes six system calls
        return bool(poll.poll(math.ceil(seconds * 1000)))

    def answers(self, count: int) -> list[Any]:
        """So many answers; a refusal stands among them as the ResponseError that it is."""
        answers: list[Any] = []
        for _ in range(count):
            try:
                answers.append(self.answer())
            except redis.ResponseError as refusal:
                answers.append(refusal)
        return answers

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands at once and return all their answers, refusals among them."""
        self.send(commands)
        return self.answers(len(commands))

    def call(self, *commands: Command) -> list[Any]:
        """Send commands at once and return all their answers; raises the first refusal after the last answer."""
        answers = self.ask(*commands)
        refusal = first_refusal(answers)
        if refusal is not None:
            raise refusal
        return answers


def packed(commands: Iterable[Command]) -> bytes:
    """Commands as Redis reads them: arrays of bulk strings. redis-py takes four times as long."""
    parts: list[bytes] = []
    for command in commands:
        if isinstance(command, bytes):
            parts.append(command)
            continue
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def first_refusal(answers: Iterable[Any]) -> redis.ResponseError | None:
    """The first refusal among answers."""
    return next((answer for answer in answers if isinstance(answer, redis.ResponseError)), None)


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
