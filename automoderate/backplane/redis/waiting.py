"""What waits to be written to Redis: updates and announcements in their order, and messages that may be lost."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from attrs import define, field

from automoderate._threads import Bell, real, real_future
from automoderate.backplane.redis.connection import Command
from automoderate.backplane.redis.direct import Direct
from automoderate.server.interfaces import BackplaneBusy, BackplaneUnavailable

BATCH = 128
"""Items taken at once."""
BATCH_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes of items that wait."""
LENT = 1.0
"""Seconds after which a thread that lends its connection looks whether an answer is missing."""
MAX_MESSAGES = 1000
"""Messages that wait; beyond that the oldest are dropped."""


Settle: TypeAlias = "Callable[[Item, Direct], bool]"
"""Settles an item whose answer has come, or says False."""


def _running() -> Future[Any]:
    future = real_future()
    future.set_running_or_notify_cancel()
    return future


@define(eq=False)
class Item:
    """Commands that belong together and add to the stream ``key``; the answer to the first is the future's result.

    ``alone`` is the command, packed, to send instead where nothing else is added to the stream at the same time. What
    is ``persistent`` is sent again where it may have been stored already. Of what is ``told`` those who read the stream
    learn by its commands.
    """

    commands: tuple[Command, ...]
    key: str
    size: int
    expires: float
    persistent: bool
    told: bool = False
    alone: bytes | None = None
    sent: bool = False
    """Whether it may be stored: it was sent, and Redis has not said that it was refused."""
    unsent: bytes | None = None
    """Where who published it has sent it at once: what the connection has not taken of it."""
    future: Future[Any] = field(factory=_running)


