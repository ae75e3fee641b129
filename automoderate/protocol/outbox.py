"""The ordered list of outputs, with what one connection is sent joined into one write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from automoderate.protocol.outputs import Abort, Close, Output, Write

if TYPE_CHECKING:
    from automoderate.protocol.http import Connection


@define
class _Pending:
    connection: Connection
    chunks: list[bytes] = field(factory=list)


class Outbox:
    """Collects outputs between two drains.

    Order matters only between outputs for the same connection, so later bytes for a connection join its earlier
    write: one system call instead of several.
    """

    __slots__ = ("_open", "items")

    def __init__(self) -> None:
        self.items: list[_Pending | Close | Abort] = []
        """What has been queued; for ``drain``, and to see whether there is anything."""
        self._open: dict[Connection, _Pending] = {}

    def write(self, connection: Connection, data: bytes) -> None:
        """Queue bytes for a connection; empty data is nothing."""
        if not data:
            return
        pending = self._open.get(connection)
        if pending is None:
            pending = self._open[connection] = _Pending(connection)
            self.items.append(pending)
        pending.chunks.append(data)

    def close(self, connection: Connection) -> None:
        """Queue the end of a connection, after everything written to it so far."""
        self._open.pop(connection, None)
        self.items.append(Close(connection))

    def abort(self, connection: Connection) -> None:
        """Queue the immediate end of a connection."""
        self._open.pop(connection, None)
        self.items.append(Abort(connection))

    def drain(self) -> list[Output]:
        """Everything queued since the last drain, in order."""
        items, self.items = self.items, []
        self._open.clear()
        return [Write(item.connection, b"".join(item.chunks)) if isinstance(item, _Pending) else item for item in items]
