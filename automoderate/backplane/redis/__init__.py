"""The backplane of several nodes: one Redis (or Valkey) stream per project.

An update's ``event_id`` is the id of its entry. What comes after an id is known exactly as long as that entry is in
the stream, so that a client catches up from an entry that is there, or is told that it cannot: a stream that was
trimmed, flushed or lost with its Redis never looks complete. The first reading of a project without a stream leaves a
mark in it, an entry that is no update, so that a position is always the id of an entry.

A node reads, in one thread, the streams of the projects that have a member on it, and writes in another. A third may
listen to a channel, for what other processes emit with python-socketio.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from automoderate.backplane import redis_url
from automoderate.backplane.redis.channel import Channel
from automoderate.backplane.redis.connection import FAILURES, RedisConnection, first_refusal
from automoderate.backplane.redis.entries import Announcement
from automoderate.backplane.redis.heartbeat import Heartbeat
from automoderate.backplane.redis.histories import Histories
from automoderate.backplane.redis.presence import tell
from automoderate.backplane.redis.questions import answering, ask_nodes
from automoderate.backplane.redis.reader import Reader
from automoderate.backplane.redis.refusals import Concern, concern, described
from automoderate.backplane.redis.troubles import Troubles
from automoderate.backplane.redis.writer import Writer
from automoderate.core.hub import AccessChanged, History, LoggedOut, PresenceReport
from automoderate.server import Server
from automoderate.server.interfaces import BackplaneUnavailable, Heard, Listen, NodeAnswer, Receive

PATIENCE = 3.0
"""Seconds that a publication waits for a Redis that is away."""
CLOSE_TIMEOUT = 3.0
"""Seconds that closing waits for what is under way."""


class RedisBackplane:
    """Updates of many projects in Redis, for any number of nodes. Thread-safe; ``read`` blocks.

    ``entries`` updates of each project are kept (a few more, and never fewer than 100) for ``max_age`` seconds, and at
    most ``entries`` or 2 MiB of them replayed to a client. What is emitted to rooms of projects on the Pub/Sub
    ``channel`` of a python-socketio RedisManager becomes an update, once however many nodes listen. ``name`` is what
    operators call this node. Raises ValueError for a bad URL.
    """

    def __init__(
        self, url: str, *, entries: int = 1000, max_age: float = 86_400.0, channel: str | None = None, name: str = ""
    ) -> None:
        if entries < 1 or max_age < 1:
            raise ValueError("entries and max_age must be at least 1")
        self._url = url
        self._shown = redis_url.parse(url).shown
        self._node = secrets.token_hex(8)
        self._heartbeat = Heartbeat(self._node, name)
        self._troubles = Troubles()
        self._writer = Writer(
            url, entries=entries, max_age=max_age, patience=PATIENCE, troubles=self._troubles, heartbeat=self._heartbeat
        )
        self._reader = Reader(url, self._node, self._heartbeat, self._troubles, self._deliver)
        self._channel = None if channel is None else Channel(url, channel, self._writer, self._troubles)
        self._receive: Receive | None = None
        self._histories = Histories(
            url, self._reader.feeds, self._heartbeat, self._troubles, entries=entries, max_age=max_age
        )

    def check(self) -> None:
        """Raise BackplaneUnavailable, in one line, where Redis cannot be used.

        A full one can be: a node that starts then hears what others have published.
        """
        link = RedisConnection(self._url)
        try:
            (info,) = link.call(("INFO", "cluster"))
            if b"cluster_enabled:1" in info:
                raise BackplaneUnavailable(f"Redis at {self._shown} is part of a cluster, which is not supported")
            if self._channel is not None:
                link.call(*self._channel.rehearsal())
                link.close()  # one that has subscribed does nothing else
            refusal = first_refusal(link.ask(*self._heartbeat.commands()))
            if refusal is not None and concern(refusal) is not Concern.WRITES:
                raise refusal
            link.call(self._heartbeat.say(), ("SUBSCRIBE", self._heartbeat.key))
        except FAILURES as error:
            raise BackplaneUnavailable(f"cannot use Redis at {self._shown}: {described(error)}") from error
        finally:
            link.close()

    def start(self, receive: Receive, listen: Listen | None = None) -> None:
        """Begin to read; ``receive`` is called on a thread of this backplane with what the hub is to be told.

        Where the loop can ``listen``, it hears most of that by itself.
        """
        self._receive = receive
        self._writer.start()
        self._reader.start(listen)
        if self._channel is not None:
            self._channel.start()

    def drain(self) -> None:
        """Nothing to do: what is published here the other nodes hear."""

    def close(self) -> None:
        """Stop reading and publishing; what is under way has a few seconds."""
        self._reader.stop()
        if self._channel is not None and self._receive is not None:
            self._channel.stop(CLOSE_TIMEOUT)  # before the publisher, which has what came from there
        self._writer.close(CLOSE_TIMEOUT)
        if self._receive is not None:
            self._reader.join(CLOSE_TIMEOUT)
        self._histories.close()

    def publish(self, project_id: str, event: str, text: str, trace: str | None = None) -> Future[str]:
        """Append one event, whose data ``text`` is, to the project's stream. Never blocks.

        The future has the ``event_id`` once Redis has accepted it, else BackplaneUnavailable. ValueError for data
        that is too large.
        """
        return self._writer.publish(project_id, event, text, trace)

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], traces: Sequence[str] = ()
    ) -> Future[Sequence[str]]:
        """Append several events, each with its data: either all of them are in the stream, or none."""
        return self._writer.publish_all(project_id, events, traces)

    @property
    def shared(self) -> bool:
        """True: there may be other nodes."""
        return True

    def share_presence(self, report: PresenceReport) -> None:
        """Tell the other nodes that follow the project; lost while Redis is away."""
        self._writer.send(tell(self._node, report))

    def announce(self, item: AccessChanged | LoggedOut) -> Future[Any]:
        """Tell every other node; the future is done when Redis has taken it, or fails with BackplaneUnavailable."""
        return self._writer.announce(Announcement(self._node, item))

    def ask(self, question: str) -> Callable[[], list[NodeAnswer]]:
        """What asks every other node, and waits for a few seconds at most.

        It blocks, and raises BackplaneUnavailable while Redis is away.
        """
        return partial(ask_nodes, self._url, question, but=self._node)

    def answer(self, reply_to: str, text: str) -> None:
        """Answer what another node asked; lost while Redis is away."""
        self._writer.send(answering(reply_to, text))

    def follow(self, project_id: str) -> None:
        """Hand over the project's updates, from where the next ``read`` of it ends."""
        self._reader.feeds.follow(project_id)

    def unfollow(self, project_id: str) -> None:
        """Hand them over no more."""
        self._reader.feeds.unfollow(project_id)

    def read(
        self, project_id: str, after: str | None, newest: int = 0, before: str | None = None
    ) -> Callable[[], History]:
        """What reads the updates after the id ``after``; without one, so many of the newest that are kept.

        With ``before`` they are the newest of those that came before that id. It blocks, and raises
        BackplaneUnavailable while Redis is away.
        """
        return partial(self._histories.read, project_id, after, newest, before)

    @property
    def hearing(self) -> bool:
        """Whether this node hears of every update that is published."""
        # Another node may hear a channel that this one does not, but this one cannot know whether there is one; and
        # what no node hears on a channel is lost.
        listening = self._channel is None or self._channel.subscribed
        return self._reader.connected and self._heartbeat.hearing and listening

    @property
    def writable(self) -> bool:
        """Whether Redis takes what this node writes; a full one does not, and is heard for all that."""
        return self._heartbeat.writable

    def stats(self) -> dict[str, float]:
        """Gauges, and counters (names that end in ``_total``)."""
        stats: dict[str, float] = {
            "backplane_up": 1 if self.hearing else 0,
            "backplane_writable": 1 if self.writable else 0,
            "backplane_lag_seconds": self._heartbeat.lag,
            "backplane_streams": len(self._reader.feeds),
            "backplane_waiting": self._writer.waiting,
            "backplane_published_total": self._writer.published,
            "backplane_publish_failures_total": self._writer.failed,
            "backplane_reconnects_total": self._reader.reconnects,
            "backplane_rejected_total": self._reader.rejected,
            "backplane_unusable_total": self._troubles.refusals,
            "backplane_lost_total": self._reader.lost,
        }
        return stats if self._channel is None else stats | self._channel.stats()

    # Inside

    def _deliver(self, inputs: Sequence[Heard]) -> Future[None]:
        assert self._receive is not None, "it was started"
        return self._receive(inputs)


