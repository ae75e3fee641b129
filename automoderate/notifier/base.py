"""Tells dashboards what the moderation pipeline decided, without ever getting in the pipeline's way.

:class:`WebSocketNotifier` has the methods of AutoModerate's own notifier. It works in the process of the server
(``realtime=``) or in any other, through the Redis of several nodes (``redis_url=``) or over the publishing API
(``url=`` and ``api_key=``). ``AsyncWebSocketNotifier`` is the same for programs on asyncio or trio; it needs the extra
``anyio``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from automoderate import payloads
from automoderate._delivery import Delivery
from automoderate._items import AccessChange, Item, Logout, Publication, Realtime

if TYPE_CHECKING:
    from automoderate.async_notifier import AsyncWebSocketNotifier as AsyncWebSocketNotifier

Told = TypeVar("Told")


class Notifier(Delivery, ABC, Generic[Told]):
    """What can be said, and what a caller is told of it: what ``_say`` makes of an item.

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

    def send_update_async(self, content: object, decision: object, results: object, total_time: object) -> Told:
        """A decision was made: ``moderation_update``. ``total_time`` is in seconds."""
        return self._publish(
            "moderation_update", lambda: payloads.moderation_update(content, decision, results, total_time)
        )

    def send_content_created(self, content: object) -> Told:
        """Content came in and nobody has decided yet: ``content_received``."""
        return self._publish("content_received", lambda: payloads.content_received(content))

    def send_stats_update(self, project_id: object, stats: object) -> Told:
        """New statistics of a project: ``stats_update``."""
        return self._publish("stats_update", lambda: (_id(project_id, "project"), payloads.stats_update(stats)))

    def send_rule_update(self, project_id: object, rule_data: object, action: object = "updated") -> Told:
        """A rule was ``created``, ``updated`` or ``deleted``: ``rule_update``."""
        return self._publish(
            "rule_update", lambda: (_id(project_id, "project"), payloads.rule_update(rule_data, action))
        )

    def access_changed(self, project_id: object, user_id: object = None) -> Told:
        """Who may see a project changed, for everybody or for one user: live sessions are checked again at once."""

        def make() -> AccessChange:
            return AccessChange(_id(project_id, "project"), None if user_id is None else str(user_id))

        return self._say("access change", make)

    def logged_out(self, user_id: object) -> Told:
        """End all live sessions of a user, on every node. A browser whose login still holds comes back.

        Not over HTTP, where it fails at once: an API key is a project's, and may not end anybody's sessions.
        """
        return self._say("logout", lambda: Logout(_id(user_id, "user")))

    def _publish(self, event: str, shape: Callable[[], tuple[str, dict[str, Any]]]) -> Told:
        def make() -> Publication:
            project_id, data = shape()
            return Publication(project_id, event, data)

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
        self._send(what, make, _nobody_asks)


def _nobody_asks(sent: bool) -> None:
    """The counters say it, and the log."""


def _id(value: object, of_what: str) -> str:
    if value is None or value == "":
        raise ValueError(f"no {of_what} is named")
    return str(value)


def __getattr__(name: str) -> Any:
    if name != "AsyncWebSocketNotifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from automoderate.async_notifier import AsyncWebSocketNotifier
    except ModuleNotFoundError as error:
        raise ImportError(f'{name} needs {error.name}: pip install "automoderate[anyio]"') from error
    return AsyncWebSocketNotifier


__all__ = ["Notifier", "Realtime", "WebSocketNotifier"]
