"""What a notifier sends, each by either way: handed over to a server or to Redis, or posted to the publishing API."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from attrs import frozen

from automoderate.publishing import PublishingApi


class Realtime(Protocol):
    """What is needed of the server in this process (:class:`automoderate.realtime.Realtime`), or of Redis."""

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
        """Publish one event; the future has its ``event_id``."""

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

    def __str__(self) -> str:
        return f"{self.event} of project {self.project_id}"

    def hand_over(self, realtime: Realtime) -> Future[Any]:
        return realtime.publish(self.project_id, self.event, self.data)

    def post(self, api: PublishingApi, api_key: str) -> None:
        api.publish(self.project_id, api_key, self.event, self.data)


@frozen
class AccessChange:
    """Who may see a project changed, for one user or for everybody."""

    project_id: str
    user_id: str | None

    def __str__(self) -> str:
        return f"access change of project {self.project_id}"

    def hand_over(self, realtime: Realtime) -> Future[Any]:
        return realtime.access_changed(user_id=self.user_id, project_id=self.project_id)

    def post(self, api: PublishingApi, api_key: str) -> None:
        whose = {} if self.user_id is None else {"user_id": self.user_id}
        api.access_changed(api_key, project_id=self.project_id, **whose)


@frozen
class Logout:
    """A user's live sessions are to end. No API key may say so: it speaks for one project, not for its users."""

    user_id: str

    def __str__(self) -> str:
        return f"logout of user {self.user_id}"

    def hand_over(self, realtime: Realtime) -> Future[Any]:
        return realtime.logged_out(self.user_id)


Item = Publication | AccessChange | Logout