class RedisPublisher:
    """What a process without a server publishes through: every node hears it. Thread-safe, and never blocks.

    While Redis is away an update waits for up to ``patience`` seconds, and is tried again also where it may have been
    stored, so that in rare cases it is published twice. ``entries`` and ``max_age`` are those of the nodes.
    """

    def __init__(
        self, url: str, *, patience: float, max_waiting: int, entries: int = 1000, max_age: float = 86_400.0
    ) -> None:
        self._node = secrets.token_hex(8)
        self._writer = Writer(
            url, entries=entries, max_age=max_age, patience=patience, persistent=True, max_waiting=max_waiting,
            troubles=Troubles(),
        )  # fmt: skip

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], trace: str | None = None) -> Future[str]:
        """Publish one event; the future has its ``event_id``, or BackplaneUnavailable."""
        return self._writer.publish(project_id, event, Server.encode(data), trace)

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[Any]:
        """Have the live sessions of every node checked again."""
        return self._writer.announce(Announcement(self._node, AccessChanged(user_id, project_id)))

    def logged_out(self, user_id: str) -> Future[Any]:
        """End the user's live sessions on every node."""
        return self._writer.announce(Announcement(self._node, LoggedOut(user_id)))

    def close(self, timeout: float) -> bool:
        """Publish nothing more; True where nothing was left after ``timeout`` seconds."""
        return self._writer.close(timeout)


__all__ = ["RedisBackplane", "RedisPublisher"]
