"""HTTP requests that the server answers itself, on the loop and without a thread: one coroutine for each.

A handler is written as if it could wait: it awaits what is not there yet (``Later``). No event loop of any kind is
involved. ``PendingRequests`` resumes the coroutine when the value has come, or when the request's time is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from attrs import define, field, frozen

from automoderate.protocol.broadcast import object_text
from automoderate.protocol.model import Connection, Request
from automoderate.protocol.origin import check_origin, cors_headers
from automoderate.protocol.timers import Timers

__all__ = [
    "HttpError", "Later", "PendingRequest", "PendingRequests", "Reply", "Responder", "Route", "json_reply", "number",
]  # fmt: skip

logger = logging.getLogger("automoderate.server")

MAX_OPEN = 1000
"""Requests that may wait for their answer at a time."""

MAX_HELD = 64 * 1024 * 1024
"""Bytes of their bodies."""

Header: TypeAlias = tuple[str, str]
T = TypeVar("T")

Resume: TypeAlias = Callable[[Any, float], None]
"""Takes a value, or the exception that there is instead of one, and the time."""


class Later(Generic[T]):
    """A value that is not there yet, for a handler to ``await``."""

    def __init__(self, start: Callable[[Resume], None]) -> None:
        """``start`` is called once; it sees to it that its argument is called, once, when the value has come."""
        self.start = start

    def __await__(self) -> Generator[Later[T], Any, T]:
        value: T = yield self
        return value


@frozen
class Reply:
    """What a request is answered with."""

    status: int
    body: bytes
    content_type: str
    headers: Sequence[Header] = ()


def json_reply(status: int, value: Mapping[str, object], headers: Sequence[Header] = ()) -> Reply:
    """A value as JSON."""
    return Reply(status, object_text(value).encode(), "application/json", headers)


class HttpError(Exception):
    """An answer other than success: ``code`` is for programs, ``message`` for the person who reads their log.

    ``event`` is which of several events in the request it is about, counted from 1.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Sequence[Header] = (), *, event: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.event = event

    def answer(self) -> Reply:
        """The reply that tells the client."""
        error: dict[str, object] = {"message": self.message, "code": self.code}
        if self.event is not None:
            error["event"] = self.event
        return json_reply(self.status, {"error": error}, self.headers)


