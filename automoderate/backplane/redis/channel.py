"""The thread that listens to a channel on which other processes emit with python-socketio's RedisManager.

Every node hears every message, and the first of them to say so in Redis publishes it: a *claim* and the entry in the
project's stream are written at once. For that all have to call a message by the same name, though Pub/Sub numbers
nothing, two messages may be equal, and a node may have come between them. What Redis does say to all in the same order
is what several channels carry. So nodes publish *milestones*, each another and with the time of Redis, on a channel
beside, and in a message's name are the last milestone before it and how many messages came since.

- A node that has subscribed begins with its own milestone. What it hears then it does not publish before a node that
  was there has published what came before that milestone, or the stream would have another order than the channel.
  Who was there is in Redis, as a node that has just lost its subscription may still have something to publish.
- Further milestones come from a node that has heard none for a second. Where none comes for long the connection is
  dead.
- The time of the last milestone says how old a message may be. One older than claims are kept is published no more: a
  process that was stopped finds in its socket what others have published long ago.
- Each node publishes in the order of the channel, over one connection, so that the stream has that order whichever
  was first. While much waits to be published nothing is read; Redis keeps it, within its own bounds.
- What is emitted while no node is subscribed is lost, as Pub/Sub keeps nothing.
"""

from __future__ import annotations

import logging
import math
import random
import re
import secrets
import threading
import time
from collections import deque
from concurrent.futures import Future
from hashlib import blake2b
from typing import Any

import redis
from attrs import frozen

from automoderate._threads import real
from automoderate.backplane.redis.connection import FAILURES, Command, Pauses, RedisConnection, first_refusal
from automoderate.backplane.redis.emitted import NotJSON, emitted
from automoderate.backplane.redis.entries import BadEntry
from automoderate.backplane.redis.refusals import Concern, concern, described
from automoderate.backplane.redis.troubles import CONNECTIONS, ENTRIES, Troubles
from automoderate.backplane.redis.writer import CLAIM_PATIENCE, Writer

log = logging.getLogger("automoderate.redis")

MILESTONE_AFTER = 1.0
"""Seconds without a milestone after which a node publishes one."""
SILENCE = 15.0
"""Seconds after a milestone that is not heard when a node connects anew: more than a merely busy Redis needs."""
HOLD = 5.0
"""Seconds that a node which has just subscribed waits for those that were there before."""
THERE = int(CLAIM_PATIENCE + HOLD)
"""Seconds after a node was last heard of in which it may still have something to publish."""
TICK = 0.25
"""Seconds that the thread waits for anything at most."""

_PUBLISH_MILESTONE = "return redis.call('PUBLISH', ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2])"
_MILESTONE = re.compile(rb"([0-9]{1,12}) ([0-9a-f]{16})( first)?")


@frozen
class Milestone:
    """Where all nodes are at one time; ``since`` is that time in seconds, ``first`` whether a new node begins there."""

    since: str
    token: str
    first: bool

    @classmethod
    def decode(cls, said: bytes) -> Milestone | None:
        """None for what no node has said."""
        found = _MILESTONE.fullmatch(said)
        return cls(found[1].decode(), found[2].decode(), bool(found[3])) if found else None

    @property
    def key(self) -> str:
        """There once some node has published all that came before."""
        return f"automoderate:passed:{self.token}"


