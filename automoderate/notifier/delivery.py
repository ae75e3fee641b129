"""What both notifiers are made of: a bounded queue, what empties it, and what became of each item.

An item goes to the server in this process or to Redis, which keep the order by themselves and answer with a future, or
over HTTP by the one thread that this module starts.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from attrs import frozen

from automoderate._items import Item, Logout, Realtime
from automoderate.publishing import PublishingApi, Refused, Unreachable, check_api_key, check_url

if TYPE_CHECKING:
    from automoderate.backplane.redis import RedisDoor

logger = logging.getLogger("automoderate.notifier")

_BACK_OFF = 0.25, 5.0
"""Seconds before the first retry, doubled from one to the next, and the most it grows to."""
_AT_EXIT = 2.0
"""Seconds that the interpreter's exit waits for what is still queued."""


@frozen
class _Entry:
    """One item in the queue. ``expires`` on ``time.monotonic``; ``settled`` is told once whether it was sent."""

    item: Item
    expires: float
    settled: Callable[[bool], None]


class Delivery:
    """The queue and what empties it; :class:`automoderate.notifier.Notifier` says what its arguments are.

    ``_send`` never raises and never waits. Raises ValueError where it is not told, or told twice, where the server is.
    """

    def __init__(
        self,
        *,
        realtime: Realtime | None = None,
        url: str | None = None,
        api_key: str | Mapping[str, str] | None = None,
        redis_url: str | None = None,
        queue_size: int = 1000,
        retry_for: float = 30.0,
        timeout: float = 5.0,
    ) -> None:
        if [realtime, url, redis_url].count(None) != 2:
            raise ValueError(
                "give one of realtime= (the server in this process), redis_url= (what the nodes share) or "
                "url= (a server elsewhere)"
            )
        if url is not None:
            check_url(url)
            if not api_key:
                raise ValueError("url= needs api_key=, the key of the project to publish to")
        elif api_key is not None:
            raise ValueError("api_key= goes with url=; elsewhere none is asked for")
        for key in [api_key] if isinstance(api_key, str) else (api_key or {}).values():
            check_api_key(key)
        if queue_size < 1:
            raise ValueError("queue_size must be at least 1")
        self._realtime = realtime
        self._url = url
        self._redis_url = redis_url
        self._api_key = api_key
        self._queue_size = queue_size
        self._retry_for = retry_for
        self._timeout = timeout
        self._start_afresh()
        _deliveries.add(self)

    @property
    def sent(self) -> int:
        """How many the server accepted."""
        return self._sent

    @property
    def dropped(self) -> int:
        """How many were not even tried."""
        return self._dropped

    @property
    def failed(self) -> int:
        """How many could not be sent."""
        return self._failed

    def _send(self, what: str, make: Callable[[], Item], settled: Callable[[bool], None]) -> None:
        """Queue the item that ``make`` makes.

        ``settled`` is called once, on any thread and perhaps before this returns, with whether it was sent.
        """
        number = None
        try:
            item = make()
            if isinstance(item, Logout) and self._url is not None:
                with self._changed:
                    self._fail(f"{item}: no API key may end a user's sessions; it takes realtime= or redis_url=")
            else:
                number = self._enqueue(item, settled)
        except Exception:
            with self._changed:
                self._failed += 1
            logger.exception("could not send %s", what)
        if number is None:
            settled(False)
        elif self._realtime is not None:
            self._hand_over(number, item, self._realtime)

    def _close(self, timeout: float) -> bool:
        """Take nothing more, and wait for what is under way; True if none is left. Idempotent."""
        abandoned: list[_Entry] = []
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            flushed = self._changed.wait_for(lambda: not self._waiting, timeout)
            if not flushed:
                abandoned = list(self._waiting.values())
                self._fail(f"{len(abandoned)} updates before the notifier was closed", count=len(abandoned))
                self._waiting.clear()
                self._changed.notify_all()
        for entry in abandoned:
            entry.settled(False)
        if self._door is not None:
            self._door.close(0.0)
        return flushed

    # Inside

    def _start_afresh(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[int, _Entry] = {}  # by a running number, so oldest first; kept until settled
        self._numbers = itertools.count()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._door = None if self._redis_url is None else self._open(self._redis_url)
        if self._door is not None:
            self._realtime = self._door
        self._dropping = False
        self._sent = self._dropped = self._failed = 0

    def _open(self, redis_url: str) -> RedisDoor:
        try:
            from automoderate.backplane.redis import RedisDoor
        except ModuleNotFoundError as error:
            raise ImportError(f'redis_url= needs {error.name}: pip install "automoderate[redis]"') from error
        return RedisDoor(redis_url, patience=self._retry_for, max_waiting=self._queue_size)

    def _enqueue(self, item: Item, settled: Callable[[bool], None]) -> int | None:
        """The number it waits under; None where it is dropped."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._queue_size:
                self._dropped += 1
                if not self._dropping:
                    self._dropping = True
                    why = "the notifier is closed" if self._closed else f"{len(self._waiting)} others wait to be sent"
                    logger.warning("dropping %s and those that follow it: %s", item, why)
                return None
            if self._realtime is None and self._worker is None:
                worker = threading.Thread(target=self._work, name="automoderate-notifier", daemon=True)
                worker.start()  # where that fails the next one tries again
                self._worker = worker
            number = next(self._numbers)
            self._waiting[number] = _Entry(item, time.monotonic() + self._retry_for, settled)
            self._changed.notify_all()
            return number

    def _settle(self, number: int, error: str | None) -> None:
        with self._changed:
            entry = self._waiting.pop(number, None)
            if entry is None:
                return  # _close gave it up, and counted it
            if error is None:
                self._sent += 1
            else:
                self._fail(f"{entry.item}: {error}")
            if not self._waiting:
                self._dropping = False
            self._changed.notify_all()
        entry.settled(error is None)

    def _fail(self, what: str, count: int = 1) -> None:
        logger.warning("could not send %s", what)
        self._failed += count  # whoever sees it finds the line in the log

    def _hand_over(self, number: int, item: Item, realtime: Realtime) -> None:
        """To the server in this process or to Redis, which keep the order; the future says what became of it."""

        def done(future: Future[Any]) -> None:
            error = "cancelled" if future.cancelled() else future.exception()
            self._settle(number, None if error is None else str(error))

        try:
            item.hand_over(realtime).add_done_callback(done)
        except Exception as error:
            self._settle(number, str(error))

    def _work(self) -> None:
        """The one thread that sends over HTTP."""
        assert self._url is not None, "only HTTP needs a thread"
        with PublishingApi(self._url, timeout=self._timeout) as api:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                    if not self._waiting:
                        return
                    number, entry = next(iter(self._waiting.items()))
                try:
                    error = self._deliver(api, entry)
                except Exception as unexpected:  # the thread lives on for the updates behind this one
                    logger.exception("unexpected failure")
                    error = repr(unexpected)
                self._settle(number, error)

    def _deliver(self, api: PublishingApi, entry: _Entry) -> str | None:
        """Send one item, trying again within its time; None, or why it could not be sent."""
        item = entry.item
        assert not isinstance(item, Logout), "it was refused"
        api_key = self._api_key if isinstance(self._api_key, str) else (self._api_key or {}).get(item.project_id)
        if api_key is None:
            return "there is no API key for this project"
        error = f"it waited for more than {self._retry_for:g} seconds"
        pause, longest = _BACK_OFF
        while time.monotonic() < entry.expires:
            try:
                item.post(api, api_key)
                return None
            except Refused as refused:
                error = str(refused)
                if not refused.temporary:
                    break
            except Unreachable as unreachable:
                error = str(unreachable)
            # Jitter, so that many processes do not come back to a restarted server in step.
            rest = min(pause * random.uniform(0.5, 1.0), entry.expires - time.monotonic())
            pause = min(pause * 2, longest)
            with self._changed:
                if self._changed.wait_for(lambda: not self._waiting, max(0.0, rest)):
                    break  # _close gave it up
        return error


_deliveries: weakref.WeakSet[Delivery] = weakref.WeakSet()


def _after_fork() -> None:
    # The child has neither the thread nor, perhaps, an unlocked lock; what is queued is the parent's to send.
    for delivery in tuple(_deliveries):
        delivery._start_afresh()


@atexit.register
def _flush() -> None:
    for delivery in tuple(_deliveries):
        delivery._close(_AT_EXIT)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(after_in_child=_after_fork)