class Waiting:
    """The items that wait, bounded in number and bytes. Thread-safe: many put, and one takes.

    The thread that takes lends its connection while it has nothing to do, and who comes first then sends by itself: one
    thread less has to be woken. The answer wakes the thread, and what comes until then waits for it, as it does while
    the thread is at work.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._lent: Direct | None = None
        self._sent: Item | None = None
        self._bell: Bell | None = None
        self._lock: threading.RLock = real(threading).RLock()
        self._changed: threading.Condition = real(threading).Condition(self._lock)
        self._watchers = 0
        self._nudged = False
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._under_way = 0
        self._messages: deque[Command] = deque(maxlen=MAX_MESSAGES)
        self.closed = self._over = False

    def __len__(self) -> int:
        """How many items have not been settled yet."""
        return len(self._items) + self._under_way

    def put(self, item: Item) -> BackplaneUnavailable | None:
        """Add an item, or say why not."""
        with self._changed:
            if self.closed:
                return BackplaneUnavailable("Redis has not taken it: publishing was stopped")
            if len(self._items) >= self._max_items or self._bytes + item.size > MAX_WAITING_BYTES:
                return BackplaneBusy(f"Redis has not taken it: {len(self._items)} others wait to be published")
            if self._sends(item):
                return None
            self._items.append(item)
            self._bytes += item.size
            self._tell()
            return None

    def put_message(self, message: Command) -> None:
        """Add a message, which is lost where this is closed."""
        with self._changed:
            if not self.closed:
                self._messages.append(message)
                self._tell()

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until half of what may wait could be added."""

        def roomy() -> bool:
            return 2 * len(self._items) < self._max_items and 2 * self._bytes < MAX_WAITING_BYTES

        with self._changed:
            return self._wait_for(roomy, timeout)

    def close(self, timeout: float) -> tuple[bool, Sequence[Item]]:
        """Add nothing more and wait up to ``timeout`` seconds until all is settled: whether it is, and what is not."""
        with self._changed:
            self.closed = True
            self._tell()
            done = self._wait_for(lambda: not len(self), timeout)
            abandoned, self._items, self._bytes = list(self._items), deque(), 0
            self._over = True
        return done, abandoned

    # For the thread that takes

    def take(
        self, timeout: float | None, direct: Direct | None = None, settle: Settle = lambda *_: False
    ) -> list[Item] | None:
        """Wait for something to do; None at the end. What is taken is under way until the next call, or ``put_back``.

        Nothing after ``timeout`` seconds, or where there are only messages. ``direct`` is the connection, for an item
        that is sent at once: it is settled by ``settle``, or taken by itself where that says False, and has been sent
        but for what is ``unsent``.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        if direct is not None and (sent := self._lend(direct, until, settle)) is not None:
            return [sent]
        with self._changed:
            self._settled()
            left = until - time.monotonic()
            self._wait_for(self._called_for, None if left == math.inf else left)
            self._nudged = False
            if self.closed and not self._items and not self._messages:
                return None
            batch: list[Item] = []
            size = 0
            while self._items and len(batch) < BATCH and size < BATCH_BYTES:
                batch.append(self._items.popleft())
                size += batch[-1].size
            self._bytes -= size
            self._under_way = len(batch)
            return batch

    def take_messages(self) -> list[Command]:
        """All the messages that wait."""
        with self._changed:
            messages = list(self._messages)
            self._messages.clear()
            return messages

    def put_back(self, batch: Sequence[Item]) -> list[Item]:
        """These are to be tried again, before all others; returns those that have waited for too long."""
        with self._changed:
            now = math.inf if self._over else time.monotonic()
            waiting = [*batch, *self._items]
            self._items = deque(item for item in waiting if item.expires > now)
            self._bytes = sum(item.size for item in self._items)
            self._settled()
        return [item for item in waiting if item.expires <= now]

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        with self._changed:
            self._wait_for(lambda: self.closed, seconds)

    def nudge(self) -> None:
        """Have ``take`` return with what there is, if only nothing."""
        with self._lock:
            self._nudged = True
            self._tell()

    def end(self) -> None:
        """Nothing is taken any more."""
        if self._bell is not None:
            self._bell.close()

    # Inside

    def _called_for(self) -> bool:
        return bool(self._items or self._messages or self._nudged or self.closed)

    def _tell(self) -> None:
        """There is something for the thread to do."""
        self._notify()
        if self._lent is not None and self._bell is not None:
            self._lent = None
            self._bell.ring()

    def _wait_for(self, true: Callable[[], object], timeout: float | None) -> bool:
        self._watchers += 1
        try:
            return bool(self._changed.wait_for(true, timeout))
        finally:
            self._watchers -= 1

    def _notify(self) -> None:
        if self._watchers:  # mostly there is none, and asking the condition takes longer
            self._changed.notify_all()

    def _sends(self, item: Item) -> bool:
        """Whether it is sent at once: it comes first, by itself, and the connection takes it."""
        if self._lent is None or item.alone is None:
            return False
        size = self._lent.send(item.alone)
        if not size:
            return False
        self._sent, item.sent, item.unsent = item, True, item.alone[size:]
        self._under_way = 1
        if item.unsent:
            self._tell()
        self._lent = None
        return True

    def _lend(self, direct: Direct, until: float, settle: Settle) -> Item | None:
        """Lend the connection until there is something to do; the item that was sent over it, if one is to be settled.

        What is answered as nearly always is settled here, and nothing else has to be asked or looked at.
        """
        self._bell = self._bell or Bell()
        while self._may_lend(direct):
            came, sent = False, None
            while not (came or sent or self._lent is None or time.monotonic() >= until):
                # Not for longer, as what is sent meanwhile may never be answered.
                came = direct.wait(self._bell, min(LENT, until - time.monotonic()))
                with self._lock:
                    sent = self._sent
            with self._lock:
                sent, self._sent, self._lent = self._sent, None, None
            if sent is None or sent.unsent or not came or not settle(sent, direct):
                return sent
        return None

    def _may_lend(self, direct: Direct) -> bool:
        with self._lock:
            self._settled()
            self._lent = None if self._called_for() else direct
            return self._lent is not None

    def _settled(self) -> None:
        self._under_way = 0
        self._notify()


def together(batch: Sequence[Item]) -> set[str]:
    """The streams of which is told after everything was added to them, as several items are."""
    if len(batch) == 1 and batch[0].alone:
        return set()
    times = Counter(item.key for item in batch)
    return {item.key for item in batch if not item.told and (times[item.key] > 1 or not item.alone)}