def number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A number of the query. Raises HttpError for what is none, or is beyond its bounds."""
    text = request.query.get(name, str(default))
    # By its length first: there is no end to the digits that somebody may send.
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise HttpError(400, "invalid_request", f"{name} must be a number from {least} to {most}")
    return int(text)


Handler: TypeAlias = Callable[["PendingRequest"], Coroutine[Later[Any], Any, Reply]]


@frozen
class Route:
    """What answers the requests of one path and method."""

    handler: Handler
    max_body: int = 0
    """Bytes a request may have."""
    within: float = 10.0
    """Seconds until TimeoutError is raised where the handler waits."""
    always: bool = False
    """Answered also while too many other requests wait."""
    for_pages: bool = False
    """The pages of other origins that may connect may read the answer too."""


@define(eq=False)
class PendingRequest:
    """One request, until it is answered."""

    connection: Connection
    request: Request
    now: float
    """The time, whenever its handler runs."""
    route: Route
    argument: str
    """What the path names."""
    body: bytearray = field(factory=bytearray)
    waiting: Coroutine[Later[Any], Any, Reply] | None = None
    until: float = inf
    """How long its handler may wait."""
    awaited: Later[Any] | None = None


class Responder(Protocol):
    """Sends answers."""

    def reply(self, connection: Connection, status: int, body: bytes, headers: Sequence[Header], now: float) -> None:
        """Answer a request in one go."""


Methods: TypeAlias = Mapping[str, Route]


class PendingRequests:
    """The requests that are being received or wait for their answer."""

    def __init__(self, responder: Responder, allowed_origins: frozenset[str]) -> None:
        self._responder = responder
        self._allowed_origins = allowed_origins
        self._open: dict[Connection, PendingRequest] = {}
        self._held = 0
        self._timers: Timers[PendingRequest] = Timers()

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._open

    def next_deadline(self) -> float | None:
        """When ``tick`` is next wanted."""
        return self._timers.next()

    def tick(self, now: float) -> None:
        """Tell the handlers whose time is over."""
        while (pending := self._timers.pop_due(now)) is not None:
            pending.awaited = None
            self._run(pending, TimeoutError(), now)

    # One request after the other of a connection

    def begin(self, connection: Connection, request: Request, methods: Methods, argument: str, now: float) -> None:
        """A request's head has come: it is received, or answered at once."""
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            error = HttpError(405, "method_not_allowed", "Method Not Allowed", [("Allow", allowed)])
            self.refuse(connection, error, now)
            return
        pending = PendingRequest(connection, request, now, route, argument)
        if request.content_length > route.max_body:
            self._answer(pending, _too_large(route).answer(), now)
        elif not route.always and (len(self._open) >= MAX_OPEN or self._held + request.content_length > MAX_HELD):
            self._answer(pending, busy().answer(), now)
        else:
            self._open[connection] = pending

    def receive(self, connection: Connection, data: bytes, now: float) -> None:
        """A piece of its body."""
        pending = self._open[connection]
        self._held += len(data)
        pending.body += data
        error = _too_large(pending.route) if len(pending.body) > pending.route.max_body else None
        if self._held > MAX_HELD:
            error = busy()  # its size was not announced
        if error is not None:
            self._finish(pending, error.answer(), now)

    def complete(self, connection: Connection, now: float) -> None:
        """The request is complete: run its handler."""
        pending = self._open[connection]
        pending.waiting = pending.route.handler(pending)
        pending.until = now + pending.route.within
        self._run(pending, None, now)

    def abandon(self, connection: Connection) -> None:
        """Its client has gone."""
        pending = self._open[connection]
        self._close(pending)
        if pending.waiting is not None:
            pending.waiting.close()

    # Running handlers

    def _run(self, pending: PendingRequest, value: object, now: float) -> None:
        handler = pending.waiting
        assert handler is not None, "it was started"
        pending.now = now
        try:
            later = handler.throw(value) if isinstance(value, BaseException) else handler.send(value)
        except StopIteration as finished:
            self._finish(pending, finished.value, now)
        except HttpError as error:
            self._finish(pending, error.answer(), now)
        except TimeoutError:
            self._finish(pending, HttpError(503, "unavailable", "There was no answer in time", RETRY).answer(), now)
        except Exception:
            logger.exception(
                "Error in %s %r", pending.request.method, pending.request.path, extra={"event": "request_error"}
            )
            self._finish(pending, HttpError(500, "internal_server_error", "Internal Server Error").answer(), now)
        else:
            self._timers.set(pending, pending.until)
            pending.awaited = later
            later.start(partial(self._resume, pending, later))

    def _resume(self, pending: PendingRequest, later: Later[Any], value: object, now: float) -> None:
        if pending.awaited is later:  # else its time was over, or its client is gone
            pending.awaited = None
            self._run(pending, value, now)

    def _finish(self, pending: PendingRequest, answer: Reply, now: float) -> None:
        self._close(pending)
        self._answer(pending, answer, now)

    def _close(self, pending: PendingRequest) -> None:
        self._timers.cancel(pending)
        self._held -= len(pending.body)
        pending.awaited = None
        del self._open[pending.connection]

    def refuse(self, connection: Connection, error: HttpError, now: float) -> None:
        """Answer a request of which only the head has come, and ignore its body."""
        self._send(connection, error.answer(), (), now)

    def _answer(self, pending: PendingRequest, answer: Reply, now: float) -> None:
        headers: Sequence[Header] = ()
        if pending.route.for_pages:
            headers = cors_headers(pending.request, check_origin(pending.request, self._allowed_origins))
        self._send(pending.connection, answer, headers, now)

    def _send(self, connection: Connection, answer: Reply, more: Sequence[Header], now: float) -> None:
        headers = [
            ("Content-Type", answer.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *answer.headers,
            *more,
        ]
        self._responder.reply(connection, answer.status, answer.body, headers, now)


RETRY = (("Retry-After", "5"),)
"""Try again when what is away may be back."""


def busy() -> HttpError:
    """Too much waits to be done already."""
    return HttpError(429, "busy", "The server is behind; try again in a moment", [("Retry-After", "1")])


def _too_large(route: Route) -> HttpError:
    return HttpError(413, "too_large", f"The body may have at most {route.max_body} bytes")
