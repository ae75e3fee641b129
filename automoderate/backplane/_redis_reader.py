"""The thread that reads Redis: one connection for all the streams a node follows, and one wait for all of them.

Each followed stream has a *position*, the id of the last entry that was handed over. It starts where the first reading
of the project's history ended, so that what is read here continues exactly there. A gap is never passed over:

- The streams are not trimmed to fewer than READ_COUNT entries, so only an answer of READ_COUNT entries can begin behind
  something that was trimmed. Then, and after every reconnection, and when Redis has forgotten what this node said, the
  position has to be in the stream still; where it is not, the project is lost, and whoever watches it has to catch up.
- While a batch has not been taken by the server's loop, the next is read but not handed over: what a slow node has not
  come to waits in Redis.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from attrs import define

from automoderate.adapters import ServerStopped
from automoderate.adapters._shared import real
from automoderate.backplane._redis_entries import (
    CONTROL,
    READ_COUNT,
    Announcement,
    BadEntry,
    Entry,
    stream,
    update,
)
from automoderate.backplane._redis_link import FAILURES, Link, Pauses
from automoderate.backplane._redis_pulse import Pulse
from automoderate.core.hub import Input, Lost, Passed, Published

log = logging.getLogger("automoderate.redis")

BLOCK = 1000
"""Milliseconds that Redis lets the reader wait; less than the time in which it has to answer."""
BEGINNING = "0-0"
"""Before every entry."""
GROUP = 64
"""Streams asked about at once after a reconnection, when each may have much to say."""

Deliver = Callable[[list[Input]], Future[None]]


@define(eq=False)
class Feed:
    """One followed project. Without a position its history has not been read yet, and nobody waits for updates."""

    project_id: str
    key: bytes
    position: str | None = None


class Reader:
    """Reads the streams of the projects that are followed. ``follow``, ``unfollow`` and ``begin`` are thread-safe."""

    def __init__(self, url: str, node: str, pulse: Pulse, deliver: Deliver) -> None:
        self._link = Link(url)
        self._node = node
        self._pulse = pulse
        self._deliver = deliver
        self._threading = real(threading)
        self._lock: threading.Lock = self._threading.Lock()
        self._stopping: threading.Event = self._threading.Event()
        self._feeds: dict[bytes, Feed] = {}
        self._own = BEGINNING
        self._control: str | None = None
        self._handed_over: Future[None] | None = None
        self._thread: threading.Thread = self._threading.Thread(
            target=self._run, name="automoderate-redis-reader", daemon=True
        )
        self.connected = False
        self.reconnects = self.rejected = self.lost = 0

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End with the next answer of Redis."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def follow(self, project_id: str) -> None:
        """Read the project's stream from where ``begin`` says."""
        key = stream(project_id).encode()
        with self._lock:
            self._feeds[key] = Feed(project_id, key)

    def unfollow(self, project_id: str) -> None:
        """Read it no more."""
        with self._lock:
            self._feeds.pop(stream(project_id).encode(), None)

    def needs_beginning(self, project_id: str) -> bool:
        """Whether a project is followed of which has not been said where to begin."""
        with self._lock:
            feed = self._feeds.get(stream(project_id).encode())
            return feed is not None and feed.position is None

    def begin(self, project_id: str, position: str) -> None:
        """Read a followed project's stream from behind this id, unless it was said before where to begin."""
        with self._lock:
            feed = self._feeds.get(stream(project_id).encode())
            if feed is not None and feed.position is None:
                feed.position = position

    def __len__(self) -> int:
        """How many projects are followed."""
        return len(self._feeds)

    # The thread

    def _run(self) -> None:
        pauses = Pauses()
        while not self._stopping.is_set():
            try:
                self._resume()
                pauses.reset()
                while not self._stopping.is_set():
                    if self._pulse.forgotten.is_set():
                        self._pulse.forgotten.clear()
                        self._look_for_gaps()
                    self._read(self._current(), BLOCK)
            except FAILURES as error:
                self._disconnected(str(error))
            except ServerStopped:
                break
            except Exception:
                log.exception("Unexpected failure while reading from Redis")
                self._disconnected("unexpected failure")
            self._stopping.wait(pauses.next())
        self._link.close()

    def _disconnected(self, error: str) -> None:
        if self.connected:
            log.warning("The connection to Redis is lost and is tried again: %s", error)
            self.reconnects += 1
        self.connected = False
        self._link.close()

    def _resume(self) -> None:
        """Connect, see that nothing is missing, and read what came meanwhile, a part of the streams at a time."""
        self._link.connect()
        if self._control is None:
            (found,) = self._link.call(("XREVRANGE", CONTROL, "+", "-", "COUNT", 1))
            self._control = found[0][0].decode() if found else BEGINNING
        self._look_for_gaps()
        feeds = self._current()
        for start in range(0, len(feeds), GROUP):
            while self._read(feeds[start : start + GROUP], None):
                pass
        if not self.connected:
            log.info("Reading from Redis")
        self.connected = True

    def _look_for_gaps(self) -> None:
        """Redis may have lost entries: let go of what can no longer be continued exactly where it was."""
        self._own = BEGINNING
        (found,) = self._link.call(("XRANGE", CONTROL, self._control or "-", self._control or "-"))
        if not found:
            self._control = BEGINNING  # all that is there is newer
        feeds = self._current()
        for start in range(0, len(feeds), GROUP):
            self._hand_over(self._lose(self._gone(feeds[start : start + GROUP])))

    def _gone(self, feeds: Sequence[Feed]) -> list[Feed]:
        """Those whose position is no longer in their stream."""
        if not feeds:
            return []
        commands = [("XRANGE", feed.key, str(feed.position), str(feed.position)) for feed in feeds]
        return [feed for feed, found in zip(feeds, self._link.call(*commands), strict=True) if not found]

    def _lose(self, feeds: Sequence[Feed]) -> list[Input]:
        with self._lock:
            for feed in feeds:
                if self._feeds.get(feed.key) is feed:
                    del self._feeds[feed.key]
        for feed in feeds:
            log.warning("Updates of project %s after %s may be missing from Redis", feed.project_id, feed.position)
        self.lost += len(feeds)
        return [Lost(feed.project_id) for feed in feeds]

    def _current(self) -> list[Feed]:
        with self._lock:
            return [feed for feed in self._feeds.values() if feed.position is not None]

    def _read(self, feeds: Sequence[Feed], block: int | None) -> bool:
        """Read what is new, waiting for it up to ``block`` milliseconds, and hand it over; False if nothing was."""
        keys: list[str | bytes] = [self._pulse.key, CONTROL, *(feed.key for feed in feeds)]
        ids = [self._own, str(self._control), *(str(feed.position) for feed in feeds)]
        waiting: list[str | int] = [] if block is None else ["BLOCK", block]
        (answer,) = self._link.call(("XREAD", "COUNT", READ_COUNT, *waiting, "STREAMS", *keys, *ids))
        news: dict[bytes, list[Entry]] = dict(answer or ())
        found = [feed for feed in feeds if feed.key in news and self._feeds.get(feed.key) is feed]
        # The last that can fail: from here on positions move, and what they have passed is handed over.
        gone = self._gone([feed for feed in found if len(news[feed.key]) == READ_COUNT])
        self._listen(news.get(self._pulse.key.encode(), []))
        inputs = self._announced(news.get(CONTROL.encode(), []))
        inputs.extend(self._lose(gone))
        for feed in found:
            if feed not in gone:
                inputs.extend(self._updates(feed, news[feed.key]))
        return self._hand_over(inputs)

    def _listen(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._own = entry[0].decode()
            self._pulse.hear(entry)

    def _announced(self, entries: Sequence[Entry]) -> list[Input]:
        inputs: list[Input] = []
        for entry in entries:
            self._control = entry[0].decode()
            try:
                announcement = Announcement.decode(entry)
            except BadEntry as error:
                self._reject(CONTROL, entry, error)
            else:
                if announcement.node != self._node:  # it has acted already
                    inputs.append(announcement.item)
        return inputs

    def _updates(self, feed: Feed, entries: Sequence[Entry]) -> Iterator[Input]:
        for entry in entries:
            feed.position = entry[0].decode()
            try:
                found = update(feed.project_id, entry)
            except BadEntry as error:
                self._reject(feed.key.decode(), entry, error)
                found = None
            yield Passed(feed.project_id, feed.position) if found is None else Published(found)

    def _reject(self, key: str, entry: Entry, error: BadEntry) -> None:
        self.rejected += 1
        log.warning("Entry %s of %s is skipped: %s", entry[0].decode(), key, error)

    def _hand_over(self, inputs: list[Input]) -> bool:
        """Give the server's loop something to do, once it has done what it was given before."""
        if not inputs:
            return False
        while self._handed_over is not None and not self._stopping.is_set():
            try:
                self._handed_over.result(1.0)
            except TimeoutError:
                continue
            except ServerStopped:
                raise
            except Exception:
                log.exception("The server failed at what came from Redis")
                inputs = [*self._lose(self._current()), *inputs]  # nobody knows what it has not come to
            self._handed_over = None
        self._handed_over = self._deliver(inputs)
        return True
