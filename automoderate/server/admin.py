"""What users with ``is_admin`` may ask and do over HTTP: look into all nodes, end sessions, try out a room.

The server looks the user up for each request. A request that changes something has to come from a page of ours, with
the token that its forms have, and is logged: who did what to whom.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from attrs import frozen

from automoderate.core.hub import Access, History, LoggedOut, is_project_id
from automoderate.core.updates import STATUSES
from automoderate.protocol.broadcast import dump_json
from automoderate.protocol.model import Request
from automoderate.protocol.origin import OriginCheck, check_origin
from automoderate.server.gathering import Gathered, Gathering, rooms_of_all, sessions_of_all
from automoderate.server.inspection import MAX_ROWS, MAX_TEXT
from automoderate.server.jobs import Jobs
from automoderate.server.publications import encoded, events_text, json_object
from automoderate.server.questions import Questions, asked
from automoderate.server.requests import HttpError, Later, Methods, PendingRequest, Reply, Route, json_reply, number

__all__ = ["Admin", "AdminOptions"]

log = logging.getLogger("automoderate.admin")

PREFIX = "/api/admin/"
"""Where all of it is."""

MAX_PAGE, PAGE = 200, 50
"""Rows of one answer: at most, and where no limit is named."""

MAX_UPDATES, UPDATES = 200, 20
"""Updates in the answer about a room: at most, and where no number is named."""

MAX_ACTION = 4096
"""Bytes of a request that changes something."""


@frozen
class AdminOptions:
    """What this needs of the rest of the program."""

    genuine: Callable[[str | None, str], bool] = lambda _cookie, _token: False
    """Whether a token is one that the forms of the session of this ``Cookie`` header have. Blocks."""
    trial_update: Callable[[str, str, str], Mapping[str, Any]] = lambda project_id, status, by: {
        "project_id": project_id, "status": status, "content_preview": f"A test update by {by}"
    }  # fmt: skip
    """The data of a ``moderation_update`` to try out a project's room with: which project, status and user."""


class AdminHost(Protocol):
    """The rest of the API, as far as it is needed here."""

    identification: Callable[[Request], str | None]

    def check_command(self, request: Request) -> bool: ...
    def publish_events(
        self, pending: PendingRequest, project_id: str, events: Sequence[tuple[str, str]]
    ) -> Coroutine[Later[Any], Any, Sequence[str]]: ...
    def read_history(
        self, pending: PendingRequest, project_id: str, after: str | None, limit: int
    ) -> Coroutine[Later[Any], Any, History]: ...
    def tell(self, pending: PendingRequest, item: LoggedOut) -> Coroutine[Later[Any], Any, None]: ...


@frozen
class Actor:
    """Who asks."""

    user_id: str
    username: str

    def __str__(self) -> str:
        return _named(self.username, self.user_id)


