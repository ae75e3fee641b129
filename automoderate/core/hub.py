"""The hub: who is logged in, who is in which project's room, and what each session is told.

A pure state machine. It owns no socket, clock, thread or database::

    effects = hub.handle(input, now)      # one way in, one way out
    when = hub.next_deadline()            # absolute; call handle(Tick(), now) then. Calling it earlier is harmless.

Rules
-----
1.  ``now`` is the caller's monotonic clock in seconds and never goes backwards. Chance is injected (``random``).
2.  What takes time is an effect with a *ticket*; the answer comes back as an input with that ticket. Each ticket has
    a deadline. A ticket is answered once: a late, repeated or unknown one is ignored, and so is any input that names
    a session the hub no longer has.
3.  Deadlines that have passed take effect before the input that arrives with them.
4.  Effects are performed in order. An update reaches a session only between its ``Enter`` and its ``Leave``, or as a
    ``Replay`` just before its ``joined_project`` or its next ``Enter``.
5.  A room's *position* is the id of the newest update the hub has seen of it. It is known while the room is followed.
    Updates at or before the position are ignored: so updates are delivered in order and once, whatever the backplane
    repeats.
6.  The checks of a client's event run in this order: authenticated, rate, payload, format, room limit, project
    exists, member.
7.  From the moment a change of access is announced nothing is sent to a session that it may concern, until the
    directory was asked again: an answer read before the change is not believed. A user who logs out while the hub
    waits to hear whose session it is counts as logged out.

Theory of operation
-------------------
Two small machines, each a literal table ``(state, trigger) -> targets``. ``SESSION_TRANSITIONS`` is the life of a
session: identifying -> active -> ending. ``ROOM_TRANSITIONS`` is one session's relation to one project's room:
absent -> checking -> catching_up -> joined. Each pair has one handler, bound by a decorator; the import fails where
pairs and handlers differ. A pair that is not in its table is a bug in the caller and raises ``HubError``, and so does
a handler that leads to another state than its pair's targets. Handlers are generators: they change state and *yield*
effects; ``handle`` alone collects them.

Members that asked for some statuses only are in a room of their own behind the project's room, one for each choice of
statuses: an update is one ``Broadcast`` for each room that it goes to, and no member is looked at.

Presence, too, has a room of its own behind the project's, and is kept only while a member here or another node has
asked for it. A user is present while a session of theirs is in the project's room on any node, and for
``PRESENCE_GRACE`` seconds more. Each node tells the others of its own members, what changed at most once a second, and
every ``PRESENCE_HEARTBEAT`` seconds that it is still there; from one that falls silent its users are gone after
``PRESENCE_EXPIRY`` seconds. What one node says has a number, and what it continues: a node that missed something asks.
"""

from __future__ import annotations

import enum
import heapq
import json
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, get_args

from attrs import define, field, frozen

# States and transitions ---------------------------------------------------------------------------------------


class _Word(enum.Enum):
    """A word of the tables. Hashed as any other object: an enum's own way is a function in Python, and slower."""

    __hash__ = object.__hash__


class LoginState(_Word):
    """Where a session stands in its life."""

    IDENTIFYING = "identifying"
    """The directory is asked whose it is."""
    ACTIVE = "active"
    """It belongs to a user, whose events are served."""
    ENDING = "ending"
    """The client was told why; the session ends after the grace."""
    GONE = "gone"


class RoomState(_Word):
    """Where a session stands with one project's room."""

    ABSENT = "absent"
    CHECKING = "checking"
    """The directory is asked whether the user may be in the room."""
    CATCHING_UP = "catching_up"
    """The history is read; what is published meanwhile is kept for the session."""
    WAITING = "waiting"
    """The history was read, and ends where the room has not come yet: another node is ahead of this one."""
    JOINED = "joined"
    REJOINING = "rejoining"
    """Joined, and asked to join again: receives updates while access is looked up anew."""
    RECALLING = "recalling"
    """Joined, and asked again with the wish for recent updates: receives updates while those are read."""
    HELD = "held"
    """Joined, and its access may have changed: updates are kept for the session until the directory has answered."""


class Trigger(_Word):
    """What may happen to a session, or to its relation to a room."""

    EVENT = "event"
    IDENTIFIED = "identified"
    EXPELLED = "expelled"
    GRACE_OVER = "grace_over"
    JOIN = "join"
    LEAVE = "leave"
    LOOK = "look"
    GRANTED = "granted"
    REFUSED = "refused"
    FAILED = "failed"
    HISTORY_READ = "history_read"
    POSITION_REACHED = "position_reached"
    HISTORY_LOST = "history_lost"
    ACCESS_CHANGED = "access_changed"
    CONFIRMED = "confirmed"
    REVOKED = "revoked"
    CLOSED = "closed"


SESSION_TRANSITIONS: Mapping[tuple[LoginState, Trigger], Collection[LoginState]] = {
    (LoginState.IDENTIFYING, Trigger.EVENT): {LoginState.IDENTIFYING},
    (LoginState.IDENTIFYING, Trigger.IDENTIFIED): {LoginState.ACTIVE, LoginState.ENDING, LoginState.GONE},
    (LoginState.IDENTIFYING, Trigger.FAILED): {LoginState.ENDING},
    (LoginState.IDENTIFYING, Trigger.CLOSED): {LoginState.GONE},
    (LoginState.ACTIVE, Trigger.EVENT): {LoginState.ACTIVE, LoginState.GONE},
    (LoginState.ACTIVE, Trigger.EXPELLED): {LoginState.ENDING},
    (LoginState.ACTIVE, Trigger.HISTORY_LOST): {LoginState.GONE},
    (LoginState.ACTIVE, Trigger.CLOSED): {LoginState.GONE},
    (LoginState.ENDING, Trigger.EVENT): {LoginState.ENDING},
    (LoginState.ENDING, Trigger.GRACE_OVER): {LoginState.GONE},
    (LoginState.ENDING, Trigger.CLOSED): {LoginState.GONE},
}
"""Where each trigger may lead a session from each state; a pair that is missing is an error."""

ROOM_TRANSITIONS: Mapping[tuple[RoomState, Trigger], Collection[RoomState]] = {
    (RoomState.ABSENT, Trigger.JOIN): {RoomState.CHECKING, RoomState.ABSENT},
    (RoomState.ABSENT, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.ABSENT, Trigger.LOOK): {RoomState.ABSENT},
    (RoomState.CHECKING, Trigger.JOIN): {RoomState.CHECKING},
    (RoomState.CHECKING, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.CHECKING, Trigger.LOOK): {RoomState.CHECKING},
    (RoomState.CHECKING, Trigger.GRANTED): {RoomState.CATCHING_UP},
    (RoomState.CHECKING, Trigger.REFUSED): {RoomState.ABSENT},
    (RoomState.CHECKING, Trigger.FAILED): {RoomState.ABSENT},
    (RoomState.CHECKING, Trigger.ACCESS_CHANGED): {RoomState.CHECKING},
    (RoomState.CHECKING, Trigger.CLOSED): {RoomState.ABSENT},
    (RoomState.CATCHING_UP, Trigger.JOIN): {RoomState.CATCHING_UP},
    (RoomState.CATCHING_UP, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.CATCHING_UP, Trigger.LOOK): {RoomState.CATCHING_UP},
    (RoomState.CATCHING_UP, Trigger.HISTORY_READ): {RoomState.JOINED, RoomState.WAITING},
    (RoomState.CATCHING_UP, Trigger.FAILED): {RoomState.ABSENT},
    (RoomState.CATCHING_UP, Trigger.ACCESS_CHANGED): {RoomState.CHECKING},
    (RoomState.CATCHING_UP, Trigger.REVOKED): {RoomState.ABSENT},
    (RoomState.CATCHING_UP, Trigger.CLOSED): {RoomState.ABSENT},
    (RoomState.WAITING, Trigger.JOIN): {RoomState.WAITING, RoomState.CATCHING_UP},
    (RoomState.WAITING, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.WAITING, Trigger.LOOK): {RoomState.WAITING},
    (RoomState.WAITING, Trigger.POSITION_REACHED): {RoomState.JOINED},
    (RoomState.WAITING, Trigger.FAILED): {RoomState.ABSENT},
    (RoomState.WAITING, Trigger.ACCESS_CHANGED): {RoomState.CHECKING},
    (RoomState.WAITING, Trigger.REVOKED): {RoomState.ABSENT},
    (RoomState.WAITING, Trigger.CLOSED): {RoomState.ABSENT},
    (RoomState.JOINED, Trigger.JOIN): {RoomState.REJOINING},
    (RoomState.JOINED, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.JOINED, Trigger.LOOK): {RoomState.JOINED},
    (RoomState.JOINED, Trigger.ACCESS_CHANGED): {RoomState.HELD},
    (RoomState.JOINED, Trigger.REVOKED): {RoomState.ABSENT},
    (RoomState.JOINED, Trigger.CLOSED): {RoomState.ABSENT},
    (RoomState.REJOINING, Trigger.JOIN): {RoomState.REJOINING},
    (RoomState.REJOINING, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.REJOINING, Trigger.LOOK): {RoomState.REJOINING},
    (RoomState.REJOINING, Trigger.GRANTED): {RoomState.JOINED, RoomState.RECALLING},
    (RoomState.REJOINING, Trigger.REFUSED): {RoomState.ABSENT},
    (RoomState.REJOINING, Trigger.FAILED): {RoomState.JOINED},
    (RoomState.REJOINING, Trigger.ACCESS_CHANGED): {RoomState.HELD},
    (RoomState.REJOINING, Trigger.REVOKED): {RoomState.ABSENT},
    (RoomState.REJOINING, Trigger.CLOSED): {RoomState.ABSENT},
    (RoomState.RECALLING, Trigger.JOIN): {RoomState.RECALLING},
    (RoomState.RECALLING, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.RECALLING, Trigger.LOOK): {RoomState.RECALLING},
    (RoomState.RECALLING, Trigger.HISTORY_READ): {RoomState.JOINED},
    (RoomState.RECALLING, Trigger.FAILED): {RoomState.JOINED},
    (RoomState.RECALLING, Trigger.ACCESS_CHANGED): {RoomState.HELD},
    (RoomState.RECALLING, Trigger.REVOKED): {RoomState.ABSENT},
    (RoomState.RECALLING, Trigger.CLOSED): {RoomState.ABSENT},
    (RoomState.HELD, Trigger.JOIN): {RoomState.HELD},
    (RoomState.HELD, Trigger.LEAVE): {RoomState.ABSENT},
    (RoomState.HELD, Trigger.LOOK): {RoomState.HELD},
    (RoomState.HELD, Trigger.ACCESS_CHANGED): {RoomState.HELD},
    (RoomState.HELD, Trigger.CONFIRMED): {RoomState.JOINED, RoomState.RECALLING},
    (RoomState.HELD, Trigger.REVOKED): {RoomState.ABSENT},
    (RoomState.HELD, Trigger.CLOSED): {RoomState.ABSENT},
}
"""Where each trigger may lead a session's relation to one room; a pair that is missing is an error."""

_INSIDE = frozenset({RoomState.JOINED, RoomState.REJOINING, RoomState.RECALLING, RoomState.HELD})
"""The states of a member: its user is present."""
_SEES_UPDATES = frozenset(state for state, trigger in ROOM_TRANSITIONS if trigger is Trigger.REVOKED)

