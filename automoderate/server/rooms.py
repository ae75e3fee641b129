"""Rooms: groups of clients that are sent the same frames, and whose turn it is to be written to.

A broadcast goes into its room's queue. ``take`` hands out what is to be written in one turn: at most an allowance of
writes, so that a room of thousands is served in slices with a look at the other sockets in between. All that waits for
a member leaves in one write, so that a backlog costs little more than a single update.

With a window updates of a room also wait for one another: one that comes within the window after the room's last turn
began waits for the rest of it. One that comes to a room at rest waits for nothing.

Each client sees every broadcast as if it happened at once. Within a room the order is the order of publication. Before
anything else is written to a client, or it leaves, it is given what it has not had yet (``flush``, ``leave``).

Members that poll have no turns: ``broadcast`` names them, and their session's own queue keeps the order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from attrs import define, field

from automoderate.protocol.model import Client, Connection
from automoderate.protocol.timers import Timers

__all__ = ["MAX_QUEUED", "Rooms", "Writes"]

MAX_QUEUED = 256 * 1024
"""Bytes that may wait in a room's queue. A room with more is served to the end at once, however long that takes: that
slows down a publisher that is faster than the members can be written to."""

Writes = list[tuple[Sequence[Connection], bytes]]


# These stand for an empty container of a room's own, and nothing is ever put into them. With thousands of small rooms,
# each further object that an update has to look at is one that the processor's caches have forgotten.
_NO_FRAMES: list[bytes] = []
_NO_COUNTS: dict[str, int] = {}
_NONE_LEFT: dict[str, Connection] = {}
_NONE_POLL: dict[str, Client] = {}
_NO_TIMES: list[float] = []
_NOTHING: Writes = []


@define(eq=False)
class _Audience:
    """The members of one room, and what they have not been sent yet. Clients are known by their sid."""

    names: tuple[str, ...]
    """The room's name alone: what is kept of each client that is in no other room, once for all of them."""
    written: list[float]
    """The list of ``Rooms`` that all rooms share: when each broadcast was made that its last member was handed."""
    members: dict[str, Connection] = field(factory=dict)
    """The members with a WebSocket."""
    polling: dict[str, Client] = _NONE_POLL
    """The members that poll."""
    queue: list[bytes] = _NO_FRAMES
    """Frames of which no turn has taken any."""
    queued: int = 0
    """Bytes in there."""
    since: float = 0.0
    """When the first frame of the queue was broadcast."""
    later: list[float] = _NO_TIMES
    """When the queue's other frames were broadcast."""
    ahead: dict[str, int] = _NO_COUNTS
    """Members that are not to be sent the queue's first so many frames: they came later, or have them already."""
    data: bytes = b""
    """What the slices under way send."""
    left: dict[str, Connection] = _NONE_LEFT
    """The members that have not been sent ``data`` yet."""
    data_times: list[float] = _NO_TIMES
    """When the frames in ``data`` were broadcast."""
    waiting: bool = False
    """It stands in the line for a turn, or rests."""
    rests_until: float = float("-inf")
    """When its next turn may begin."""

    def poll(self, client: Client) -> None:
        """Take in a client that polls."""
        if not self.polling:
            self.polling = {}
        self.polling[client.sid] = client

    def connect(self, sid: str, connection: Connection) -> None:
        """Take in a client with a WebSocket, or note that a member has one now.

        What waits to be sent is not for it: it has just come, or was given that by polling.
        """
        if self.polling:
            self.polling.pop(sid, None)
        self.members[sid] = connection
        if self.queue:
            self.skip(sid)

    def remove(self, sid: str) -> Writes:
        """Let a client go; it is still to be sent what is returned."""
        if self.polling:
            self.polling.pop(sid, None)
        if sid not in self.members:
            return _NOTHING
        missing = self.missing(sid)
        connection = self.members.pop(sid)
        self.ahead.pop(sid, None)
        if not self.members and self.queue:
            self.note()
            self.queue, self.queued = _NO_FRAMES, 0
        return [((connection,), missing)] if missing else _NOTHING

    def missing(self, sid: str) -> bytes:
        """What the member has not been sent; from here on it counts as sent."""
        missing = self.data if self.left.pop(sid, None) is not None else b""
        if self.data and not self.left:
            self._finish()
        if self.queue:
            missing += b"".join(self.queue[self.ahead.get(sid, 0) :])
            self.skip(sid)
        return missing

    def take(self, allowance: int, writes: Writes) -> int:
        """Add at most ``allowance`` writes, and those for members ahead of the others; returns how many."""
        if not self.left and not self.queue:
            return 0  # every member that was left has been given it on other occasions
        taken = 0 if self.left else self._begin(writes)
        count = min(len(self.left), max(0, allowance - taken))
        if count:
            writes.append(([self.left.popitem()[1] for _ in range(count)], self.data))
        if not self.left:
            self._finish()
        return taken + count

    def take_all(self) -> Writes:
        """Everything that is to be written to any member."""
        writes: Writes = []
        while self.left or self.queue:
            self.take(len(self.members), writes)
        return writes

    def next(self) -> bytes:
        """Everything in the queue, as one piece."""
        queue, self.queue, self.queued = self.queue, _NO_FRAMES, 0
        return b"".join(queue)

    def note(self) -> None:
        """Everything in the queue is about to be written to its last member."""
        self.written.append(self.since)
        self.note_later()

    def note_later(self) -> None:
        """The queue's later frames are about to be written to their last member."""
        self.written.extend(self.later)
        self.later = _NO_TIMES

    def skip(self, sid: str, further: int = 0) -> None:
        """The member is not to be sent what is in the queue now, nor so many frames more."""
        if not self.ahead:
            self.ahead = {}
        self.ahead[sid] = len(self.queue) + further

    def _begin(self, writes: Writes) -> int:
        """Start sending everything in the queue; a member that needs only its end is sent that at once."""
        ahead, self.ahead = self.ahead, _NO_COUNTS
        self.left = dict(self.members)
        for sid, count in ahead.items():
            connection = self.left.pop(sid)
            if count < len(self.queue):
                writes.append(((connection,), b"".join(self.queue[count:])))
        self.data_times, self.later = [self.since, *self.later], _NO_TIMES
        self.data = self.next()
        return len(ahead)

    def _finish(self) -> None:
        """All members have been sent what the slices were of."""
        self.written.extend(self.data_times)
        self.data, self.data_times = b"", _NO_TIMES


