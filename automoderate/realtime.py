"""The running server as threads see it: Flask views, signal handlers and a notifier in the same process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from automoderate.server import NotRunning, Server

__all__ = ["Handle", "NotRunning", "Realtime"]

T = TypeVar("T")


class Handle(Protocol):
    """How an adapter takes calls from other threads."""

    def submit(self, call: Callable[[float], T]) -> Future[T]:
        """Run ``call(now)`` on the loop's thread and perform what it queued; the future has what came of it."""


class Realtime:
    """Thread-safe door to one server. It exists before the server runs: until ``bind``, calls fail with NotRunning."""

    def __init__(self) -> None:
        self._bound: tuple[Server, Handle] | None = None

    def bind(self, server: Server, handle: Handle) -> None:
        """The server runs, and takes calls through ``handle``."""
        self._bound = server, handle

    def unbind(self) -> None:
        """The server ended."""
        self._bound = None

    @property
    def running(self) -> bool:
        """Whether calls reach a server at all."""
        return self._bound is not None

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        bound = self._bound  # once: the server's thread may unbind at any moment
        return bound is not None and bound[0].draining

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
        """Publish one event; the future's result is its ``event_id``. Updates of one thread keep their order.

        :raises ValueError: for data that JSON cannot say. Checked here, on the caller's thread: nobody waits for it.
        """
        try:
            text = Server.encode(data)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the data of {event!r} cannot be sent: {error}") from error
        return self._call(lambda server, now: server.publish(project_id, event, text, now))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Announce that a user's access, or everyone's to a project, may have changed: it is looked up again now."""
        return self._call(lambda server, now: server.access_changed(now, user_id=user_id, project_id=project_id))

    def logged_out(self, user_id: str) -> Future[None]:
        """Announce that a user logged out: their live sessions end."""
        return self._call(lambda server, now: server.logged_out(user_id, now))

    def stats(self, timeout: float = 5.0) -> dict[str, int]:
        """The server's gauges and counters, as of now.

        :raises NotRunning: where there is no server; TimeoutError: where it did not answer in ``timeout`` seconds.
        """
        return self._call(lambda server, now: server.stats()).result(timeout)

    def _call(self, call: Callable[[Server, float], T]) -> Future[T]:
        bound = self._bound
        if bound is None:
            failed: Future[T] = Future()
            failed.set_exception(NotRunning("the real-time server is not running"))
            return failed
        server, handle = bound
        return handle.submit(lambda now: call(server, now))
