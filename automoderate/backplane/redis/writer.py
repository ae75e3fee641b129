"""The thread that writes to Redis: updates and announcements, in the order they were handed over, many at a time.

An answer says whether Redis has taken an update. While Redis is away an update waits for a while, and then fails; when
the connection breaks between the two the update's fate is unknown, and it fails too, though it may be in the stream.
Only what is persistent is tried again then: under a claim, which keeps it from being there twice, or where that is said
to be better than a loss.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import redis

from automoderate._threads import real
from automoderate.backplane.redis.connection import FAILURES, Command, Pauses, RedisConnection, first_refusal
from automoderate.backplane.redis.direct import Direct
from automoderate.backplane.redis.entries import (
    CONTROL,
    MAX_TOLD,
    MAX_UPDATE,
    READ_COUNT,
    Announcement,
    add,
    add_all,
    add_and_tell,
    add_once,
    check_event,
    stream,
)
from automoderate.backplane.redis.heartbeat import Heartbeat
from automoderate.backplane.redis.refusals import Concern, concern, unavailable
from automoderate.backplane.redis.subscription import notify
from automoderate.backplane.redis.troubles import CONNECTIONS, NOTICES, WRITES, Troubles
from automoderate.backplane.redis.waiting import Item, Waiting, together
from automoderate.core.hub import is_project_id
from automoderate.server.interfaces import BackplaneUnavailable

_TRIM_CHANCE = 1 / 64
"""How often a publication also drops what is too old in its stream; what is too many is dropped each time."""
CLAIM_PATIENCE = 30.0
"""Seconds that what is published under a claim waits: its emitter learns of no failure, and tries no more."""
_NOTHING_DONE = (redis.BusyLoadingError, redis.AuthenticationError)
"""Ends of a connection before anything that was asked for was done."""


class Writer:
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
        troubles: Troubles,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self._link = RedisConnection(url)
        self._entries = max(entries, READ_COUNT)
        self._max_age = max_age
        self._patience = patience
        self._persistent = persistent
        self._troubles = troubles
        self._heartbeat = heartbeat
        self._waiting = Waiting(max_waiting)
        self._threading = real(threading)
        self._starting: threading.Lock = self._threading.Lock()
        self._thread: threading.Thread | None = None
        self._chores: list[Command] = []
        self._early: Any = None
        self.published = self.failed = 0

    def publish(self, project_id: str, event: str, text: str, trace: str | None = None) -> Future[str]:
        """Append an update; the future has its ``event_id``. ValueError for what no node would take from there."""
        data = _checked(project_id, event, text)
        size, key = len(data), stream(project_id)
        alone = add_and_tell(key, event, data, self._entries, int(self._max_age), trace) if size <= MAX_TOLD else None
        commands = add(key, event, text, self._entries, trace), ("EXPIRE", key, int(self._max_age))
        return self._put(commands, key, size, alone=alone)

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], traces: Sequence[str] = ()
    ) -> Future[Any]:
        """Append several updates: all of them, or none. The future has their ids, in order."""
        size = sum(len(_checked(project_id, event, text)) for event, text in events)
        command = add_all(project_id, events, self._entries, int(self._max_age), traces)
        return self._put((command,), stream(project_id), size)

    def publish_once(self, project_id: str, event: str, text: str, *, digest: str, since: str) -> Future[str]:
        """As ``publish``, where several nodes publish the same under the same ``digest``: the first of them does.

        Where it is there already the future has an empty ``event_id``. It fails where ``since``, a time in seconds by
        the clock of Redis, is more than CLAIM_WINDOW seconds ago.
        """
        size = len(_checked(project_id, event, text))
        command = add_once(project_id, digest, since, self._entries, int(self._max_age), event, text)
        return self._put((command,), stream(project_id), size, persistent=True, patience=CLAIM_PATIENCE, told=True)

    def announce(self, announcement: Announcement) -> Future[str]:
        """Tell every node."""
        said = announcement.encode()
        command = ("XADD", CONTROL, "MAXLEN", "~", 1000, "*", "said", said)
        return self._put((command, ("EXPIRE", CONTROL, int(self._max_age))), CONTROL, len(said))

    def send(self, message: Command) -> None:
        """Send a message that may be lost where the connection is."""
        self.start()
        self._waiting.put_message(message)

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until half of what may wait could be handed over."""
        return self._waiting.wait_for_room(timeout)

    @property
    def waiting(self) -> int:
        """How many have not been answered yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the thread, which otherwise the first publication does."""
        with self._starting:
            if self._thread is None and not self._waiting.closed:
                thread = self._threading.Thread(target=self._run, name="automoderate-redis-publisher", daemon=True)
                thread.start()  # where that fails the next one tries again
                self._thread = thread

    def close(self, timeout: float) -> bool:
        """Take nothing more, wait up to ``timeout`` seconds for what waits and fail the rest; True for no rest."""
        deadline = time.monotonic() + timeout
        done, abandoned = self._waiting.close(timeout)
        self._fail(abandoned, BackplaneUnavailable("Redis has not taken it: publishing was stopped"))
        left = deadline - time.monotonic()
        if self._thread is not None and left > 0:  # not where it is this thread that lets go of what is closed
            self._thread.join(left)
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
        alone: bytes | None = None,
    ) -> Future[Any]:
        expires = time.monotonic() + (self._patience if patience is None else patience)
        persistent = self._persistent if persistent is None else persistent
        item = Item(commands, key, size, expires, persistent, told, alone)
        if self._thread is None:
            self.start()
        refusal = self._waiting.put(item)
        if refusal is not None:
            self._fail([item], refusal)
        return item.future

    def _run(self) -> None:
        pauses = Pauses()
        while (batch := self._take()) is not None:
            try:
                settled = self._exchange(batch)
            except Exception as error:  # the thread lives on for what comes behind it
                self._troubles.failed(WRITES if isinstance(error, redis.ResponseError) else CONNECTIONS, error)
                self._link.close()
                self._broken(batch, error)
                self._waiting.pause(pauses.next())
            else:
                self._troubles.worked(CONNECTIONS)
                if settled:
                    pauses.reset()
                else:
                    self._waiting.pause(pauses.next())
            del batch  # it holds whoever handed it over, and would while there is nothing to do
        if self._heartbeat is not None:
            with contextlib.suppress(*FAILURES):
                self._link.call(self._heartbeat.wake())  # the reader is to stop, too
        self._link.close()
        self._waiting.end()

    def _take(self) -> list[Item] | None:
        until_beat = None if self._heartbeat is None else self._heartbeat.due_in()
        return self._waiting.take(until_beat, self._link.direct, self._settle_quickly)

    def _exchange(self, batch: Sequence[Item]) -> bool:
        """Send everything at once and settle each item as its answer comes; False where some are to be tried again.

        Raises the refusal of a Redis that is not the one to ask.
        """
        if batch and batch[0].unsent is not None:
            return self._answered(batch[0], batch[0].unsent)
        self._link.connect()
        beats = self._heartbeat.commands() if self._heartbeat is not None and not self._heartbeat.due_in() else []
        chores, self._chores = self._chores, []
        named = together(batch)
        # Once for each stream: a node that hears it reads all that is there.
        notices = [*(notify(key) for key in named), *self._waiting.take_messages()]
        commands = [(item.alone,) if item.alone and item.key not in named else item.commands for item in batch]
        for item in batch:
            item.sent = True
        self._link.send([*(command for each in commands for command in each), *notices, *beats, *chores])
        refusals = [
            self._settle(item, self._link.answers(len(each))[0], alone=each[0] is item.alone)
            for item, each in zip(batch, commands, strict=True)
        ]
        self._noticed(self._link.answers(len(notices)))
        refusals.append(self._beaten(self._link.answers(len(beats))))
        self._link.answers(len(chores))
        return self._all_settled(batch, refusals, wrote=bool(batch or beats))

    def _answered(self, item: Item, unsent: bytes) -> bool:
        """Settle an item that its publisher has sent, but for the ``unsent`` rest; False: it is to be tried again."""
        item.unsent = None
        if unsent:
            self._link.send_packed(unsent)
        (answer,) = self._link.answers(1) if self._early is None else [self._early]
        self._early = None
        if isinstance(answer, Exception) and not isinstance(answer, redis.ResponseError):
            raise answer
        return self._all_settled([item], [self._settle(item, answer, alone=True)], wrote=True)

    def _settle_quickly(self, item: Item, direct: Direct) -> bool:
        """Settle an item that its publisher has sent and Redis has taken; False: the answer is for ``_answered``."""
        try:
            direct.receive()
            answer = direct.answer()
        except FAILURES:
            return False  # who reads on is told the same
        match answer:
            case [bytes(event_id), b""]:
                for what in (NOTICES, WRITES, CONNECTIONS):
                    self._troubles.worked(what)
                self._troubles.usable(item.key)
                self._accepted(item, event_id)
                return True
            case list() | Exception():
                self._early = answer
        return False

    def _all_settled(
        self, batch: Sequence[Item], refusals: Sequence[redis.ResponseError | None], *, wrote: bool
    ) -> bool:
        """Say what Redis has refused; whether nothing of the batch is to be tried again."""
        said = [refusal for refusal in refusals if refusal is not None]
        for refusal in said:
            if concern(refusal) is Concern.ELSEWHERE:
                raise refusal  # nothing to do with what was asked: a new connection may lead to one that takes it
            self._troubles.failed(WRITES, refusal)
        if not said and wrote:
            self._troubles.worked(WRITES)
        if all(item.future.done() for item in batch):
            return True
        self._try_again(batch, unavailable(said[0]))
        return False

    def _settle(self, item: Item, answer: Any, *, alone: bool) -> redis.ResponseError | None:
        """Returns why Redis takes nothing at all, where it does not; the item may be left to be tried again."""
        if not isinstance(answer, redis.ResponseError):
            if alone:
                answer, untold = answer
                self._noticed([redis.ResponseError(untold.decode()) if untold else None])
            self._troubles.usable(item.key)
            if answer is None:
                item.future.set_result("")  # it is there already
            else:
                self._accepted(item, answer)
            return None
        item.sent = False
        meaning = concern(answer)
        if meaning is Concern.KEY:
            self._troubles.unusable(item.key, answer)
        if meaning is not Concern.ELSEWHERE and (meaning is not Concern.WRITES or not item.persistent):
            self._fail([item], unavailable(answer, of_project=item.key != CONTROL))
        return answer if meaning in (Concern.ELSEWHERE, Concern.WRITES) else None

    def _beaten(self, answers: Sequence[Any]) -> redis.ResponseError | None:
        """Note what Redis answered to a beat, if there was one; returns why Redis takes nothing at all."""
        if self._heartbeat is None or not answers:
            return None
        refusal = self._heartbeat.answered(answers)
        if refusal is not None and concern(refusal) is Concern.KEY:
            self._troubles.unusable(self._heartbeat.key, refusal)
            return None
        return refusal

    def _noticed(self, answers: Sequence[Any]) -> None:
        refusal = first_refusal(answers)
        if refusal is not None and concern(refusal) is not Concern.ELSEWHERE:
            self._troubles.failed(NOTICES, refusal)
        elif answers:
            self._troubles.worked(NOTICES)

    def _accepted(self, item: Item, answer: bytes | list[bytes]) -> None:
        if isinstance(answer, bytes):
            result: Any = answer.decode()
            last = result
            self.published += 1
        else:
            result = [each.decode() for each in answer]
            last = result[-1]
            self.published += len(result)
        if random.random() < _TRIM_CHANCE:
            # By the clock of Redis, and after something newer was added: never the newest.
            oldest = int(last.partition("-")[0]) - int(self._max_age * 1000)
            self._chores.append(("XTRIM", item.key, "MINID", "~", max(0, oldest)))
            self._waiting.nudge()
        item.future.set_result(result)

    def _broken(self, batch: Sequence[Item], error: Exception) -> None:
        """The connection is of no use: what cannot have been stored, and what may be stored twice, is tried again."""
        unsettled = [item for item in batch if not item.future.done()]
        for item in unsettled:
            item.sent = item.sent and not isinstance(error, _NOTHING_DONE)
        lost = [item for item in unsettled if item.sent and not item.persistent]
        failure = unavailable(error)
        self._fail(lost, BackplaneUnavailable(f"{failure}; it may have been stored or not"))
        self._try_again(batch, failure)

    def _try_again(self, batch: Sequence[Item], failure: BackplaneUnavailable) -> None:
        """Put back what is not settled. One that another in its stream has overtaken fails: order matters more."""
        again: list[Item] = []
        overtaken: list[Item] = []
        taken: set[str] = set()
        for item in reversed(batch):
            if not item.future.done():
                (overtaken if item.key in taken else again).append(item)
            elif item.future.exception() is None:
                taken.add(item.key)
        self._fail([*overtaken, *self._waiting.put_back(again[::-1])], failure)

    def _fail(self, items: Iterable[Item], error: BackplaneUnavailable) -> None:
        for item in items:
            self.failed += 1
            item.future.set_exception(error)


def _checked(project_id: str, event: str, text: str) -> bytes:
    """An update's data. Raises ValueError for what no node would take."""
    if not is_project_id(project_id):
        raise ValueError(f"{project_id[:40]!r} is no project id")
    check_event(event)
    data = text.encode()
    if len(data) > MAX_UPDATE:
        raise ValueError(f"the data of {event!r} has {len(data)} bytes as JSON, more than {MAX_UPDATE}")
    return data
