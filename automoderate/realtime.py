"""The running server as threads see it: Flask views, signal handlers and a notifier in the same process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.server import BackplaneUnavailable, NotRunning, RemoteBackplane, Server

__all__ = ["BackplaneUnavailable", "Handle", "NotRunning", "Realtime"]

T = TypeVar("T")


class Handle(Protocol):
    """How an adapter takes calls from other threads."""

    def submit(self, call: Callable[[float], T]) -> Future[T]:
        """Run ``call(now)`` on the loop's thread and perform what it queued; the future has what came of it."""


Bound: TypeAlias = tuple[Server, Handle] | None


class Realtime:
    """Thread-safe door to one server. It exists before the server runs: until ``bind``, calls fail with NotRunning."""

    def __init__(self) -> None:
        self._bound: Bound = None

    def bind(self, server: Server, handle: Handle) -> None:
        """The server runs, and takes calls through ``handle``; what other nodes publish is heard from here on."""
        self._bound = server, handle
        if server.backplane.blocking:
            server.backplane.start(lambda items: handle.submit(lambda now: server.receive(items, now)))

    def unbind(self) -> None:
        """The server ended."""
        bound, self._bound = self._bound, None
        if remote := _remote(bound):
            remote.close()

    @property
    def running(self) -> bool:
        """Whether calls reach a server at all."""
        return self._bound is not None

    @property
    def deaf(self) -> bool:
        """Whether updates that other nodes publish are not heard at the moment."""
        remote = _remote(self._bound)
        return remote is not None and remote.deaf

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
        bound = self._bound
        if remote := _remote(bound):
            return remote.publish(project_id, event, text)
        return _call(bound, lambda server, now: server.publish(project_id, event, text, now))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Announce that a user's access, or everyone's to a project, may have changed: it is looked up again now."""
        return self._tell(AccessChanged(user_id, project_id))

    def logged_out(self, user_id: str) -> Future[None]:
        """Announce that a user logged out: their live sessions end."""
        return self._tell(LoggedOut(user_id))

    def stats(self, timeout: float = 5.0) -> dict[str, float]:
        """The gauges and counters of the server and of what it shares with other nodes, as of now.

        :raises NotRunning: where there is no server; TimeoutError: where it did not answer in ``timeout`` seconds.
        """
        bound = self._bound
        stats: dict[str, float] = {**_call(bound, lambda server, now: server.stats()).result(timeout)}
        return {**stats, **remote.stats()} if (remote := _remote(bound)) else stats

    def _tell(self, item: AccessChanged | LoggedOut) -> Future[None]:
        """Tell this server, and the other nodes; the future is done when each of them will act on it."""
        bound = self._bound
        told = _call(bound, lambda server, now: server.receive([item], now))
        return remote.announce(item) if (remote := _remote(bound)) else told


def _remote(bound: Bound) -> RemoteBackplane | None:
    return bound[0].backplane if bound is not None and bound[0].backplane.blocking else None


def _call(bound: Bound, call: Callable[[Server, float], T]) -> Future[T]:
    if bound is None:
        failed: Future[T] = Future()
        failed.set_exception(NotRunning("the real-time server is not running"))
        return failed
    server, handle = bound
    return handle.submit(lambda now: call(server, now))
