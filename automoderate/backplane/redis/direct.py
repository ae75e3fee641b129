"""A connection to Redis for those who may not wait: its descriptor, which takes and gives what it can at once.

redis-py's own calls ask the kernel whether they may before they send or receive, and wait where they may not. Here each
is one system call. What is received goes into the connection's own reader, so that either side continues where the
other was.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
from typing import Any

import redis

from automoderate._threads import Bell, real

_AT_ONCE = 64 * 1024
"""Bytes that are received at once."""


class Direct:
    """For one thread at a time, and for as long as the connection is the same."""

    def __init__(self, fileno: int, reader: Any) -> None:
        """``reader`` is hiredis's. The descriptor must not block."""
        self.fileno = fileno
        self._reader = reader
        self._buffer = bytearray(_AT_ONCE)
        self._poll: Any = real(select).poll()
        self._poll.register(fileno, real(select).POLLIN)
        self._waiting: Any = None

    def send(self, data: bytes) -> int:
        """How many bytes were sent: none where the connection takes none, or has an answer that was not read."""
        if self._poll.poll(0):
            return 0
        try:
            return os.writev(self.fileno, [data])  # eventlet has no green one of it, which would wait
        except OSError:  # it is full, or has ended
            return 0

    def wait(self, bell: Bell, seconds: float) -> bool:
        """Wait until something comes, or the bell is rung; whether something has come, or the end."""
        if self._waiting is None:
            self._waiting = real(select).poll()
            self._waiting.register(self.fileno, real(select).POLLIN)
            self._waiting.register(bell.sock, real(select).POLLIN)
        came = False
        for fileno, _ in self._waiting.poll(max(0, math.ceil(seconds * 1000))):
            if fileno == self.fileno:
                came = True
            else:
                bell.hush()
        return came

    def receive(self) -> None:
        """Take what has come, if anything has. Raises ConnectionError at its end."""
        try:
            size = os.readv(self.fileno, [self._buffer])
        except BlockingIOError:
            return
        except OSError as error:
            raise redis.ConnectionError(f"Error while reading from socket: {error.strerror}") from error
        if not size:
            raise redis.ConnectionError("Connection closed by server.")
        self._reader.feed(self._buffer, 0, size)

    def answer(self) -> Any:
        """What was received whole, a list or an exception; something else where that is not so yet."""
        return self._reader.gets()

    def messages(self) -> list[list[bytes]]:
        """What was received whole, of a connection that has subscribed. Raises what Redis has refused."""
        found: list[list[bytes]] = []
        while isinstance(said := self._reader.gets(), list):
            found.append(said)
        if isinstance(said, Exception):
            raise said
        return found


def direct(connection: Any) -> Direct | None:
    """A connection of redis-py's, used directly; None where that cannot be: TLS, another parser, no ``poll``."""
    reader = getattr(connection._parser, "_reader", None)  # noqa: SLF001 - hiredis, where it is installed
    sock = connection._sock  # noqa: SLF001
    if reader is None or sock is None or hasattr(sock, "pending") or not hasattr(real(select), "poll"):
        return None
    with contextlib.suppress(OSError):
        if not os.get_blocking(sock.fileno()):
            return Direct(sock.fileno(), reader)
    return None
