"""The thread that reads Redis: the streams a node follows, of which a subscription says where something is new.

What is not named costs nothing, so that the cost follows the updates and not the number of projects. But the streams
are the truth, and the subscription only makes it quick: each stream is looked at when Redis has confirmed that its
channel is heard, all of them after every reconnection of either connection, and besides in turn, so that an entry of
which nobody said anything is found within LOOK_EVERY * TURNS seconds.

Each followed stream has a *position*, the id of the last entry that was handed over. It starts where the first reading
of the project's history ended, so that what is read here continues exactly there. A gap is never passed over:

- The streams are not trimmed to fewer than READ_COUNT entries, so only an answer of READ_COUNT entries can begin behind
  something that was trimmed. Then, and after every reconnection, and when Redis has forgotten what this node said, the
  position has to be in the stream still; where it is not, the project is lost, and whoever watches it has to catch up.
- While a batch has not been taken by the server's loop, the next is read but not handed over: what a slow node has not
  come to waits in Redis. Messages of the subscription wait as well, and where they become too many Redis ends that
  connection, which is a reconnection like any other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from automoderate.adapters import ServerStopped
from automoderate.adapters._shared import real
from automoderate.backplane._redis_entries import CONTROL, READ_COUNT, Announcement, BadEntry, Entry, update
from automoderate.backplane._redis_feeds import TURNS, Feed, Feeds
from automoderate.backplane._redis_link import FAILURES, Link, Pauses
from automoderate.backplane._redis_pulse import Pulse
from automoderate.backplane._redis_subscription import Subscription
from automoderate.core.hub import Input, Lost, Passed, Published

log = logging.getLogger("automoderate.redis")

LOOK_EVERY = 1.0
"""Seconds from looking at one part of the streams unasked to looking at the next."""
BEGINNING = "0-0"
"""Before every entry."""
GROUP = 64
"""Streams asked about at once, as each may have much to say."""

Deliver = Callable[[list[Input]], Future[None]]


class Reader:
    """Reads the streams of the projects that are followed, which are ``feeds``."""

    def __init__(self, url: str, node: str, pulse: Pulse, deliver: Deliver) -> None:
        self._link = Link(url)
        self._subscription = Subscription(url)
        self._node = node
        self._pulse = pulse
        self._deliver = deliver
        self._threading = real(threading)
        self._stopping: threading.Event = self._threading.Event()
        self.feeds = Feeds()
        self._unread: set[bytes] = set()  # the streams to be looked at without waiting
        self._turn = 0
        self._look_due = 0.0
        self._own_key, self._control_key = pulse.key.encode(), CONTROL.encode()
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
        """End with the next message, or within a second."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

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
                    self._look()
            except FAILURES as error:
                self._disconnected(str(error))
            except ServerStopped:
                break
            except Exception:
                log.exception("Unexpected failure while reading from Redis")
                self._disconnected("unexpected failure")
            self._stopping.wait(pauses.next())
        self._close()

    def _disconnected(self, error: str) -> None:
        if self.connected:
            log.warning("The connection to Redis is lost and is tried again: %s", error)
            self.reconnects += 1
        self.connected = False
        self._close()

    def _close(self) -> None:
        self._link.close()
        self._subscription.close()

    def _resume(self) -> None:
        """Connect and subscribe, see that nothing is missing, and read what came meanwhile."""
        self._link.connect()
        self.feeds.changed()  # all of them are looked at
        self._subscription.start(self._all())
        if self._control is None:
            (found,) = self._link.call(("XREVRANGE", CONTROL, "+", "-", "COUNT", 1))
            self._control = found[0][0].decode() if found else BEGINNING
        self._look_for_gaps()
        self._unread = self._read(self._all())
        if not self.connected:
            log.info("Reading from Redis")
        self.connected = True

    def _look(self) -> None:
        """Wait until something is new somewhere, and read it."""
        self._unread |= self._subscription.hear(0.0 if self._unread else max(0.0, self._look_due - time.monotonic()))
        self._unread |= self._subscription.change(*self.feeds.changed())
        if time.monotonic() >= self._look_due:
            self._look_due = time.monotonic() + LOOK_EVERY
            self._unread |= self._unasked()
        self._unread = self._read(list(self._unread))

    def _unasked(self) -> set[bytes]:
        """A part of the streams, to be looked at whatever was said of them. Tries the subscription, too.

        The node's own stream is not among them, so that a beat is heard only where the subscription is.
        """
        self._link.call(self._pulse.wake())
        self._subscription.expect()
        self._turn = (self._turn + 1) % TURNS
        return {self._control_key, *(feed.key for feed in self.feeds.current() if feed.turn == self._turn)}

    def _all(self) -> list[bytes]:
        """Every stream."""
        return [self._own_key, self._control_key, *(feed.key for feed in self.feeds.current())]

    def _look_for_gaps(self) -> None:
        """Redis may have lost entries: let go of what can no longer be continued exactly where it was."""
        self._own = BEGINNING
        (found,) = self._link.call(("XRANGE", CONTROL, self._control or "-", self._control or "-"))
        if not found:
            self._control = BEGINNING  # all that is there is newer
        feeds = self.feeds.current()
        for start in range(0, len(feeds), GROUP):
            self._hand_over(self._lose(self._gone(feeds[start : start + GROUP])))

    def _gone(self, feeds: Sequence[Feed]) -> list[Feed]:
        """Those whose position is no longer in their stream."""
        if not feeds:
            return []
        commands = [("XRANGE", feed.key, str(feed.position), str(feed.position)) for feed in feeds]
        return [feed for feed, found in zip(feeds, self._link.call(*commands), strict=True) if not found]

    def _lose(self, feeds: Sequence[Feed]) -> list[Input]:
        self.feeds.lose(feeds)
        for feed in feeds:
            log.warning("Updates of project %s after %s may be missing from Redis", feed.project_id, feed.position)
        self.lost += len(feeds)
        return [Lost(feed.project_id) for feed in feeds]

    def _read(self, keys: Sequence[bytes]) -> set[bytes]:
        """Read what is new in these streams and hand it over; returns those in which there may be more."""
        unread: set[bytes] = set()
        for start in range(0, len(keys), GROUP):
            unread |= self._read_group(keys[start : start + GROUP])
        return unread

    def _read_group(self, keys: Sequence[bytes]) -> set[bytes]:
        feeds = self.feeds.among(keys)
        ids = {feed.key: str(feed.position) for feed in feeds}
        if self._own_key in keys:
            ids[self._own_key] = self._own
        if self._control_key in keys:
            ids[self._control_key] = str(self._control)
        if not ids:
            return set()
        (answer,) = self._link.call(("XREAD", "COUNT", READ_COUNT, "STREAMS", *ids, *ids.values()))
        news: dict[bytes, list[Entry]] = dict(answer or ())
        found = [feed for feed in feeds if feed.key in news and feed in self.feeds]
        # The last that can fail: from here on positions move, and what they have passed is handed over.
        gone = self._gone([feed for feed in found if len(news[feed.key]) == READ_COUNT])
        self._listen(news.get(self._own_key, []))
        inputs = self._announced(news.get(self._control_key, []))
        inputs.extend(self._lose(gone))
        for feed in found:
            if feed not in gone:
                inputs.extend(self._updates(feed, news[feed.key]))
        self._hand_over(inputs)
        return {key for key, entries in news.items() if len(entries) == READ_COUNT}

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

    def _hand_over(self, inputs: list[Input]) -> None:
        """Give the server's loop something to do, once it has done what it was given before."""
        if not inputs:
            return
        while self._handed_over is not None and not self._stopping.is_set():
            try:
                self._handed_over.result(1.0)
            except TimeoutError:
                continue
            except ServerStopped:
                raise
            except Exception:
                log.exception("The server failed at what came from Redis")
                inputs = [*self._lose(self.feeds.current()), *inputs]  # nobody knows what it has not come to
            self._handed_over = None
        self._handed_over = self._deliver(inputs)
