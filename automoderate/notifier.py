"""Tells dashboards what the moderation pipeline decided, without ever getting in the pipeline's way.

:class:`WebSocketNotifier` has the methods of AutoModerate's own notifier. It works in the process of the server
(``realtime=``) or in any other, through the Redis of several nodes (``redis_url=``) or over the publishing API
(``url=`` and ``api_key=``).
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
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from automoderate import payloads
from automoderate.publishing import PublishingApi, Refused, Unreachable, check_api_key, check_url

if TYPE_CHECKING:
    from automoderate.backplane.redis import RedisDoor

logger = logging.getLogger(__name__)

_BACK_OFF = 0.25, 5.0
"""Seconds before the first retry, doubled from one to the next, and the most it grows to."""
_AT_EXIT = 2.0
"""Seconds that the interpreter's exit waits for what is still queued."""


class Realtime(Protocol):
    """What the notifier needs of the server in its own process (:class:`automoderate.realtime.Realtime`)."""

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
        """Publish one event; the future has its ``event_id``."""

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Have live sessions checked again."""


@frozen
class _Item:
    """One thing to send; ``event`` is None for an announcement of changed access. ``expires`` on ``time.monotonic``."""

    project_id: str
    event: str | None
    data: Mapping[str, Any]
    expires: float

    def __str__(self) -> str:
        return f"{self.event or 'access change'} of project {self.project_id}"


class WebSocketNotifier:
    """Sends updates to dashboards. Every method returns at once and none raises, whatever it is given.

    ``realtime`` is the server in this process; else ``url`` is where the server is and ``api_key`` the project's
    key, or a mapping of project ids to keys for a pipeline of several projects; ``redis_url`` is the Redis that the
    nodes share, which needs the extra ``redis``.

    At most ``queue_size`` updates wait to be sent; while it is full, new ones are dropped, so that what a dashboard
    does get has no holes before it. Outside the server's process one thread sends them, in order; while Redis is away,
    or the server is or answers 429, 502, 503 or 504, it tries again, with growing jittered pauses, for up to
    ``retry_for`` seconds from when the update was handed over. An answer lost on the way is a reason to try again too,
    so in rare cases an update is published twice, under two event ids. ``timeout`` is that of one attempt over HTTP, in
    seconds.

    The counters ``sent``, ``dropped`` (never tried: queue full or notifier closed) and ``failed`` (tried in vain, or
    impossible to send) are this process's: after a fork the child counts, queues and sends by itself.

    Raises ValueError where it is not told, or told twice, where the server is.
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
        _notifiers.add(self)

    # What AutoModerate calls ------------------------------------------------------------------------------

    def send_update_async(self, content: object, decision: object, results: object, total_time: object) -> None:
        """A decision was made: ``moderation_update``. ``total_time`` is in seconds. Nothing to await."""
        self._send("moderation_update", lambda: payloads.moderation_update(content, decision, results, total_time))

    def send_content_created(self, content: object) -> None:
        """Content came in and nobody has decided yet: ``content_received``."""
        self._send("content_received", lambda: payloads.content_received(content))

    def send_stats_update(self, project_id: object, stats: object) -> None:
        """New statistics of a project: ``stats_update``."""
        self._send("stats_update", lambda: (_room(project_id), payloads.stats_update(stats)))

    def send_rule_update(self, project_id: object, rule_data: object, action: object = "updated") -> None:
        """A rule was ``created``, ``updated`` or ``deleted``: ``rule_update``."""
        self._send("rule_update", lambda: (_room(project_id), payloads.rule_update(rule_data, action)))

    def access_changed(self, project_id: object, user_id: object = None) -> None:
        """Who may see a project changed, for everybody or for one user: live sessions are checked again at once."""
        self._send(None, lambda: (_room(project_id), {} if user_id is None else {"user_id": str(user_id)}))

    # Counters and the end ---------------------------------------------------------------------------------

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

    def close(self, timeout: float = 5.0) -> bool:
        """Stop taking updates and wait up to ``timeout`` seconds for those under way; True if none is left.

        What is still queued then counts as failed. Idempotent.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            flushed = self._changed.wait_for(lambda: not self._waiting, timeout)
            if not flushed:
                self._fail(f"{len(self._waiting)} updates before the notifier was closed", count=len(self._waiting))
                self._waiting.clear()
                self._changed.notify_all()
        if self._door is not None:
            self._door.close(0.0)
        return flushed

    # Inside -----------------------------------------------------------------------------------------------

    def _start_afresh(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[int, _Item] = {}  # by a running number, so oldest first; kept until settled
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

    def _send(self, event: str | None, shape: Callable[[], tuple[str, Mapping[str, Any]]]) -> None:
        try:
            project_id, data = shape()
            item = _Item(project_id, event, data, time.monotonic() + self._retry_for)
            number = self._enqueue(item)
            if number is not None and self._realtime is not None:
                self._hand_over(number, item, self._realtime)
        except Exception:
            with self._changed:
                self._failed += 1
            logger.exception("could not send %s", event or "access change")

    def _enqueue(self, item: _Item) -> int | None:
        with self._changed:
            if self._closed or len(self._waiting) >= self._queue_size:
                self._dropped += 1
                if not self._dropping:
                    self._dropping = True
                    why = "the notifier is closed" if self._closed else f"{len(self._waiting)} others wait to be sent"
                    logger.warning("dropping %s and those that follow it: %s", item, why)
                return None
            if self._realtime is None and self._worker is None:
                self._worker = threading.Thread(target=self._work, name="automoderate-notifier", daemon=True)
                self._worker.start()
            number = next(self._numbers)
            self._waiting[number] = item
            self._changed.notify_all()
            return number

    def _settle(self, number: int, error: str | None) -> None:
        with self._changed:
            item = self._waiting.pop(number, None)
            if item is None:
                return  # close() gave it up, and counted it
            if error is None:
                self._sent += 1
            else:
                self._fail(f"{item}: {error}")
            if not self._waiting:
                self._dropping = False
            self._changed.notify_all()

    def _fail(self, what: str, count: int = 1) -> None:
        self._failed += count
        logger.warning("could not send %s", what)

    def _hand_over(self, number: int, item: _Item, realtime: Realtime) -> None:
        """To the server in this process or to Redis, which keep the order; the future says what became of it."""

        def done(future: Future[Any]) -> None:
            error = "cancelled" if future.cancelled() else future.exception()
            self._settle(number, None if error is None else str(error))

        future: Future[Any]
        try:
            if item.event is None:
                future = realtime.access_changed(user_id=item.data.get("user_id"), project_id=item.project_id)
            else:
                future = realtime.publish(item.project_id, item.event, item.data)
        except Exception as error:
            self._settle(number, str(error))
        else:
            future.add_done_callback(done)

    def _work(self) -> None:
        """The one thread that sends over HTTP."""
        assert self._url is not None, "only HTTP needs a thread"
        with PublishingApi(self._url, timeout=self._timeout) as api:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                    if not self._waiting:
                        return
                    number, item = next(iter(self._waiting.items()))
                try:
                    error = self._deliver(api, item)
                except Exception as unexpected:  # the thread lives on for the updates behind this one
                    logger.exception("unexpected failure")
                    error = repr(unexpected)
                self._settle(number, error)

    def _deliver(self, api: PublishingApi, item: _Item) -> str | None:
        """Send one item, trying again within its time; None, or why it could not be sent."""
        api_key = self._api_key if isinstance(self._api_key, str) else (self._api_key or {}).get(item.project_id)
        if api_key is None:
            return "there is no API key for this project"
        error = f"it waited for more than {self._retry_for:g} seconds"
        pause, longest = _BACK_OFF
        while time.monotonic() < item.expires:
            try:
                if item.event is None:
                    api.access_changed(api_key, project_id=item.project_id, **item.data)
                else:
                    api.publish(item.project_id, api_key, item.event, item.data)
                return None
            except Refused as refused:
                error = str(refused)
                if not refused.temporary:
                    break
            except Unreachable as unreachable:
                error = str(unreachable)
            # Jitter, so that many processes do not come back to a restarted server in step.
            rest = min(pause * random.uniform(0.5, 1.0), item.expires - time.monotonic())
            pause = min(pause * 2, longest)
            with self._changed:
                if self._changed.wait_for(lambda: not self._waiting, max(0.0, rest)):
                    break  # close() gave it up
        return error


def _room(project_id: object) -> str:
    if project_id is None or project_id == "":
        raise ValueError("no project is named")
    return str(project_id)


_notifiers: weakref.WeakSet[WebSocketNotifier] = weakref.WeakSet()


def _after_fork() -> None:
    # The child has neither the thread nor, perhaps, an unlocked lock; what is queued is the parent's to send.
    for notifier in tuple(_notifiers):
        notifier._start_afresh()


@atexit.register
def _flush() -> None:
    for notifier in tuple(_notifiers):
        notifier.close(_AT_EXIT)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["Realtime", "WebSocketNotifier"]
