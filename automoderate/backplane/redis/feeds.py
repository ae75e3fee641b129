"""The projects that a node follows, and where it is in the stream of each.

Written by the server's loop, by jobs and by the thread that reads.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from attrs import define

from automoderate._threads import real
from automoderate.backplane.redis.entries import stream

TURNS = 5
"""Into how many parts the streams are divided that are looked at in turn."""


@define(eq=False)
class Feed:
    """One followed project. Without a position its history has not been read yet, and no member waits for updates."""

    project_id: str
    key: bytes
    position: str | None = None

    @property
    def turn(self) -> int:
        """In which part it is."""
        return hash(self.key) % TURNS


class Feeds:
    """All followed projects. Thread-safe, and never blocks."""

    def __init__(self) -> None:
        self._lock: threading.Lock = real(threading).Lock()
        self._feeds: dict[bytes, Feed] = {}
        self._changed: set[bytes] = set()

    def follow(self, project_id: str) -> None:
        """Read the project's stream from where ``begin`` says."""
        key = stream(project_id).encode()
        with self._lock:
            self._feeds[key] = Feed(project_id, key)

    def unfollow(self, project_id: str) -> None:
        """Read it no more."""
        key = stream(project_id).encode()
        with self._lock:
            self._feeds.pop(key, None)
            self._changed.add(key)

    def needs_beginning(self, project_id: str) -> bool:
        """Whether a project is followed of which has not been said where to begin."""
        with self._lock:
            feed = self._feeds.get(stream(project_id).encode())
            return feed is not None and feed.position is None

    def begin(self, project_id: str, position: str) -> None:
        """Read a followed project's stream from behind this id, unless it was said before where to begin.

        It is read at once if the reader is woken then.
        """
        with self._lock:
            feed = self._feeds.get(stream(project_id).encode())
            if feed is not None and feed.position is None:
                feed.position = position
                self._changed.add(feed.key)

    def look(self, project_id: str, last: str) -> bool:
        """Read a followed project's stream whose newest entry is ``last``, unless nothing is new there.

        Whether there is; it is read at once if the reader is woken then.
        """
        with self._lock:
            feed = self._feeds.get(stream(project_id).encode())
            if feed is None or feed.position in (None, last):
                return False
            self._changed.add(feed.key)
            return True

    def __len__(self) -> int:
        """How many projects are followed."""
        return len(self._feeds)

    # For the thread that reads

    def current(self) -> list[Feed]:
        """All feeds that are to be read."""
        with self._lock:
            return [feed for feed in self._feeds.values() if feed.position is not None]

    def one(self, key: bytes) -> Feed | None:
        """The feed of this stream, if it is to be read."""
        feed = self._feeds.get(key)
        return None if feed is None or feed.position is None else feed

    def among(self, keys: Iterable[bytes]) -> list[Feed]:
        """The feeds among these streams that are to be read."""
        with self._lock:
            found = (self._feeds.get(key) for key in keys)
            return [feed for feed in found if feed is not None and feed.position is not None]

    def changed(self) -> tuple[list[bytes], list[bytes]]:
        """The streams that may be read since the last call, or anew, and those that may be read no longer."""
        with self._lock:
            changed, self._changed = self._changed, set()
        wanted = [feed.key for feed in self.among(changed)]
        return wanted, list(changed.difference(wanted))

    def lose(self, feeds: Collection[Feed]) -> None:
        """Read these no more, unless they are followed anew."""
        with self._lock:
            for feed in feeds:
                if self._feeds.get(feed.key) is feed:
                    del self._feeds[feed.key]
                    self._changed.add(feed.key)

    def __contains__(self, feed: Feed) -> bool:
        """Whether this one is still followed."""
        return self._feeds.get(feed.key) is feed