class Admin:
    """The requests below ``/api/admin/``."""

    def __init__(
        self, host: AdminHost, options: AdminOptions, questions: Questions, jobs: Jobs, gathering: Gathering
    ) -> None:
        self._host = host
        self._options = options
        self._questions = questions
        self._jobs = jobs
        self._gathering = gathering
        self._paths: Mapping[tuple[str, str], Methods] = {
            ("rooms/", "/test-update"): {"POST": Route(self._publish_test, MAX_ACTION)},
            ("sessions/", "/end"): {"POST": Route(self._end_session, MAX_ACTION)},
            ("users/", "/end"): {"POST": Route(self._end_user, MAX_ACTION)},
            ("status", ""): {"GET": Route(self._status)},
            ("rooms", ""): {"GET": Route(self._rooms)},
            ("sessions", ""): {"GET": Route(self._sessions)},
            ("rooms/", ""): {"GET": Route(self._room)},
        }
        """By how a path begins and ends. Those with an end come first: without one a path may end in any way."""

    def find(self, path: str) -> tuple[Methods, str] | None:
        """What answers requests to a path below the prefix, and what the path names; None for no such path."""
        for (begin, end), methods in self._paths.items():
            named = path[len(begin) : len(path) - len(end)]
            if path == begin + named + end and bool(named) is begin.endswith("/"):
                return methods, named
        return None

    # Looking

    async def _status(self, pending: PendingRequest) -> Reply:
        """Every node: who is connected, what is written, what is refused, how far behind it is."""
        if not self._host.check_command(pending.request):
            await self._check_admin(pending)
        gathered = await self._gathering.ask({"what": "status"}, pending.now)
        nodes = sorted((answer for _, answer in gathered.answers), key=lambda node: str(node.get("node")))
        return json_reply(200, {"nodes": nodes, **gathered.missing})

    async def _rooms(self, pending: PendingRequest) -> Reply:
        """A page of the rooms."""
        await self._check_admin(pending)
        offset, limit = _page(pending.request)
        sort, search = _choice(pending.request, "sort", ("members", "deliveries")), _text(pending.request, "search")
        question = {"what": "rooms", "sort": sort, "search": search, "count": MAX_ROWS}
        gathered = await self._gathering.ask(question, pending.now)
        return json_reply(200, rooms_of_all(gathered, sort, offset, limit))

    async def _sessions(self, pending: PendingRequest) -> Reply:
        """A page of the sessions, those first for which most waits."""
        await self._check_admin(pending)
        offset, limit = _page(pending.request)
        named = {name: _text(pending.request, name) or None for name in ("user_id", "project_id")}
        question = {
            "what": "sessions", "search": _text(pending.request, "search"), "count": offset + limit, **named
        }  # fmt: skip
        gathered = await self._gathering.ask(question, pending.now)
        return json_reply(200, sessions_of_all(gathered, offset, limit))

    async def _room(self, pending: PendingRequest) -> Reply:
        """A room's members on each node, and its newest updates."""
        admin, project_id = await self._check_admin(pending), pending.argument
        count = number(pending.request, "updates", UPDATES, 0, MAX_UPDATES)
        await self._check_project(admin, project_id)
        history = await self._host.read_history(pending, project_id, None, count)
        question = {"what": "sessions", "project_id": project_id, "count": 1}
        gathered = await self._gathering.ask(question, pending.now)
        members = [{"node": node, "sessions": answer["total"]} for node, answer in gathered.answers]
        room = {"project_id": project_id, "nodes": members, "last_event_id": history.last_event_id, **gathered.missing}
        body = f'{dump_json(room)[:-1]},"updates":{events_text(history.updates)}}}'
        return Reply(200, body.encode(), "application/json")

    # Doing

    async def _end_session(self, pending: PendingRequest) -> Reply:
        """202 once the session, on whichever node, has been ended."""
        admin, sid = await self._check_change(pending), pending.argument
        with _begun(admin, f"to end the session {sid!r}"):
            gathered = await self._gathering.ask({"what": "end", "sid": sid}, pending.now)
            ended = next((answer["ended"] for _, answer in gathered.answers if answer.get("ended")), None)
            if ended is None:
                _check_complete(gathered)
        if ended is None:
            raise HttpError(404, "session_not_found", "There is no such session")
        log.info(
            "The admin %s ended the session %s of %s", admin, sid, _named(ended["username"], ended["user_id"]),
            extra={"event": "admin_ended_session", "user": admin.user_id, "sid": sid},
        )  # fmt: skip
        return json_reply(202, {"status": "accepted", **ended})

    async def _end_user(self, pending: PendingRequest) -> Reply:
        """202 once all nodes were told to end the user's sessions; how many there were is said besides."""
        admin, user_id = await self._check_change(pending), pending.argument
        gathered = await self._gathering.ask({"what": "sessions", "user_id": user_id, "count": 1}, pending.now)
        sessions = sum(answer["total"] for _, answer in gathered.answers)
        if not sessions and await asked(self._questions.rechecks, (user_id, ())) is None:
            raise HttpError(404, "user_not_found", "There is no such user")
        with _begun(admin, f"to end all sessions of the user {user_id!r}"):
            await self._host.tell(pending, LoggedOut(user_id))
        log.info(
            "The admin %s ended all sessions of the user %r, %d at the time", admin, user_id, sessions,
            extra={"event": "admin_ended_user", "user": admin.user_id, "reason": f"sessions of {user_id}"},
        )  # fmt: skip
        return json_reply(202, {"status": "accepted", "sessions": sessions})

    async def _publish_test(self, pending: PendingRequest) -> Reply:
        """202 with the event id of an update that says that it is a test."""
        admin, project_id = await self._check_change(pending), pending.argument
        body = json_object(bytes(pending.body)) if pending.body else {}
        status = body.get("status", "approved")
        if status not in STATUSES:
            raise HttpError(400, "invalid_request", f"status must be one of {', '.join(STATUSES)}")
        await self._check_project(admin, project_id)
        data = self._options.trial_update(project_id, status, admin.username)
        with _begun(admin, f"to publish a test update to the project {project_id!r}"):
            (event_id,) = await self._host.publish_events(pending, project_id, [("moderation_update", encoded(data))])
        log.info(
            "The admin %s published the test update %s to the project %r", admin, event_id, project_id,
            extra={"event": "admin_published_test", "user": admin.user_id, "project": project_id},
        )  # fmt: skip
        return json_reply(202, {"event_id": event_id})

    # Who may

    async def _check_admin(self, pending: PendingRequest) -> Actor:
        """Who asks. Raises HttpError unless that is a user with ``is_admin``."""
        user = await asked(self._questions.identities, self._host.identification(pending.request))
        if user is None:
            raise HttpError(401, "authentication_required", "Authentication required")
        if not await asked(self._questions.admins, user.user_id):
            raise HttpError(403, "admin_required", "Only administrators may do this")
        return Actor(user.user_id, user.username)

    async def _check_change(self, pending: PendingRequest) -> Actor:
        """Who asks for a change. Raises HttpError unless that is a user with ``is_admin``, on one of our own pages."""
        admin, request = await self._check_admin(pending), pending.request
        if check_origin(request, frozenset()) is not OriginCheck.OWN:
            raise HttpError(403, "other_origin", "Pages of other origins may not do this")
        token = request.header("x-csrftoken") or request.header("x-csrf-token") or ""
        cookie = request.header("cookie")
        genuine = await Later[bool](
            lambda resume: self._jobs.start(lambda: self._options.genuine(cookie, token), resume)
        )
        if not genuine:
            raise HttpError(403, "invalid_csrf_token", "The token of the page is missing or too old; load it again")
        return admin

    async def _check_project(self, admin: Actor, project_id: str) -> None:
        found = Access.NOT_FOUND
        if is_project_id(project_id):
            found = await asked(self._questions.accesses, (admin.user_id, project_id))
        if found is Access.NOT_FOUND:
            raise HttpError(404, "project_not_found", "Project not found")


