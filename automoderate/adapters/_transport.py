"""One connection on a plain non-blocking socket: read, write, wait while the peer is slow, and end."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Protocol

from automoderate.adapters._wsgi import Bridge
from automoderate.protocol.driver import Driver
from automoderate.protocol.model import Connection, Peer

READ_SIZE = 64 * 1024
"""Bytes taken from a socket at a time."""
BUFFERS = 64
"""Pieces handed to the kernel in one call."""
CLOSE_TIMEOUT = 30.0
"""Seconds a peer has to take the rest of what was written before its connection was closed."""

log = logging.getLogger(__name__)

_NOTHING: list[bytes | memoryview] = []
"""In place of an empty list of its own for each of thousands of connections. Nothing is ever put into it."""


class Owner(Protocol):
    """What a connection needs of the poller that watches its socket."""

    driver: Driver
    bridge: Bridge
    max_write_buffer: int

    def watch(self, transport: SocketTransport, events: int) -> None:
        """Call ``ready`` when one of these events can happen without waiting; 0: never again."""

    def end(self, transport: SocketTransport, after: float) -> None:
        """Call ``finish`` within this many seconds, never at once. The soonest of several calls counts."""


class SocketTransport:
    """The driver's ``Transport``.

    ``connection.write`` is the socket's own ``send``, so that a broadcast calls it without a detour. While the kernel's
    buffer is full it is a method that puts the data behind what waits already; once the connection is over it is a
    function that ignores the data.
    """

    __slots__ = ("at_end", "closing", "connection", "eof_sent", "events", "owner", "sock", "unsent", "waiting")

    def __init__(self, owner: Owner, sock: socket.socket) -> None:
        self.owner = owner
        self.sock = sock
        self.connection: Connection | None = None
        self.closing = False
        self.at_end = False  # of what the peer sends
        self.eof_sent = False  # or will be, behind what waits
        self.events = 0  # what the socket is watched for
        # The pieces are shared with every connection that waits for the same broadcast.
        self.unsent = _NOTHING
        self.waiting = 0  # bytes in there

    @property
    def write(self) -> Callable[[bytes], int]:
        return self.sock.send

    def begin(self, peer: Peer, now: float) -> None:
        """Tell the driver that there is a connection, and read from it."""
        self.connection = self.owner.driver.connect(self, peer, now)
        self.owner.watch(self, EVENT_READ)

    # What the poller calls

    def ready(self, events: int, now: float) -> None:
        """The socket can be read or written."""
        if events & EVENT_READ:
            try:
                data = self.sock.recv(READ_SIZE)
            except BlockingIOError:
                pass
            except OSError:
                self.abort()  # a reset
                return
            else:
                self.received(data, now)
        if events & EVENT_WRITE and self.unsent:
            self.send_unsent()

    def received(self, data: bytes, now: float) -> None:
        """Hand data to the driver; none of it, ``b""``, is the end of the stream."""
        assert self.connection is not None, "nothing is read before"
        if data:
            if not self.eof_sent:
                self.owner.driver.receive_data(self.connection, data, now)
        else:
            # The peer may still be reading: closing is the driver's decision.
            self.at_end = True
            self.pause_reading()
            self.owner.driver.receive_eof(self.connection, now)

    def finish(self, now: float) -> None:
        """Close the socket and report the connection lost; once."""
        self.owner.watch(self, 0)
        if self.unsent:
            self._reset_on_close()
        self.sock.close()
        self.closing = True
        self._write_with(discard)
        self._forget()
        connection, self.connection = self.connection, None  # else they hold each other until Python looks for cycles
        if connection is not None:
            self.owner.bridge.lost(connection)
            self.owner.driver.connection_lost(connection, now)

    # What the driver's outputs ask for

    def send_eof(self) -> None:
        """Send no more once everything written so far has left, and throw away what the peer sends up to its end.

        To close at once would reset the connection of a peer that is just sending, and what it was sent might be lost.
        """
        if not (self.closing or self.eof_sent):
            self.eof_sent = True
            self._write_with(discard)
            if not self.unsent:
                self._half_close()

    def close(self) -> None:
        """Close once everything written so far has left."""
        if not self.closing:
            self.closing = True
            self._write_with(discard)
            self.owner.watch(self, EVENT_WRITE if self.unsent else 0)
            self.owner.end(self, CLOSE_TIMEOUT if self.unsent else 0.0)

    def abort(self) -> None:
        """Close at once and forget what has not left."""
        self.closing = True
        self._write_with(discard)
        self._forget()
        self._reset_on_close()
        self.owner.watch(self, 0)
        self.owner.end(self, 0.0)

    def pause_reading(self) -> None:
        """Leave what the peer sends to the kernel, which lets it wait."""
        self.owner.watch(self, self.events & ~EVENT_READ)

    def resume_reading(self) -> None:
        """Read again."""
        if not self.closing and not self.at_end:
            self.owner.watch(self, self.events | EVENT_READ)

    def keep(self, rest: memoryview) -> None:
        """Hold what the kernel did not take of a write, and everything written from here on until it takes it."""
        self.unsent = [rest]
        self.waiting = len(rest)
        self._write_with(self._put)
        if self.connection is not None:
            # A worker thread can wait for a slow peer; what the driver writes by itself can only be bounded.
            self.owner.bridge.pause(self.connection)
        self.owner.watch(self, self.events | EVENT_WRITE)
        self.owner.driver.kept(self.waiting)

    # While the peer is slow

    def _put(self, data: bytes) -> int:
        """Write behind what waits. A peer that stays slow is dropped: it comes back and catches up."""
        if self.waiting + len(data) <= self.owner.max_write_buffer:
            self.unsent.append(data)
            self.waiting += len(data)
            self.owner.driver.kept(self.waiting)
        else:
            log.info(
                "Dropped a peer that takes no data while %d bytes wait for it", self.waiting,
                extra={"event": "slow_client_dropped"},
            )  # fmt: skip
            self.abort()
        return len(data)

    def send_unsent(self) -> None:
        """Send what the kernel takes now. When all is gone, writing is direct again, or the close may happen."""
        try:
            sent = self.sock.sendmsg(self.unsent[:BUFFERS])
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        self.waiting -= sent
        gone = 0
        while gone < len(self.unsent) and sent >= len(self.unsent[gone]):
            sent -= len(self.unsent[gone])
            gone += 1
        del self.unsent[:gone]
        if self.unsent:
            self.unsent[0] = memoryview(self.unsent[0])[sent:]
        else:
            self._caught_up()

    def _caught_up(self) -> None:
        self._forget()
        self.owner.watch(self, self.events & ~EVENT_WRITE)
        if self.closing:
            self.owner.end(self, 0.0)
        elif self.eof_sent:
            self._half_close()
        elif self.connection is not None:
            self._write_with(self.write)
            self.owner.bridge.resume(self.connection)

    def _half_close(self) -> None:
        with contextlib.suppress(OSError):  # the peer has reset the connection, which reading from it will show
            self.sock.shutdown(socket.SHUT_WR)

    def _reset_on_close(self) -> None:
        # So that a cut is no orderly end and the kernel lets go of what the peer never took.
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _forget(self) -> None:
        self.unsent = _NOTHING
        self.waiting = 0

    def _write_with(self, write: Callable[[bytes], int]) -> None:
        if self.connection is not None:
            self.connection.write = write


def discard(data: bytes) -> int:
    """The ``write`` of a connection that is over."""
    return len(data)
