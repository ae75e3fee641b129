"""The hub: who is logged in, who is in which project's room, and what each of them is told.

A pure state machine. It owns no socket, clock, thread or database::

    effects = hub.handle(input, now)      # one way in, one way out
    when = hub.next_deadline()            # absolute; call handle(Tick(), now) then, or earlier: it is harmless

Rules
-----
1.  ``now`` is the caller's monotonic clock in seconds and never goes backwards. Chance is injected (``random``).
2.  What takes time is an effect with a *ticket*; the answer comes back as an input with that ticket. Each ticket has
    a deadline. A ticket is answered once: a late, repeated or unknown one is ignored, and so is any input that names
    a session the hub no longer has.
3.  Deadlines that have passed take effect before the input that arrives with them.
4.  Effects are performed in order. An update reaches a session only between its ``Enter`` and its ``Leave``, or as a
    ``Replay`` just before its ``joined_project``.
5.  A room's *position* is the id of the newest update the hub has seen of it, known while somebody follows the room.
    Updates at or before the position are ignored: this is what makes delivery ordered and single, whatever the
    backplane repeats.
6.  The checks of a client's event run in this order: authenticated, rate, payload, format, room limit, project
    exists, member.
7.  A membership check that was under way when access changed is asked again, and who is being identified when they
    log out counts as logged out: an answer read before the change is not believed.

Theory of operation
-------------------
Two small machines, each a literal table ``(state, cue) -> Rule(handler, targets)``; a pair that is not in its table
is a bug in the caller and raises ``HubError``. ``SESSION_RULES`` is the life of a session: identifying -> active ->
ending. ``ROOM_RULES`` is one session's relation to one project's room: absent -> checking -> catching_up -> joined.
Handlers are generators: they change state and *yield* effects; ``handle`` alone collects them.
"""

from __future__ import annotations

import enum
import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from attrs import define, field, frozen

MAX_ID_LENGTH = 100
"""Longest project id, in characters, that a client may ask for."""
MAX_ECHO_LENGTH = 10_000
"""An error names the project id it was asked for up to this many characters; a longer one is left out."""
WINDOW = 60.0
"""Seconds over which events and connection attempts are counted."""
RECHECK_RETRY = 5.0
"""Seconds until a re-check that failed is tried again."""


class HubError(Exception):
    """The caller, or a handler, broke the tables. Never raised for anything a client sends."""


class Access(enum.Enum):
    """Answer of a membership check."""

    GRANTED = "granted"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    NO_USER = "no_user"
    """The user is unknown or no longer active: the session itself ends."""


class Error(enum.Enum):
    """What a client is told: ``(code, message)``. Existing dashboards compare the messages letter for letter."""

    AUTHENTICATION_REQUIRED = ("authentication_required", "Authentication required")
    PROJECT_ID_REQUIRED = ("project_id_required", "Project ID required")
    INVALID_PROJECT_ID = ("invalid_project_id", "Invalid project ID format")
    PROJECT_NOT_FOUND = ("project_not_found", "Project not found")
    ACCESS_DENIED = ("access_denied", "Access denied - you are not a member of this project")
    TIMEOUT = ("timeout", "Server timeout - please try again")
    SERVER_ERROR = ("server_error", "Server error occurred")
    ROOM_LIMIT = ("room_limit", "Too many projects joined")
    RATE_LIMITED = ("rate_limited", "Too many requests - please slow down")
    TOO_MANY_CONNECTIONS = ("rate_limited", "Too many connection attempts. Please try again later.")

    @property
    def payload(self) -> dict[str, Any]:
        code, message = self.value
        return {"message": message, "code": code}


class Ending(enum.Enum):
    """How a session is ended."""

    DISCONNECT = "disconnect"
    """On purpose: the client sees ``io server disconnect`` and does not come back by itself."""
    DROP = "drop"
    """The transport is closed: the client comes back by itself."""


