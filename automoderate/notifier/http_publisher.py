"""Publishing over HTTP without making the pipeline wait: what waits of a project leaves together, and in order.

A sender is a thread with a kept-alive connection. A program of one project has one; where several projects have
something to send there are up to ``SENDERS``. A project never has two requests under way, of which the second might be
taken where the first was not.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from attrs import define, field, frozen

from automoderate.notifier.http import PAGE, PublishingApi, PublishingError, Refused, Unreachable

logger = logging.getLogger("automoderate.notifier")

SENDERS = 4
"""Requests under way at a time."""

BATCH = 1000
"""Events in one request, as many as the API takes."""

BATCH_BYTES = 1024 * 1024 - 64
"""Bytes of them, a little fewer than a request may have."""

BACK_OFF = 0.25, 5.0
"""Seconds before the first retry, doubled from one to the next, and the most it grows to."""

ONE_OF_MANY = frozenset({400, 413, 500})
"""Refusals of several events that may be the fault of one of them."""


@frozen(eq=False)
class _Unsent:
    """An event as JSON, or whose access changed, until it is settled. ``expires`` on ``time.monotonic``."""

    event: bytes
    whose: Mapping[str, str] | None
    expires: float
    future: Future[str]


@define(eq=False)
class _Queue:
    """What waits of one project, oldest first."""

    project_id: str
    api_key: str
    waiting: deque[_Unsent] = field(factory=deque)
    busy: bool = False
    """Whether a sender has it, or is to take it."""
    limit: int = BATCH
    """Events in its next request: fewer after a refusal, until it is clear whose fault that was."""
    newest: str = ""
    """The id of the newest event that is known to be published."""
    doubtful: bool = False
    """Whether what waits first may have been published already: its answer was lost."""

    def take(self) -> list[_Unsent]:
        """What the next request is to say."""
        batch = [self.waiting.popleft()]
        size = len(batch[0].event)
        while self.waiting and batch[0].whose is None and len(batch) < self.limit:
            size += len(self.waiting[0].event) + 1
            if self.waiting[0].whose is not None or size > BATCH_BYTES:
                break
            batch.append(self.waiting.popleft())
        return batch


class HttpPublisher:
    """Publishes to the server at ``url``. No method waits for it.

    ``api_key`` is the key of the one project, or a mapping of project ids to keys. While the server is away, or answers
    429, 502, 503 or 504, an update is tried again for ``retry_for`` seconds from when it was handed over. ``timeout``
    is that of one request, in seconds. The futures fail with PublishingError.
    """

    def __init__(self, url: str, api_key: str | Mapping[str, str], *, retry_for: float, timeout: float) -> None:
        self._url = url
        self._api_key = api_key
        self._retry_for = retry_for
        self._timeout = timeout
        self._changed = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._ready: deque[_Queue] = deque()
        self._senders = self._idle = 0
        self._closed = False

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], trace: str | None = None) -> Future[str]:
        """Publish one event; the future has its ``event_id``."""
        traced = {} if trace is None else {"traceparent": trace}
        text = json.dumps({"event": event, "data": data, **traced}, separators=(",", ":"), allow_nan=False)
        return self._put(project_id, text.encode(), None)

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[Any]:
        """Have live sessions checked again, after what was published before."""
        whose = {"project_id": project_id or ""} | ({} if user_id is None else {"user_id": user_id})
        return self._put(whose["project_id"], b"", whose)

    def logged_out(self, user_id: str) -> Future[Any]:  # noqa: ARG002 - as it is with every publisher
        """Raise PublishingError: a key speaks for one project, not for users who see others too."""
        raise PublishingError("no API key may end a user's sessions; it takes realtime= or redis_url=")

    def close(self) -> None:
        """Send nothing more. What waits is forgotten, and its futures are never done."""
        with self._changed:
            self._closed = True
            self._queues.clear()
            self._changed.notify_all()

    # Inside

    def _put(self, project_id: str, event: bytes, whose: Mapping[str, str] | None) -> Future[str]:
        api_key = self._api_key if isinstance(self._api_key, str) else self._api_key.get(project_id)
        if api_key is None:
            raise PublishingError("there is no API key for this project")
        item = _Unsent(event, whose, time.monotonic() + self._retry_for, Future())
        with self._changed:
            queue = self._queues.get(project_id) or _Queue(project_id, api_key)
            if not queue.busy:
                self._want_sender()
                queue.busy = True
                self._ready.append(queue)
                self._changed.notify_all()
            self._queues[project_id] = queue
            queue.api_key = api_key  # another one, perhaps, since the last update
            queue.waiting.append(item)
        return item.future

    def _want_sender(self) -> None:
        """Start one more, unless one is free for the next queue."""
        if len(self._ready) < self._idle or self._senders == SENDERS:
            return
        try:
            threading.Thread(target=self._serve, name="automoderate-notifier", daemon=True).start()
            self._senders += 1
        except RuntimeError:
            if not self._senders:
                raise  # the next update tries again

    def _serve(self) -> None:
        with PublishingApi(self._url, timeout=self._timeout) as api:
            while (queue := self._next()) is not None:
                with self._changed:
                    batch = queue.take()
                try:
                    self._deliver(api, queue, batch)
                except Exception as unexpected:  # the thread lives on for what comes behind it
                    logger.exception("unexpected failure", extra={"event": "publisher_error"})
                    _fail(batch, repr(unexpected))
                del batch  # it holds whoever handed it over, and would while there is nothing to do
                self._done(queue)

    def _next(self) -> _Queue | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._ready or self._closed)
            self._idle -= 1
            return None if self._closed else self._ready.popleft()

    def _done(self, queue: _Queue) -> None:
        with self._changed:
            if queue.waiting:
                self._ready.append(queue)  # behind the others
            else:
                queue.busy = False
                if not queue.newest:
                    self._queues.pop(queue.project_id, None)

    def _deliver(self, api: PublishingApi, queue: _Queue, batch: list[_Unsent]) -> None:
        """Send it, trying again within its time. What was not to blame for a refusal goes back into the queue."""
        if self._retry_for > 0:  # else each is tried once, whenever its turn comes
            batch = _in_time(batch, f"it waited for more than {self._retry_for:g} seconds")
        pause, longest = BACK_OFF
        while batch:
            wanted = 0.0
            try:
                event_ids = self._send(api, queue, batch)
            except Refused as refused:
                error, wanted = str(refused), refused.retry_after
                queue.doubtful = queue.doubtful or refused.status >= 500
                if not refused.temporary:
                    self._refused(queue, batch, refused)
                    return
            except Unreachable as unreachable:
                error, queue.doubtful = str(unreachable), True
            else:
                self._accepted(queue, batch, event_ids)
                return
            # Jitter, so that many processes do not come back to a restarted server in step.
            rest = min(max(wanted, pause * random.uniform(0.5, 1.0)), batch[0].expires - time.monotonic())
            pause = min(pause * 2, longest)
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, max(0.0, rest)):
                    return
            batch = _in_time(batch, error)
        queue.doubtful = False

    def _send(self, api: PublishingApi, queue: _Queue, batch: list[_Unsent]) -> list[str]:
        if (whose := batch[0].whose) is not None:
            api.access_changed(queue.api_key, **whose)
            return [""]
        if queue.doubtful and queue.newest and (event_ids := _found(api, queue, batch)):
            return event_ids
        return api.publish_all(queue.project_id, [item.event for item in batch], queue.api_key)

    def _accepted(self, queue: _Queue, batch: list[_Unsent], event_ids: list[str]) -> None:
        queue.newest = event_ids[-1] or queue.newest
        queue.doubtful = False
        queue.limit = min(2 * queue.limit, BATCH)
        for item, event_id in zip(batch, event_ids, strict=True):
            item.future.set_result(event_id)

    def _refused(self, queue: _Queue, batch: list[_Unsent], refused: Refused) -> None:
        """Fail what is to blame. The server took none of them, so that the order stays where the others go back."""
        if len(batch) == 1 or refused.status not in ONE_OF_MANY:
            queue.doubtful = False
            _fail(batch, str(refused))
            return
        if refused.event is not None and 1 <= refused.event <= len(batch):
            queue.limit = max(1, refused.event - 1)  # so many of them the server has found nothing wrong with
            _fail([batch.pop(refused.event - 1)], str(refused))
        else:
            queue.limit = len(batch) // 2
        with self._changed:
            queue.waiting.extendleft(reversed(batch))


def _in_time(batch: list[_Unsent], error: str) -> list[_Unsent]:
    """The items whose time is not over; the others are failed here."""
    now = time.monotonic()
    _fail([item for item in batch if item.expires <= now], error)
    return [item for item in batch if item.expires > now]


def _found(api: PublishingApi, queue: _Queue, batch: list[_Unsent]) -> list[str]:
    """The ids under which a batch was published though its answer was lost; none where it was not."""
    wanted = [json.loads(item.event) for item in batch]
    for each in wanted:
        each["data"].pop("event_id", None)  # the server gives it another
    try:
        found = api.updates_after(queue.project_id, queue.newest, queue.api_key)
    except Refused as refused:
        if refused.temporary:
            raise
        return []  # a server without a history
    for begin in range(len(found)):
        there = found[begin : begin + len(batch)]
        # All of it was published or none, so that the beginning is enough where the page ends.
        complete = len(there) == len(batch) or len(found) == PAGE
        if complete and all(map(_says, there, wanted)):
            return [str(update["data"].get("event_id", "")) for update in there] + [""] * (len(batch) - len(there))
    return []


def _says(update: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a published update is what was sent; the server has given it an id, and names its project."""
    return update.get("event") == wanted["event"] and bool(update["data"] | wanted["data"] == update["data"])


def _fail(batch: list[_Unsent], error: str) -> None:
    for item in batch:
        if not item.future.done():
            item.future.set_exception(PublishingError(error))


__all__ = ["HttpPublisher"]
