"""The ordered list of outputs, in which everything sent to one connection is one write."""

from __future__ import annotations

from attrs import define, field

from automoderate.protocol.model import Connection
from automoderate.protocol.outputs import Abort, Close, Output, PauseReading, ResumeReading, SendEof, Write


@define
class _Pending:
    connection: Connection
    chunks: list[bytes] = field(factory=list)


class Outbox:
    """Collects outputs between two drains.

    Order matters between outputs for the same connection only. So later bytes for a connection join its earlier write,
    which makes one system call of several.
    """

    __slots__ = ("_open", "items")

    def __init__(self) -> None:
        self.items: list[_Pending | SendEof | Close | Abort | PauseReading | ResumeReading] = []
        """What has been queued. Other files only look whether there is anything."""
        self._open: dict[Connection, _Pending] = {}

    def write(self, connection: Connection, data: bytes) -> None:
        """Queue bytes for a connection; empty data is ignored."""
        if not data:
            return
        pending = self._open.get(connection)
        if pending is None:
            pending = self._open[connection] = _Pending(connection)
            self.items.append(pending)
        pending.chunks.append(data)

    def send_eof(self, connection: Connection) -> None:
        """Queue the end of what is sent to a connection, behind everything written to it."""
        self._open.pop(connection, None)
        self.items.append(SendEof(connection))

    def close(self, connection: Connection) -> None:
        """Queue the end of a connection, behind everything written to it."""
        self._open.pop(connection, None)
        self.items.append(Close(connection))

    def abort(self, connection: Connection) -> None:
        """Queue the immediate end of a connection."""
        self._open.pop(connection, None)
        self.items.append(Abort(connection))

    def add(self, output: PauseReading | ResumeReading) -> None:
        """Queue an output whose place among the writes does not matter."""
        self.items.append(output)

    def drain(self) -> list[Output]:
        """Everything queued since the last drain, in order."""
        items, self.items = self.items, []
        self._open.clear()
        return [Write(item.connection, b"".join(item.chunks)) if isinstance(item, _Pending) else item for item in items]
