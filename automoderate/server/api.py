"""The HTTP API: publishing, history, announcements, and what operators ask.

All of it is answered on the loop. What has to be asked of the directory goes with the other questions that wait, and
what a backplane takes its time for is waited for without a thread. So no slow page, of the dashboard or of a mounted
application, delays it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

from attrs import field, frozen

from automoderate.core.hub import Access, AccessChanged, History, LoggedOut, parse_event_id
from automoderate.protocol.model import Connection, Request
from automoderate.protocol.timers import earliest
from automoderate.server import admin
from automoderate.server.admin import Admin, AdminOptions
from automoderate.server.gathering import Gathering
from automoderate.server.inspection import Inspection
from automoderate.server.interfaces import (
    Asked,
    Backplane,
    BackplaneBusy,
    BackplaneRefused,
    BackplaneUnavailable,
    NotRunning,
    ProjectUnusable,
)
from automoderate.server.jobs import Jobs
from automoderate.server.keys import Keys
from automoderate.server.outages import Outage
from automoderate.server.publications import MAX_BODY, event_batch, events_text, json_object
from automoderate.server.questions import Questions, asked
from automoderate.server.requests import (
    RETRY,
    HttpError,
    Later,
    Methods,
    PendingRequest,
    PendingRequests,
    Reply,
    Responder,
    Route,
    busy,
    json_reply,
    number,
)
from automoderate.server.telemetry import Histogram, Telemetry

__all__ = ["Api", "ApiOptions"]

logger = logging.getLogger("automoderate.server")

MAX_ANNOUNCEMENT = 16 * 1024
"""Bytes of a request that announces a change."""

PROBED_WITHIN = 2.0
"""Seconds that the database has to give a sign of life."""

MAX_PAGE, PAGE = 1000, 100
"""Updates in one answer of the history: at most, and where no limit is named."""

_EVENTS_OF_PROJECT = re.compile("/api/projects/(.*)/events", re.DOTALL)

T = TypeVar("T")


Exposition: TypeAlias = Callable[[Mapping[str, float], Mapping[str, Histogram]], tuple[bytes, str]]


@frozen
class ApiOptions:
    """What the API needs of the rest of the program."""

    prefix: str = ""
    """Where it is while another application is mounted, as "/realtime"."""
    refusal: Callable[[str], tuple[str, str] | None] = lambda _token: ("invalid_token", "There are no tokens")
    """Why a token is none of the command line's, which knows the secret key: code and message. None where it is."""
    exposition: Exposition = lambda _stats, _histograms: (b"", "text/plain")
    """The server's numbers as a monitoring system reads them, and their content type."""
    documents: Mapping[str, tuple[bytes, str]] = {}
    """What is served as it is: body and content type, by the path without the prefix."""
    about: Mapping[str, Any] = field(factory=dict)
    """Which node this is: its name (``node``), and what else operators are told of it."""
    admin: AdminOptions = field(factory=AdminOptions)


class ApiHost(Responder, Protocol):
    """The server, as far as the API needs it."""

    backplane: Backplane
    draining: bool
    telemetry: Telemetry
    identification: Callable[[Request], str | None]

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], now: float, traces: Sequence[str | None]
    ) -> Sequence[str] | Future[Sequence[str]]: ...
    def announce(self, item: AccessChanged | LoggedOut, now: float) -> Future[Any] | None: ...
    def has_room(self, project_id: str) -> bool: ...
    def end_session(self, sid: str, now: float) -> Mapping[str, Any] | None: ...
    def stats(self) -> dict[str, float]: ...


