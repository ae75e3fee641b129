"""The methods of both notifiers, and the one for programs that wait for nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from automoderate import update_payloads
from automoderate.notifier.delivery import Delivery
from automoderate.notifier.items import AccessChange, Item, Logout, Publication, current_trace

Told = TypeVar("Told")


class Notifier(Delivery, ABC, Generic[Told]):
    """What can be said, and what a caller is told of it: what ``_say`` makes of an item.

    ``realtime`` is the server in this process; else ``url`` is where the server is and ``api_key`` the project's
    key, or a mapping of project ids to keys for a pipeline of several projects; ``redis_url`` is the Redis that the
    nodes share, which needs the extra ``redis``.

    At most ``queue_size`` updates wait to be sent; while it is full, new ones are dropped, so that what a dashboard
    does get has no holes before it. Those of one project leave in order. While Redis is away, or the server is or
    answers 429, 502, 503 or 504, they are tried again, with growing jittered pauses or as late as the server asks for,
    for up to ``retry_for`` seconds from when they were handed over. ``timeout`` is that of one request, in seconds.

    Over HTTP what waits of a project leaves in batches, over a kept-alive connection: a few of these where there are
    several projects. An event that the server refuses takes no other with it. Where an answer was lost the history is
    looked at before anything is tried again; only what comes first of a process, or while the history cannot be read,
    may be published twice, under two event ids. So may, rarely, what goes through Redis.

    The counters ``sent``, ``dropped`` (never tried: queue full or notifier closed) and ``failed`` (tried in vain, or
    impossible to send) are this process's: after a fork the child counts, queues and sends by itself.

    Raises ValueError where it is not told, or told twice, where the server is.
    """

    def send_update_async(self, content: object, decision: object, results: object, total_time: object) -> Told:
        """A decision was made: ``moderation_update``. ``total_time`` is in seconds."""
        return self._publish(
            "moderation_update", lambda: update_payloads.moderation_update(content, decision, results, total_time)
        )

    def send_content_created(self, content: object) -> Told:
        """Content came in and is not decided on yet: ``content_received``."""
        return self._publish("content_received", lambda: update_payloads.content_received(content))

    def send_stats_update(self, project_id: object, stats: object) -> Told:
        """New statistics of a project: ``stats_update``."""
        return self._publish("stats_update", lambda: (_id(project_id, "project"), update_payloads.stats_update(stats)))

    def send_rule_update(self, project_id: object, rule_data: object, action: object = "updated") -> Told:
        """A rule was ``created``, ``updated`` or ``deleted``: ``rule_update``."""
        return self._publish(
            "rule_update", lambda: (_id(project_id, "project"), update_payloads.rule_update(rule_data, action))
        )

    def access_changed(self, project_id: object, user_id: object = None) -> Told:
        """Who may see a project changed, for everybody or for one user: live sessions are checked again at once."""

        def make() -> AccessChange:
            return AccessChange(_id(project_id, "project"), None if user_id is None else str(user_id))

        return self._say("access change", make)

    def logged_out(self, user_id: object) -> Told:
        """End all live sessions of a user, on every node. A browser whose login still holds comes back.

        Not over HTTP, where it fails at once: an API key is a project's, and may not end users' sessions.
        """
        return self._say("logout", lambda: Logout(_id(user_id, "user")))

    def _publish(self, event: str, shape: Callable[[], tuple[str, dict[str, Any]]]) -> Told:
        def make() -> Publication:
            project_id, data = shape()
            return Publication(project_id, event, data, current_trace())

        return self._say(event, make)

    @abstractmethod
    def _say(self, what: str, make: Callable[[], Item]) -> Told:
        """Hand over the item that ``make`` makes; what the caller is told."""


class WebSocketNotifier(Notifier[None]):
    """Sends updates to dashboards. Every method returns at once and none raises, whatever it is given.

    Arguments and counters are those of :class:`Notifier`. Nothing is awaited, whatever a method's name says.
    """

    def close(self, timeout: float = 5.0) -> bool:
        """Stop taking updates and wait up to ``timeout`` seconds for those under way; True if none is left.

        What is still queued then counts as failed. Idempotent.
        """
        return self._close(timeout)

    def _say(self, what: str, make: Callable[[], Item]) -> None:
        self._send(what, make, _not_asked_for)


def _not_asked_for(sent: bool) -> None:
    """The counters say it, and the log."""


def _id(value: object, of_what: str) -> str:
    if value is None or value == "":
        raise ValueError(f"no {of_what} is named")
    return str(value)


__all__ = ["Notifier", "WebSocketNotifier"]
