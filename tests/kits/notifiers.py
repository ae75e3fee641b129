"""What the tests of both notifiers use."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from automoderate.notifier import WebSocketNotifier, delivery

CONTENT = {"id": "c", "project_id": "p", "content_type": "text", "content_data": "Hello", "meta_data": None}


class Here:
    """A server in this process, as far as the notifier sees it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.futures: list[Future[Any]] = []

    def _take(self, *call: Any) -> Future[Any]:
        self.calls.append(call)
        self.futures.append(Future())
        return self.futures[-1]

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], _trace: str | None = None) -> Future[str]:
        return self._take(project_id, event, dict(data))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        return self._take("access_changed", user_id, project_id)

    def logged_out(self, user_id: str) -> Future[None]:
        return self._take("logged_out", user_id)


def counters(notifier: Any) -> tuple[int, int, int]:
    return notifier.sent, notifier.dropped, notifier.failed


def last_words(url: str, who: str, notifier: WebSocketNotifier | None = None) -> None:
    """What a process says just before it ends."""
    delivery._AT_EXIT = 60  # noqa: SLF001 - however slow the machine is
    notifier = notifier or WebSocketNotifier(url=url, api_key="am_key", timeout=60)
    notifier.send_stats_update("p", {"who": who})