class Api:
    """The requests that are not the protocol's but the server's own."""

    def __init__(
        self,
        host: ApiHost,
        options: ApiOptions,
        questions: Questions,
        jobs: Jobs,
        inspection: Inspection,
        *,
        histories: Outage,
        origins: frozenset[str],
    ) -> None:
        """``histories`` are the readings of the history that fail; pages of ``origins`` may connect, and read one."""
        self._host = host
        self._options = options
        self._questions = questions
        self._jobs = jobs
        self._publications = Outage(logger, "publications")
        self._histories = histories
        self._keys = Keys(questions.keys)
        self._pending = PendingRequests(host, origins)
        self.identification = host.identification
        self._gathering = Gathering(host, inspection, jobs)
        self._scraped: tuple[float, Reply] | None = None
        self._admin = Admin(self, options.admin, questions, jobs, self._gathering)
        self._events: Methods = {"POST": Route(self._publish, MAX_BODY), "GET": Route(self._history, for_pages=True)}
        self._paths: Mapping[str, Methods] = {
            "/api/access-changes": {"POST": Route(self._announce, MAX_ANNOUNCEMENT)},
            "/health": {"GET": Route(self._health, always=True)},
            "/readyz": {"GET": Route(self._ready, within=PROBED_WITHIN, always=True)},
            "/metrics": {"GET": Route(self._metrics, always=True)},
            **{path: {"GET": Route(self._document)} for path in options.documents},
        }

    def next_deadline(self) -> float | None:
        """When ``tick`` is next wanted."""
        deadline, asked = self._pending.next_deadline(), self._gathering.next_deadline()
        return deadline if asked is None else earliest(deadline, asked)

    def tick(self, now: float) -> None:
        """Go on with what waits for its time, or its turn."""
        self._pending.tick(now)
        self._gathering.tick(now)

    # Requests

    def begin(self, connection: Connection, request: Request, now: float) -> bool:
        """A request's head has come; whether the request is for the API."""
        path, prefix = request.path, self._options.prefix
        if prefix:
            if not path.startswith(f"{prefix}/"):
                return False
            path = path.removeprefix(prefix)
        if (events := _EVENTS_OF_PROJECT.fullmatch(path)) is not None:
            self._pending.begin(connection, request, self._events, events[1], now)
        elif (methods := self._paths.get(path)) is not None:
            self._pending.begin(connection, request, methods, "", now)
        elif path.startswith(admin.PREFIX) and (found := self._admin.find(path.removeprefix(admin.PREFIX))) is not None:
            self._pending.begin(connection, request, *found, now)
        elif path.startswith("/api/"):
            self._pending.refuse(connection, HttpError(404, "not_found", "There is nothing at this path"), now)
        else:
            return False
        return True

    def receive(self, connection: Connection, data: bytes, now: float) -> bool:
        """A piece of a body has come; whether it is the API's."""
        if ours := connection in self._pending:
            self._pending.receive(connection, data, now)
        return ours

    def complete(self, connection: Connection, now: float) -> bool:
        """A request is complete; whether it is the API's."""
        if ours := connection in self._pending:
            self._pending.complete(connection, now)
        return ours

    def abandon(self, connection: Connection) -> bool:
        """A client has gone; whether its request is the API's."""
        if ours := connection in self._pending:
            self._pending.abandon(connection)
        return ours

    def announced(self, item: object) -> None:
        """Somebody's access may have changed: a key may have been revoked."""
        if isinstance(item, AccessChanged) and (item.project_id is not None or item.user_id is None):
            self._keys.forget(item.project_id)

    def asked(self, item: Asked, now: float) -> None:
        """Another node, or the command line, asks this one something."""
        self._gathering.answer(item, now)

    # Publishing and history

    async def _publish(self, pending: PendingRequest) -> Reply:
        """202 with the ids of what was published."""
        project_id = pending.argument
        await self._check_key(pending, project_id)
        if not self._host.has_room(project_id):
            raise busy()
        header = pending.request.header
        wanted = event_batch(project_id, header("content-type"), bytes(pending.body), header("traceparent"))
        event_ids = await self.publish_events(pending, project_id, wanted.events, wanted.traces)
        return json_reply(202, {"event_ids": list(event_ids)} if wanted.many else {"event_id": event_ids[0]})

    async def publish_events(
        self,
        pending: PendingRequest,
        project_id: str,
        events: Sequence[tuple[str, str]],
        traces: Sequence[str | None] = (),
    ) -> Sequence[str]:
        """Publish events, each with its data and perhaps a traceparent: their ids. Raises HttpError."""
        try:
            published = self._host.publish_all(project_id, events, pending.now, traces)
            event_ids = await self._future(published) if isinstance(published, Future) else published
        except NotRunning:
            raise HttpError(503, "unavailable", "The real-time server is shutting down", RETRY) from None
        except BackplaneBusy:
            raise busy() from None
        except BackplaneUnavailable as error:
            if not isinstance(error, ProjectUnusable):
                self._publications.failed(error, pending.now)
            raise HttpError(503, "unavailable", _why_not(error), RETRY) from None
        except TimeoutError:
            raise _unknown() from None
        self._publications.worked(pending.now)
        return event_ids

    async def _history(self, pending: PendingRequest) -> Reply:
        """The updates that came after an id, or the newest, of all or of those before an id."""
        await self._check_reader(pending, pending.argument)
        after, before, limit = _page(pending.request)
        found = await self.read_history(pending, pending.argument, after, limit, before)
        updates = found.updates[:limit] if after is not None else found.updates
        last = updates[-1].event_id if len(updates) < len(found.updates) else found.last_event_id
        complete = "true" if found.complete else "false"
        body = f'{{"events":{events_text(updates)},"complete":{complete},"last_event_id":"{last}"}}'
        return Reply(200, body.encode(), "application/json")

    async def read_history(
        self, pending: PendingRequest, project_id: str, after: str | None, limit: int, before: str | None = None
    ) -> History:
        """What came after an id, or so many of the newest updates, or of those before an id. Raises HttpError."""
        found = self._host.backplane.read(project_id, after, limit, before)
        if isinstance(found, History):
            return found
        try:
            return await self._job(found)
        except BackplaneUnavailable as error:
            if not isinstance(error, ProjectUnusable):
                self._histories.failed(error, pending.now)
            raise HttpError(503, "unavailable", "The history cannot be read", RETRY) from None

    async def _project_of_key(self, pending: PendingRequest) -> str:
        """The project whose API key the request has. Raises HttpError where it has none."""
        key = pending.request.header("x-api-key") or ""
        project_id = await self._keys.project_of(key, pending.now)
        if project_id is None:
            headers = [("WWW-Authenticate", "X-API-Key")]
            raise HttpError(401, "invalid_api_key", "A valid X-API-Key header is needed", headers)
        return project_id

    async def _check_key(self, pending: PendingRequest, project_id: str) -> None:
        """Raise HttpError unless the request has an API key of the project."""
        if await self._project_of_key(pending) != project_id:
            raise HttpError(403, "access_denied", "This API key belongs to another project")

    async def _check_reader(self, pending: PendingRequest, project_id: str) -> None:
        """Raise HttpError unless the request has a key of the project, or the session of somebody who may see it."""
        if pending.request.header("x-api-key") is not None:
            await self._check_key(pending, project_id)
            return
        user = await asked(self._questions.identities, self._host.identification(pending.request))
        access = Access.NO_USER if user is None else await asked(self._questions.accesses, (user.user_id, project_id))
        if access is Access.NO_USER:
            raise HttpError(401, "authentication_required", "Authentication required")
        if access is Access.NOT_FOUND:
            raise HttpError(404, "project_not_found", "Project not found")
        if access is Access.DENIED:
            raise HttpError(403, "access_denied", "Access denied - you are not a member of this project")

    # Announcements

    async def _announce(self, pending: PendingRequest) -> Reply:
        """202 once the server looks up again who may see what, on every node."""
        commanded = self.check_command(pending.request)
        project = None if commanded else await self._project_of_key(pending)
        body = json_object(bytes(pending.body))
        user_id, project_id = _optional_id(body, "user_id"), _optional_id(body, "project_id")
        logged_out = body.get("logged_out", False)
        if not isinstance(logged_out, bool):
            raise HttpError(400, "invalid_request", "logged_out must be true or false")
        if not commanded and (logged_out or project_id != project):
            raise HttpError(403, "access_denied", "An API key may only announce changes of its own project")
        if logged_out and user_id is None:
            raise HttpError(400, "invalid_request", "logged_out needs a user_id")
        if user_id is None and project_id is None:
            raise HttpError(400, "invalid_request", "Name a user_id, a project_id or both")
        item = LoggedOut(str(user_id)) if logged_out else AccessChanged(user_id, project_id)
        await self.tell(pending, item)
        return json_reply(202, {"status": "accepted"})

    async def tell(self, pending: PendingRequest, item: AccessChanged | LoggedOut) -> None:
        """Announce a change on every node. Raises HttpError where it is not known whether all were told."""
        told = self._host.announce(item, pending.now)
        try:
            if told is not None:
                await self._future(told)
        except BackplaneUnavailable:
            message = "This server was told; of the other nodes it is not known"
            raise HttpError(503, "unavailable", message, RETRY) from None
        except TimeoutError:
            raise _unknown() from None

    def check_command(self, request: Request) -> bool:
        """Whether the request has a control token. Raises HttpError for a bad one, rather than taking it for none."""
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        refusal = self._options.refusal(token.strip())
        if refusal is not None:
            raise HttpError(401, *refusal, headers=[("WWW-Authenticate", "Bearer")])
        return True

    # What operators ask

    async def _health(self, _: PendingRequest) -> Reply:
        """The process is alive; says nothing of whether it can do its work."""
        return json_reply(200, {"status": "healthy", "service": "AutoModerate"})

    async def _ready(self, _: PendingRequest) -> Reply:
        """Whether clients should be sent here: 200, or 503 with what is missing.

        Whether anything can be published is said besides.
        """
        checks = {"database": "ok", "realtime": "ok", "publishing": "ok"}
        if self._host.draining:
            checks["realtime"] = "draining"
        elif not self._host.backplane.hearing:
            checks["realtime"] = "cut off from the other nodes"
        if not self._host.backplane.writable:
            checks["publishing"] = "unavailable"
        try:
            await asked(self._questions.pings, None)
        except (HttpError, TimeoutError):
            checks["database"] = "unavailable"
        # Who watches is served also where nothing can be published: then no node can, and all would be taken out.
        is_ready = checks["database"] == checks["realtime"] == "ok"
        answer = {"status": "ready" if is_ready else "unavailable", "checks": checks}
        return json_reply(200 if is_ready else 503, answer)

    async def _metrics(self, pending: PendingRequest) -> Reply:
        """The server's numbers, the same for all who ask in one turn: writing them down takes as long as a join."""
        if self._scraped is None or self._scraped[0] != pending.now:
            body, content_type = self._options.exposition(self._host.stats(), self._host.telemetry.histograms())
            self._scraped = pending.now, Reply(200, body, content_type)
        return self._scraped[1]

    async def _document(self, pending: PendingRequest) -> Reply:
        """What is the same for everybody."""
        body, content_type = self._options.documents[pending.request.path.removeprefix(self._options.prefix)]
        return Reply(200, body, content_type)

    # What is waited for

    def _future(self, future: Future[T]) -> Later[T]:
        return Later(lambda resume: self._jobs.wait(future, resume))

    def _job(self, call: Callable[[], T]) -> Later[T]:
        return Later(lambda resume: self._jobs.start(call, resume))


def _why_not(error: BackplaneUnavailable) -> str:
    """What the publisher of an update is told of it."""
    if isinstance(error, BackplaneRefused):
        return f"The update was not accepted: {error.reason}"
    return "The update was not accepted, or nobody knows whether it was"


def _page(request: Request) -> tuple[str | None, str | None, int]:
    """After and before which position, and how many updates are asked for. Raises HttpError."""
    after, before = request.query.get("after"), request.query.get("before")
    for name, position in (("after", after), ("before", before)):
        if position is not None and parse_event_id(position) is None:
            raise HttpError(400, "invalid_request", f"{name} must be an event_id")
    if after is not None and before is not None:
        raise HttpError(400, "invalid_request", "after and before cannot be combined; name one of them")
    return after, before, number(request, "limit", PAGE, 1, MAX_PAGE)


def _optional_id(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or (isinstance(value, str) and 0 < len(value) <= 100):
        return value
    raise HttpError(400, "invalid_request", f"{name} must be a string of at most 100 characters")


def _unknown() -> HttpError:
    return HttpError(504, "timeout", "The real-time server did not answer in time; this may have happened or not")