class Channel:
    """Listens to one channel and hands what is meant for projects to the node's publisher."""

    def __init__(self, url: str, name: str, writer: Writer, troubles: Troubles) -> None:
        self._link = RedisConnection(url)
        self._asking = RedisConnection(url)  # a connection that has subscribed can do nothing else
        self._name = name
        self._publications = f"publications of what is emitted on the channel {name}"
        self._milestones = f"automoderate:milestones:{name}"
        self._listeners = f"automoderate:listeners:{name}"
        self._node = secrets.token_hex(8)
        self._writer = writer
        self._troubles = troubles
        threads = real(threading)
        self._stopping: threading.Event = threads.Event()
        self._thread: threading.Thread = threads.Thread(
            target=self._run, name="automoderate-redis-channel", daemon=True
        )
        self._own = secrets.token_hex(4)
        self._milestone: Milestone | None = None
        self._position = 0
        self._last: Future[str] | None = None
        self._passing: deque[tuple[Milestone, Future[str] | None]] = deque()
        self._hold_until = self._milestone_due = 0.0
        self._unheard = math.inf
        self._trouble = ""
        self._told = False
        self._messages = self._rejected = self._reconnects = 0

    @property
    def subscribed(self) -> bool:
        """Whether nothing is missed from now on, also if the nodes that were there before this one are gone."""
        return self._milestone is not None and time.monotonic() >= self._hold_until

    def rehearsal(self) -> list[Command]:
        """What the thread is going to ask of Redis, for another connection to find out whether it may."""
        return [self._new_milestone(), *self._subscriptions()]

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop listening, within ``timeout`` seconds where Redis answers."""
        self._stopping.set()
        self._thread.join(timeout)

    def stats(self) -> dict[str, float]:
        """Counters."""
        return {
            "backplane_channel_messages_total": self._messages,
            "backplane_channel_rejected_total": self._rejected,
            "backplane_channel_reconnects_total": self._reconnects,
        }

    # The thread

    def _run(self) -> None:
        pauses = Pauses()
        while not self._stopping.is_set():
            try:
                self._subscribe()
                while not self._stopping.is_set():
                    self._step()
                    if self.subscribed:
                        pauses.reset()
            except Exception as error:
                self._disconnected(error)
            self._stopping.wait(pauses.next())
        if not self._writer.waiting:
            self._ask(("ZREM", self._listeners, self._node))  # without waiting for the answer
        self._link.close()
        self._asking.close()

    def _disconnected(self, error: Exception) -> None:
        self._troubles.failed(CONNECTIONS, error)
        was_subscribed, self._milestone = self._milestone is not None, None
        self._reconnects += was_subscribed
        self._link.close()

    def _subscribe(self) -> None:
        self._link.connect()
        self._link.send(self._subscriptions())
        self._own = secrets.token_hex(4)  # those of an earlier subscription are no beginning
        self._unheard, self._milestone_due = math.inf, 0.0

    def _subscriptions(self) -> list[Command]:
        return [("SUBSCRIBE", self._name), ("SUBSCRIBE", self._milestones)]

    def _step(self) -> None:
        """Whatever comes next. What has come is looked at before the silence: this process may have been stopped."""
        self._pass_milestones()
        if self._holds():
            self._stopping.wait(TICK / 5)
        elif self._writer.wait_for_room(TICK):
            if self._link.wait(TICK):
                self._take(self._link.answer())
            elif time.monotonic() - self._unheard > SILENCE:
                raise redis.ConnectionError(f"no milestone comes on the channel {self._name} {self._trouble}")
            if time.monotonic() >= self._milestone_due:
                self._publish_milestone()

    def _take(self, push: Any) -> None:
        kind, channel, said = push
        if kind != b"message":
            return
        if channel == self._milestones.encode():
            milestone = Milestone.decode(said)
            if milestone is not None:
                self._hear_milestone(milestone)
        elif self._milestone is not None:
            self._position += 1
            self._hear(said, self._milestone)

    # Milestones

    def _new_milestone(self) -> Command:
        token = self._own + secrets.token_hex(4)
        return ("EVAL", _PUBLISH_MILESTONE, 0, self._milestones, token if self._milestone else f"{token} first")

    def _publish_milestone(self) -> None:
        self._wait_with_milestones()
        self._unheard = min(self._unheard, time.monotonic())
        self._ask(self._new_milestone())

    def _ask(self, *commands: Command) -> list[Any] | None:
        """What Redis answers; None where it does not. What is emitted may be heard for all that: no reason to leave."""
        self._trouble = ""
        try:
            answers = self._asking.ask(*commands)
            refusal = first_refusal(answers)
            if refusal is None:
                return answers
            if concern(refusal) is Concern.KEY:
                self._troubles.unusable(self._listeners, refusal)  # the only key that is not simply overwritten
                return None
            raise refusal
        except FAILURES as error:
            self._asking.close()
            self._trouble = f"({described(error)})"
            return None

    def _wait_with_milestones(self) -> None:
        # Not all nodes in step, so that most of them never have to.
        self._milestone_due = time.monotonic() + MILESTONE_AFTER * random.uniform(1.0, 2.0)

    def _hear_milestone(self, milestone: Milestone) -> None:
        self._unheard = math.inf
        if self._milestone is not None:
            if milestone.first:
                self._passing.append((milestone, self._last))
            self._say_here(milestone)
        elif milestone.token.startswith(self._own):
            log.info("Listening to the channel %s of Redis", self._name, extra={"event": "channel_heard"})
            self._hold_until = time.monotonic() + HOLD
        else:
            return
        self._wait_with_milestones()
        self._milestone, self._position = milestone, 0

    def _holds(self) -> bool:
        """Whether this node has just come, and another may yet have to publish what was emitted before."""
        if self._milestone is None or time.monotonic() >= self._hold_until:
            return False
        there = ("ZRANGEBYSCORE", self._listeners, int(self._milestone.since) - THERE, "+inf")
        answers = self._ask(there, ("EXISTS", self._milestone.key))
        if answers is None:
            return True
        nodes, passed = answers
        if passed or not set(nodes) - {self._node.encode()}:
            self._hold_until = 0.0
            self._say_here(self._milestone)
        return self._hold_until > 0

    def _say_here(self, milestone: Milestone) -> None:
        gone = ("ZREMRANGEBYSCORE", self._listeners, "-inf", int(milestone.since) - 2 * THERE)
        self._ask(("ZADD", self._listeners, milestone.since, self._node), gone, ("EXPIRE", self._listeners, 2 * THERE))

    def _pass_milestones(self) -> None:
        """Tell those that have come where all that came before them is published."""
        while self._passing and ((last := self._passing[0][1]) is None or last.done()):
            milestone, _ = self._passing.popleft()
            self._ask(("SET", milestone.key, "", "EX", int(2 * HOLD)))

    # Messages

    def _hear(self, message: bytes, milestone: Milestone) -> None:
        try:
            found = emitted(message)
        except BadEntry as error:
            self._reject(error)
            return
        if found is None:
            log.debug(
                "A message of the channel %s is not for a project", self._name, extra={"event": "message_passed_over"}
            )
            return
        self._messages += 1
        name = f"{milestone.token} {self._position} ".encode()
        digest = blake2b(name + message, digest_size=16).hexdigest()
        for project_id in found.projects:
            self._last = self._writer.publish_once(
                project_id, found.event, found.text, digest=digest, since=milestone.since
            )
            self._last.add_done_callback(self._settled)

    def _reject(self, error: BadEntry) -> None:
        self._rejected += 1
        if not isinstance(error, NotJSON):
            self._troubles.failed(ENTRIES, BadEntry(f"a message of the channel {self._name} is skipped: {error}"))
        elif not self._told:
            self._told = True
            log.warning(
                "What is not JSON on the channel %s is skipped, and this is not said again: "
                "programs that emit there need python-socketio 5.14 or newer",
                self._name,
                extra={"event": "message_rejected", "reason": "not JSON"},
            )

    def _settled(self, future: Future[str]) -> None:
        error = future.exception()
        if isinstance(error, Exception):
            self._troubles.failed(self._publications, error)
        else:
            self._troubles.worked(self._publications)