class Rooms:
    """Who is in which room, and what the members have not been sent yet."""

    def __init__(self, window: float = 0.0, written: list[float] | None = None) -> None:
        """``window`` is for how long, in seconds, updates of a room wait for one another.

        ``written`` gets, of each broadcast that is handed out to its room's last member, when it was made.
        """
        self._window = window
        self._rooms: dict[str, _Audience] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        """The rooms of each client, by its sid. Tuples, which take less memory than lists: nearly all have one."""
        self._line: deque[_Audience] = deque()
        self._resting: Timers[_Audience] = Timers()
        self._written: list[float] = [] if written is None else written

    @property
    def busy(self) -> bool:
        """Whether there may be something to ``take``."""
        return bool(self._line)

    @property
    def owing(self) -> bool:
        """Whether there may be something that a member has not been sent yet."""
        return bool(self._line) or self._resting.next() is not None

    def next_release(self) -> float | None:
        """When ``release`` is next wanted."""
        return self._resting.next()

    def release(self, now: float) -> None:
        """Let the rooms whose rest is over stand in the line."""
        while (room := self._resting.pop_due(now)) is not None:
            self._line_up(room, now)

    @property
    def backlog(self) -> int:
        """Bytes of frames that are kept because a member has not been sent them yet."""
        return sum(room.queued + len(room.data) for room in self._rooms.values())

    def queued(self, name: str) -> int:
        """Bytes of frames that no turn has taken yet, in one room."""
        room = self._rooms.get(name)
        return 0 if room is None else room.queued

    def enter(self, name: str, client: Client, connection: Connection | None) -> None:
        """From here on the client is sent what is broadcast to the room: to its WebSocket, or by polling (None)."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Audience((name,), self._written)
        if connection is None:
            room.poll(client)
        else:
            room.connect(client.sid, connection)
        names = self._names.get(client.sid)
        self._names[client.sid] = room.names if names is None else (*names, name)

    def upgrade(self, sid: str, connection: Connection) -> None:
        """The client has a WebSocket now: so in each of its rooms."""
        for name in self._names.get(sid, ()):
            self._rooms[name].connect(sid, connection)

    def leave(self, name: str, sid: str) -> Writes:
        """The client is sent nothing more of the room but what is returned."""
        names = tuple(other for other in self._names.pop(sid) if other != name)
        if names:
            self._names[sid] = names
        room = self._rooms[name]
        writes = room.remove(sid)
        if not room.members and not room.polling:
            del self._rooms[name]
        return writes

    def broadcast(
        self, name: str, frame: bytes, now: float, made: float | None = None
    ) -> tuple[int, Writes, Collection[Client]]:
        """Queue a frame for all that are in the room now; ``made`` is told of when all have it, in place of ``now``.

        Returns how many that are, what has to be written at once, because more than ``MAX_QUEUED`` would wait, and the
        members that poll.
        """
        room = self._rooms[name]
        members = len(room.members)
        overflow = _NOTHING
        if members:
            if room.queue:
                room.queue.append(frame)
                if room.later:
                    room.later.append(now if made is None else made)
                else:
                    room.later = [now if made is None else made]
            else:
                room.queue = [frame]
                room.since = now if made is None else made
            room.queued += len(frame)
            if not room.waiting:
                room.waiting = True
                if now < room.rests_until:
                    self._resting.set(room, room.rests_until)
                else:
                    self._line_up(room, now)
            if room.queued > MAX_QUEUED:
                overflow = room.take_all()
        return members, overflow, room.polling.values()

    def broadcast_except(
        self, name: str, frame: bytes, sids: Collection[str], now: float
    ) -> tuple[int, Writes, Collection[Client]]:
        """As ``broadcast``, for all but these clients.

        What is returned has, for them, what they have not had yet.
        """
        room = self._rooms[name]
        given: Writes = []
        for sid in sids:
            connection = room.members.get(sid)
            if connection is not None:
                missing = room.missing(sid)
                if missing:
                    given.append(((connection,), missing))
                room.skip(sid, 1)
        members, overflow, polling = self.broadcast(name, frame, now)
        left_out = sum(sid in room.members for sid in sids)
        return members - left_out, given + overflow, [client for client in polling if client.sid not in sids]

    def flush(self, sid: str) -> Writes:
        """What a client has not been sent yet, of whatever room; it counts as sent."""
        writes: Writes = []
        for name in self._names.get(sid, ()):
            room = self._rooms[name]
            if room.waiting and sid in room.members and (missing := room.missing(sid)):
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
                self._written.append(room.since)
                if room.later:
                    room.note_later()
                writes.append((list(members.values()), room.next()))
                allowance -= len(members)
                room.waiting = False
                continue
            allowance -= room.take(allowance, writes)
            if room.left or (room.queue and not self._window):
                self._line.append(room)
            elif room.queue:
                self._resting.set(room, room.rests_until)
            else:
                room.waiting = False
        return writes, allowance

    def _line_up(self, room: _Audience, now: float) -> None:
        room.rests_until = now + self._window
        self._line.append(room)
