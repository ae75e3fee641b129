"""The backplane of several nodes: one Redis (or Valkey) stream per project.

An update's ``event_id`` is the id of its entry. What comes after an id is known exactly as long as that entry is in
the stream, so that a client catches up from an entry that is there, or is told that it cannot: a stream that was
trimmed, flushed or lost with its Redis never looks complete. The first reading of a project without a stream leaves a
mark in it, an entry that is no update, so that a position is always the id of an entry.

A node reads, in one thread, the streams of the projects that have a member on it, and writes in another. A third may
listen to a channel, for what other processes emit with python-socketio.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal

from automoderate.adapters._shared import real
from automoderate.backplane._redis_channel import Channel
from automoderate.backplane._redis_entries import MARK, READ_COUNT, Announcement, BadEntry, Entry, stream, update
from automoderate.backplane._redis_link import FAILURES, Link, address
from automoderate.backplane._redis_publisher import Publisher
from automoderate.backplane._redis_pulse import Pulse
from automoderate.backplane._redis_reader import Reader
from automoderate.core.hub import AccessChanged, History, Input, LoggedOut, Update, parse_event_id
from automoderate.server import BackplaneUnavailable, Server

PATIENCE = 3.0
"""Seconds that a publication waits for a Redis that is away."""
CLOSE_TIMEOUT = 3.0
"""Seconds that closing waits for what is under way."""
MAX_HISTORY = 2 * 1024 * 1024
"""Bytes replayed to one client; one that missed more has to reload."""


class RedisBackplane:
    """Updates of many projects in Redis, for any number of nodes. Thread-safe; ``read`` blocks.

    ``entries`` updates of each project are kept (a few more, and never fewer than 100) for ``max_age`` seconds, and at
    most ``entries`` or 2 MiB of them replayed to a client. What is emitted to rooms of projects on the Pub/Sub
    ``channel`` of a python-socketio RedisManager becomes an update, once however many nodes listen. Raises ValueError
    for a bad URL.
    """

    blocking: Literal[True] = True

    def __init__(self, url: str, *, entries: int = 1000, max_age: float = 86_400.0, channel: str | None = None) -> None:
        if entries < 1 or max_age < 1:
            raise ValueError("entries and max_age must be at least 1")
        self._url = url
        self._entries = entries
        self._max_age = max_age
        self._node = secrets.token_hex(8)
        self._pulse = Pulse(self._node)
        self._publisher = Publisher(url, entries=entries, max_age=max_age, patience=PATIENCE, pulse=self._pulse)
        self._reader = Reader(url, self._node, self._pulse, self._deliver)
        self._channel = None if channel is None else Channel(url, channel, self._publisher)
        self._receive: Callable[[list[Input]], Future[None]] | None = None
        self._idle: list[Link] = []
        self._lock: threading.Lock = real(threading).Lock()

    def check(self) -> None:
        """Raise BackplaneUnavailable, in one line, where Redis cannot be used."""
        link = Link(self._url)
        try:
            (info,) = link.call(("INFO", "cluster"))
            if self._channel is not None:
                link.call(*self._channel.rehearsal())
                link.close()  # one that has subscribed does nothing else
            link.call(self._pulse.wake(), ("SUBSCRIBE", self._pulse.key))
        except FAILURES as error:
            raise BackplaneUnavailable(f"cannot use Redis at {address(self._url)}: {error}") from error
        finally:
            link.close()
        if b"cluster_enabled:1" in info:
            raise BackplaneUnavailable(f"Redis at {address(self._url)} is part of a cluster, which is not supported")

    def start(self, receive: Callable[[list[Input]], Future[None]]) -> None:
        """Begin to read; ``receive`` is called on a thread of this backplane with what the hub is to be told."""
        self._receive = receive
        self._publisher.start()
        self._reader.start()
        if self._channel is not None:
            self._channel.start()

    def close(self) -> None:
        """Stop reading and publishing; what is under way has a few seconds."""
        self._reader.stop()
        if self._channel is not None and self._receive is not None:
            self._channel.stop(CLOSE_TIMEOUT)  # before the publisher, which has what came from there
        self._publisher.close(CLOSE_TIMEOUT)
        if self._receive is not None:
            self._reader.join(CLOSE_TIMEOUT)
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.close()

    def publish(self, project_id: str, event: str, text: str) -> Future[str]:
        """Append one event, whose data ``text`` is, to the project's stream. Never blocks.

        The future has the ``event_id`` once Redis has accepted it, else BackplaneUnavailable. ValueError for data
        that is too large.
        """
        return self._publisher.publish(project_id, event, text)

    def announce(self, item: AccessChanged | LoggedOut) -> Future[Any]:
        """Tell every other node; the future is done when Redis has taken it, or fails with BackplaneUnavailable."""
        return self._publisher.announce(Announcement(self._node, item))

    def follow(self, project_id: str) -> None:
        """Hand over the project's updates, from where the next ``read`` of it ends."""
        self._reader.feeds.follow(project_id)

    def unfollow(self, project_id: str) -> None:
        """Hand them over no more."""
        self._reader.feeds.unfollow(project_id)

    def read(self, project_id: str, after: str | None) -> History:
        """What the project published after the id ``after``; without one, only the present position. Blocks.

        Raises BackplaneUnavailable while Redis is away.
        """
        with self._lock:
            link = self._idle.pop() if self._idle else None
        if link is not None:
            try:
                return self._read(link, project_id, after)
            except FAILURES:
                link.close()  # it may have been dead for long: what counts is what a new one says
        link = Link(self._url)
        try:
            return self._read(link, project_id, after)
        except FAILURES as error:
            link.close()
            raise BackplaneUnavailable(f"cannot read from Redis: {error}") from error

    @property
    def deaf(self) -> bool:
        """Whether updates may be published that this node does not hear of."""
        # Another node may hear a channel that this one does not, but whether there is one nobody here knows; and what
        # nobody hears on a channel is lost.
        listening = self._channel is None or self._channel.subscribed
        return not self._reader.connected or self._pulse.deaf or not listening

    def stats(self) -> dict[str, float]:
        """Gauges, and counters (names that end in ``_total``)."""
        stats: dict[str, float] = {
            "backplane_up": 0 if self.deaf else 1,
            "backplane_lag_seconds": self._pulse.lag,
            "backplane_streams": len(self._reader.feeds),
            "backplane_waiting": self._publisher.waiting,
            "backplane_published_total": self._publisher.published,
            "backplane_publish_failures_total": self._publisher.failed,
            "backplane_reconnects_total": self._reader.reconnects,
            "backplane_rejected_total": self._reader.rejected,
            "backplane_lost_total": self._reader.lost,
        }
        return stats if self._channel is None else stats | self._channel.stats()

    # Inside

    def _deliver(self, inputs: list[Input]) -> Future[None]:
        assert self._receive is not None, "it was started"
        return self._receive(inputs)

    def _read(self, link: Link, project_id: str, after: str | None) -> History:
        history = self._history(link, project_id, after)
        with self._lock:
            self._idle.append(link)
        return history

    def _history(self, link: Link, project_id: str, after: str | None) -> History:
        key = stream(project_id)
        if self._reader.feeds.needs_beginning(project_id):
            # Before the history is read, so that no history ends before it.
            self._reader.feeds.begin(project_id, self._last_id(link, key))
            link.call(self._pulse.wake())
        last = self._last_id(link, key)
        if self._reader.feeds.look(project_id, last):
            # Whoever joins waits for it, and perhaps nobody said that it is there.
            link.call(self._pulse.wake())
        if after is None:
            return History((), True, last)
        if parse_event_id(after) is None or self._too_old(after, last):
            return History((), False, last)
        return self._read_after(link, project_id, key, after, last)

    def _last_id(self, link: Link, key: str) -> str:
        """The id of the stream's newest entry, which is made where there is none."""
        (found,) = link.call(("XREVRANGE", key, "+", "-", "COUNT", 1))
        if found:
            return str(found[0][0].decode())
        added, _ = link.call(("XADD", key, "*", *MARK), ("EXPIRE", key, int(self._max_age)))
        return str(added.decode())

    def _too_old(self, after: str, last: str) -> bool:
        """Whether ``after`` is older than what is kept, as of the stream's newest entry."""
        return int(last.partition("-")[0]) - int(after.partition("-")[0]) > self._max_age * 1000

    def _read_after(self, link: Link, project_id: str, key: str, after: str, last: str) -> History:
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

    @staticmethod
    def _parsed(project_id: str, entry: Entry) -> Update | None:
        try:
            return update(project_id, entry)
        except BadEntry:  # counted and logged where it is read as live
            return None