# What is said -------------------------------------------------------------------------------------------------

MAX_ID_LENGTH = 100
"""Longest project id, in characters, that a client may ask for."""
MAX_RECENT = 200
"""Most recent updates that a client may ask for."""
STATUSES = ("approved", "rejected", "flagged", "pending")
"""What may become of content, and what a client may ask for."""
EVENTS_WITH_STATUS = frozenset({"moderation_update", "content_received"})
"""The events of which a client may ask for some statuses only."""
MAX_ECHO_LENGTH = 10_000
"""Longest project id, in characters, that an error repeats; a longer one is left out."""
WINDOW = 60.0
"""Seconds over which events and connection attempts are counted."""
RECHECK_RETRY = 5.0
"""Seconds until a re-check that failed is tried again."""
PRESENCE_PACE = 1.0
"""Shortest time, in seconds, between two changes that are told of one room's presence."""
PRESENCE_GRACE = 5.0
"""Seconds for which a user who left a room still counts as there."""
PRESENCE_GATHER = 0.5
"""Seconds that the first client of a node to ask for a room's presence waits for what other nodes say."""
PRESENCE_HEARTBEAT = 5.0
"""Seconds between two times that a node says of a room that it is still there."""
PRESENCE_EXPIRY = 15.0
"""Seconds after which a node that has said nothing more of a room counts as gone."""


class HubError(Exception):
    """The caller or a handler broke the tables. Never raised for anything that a client sends."""


class Access(enum.Enum):
    """Answer to a membership check."""

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
    INVALID_STATUSES = ("invalid_statuses", "Invalid statuses")
    INVALID_CONTENT_ID = ("invalid_content_id", "Invalid content ID format")
    PRESENCE_REQUIRED = ("presence_required", "Join the project with presence first")
    PROJECT_NOT_FOUND = ("project_not_found", "Project not found")
    ACCESS_DENIED = ("access_denied", "Access denied - you are not a member of this project")
    TIMEOUT = ("timeout", "Server timeout - please try again")
    SERVER_ERROR = ("server_error", "Server error occurred")
    ROOM_LIMIT = ("room_limit", "Too many projects joined")
    RATE_LIMITED = ("rate_limited", "Too many requests - please slow down")
    TOO_MANY_CONNECTIONS = ("rate_limited", "Too many connection attempts. Please try again later.")

    @property
    def payload(self) -> dict[str, Any]:
        """What a client is told."""
        code, message = self.value
        return {"message": message, "code": code}


class Ending(enum.Enum):
    """How a session is ended."""

    STAY_AWAY = "stay_away"
    """On purpose: the client sees ``io server disconnect`` and does not come back by itself."""
    COME_BACK = "come_back"
    """The client is not at fault, or only too early: its transport ends, and it comes back by itself."""


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
    """Updates kept for one session.

    Beyond it a session that catches up gets the answer ``recovered: false``, and one whose access is being looked up
    is dropped, so that it comes back and catches up.
    """

    @property
    def tolerated_refusals(self) -> int:
        """Events refused within the window before the session that goes on sending is ended."""
        return max(1, self.max_events_per_minute // 4)


@define(unsafe_hash=True)
class Update:
    """One event of one project, encoded once for every session that is to get it.

    Treat as immutable. Not frozen, because one is made per update and a frozen attrs class costs three times as much.
    """

    project_id: str
    event: str
    text: str
    """The data as JSON, an object that already carries its ``event_id``."""
    event_id: str
    trace: str | None = None
    """The ``traceparent`` of its publication, where somebody traces."""

    @property
    def data(self) -> dict[str, Any]:
        """The data, parsed."""
        data: dict[str, Any] = json.loads(self.text)
        return data


@frozen
class History:
    """A project's updates after an id, or its newest ones, oldest first, as the backplane remembers them."""

    updates: tuple[Update, ...]
    complete: bool
    """False: the backplane does not remember the id asked for (any more), and ``updates`` is empty."""
    last_event_id: str
    """The project's newest id; without any update, the id at which its history begins."""


@frozen
class Identity:
    """A user who is logged in."""

    user_id: str
    username: str


@frozen
class PresentUser:
    """A user in a project's room."""

    user_id: str
    username: str
    looking_at: str | None = None
    """The content that they say they are looking at."""


@frozen
class PresenceReport:
    """What a node tells the others of its members in a project's room."""

    project_id: str
    number: int
    """Of the node's reports on this room; one more with each that says something new."""
    base: int | None
    """The number of the report that this one continues; None: it continues none, and is complete."""
    present: tuple[PresentUser, ...] = ()
    """Those who came, or look at something else; in a complete report all that are there."""
    gone: tuple[str, ...] = ()
    wanted: bool = False
    """The node has clients that want to know who is in the room."""
    asks: bool = False
    """Other nodes are to answer at once: completely where ``wanted``, else by saying whether they want reports."""


def stamped(text: str, event_id: str) -> str:
    """Add an ``event_id`` to the text of a JSON object that has none and is written without spaces."""
    return f'{text[:-1]}{"," if len(text) > 2 else ""}"event_id":"{event_id}"}}'


def room_name(project_id: str) -> str:
    """The Socket.IO room of a project."""
    return f"project_{project_id}"


_HALF_PAIR = re.compile("[\ud800-\udfff]")


def is_project_id(text: str) -> bool:
    """Whether a project could have this id: 1 to 100 characters that UTF-8 can encode."""
    return 0 < len(text) <= MAX_ID_LENGTH and not _HALF_PAIR.search(text)


def projects_in(rooms: object) -> list[str]:
    """The ids of the projects whose rooms are named, each once.

    ``rooms`` is one name or a collection of names. Other rooms are left out, and so are ids that no project can have.
    """
    prefix = room_name("")
    names = rooms if isinstance(rooms, list | tuple | set) else [rooms]
    projects = [name.removeprefix(prefix) for name in names if isinstance(name, str) and name.startswith(prefix)]
    return [project_id for project_id in dict.fromkeys(projects) if is_project_id(project_id)]


_EVENT_ID = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_MOST = 2**64 - 1
"""The largest part of an event id, as they may be those of a stream in Redis."""
_Place: TypeAlias = tuple[int, int]
"""An event id as a pair that can be compared: milliseconds, sequence."""
_NOWHERE: _Place = (-1, -1)
"""Before every event id."""


def parse_event_id(text: object) -> tuple[int, int] | None:
    """``"milliseconds-sequence"`` as a comparable pair; None for anything else.

    Its parts are ASCII digits, and fit into 64 bits.
    """
    match = _EVENT_ID.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    milliseconds, sequence = int(match[1]), int(match[2])
    return (milliseconds, sequence) if milliseconds <= _MOST and sequence <= _MOST else None


def event_id_text(place: tuple[int, int]) -> str:
    """The event id of a pair that ``parse_event_id`` returned."""
    return f"{place[0]}-{place[1]}"


# Inputs -------------------------------------------------------------------------------------------------------


@frozen
class Connected:
    """A client connected.

    ``credential`` is opaque here; connection attempts are counted by ``address``.
    """

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
    """Answer to ``Identify``; None: the credential is no active user's."""

    ticket: int
    user: Identity | None


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
class PositionAdvanced:
    """The backplane has passed this id of a project, whose entry is no update."""

    project_id: str
    event_id: str


@frozen
class HistoryLost:
    """The backplane cannot continue where it was: updates of the project may be missing from here on."""

    project_id: str


@frozen
class PresenceShared:
    """Another node told of its members in a room that has members here."""

    node: str
    report: PresenceReport


@frozen
class AccessChanged:
    """Access may have changed: of one user, of one user to one project, of everyone to one project, or of everyone."""

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
    | Published | PositionAdvanced | HistoryLost | PresenceShared | AccessChanged | LoggedOut | Tick
)  # fmt: skip
"""Everything that the hub can be told."""


# Effects ------------------------------------------------------------------------------------------------------


@frozen
class Identify:
    """Ask which user a credential belongs to."""

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
    """Ask for the project's updates after an id; without one, for so many of the ``newest``, which may be none."""

    ticket: int
    project_id: str
    after: str | None
    newest: int = 0


@frozen
class Recheck:
    """Ask which of these projects the user may still see."""

    ticket: int
    user_id: str
    project_ids: tuple[str, ...]


@frozen
class Follow:
    """The project has a member here: hand over its updates from where its history ends."""

    project_id: str


@frozen
class Unfollow:
    """The project's last member here is gone: hand over its updates no more."""

    project_id: str


@frozen
class Emit:
    """Send one event to one session."""

    sid: str
    event: str
    data: Mapping[str, Any]
    asked_at: float | None = field(default=None, eq=False)
    """When the session's client asked for it, where it lets the session into a room: to measure how long that took."""


@frozen
class Replay:
    """Send one session an update that others were sent, or will be."""

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
    """Send an update to every session that entered the room."""

    room: str
    update: Update


@frozen
class BroadcastExcept:
    """Send an update to every session that entered the room, but not to these."""

    room: str
    update: Update
    sids: tuple[str, ...]


@frozen
class SharePresence:
    """Tell the other nodes that have members in the room."""

    report: PresenceReport


@frozen
class End:
    """End the session; the hub has already forgotten it."""

    sid: str
    ending: Ending


Effect: TypeAlias = (
    Identify | CheckAccess | ReadHistory | Recheck | Follow | Unfollow
    | Emit | Replay | Acknowledge | Enter | Leave | Broadcast | BroadcastExcept | SharePresence | End
)  # fmt: skip
"""Everything that the hub can ask for."""


def answered_at_once(question: ReadHistory, history: History) -> tuple[PositionAdvanced, HistoryRead]:
    """The inputs that answer the question where the backplane hands over each update before the next can be published.

    With nothing under way from the backplane the room is where the history ends.
    """
    return PositionAdvanced(question.project_id, history.last_event_id), HistoryRead(question.ticket, history)


@frozen
class SessionView:
    """What an operator is shown of a session."""

    sid: str
    address: str
    state: LoginState
    user: Identity | None
    """None: not known yet, or the session is ending."""
    rooms: Mapping[str, RoomState]
    """Where it stands with each project's room that it has to do with."""


# What is known of sessions, rooms and users -------------------------------------------------------------------


@frozen
class _ClientRequest:
    """A client's event, parsed: as little of it as has to be kept while its session is being identified."""

    event: str
    """The event's name where a handler exists for it, else ``""``."""
    project_id: str | None
    """The project it names, where it names one as a string: what an error repeats."""
    error: Error | None
    ack: int | None
    after: str | None = None
    """``last_event_id`` as sent, None where absent; anything that is no event id is kept as ``""``."""
    recent: int = 0
    """How many of the newest updates it asks for; 0 beside ``after``."""
    statuses: frozenset[str] | None = None
    """The statuses it asks for; None: all of them."""
    presence: bool = False
    """Whether it asks who is in the room."""
    content_id: str | None = None
    """The content that its user is looking at."""
    at: float | None = None
    """When a join was received."""


