"""What clients that come back have missed: the history of one project, read from its stream.

A history is complete only while the entry that it starts from is in the stream, so no trimming, flush or lost Redis can
look like "nothing missed". The first reading of a project without a stream leaves a mark there, an entry that is no
update, so that a position is always the id of an entry.
"""

from __future__ import annotations

import threading

import redis
from attrs import frozen

from automoderate._threads import real
from automoderate.backplane.redis.connection import FAILURES, RedisConnection, first_refusal
from automoderate.backplane.redis.entries import MARK, READ_COUNT, BadEntry, Entry, stream, update
from automoderate.backplane.redis.feeds import Feeds
from automoderate.backplane.redis.heartbeat import Heartbeat
from automoderate.backplane.redis.refusals import Concern, concern, described, reason
from automoderate.backplane.redis.streams import BEGINNING
from automoderate.backplane.redis.troubles import Troubles
from automoderate.core.hub import History, Update, event_id_text, parse_event_id
from automoderate.server.interfaces import BackplaneUnavailable, ProjectUnusable

MAX_HISTORY = 2 * 1024 * 1024
"""Bytes replayed to one client; one that missed more has to reload."""


@frozen
class _Reading:
    """What is asked of a project's history: what came after an id, or so many of the newest, or of those before one."""

    after: str | None
    newest: int
    before: str | None


class Histories:
    """Reads histories, with a connection for each thread that does so at a time. Thread-safe, and blocks.

    At most ``entries`` updates of a project, none older than ``max_age`` seconds, are replayed to one client.
    """

    def __init__(
        self, url: str, feeds: Feeds, heartbeat: Heartbeat, troubles: Troubles, *, entries: int, max_age: float
    ) -> None:
        self._url = url
        self._feeds = feeds
        self._heartbeat = heartbeat
        self._troubles = troubles
        self._entries = entries
        self._max_age = max_age
        self._idle: list[RedisConnection] = []
        self._lock: threading.Lock = real(threading).Lock()

    def close(self) -> None:
        """Close the connections that no thread uses."""
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.close()

    def read(self, project_id: str, after: str | None, newest: int, before: str | None) -> History:
        """What the project published after the id ``after``; without one, so many of the newest that are kept.

        With ``before`` they are the newest of those that came before that id. Raises BackplaneUnavailable
        while Redis is away, and ProjectUnusable where its key holds no stream.
        """
        ask = _Reading(after, newest, before)
        with self._lock:
            link = self._idle.pop() if self._idle else None
        if link is not None:
            try:
                return self._read(link, project_id, ask)
            except FAILURES:
                link.close()  # it may have been dead for long: what counts is what a new one says
        link = RedisConnection(self._url)
        try:
            return self._read(link, project_id, ask)
        except FAILURES as error:
            link.close()
            raise BackplaneUnavailable(f"cannot read from Redis: {described(error)}") from error

    def _read(self, link: RedisConnection, project_id: str, ask: _Reading) -> History:
        key = stream(project_id)
        found: History | redis.ResponseError
        try:
            found = self._history(link, project_id, ask)
        except redis.ResponseError as refusal:
            if concern(refusal) is not Concern.KEY:
                raise
            found = refusal
        with self._lock:
            self._idle.append(link)
        if isinstance(found, redis.ResponseError):
            self._troubles.unusable(key, found)
            raise ProjectUnusable(f"cannot read {key}: {described(found)}", reason(found)) from found
        self._troubles.usable(key)
        return found

    def _history(self, link: RedisConnection, project_id: str, ask: _Reading) -> History:
        key = stream(project_id)
        if self._feeds.needs_beginning(project_id):
            # Before the history is read, so that no history ends before it.
            self._feeds.begin(project_id, self._last_id(link, key))
            link.call(self._heartbeat.wake())
        last = self._last_id(link, key)
        if self._feeds.look(project_id, last):
            # A client that joins waits for it, and perhaps no publisher said that it is there.
            link.call(self._heartbeat.wake())
        if ask.after is None:
            return History(self._newest(link, project_id, last, ask), True, last)
        place = parse_event_id(ask.after)
        if place is None or self._too_old(ask.after, last):
            return History((), False, last)
        return self._read_after(link, project_id, key, event_id_text(place), last)

    def _last_id(self, link: RedisConnection, key: str) -> str:
        """The id of the stream's newest entry, which is made where there is none."""
        (found,) = link.call(("XREVRANGE", key, "+", "-", "COUNT", 1))
        if found:
            return str(found[0][0].decode())
        answers = link.ask(("XADD", key, "*", *MARK), ("EXPIRE", key, int(self._max_age)))
        refusal = first_refusal(answers)
        if refusal is None:
            return str(answers[0].decode())
        if concern(refusal) is Concern.WRITES:
            return BEGINNING  # before whatever will be the first; where Redis loses anything until then, all is lost
        raise refusal

    def _too_old(self, after: str, last: str) -> bool:
        """Whether ``after`` is older than what is kept, as of the stream's newest entry."""
        return int(last.partition("-")[0]) - int(after.partition("-")[0]) > self._max_age * 1000

    def _read_after(self, link: RedisConnection, project_id: str, key: str, after: str, last: str) -> History:
        """Page by page, and no further than one client may be sent."""
        updates: list[Update] = []
        size, seen, position = 0, 0, after
        (entries,) = link.call(("XRANGE", key, after, "+", "COUNT", READ_COUNT + 1))
        if not entries or entries[0][0] != after.encode():
            return History((), False, last)
        page = entries[1:]
        while page:
            seen += len(page)
            for entry in page:
                position = entry[0].decode()
                found = self._parsed(project_id, entry)
                if found is not None:
                    updates.append(found)
                    size += len(found.text.encode())
            if len(updates) > self._entries or size > MAX_HISTORY:
                return History((), False, last)
            if len(page) < READ_COUNT:
                break
            (page,) = link.call(("XRANGE", key, f"({position}", "+", "COUNT", READ_COUNT))
        if seen >= READ_COUNT and not link.call(("XRANGE", key, after, after))[0]:
            return History((), False, last)  # trimmed between two pages, perhaps beyond the second
        return History(tuple(updates), True, position)

    def _newest(self, link: RedisConnection, project_id: str, last: str, ask: _Reading) -> tuple[Update, ...]:
        """The newest updates up to the id ``last``, oldest first: as many as were asked for, are kept, and fit."""
        key = stream(project_id)
        updates: list[Update] = []
        size, end = 0, last
        if ask.before is not None:
            place = parse_event_id(ask.before) or (0, 0)  # nothing comes before what is no id
            if place == (0, 0):
                return ()  # of which Redis says that it is no end of a range
            if place <= (parse_event_id(last) or place):
                end = f"({event_id_text(place)}"
        wanted = min(ask.newest, self._entries)
        while len(updates) < wanted:
            (page,) = link.call(("XREVRANGE", key, end, "-", "COUNT", READ_COUNT))
            for entry in page:
                end = f"({entry[0].decode()}"
                found = self._parsed(project_id, entry)
                size += len(found.text.encode()) if found is not None else 0
                if size > MAX_HISTORY or len(updates) == wanted or self._too_old(entry[0].decode(), last):
                    return tuple(reversed(updates))
                if found is not None:
                    updates.append(found)
            if len(page) < READ_COUNT:
                break
        return tuple(reversed(updates))

    @staticmethod
    def _parsed(project_id: str, entry: Entry) -> Update | None:
        try:
            return update(project_id, entry)
        except BadEntry:  # counted and logged where it is read as live
            return None