class RedisDoor:
    """What a process without a server publishes through: every node hears it. Thread-safe, and never blocks.

    While Redis is away an update waits for up to ``patience`` seconds, and is tried again also where it may have been
    stored, so that in rare cases it is published twice. ``entries`` and ``max_age`` are those of the nodes.
    """

    def __init__(
        self, url: str, *, patience: float, max_waiting: int, entries: int = 1000, max_age: float = 86_400.0
    ) -> None:
        self._node = secrets.token_hex(8)
        self._publisher = Publisher(
            url, entries=entries, max_age=max_age, patience=patience, persistent=True, max_waiting=max_waiting
        )

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
        """Publish one event; the future has its ``event_id``, or BackplaneUnavailable."""
        return self._publisher.publish(project_id, event, Server.encode(data))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[Any]:
        """Have the live sessions of every node checked again."""
        return self._publisher.announce(Announcement(self._node, AccessChanged(user_id, project_id)))

    def logged_out(self, user_id: str) -> Future[Any]:
        """End the user's live sessions on every node."""
        return self._publisher.announce(Announcement(self._node, LoggedOut(user_id)))

    def close(self, timeout: float) -> bool:
        """Publish nothing more; True where nothing was left after ``timeout`` seconds."""
        return self._publisher.close(timeout)


__all__ = ["RedisBackplane", "RedisDoor"]
