"""Rooms: groups of clients that are sent the same frames, and whose turn it is to be written to.

A broadcast goes into its room's queue. ``take`` hands out what is to be written in one turn: at most an allowance of
writes, so that a room of thousands is served in slices with a look at the other sockets in between, and all that
waits for a member in one write, so that a backlog costs little more than a single update.

As each client sees it every broadcast still happens at once: within a room the order is the order of publication, and
before anything else is written to a client, or it leaves, it is given what it has not had yet (``flush``, ``leave``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define, field

from automoderate.protocol.http import Connection

__all__ = ["MAX_QUEUED", "Rooms", "Writes"]

MAX_QUEUED = 256 * 1024
"""Bytes that may wait in a room's queue. One that has more is served to the end at once, however long that takes:
whoever publishes faster than members can be written to is slowed down."""

Writes = list[tuple[Sequence[Connection], bytes]]


# In place of a container of a room's own that would be empty: with thousands of small rooms, each further object that
# an update has to look at is one that the processor's caches have forgotten. Nothing is ever put into these.
_NO_FRAMES: list[bytes] = []
_NO_COUNTS: dict[str, int] = {}
_NOBODY: dict[str, Connection] = {}
_NOTHING: Writes = []


@define(eq=False)
class _Room:
    members: dict[str, Connection] = field(factory=dict)
    queue: list[bytes] = _NO_FRAMES
    """Frames of which no turn has taken any."""
    queued: int = 0
    """Bytes in there."""
    ahead: dict[str, int] = _NO_COUNTS
    """Members to whom the queue's first so many frames are not to be sent: they came later, or have them already."""
    data: bytes = b""
    """What the slices under way are sent,"""
    left: dict[str, Connection] = _NOBODY
    """and who has not been sent it yet."""
    waiting: bool = False
    """It stands in the line for a turn."""

    def skip(self, sid: str) -> None:
        """The member is not to be sent what is in the queue now."""
        if not self.ahead:
            self.ahead = {}
        self.ahead[sid] = len(self.queue)

    def missing(self, sid: str) -> bytes:
        """What the member has not been sent; from here on it has."""
        missing = self.data if self.left.pop(sid, None) is not None else b""
        if not self.left:
            self.data = b""
        if self.queue:
            missing += b"".join(self.queue[self.ahead.get(sid, 0) :])
            self.skip(sid)
        return missing

    def take(self, allowance: int, writes: Writes) -> int:
        """Add at most ``allowance`` writes, and those for members ahead of the others; returns how many."""
        if not self.left and not self.queue:
            return 0  # everybody who was left has been given it on other occasions
        taken = 0 if self.left else self._begin(writes)
        count = min(len(self.left), max(0, allowance - taken))
        if count:
            writes.append(([self.left.popitem()[1] for _ in range(count)], self.data))
        if not self.left:
            self.data = b""
        return taken + count

    def take_all(self) -> Writes:
        """Everything that is to be written to anybody."""
        writes: Writes = []
        while self.left or self.queue:
            self.take(len(self.members), writes)
        return writes

    def next(self) -> bytes:
        """Everything in the queue, as one piece."""
        queue, self.queue, self.queued = self.queue, _NO_FRAMES, 0
        return b"".join(queue)

    def _begin(self, writes: Writes) -> int:
        """Start sending everything in the queue; who needs only the end of it is sent that at once."""
        ahead, self.ahead = self.ahead, _NO_COUNTS
        self.left = dict(self.members)
        for sid, count in ahead.items():
            connection = self.left.pop(sid)
            if count < len(self.queue):
                writes.append(((connection,), b"".join(self.queue[count:])))
        self.data = self.next()
        return len(ahead)


class Rooms:
    """All rooms with members that have a WebSocket, by name. Clients are known by their sid."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._line: deque[_Room] = deque()

    @property
    def busy(self) -> bool:
        """Whether there may be something to ``take``."""
        return bool(self._line)

    def enter(self, name: str, sid: str, connection: Connection) -> None:
        """From here on the client is sent what is broadcast to the room."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room()
        room.members[sid] = connection
        if room.queue:
            room.skip(sid)

    def leave(self, name: str, sid: str) -> Writes:
        """The client is sent nothing more but what is returned. Harmless where it is not a member."""
        room = self._rooms.get(name)
        if room is None or sid not in room.members:
            return []
        missing = room.missing(sid)
        connection = room.members.pop(sid)
        room.ahead.pop(sid, None)
        if not room.members:
            room.queue = _NO_FRAMES
            del self._rooms[name]
        return [((connection,), missing)] if missing else []

    def broadcast(self, name: str, frame: bytes) -> tuple[int, Writes]:
        """Queue a frame for everyone who is in the room now: how many that are, and what has to be written at once,
        because more than ``MAX_QUEUED`` would wait."""
        room = self._rooms.get(name)
        if room is None:
            return 0, _NOTHING
        if room.queue:
            room.queue.append(frame)
        else:
            room.queue = [frame]
        room.queued += len(frame)
        if not room.waiting:
            room.waiting = True
            self._line.append(room)
        return len(room.members), room.take_all() if room.queued > MAX_QUEUED else _NOTHING

    def flush(self, names: Iterable[str], sid: str) -> Writes:
        """What a client has not been sent yet in these rooms; it counts as sent."""
        writes: Writes = []
        for name in names:
            room = self._rooms.get(name)
            if room is not None and room.waiting and sid in room.members and (missing := room.missing(sid)):
                writes.append(((room.members[sid],), missing))
        return writes

    def take(self, allowance: int) -> tuple[Writes, int]:
        """Writes, each of a frame or several to some connections, and how much of the allowance is left.

        Rooms take turns: one that is not done stands behind the others.
        """
        writes: Writes = []
        while self._line and allowance > 0:
            room = self._line.popleft()
            members = room.members
            if room.queue and not room.left and not room.ahead and len(members) <= allowance:
                # The same as below, quicker: what nearly every update of a small room comes to.
                writes.append((list(members.values()), room.next()))
                allowance -= len(members)
                room.waiting = False
                continue
            allowance -= room.take(allowance, writes)
            if room.left or room.queue:
                self._line.append(room)
            else:
                room.waiting = False
        return writes, allowance