@contextmanager
def _begun(admin: Actor, what: str) -> Iterator[None]:
    """While what an administrator asked for is done: it is logged also where nobody hears what came of it.

    Their connection may end, or the time; and where other nodes cannot be told this one was all the same.
    """
    try:
        yield
    except BaseException:
        log.warning(
            "The admin %s asked %s; whether it was done is not known", admin, what,
            extra={"event": "admin_asked", "user": admin.user_id, "reason": "not known"},
        )  # fmt: skip
        raise


def _named(username: str | None, user_id: str | None) -> str:
    """A user in the log; a name may have any characters."""
    return "nobody" if user_id is None else f"{username!r} ({user_id!r})"


def _check_complete(gathered: Gathered) -> None:
    """Raise HttpError where a node has not answered: what none has found may be there."""
    if gathered.silent or gathered.problem is not None:
        raise HttpError(503, "unavailable", "Not every node has answered, and none that did has it")


def _page(request: Request) -> tuple[int, int]:
    """Where a page begins and how long it is. Raises HttpError."""
    limit = number(request, "limit", PAGE, 1, MAX_PAGE)
    return number(request, "offset", 0, 0, MAX_ROWS - MAX_PAGE), limit


def _choice(request: Request, name: str, choices: Sequence[str]) -> str:
    text = request.query.get(name, choices[0])
    if text not in choices:
        raise HttpError(400, "invalid_request", f"{name} must be one of {', '.join(choices)}")
    return text


def _text(request: Request, name: str) -> str:
    text = request.query.get(name, "")
    if len(text) > MAX_TEXT:
        raise HttpError(400, "invalid_request", f"{name} must have at most {MAX_TEXT} characters")
    return text
