"""What a notifier sends, and to whom it hands that over."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from attrs import frozen


def current_trace() -> str | None:
    """The traceparent of the caller's span. Who traces with OpenTelemetry has imported it; it is not imported here."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Publisher(Protocol):
    """What is needed of the server in this process (:class:`automoderate.realtime.Realtime`), of Redis, or of HTTP."""

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], trace: str | None = None, /) -> Future[str]:
        """Publish one event; the future has its ``event_id``. ``trace`` is only given where there is one."""

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Have live sessions checked again."""

    def logged_out(self, user_id: str) -> Future[None]:
        """End a user's live sessions."""


@frozen
class Publication:
    """One event for a project's room."""

    project_id: str
    event: str
    data: Mapping[str, Any]
    trace: str | None = None
    """The traceparent of the span in which it was said, where the program traces with OpenTelemetry."""

    def __str__(self) -> str:
        return f"{self.event} of project {self.project_id}"

    @property
    def about(self) -> Mapping[str, str]:
        """Whom it concerns, as the log names that."""
        return {"project": self.project_id}

    def hand_over(self, publisher: Publisher) -> Future[Any]:
        """Say it to a publisher, which keeps the order."""
        if self.trace is None:
            return publisher.publish(self.project_id, self.event, self.data)
        return publisher.publish(self.project_id, self.event, self.data, self.trace)


@frozen
class AccessChange:
    """Who may see a project changed, for one user or for everybody."""

    project_id: str
    user_id: str | None

    def __str__(self) -> str:
        return f"access change of project {self.project_id}"

    @property
    def about(self) -> Mapping[str, str]:
        """Whom it concerns, as the log names that."""
        user = {} if self.user_id is None else {"user": self.user_id}
        return {"project": self.project_id, **user}

    def hand_over(self, publisher: Publisher) -> Future[Any]:
        """Say it to a publisher, which keeps the order."""
        return publisher.access_changed(user_id=self.user_id, project_id=self.project_id)


@frozen
class Logout:
    """A user's live sessions are to end. No API key may say so: it speaks for one project, not for its users."""

    user_id: str

    def __str__(self) -> str:
        return f"logout of user {self.user_id}"

    @property
    def about(self) -> Mapping[str, str]:
        """Whom it concerns, as the log names that."""
        return {"user": self.user_id}

    def hand_over(self, publisher: Publisher) -> Future[Any]:
        """Say it to a publisher, which keeps the order."""
        return publisher.logged_out(self.user_id)


Item = Publication | AccessChange | Logout
