"""The thread that reads Redis: the streams a node follows, of which a subscription says where something is new.

What is not named costs nothing, so that the cost follows the updates and not the number of projects. But the streams
are the truth, and the subscription only makes it quick. An entry that it tells is taken where that before it was, and
each stream is looked at when Redis has confirmed that its channel is heard, all of them after every reconnection of
either connection, and besides in turn, so that an entry of which no publisher said anything is found within
LOOK_EVERY * TURNS seconds.

Each followed stream has a *position*, the id of the last entry that was handed over. It starts where the first reading
of the project's history ended, so that what is read here continues exactly there. A gap is never passed over:

- The streams are not trimmed to fewer than READ_COUNT entries, so only an answer of READ_COUNT entries can begin behind
  something that was trimmed. Then, and after every reconnection, and when Redis has forgotten what this node said, the
  position has to be in the stream still; where it is not, the project is lost, and its clients have to catch up.
- While a batch has not been taken by the server's loop, the next is read but not handed over: what a slow node has not
  come to waits in Redis. Messages of the subscription wait as well, and where they become too many Redis ends that
  connection, which is a reconnection like any other.
- What is told the server's loop hears by itself, which saves the waking of this thread. The thread rests meanwhile, and
  the loop touches what is its own; only one of them does at any time. The thread takes over where something has to be
  read, and each second to look at streams of which no message came.
- A key that holds something else than a stream has no position any more: its project is lost, and no other. Who comes
  back is refused, by the reading of the history, until there is a stream again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import redis

from automoderate._threads import ServerStopped, real, real_future
from automoderate.backplane.redis.connection import Pauses, RedisConnection
from automoderate.backplane.redis.direct import Direct
from automoderate.backplane.redis.entries import CONTROL, READ_COUNT, TOLD, Announcement, BadEntry, Entry, told, update
from automoderate.backplane.redis.feeds import TURNS, Feed, Feeds
from automoderate.backplane.redis.heartbeat import Heartbeat
from automoderate.backplane.redis.presence import heard
from automoderate.backplane.redis.questions import ASK, questioned
from automoderate.backplane.redis.streams import BEGINNING, GROUP, Streams
from automoderate.backplane.redis.subscription import Subscription
from automoderate.backplane.redis.troubles import CONNECTIONS, ENTRIES, Troubles
from automoderate.core.hub import HistoryLost, Input, PositionAdvanced, Published
from automoderate.server.interfaces import Heard, Listen

log = logging.getLogger("automoderate.redis")

LOOK_EVERY = 1.0
"""Seconds from looking at one part of the streams unasked to looking at the next."""
NAMED = 3
"""Projects that are named in one line of the log."""

Deliver = Callable[[Sequence[Heard]], Future[None]]


class Reader:
    """Reads the streams of the projects that are followed, which are ``feeds``."""

    def __init__(self, url: str, node: str, heartbeat: Heartbeat, troubles: Troubles, deliver: Deliver) -> None:
        self._link = RedisConnection(url)
        self._streams = Streams(self._link, troubles)
        self._troubles = troubles
        self._subscription = Subscription(url)
        self._node = node
        self._heartbeat = heartbeat
        self._deliver = deliver
        self._threading = real(threading)
        self._stopping: threading.Event = self._threading.Event()
        self.feeds = Feeds()
        self._unread: set[bytes] = set()  # the streams to be looked at without waiting
        self._turn = 0
        self._look_due = 0.0
        self._own_key, self._control_key = heartbeat.key.encode(), CONTROL.encode()
        self._own = BEGINNING
        self._control: str | None = None
        self._handed_over: Future[None] | None = None
        self._listen: Listen | None = None
        self._may_rest = False  # nothing of what was heard last had to be read
        self._resting = self._wanted = False  # the loop has the subscription, and all that is here; and is to end that
        self._back: threading.Event = self._threading.Event()  # set when the thread has them again
        self._broken: Exception | None = None
        self._thread: threading.Thread = self._threading.Thread(
            target=self._run, name="automoderate-redis-reader", daemon=True
        )
        self.connected = False
        self.reconnects = self.rejected = self.lost = 0

    def start(self, listen: Listen | None = None) -> None:
        """Begin to read; the loop hears what it can, where it can ``listen``."""
        self._listen = listen
        self._thread.start()

    def stop(self) -> None:
        """End with the next message, or within a second."""
        self._stopping.set()
        self._back.set()

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
                    if self._heartbeat.forgotten.is_set():
                        self._heartbeat.forgotten.clear()
                        self._look_for_gaps()
                    self._look()
                    self._troubles.worked(CONNECTIONS)
                    self._troubles.worked(ENTRIES)
            except ServerStopped:
                break
            except Exception as error:
                self._disconnected(error)
            self._stopping.wait(pauses.next())
        self._close()

    def _disconnected(self, error: Exception) -> None:
        self._troubles.failed(CONNECTIONS, error)
        if self.connected:
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
            self._control = self._streams.newest(CONTROL)
        self._look_for_gaps()
        self._unread = self._read(self._all())
        self.connected = True

    def _look(self) -> None:
        """Wait until something is new somewhere, and read it."""
        self._rest()
        patience = 0.0 if self._unread else max(0.0, self._look_due - time.monotonic())
        unread, said = self._subscription.hear(patience)
        self._unread |= unread
        self._hand_over(self._heard(said))
        if unread or said:
            self._may_rest = not self._unread
        self._unread |= self._subscription.change(*self.feeds.changed())
        is_turn = time.monotonic() >= self._look_due
        if is_turn:
            self._look_due = time.monotonic() + LOOK_EVERY
            self._unread |= self._unasked()
        self._unread = self._read(list(self._unread))
        if is_turn and self._heartbeat.overdue:
            raise redis.ConnectionError("what this node writes is not read: two connections, two servers")

    # The loop in its place

    def _rest(self) -> None:
        """Have the loop hear, until something has to be read, or looked at."""
        direct = None if self._unread or not self._may_rest else self._subscription.direct
        if self._listen is None or direct is None:
            return
        hear = partial(self._hear_on_loop, direct)
        self._back.clear()
        self._resting, self._wanted = True, False
        try:
            self._listen(direct.fileno, hear)
            self._back.wait(max(0.0, self._look_due - time.monotonic()))
            self._may_rest = self._wanted = self._resting
            if self._wanted:
                self._listen(direct.fileno, hear).result()
        finally:
            self._resting = False
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken

    def _hear_on_loop(self, direct: Direct, receive: Callable[[Sequence[Heard]], None]) -> bool:
        """Hear what has come; whether the loop goes on, as the hub could be told all of it at once."""
        if not self._resting:
            return False
        if not self._wanted and self._all_taken():
            try:
                unread, said = self._subscription.take(direct)
                self._unread |= unread
                inputs = self._heard(said)
            except Exception as error:
                self._broken = error
            else:
                if self._received(inputs, receive) and not self._unread:
                    return True
        self._resting = False
        self._back.set()
        return False

    def _all_taken(self) -> bool:
        """Whether the server's loop has done, without a failure, what it was given."""
        last = self._handed_over
        if last is not None and last.done() and last.exception() is None:
            last = self._handed_over = None
        return last is None

    def _received(self, inputs: Sequence[Heard], receive: Callable[[Sequence[Heard]], None]) -> bool:
        """Tell the hub; whether it did not fail, which the thread otherwise finds as a failure of what it gave."""
        try:
            if inputs:
                receive(inputs)
        except Exception as error:
            self._handed_over = real_future()
            self._handed_over.set_exception(error)
            return False
        return True

    def _unasked(self) -> set[bytes]:
        """A part of the streams, to be looked at whatever was said of them. Tries the subscription, too."""
        self._link.call(self._heartbeat.say())
        self._subscription.expect()
        self._turn = (self._turn + 1) % TURNS
        part = (feed.key for feed in self.feeds.current() if feed.turn == self._turn)
        return {self._own_key, self._control_key, *part}

    def _all(self) -> list[bytes]:
        """Every stream."""
        return [self._own_key, self._control_key, *(feed.key for feed in self.feeds.current())]

    def _look_for_gaps(self) -> None:
        """Redis may have lost entries: let go of what can no longer be continued exactly where it was."""
        self._own = BEGINNING
        if self._streams.without({self._control_key: str(self._control)}):
            self._control = BEGINNING  # all that is there is newer
        self._hand_over(self._lose(self._gone(self.feeds.current())))

    def _gone(self, feeds: Sequence[Feed]) -> list[Feed]:
        """Those whose position is no longer in their stream."""
        gone = self._streams.without({feed.key: str(feed.position) for feed in feeds})
        return [feed for feed in feeds if feed.key in gone]

    def _lose(self, feeds: Sequence[Feed]) -> list[Input]:
        if feeds:
            some = ", ".join(f"{feed.project_id} after {feed.position}" for feed in feeds[:NAMED])
            more = f" and {len(feeds) - NAMED} other projects" if len(feeds) > NAMED else ""
            log.warning("Updates may be missing from Redis: of %s%s", some, more, extra={"event": "history_lost"})
        self.feeds.lose(feeds)
        self.lost += len(feeds)
        return [HistoryLost(feed.project_id) for feed in feeds]

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
        if not ids and self._control_key not in keys:
            return set()
        # Always: there may be an update that follows an announcement of which the message has not come yet.
        ids[self._control_key] = str(self._control)
        news, refused = self._streams.news(ids)
        found = [feed for feed in feeds if feed.key in news and feed in self.feeds]
        # The last that can fail: from here on positions move, and what they have passed is handed over.
        gone = self._gone([feed for feed in found if len(news[feed.key]) == READ_COUNT])
        self._read_own(news.get(self._own_key, []))
        if self._control_key in refused:
            self._control = BEGINNING  # all that will be there is newer
        inputs: list[Input] = self._announced(news.get(self._control_key, []))
        inputs.extend(self._lose([*gone, *(feed for feed in feeds if feed.key in refused and feed in self.feeds)]))
        for feed in found:
            if feed not in gone:
                inputs.extend(self._updates(feed, news[feed.key]))
        self._hand_over(inputs)
        return {key for key, entries in news.items() if len(entries) == READ_COUNT}

    def _read_own(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._own = entry[0].decode()
            self._heartbeat.read(entry)

    def _announced(self, entries: Sequence[Entry]) -> list[Input]:
        inputs: list[Input] = []
        for entry in entries:
            self._control = entry[0].decode()
            try:
                announcement = Announcement.decode(entry)
            except BadEntry as error:
                self._reject(f"entry {self._control} of {CONTROL}", error)
            else:
                if announcement.node != self._node:  # it has acted already
                    inputs.append(announcement.item)
        return inputs

    def _heard(self, said: Sequence[tuple[bytes, bytes]]) -> list[Heard]:
        """What is to be told of what was said on channels; the rest is done, or is to be read.

        Beats of this node, questions to it, who is in a room, an entry, or that there is something new.
        """
        inputs: list[Heard] = []
        # Where something is to be read, all is: announcements come before the updates that follow them.
        takes = not self._unread
        for key, message in said:
            if key == self._own_key and message.startswith(ASK):
                inputs.extend(questioned(message))
            elif key == self._own_key:
                self._heartbeat.hear(message)
            elif message.startswith(b"{"):
                inputs.extend(self._shared_presence(key, message))
            elif takes and message.startswith(TOLD):
                inputs.extend(self._told(key, message))
            else:
                self._unread.add(key)
        return inputs

    def _told(self, key: bytes, message: bytes) -> Iterable[Input]:
        """The update of which a message tells, if it is the next; the stream is read where it may not be."""
        try:
            before, entry = told(message)
        except BadEntry as error:
            self._reject(f"a message of {len(message)} bytes on the channel {key.decode()}", error)
            self._unread.add(key)
            return []
        feed = self.feeds.one(key)
        if feed is None:
            return []
        if feed.position != before:
            self._unread.add(key)
            return []
        return self._updates(feed, [entry])

    def _shared_presence(self, key: bytes, message: bytes) -> Iterator[Input]:
        try:
            shared = heard(message)
        except BadEntry as error:
            self._reject(f"a message of {len(message)} bytes on the channel {key.decode()}", error)
        else:
            if shared.node != self._node:
                yield shared

    def _updates(self, feed: Feed, entries: Sequence[Entry]) -> Iterator[Input]:
        for entry in entries:
            feed.position = entry[0].decode()
            try:
                found = update(feed.project_id, entry)
            except BadEntry as error:
                self._reject(f"entry {feed.position} of {feed.key.decode()}", error)
                found = None
            yield PositionAdvanced(feed.project_id, feed.position) if found is None else Published(found)

    def _reject(self, what: str, error: BadEntry) -> None:
        self.rejected += 1
        self._troubles.failed(ENTRIES, BadEntry(f"{what} is skipped: {error}"))

    def _hand_over(self, inputs: Sequence[Heard]) -> None:
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
                log.exception("The server failed at what came from Redis", extra={"event": "receive_error"})
                inputs = [*self._lose(self.feeds.current()), *inputs]  # what it has not come to is unknown
            self._handed_over = None
        self._handed_over = self._deliver(inputs)