@frozen
class Limits:
    """What one session, user or address may do; times in seconds."""

    max_rooms: int = 50
    max_events_per_minute: int = 100
    max_connections_per_minute: int = 300
    check_timeout: float = 10.0
    recheck_interval: float = 60.0
    auth_grace: float = 1.0
    max_catch_up: int = 1000
    """Updates buffered for one session while its history is read; beyond it the answer is ``recovered: false``."""

    @property
    def tolerated_refusals(self) -> int:
        """Events refused within the window before the session that goes on sending is ended."""
        return max(1, self.max_events_per_minute // 4)


@define(unsafe_hash=True)
class Update:
    """One event of one project, encoded once for everybody who is to get it.

    Nobody changes one. What is made for every update is not frozen for that, as it would take three times as long to
    make.
    """

    project_id: str
    event: str
    text: str
    """The data as JSON, an object that already carries its ``event_id``."""
    event_id: str

    @property
    def data(self) -> dict[str, Any]:
        """The data, parsed."""
        data: dict[str, Any] = json.loads(self.text)
        return data


@frozen
class History:
    """What came after an id, oldest first, as a backplane remembers it."""

    updates: tuple[Update, ...]
    complete: bool
    """False: the history does not reach back to that id (or never knew it), and ``updates`` is empty."""
    last_event_id: str
    """The project's newest id, or where its history begins when there is none."""


def stamped(text: str, event_id: str) -> str:
    """A JSON object's text, without spaces and without an ``event_id``, with this one added."""
    return f'{text[:-1]}{"," if len(text) > 2 else ""}"event_id":"{event_id}"}}'


def room_name(project_id: str) -> str:
    """The Socket.IO room of a project."""
    return f"project_{project_id}"


_HALF_PAIR = re.compile("[\ud800-\udfff]")


def is_project_id(text: str) -> bool:
    """Whether a project could have this id: 1 to 100 characters that can be written down as UTF-8."""
    return 0 < len(text) <= MAX_ID_LENGTH and not _HALF_PAIR.search(text)


def projects_in(rooms: object) -> list[str]:
    """The projects whose rooms are named, each once, by one name or a collection of them; other rooms are passed over.

    So are ids that no project can have.
    """
    prefix = room_name("")
    names = rooms if isinstance(rooms, list | tuple | set) else [rooms]
    projects = [name.removeprefix(prefix) for name in names if isinstance(name, str) and name.startswith(prefix)]
    return [project_id for project_id in dict.fromkeys(projects) if is_project_id(project_id)]


_EVENT_ID = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_Place: TypeAlias = tuple[int, int]
"""Where an event id stands among those of its project: milliseconds, sequence."""
_NOWHERE: _Place = (-1, -1)
"""Before every event id."""


def parse_event_id(text: object) -> tuple[int, int] | None:
    """``"milliseconds-sequence"`` as a comparable pair, or None where it is anything else.

    At most 20 digits a part (a stream id's parts are 64-bit), ASCII only.
    """
    match = _EVENT_ID.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else (int(match[1]), int(match[2]))


def event_id_text(place: tuple[int, int]) -> str:
    """The event id of a pair that ``parse_event_id`` returned."""
    return f"{place[0]}-{place[1]}"


# Inputs -------------------------------------------------------------------------------------------------------


@frozen
class Connected:
    """A client connected. ``credential`` is opaque here; ``address`` is where connection attempts are counted."""

    sid: str
    credential: str | None
    address: str


@frozen
class Received:
    """The client sent an event; ``ack`` is set where it asked for an acknowledgement."""

    sid: str
    event: str
    args: tuple[Any, ...]
    ack: int | None = None


@frozen
class Closed:
    """The session is gone."""

    sid: str


@frozen
class Identified:
    """Answer to ``Identify``; None: nobody."""

    ticket: int
    user_id: str | None


@frozen
class AccessChecked:
    """Answer to ``CheckAccess``."""

    ticket: int
    access: Access


@frozen
class HistoryRead:
    """Answer to ``ReadHistory``."""

    ticket: int
    history: History


@frozen
class Rechecked:
    """Answer to ``Recheck``: the projects still allowed; None: the user is unknown or inactive."""

    ticket: int
    allowed: frozenset[str] | None


@frozen
class Failed:
    """The work behind a ticket failed."""

    ticket: int


@define(unsafe_hash=True)
class Published:
    """An update arrived from the backplane."""

    update: Update


@frozen
class Passed:
    """The backplane has come to this id of a project's, which is nothing that anybody is to be sent."""

    project_id: str
    event_id: str


@frozen
class Lost:
    """Updates of the project may be missing from here on: the backplane cannot continue where it was."""

    project_id: str


@frozen
class AccessChanged:
    """Somebody's access may have changed: of a user, of a user in a project, or of everyone in a project."""

    user_id: str | None = None
    project_id: str | None = None


@frozen
class LoggedOut:
    """A user logged out: their sessions end."""

    user_id: str


@frozen
class Tick:
    """Time passed."""


Input: TypeAlias = (
    Connected | Received | Closed | Identified | AccessChecked | HistoryRead | Rechecked | Failed
    | Published | Passed | Lost | AccessChanged | LoggedOut | Tick
)  # fmt: skip


# Effects ------------------------------------------------------------------------------------------------------


@frozen
class Identify:
    """Ask who a credential belongs to."""

    ticket: int
    sid: str
    credential: str | None


@frozen
class CheckAccess:
    """Ask whether the user exists, is active, and may see the project."""

    ticket: int
    user_id: str
    project_id: str


@frozen
class ReadHistory:
    """Ask for the project's updates after an id; None: only where the history stands."""

    ticket: int
    project_id: str
    after: str | None


@frozen
class Recheck:
    """Ask which of these projects the user may still see."""

    ticket: int
    user_id: str
    project_ids: tuple[str, ...]


@frozen
class Follow:
    """Somebody here sees the project's updates from now on: hand them over from where its history ends."""

    project_id: str


@frozen
class Unfollow:
    """Nobody here sees the project's updates any more."""

    project_id: str


@frozen
class Emit:
    """Send one event to one session."""

    sid: str
    event: str
    data: Mapping[str, Any]


@frozen
class Replay:
    """Send one session an update that it missed."""

    sid: str
    update: Update


@frozen
class Acknowledge:
    """Answer a client's event."""

    sid: str
    ack: int
    data: Mapping[str, Any]


@frozen
class Enter:
    """The session receives the room's broadcasts from here on."""

    sid: str
    room: str


@frozen
class Leave:
    """The session receives nothing more from the room."""

    sid: str
    room: str


@define(unsafe_hash=True)
class Broadcast:
    """Send an update to everyone who entered the room."""

    room: str
    update: Update


@frozen
class End:
    """End the session; the hub has already forgotten it."""

    sid: str
    ending: Ending


Effect: TypeAlias = (
    Identify | CheckAccess | ReadHistory | Recheck | Follow | Unfollow
    | Emit | Replay | Acknowledge | Enter | Leave | Broadcast | End
)  # fmt: skip


def answered_at_once(question: ReadHistory, history: History) -> tuple[Passed, HistoryRead]:
    """The inputs that answer it where nothing is under way from the backplane: where the history is, the room is."""
    return Passed(question.project_id, history.last_event_id), HistoryRead(question.ticket, history)


# State --------------------------------------------------------------------------------------------------------


class SessionState(enum.Enum):
    IDENTIFYING = "identifying"
    ACTIVE = "active"
    ENDING = "ending"
    GONE = "gone"


class RoomState(enum.Enum):
    ABSENT = "absent"
    CHECKING = "checking"
    CATCHING_UP = "catching_up"
    JOINED = "joined"
    REJOINING = "rejoining"
    """Joined, and asked to join again: receives updates while access is looked up anew."""


class Cue(enum.Enum):
    """What may happen to a session or to its relation to a room."""

    EVENT = "event"
    IDENTIFIED = "identified"
    EXPELLED = "expelled"
    GRACE_OVER = "grace_over"
    JOIN = "join"
    LEAVE = "leave"
    GRANTED = "granted"
    REFUSED = "refused"
    FAILED = "failed"
    CAUGHT_UP = "caught_up"
    LOST = "lost"
    ACCESS_CHANGED = "access_changed"
    REVOKED = "revoked"
    CLOSED = "closed"


@frozen
class _Request:
    """A client's event, parsed: as little of it as has to be kept while the session is being identified."""

    event: str
    """One that is handled, else ``""``."""
    project_id: str | None
    """The project it names, where it names one as a string: what an error repeats."""
    error: Error | None
    after: object
    """``last_event_id`` as sent, None where absent; anything that is no event id is kept as ``""``."""
    ack: int | None


@define(eq=False)
class _Session:
    sid: str
    address: str
    state: SessionState = SessionState.IDENTIFYING
    user_id: str | None = None
    ticket: int = 0
    logged_out: frozenset[str] = frozenset()
    """Users who logged out while it was not known yet whose session this is."""
    held: tuple[_Request, ...] = ()
    rooms: dict[str, _Membership] = field(factory=dict)
    window: list[float] | None = None
    refused: int = 0
    verdict: Error = Error.AUTHENTICATION_REQUIRED
    ending: Ending = Ending.DISCONNECT


@define(eq=False)
class _Room:
    project_id: str
    name: str
    memberships: dict[str, _Membership] = field(factory=dict)
    """Everyone related to the room, in whatever state, by sid."""
    live: set[str] = field(factory=set)
    catching_up: dict[str, _Membership] = field(factory=dict)
    position: _Place | None = None
    heard: _Place = _NOWHERE
    """The newest id that the backplane has come to since the room is followed; a history may have known newer ones."""

    @property
    def followed(self) -> bool:
        return bool(self.live or self.catching_up)


@define(eq=False)
class _Membership:
    session: _Session
    room: _Room
    state: RoomState = RoomState.ABSENT
    requests: tuple[_Request, ...] = ()
    ticket: int = 0
    granted: int = 0
    """The ticket of the check that last granted access."""
    after: str | None = None
    buffer: list[Update] = field(factory=list)
    overflowed: bool = False
    history: History | None = None
    """What was read, while it waits for the room to come to the same position."""
    since: _Place = _NOWHERE
    """The session was given everything after this id."""


@define(eq=False)
class _User:
    user_id: str
    sessions: dict[str, _Session] = field(factory=dict)
    ticket: int = 0
    asked: frozenset[str] = frozenset()
    due: float = 0.0
    """When the next re-check is; a timer set for another time was superseded."""
    again: bool = False
    """Access changed while a re-check was under way: its answer may be older than the change."""


@frozen
class Rule:
    """One row of a table: what is done, and which states it may lead to."""

    handler: Callable[..., Iterator[Effect]]
    targets: frozenset[SessionState | RoomState]


class Hub:
    """The state machine. See the module's docstring for its rules."""

    def __init__(self, limits: Limits | None = None, *, random: Callable[[], float] = lambda: 0.5) -> None:
        """``random`` returns floats in [0, 1); it spreads the re-checks of users who came at the same moment."""
        self.limits = limits or Limits()
        self._random = random
        self._sessions: dict[str, _Session] = {}
        self._rooms: dict[str, _Room] = {}
        self._users: dict[str, _User] = {}
        self._attempts: dict[str, list[float]] = {}
        self._last_ticket = 0
        self._tickets: dict[int, _Session | _Membership | _User] = {}
        self._deadlines: list[tuple[float, int, Callable[[float], Iterator[Effect]], int]] = []
        self._serial = 0

    # The way in and the way out

    def handle(self, item: Input, now: float) -> list[Effect]:
        """Take one input; return what is to be done about it, in order."""
        expired = self._expire(now) if self._deadlines and self._deadlines[0][0] <= now else ()
        return [*expired, *_INPUTS[type(item)](self, item, now)]

    def next_deadline(self) -> float | None:
        """When the hub next wants a ``Tick``, on the clock of ``now``; None: never."""
        while self._deadlines and self._is_stale(self._deadlines[0][3]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def user_of(self, sid: str) -> str | None:
        """Whom a session was found to belong to; None where that is nobody, or not known yet."""
        session = self._sessions.get(sid)
        return None if session is None else session.user_id

    def counts(self) -> dict[str, int]:
        """How many sessions, users, rooms, memberships and unanswered tickets there are."""
        return {
            "sessions": len(self._sessions),
            "users": len(self._users),
            "rooms": len(self._rooms),
            "memberships": sum(len(session.rooms) for session in self._sessions.values()),
            "tickets": len(self._tickets),
            "addresses": len(self._attempts),
        }

    # Time and tickets

    def _at(self, when: float, act: Callable[[float], Iterator[Effect]], ticket: int = 0) -> None:
        self._serial += 1
        heapq.heappush(self._deadlines, (when, self._serial, act, ticket))

    def _is_stale(self, ticket: int) -> bool:
        """A deadline that guards a ticket which was answered or withdrawn."""
        return ticket != 0 and ticket not in self._tickets

    def _expire(self, now: float) -> Iterator[Effect]:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, act, ticket = heapq.heappop(self._deadlines)
            if not self._is_stale(ticket):
                yield from act(now)

    def _issue(self, asker: _Session | _Membership | _User, now: float) -> int:
        """A new ticket for whoever asks; the one it had before is withdrawn."""
        self._tickets.pop(asker.ticket, None)
        self._last_ticket += 1
        ticket = asker.ticket = self._last_ticket
        self._tickets[ticket] = asker

        def time_out(now: float) -> Iterator[Effect]:
            yield from self._ticket_failed(ticket, Error.TIMEOUT, now)

        self._at(now + self.limits.check_timeout, time_out, ticket)
        return ticket

    def _withdraw(self, asker: _Session | _Membership | _User) -> None:
        self._tickets.pop(asker.ticket, None)
        asker.ticket = 0

    def _ticket_failed(self, ticket: int, error: Error, now: float) -> Iterator[Effect]:
        asker = self._tickets.pop(ticket, None)
        if isinstance(asker, _Session):
            yield from self._cue_session(asker, Cue.FAILED, error, now)
        elif isinstance(asker, _Membership):
            yield from self._cue_room(asker, Cue.FAILED, error, now)
        elif asker is not None:
            asker.ticket = 0
            self._schedule_recheck(asker, now + (0.0 if asker.again else RECHECK_RETRY))

    # Running the tables

    def _cue_session(self, session: _Session, cue: Cue, detail: Any, now: float) -> Iterator[Effect]:
        rule = SESSION_RULES.get((session.state, cue))
        if rule is None:
            raise HubError(f"a session cannot be told {cue.value!r} while {session.state.value}")
        yield from rule.handler(self, session, detail, now)
        if session.state not in rule.targets:
            raise HubError(f"{cue.value!r} led a session to {session.state.value}")

    def _cue_room(self, membership: _Membership, cue: Cue, detail: Any, now: float) -> Iterator[Effect]:
        rule = ROOM_RULES.get((membership.state, cue))
        if rule is None:
            raise HubError(f"a membership cannot be told {cue.value!r} while {membership.state.value}")
        yield from rule.handler(self, membership, detail, now)
        if membership.state not in rule.targets:
            raise HubError(f"{cue.value!r} led a membership to {membership.state.value}")

    # Inputs

    def _on_connected(self, item: Connected, now: float) -> Iterator[Effect]:
        if item.sid in self._sessions:
            raise HubError(f"session {item.sid!r} is already connected")
        session = self._sessions[item.sid] = _Session(item.sid, item.address)
        if not self._admit(item.address, now):
            yield from self._expel(session, Error.TOO_MANY_CONNECTIONS, now)
        else:
            yield Identify(self._issue(session, now), item.sid, item.credential)

    def _on_received(self, item: Received, now: float) -> Iterator[Effect]:
        session = self._sessions.get(item.sid)
        if session is not None:
            yield from self._cue_session(session, Cue.EVENT, _parse(item), now)

    def _on_closed(self, item: Closed, now: float) -> Iterator[Effect]:
        session = self._sessions.get(item.sid)
        if session is not None:
            yield from self._cue_session(session, Cue.CLOSED, None, now)

    def _on_identified(self, item: Identified, now: float) -> Iterator[Effect]:
        session = self._tickets.pop(item.ticket, None)
        if isinstance(session, _Session):
            yield from self._cue_session(session, Cue.IDENTIFIED, item.user_id, now)

    def _on_access_checked(self, item: AccessChecked, now: float) -> Iterator[Effect]:
        membership = self._tickets.pop(item.ticket, None)
        if isinstance(membership, _Membership):
            cue = Cue.GRANTED if item.access is Access.GRANTED else Cue.REFUSED
            yield from self._cue_room(membership, cue, item.access, now)

    def _on_history_read(self, item: HistoryRead, now: float) -> Iterator[Effect]:
        membership = self._tickets.pop(item.ticket, None)
        if isinstance(membership, _Membership):
            yield from self._cue_room(membership, Cue.CAUGHT_UP, item.history, now)

    def _on_failed(self, item: Failed, now: float) -> Iterator[Effect]:
        yield from self._ticket_failed(item.ticket, Error.SERVER_ERROR, now)

    def _on_published(self, item: Published, now: float) -> Iterable[Effect]:
        update = item.update
        room = self._rooms.get(update.project_id)
        if room is None:
            return ()
        if room.catching_up:
            return self._published_meanwhile(room, update, now)
        # No generator for what happens most.
        return (Broadcast(room.name, update),) if room.live and self._advance(room, update.event_id) else ()

    def _published_meanwhile(self, room: _Room, update: Update, now: float) -> Iterator[Effect]:
        """The same while somebody in the room is catching up."""
        for membership in room.catching_up.values():
            self._buffer(membership, update)
        if self._advance(room, update.event_id) and room.live:
            yield Broadcast(room.name, update)
        yield from self._admit_waiting(room, now)

    def _on_passed(self, item: Passed, now: float) -> Iterator[Effect]:
        room = self._rooms.get(item.project_id)
        if room is not None and room.followed:
            self._advance(room, item.event_id)
            yield from self._admit_waiting(room, now)

    def _on_lost(self, item: Lost, now: float) -> Iterator[Effect]:
        """Whoever saw the updates is dropped: they come back, say where they stopped, and are told the truth."""
        room = self._rooms.get(item.project_id)
        for membership in list(room.memberships.values()) if room else ():
            if membership.state in _SEES_UPDATES:
                yield from self._cue_session(membership.session, Cue.LOST, None, now)

    def _on_logged_out(self, item: LoggedOut, now: float) -> Iterator[Effect]:
        for session in self._sessions.values():
            if session.state is SessionState.IDENTIFYING:
                session.logged_out |= {item.user_id}
        user = self._users.get(item.user_id)
        for session in list(user.sessions.values()) if user else ():
            yield from self._cue_session(session, Cue.EXPELLED, Error.AUTHENTICATION_REQUIRED, now)

    def _on_tick(self, item: Tick, now: float) -> Iterable[Effect]:
        return ()

    # Limits

    def _admit(self, address: str, now: float) -> bool:
        """Count a connection attempt; False where the address had its share of this minute."""
        attempts = self._attempts.get(address)
        if attempts is None:
            attempts = self._attempts[address] = []
            self._at(now + WINDOW, lambda later: self._forget_address(address, later))
        return _count(attempts, self.limits.max_connections_per_minute, now)

    def _forget_address(self, address: str, now: float) -> Iterator[Effect]:
        """Drop the record of an address that has been quiet for a minute, else look again later."""
        newest = self._attempts[address][-1] if self._attempts[address] else now - WINDOW
        if newest + WINDOW <= now:
            del self._attempts[address]
        else:
            self._at(newest + WINDOW, lambda later: self._forget_address(address, later))
        yield from ()

    def _within_rate(self, session: _Session, now: float) -> bool:
        if session.window is None:
            session.window = []
        if _count(session.window, self.limits.max_events_per_minute, now):
            session.refused = 0
            return True
        session.refused += 1
        return False

    # Sessions

    def _hold(self, session: _Session, request: _Request, now: float) -> Iterator[Effect]:
        """Keep an event until it is known whose it is; the last one kept is the one that ends a flood."""
        if len(session.held) <= self.limits.max_events_per_minute + self.limits.tolerated_refusals:
            session.held += (request,)
        yield from ()

    def _identified(self, session: _Session, user_id: str | None, now: float) -> Iterator[Effect]:
        session.ticket = 0
        held, session.held = session.held, ()
        if user_id is None or user_id in session.logged_out:
            yield from self._expel(session, Error.AUTHENTICATION_REQUIRED, now)
        else:
            session.state = SessionState.ACTIVE
            session.user_id = user_id
            self._join_user(session, user_id, now)
            yield Emit(session.sid, "connected", {"message": "Connected to AutoModerate"})
        for request in held:
            yield from self._cue_session(session, Cue.EVENT, request, now)

    def _identify_failed(self, session: _Session, error: Error, now: float) -> Iterator[Effect]:
        """Nobody's fault but ours: the transport is dropped, so that the client tries again by itself."""
        session.ticket = 0
        session.ending = Ending.DROP
        held, session.held = session.held, ()
        yield from self._expel(session, error, now)
        for request in held:
            yield from self._repeat_verdict(session, request, now)

    def _serve(self, session: _Session, request: _Request, now: float) -> Iterator[Effect]:
        if not self._within_rate(session, now):
            yield from _refuse(session.sid, Error.RATE_LIMITED, request)
            if session.refused > self.limits.tolerated_refusals:
                yield from self._end(session, now)
        elif request.event not in _REQUESTS:
            return
        elif request.error is not None:
            yield from _refuse(session.sid, request.error, request)
        else:
            yield from self._cue_room(self._membership(session, request), _REQUESTS[request.event], request, now)

    def _repeat_verdict(self, session: _Session, request: _Request, now: float) -> Iterator[Effect]:
        # Within the rate: the grace is no way to make the server talk without end.
        if self._within_rate(session, now):
            yield from _refuse(session.sid, session.verdict, request)

    def _expel(self, session: _Session, error: Error, now: float) -> Iterator[Effect]:
        """Say why, take the session out of every room, and end it after the grace."""
        yield Emit(session.sid, "error", error.payload)
        yield from self._start_ending(session, error, now)

    def _start_ending(self, session: _Session, error: Error, now: float) -> Iterator[Effect]:
        session.state = SessionState.ENDING
        session.verdict = error
        for membership in list(session.rooms.values()):
            yield from self._abandon(membership, {"error": error.payload})
        self._withdraw(session)
        self._leave_user(session)

        def grace_over(now: float) -> Iterator[Effect]:
            if session.state is not SessionState.GONE:
                yield from self._cue_session(session, Cue.GRACE_OVER, None, now)

        self._at(now + self.limits.auth_grace, grace_over)

    def _grace_over(self, session: _Session, detail: None, now: float) -> Iterator[Effect]:
        yield from self._end(session, now)

    def _end(self, session: _Session, now: float) -> Iterator[Effect]:
        for membership in list(session.rooms.values()):
            yield from self._abandon(membership, {"error": Error.RATE_LIMITED.payload})
        yield from self._close(session, None, now)
        yield End(session.sid, session.ending)

    def _drop(self, session: _Session, detail: None, now: float) -> Iterator[Effect]:
        yield from self._close(session, None, now)
        yield End(session.sid, Ending.DROP)

    def _close(self, session: _Session, detail: None, now: float) -> Iterator[Effect]:
        session.state = SessionState.GONE
        self._withdraw(session)
        for membership in list(session.rooms.values()):
            yield from self._cue_room(membership, Cue.CLOSED, None, now)
        self._leave_user(session)
        del self._sessions[session.sid]

    # Rooms: joining and leaving

    def _membership(self, session: _Session, request: _Request) -> _Membership:
        """The session's relation to the project it names; a fresh one, kept by nobody yet, where it has none."""
        project_id = request.project_id
        assert project_id is not None, "a request without an error names a project"
        membership = session.rooms.get(project_id)
        if membership is None:
            room = self._rooms.get(project_id) or _Room(project_id, room_name(project_id))
            membership = _Membership(session, room)
        return membership

    def _join(self, membership: _Membership, request: _Request, now: float) -> Iterator[Effect]:
        session, room = membership.session, membership.room
        if len(session.rooms) >= self.limits.max_rooms:
            yield from _refuse(session.sid, Error.ROOM_LIMIT, request)
            return
        self._rooms[room.project_id] = room
        room.memberships[session.sid] = session.rooms[room.project_id] = membership
        membership.requests += (request,)
        membership.state = RoomState.CHECKING
        yield self._check(membership, now)

    def _join_again(self, membership: _Membership, request: _Request, now: float) -> Iterator[Effect]:
        membership.requests += (request,)
        membership.state = RoomState.REJOINING
        yield self._check(membership, now)

    def _join_too(self, membership: _Membership, request: _Request, now: float) -> Iterator[Effect]:
        """A join that finds one under way shares its answer."""
        membership.requests += (request,)
        yield from ()

    def _check(self, membership: _Membership, now: float) -> CheckAccess:
        user_id = membership.session.user_id
        assert user_id is not None, "only an identified session joins"
        return CheckAccess(self._issue(membership, now), user_id, membership.room.project_id)

    def _check_again(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        yield self._check(membership, now)

    def _granted(self, membership: _Membership, access: Access, now: float) -> Iterator[Effect]:
        room = membership.room
        membership.granted = membership.ticket
        asked = [request.after for request in membership.requests if request.after is not None]
        membership.after = str(asked[0]) if asked else None
        membership.state = RoomState.CATCHING_UP
        if not room.followed:
            yield Follow(room.project_id)
        room.catching_up[membership.session.sid] = membership
        ticket = self._issue(membership, now)
        yield ReadHistory(ticket, room.project_id, membership.after)

    def _granted_again(self, membership: _Membership, access: Access, now: float) -> Iterator[Effect]:
        membership.granted = membership.ticket
        membership.ticket = 0
        membership.state = RoomState.JOINED
        yield from self._answer_joins(membership)

    def _buffer(self, membership: _Membership, update: Update) -> None:
        if len(membership.buffer) < self.limits.max_catch_up:
            membership.buffer.append(update)
        else:
            membership.overflowed = True

    def _advance(self, room: _Room, event_id: str) -> bool:
        """The backplane has come to this id; whether that is news."""
        place = _place(event_id)
        if place > room.heard:
            room.heard = place
        if room.position is None or place <= room.position:
            return False
        room.position = place
        return True

    def _admit_waiting(self, room: _Room, now: float) -> Iterator[Effect]:
        for membership in list(room.catching_up.values()):
            if membership.history is not None and self._connects(room, membership.history):
                yield from self._cue_room(membership, Cue.CAUGHT_UP, membership.history, now)

    @staticmethod
    def _connects(room: _Room, history: History) -> bool:
        """Whether the room continues where the history ends.

        With several nodes a history may be ahead of what was heard here, and another session's further ahead still.
        """
        position, last = room.position or _NOWHERE, _place(history.last_event_id)
        return last <= position <= max(last, room.heard)

    def _caught_up(self, membership: _Membership, history: History, now: float) -> Iterator[Effect]:
        """Hand over what was missed up to the room's position; what comes after that arrives live."""
        room, after = membership.room, membership.after
        if room.position is None:
            room.position = max(_place(history.last_event_id), room.heard)
        if not self._connects(room, history):
            membership.history = history
            self._issue(membership, now)  # answered by nobody: it has to be heard in time
            return
        self._withdraw(membership)
        membership.history = None
        del room.catching_up[membership.session.sid]
        buffered = [update for update in membership.buffer if _place(update.event_id) > _place(history.last_event_id)]
        membership.buffer = []
        if after is None or not history.complete or membership.overflowed:
            yield from self._enter(membership, room.position)
            return
        for update in (*history.updates, *buffered):
            yield Replay(membership.session.sid, update)
        yield from self._enter(membership, _place(after))

    def _enter(self, membership: _Membership, since: _Place) -> Iterator[Effect]:
        session, room = membership.session, membership.room
        membership.state = RoomState.JOINED
        membership.ticket = 0
        membership.since = since
        membership.overflowed = False
        room.live.add(session.sid)
        yield from self._answer_joins(membership)
        yield Enter(session.sid, room.name)

    def _answer_joins(self, membership: _Membership) -> Iterator[Effect]:
        room = membership.room
        position = room.position
        assert position is not None, "the position of a room with members is known"
        requests, membership.requests = membership.requests, ()
        for request in requests:
            answer: dict[str, Any] = {"project_id": room.project_id, "room": room.name}
            answer["last_event_id"] = event_id_text(position)
            if request.after is not None:
                after = parse_event_id(request.after)
                answer["recovered"] = after is not None and membership.since <= after <= position
            yield from _answer(membership.session.sid, "joined_project", answer, request.ack)

    def _leave(self, membership: _Membership, request: _Request, now: float) -> Iterator[Effect]:
        """Also overtakes a join still under way, whose acknowledgement then says what became of it."""
        answer = {"project_id": membership.room.project_id}
        yield from self._abandon(membership, answer)
        yield from _answer(membership.session.sid, "left_project", answer, request.ack)

    def _refused(self, membership: _Membership, access: Access, now: float) -> Iterator[Effect]:
        session, requests = membership.session, membership.requests
        error = _REFUSALS[access]
        membership.requests = ()
        for request in requests:
            yield from _refuse(session.sid, error, request)
        yield from self._forget(membership)
        if access is Access.NO_USER:
            yield from self._start_ending(session, error, now)

    def _check_failed(self, membership: _Membership, error: Error, now: float) -> Iterator[Effect]:
        yield from self._fail_joins(membership, error)
        yield from self._forget(membership)

    def _recheck_failed(self, membership: _Membership, error: Error, now: float) -> Iterator[Effect]:
        """A member whose second join could not be checked stays what it was."""
        membership.state = RoomState.JOINED
        membership.ticket = 0
        yield from self._fail_joins(membership, error)

    def _fail_joins(self, membership: _Membership, error: Error) -> Iterator[Effect]:
        requests, membership.requests = membership.requests, ()
        for request in requests:
            yield from _refuse(membership.session.sid, error, request)

    def _revoked(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        session, project_id = membership.session, membership.room.project_id
        yield from self._abandon(membership, {"error": Error.ACCESS_DENIED.payload})
        yield Emit(session.sid, "error", {**Error.ACCESS_DENIED.payload, "project_id": project_id})

    def _room_closed(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        yield from self._forget(membership)

    def _abandon(self, membership: _Membership, answer: Mapping[str, Any]) -> Iterator[Effect]:
        """Forget the membership; joins still waiting for their acknowledgement get ``answer``."""
        requests, membership.requests = membership.requests, ()
        yield from self._forget(membership)
        for request in requests:
            if request.ack is not None:
                yield Acknowledge(membership.session.sid, request.ack, answer)

    def _forget(self, membership: _Membership) -> Iterator[Effect]:
        session, room = membership.session, membership.room
        was_followed = room.followed
        self._withdraw(membership)
        membership.state = RoomState.ABSENT
        session.rooms.pop(room.project_id, None)
        room.memberships.pop(session.sid, None)
        room.catching_up.pop(session.sid, None)
        if session.sid in room.live:
            room.live.remove(session.sid)
            yield Leave(session.sid, room.name)
        if was_followed and not room.followed:
            room.position, room.heard = None, _NOWHERE
            yield Unfollow(room.project_id)
        if not room.memberships:
            self._rooms.pop(room.project_id, None)

    # Users: access looked up again

    def _join_user(self, session: _Session, user_id: str, now: float) -> None:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User(user_id)
            self._schedule_next_recheck(user, now)
        user.sessions[session.sid] = session

    def _leave_user(self, session: _Session) -> None:
        user = self._users.get(session.user_id) if session.user_id is not None else None
        if user is not None:
            user.sessions.pop(session.sid, None)
            if not user.sessions:
                self._withdraw(user)
                del self._users[user.user_id]

    def _schedule_next_recheck(self, user: _User, now: float) -> None:
        """Within the interval, spread over its last quarter: a crowd that came together is not asked about at once."""
        self._schedule_recheck(user, now + self.limits.recheck_interval * (0.75 + 0.25 * self._random()))

    def _schedule_recheck(self, user: _User, when: float) -> None:
        user.due = when

        def recheck(now: float) -> Iterator[Effect]:
            if self._users.get(user.user_id) is user and user.due == when:
                yield self._recheck(user, now)

        self._at(when, recheck)

    def _recheck(self, user: _User, now: float) -> Recheck:
        user.again = False
        user.due = 0.0
        user.asked = frozenset(project_id for session in user.sessions.values() for project_id in session.rooms)
        return Recheck(self._issue(user, now), user.user_id, tuple(sorted(user.asked)))

    def _on_rechecked(self, item: Rechecked, now: float) -> Iterator[Effect]:
        user = self._tickets.pop(item.ticket, None)
        if not isinstance(user, _User):
            return
        user.ticket = 0
        for session in list(user.sessions.values()):
            if item.allowed is None:
                yield from self._cue_session(session, Cue.EXPELLED, Error.AUTHENTICATION_REQUIRED, now)
                continue
            for membership in list(session.rooms.values()):
                gone = membership.room.project_id in user.asked - item.allowed
                # A grant that was asked for after this re-check knows better.
                if gone and membership.state in _SEES_UPDATES and membership.granted < item.ticket:
                    yield from self._cue_room(membership, Cue.REVOKED, None, now)
        if self._users.get(user.user_id) is user:
            if user.again:
                yield self._recheck(user, now)
            else:
                self._schedule_next_recheck(user, now)

    def _on_access_changed(self, item: AccessChanged, now: float) -> Iterator[Effect]:
        for membership in list(self._affected(item)):
            if membership.state in _BEING_CHECKED:
                yield from self._cue_room(membership, Cue.ACCESS_CHANGED, None, now)
        for user in self._affected_users(item):
            if user.ticket:
                user.again = True
            else:
                yield self._recheck(user, now)

    def _affected(self, item: AccessChanged) -> Iterator[_Membership]:
        if item.project_id is None:
            user = self._users.get(item.user_id) if item.user_id is not None else None
            for session in user.sessions.values() if user else ():
                yield from session.rooms.values()
        elif item.project_id in self._rooms:
            for membership in self._rooms[item.project_id].memberships.values():
                if item.user_id is None or membership.session.user_id == item.user_id:
                    yield membership

    def _affected_users(self, item: AccessChanged) -> list[_User]:
        if item.user_id is not None:
            user = self._users.get(item.user_id)
            return [user] if user else []
        # Sorted, so that a run with the same inputs has the same effects whatever order hashing gives.
        return [self._users[user_id] for user_id in sorted({str(m.session.user_id) for m in self._affected(item)})]


# What a client's words mean -----------------------------------------------------------------------------------


def _parse(item: Received) -> _Request:
    """Everything of an event that matters here: payload and format are judged, unknown keys are ignored."""
    event = item.event if item.event in _REQUESTS else ""  # a name of any length, and perhaps kept for a while
    payload = item.args[0] if item.args else None
    if not isinstance(payload, dict):
        return _Request(event, None, Error.PROJECT_ID_REQUIRED, None, item.ack)
    project_id, after = payload.get("project_id"), payload.get("last_event_id")
    named = project_id if isinstance(project_id, str) and len(project_id) <= MAX_ECHO_LENGTH else None
    error = None
    if project_id is None or project_id == "":
        error = Error.PROJECT_ID_REQUIRED
    elif not isinstance(project_id, str) or len(project_id) > MAX_ID_LENGTH:
        error = Error.INVALID_PROJECT_ID
    if after is not None and parse_event_id(after) is None:
        after = ""
    return _Request(event, named, error, after, item.ack)


def _refuse(sid: str, error: Error, request: _Request) -> Iterator[Effect]:
    """The ``error`` event, and the acknowledgement where one was asked for."""
    named = {} if request.project_id is None else {"project_id": request.project_id}
    yield Emit(sid, "error", {**error.payload, **named})
    if request.ack is not None:
        yield Acknowledge(sid, request.ack, {"error": error.payload})


def _answer(sid: str, event: str, data: Mapping[str, Any], ack: int | None) -> Iterator[Effect]:
    yield Emit(sid, event, data)
    if ack is not None:
        yield Acknowledge(sid, ack, data)


def _count(times: list[float], limit: int, now: float) -> bool:
    """Count one more within the window; False, and not counted, where the limit is reached.

    The times are a list, as there is one for each session, and an empty deque takes ten times the memory.
    """
    expired = 0
    while expired < len(times) and times[expired] <= now - WINDOW:
        expired += 1
    del times[:expired]
    if len(times) >= limit:
        return False
    times.append(now)
    return True


@lru_cache(maxsize=1024)  # of what is published in the same millisecond, most has the same id
def _place(event_id: str) -> _Place:
    """An event id's place; what is no event id comes before every one."""
    return parse_event_id(event_id) or _NOWHERE


_REQUESTS: Mapping[str, Cue] = {"join_project": Cue.JOIN, "leave_project": Cue.LEAVE}
HANDLED_EVENTS = frozenset(_REQUESTS)
"""The names of the clients' events that mean something here."""
_REFUSALS: Mapping[Access, Error] = {
    Access.NOT_FOUND: Error.PROJECT_NOT_FOUND,
    Access.DENIED: Error.ACCESS_DENIED,
    Access.NO_USER: Error.AUTHENTICATION_REQUIRED,
}
_SEES_UPDATES = frozenset({RoomState.CATCHING_UP, RoomState.JOINED, RoomState.REJOINING})
_BEING_CHECKED = frozenset({RoomState.CHECKING, RoomState.REJOINING})


# The tables ---------------------------------------------------------------------------------------------------


def _rule(handler: Callable[..., Iterator[Effect]], *targets: SessionState | RoomState) -> Rule:
    return Rule(handler, frozenset(targets))


SESSION_RULES: Mapping[tuple[SessionState, Cue], Rule] = {
    (SessionState.IDENTIFYING, Cue.EVENT): _rule(Hub._hold, SessionState.IDENTIFYING),
    (SessionState.IDENTIFYING, Cue.IDENTIFIED): _rule(
        Hub._identified, SessionState.ACTIVE, SessionState.ENDING, SessionState.GONE
    ),
    (SessionState.IDENTIFYING, Cue.FAILED): _rule(Hub._identify_failed, SessionState.ENDING),
    (SessionState.IDENTIFYING, Cue.CLOSED): _rule(Hub._close, SessionState.GONE),
    (SessionState.ACTIVE, Cue.EVENT): _rule(Hub._serve, SessionState.ACTIVE, SessionState.GONE),
    (SessionState.ACTIVE, Cue.EXPELLED): _rule(Hub._expel, SessionState.ENDING),
    (SessionState.ACTIVE, Cue.LOST): _rule(Hub._drop, SessionState.GONE),
    (SessionState.ACTIVE, Cue.CLOSED): _rule(Hub._close, SessionState.GONE),
    (SessionState.ENDING, Cue.EVENT): _rule(Hub._repeat_verdict, SessionState.ENDING),
    (SessionState.ENDING, Cue.GRACE_OVER): _rule(Hub._grace_over, SessionState.GONE),
    (SessionState.ENDING, Cue.CLOSED): _rule(Hub._close, SessionState.GONE),
}

ROOM_RULES: Mapping[tuple[RoomState, Cue], Rule] = {
    (RoomState.ABSENT, Cue.JOIN): _rule(Hub._join, RoomState.CHECKING, RoomState.ABSENT),
    (RoomState.ABSENT, Cue.LEAVE): _rule(Hub._leave, RoomState.ABSENT),
    (RoomState.CHECKING, Cue.JOIN): _rule(Hub._join_too, RoomState.CHECKING),
    (RoomState.CHECKING, Cue.LEAVE): _rule(Hub._leave, RoomState.ABSENT),
    (RoomState.CHECKING, Cue.GRANTED): _rule(Hub._granted, RoomState.CATCHING_UP),
    (RoomState.CHECKING, Cue.REFUSED): _rule(Hub._refused, RoomState.ABSENT),
    (RoomState.CHECKING, Cue.FAILED): _rule(Hub._check_failed, RoomState.ABSENT),
    (RoomState.CHECKING, Cue.ACCESS_CHANGED): _rule(Hub._check_again, RoomState.CHECKING),
    (RoomState.CHECKING, Cue.CLOSED): _rule(Hub._room_closed, RoomState.ABSENT),
    (RoomState.CATCHING_UP, Cue.JOIN): _rule(Hub._join_too, RoomState.CATCHING_UP),
    (RoomState.CATCHING_UP, Cue.LEAVE): _rule(Hub._leave, RoomState.ABSENT),
    (RoomState.CATCHING_UP, Cue.CAUGHT_UP): _rule(Hub._caught_up, RoomState.JOINED, RoomState.CATCHING_UP),
    (RoomState.CATCHING_UP, Cue.FAILED): _rule(Hub._check_failed, RoomState.ABSENT),
    (RoomState.CATCHING_UP, Cue.REVOKED): _rule(Hub._revoked, RoomState.ABSENT),
    (RoomState.CATCHING_UP, Cue.CLOSED): _rule(Hub._room_closed, RoomState.ABSENT),
    (RoomState.JOINED, Cue.JOIN): _rule(Hub._join_again, RoomState.REJOINING),
    (RoomState.JOINED, Cue.LEAVE): _rule(Hub._leave, RoomState.ABSENT),
    (RoomState.JOINED, Cue.REVOKED): _rule(Hub._revoked, RoomState.ABSENT),
    (RoomState.JOINED, Cue.CLOSED): _rule(Hub._room_closed, RoomState.ABSENT),
    (RoomState.REJOINING, Cue.JOIN): _rule(Hub._join_too, RoomState.REJOINING),
    (RoomState.REJOINING, Cue.LEAVE): _rule(Hub._leave, RoomState.ABSENT),
    (RoomState.REJOINING, Cue.GRANTED): _rule(Hub._granted_again, RoomState.JOINED),
    (RoomState.REJOINING, Cue.REFUSED): _rule(Hub._refused, RoomState.ABSENT),
    (RoomState.REJOINING, Cue.FAILED): _rule(Hub._recheck_failed, RoomState.JOINED),
    (RoomState.REJOINING, Cue.ACCESS_CHANGED): _rule(Hub._check_again, RoomState.REJOINING),
    (RoomState.REJOINING, Cue.REVOKED): _rule(Hub._revoked, RoomState.ABSENT),
    (RoomState.REJOINING, Cue.CLOSED): _rule(Hub._room_closed, RoomState.ABSENT),
}

_INPUTS: Mapping[type[Any], Callable[..., Iterable[Effect]]] = {
    Connected: Hub._on_connected,
    Received: Hub._on_received,
    Closed: Hub._on_closed,
    Identified: Hub._on_identified,
    AccessChecked: Hub._on_access_checked,
    HistoryRead: Hub._on_history_read,
    Rechecked: Hub._on_rechecked,
    Failed: Hub._on_failed,
    Published: Hub._on_published,
    Passed: Hub._on_passed,
    Lost: Hub._on_lost,
    AccessChanged: Hub._on_access_changed,
    LoggedOut: Hub._on_logged_out,
    Tick: Hub._on_tick,
}
