"""The thread that writes to Redis: updates and announcements, in the order they were handed over, many at a time.

An answer says whether Redis has taken an update. While Redis is away an update waits for a while, and then fails; when
the connection breaks between an update and its answer nobody knows, and it fails too, though it may be in the stream.
Only what is persistent is tried again then: under a claim, which keeps it from being there twice, or where that is said
to be better than a loss.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import redis
from attrs import frozen

from automoderate.adapters._shared import real, real_future
from automoderate.backplane._redis_entries import (
    CONTROL,
    MAX_UPDATE,
    READ_COUNT,
    Announcement,
    add_once,
    check_event,
    stream,
)
from automoderate.backplane._redis_link import FAILURES, Command, Link, Pauses
from automoderate.backplane._redis_pulse import Pulse
from automoderate.backplane._redis_subscription import notify
from automoderate.core.hub import is_project_id
from automoderate.server import BackplaneUnavailable

log = logging.getLogger("automoderate.redis")

BATCH = 128
"""Updates sent before their answers are read."""
BATCH_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes of updates that wait to be sent."""
_TRIM_CHANCE = 1 / 64
"""How often a publication also drops what is too old in its stream; what is too many is dropped each time."""
CLAIM_PATIENCE = 30.0
"""Seconds that what is published under a claim waits: whoever emitted it learns of no failure, and tries no more."""


@frozen(eq=False)
class _Item:
    """Commands that belong together and add to the stream ``key``; the answer to the first is the future's result.

    What is ``persistent`` is sent again where it may have been stored already. Of what is ``told`` those who read the
    stream learn by its commands.
    """

    commands: tuple[Command, ...]
    key: str
    size: int
    expires: float
    persistent: bool
    told: bool
    future: Future[str]