@define(eq=False, weakref_slot=False)
class _LiveSession:
    sid: str
    address: str
    state: LoginState = LoginState.IDENTIFYING
    user_id: str | None = None
    ticket: int = 0
    logged_out: frozenset[str] = frozenset()
    """Users who logged out while the hub did not know yet whose session this is."""
    held: tuple[_ClientRequest, ...] = ()
    rooms: tuple[_Membership, ...] = ()
    """A few at most, and a tuple takes a quarter of a dict's memory."""
    window: list[float] | None = None
    refused: int = 0
    verdict: Error = Error.AUTHENTICATION_REQUIRED
    ending: Ending = Ending.STAY_AWAY


@define(eq=False, weakref_slot=False)
class _ProjectRoom:
    project_id: str
    name: str
    memberships: dict[str, _Membership] = field(factory=dict)
    """Every session's relation to the room, in whatever state, by sid."""
    live: set[str] = field(factory=set)
    """The sids that receive every update."""
    filtered: dict[frozenset[str], set[str]] = field(factory=dict)
    """The sids that receive some statuses only, by which those are."""
    keeping: dict[str, _Membership] = field(factory=dict)
    """Those for which updates are kept: catching up, waiting or held, or recalling more statuses than they are sent."""
    inside: int = 0
    """How many members there are."""
    presence: _Presence | None = None
    """Kept while a member here, or another node, has asked for it."""
    position: _Place | None = None
    heard: _Place = _NOWHERE
    """The newest id that the backplane has come to since the room is followed; a history may have known newer ones."""

    @property
    def followed(self) -> bool:
        return bool(self.live or self.filtered or self.keeping)


_NO_UPDATES: list[Update] = []
"""In place of an empty buffer of its own for each of thousands of memberships. Nothing is ever put into it."""


@define(eq=False, weakref_slot=False)
class _Membership:
    session: _LiveSession
    room: _ProjectRoom
    state: RoomState = RoomState.ABSENT
    requests: tuple[_ClientRequest, ...] = ()
    """Joins that wait for their answer."""
    ticket: int = 0
    granted: int = 0
    """The ticket of the check that last granted access."""
    statuses: frozenset[str] | None = None
    """The statuses it receives; None: all of them."""
    entered: str | None = None
    """The room whose broadcasts it receives."""
    after: str | None = None
    """``after`` of the history that was asked for."""
    recent: int = 0
    """``newest`` of the history that was asked for."""
    buffer: list[Update] = field(default=_NO_UPDATES)
    """Updates that are kept for it; see ``keep``."""
    overflowed: bool = False
    history: History | None = None
    """What was read, while it waits for the room to come to the same position."""
    since: _Place = _NOWHERE
    """The session was given everything after this id."""
    inside: bool = False
    """It is a member, and its user is present."""
    asks_presence: bool = False
    """Its client wants to know who is in the room."""
    looking_at: str | None = None
    """The content that its client said its user is looking at."""

    def keep(self, update: Update) -> None:
        """Put an update into the buffer."""
        if self.buffer:
            self.buffer.append(update)
        else:
            self.buffer = [update]


@define(eq=False, weakref_slot=False)
class _LiveUser:
    """A user with sessions here."""

    user_id: str
    username: str
    sessions: tuple[_LiveSession, ...] = ()
    ticket: int = 0
    asked: frozenset[str] = frozenset()
    due: float = 0.0
    """When the next re-check is; a timer set for another time was superseded."""
    again: bool = False
    """Access changed while a re-check was under way: its answer may be older than the change."""


@define(eq=False)
class _NodePresence:
    """What another node has said of its members in a room."""

    number: int
    users: dict[str, PresentUser]
    expires: float


@define(eq=False)
class _Presence:
    """Who is in a room, on this node and on others, and what its clients and other nodes were told of it."""

    here: dict[str, PresentUser] = field(factory=dict)
    """The users of this node's members, by user id."""
    nodes: dict[str, _NodePresence] = field(factory=dict)
    """What other nodes said, by node."""
    looking: dict[str, str] = field(factory=dict)
    """What users look at; where they have said different things, the newest."""
    leaving: dict[str, float] = field(factory=dict)
    """Users who are in the room no more, and until when they still count as there."""

    askers: dict[str, _Membership] = field(factory=dict)
    """Members that were told, and are told what changes, by sid."""
    arrivals: dict[str, _Membership] = field(factory=dict)
    """Members that are to be told with the next change."""
    told: dict[str, str] = field(factory=dict)
    """The users that the askers know of, with their names."""
    told_looking: dict[str, str] = field(factory=dict)
    changed: set[str] = field(factory=set)
    """Users of whom there may be something to tell the askers."""

    wanted_by: dict[str, float] = field(factory=dict)
    """Other nodes that want to know, and until when that holds."""
    number: int = 0
    """That of the newest report."""
    unreported: set[str] = field(factory=set)
    """Users here of whom there is something to tell other nodes."""
    report_all: bool = False
    """The next report is complete."""
    asks: bool = False
    """The next report asks the other nodes to answer."""
    answers: bool = False
    """The next report is sent even if it says nothing but that this node is there."""

    clients_next: float = 0.0
    """When the askers may next be told of a change."""
    nodes_next: float = 0.0
    """When other nodes may next be told of a change."""
    scheduled: float = math.inf
    """When the hub looks again whether either may be told."""

    def accounts(self) -> Iterator[Mapping[str, PresentUser]]:
        """What each node says, this one first."""
        yield self.here
        for node in self.nodes.values():
            yield node.users

    def find(self, user_id: str) -> PresentUser | None:
        """A user who is in the room."""
        return next((users[user_id] for users in self.accounts() if user_id in users), None)

    def look(self, user_id: str, content_id: str | None) -> None:
        """Note what a user has just said that they are looking at."""
        if content_id is not None:
            self.looking[user_id] = content_id
        self.changed.add(user_id)
        self.settle(user_id)

    def settle(self, user_id: str) -> None:
        """Forget what a user looked at where no session of theirs says so any more; another may look elsewhere."""
        found = [users[user_id].looking_at for users in self.accounts() if user_id in users]
        seen = [content_id for content_id in found if content_id is not None]
        if self.looking.get(user_id) not in seen:
            self.changed.add(user_id)
            if seen:
                self.looking[user_id] = seen[0]
            else:
                self.looking.pop(user_id, None)

    def take_changes(self) -> tuple[dict[str, str], list[str], dict[str, str | None]]:
        """Who came, who left, and who looks at something else, since this was last asked."""
        joined: dict[str, str] = {}
        left: list[str] = []
        looks: dict[str, str | None] = {}
        for user_id in sorted(self.changed):
            found = self.find(user_id)
            if found is None and user_id not in self.leaving:
                if self.told.pop(user_id, None) is not None:
                    left.append(user_id)
                self.told_looking.pop(user_id, None)
                continue
            if found is not None and user_id not in self.told:
                joined[user_id] = self.told[user_id] = found.username
            content_id = self.looking.get(user_id)
            if content_id != self.told_looking.get(user_id) and user_id in self.told:
                looks[user_id] = content_id
                if content_id is None:
                    del self.told_looking[user_id]
                else:
                    self.told_looking[user_id] = content_id
        self.changed.clear()
        return joined, left, looks


# The machine --------------------------------------------------------------------------------------------------

_Key = TypeVar("_Key")
_Method = TypeVar("_Method", bound=Callable[..., Iterable[Effect]])

_SESSION_HANDLERS: dict[tuple[LoginState, Trigger], Callable[..., Iterator[Effect]]] = {}
_ROOM_HANDLERS: dict[tuple[RoomState, Trigger], Callable[..., Iterator[Effect]]] = {}
_INPUT_HANDLERS: dict[type[Any], Callable[..., Iterable[Effect]]] = {}


def _bind(handlers: dict[_Key, Any], keys: Iterable[_Key]) -> Callable[[_Method], _Method]:
    """A decorator that makes a method the handler of these keys."""

    def bind(method: _Method) -> _Method:
        for key in keys:
            if key in handlers:
                raise HubError(f"{key} has two handlers")
            handlers[key] = method
        return method

    return bind


def _on_session(trigger: Trigger, *states: LoginState) -> Callable[[_Method], _Method]:
    return _bind(_SESSION_HANDLERS, [(state, trigger) for state in states])


def _on_room(trigger: Trigger, *states: RoomState) -> Callable[[_Method], _Method]:
    return _bind(_ROOM_HANDLERS, [(state, trigger) for state in states])


def _on_input(kind: type[Input]) -> Callable[[_Method], _Method]:
    return _bind(_INPUT_HANDLERS, [kind])


def _check_bound(keys: Iterable[Any], handlers: Mapping[Any, object]) -> None:
    """Raise HubError unless each of the keys has a handler, and nothing else has one."""
    unequal = set(keys) ^ set(handlers)
    if unequal:
        raise HubError(f"handlers and table differ: {', '.join(sorted(map(str, unequal)))}")


