"""The running server as threads see it: Flask views, signal handlers and a notifier in the same process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.server import Server
from automoderate.server.interfaces import BackplaneUnavailable, Hear, NotRunning

__all__ = ["BackplaneUnavailable", "LoopHandle", "NotRunning", "Realtime"]

T = TypeVar("T")


def process_name() -> str:
    """What operators call this process where it was given no name: ``HOST:PID``."""
    return f"{socket.gethostname()}:{os.getpid()}"


class LoopHandle(Protocol):
    """What of an adapter's handle takes calls from other threads."""

    def submit(self, call: Callable[[float], T | Future[T]]) -> Future[T]:
        """Run ``call(now)`` on the loop's thread and perform what it queued; the future has what came of it.

        Where the call returns a future, that is what comes of that one.
        """

    def watch(self, fileno: int, ready: Callable[[float], bool]) -> Future[None]:
        """Run ``ready(now)`` there, now and whenever the descriptor can be read, until it says False.

        The future is done after the first time.
        """


class Realtime:
    """One server as any thread may call it.

    It exists before the server runs: until ``bind``, calls fail with NotRunning.
    """

    def __init__(self) -> None:
        self._bound: tuple[Server, LoopHandle] | None = None

    def bind(self, server: Server, handle: LoopHandle) -> None:
        """The server runs, and takes calls through ``handle``; what other nodes publish is heard from here on."""
        self._bound = server, handle

        def listen(fileno: int, hear: Hear) -> Future[None]:
            return handle.watch(fileno, lambda now: hear(lambda items: server.receive(items, now)))

        server.backplane.start(lambda items: handle.submit(lambda now: server.receive(items, now)), listen)

    def unbind(self) -> None:
        """The server ended."""
        bound, self._bound = self._bound, None
        if bound is not None:
            bound[0].backplane.close()

    @property
    def running(self) -> bool:
        """Whether calls reach a server at all."""
        return self._bound is not None

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        bound = self._bound  # once: the server's thread may unbind at any moment
        return bound is not None and bound[0].draining

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], trace: str | None = None) -> Future[str]:
        """Publish one event; the future's result is its ``event_id``. Updates of one thread keep their order.

        ``trace`` is the traceparent of the span within which it is published, where somebody traces.
        Raises ValueError for data that JSON cannot say. Data is encoded here, on the caller's thread.
        """
        try:
            text = Server.encode(data)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the data of {event!r} cannot be sent: {error}") from error
        return self._call(lambda server, now: server.publish(project_id, event, text, now, trace))

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        """Announce that a user's access, or everyone's to a project, may have changed: it is looked up again now.

        Without either it is everyone's to everything.
        """
        return self._tell(AccessChanged(user_id, project_id))

    def logged_out(self, user_id: str) -> Future[None]:
        """Announce that a user logged out: their live sessions end."""
        return self._tell(LoggedOut(user_id))

    def stats(self, timeout: float = 5.0) -> dict[str, float]:
        """The gauges and counters of the server, and of what it shares with other nodes, as of now.

        Raises NotRunning where there is no server; TimeoutError where it did not answer in ``timeout`` seconds.
        """
        return self._call(lambda server, _now: server.stats()).result(timeout)

    def _tell(self, item: AccessChanged | LoggedOut) -> Future[None]:
        """Tell this server, and the other nodes; the future is done when each of them will act on it."""
        return self._call(lambda server, now: server.announce(item, now))

    def _call(self, call: Callable[[Server, float], T | Future[T]]) -> Future[T]:
        bound = self._bound
        if bound is None:
            failed: Future[T] = Future()
            failed.set_exception(NotRunning("the real-time server is not running"))
            return failed
        server, handle = bound
        return handle.submit(lambda now: call(server, now))