class Publisher:
    """Publishes to Redis without ever making its caller wait. Thread-safe.

    A project's stream keeps its newest ``entries`` updates (not exactly, and never fewer than 100), for ``max_age``
    seconds. While Redis is away an update waits for up to ``patience`` seconds; with ``persistent`` it is tried again
    within that time also where it may have been stored already, and then is in the stream twice. At most
    ``max_waiting`` updates, and 64 MiB of them, wait. The futures fail with BackplaneUnavailable.
    """

    def __init__(
        self,
        url: str,
        *,
        entries: int,
        max_age: float,
        patience: float,
        persistent: bool = False,
        max_waiting: int = 10_000,
        pulse: Pulse | None = None,
    ) -> None:
        self._link = Link(url)
        self._entries = max(entries, READ_COUNT)
        self._max_age = max_age
        self._patience = patience
        self._persistent = persistent
        self._max_waiting = max_waiting
        self._pulse = pulse
        self._threading = real(threading)
        self._changed: threading.Condition = self._threading.Condition()
        self._waiting: deque[_Item] = deque()
        self._waiting_bytes = 0
        self._under_way = 0
        self._chores: list[Command] = []
        self._thread: threading.Thread | None = None
        self._closed = self._warned = False
        self.published = self.failed = 0

    def publish(self, project_id: str, event: str, text: str) -> Future[str]:
        """Append an update; the future has its ``event_id``. ValueError for what nobody would take from there."""
        size = _checked_size(project_id, event, text)
        key = stream(project_id)
        add = ("XADD", key, "MAXLEN", "~", self._entries, "*", "event", event, "data", text)
        return self._put((add, ("EXPIRE", key, int(self._max_age))), key, size)

    def publish_once(self, project_id: str, event: str, text: str, *, digest: str, since: str) -> Future[str]:
        """As ``publish``, where several nodes publish the same under the same ``digest``: the first of them does.

        Where it is there already the future has an empty ``event_id``. It fails where ``since``, a time in seconds by
        the clock of Redis, is more than CLAIM_WINDOW seconds ago.
        """
        size = _checked_size(project_id, event, text)
        add = add_once(project_id, digest, since, self._entries, int(self._max_age), event, text)
        return self._put((add,), stream(project_id), size, persistent=True, patience=CLAIM_PATIENCE, told=True)

    def announce(self, announcement: Announcement) -> Future[str]:
        """Tell every node."""
        said = announcement.encode()
        add = ("XADD", CONTROL, "MAXLEN", "~", 1000, "*", "said", said)
        return self._put((add, ("EXPIRE", CONTROL, int(self._max_age))), CONTROL, len(said))

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until half of what may wait could be handed over."""

        def roomy() -> bool:
            return 2 * len(self._waiting) < self._max_waiting and 2 * self._waiting_bytes < MAX_WAITING_BYTES

        with self._changed:
            return self._changed.wait_for(roomy, timeout)

    @property
    def waiting(self) -> int:
        """How many have not been answered yet."""
        return len(self._waiting) + self._under_way

    def start(self) -> None:
        """Start the thread, which otherwise the first publication does."""
        with self._changed:
            self._start()

    def close(self, timeout: float) -> bool:
        """Take nothing more, wait up to ``timeout`` seconds for what waits and fail the rest; True for no rest."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self.waiting, timeout)
            abandoned, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
            self._patience = 0.0  # nor is what is under way tried again
        self._fail(abandoned, "publishing was stopped")
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return done

    # Inside

    def _put(
        self,
        commands: tuple[Command, ...],
        key: str,
        size: int,
        *,
        persistent: bool | None = None,
        patience: float | None = None,
        told: bool = False,
    ) -> Future[str]:
        future: Future[str] = real_future()
        future.set_running_or_notify_cancel()
        expires = time.monotonic() + (self._patience if patience is None else patience)
        persistent = self._persistent if persistent is None else persistent
        item = _Item(commands, key, size, expires, persistent, told, future)
        with self._changed:
            refusal = "publishing was stopped" if self._closed else ""
            if len(self._waiting) >= self._max_waiting or self._waiting_bytes + size > MAX_WAITING_BYTES:
                refusal = f"{len(self._waiting)} others wait to be published"
            if not refusal:
                self._start()
                self._waiting.append(item)
                self._waiting_bytes += size
                self._changed.notify_all()
        if refusal:
            self._fail([item], refusal)
        return future

    def _start(self) -> None:
        if self._thread is None:
            thread = self._threading.Thread(target=self._run, name="automoderate-redis-publisher", daemon=True)
            thread.start()  # where that fails the next one tries again
            self._thread = thread

    def _run(self) -> None:
        pauses = Pauses()
        while (batch := self._take()) is not None:
            sent = False
            try:
                self._link.connect()
                sent = True
                self._exchange(batch)
            except FAILURES as error:
                self._link.close()
                self._give_back(batch, str(error), sent=sent and not isinstance(error, redis.BusyLoadingError))
                self._pause(pauses.next())
            except Exception:  # the thread lives on for what comes behind it
                log.exception("Unexpected failure while publishing to Redis")
                self._link.close()
                self._give_back(batch, "unexpected failure", sent=True)
                self._pause(pauses.next())
            else:
                pauses.reset()
        if self._pulse is not None:
            with contextlib.suppress(*FAILURES):
                self._link.call(self._pulse.wake())  # the reader is to stop, too
        self._link.close()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _take(self) -> list[_Item] | None:
        """Wait for something to do; None at the end. What is taken counts as under way until it is given back."""
        with self._changed:
            self._settled()
            idle = None if self._pulse is None else self._pulse.due_in()
            self._changed.wait_for(lambda: self._waiting or self._closed, idle)
            if self._closed and not self._waiting:
                return None
            batch: list[_Item] = []
            size = 0
            while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += batch[-1].size
            self._waiting_bytes -= size
            self._under_way = len(batch)
            return batch

    def _exchange(self, batch: Sequence[_Item]) -> None:
        """Send everything at once and settle each update as its answer comes."""
        beats = self._pulse.commands() if self._pulse is not None and not self._pulse.due_in() else []
        chores, self._chores = self._chores, []
        # Once for each stream: whoever hears it reads all that is there.
        notices = [notify(key) for key in dict.fromkeys(item.key for item in batch if not item.told)]
        self._link.send([*(command for item in batch for command in item.commands), *notices, *beats, *chores])
        refusal: redis.ResponseError | None = None
        for item in batch:
            answer, *_ = self._answers(len(item.commands))
            if isinstance(answer, redis.ReadOnlyError):
                refusal = answer
            if isinstance(answer, redis.ResponseError):
                if answer is not refusal or not item.persistent:  # else it is tried again
                    self._fail([item], str(answer))
            elif answer is None:
                item.future.set_result("")  # it is there already
            else:
                self._accepted(item, answer.decode())
        self._noticed(self._answers(len(notices)))
        answers = self._answers(len(beats) + len(chores))
        refusal = next((each for each in answers if isinstance(each, redis.ResponseError)), refusal)
        if refusal is not None:
            raise refusal  # nothing to do with one project: a new connection may lead to a Redis that does take it
        if self._pulse is not None and beats:
            self._pulse.answered(answers[: len(beats)])

    def _noticed(self, answers: Sequence[Any]) -> None:
        refusal = next((each for each in answers if isinstance(each, redis.ResponseError)), None)
        if refusal is not None and not self._warned:
            self._warned = True
            log.warning("Redis lets no node be told that there is something new, so that it comes late: %s", refusal)

    def _answers(self, count: int) -> list[Any]:
        answers: list[Any] = []
        for _ in range(count):
            try:
                answers.append(self._link.answer())
            except redis.ResponseError as refusal:
                answers.append(refusal)
        return answers

    def _accepted(self, item: _Item, event_id: str) -> None:
        self.published += 1
        if random.random() < _TRIM_CHANCE:
            # By the clock of Redis, and after something newer was added: never the newest.
            oldest = int(event_id.partition("-")[0]) - int(self._max_age * 1000)
            self._chores.append(("XTRIM", item.key, "MINID", "~", max(0, oldest)))
        item.future.set_result(event_id)

    def _give_back(self, batch: Sequence[_Item], error: str, *, sent: bool) -> None:
        """The connection broke: what may be tried again goes back to the front."""
        now = time.monotonic()
        unsettled = [item for item in batch if not item.future.done()]
        again = [item for item in unsettled if item.persistent or not sent]
        self._fail([item for item in unsettled if item not in again], f"{error}; it may have been stored or not")
        with self._changed:
            if not self._patience:
                now = math.inf
            waiting = [*again, *self._waiting]
            overdue = [item for item in waiting if item.expires <= now]
            self._waiting = deque(item for item in waiting if item.expires > now)
            self._waiting_bytes = sum(item.size for item in self._waiting)
            self._settled()
        self._fail(overdue, error)

    def _settled(self) -> None:
        self._under_way = 0
        self._changed.notify_all()

    def _fail(self, items: Sequence[_Item], error: str) -> None:
        self.failed += len(items)
        for item in items:
            item.future.set_exception(BackplaneUnavailable(f"Redis has not taken it: {error}"))


def _checked_size(project_id: str, event: str, text: str) -> int:
    """Bytes of an update's data. Raises ValueError for what nobody would take."""
    if not is_project_id(project_id):
        raise ValueError(f"{project_id[:40]!r} is no project id")
    check_event(event)
    size = len(text.encode())
    if size > MAX_UPDATE:
        raise ValueError(f"the data of {event!r} has {size} bytes as JSON, more than {MAX_UPDATE}")
    return size
