"""The backplane of a single process: every update stays in memory, bounded in number and in age.

An event id is ``milliseconds-sequence``, as in a Redis stream: wall-clock milliseconds, then a number that
tells apart what was published within one. The clock may step back; ids do not. A client catches up only from an
id that this history knows exactly (one it keeps, or the one just before the oldest it keeps). Ordering alone
would not do: an id from before a restart may lie between two ids issued afterwards, and what was published
around the restart would be missing without anybody noticing.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

from attrs import define, field

from automoderate.backplane import History, Update
from automoderate.core.hub import parse_event_id

EventId = tuple[int, int]


def _text(event_id: EventId) -> str:
    return f"{event_id[0]}-{event_id[1]}"


@define
class _Stream:
    """The history of one project; ``floor`` is the id just before the oldest update that is kept."""

    floor: EventId
    last: EventId
    updates: OrderedDict[EventId, Update] = field(factory=OrderedDict)
    sizes: deque[int] = field(factory=deque)
    """Bytes of each update's data as JSON, oldest first, and of all of them:"""
    size: int = 0

    def append(self, update: Update) -> None:
        size = len(json.dumps(update.data))
        self.updates[self.last] = update
        self.sizes.append(size)
        self.size += size

    def drop_oldest(self) -> None:
        self.floor, _ = self.updates.popitem(last=False)
        self.size -= self.sizes.popleft()

    def expire(self, oldest: int) -> None:
        """Drop what was published before the wall-clock millisecond ``oldest``."""
        while self.updates and next(iter(self.updates))[0] < oldest:
            self.drop_oldest()

    def after(self, position: EventId) -> tuple[Update, ...] | None:
        """What follows ``position``; None where this history does not know that id."""
        if position == self.floor:
            return tuple(self.updates.values())
        if position not in self.updates:
            return None
        # From the newest backwards: most clients missed only the last few.
        missed = tuple(takewhile(lambda event_id: event_id != position, reversed(self.updates)))
        return tuple(self.updates[event_id] for event_id in reversed(missed))


class MemoryBackplane:
    """Updates of many projects in one process's memory. One thread only: there are no locks.

    ``entries`` and ``max_bytes`` (of JSON) bound one project's history, ``max_age`` (seconds of ``wall``) every
    project's, and ``max_projects`` the number of projects: the least recently published one is forgotten first.
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
        max_projects: int = 1000,
    ) -> None:
        if entries < 1 or max_bytes < 1 or max_projects < 1 or max_age <= 0:
            raise ValueError("entries, max_bytes, max_age and max_projects must be positive")
        self.listener: Callable[[Update], None] | None = None
        self._wall = wall
        self._entries = entries
        self._max_bytes = max_bytes
        self._max_age = int(max_age * 1000)
        self._max_projects = max_projects
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        # Where the history of a project begins that is not in _streams. One id for all of them: at first the
        # start of this process, later the newest id of any project that was forgotten, so that no forgotten
        # project can be taken for one that has never published.
        self._floor: EventId = (self._milliseconds(), 0)

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Update:
        """Number and keep one event of a project, then call the listener with it."""
        now = self._milliseconds()
        self._forget_expired(now)
        stream = self._streams.get(project_id)
        if stream is None:
            stream = self._streams[project_id] = _Stream(self._floor, self._floor)
        self._streams.move_to_end(project_id)
        last_milliseconds, sequence = stream.last
        stream.last = (now, 0) if now > last_milliseconds else (last_milliseconds, sequence + 1)
        event_id = _text(stream.last)
        update = Update(project_id, event, {**data, "event_id": event_id}, event_id)
        stream.append(update)
        stream.expire(now - self._max_age)
        while len(stream.updates) > self._entries or stream.size > self._max_bytes:
            stream.drop_oldest()
        if len(self._streams) > self._max_projects:
            self._forget_oldest()
        if self.listener is not None:
            self.listener(update)
        return update

    def read(self, project_id: str, after: str | None) -> History:
        """What the project published after the id ``after``; without one, only the present position.

        The history is incomplete, and empty, where ``after`` is malformed, older than what is kept (trimmed, or
        from before this process started), or was never issued.
        """
        stream = self._streams.get(project_id)
        if stream is None:
            stream = _Stream(self._floor, self._floor)
        stream.expire(self._milliseconds() - self._max_age)
        last_event_id = _text(stream.last)
        if after is None:
            return History((), True, last_event_id)
        position = parse_event_id(after)
        updates = None if position is None else stream.after(position)
        if updates is None:
            return History((), False, last_event_id)
        return History(updates, True, last_event_id)

    def _milliseconds(self) -> int:
        return max(0, int(self._wall() * 1000))

    def _forget_expired(self, now: int) -> None:
        """Give back the memory of projects that fell silent; nobody else would ever look at them again."""
        while self._streams and next(iter(self._streams.values())).last[0] < now - self._max_age:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, stream = self._streams.popitem(last=False)
        self._floor = max(self._floor, stream.last)


__all__ = ["MemoryBackplane"]
