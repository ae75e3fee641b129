"""The backplane of a single process: every update stays in memory, bounded in number and in age.

An event id is ``milliseconds-sequence``, as in a Redis stream: wall-clock milliseconds, then a number that
tells apart what was published within one. The clock may step back; ids do not. A client catches up only from an
id that this history knows exactly (one it keeps, or the one just before the oldest it keeps). Ordering alone
would not do: an id from before a restart may lie between two ids issued afterwards, and what was published
around the restart would be missing without a trace.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, zip_longest

from attrs import define, field

from automoderate.backplane import History, Update
from automoderate.core.hub import AccessChanged, LoggedOut, PresenceReport, event_id_text, parse_event_id, stamped
from automoderate.server.interfaces import Listen, NotRunning, Receive

EventId = tuple[int, int]

TIDY = 10_000
"""Milliseconds between two times that something is done about a project's age: on every update it would cost more than
everything else here."""


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


@define
class _Stream:
    """The history of one project; ``floor`` is the id just before the oldest update that is kept."""

    project_id: str
    floor: str
    last: EventId
    kept: deque[str] = field(factory=deque)
    """Event id, event and text of one update after the other, oldest first. No object holds the three together: it
    would be one more for Python's collector of cycles to look at, for every update."""
    size: int = 0
    """Bytes of all their data as JSON."""
    tidied: int = 0
    """When its age was last looked at, in wall-clock milliseconds."""

    def _first_from(self, position: EventId) -> int:
        """The number of the oldest update that is kept and whose id is not smaller, counted from the oldest of all."""
        return bisect_left(
            range(len(self.kept) // 3), position, key=lambda number: parse_event_id(self.kept[3 * number]) or (0, 0)
        )

    def drop_oldest(self) -> int:
        """How many bytes that were."""
        self.floor = self.kept.popleft()
        self.kept.popleft()
        size = _size(self.kept.popleft())
        self.size -= size
        return size

    def oldest(self) -> int:
        """When the oldest that is kept was published, in wall-clock milliseconds."""
        return int(self.kept[0].partition("-")[0])

    def after(self, position: str) -> tuple[Update, ...] | None:
        """What follows ``position``; None where this history does not know that id."""
        missed: list[Update] = []
        backwards = reversed(self.kept)  # most clients missed only the last few
        for text, event, event_id in zip(backwards, backwards, backwards, strict=True):
            if event_id == position:
                return tuple(reversed(missed))
            missed.append(Update(self.project_id, event, text, event_id))
        return tuple(reversed(missed)) if position == self.floor else None

    def newest(self, count: int, before: str | None) -> tuple[Update, ...]:
        """The last so many that are kept, or of those before an id, oldest first."""
        skipped = 0
        if before is not None:
            end = parse_event_id(before) or (0, 0)  # nothing comes before what is no id
            skipped = 3 * (len(self.kept) // 3 - self._first_from(end))
        backwards = islice(reversed(self.kept), skipped, skipped + 3 * count)
        found = [
            Update(self.project_id, event, text, event_id)
            for text, event, event_id in zip(backwards, backwards, backwards, strict=True)
        ]
        return tuple(reversed(found))


class MemoryBackplane:
    """Updates of many projects in one process's memory. One thread only: there are no locks.

    ``entries`` and ``max_bytes`` (of JSON) bound one project's history, ``max_age`` (seconds of ``wall``) every
    project's, and ``max_projects`` and ``max_total_bytes`` all of them: the least recently published one, to within ten
    seconds, is forgotten first. What is too old is not told any more, but may be kept until somebody publishes.
    What is no longer kept is answered with an incomplete history, never with a silent gap. All of one history
    goes to a client that catches up at once, so ``max_bytes`` has to stay below what may wait for one client.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        entries: int = 1000,
        max_bytes: int = 2 * 1024 * 1024,
        max_age: float = 86_400.0,
        max_projects: int = 10_000,
        max_total_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        if min(entries, max_bytes, max_projects, max_total_bytes) < 1 or max_age <= 0:
            raise ValueError("entries, max_bytes, max_age, max_projects and max_total_bytes must be positive")
        self._wall = wall
        self._items = 3 * entries  # of a stream's ``kept``
        self._max_bytes = max_bytes
        self._max_age = int(max_age * 1000)
        self._max_projects = max_projects
        self._max_total_bytes = max_total_bytes
        self._draining = False
        self._size = 0
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        """The least recently published first, to within ten seconds."""
        # Where the history of a project begins that is not in _streams. One id for all of them: at first the
        # start of this process, later the newest id of any project that was forgotten, so that no forgotten
        # project can be taken for one that has never published.
        self._floor: EventId = (self._milliseconds(), 0)

    def publish(self, project_id: str, event: str, text: str, trace: str | None = None) -> Update:
        """Number and keep one event of a project, whose data ``text`` is."""
        if self._draining:
            raise NotRunning("the server is shutting down")
        now = self._milliseconds()
        stream = self._streams.get(project_id) or self._begin(project_id)
        milliseconds, sequence = stream.last
        if now > milliseconds:
            milliseconds, sequence = now, 0
        else:
            sequence += 1
        stream.last = milliseconds, sequence
        if not 0 <= now - stream.tidied < TIDY:  # the clock may have been set back
            self._tidy(stream, now)
        event_id = event_id_text(stream.last)
        text = stamped(text, event_id)
        update = Update(project_id, event, text, event_id, trace)
        size = _size(text)
        stream.kept.extend((event_id, event, text))
        stream.size += size
        self._size += size
        if len(stream.kept) > self._items or stream.size > self._max_bytes:
            self._trim(stream)
        if self._size > self._max_total_bytes:
            self._streams.move_to_end(project_id)
            while self._size > self._max_total_bytes:
                self._forget_oldest()
        return update

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], traces: Sequence[str] = ()
    ) -> list[Update]:
        """Number and keep several events of a project, each with its data, and with its trace where there are any."""
        together = zip_longest(events, traces)
        return [self.publish(project_id, event, text, trace) for (event, text), trace in together]

    def start(self, receive: Receive, listen: Listen | None = None) -> None:
        """Nothing to do: there are no other nodes."""

    def drain(self) -> None:
        """Refuse to publish from here on: the history ends with the process, and a client would look for it in vain."""
        self._draining = True

    def close(self) -> None:
        """Nothing to do."""

    def follow(self, project_id: str) -> None:
        """Nothing to do: the publisher tells the hub."""

    def unfollow(self, project_id: str) -> None:
        """Nothing to do."""

    @property
    def shared(self) -> bool:
        """False: there are no other nodes."""
        return False

    def share_presence(self, report: PresenceReport) -> None:
        """Nothing to do: there are no other nodes."""

    def announce(self, item: AccessChanged | LoggedOut) -> None:
        """Nothing to do: there are no other nodes."""

    def ask(self, question: str) -> None:
        """None: there are no other nodes."""

    def answer(self, reply_to: str, text: str) -> None:
        """Nothing to do: nobody asks."""

    @property
    def hearing(self) -> bool:
        """True: everything that is published is published here."""
        return True

    @property
    def writable(self) -> bool:
        """True: there is always room for the newest."""
        return True

    def stats(self) -> Mapping[str, float]:
        """None."""
        return {}

    def read(self, project_id: str, after: str | None, newest: int = 0, before: str | None = None) -> History:
        """What the project published after the id ``after``; without one, so many of the newest that are kept.

        With ``before`` they are the newest of those that came before that id. The history is incomplete, and empty,
        where ``after`` is malformed, older than what is kept (trimmed, or from before this process started), or was
        never issued.
        """
        stream = self._streams.get(project_id)
        if stream is None:
            stream = self._stream(project_id)
        self._expire(stream, self._milliseconds())
        last_event_id = event_id_text(stream.last)
        if after is None:
            return History(stream.newest(newest, before), True, last_event_id)
        position = parse_event_id(after)
        updates = None if position is None else stream.after(event_id_text(position))
        if updates is None:
            return History((), False, last_event_id)
        return History(updates, True, last_event_id)

    def _milliseconds(self) -> int:
        return max(0, int(self._wall() * 1000))

    def _stream(self, project_id: str) -> _Stream:
        """The history of a project of which nothing is kept."""
        return _Stream(project_id, event_id_text(self._floor), self._floor)

    def _begin(self, project_id: str) -> _Stream:
        stream = self._streams[project_id] = self._stream(project_id)
        if len(self._streams) > self._max_projects:
            self._forget_oldest()
        return stream

    def _trim(self, stream: _Stream) -> None:
        while len(stream.kept) > self._items or stream.size > self._max_bytes:
            self._size -= stream.drop_oldest()

    def _expire(self, stream: _Stream, now: int) -> None:
        while stream.kept and stream.oldest() < now - self._max_age:
            self._size -= stream.drop_oldest()

    def _tidy(self, stream: _Stream, now: int) -> None:
        """Let go of what is too old of one that is just publishing, and of those that have not for so long."""
        stream.tidied = now
        self._streams.move_to_end(stream.project_id)
        self._expire(stream, now)
        while next(iter(self._streams.values())).last[0] < now - self._max_age:
            self._forget_oldest()  # no later call would look at it again

    def _forget_oldest(self) -> None:
        _, stream = self._streams.popitem(last=False)
        self._size -= stream.size
        self._floor = max(self._floor, stream.last)


__all__ = ["MemoryBackplane"]
