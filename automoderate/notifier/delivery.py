"""What both notifiers are made of: how much may wait, who is to take it, and what became of each item.

An item goes to the server in this process, to Redis or to a server elsewhere. Each keeps the order by itself and
answers with a future.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from attrs import frozen

from automoderate.notifier.http import check_api_key, check_url
from automoderate.notifier.http_publisher import HttpPublisher
from automoderate.notifier.items import Item, Publisher

if TYPE_CHECKING:
    from automoderate.backplane.redis import RedisPublisher

logger = logging.getLogger("automoderate.notifier")

_AT_EXIT = 2.0
"""Seconds that the interpreter's exit waits for what is still queued."""


@frozen
class _Entry:
    """One item that waits. ``settled`` is told once whether it was sent."""

    item: Item
    settled: Callable[[bool], None]


class Delivery:
    """What waits and who takes it; :class:`automoderate.notifier.Notifier` says what its arguments are.

    ``_send`` never raises and never waits. Raises ValueError where it is not told, or told twice, where the server is.
    """

    def __init__(
        self,
        *,
        realtime: Publisher | None = None,
        url: str | None = None,
        api_key: str | Mapping[str, str] | None = None,
        redis_url: str | None = None,
        queue_size: int = 10_000,
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
        if not retry_for >= 0:
            raise ValueError("retry_for is a number of seconds; with 0 nothing is tried again")
        if not timeout > 0:
            raise ValueError("timeout must be more than 0 seconds")
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
            number = self._enqueue(item, settled)
        except Exception:
            with self._changed:
                self._failed += 1
            logger.exception("could not send %s", what, extra={"event": "update_not_sent"})
        if number is None:
            settled(False)
        else:
            self._hand_over(number, item)

    def _close(self, timeout: float) -> bool:
        """Take nothing more, and wait for what is under way; True if none is left. Idempotent."""
        abandoned: list[_Entry] = []
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            flushed = self._changed.wait_for(lambda: not self._waiting, timeout)
            if not flushed:
                abandoned = list(self._waiting.values())
                self._failed += len(abandoned)
                self._waiting.clear()
                self._changed.notify_all()
        if abandoned:
            _log_failure(f"{len(abandoned)} updates before the notifier was closed", {"reason": "closed"})
        for entry in abandoned:
            entry.settled(False)
        self._stop()
        return flushed

    # Inside

    def _start_afresh(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[int, _Entry] = {}  # by a running number, so oldest first; kept until settled
        self._numbers = itertools.count()
        self._closed = False
        self._publisher, stop = self._open()
        # Also where nobody holds it any more, as who makes one for each content. What waits holds it until it is sent.
        self._stop = weakref.finalize(self, stop)
        self._stop.atexit = False  # _flush comes first
        self._dropping = False
        self._sent = self._dropped = self._failed = 0

    def _open(self) -> tuple[Publisher, Callable[[], object]]:
        """Whom to hand over to, and what ends that."""
        if self._realtime is not None:
            return self._realtime, lambda: None
        if self._url is not None:
            assert self._api_key is not None, "it was checked"
            over_http = HttpPublisher(self._url, self._api_key, retry_for=self._retry_for, timeout=self._timeout)
            return over_http, over_http.close
        assert self._redis_url is not None, "one of them is given"
        over_redis = self._open_redis(self._redis_url)
        return over_redis, lambda: over_redis.close(0.0)

    def _open_redis(self, redis_url: str) -> RedisPublisher:
        try:
            from automoderate.backplane.redis import RedisPublisher
        except ModuleNotFoundError as error:
            raise ImportError(f'redis_url= needs {error.name}: pip install "automoderate[redis]"') from error
        return RedisPublisher(redis_url, patience=self._retry_for, max_waiting=self._queue_size)

    def _enqueue(self, item: Item, settled: Callable[[bool], None]) -> int | None:
        """The number it waits under; None where it is dropped."""
        if not _sees_to_exit:
            _see_to_exit()
        with self._changed:
            closed, others = self._closed, len(self._waiting)
            if not closed and others < self._queue_size:
                number = next(self._numbers)
                self._waiting[number] = _Entry(item, settled)
                return number
            self._dropped += 1
            is_first, self._dropping = not self._dropping, True
        if is_first:
            why = "the notifier is closed" if closed else f"{others} others wait to be sent"
            logger.warning(
                "dropping %s and those that follow it: %s", item, why,
                extra={"event": "updates_dropped", **item.about, "reason": why},
            )  # fmt: skip
        return None

    def _settle(self, number: int, error: str | None) -> None:
        entry = self._waiting.get(number)
        if entry is not None and error is not None:
            # Before it is counted, and not under the lock: a log may take its time.
            _log_failure(f"{entry.item}: {error}", {**entry.item.about, "reason": error})
        with self._changed:
            entry = self._waiting.pop(number, None)
            if entry is None:
                return  # _close gave it up, and counted it
            if error is None:
                self._sent += 1
            else:
                self._failed += 1
            if not self._waiting:
                self._dropping = False
            self._changed.notify_all()
        entry.settled(error is None)

    def _hand_over(self, number: int, item: Item) -> None:
        """Give it to the publisher, which keeps the order; the future says what became of it."""

        def done(future: Future[Any]) -> None:
            error = "cancelled" if future.cancelled() else future.exception()
            self._settle(number, None if error is None else str(error))

        try:
            item.hand_over(self._publisher).add_done_callback(done)
        except Exception as error:
            self._settle(number, str(error))


def _log_failure(what: str, details: Mapping[str, str]) -> None:
    logger.warning("could not send %s", what, extra={"event": "update_not_sent", **details})


_deliveries: weakref.WeakSet[Delivery] = weakref.WeakSet()
_sees_to_exit = False


def _after_fork() -> None:
    # The child has neither the thread nor, perhaps, an unlocked lock; what is queued is the parent's to send.
    global _sees_to_exit
    _sees_to_exit = False
    for delivery in tuple(_deliveries):
        delivery._stop.detach()  # noqa: SLF001 - of a class of this file
        delivery._start_afresh()  # noqa: SLF001 - the same


@atexit.register
def _flush() -> None:
    until = time.monotonic() + _AT_EXIT
    for delivery in tuple(_deliveries):
        delivery._close(max(0.0, until - time.monotonic()))  # noqa: SLF001 - the same


def _see_to_exit() -> None:
    """Have a child of ``multiprocessing`` flush, too: it ends without what is registered with ``atexit``.

    Not before there is something to send: until it runs its own code such a child forgets what it is told.
    """
    global _sees_to_exit
    _sees_to_exit = True
    if "multiprocessing.util" in sys.modules:  # else this is none, and need not import it
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            util.Finalize(None, _flush, exitpriority=0)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(after_in_child=_after_fork)