class Hub:
    """The state machine. See the module's docstring for its rules."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        random: Callable[[], float] = lambda: 0.5,
        other_nodes: bool = False,
    ) -> None:
        """``random`` returns floats in [0, 1); it spreads the re-checks of users who came at the same moment.

        Where there are ``other_nodes`` they are told, and asked, who is in a room.
        """
        self.limits = limits or Limits()
        self._random = random
        self.other_nodes = other_nodes
        self._sessions: dict[str, _LiveSession] = {}
        self._rooms: dict[str, _ProjectRoom] = {}
        self._users: dict[str, _LiveUser] = {}
        self._attempts: dict[str, list[float]] = {}
        self._last_ticket = 0
        self._tickets: dict[int, _LiveSession | _Membership | _LiveUser] = {}
        self._unanswered: deque[tuple[float, int]] = deque()
        """The deadlines of tickets, in the order of their time, as all have the same patience. One may be answered."""
        self._deadlines: list[tuple[float, int, Callable[[Hub, Any, float, float], Iterator[Effect]], Any]] = []
        """A heap of everything else that is due: when, in which order, what is called, and with what."""
        self._rechecks: dict[float, tuple[float, list[_LiveUser]]] = {}
        """Whose access is looked up again at a time, by that time."""
        self._serial = 0

    # The way in and the way out

    def handle(self, item: Input, now: float) -> list[Effect]:
        """Take one input; return what is to be done about it, in order."""
        due, unanswered = self._deadlines, self._unanswered
        overdue = (due and due[0][0] <= now) or (unanswered and unanswered[0][0] <= now)
        expired = self._expire(now) if overdue else ()
        return [*expired, *_INPUT_HANDLERS[type(item)](self, item, now)]

    def next_deadline(self) -> float | None:
        """When the hub next wants a ``Tick``, on the clock of ``now``; None: never."""
        while self._unanswered and self._unanswered[0][1] not in self._tickets:
            self._unanswered.popleft()
        first = [self._deadlines[0][0]] if self._deadlines else []
        return min([*first, self._unanswered[0][0]] if self._unanswered else first, default=None)

    def user_of(self, sid: str) -> str | None:
        """The user a session belongs to; None where it has none, or none is known yet."""
        session = self._sessions.get(sid)
        return None if session is None else session.user_id

    def sids(self, *, user_id: str | None = None, project_id: str | None = None) -> list[str]:
        """The sessions; those of one user, or those that are in one project's room or about to be."""
        if user_id is not None:
            user = self._users.get(user_id)
            return [session.sid for session in user.sessions] if user else []
        if project_id is not None:
            room = self._rooms.get(project_id)
            return list(room.memberships) if room else []
        return list(self._sessions)

    def look_at(self, sid: str) -> SessionView | None:
        """What is known of a session; None where there is none."""
        session = self._sessions.get(sid)
        if session is None:
            return None
        user = self._users.get(session.user_id) if session.user_id is not None else None
        identity = None if user is None else Identity(user.user_id, user.username)
        rooms = {membership.room.project_id: membership.state for membership in session.rooms}
        return SessionView(sid, session.address, session.state, identity, rooms)

    def project_ids(self) -> list[str]:
        """The projects in whose rooms sessions are, or are about to be."""
        return list(self._rooms)

    def rooms_of(self, project_id: str) -> list[str]:
        """The rooms that updates of a project go to: its own, and those of members that chose some statuses."""
        room = self._rooms.get(project_id)
        return [] if room is None else [room.name, *(_filtered_name(room, statuses) for statuses in room.filtered)]

    def members(self, project_id: str) -> int:
        """How many sessions are in a project's room."""
        room = self._rooms.get(project_id)
        return 0 if room is None else room.inside

    def counts(self) -> dict[str, int]:
        """How many sessions, users, rooms and memberships, unanswered tickets and remembered addresses there are."""
        return {
            "sessions": len(self._sessions),
            "users": len(self._users),
            "rooms": len(self._rooms),
            "memberships": sum(len(session.rooms) for session in self._sessions.values()),
            "tickets": len(self._tickets),
            "addresses": len(self._attempts),
        }

    # Time and tickets

    def _at(self, when: float, act: Callable[[Hub, Any, float, float], Iterator[Effect]], about: Any) -> None:
        """Have ``act(self, about, when, now)`` called when it is time. No closure: there is one for every user."""
        self._serial += 1
        heapq.heappush(self._deadlines, (when, self._serial, act, about))

    def _expire(self, now: float) -> Iterator[Effect]:
        while (due := self.next_deadline()) is not None and due <= now:
            if self._unanswered and self._unanswered[0][0] == due:
                _, ticket = self._unanswered.popleft()
                yield from self._ticket_failed(ticket, Error.TIMEOUT, now)
            else:
                when, _, act, about = heapq.heappop(self._deadlines)
                yield from act(self, about, when, now)

    def _issue(self, asker: _LiveSession | _Membership | _LiveUser, now: float) -> int:
        """A new ticket for the asker; the one it had before is withdrawn."""
        self._tickets.pop(asker.ticket, None)
        self._last_ticket += 1
        ticket = asker.ticket = self._last_ticket
        self._tickets[ticket] = asker
        self._unanswered.append((now + self.limits.check_timeout, ticket))
        return ticket

    def _withdraw(self, asker: _LiveSession | _Membership | _LiveUser) -> None:
        self._tickets.pop(asker.ticket, None)
        asker.ticket = 0

    def _ticket_failed(self, ticket: int, error: Error, now: float) -> Iterator[Effect]:
        asker = self._tickets.pop(ticket, None)
        if isinstance(asker, _LiveSession):
            yield from self._trigger_session(asker, Trigger.FAILED, error, now)
        elif isinstance(asker, _Membership):
            yield from self._trigger_room(asker, Trigger.FAILED, error, now)
        elif asker is not None:
            asker.ticket = 0
            self._schedule_recheck(asker, now + (0.0 if asker.again else RECHECK_RETRY))

    # Running the tables

    def _trigger_session(self, session: _LiveSession, trigger: Trigger, detail: Any, now: float) -> Iterator[Effect]:
        pair = session.state, trigger
        handler = _SESSION_HANDLERS.get(pair)
        if handler is None:
            raise HubError(f"a session cannot be told {trigger.value!r} while {session.state.value}")
        yield from handler(self, session, detail, now)
        if session.state not in SESSION_TRANSITIONS[pair]:
            raise HubError(f"{trigger.value!r} led a session to {session.state.value}")

    def _trigger_room(self, membership: _Membership, trigger: Trigger, detail: Any, now: float) -> Iterator[Effect]:
        pair = membership.state, trigger
        handler = _ROOM_HANDLERS.get(pair)
        if handler is None:
            raise HubError(f"a membership cannot be told {trigger.value!r} while {membership.state.value}")
        yield from handler(self, membership, detail, now)
        if membership.state not in ROOM_TRANSITIONS[pair]:
            raise HubError(f"{trigger.value!r} led a membership to {membership.state.value}")

    # Inputs

    @_on_input(Connected)
    def _on_connected(self, item: Connected, now: float) -> Iterator[Effect]:
        if item.sid in self._sessions:
            raise HubError(f"session {item.sid!r} is already connected")
        session = self._sessions[item.sid] = _LiveSession(item.sid, item.address)
        if not self._admit(item.address, now):
            session.ending = Ending.COME_BACK  # It is to come back by itself, later.
            yield from self._expel(session, Error.TOO_MANY_CONNECTIONS, now)
        else:
            yield Identify(self._issue(session, now), item.sid, item.credential)

    @_on_input(Received)
    def _on_received(self, item: Received, now: float) -> Iterator[Effect]:
        session = self._sessions.get(item.sid)
        if session is not None:
            yield from self._trigger_session(session, Trigger.EVENT, _parse(item, now), now)

    @_on_input(Closed)
    def _on_closed(self, item: Closed, now: float) -> Iterator[Effect]:
        session = self._sessions.get(item.sid)
        if session is not None:
            yield from self._trigger_session(session, Trigger.CLOSED, None, now)

    @_on_input(Identified)
    def _on_identified(self, item: Identified, now: float) -> Iterator[Effect]:
        session = self._tickets.pop(item.ticket, None)
        if isinstance(session, _LiveSession):
            yield from self._trigger_session(session, Trigger.IDENTIFIED, item.user, now)

    @_on_input(AccessChecked)
    def _on_access_checked(self, item: AccessChecked, now: float) -> Iterator[Effect]:
        membership = self._tickets.pop(item.ticket, None)
        if isinstance(membership, _Membership):
            trigger = Trigger.GRANTED if item.access is Access.GRANTED else Trigger.REFUSED
            yield from self._trigger_room(membership, trigger, item.access, now)

    @_on_input(HistoryRead)
    def _on_history_read(self, item: HistoryRead, now: float) -> Iterator[Effect]:
        membership = self._tickets.pop(item.ticket, None)
        if isinstance(membership, _Membership):
            yield from self._trigger_room(membership, Trigger.HISTORY_READ, item.history, now)

    @_on_input(Failed)
    def _on_failed(self, item: Failed, now: float) -> Iterator[Effect]:
        yield from self._ticket_failed(item.ticket, Error.SERVER_ERROR, now)

    @_on_input(Published)
    def _on_published(self, item: Published, now: float) -> Iterable[Effect]:
        update = item.update
        room = self._rooms.get(update.project_id)
        if room is None:
            return ()
        if room.keeping or room.filtered:
            return self._publish(room, update, now)
        # No generator here: this path is taken more often than all others together.
        return (Broadcast(room.name, update),) if room.live and self._advance(room, update.event_id) else ()

    def _publish(self, room: _ProjectRoom, update: Update, now: float) -> Iterator[Effect]:
        """The same where updates are kept for a session, or not every member receives all of them."""
        is_new = self._advance(room, update.event_id)
        for membership in list(room.keeping.values()):
            if membership.state is not RoomState.HELD:
                self._keep(membership, update)
            elif is_new:
                yield from self._hold_back(membership, update, now)
        if is_new:
            if room.live:
                yield Broadcast(room.name, update)
            status = _status_of(update) if room.filtered else None
            for statuses in room.filtered:
                if _is_chosen(status, statuses):
                    yield Broadcast(_filtered_name(room, statuses), update)
        yield from self._admit_waiting(room, now)

    @_on_input(PositionAdvanced)
    def _on_position_advanced(self, item: PositionAdvanced, now: float) -> Iterator[Effect]:
        room = self._rooms.get(item.project_id)
        if room is not None and room.followed:
            self._advance(room, item.event_id)
            yield from self._admit_waiting(room, now)

    @_on_input(HistoryLost)
    def _on_history_lost(self, item: HistoryLost, now: float) -> Iterator[Effect]:
        """Drop every session that saw the updates: it comes back, says where it stopped, and hears what is missing."""
        room = self._rooms.get(item.project_id)
        for membership in list(room.memberships.values()) if room else ():
            if membership.state in _SEES_UPDATES:
                yield from self._trigger_session(membership.session, Trigger.HISTORY_LOST, None, now)

    @_on_input(LoggedOut)
    def _on_logged_out(self, item: LoggedOut, now: float) -> Iterator[Effect]:
        for session in self._sessions.values():
            if session.state is LoginState.IDENTIFYING:
                session.logged_out |= {item.user_id}
        user = self._users.get(item.user_id)
        for session in user.sessions if user else ():
            yield from self._trigger_session(session, Trigger.EXPELLED, Error.AUTHENTICATION_REQUIRED, now)

    @_on_input(Tick)
    def _on_tick(self, item: Tick, now: float) -> Iterable[Effect]:
        return ()

    # Limits

    def _admit(self, address: str, now: float) -> bool:
        """Count a connection attempt; False where the address has used up this minute's."""
        attempts = self._attempts.get(address)
        if attempts is None:
            attempts = self._attempts[address] = []
            self._at(now + WINDOW, Hub._forget_address, address)
        return _count(attempts, self.limits.max_connections_per_minute, now)

    def _forget_address(self, address: str, when: float, now: float) -> Iterator[Effect]:
        """Drop the record of an address without an attempt in the last minute, else look again later."""
        newest = self._attempts[address][-1] if self._attempts[address] else now - WINDOW
        if newest + WINDOW <= now:
            del self._attempts[address]
        else:
            self._at(newest + WINDOW, Hub._forget_address, address)
        yield from ()

    def _within_rate(self, session: _LiveSession, now: float) -> bool:
        if session.window is None:
            session.window = []
        if _count(session.window, self.limits.max_events_per_minute, now):
            session.refused = 0
            return True
        session.refused += 1
        return False

    # Sessions

    @_on_session(Trigger.EVENT, LoginState.IDENTIFYING)
    def _hold(self, session: _LiveSession, request: _ClientRequest, now: float) -> Iterator[Effect]:
        """Keep an event until it is known whose it is; of a flood, as many as it takes to end the session."""
        if len(session.held) <= self.limits.max_events_per_minute + self.limits.tolerated_refusals:
            session.held += (request,)
        yield from ()

    @_on_session(Trigger.IDENTIFIED, LoginState.IDENTIFYING)
    def _identified(self, session: _LiveSession, user: Identity | None, now: float) -> Iterator[Effect]:
        session.ticket = 0
        held, session.held = session.held, ()
        if user is None or user.user_id in session.logged_out:
            yield from self._expel(session, Error.AUTHENTICATION_REQUIRED, now)
        else:
            session.state = LoginState.ACTIVE
            session.user_id = user.user_id
            self._join_user(session, user, now)
            yield Emit(session.sid, "connected", {"message": "Connected to AutoModerate"})
        for request in held:
            yield from self._trigger_session(session, Trigger.EVENT, request, now)

    @_on_session(Trigger.FAILED, LoginState.IDENTIFYING)
    def _identify_failed(self, session: _LiveSession, error: Error, now: float) -> Iterator[Effect]:
        """The client is not at fault: its transport is dropped, so that it tries again by itself."""
        session.ticket = 0
        session.ending = Ending.COME_BACK
        held, session.held = session.held, ()
        yield from self._expel(session, error, now)
        for request in held:
            yield from self._repeat_verdict(session, request, now)

    @_on_session(Trigger.EVENT, LoginState.ACTIVE)
    def _serve(self, session: _LiveSession, request: _ClientRequest, now: float) -> Iterator[Effect]:
        if not self._within_rate(session, now):
            yield from _refuse(session.sid, Error.RATE_LIMITED, request)
            if session.refused > self.limits.tolerated_refusals:
                yield from self._end(session, now)
        elif request.event not in _REQUESTS:
            return
        elif request.error is not None:
            yield from _refuse(session.sid, request.error, request)
        else:
            yield from self._trigger_room(self._membership(session, request), _REQUESTS[request.event], request, now)

    @_on_session(Trigger.EVENT, LoginState.ENDING)
    def _repeat_verdict(self, session: _LiveSession, request: _ClientRequest, now: float) -> Iterator[Effect]:
        # Only within the rate, so that a flood during the grace is not answered event by event.
        if self._within_rate(session, now):
            yield from _refuse(session.sid, session.verdict, request)

    @_on_session(Trigger.EXPELLED, LoginState.ACTIVE)
    def _expel(self, session: _LiveSession, error: Error, now: float) -> Iterator[Effect]:
        """Say why, take the session out of every room, and end it after the grace."""
        yield Emit(session.sid, "error", error.payload)
        yield from self._start_ending(session, error, now)

    def _start_ending(self, session: _LiveSession, error: Error, now: float) -> Iterator[Effect]:
        session.state = LoginState.ENDING
        session.verdict = error
        for membership in session.rooms:
            yield from self._abandon(membership, {"error": error.payload}, now)
        self._withdraw(session)
        self._leave_user(session)
        self._at(now + self.limits.auth_grace, Hub._end_grace, session)

    def _end_grace(self, session: _LiveSession, when: float, now: float) -> Iterator[Effect]:
        if session.state is not LoginState.GONE:
            yield from self._trigger_session(session, Trigger.GRACE_OVER, None, now)

    @_on_session(Trigger.GRACE_OVER, LoginState.ENDING)
    def _grace_over(self, session: _LiveSession, detail: None, now: float) -> Iterator[Effect]:
        yield from self._end(session, now)

    def _end(self, session: _LiveSession, now: float) -> Iterator[Effect]:
        for membership in session.rooms:
            yield from self._abandon(membership, {"error": Error.RATE_LIMITED.payload}, now)
        yield from self._close(session, None, now)
        yield End(session.sid, session.ending)

    @_on_session(Trigger.HISTORY_LOST, LoginState.ACTIVE)
    def _drop(self, session: _LiveSession, detail: None, now: float) -> Iterator[Effect]:
        yield from self._close(session, None, now)
        yield End(session.sid, Ending.COME_BACK)

    @_on_session(Trigger.CLOSED, LoginState.IDENTIFYING, LoginState.ACTIVE, LoginState.ENDING)
    def _close(self, session: _LiveSession, detail: None, now: float) -> Iterator[Effect]:
        session.state = LoginState.GONE
        self._withdraw(session)
        for membership in session.rooms:
            yield from self._trigger_room(membership, Trigger.CLOSED, None, now)
        self._leave_user(session)
        del self._sessions[session.sid]

    # Rooms: joining and leaving

    def _membership(self, session: _LiveSession, request: _ClientRequest) -> _Membership:
        """The session's relation to the project that the request names.

        Where it has none: a new one, which ``_join`` stores.
        """
        project_id = request.project_id
        assert project_id is not None, "a request without an error names a project"
        membership = next((each for each in session.rooms if each.room.project_id == project_id), None)
        if membership is None:
            room = self._rooms.get(project_id) or _ProjectRoom(project_id, room_name(project_id))
            membership = _Membership(session, room)
        return membership

    @_on_room(Trigger.JOIN, RoomState.ABSENT)
    def _join(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        session, room = membership.session, membership.room
        if len(session.rooms) >= self.limits.max_rooms:
            yield from _refuse(session.sid, Error.ROOM_LIMIT, request)
            return
        self._rooms[room.project_id] = room
        room.memberships[session.sid] = membership
        session.rooms += (membership,)
        membership.requests += (request,)
        membership.state = RoomState.CHECKING
        yield self._check(membership, now)

    @_on_room(Trigger.JOIN, RoomState.JOINED)
    def _join_again(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        membership.requests += (request,)
        membership.state = RoomState.REJOINING
        yield self._check(membership, now)

    @_on_room(Trigger.JOIN, RoomState.CHECKING, RoomState.REJOINING, RoomState.HELD)
    def _join_too(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        """A join that comes while another is under way shares its answer."""
        membership.requests += (request,)
        yield from ()

    @_on_room(Trigger.JOIN, RoomState.CATCHING_UP, RoomState.WAITING, RoomState.RECALLING)
    def _join_late(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        """The same when the history is being read already, which is read again where this one wants more of it."""
        membership.requests += (request,)
        wants_more = request.recent > membership.recent
        if membership.state is RoomState.RECALLING and self._keep_others(membership):
            wants_more = True  # what was published since it is being read was not kept
        if membership.after is None and wants_more:
            membership.recent = max(request.recent, membership.recent)
            if membership.state is RoomState.WAITING:
                membership.state = RoomState.CATCHING_UP
                membership.history = None
            yield self._read_history(membership, now)

    def _check(self, membership: _Membership, now: float) -> CheckAccess:
        user_id = membership.session.user_id
        assert user_id is not None, "only an identified session joins"
        return CheckAccess(self._issue(membership, now), user_id, membership.room.project_id)

    @_on_room(Trigger.ACCESS_CHANGED, RoomState.CHECKING, RoomState.CATCHING_UP, RoomState.WAITING)
    def _check_again(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        membership.state = RoomState.CHECKING
        yield from self._part(membership, now)
        yield self._check(membership, now)

    @_on_room(Trigger.GRANTED, RoomState.CHECKING)
    def _granted(self, membership: _Membership, access: Access, now: float) -> Iterator[Effect]:
        room, requests = membership.room, membership.requests
        membership.granted = membership.ticket
        membership.after = next((request.after for request in requests if request.after is not None), None)
        membership.recent = 0 if membership.after is not None else max(request.recent for request in requests)
        membership.state = RoomState.CATCHING_UP
        if not room.followed:
            yield Follow(room.project_id)
        room.keeping[membership.session.sid] = membership
        yield self._read_history(membership, now)

    def _read_history(self, membership: _Membership, now: float) -> ReadHistory:
        ticket = self._issue(membership, now)
        return ReadHistory(ticket, membership.room.project_id, membership.after, membership.recent)

    @_on_room(Trigger.GRANTED, RoomState.REJOINING)
    def _granted_again(self, membership: _Membership, access: Access, now: float) -> Iterator[Effect]:
        membership.granted = membership.ticket
        membership.ticket = 0
        yield from self._rejoin(membership, now)

    def _rejoin(self, membership: _Membership, now: float) -> Iterator[Effect]:
        """Answer the joins of a member, for which the recent updates may have to be read first."""
        membership.after = None
        membership.recent = max(request.recent for request in membership.requests)
        if membership.recent:
            membership.state = RoomState.RECALLING
            self._keep_others(membership)
            yield self._read_history(membership, now)
        else:
            yield from self._rejoined(membership, self._position(membership), now)

    def _keep_others(self, membership: _Membership) -> bool:
        """Keep updates for a member that wants statuses it is not sent yet, while it waits; whether that begins."""
        kept, sid = membership.room.keeping, membership.session.sid
        if sid in kept or _includes(membership.statuses, membership.requests[-1].statuses):
            return False
        kept[sid] = membership
        return True

    @staticmethod
    def _position(membership: _Membership) -> _Place:
        position = membership.room.position
        assert position is not None, "the position of a room with members is known"
        return position

    @_on_room(Trigger.HISTORY_READ, RoomState.RECALLING)
    def _recalled(self, membership: _Membership, history: History, now: float) -> Iterator[Effect]:
        """Send a member the recent updates up to the room's position; what comes after that arrives live."""
        position, last = self._position(membership), _place(history.last_event_id)
        recent = [update for update in history.updates if _place(update.event_id) <= position]
        recent += [update for update in membership.buffer if _place(update.event_id) > last]
        recent = recent[-membership.recent :]
        begin = _place(recent[0].event_id) if recent else position
        # What is newer than the history, and of a status that it had chosen before, it has been sent.
        recent = [
            update
            for update in recent
            if _place(update.event_id) <= last or not _is_chosen(_status_of(update), membership.statuses)
        ]
        self._forget_kept(membership)
        yield from _replay(membership.session.sid, recent, membership.requests[-1].statuses)
        yield from self._rejoined(membership, begin, now)

    def _rejoined(self, membership: _Membership, begin: _Place, now: float) -> Iterator[Effect]:
        """Answer a member's joins; it has been given everything after ``begin`` that its newest one chooses."""
        membership.state = RoomState.JOINED
        membership.ticket = 0
        newest = membership.requests[-1]
        # What it has not chosen before it was not given, so that what was given before says nothing of it.
        widens = not _includes(membership.statuses, newest.statuses)
        membership.since = begin if widens else min(membership.since, begin)
        moves = newest.statuses != membership.statuses
        if moves:
            yield from self._leave_room(membership)
        yield from self._answer_joins(membership)
        if moves:
            yield self._enter_room(membership, newest.statuses)
        yield from self._ask_presence(membership, newest.presence, now)

    def _keep(self, membership: _Membership, update: Update) -> None:
        """Keep an update for a session that catches up: all since the history was asked for, or the newest only."""
        buffer = membership.buffer
        if buffer and _place(update.event_id) <= _place(buffer[-1].event_id):
            return  # the backplane repeats itself
        if membership.after is None:
            membership.keep(update)
            if len(membership.buffer) > membership.recent:
                del membership.buffer[0]
        elif len(buffer) < self.limits.max_catch_up:
            membership.keep(update)
        else:
            membership.overflowed = True

    def _advance(self, room: _ProjectRoom, event_id: str) -> bool:
        """Note that the backplane has come to this id; whether the room's position moved."""
        place = _place(event_id)
        if place > room.heard:
            room.heard = place
        if room.position is None or place <= room.position:
            return False
        room.position = place
        return True

    def _admit_waiting(self, room: _ProjectRoom, now: float) -> Iterator[Effect]:
        for membership in list(room.keeping.values()):
            history = membership.history
            if history is not None and self._connects(room, history):
                yield from self._trigger_room(membership, Trigger.POSITION_REACHED, history, now)

    @staticmethod
    def _connects(room: _ProjectRoom, history: History) -> bool:
        """Whether the room continues where the history ends.

        With several nodes a history may be ahead of what this node has heard, and another session's history further
        ahead still.
        """
        position, last = room.position or _NOWHERE, _place(history.last_event_id)
        return last <= position <= max(last, room.heard)

    @_on_room(Trigger.HISTORY_READ, RoomState.CATCHING_UP)
    def _history_read(self, membership: _Membership, history: History, now: float) -> Iterator[Effect]:
        room = membership.room
        if room.position is None:
            room.position = max(_place(history.last_event_id), room.heard)
        if self._connects(room, history):
            yield from self._catch_up(membership, history, now)
        else:
            membership.state = RoomState.WAITING
            membership.history = history
            self._issue(membership, now)  # No answer will come: the ticket is there to time out.

    @_on_room(Trigger.POSITION_REACHED, RoomState.WAITING)
    def _catch_up(self, membership: _Membership, history: History, now: float) -> Iterator[Effect]:
        """Hand over what was missed up to the room's position; what comes after that arrives live."""
        room, last = membership.room, _place(history.last_event_id)
        assert room.position is not None, "the history was read, so the room has a position"
        self._withdraw(membership)
        missed = [*history.updates, *(update for update in membership.buffer if _place(update.event_id) > last)]
        membership.since = room.position
        if membership.after is None:
            missed = missed[-membership.recent :] if membership.recent else []
            if missed:
                membership.since = _place(missed[0].event_id)
        elif history.complete and not membership.overflowed:
            membership.since = _place(membership.after)
        else:
            missed = []
        membership.state = RoomState.JOINED
        self._forget_kept(membership)
        newest = membership.requests[-1]
        yield from _replay(membership.session.sid, missed, newest.statuses)
        yield from self._answer_joins(membership)
        yield self._enter_room(membership, newest.statuses)
        yield from self._add_presence(membership, newest.presence, now)
        yield from self._ask_presence(membership, newest.presence, now)

    def _enter_room(self, membership: _Membership, statuses: frozenset[str] | None) -> Enter:
        sid, room = membership.session.sid, membership.room
        membership.statuses = statuses
        if statuses is None:
            room.live.add(sid)
            membership.entered = room.name
        else:
            room.filtered.setdefault(statuses, set()).add(sid)
            membership.entered = _filtered_name(room, statuses)
        return Enter(sid, membership.entered)

    def _leave_room(self, membership: _Membership) -> Iterator[Effect]:
        """Send the session no more of the room's updates, where it is sent them."""
        sid, room, statuses = membership.session.sid, membership.room, membership.statuses
        name, membership.entered = membership.entered, None
        if name is None:
            return
        if statuses is None:
            room.live.remove(sid)
        else:
            room.filtered[statuses].remove(sid)
            if not room.filtered[statuses]:
                del room.filtered[statuses]
        yield Leave(sid, name)

    # Rooms: held until access was looked up again

    @_on_room(Trigger.ACCESS_CHANGED, RoomState.JOINED, RoomState.REJOINING, RoomState.RECALLING, RoomState.HELD)
    def _suspend(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        """Keep the updates for a member whose access may have changed; the re-check of its user decides."""
        if membership.state is not RoomState.HELD:
            self._forget_kept(membership)
        membership.state = RoomState.HELD
        self._withdraw(membership)
        membership.room.keeping[membership.session.sid] = membership
        yield from self._leave_room(membership)
        yield from self._leave_presence(membership)

    def _hold_back(self, membership: _Membership, update: Update, now: float) -> Iterator[Effect]:
        """Keep an update for a member that is held; where they become too many its session is dropped."""
        if len(membership.buffer) < self.limits.max_catch_up:
            membership.keep(update)
        else:
            yield from self._trigger_session(membership.session, Trigger.HISTORY_LOST, None, now)

    @_on_room(Trigger.CONFIRMED, RoomState.HELD)
    def _resume(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        """Hand over what was kept; the member is where it was before its access changed."""
        kept = membership.buffer
        self._forget_kept(membership)
        yield from _replay(membership.session.sid, kept, membership.statuses)
        yield self._enter_room(membership, membership.statuses)
        has_asked_again = bool(membership.requests)
        membership.state = RoomState.JOINED
        if has_asked_again:
            yield from self._rejoin(membership, now)
        if membership.requests or not has_asked_again:  # its joins, if any, will be answered later, or refused
            yield from self._ask_presence(membership, membership.asks_presence, now)

    # Rooms: answers, and the ways out

    def _answer_joins(self, membership: _Membership) -> Iterator[Effect]:
        room, position = membership.room, self._position(membership)
        requests, membership.requests = membership.requests, ()
        for request in requests:
            answer: dict[str, Any] = {"project_id": room.project_id, "room": room.name}
            answer["last_event_id"] = event_id_text(position)
            if request.after is not None:
                after = parse_event_id(request.after)
                answer["recovered"] = after is not None and membership.since <= after <= position
            yield from _answer(membership.session.sid, "joined_project", answer, request.ack, request.at)

    @_on_room(Trigger.LEAVE, *RoomState)
    def _leave(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        """Leave, also before a join under way is answered: its acknowledgement then says that the session has left."""
        answer = {"project_id": membership.room.project_id}
        yield from self._abandon(membership, answer, now)
        yield from _answer(membership.session.sid, "left_project", answer, request.ack)

    @_on_room(Trigger.REFUSED, RoomState.CHECKING, RoomState.REJOINING)
    def _refused(self, membership: _Membership, access: Access, now: float) -> Iterator[Effect]:
        session, requests = membership.session, membership.requests
        error = _REFUSALS[access]
        membership.requests = ()
        for request in requests:
            yield from _refuse(session.sid, error, request)
        yield from self._forget(membership, now)
        if access is Access.NO_USER:
            yield from self._start_ending(session, error, now)

    @_on_room(Trigger.FAILED, RoomState.CHECKING, RoomState.CATCHING_UP, RoomState.WAITING)
    def _check_failed(self, membership: _Membership, error: Error, now: float) -> Iterator[Effect]:
        yield from self._fail_joins(membership, error)
        yield from self._forget(membership, now)

    @_on_room(Trigger.FAILED, RoomState.REJOINING, RoomState.RECALLING)
    def _recheck_failed(self, membership: _Membership, error: Error, now: float) -> Iterator[Effect]:
        """Answer a member's second join that could not be checked, or answered; it stays a member."""
        membership.state = RoomState.JOINED
        membership.ticket = 0
        self._forget_kept(membership)
        yield from self._fail_joins(membership, error)

    def _fail_joins(self, membership: _Membership, error: Error) -> Iterator[Effect]:
        requests, membership.requests = membership.requests, ()
        for request in requests:
            yield from _refuse(membership.session.sid, error, request)

    @_on_room(Trigger.REVOKED, *_SEES_UPDATES)
    def _revoked(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        session, project_id = membership.session, membership.room.project_id
        yield from self._abandon(membership, {"error": Error.ACCESS_DENIED.payload}, now)
        yield Emit(session.sid, "error", {**Error.ACCESS_DENIED.payload, "project_id": project_id})

    @_on_room(Trigger.CLOSED, RoomState.CHECKING, *_SEES_UPDATES)
    def _room_closed(self, membership: _Membership, detail: None, now: float) -> Iterator[Effect]:
        yield from self._forget(membership, now)

    def _abandon(self, membership: _Membership, answer: Mapping[str, Any], now: float) -> Iterator[Effect]:
        """Forget the membership; joins that wait for an acknowledgement get ``answer``."""
        requests, membership.requests = membership.requests, ()
        yield from self._forget(membership, now)
        for request in requests:
            if request.ack is not None:
                yield Acknowledge(membership.session.sid, request.ack, answer)

    def _forget(self, membership: _Membership, now: float) -> Iterator[Effect]:
        session, room = membership.session, membership.room
        self._withdraw(membership)
        membership.state = RoomState.ABSENT
        session.rooms = tuple(each for each in session.rooms if each is not membership)
        room.memberships.pop(session.sid, None)
        yield from self._part(membership, now)
        if not room.memberships:
            self._rooms.pop(room.project_id, None)

    def _part(self, membership: _Membership, now: float) -> Iterator[Effect]:
        """Neither send the session updates nor keep them for it; the last one's room is followed no more."""
        room = membership.room
        was_followed = room.followed
        self._forget_kept(membership)
        yield from self._leave_room(membership)
        if membership.inside:
            yield from self._drop_presence(membership, now)
        if was_followed and not room.followed:
            room.position, room.heard = None, _NOWHERE
            yield Unfollow(room.project_id)

    @staticmethod
    def _forget_kept(membership: _Membership) -> None:
        membership.room.keeping.pop(membership.session.sid, None)
        membership.history = None
        membership.buffer = _NO_UPDATES
        membership.overflowed = False

    # Presence: who is in a room

    def _add_presence(self, membership: _Membership, asks: bool, now: float) -> Iterator[Effect]:
        """A session has entered the room: its user is there, if they were not before."""
        room, presence, user_id = membership.room, membership.room.presence, str(membership.session.user_id)
        membership.inside = True
        room.inside += 1
        if presence is not None:
            if user_id not in presence.here:
                self._add_user(presence, presence.here, self._present_user(room, user_id))
                presence.unreported.add(user_id)
                if not asks:  # else it is told who is there together with those that are told of it
                    yield from self._notify(room, presence, now)
        elif self.other_nodes and room.inside == 1 and not asks:
            # Other nodes may want to know, and this one is told of that only while it has members.
            yield SharePresence(
                PresenceReport(room.project_id, 0, None, (self._present_user(room, user_id),), asks=True)
            )

    def _drop_presence(self, membership: _Membership, now: float) -> Iterator[Effect]:
        """A session has left the room: its user with it, unless another session of theirs is there."""
        room, presence, user_id = membership.room, membership.room.presence, str(membership.session.user_id)
        membership.inside = False
        room.inside -= 1
        if presence is None:
            return
        yield from self._leave_presence(membership)
        if not self._inside(room, user_id):
            self._drop_user(room, presence, presence.here, user_id, now)
            presence.unreported.add(user_id)
        elif membership.looking_at is not None:
            self._at(now + PRESENCE_GRACE, Hub._end_presence_grace, (room, presence, user_id))
        yield from self._notify(room, presence, now)

    def _ask_presence(self, membership: _Membership, asks: bool, now: float) -> Iterator[Effect]:
        """A member asks who is in the room, or wants to know no longer; one that asks again is told again."""
        room, presence = membership.room, membership.room.presence
        asked, membership.asks_presence = membership.asks_presence, asks
        yield from self._leave_presence(membership)
        if asks:
            presence = presence or self._start_presence(room, now)
            is_first = not presence.askers and not presence.arrivals
            presence.arrivals[membership.session.sid] = membership
            if is_first and self.other_nodes:
                presence.asks = presence.report_all = True
                yield from self._notify_nodes(room, presence)
                presence.clients_next = max(presence.clients_next, now + PRESENCE_GATHER)
            yield from self._notify(room, presence, now)
        elif asked and presence is not None:
            self._set_looking(membership, presence, None)
            yield from self._notify(room, presence, now)

    def _leave_presence(self, membership: _Membership) -> Iterator[Effect]:
        """Tell the session no more of who is in the room."""
        sid, presence = membership.session.sid, membership.room.presence
        if presence is not None:
            presence.arrivals.pop(sid, None)
            if presence.askers.pop(sid, None) is not None:
                yield Leave(sid, _presence_name(membership.room))

    @_on_room(Trigger.LOOK, *_INSIDE)
    def _look(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        room, session, presence = membership.room, membership.session, membership.room.presence
        if not membership.asks_presence:
            yield from _refuse(session.sid, Error.PRESENCE_REQUIRED, request)
            return
        assert presence is not None, "presence is kept while somebody who asked is a member"
        self._set_looking(membership, presence, request.content_id)
        if request.ack is not None:
            answer = {"project_id": room.project_id, "content_id": request.content_id}
            yield Acknowledge(session.sid, request.ack, answer)
        yield from self._notify(room, presence, now)

    @_on_room(Trigger.LOOK, RoomState.ABSENT, RoomState.CHECKING, RoomState.CATCHING_UP, RoomState.WAITING)
    def _look_from_outside(self, membership: _Membership, request: _ClientRequest, now: float) -> Iterator[Effect]:
        yield from _refuse(membership.session.sid, Error.PRESENCE_REQUIRED, request)

    def _set_looking(self, membership: _Membership, presence: _Presence, content_id: str | None) -> None:
        """A client says what its user is looking at; null: not at what it said before, though another may."""
        user_id = str(membership.session.user_id)
        membership.looking_at = content_id
        if content_id is None:
            content_id = self._looking_at(membership.room, user_id)
        self._update_looking(presence, user_id, content_id)

    def _update_looking(self, presence: _Presence, user_id: str, content_id: str | None) -> None:
        found = presence.here[user_id]
        if found.looking_at != content_id:
            presence.here[user_id] = PresentUser(user_id, found.username, content_id)
            presence.unreported.add(user_id)
            presence.look(user_id, content_id)

    def _looking_at(self, room: _ProjectRoom, user_id: str) -> str | None:
        """What the sessions of a user here say that they are looking at, if anything."""
        found = [membership.looking_at for membership in self._inside(room, user_id)]
        return next((content_id for content_id in reversed(found) if content_id is not None), None)

    def _inside(self, room: _ProjectRoom, user_id: str) -> list[_Membership]:
        """The memberships by which a user is in the room."""
        user = self._users.get(user_id)
        sessions = user.sessions if user is not None else ()
        found = [membership for session in sessions for membership in session.rooms if membership.room is room]
        return [membership for membership in found if membership.state in _INSIDE]

    def _present_user(self, room: _ProjectRoom, user_id: str) -> PresentUser:
        return PresentUser(user_id, self._users[user_id].username, self._looking_at(room, user_id))

    @staticmethod
    def _add_user(presence: _Presence, users: dict[str, PresentUser], found: PresentUser) -> None:
        """A user is in the room, as one node says, or looks at something else."""
        before = users.get(found.user_id)
        users[found.user_id] = found
        presence.leaving.pop(found.user_id, None)
        presence.changed.add(found.user_id)
        if found.looking_at is not None or (before is not None and before.looking_at is not None):
            presence.look(found.user_id, found.looking_at)

    def _drop_user(
        self, room: _ProjectRoom, presence: _Presence, users: dict[str, PresentUser], user_id: str, now: float
    ) -> None:
        """A user is no longer in the room, as one node says. They may come back in time, here or there."""
        due = now + PRESENCE_GRACE
        del users[user_id]
        if presence.find(user_id) is None:
            presence.leaving[user_id] = due
        elif user_id not in presence.looking:
            return
        self._at(due, Hub._end_presence_grace, (room, presence, user_id))

    def _end_presence_grace(
        self, about: tuple[_ProjectRoom, _Presence, str], when: float, now: float
    ) -> Iterator[Effect]:
        """A user, or a session of theirs, left a while ago: what has not come back is gone."""
        room, presence, user_id = about
        if room.presence is not presence:
            return
        if presence.leaving.get(user_id) == when:
            del presence.leaving[user_id]
            presence.looking.pop(user_id, None)
            presence.changed.add(user_id)
        elif user_id in presence.leaving:
            return
        elif user_id in presence.here:
            self._update_looking(presence, user_id, self._looking_at(room, user_id))
        presence.settle(user_id)
        yield from self._notify(room, presence, now)

    def _start_presence(self, room: _ProjectRoom, now: float) -> _Presence:
        """Begin to keep who is in the room, with those who are."""
        presence = room.presence = _Presence()
        for membership in room.memberships.values():
            user_id = str(membership.session.user_id)
            if membership.state in _INSIDE and user_id not in presence.here:
                self._add_user(presence, presence.here, self._present_user(room, user_id))
        if self.other_nodes:
            self._at(now + PRESENCE_HEARTBEAT, Hub._presence_heartbeat, (room, presence))
        return presence

    def _notify(self, room: _ProjectRoom, presence: _Presence, now: float) -> Iterator[Effect]:
        """Tell clients and nodes what there is to tell, now or as soon as they may be told."""
        if not presence.here:
            room.presence = None
            if presence.wanted_by:
                yield SharePresence(PresenceReport(room.project_id, presence.number + 1, None))
        elif not (presence.askers or presence.arrivals or presence.wanted_by or self._waits_for_presence(room)):
            room.presence = None
        else:
            yield from self._notify_in_time(room, presence, now)

    @staticmethod
    def _waits_for_presence(room: _ProjectRoom) -> bool:
        """Whether somebody who asked is held, and will be told again who is there."""
        return any(membership.asks_presence for membership in room.keeping.values())

    def _notify_in_time(self, room: _ProjectRoom, presence: _Presence, now: float) -> Iterator[Effect]:
        later = math.inf
        if presence.changed or presence.arrivals:
            if now < presence.clients_next:
                later = presence.clients_next
            elif (yield from self._notify_clients(room, presence)):
                presence.clients_next = now + PRESENCE_PACE
        if presence.unreported or presence.report_all or presence.asks or presence.answers:
            if now < presence.nodes_next:
                later = min(later, presence.nodes_next)
            elif (yield from self._notify_nodes(room, presence)):
                presence.nodes_next = now + PRESENCE_PACE
        if later < presence.scheduled:
            presence.scheduled = later
            self._at(later, Hub._notify_later, (room, presence))

    def _notify_later(self, about: tuple[_ProjectRoom, _Presence], when: float, now: float) -> Iterator[Effect]:
        room, presence = about
        if room.presence is presence and when == presence.scheduled:
            presence.scheduled = math.inf
            yield from self._notify(room, presence, now)

    def _notify_clients(self, room: _ProjectRoom, presence: _Presence) -> Generator[Effect, None, bool]:
        """Tell the askers what changed, and the arrivals everything; whether an asker was told."""
        name = _presence_name(room)
        joined, left, looks = presence.take_changes()
        has_told = False
        if presence.askers and (joined or left):
            has_told = True
            gone = [{"user_id": user_id} for user_id in left]
            yield Broadcast(name, _notice(room, "presence_change", joined=_people(joined), left=gone))
        for user_id, content_id in looks.items():
            mine = [membership.session.sid for membership in self._inside(room, user_id)]
            own = tuple(sid for sid in mine if sid in presence.askers)
            if len(own) < len(presence.askers):
                has_told = True
                yield BroadcastExcept(name, _look_notice(room, user_id, content_id), own)
        state = _notice(room, "presence_state", users=_people(presence.told)) if presence.arrivals else None
        for sid, membership in presence.arrivals.items():
            assert state is not None
            yield Replay(sid, state)
            for user_id, seen in presence.told_looking.items():
                if user_id != membership.session.user_id:
                    yield Replay(sid, _look_notice(room, user_id, seen))
            yield Enter(sid, name)
        presence.askers.update(presence.arrivals)
        presence.arrivals.clear()
        return has_told

    def _notify_nodes(self, room: _ProjectRoom, presence: _Presence) -> Generator[Effect, None, bool]:
        """Tell other nodes what changed here, everything, or only that this node is there; whether they were told."""
        base: int | None = presence.number
        changed = sorted(presence.unreported)
        present = [presence.here[user_id] for user_id in changed if user_id in presence.here]
        gone = [user_id for user_id in changed if user_id not in presence.here]
        if changed:
            presence.number += 1
            presence.unreported.clear()
        if presence.report_all:
            base, present, gone = None, list(presence.here.values()), []
        tells = presence.asks or presence.answers or bool(presence.wanted_by and (changed or presence.report_all))
        if tells:
            wanted = bool(presence.askers or presence.arrivals)
            yield SharePresence(
                PresenceReport(
                    room.project_id, presence.number, base, tuple(present), tuple(gone), wanted, presence.asks
                )
            )
        presence.report_all = presence.asks = presence.answers = False
        return tells

    def _presence_heartbeat(self, about: tuple[_ProjectRoom, _Presence], when: float, now: float) -> Iterator[Effect]:
        """Say that this node is still there, and let go of those that have not said so for too long."""
        room, presence = about
        if room.presence is not presence:
            return
        presence.wanted_by = {node: until for node, until in presence.wanted_by.items() if until > now}
        for node in [node for node, said in presence.nodes.items() if said.expires <= now]:
            self._forget_node(room, presence, node, now)
        yield from self._notify(room, presence, now)
        if room.presence is presence:
            presence.answers = True
            yield from self._notify_nodes(room, presence)
            self._at(now + PRESENCE_HEARTBEAT, Hub._presence_heartbeat, about)

    @_on_input(PresenceShared)
    def _on_presence_shared(self, item: PresenceShared, now: float) -> Iterator[Effect]:
        report = item.report
        room = self._rooms.get(report.project_id)
        if room is None or not room.inside:
            return
        presence = room.presence
        if presence is None:
            if not report.wanted:
                return
            presence = self._start_presence(room, now)
        if report.wanted:
            presence.report_all |= report.asks or item.node not in presence.wanted_by
            presence.wanted_by[item.node] = now + PRESENCE_EXPIRY
        else:
            presence.wanted_by.pop(item.node, None)
            presence.answers |= report.asks and bool(presence.askers or presence.arrivals)
        self._apply_report(room, presence, item.node, report, now)
        if report.asks:
            yield from self._notify_nodes(room, presence)  # At once: a client may be waiting for it.
        yield from self._notify(room, presence, now)

    def _apply_report(
        self, room: _ProjectRoom, presence: _Presence, node: str, report: PresenceReport, now: float
    ) -> None:
        """Note what another node says of its members."""
        said = presence.nodes.get(node)
        if report.base is None:
            if said is None:
                said = presence.nodes[node] = _NodePresence(report.number, {}, now)
            gone = set(said.users).difference(found.user_id for found in report.present)
        elif said is None or said.number != report.base:
            self._forget_node(room, presence, node, now)
            presence.asks |= bool(presence.askers or presence.arrivals)
            return
        else:
            gone = said.users.keys() & set(report.gone)
        said.number, said.expires = report.number, now + PRESENCE_EXPIRY
        for found in report.present:
            if said.users.get(found.user_id) != found:
                self._add_user(presence, said.users, found)
        for user_id in sorted(gone):
            self._drop_user(room, presence, said.users, user_id, now)

    def _forget_node(self, room: _ProjectRoom, presence: _Presence, node: str, now: float) -> None:
        said = presence.nodes.get(node)
        if said is not None:
            for user_id in list(said.users):
                self._drop_user(room, presence, said.users, user_id, now)
            del presence.nodes[node]

    # Users: access looked up again

    def _join_user(self, session: _LiveSession, identity: Identity, now: float) -> None:
        user = self._users.get(identity.user_id)
        if user is None:
            user = self._users[identity.user_id] = _LiveUser(identity.user_id, identity.username)
            self._schedule_next_recheck(user, now)
        user.username = identity.username
        user.sessions += (session,)

    def _leave_user(self, session: _LiveSession) -> None:
        user = self._users.get(session.user_id) if session.user_id is not None else None
        if user is not None:
            user.sessions = tuple(each for each in user.sessions if each is not session)
            if not user.sessions:
                self._withdraw(user)
                del self._users[user.user_id]

    def _schedule_next_recheck(self, user: _LiveUser, now: float) -> None:
        """In the interval's last quarter, at one of sixteen times drawn by chance.

        Users who came together are asked about apart, and those of one time share a timer.
        """
        step = self.limits.recheck_interval / 64
        wanted = now + self.limits.recheck_interval * (0.75 + 0.25 * self._random())
        when = max(now, wanted // step * step)
        user.due, crowd = self._rechecks.setdefault(when, (when, []))
        if not crowd:
            self._at(when, Hub._begin_rechecks, None)
        crowd.append(user)

    def _begin_rechecks(self, about: None, when: float, now: float) -> Iterator[Effect]:
        _, crowd = self._rechecks.pop(when)
        for user in crowd:
            yield from self._begin_recheck(user, when, now)

    def _schedule_recheck(self, user: _LiveUser, when: float) -> None:
        user.due = when
        self._at(when, Hub._begin_recheck, user)

    def _begin_recheck(self, user: _LiveUser, when: float, now: float) -> Iterator[Effect]:
        if self._users.get(user.user_id) is user and user.due == when:
            yield self._recheck(user, now)

    def _recheck(self, user: _LiveUser, now: float) -> Recheck:
        user.again = False
        user.due = 0.0
        user.asked = frozenset(each.room.project_id for session in user.sessions for each in session.rooms)
        return Recheck(self._issue(user, now), user.user_id, tuple(sorted(user.asked)))

    @_on_input(Rechecked)
    def _on_rechecked(self, item: Rechecked, now: float) -> Iterator[Effect]:
        user = self._tickets.pop(item.ticket, None)
        if not isinstance(user, _LiveUser):
            return
        user.ticket = 0
        for session in user.sessions:
            if item.allowed is None:
                yield from self._trigger_session(session, Trigger.EXPELLED, Error.AUTHENTICATION_REQUIRED, now)
                continue
            for membership in session.rooms:
                if membership.room.project_id not in user.asked or membership.state not in _SEES_UPDATES:
                    continue
                if membership.room.project_id not in item.allowed:
                    if membership.granted < item.ticket:  # A grant that was asked for after this re-check is newer.
                        yield from self._trigger_room(membership, Trigger.REVOKED, None, now)
                elif membership.state is RoomState.HELD and not user.again:
                    yield from self._trigger_room(membership, Trigger.CONFIRMED, None, now)
        if self._users.get(user.user_id) is user:
            if user.again:
                yield self._recheck(user, now)
            else:
                self._schedule_next_recheck(user, now)

    @_on_input(AccessChanged)
    def _on_access_changed(self, item: AccessChanged, now: float) -> Iterator[Effect]:
        for membership in list(self._affected(item)):
            yield from self._trigger_room(membership, Trigger.ACCESS_CHANGED, None, now)
        for user in self._affected_users(item):
            if user.ticket:
                user.again = True
            else:
                yield self._recheck(user, now)

    def _affected(self, item: AccessChanged) -> Iterator[_Membership]:
        if item.project_id is None:
            for user in self._affected_users(item):
                for session in user.sessions:
                    yield from session.rooms
        elif item.project_id in self._rooms:
            for membership in self._rooms[item.project_id].memberships.values():
                if item.user_id is None or membership.session.user_id == item.user_id:
                    yield membership

    def _affected_users(self, item: AccessChanged) -> list[_LiveUser]:
        if item.user_id is not None:
            user = self._users.get(item.user_id)
            return [user] if user else []
        if item.project_id is None:
            return list(self._users.values())
        # Sorted, so that the same inputs have the same effects in every run, whatever order hashing gives.
        return [self._users[user_id] for user_id in sorted({str(m.session.user_id) for m in self._affected(item)})]


# What a client's words mean -----------------------------------------------------------------------------------


def _parse(item: Received, now: float) -> _ClientRequest:
    """Check an event's payload and format, and keep what matters here; unknown keys are ignored."""
    event = item.event if item.event in _REQUESTS else ""  # a name of any length, which might be held for a while
    payload = item.args[0] if item.args else None
    if not isinstance(payload, dict):
        return _ClientRequest(event, None, Error.PROJECT_ID_REQUIRED, item.ack)
    project_id = payload.get("project_id")
    named = project_id if isinstance(project_id, str) and len(project_id) <= MAX_ECHO_LENGTH else None
    error = None
    if project_id is None or project_id == "":
        error = Error.PROJECT_ID_REQUIRED
    elif not isinstance(project_id, str) or len(project_id) > MAX_ID_LENGTH:
        error = Error.INVALID_PROJECT_ID
    elif event == "join_project":
        return _parse_join(project_id, payload, item.ack, now)
    elif event == "looking_at":
        return _parse_look(project_id, payload, item.ack)
    return _ClientRequest(event, named, error, item.ack)


def _parse_join(project_id: str, payload: Mapping[str, Any], ack: int | None, now: float) -> _ClientRequest:
    after, recent, statuses = payload.get("last_event_id"), payload.get("recent"), payload.get("statuses")
    if after is not None and parse_event_id(after) is None:
        after = ""
    newest = _parse_recent(recent) if after is None else 0
    asks_presence = payload.get("presence") is True
    if "statuses" not in payload:
        return _ClientRequest("join_project", project_id, None, ack, after, newest, None, asks_presence, at=now)
    if not isinstance(statuses, list) or not statuses or not all(_is_status(status) for status in statuses):
        return _ClientRequest("join_project", project_id, Error.INVALID_STATUSES, ack)
    chosen = frozenset(statuses)
    return _ClientRequest("join_project", project_id, None, ack, after, newest, chosen, asks_presence, at=now)


def _parse_look(project_id: str, payload: Mapping[str, Any], ack: int | None) -> _ClientRequest:
    content_id = payload.get("content_id")
    if content_id is not None and (not isinstance(content_id, str) or not 0 < len(content_id) <= MAX_ID_LENGTH):
        return _ClientRequest("looking_at", project_id, Error.INVALID_CONTENT_ID, ack)
    return _ClientRequest("looking_at", project_id, None, ack, content_id=content_id)


def _parse_recent(value: object) -> int:
    """How many updates ``recent`` asks for: 0 where it is no whole number from 1 to ``MAX_RECENT``."""
    if type(value) is int or (type(value) is float and value.is_integer()):  # JSON may have it as 5.0
        return int(value) if 1 <= value <= MAX_RECENT else 0
    return 0


def _is_status(value: object) -> bool:
    return isinstance(value, str) and value in STATUSES


def _status_of(update: Update) -> str | None:
    """The status by which members may have chosen the update; None: it is for every member."""
    if update.event not in EVENTS_WITH_STATUS:
        return None
    status = update.data.get("status")
    return status if isinstance(status, str) else ""


def _is_chosen(status: str | None, statuses: frozenset[str] | None) -> bool:
    """Whether a member that asked for these statuses is to be sent an update of this one."""
    return statuses is None or status is None or status in statuses


def _includes(statuses: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    """Whether a member that asks for these statuses is sent all that one is who asks for the others."""
    return statuses is None or (others is not None and others <= statuses)


def _filtered_name(room: _ProjectRoom, statuses: frozenset[str]) -> str:
    """The room of the members that asked for these statuses. No project's room has such a name."""
    return f"{'+'.join(status for status in STATUSES if status in statuses)}:{room.name}"


def _presence_name(room: _ProjectRoom) -> str:
    """The room of the members that are told who is in the project's room. No project's room has such a name."""
    return f"presence:{room.name}"


def _notice(room: _ProjectRoom, event: str, **data: Any) -> Update:
    """An event on a room's presence, in the form of an update, so that it is encoded once; it has no id."""
    text = json.dumps({"project_id": room.project_id, **data}, separators=(",", ":"))
    return Update(room.project_id, event, text, "")


def _look_notice(room: _ProjectRoom, user_id: str, content_id: str | None) -> Update:
    return _notice(room, "presence_looking", user_id=user_id, content_id=content_id)


def _people(names: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"user_id": user_id, "username": username} for user_id, username in names.items()]


def _replay(sid: str, updates: Iterable[Update], statuses: frozenset[str] | None) -> Iterator[Effect]:
    """Send a session those of the updates that have the statuses it asked for."""
    for update in updates:
        if statuses is None or _is_chosen(_status_of(update), statuses):
            yield Replay(sid, update)


def _refuse(sid: str, error: Error, request: _ClientRequest) -> Iterator[Effect]:
    """The ``error`` event, and the acknowledgement where one was asked for."""
    named = {} if request.project_id is None else {"project_id": request.project_id}
    yield Emit(sid, "error", {**error.payload, **named})
    if request.ack is not None:
        yield Acknowledge(sid, request.ack, {"error": error.payload})


def _answer(
    sid: str, event: str, data: Mapping[str, Any], ack: int | None, asked_at: float | None = None
) -> Iterator[Effect]:
    yield Emit(sid, event, data, asked_at)
    if ack is not None:
        yield Acknowledge(sid, ack, data)


def _count(times: list[float], limit: int, now: float) -> bool:
    """Count one more within the window; False, and not counted, where the limit is reached.

    The times are a list because each session has one, and an empty deque takes ten times the memory.
    """
    expired = 0
    while expired < len(times) and times[expired] <= now - WINDOW:
        expired += 1
    del times[:expired]
    if len(times) >= limit:
        return False
    times.append(now)
    return True


@lru_cache(maxsize=1024)  # most updates published within one millisecond, to however many projects, have the same id
def _place(event_id: str) -> _Place:
    """An event id's place; what is no event id comes before every event id."""
    return parse_event_id(event_id) or _NOWHERE


_REQUESTS: Mapping[str, Trigger] = {
    "join_project": Trigger.JOIN,
    "leave_project": Trigger.LEAVE,
    "looking_at": Trigger.LOOK,
}
HANDLED_EVENTS = frozenset(_REQUESTS)
"""The names of the clients' events that are handled here."""
_REFUSALS: Mapping[Access, Error] = {
    Access.NOT_FOUND: Error.PROJECT_NOT_FOUND,
    Access.DENIED: Error.ACCESS_DENIED,
    Access.NO_USER: Error.AUTHENTICATION_REQUIRED,
}

_check_bound(SESSION_TRANSITIONS, _SESSION_HANDLERS)
_check_bound(ROOM_TRANSITIONS, _ROOM_HANDLERS)
_check_bound(get_args(Input), _INPUT_HANDLERS)
