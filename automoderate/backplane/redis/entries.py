"""How things are written down in Redis: the names of keys, and what the entries of the streams say.

A project's updates are a stream of entries with two fields, ``event`` and ``data``, the JSON of an object, and perhaps
a third, ``trace``, the traceparent of its publication; the entry's id is the update's ``event_id``. Anything may have
written an entry, so that each is checked on its way in.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

import orjson
from attrs import frozen

from automoderate.core import hub
from automoderate.core.hub import Update, stamped
from automoderate.protocol.broadcast import MAX_DEPTH, is_nested_deeper, object_text
from automoderate.server.tracing import is_traceparent

MAX_UPDATE = 1024 * 1024
"""Bytes of an update's data as JSON: more is neither published nor taken from Redis."""
MAX_EVENT = 200
"""Characters of an event's name."""
READ_COUNT = 100
"""Entries of one stream read at a time. No stream is trimmed to fewer, so that a shorter answer cannot hide a gap."""
CONTROL = "automoderate:control"
"""The stream of announcements: who logged out, whose access changed."""

Entry: TypeAlias = tuple[bytes, Sequence[bytes] | None]
"""An entry of a stream as Redis sends it: its id, then names and values by turns."""


class BadEntry(ValueError):
    """An entry that none of our publishers can have written."""


def stream(project_id: str) -> str:
    """The key of a project's updates; the braces put everything of one project on one node of a cluster."""
    return f"automoderate:{{{project_id}}}:updates"


def node_stream(node: str) -> str:
    """The key by which a node hears itself."""
    return f"automoderate:node:{node}"


def answers_channel(token: str) -> str:
    """The channel on which somebody who asked waits for the answers of nodes."""
    return f"automoderate:answers:{token}"


# Entries ------------------------------------------------------------------------------------------------------

MARK: Sequence[str] = ("event", "", "data", "")
"""An entry that is no update: where a project's history begins. Its id is known, so what comes after it is, too."""


def fields(entry: Entry) -> tuple[str, dict[bytes, bytes]]:
    """An entry's id and its fields; one that was trimmed while it was read has none."""
    event_id, flat = entry
    return event_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}


def update(project_id: str, entry: Entry) -> Update | None:
    """The update that an entry of a project's stream is; None for a mark. Raises BadEntry."""
    event_id, found = fields(entry)
    trace = found.pop(b"trace", b"").decode("ascii", "replace")
    if found.keys() != {b"event", b"data"}:
        raise BadEntry(f"its fields are {', '.join(name.decode(errors='replace')[:40] for name in found)}")
    if not found[b"event"]:
        return None
    try:
        event = found[b"event"].decode()
        text = checked(event, found[b"data"])
    except UnicodeDecodeError:
        raise BadEntry("it is not UTF-8") from None
    return Update(project_id, event, stamped(text, event_id), event_id, trace if is_traceparent(trace) else None)


def check_event(event: str) -> None:
    """Raise ValueError for what cannot be the name of an event."""
    if not 0 < len(event) <= MAX_EVENT or not event.isprintable():
        raise ValueError(f"an event's name has at most {MAX_EVENT} characters, all of them printable")


def checked(event: str, raw: bytes) -> str:
    """The JSON text of an update's data, without an ``event_id``. Raises BadEntry for anything else."""
    try:
        check_event(event)
    except ValueError as error:
        raise BadEntry(str(error)) from None
    if len(raw) > MAX_UPDATE:
        raise BadEntry(f"its data has {len(raw)} bytes, more than {MAX_UPDATE}")
    raw = raw.removeprefix(codecs.BOM_UTF8)  # a reader of JSON takes it, and clients would not
    data = _parsed(raw)
    if not isinstance(data, dict):
        raise BadEntry("its data is no JSON object")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and is_nested_deeper(data, MAX_DEPTH):
        raise BadEntry("its data is nested too deeply")
    if data and "event_id" not in data:
        return raw.decode().strip()
    try:
        return object_text({name: value for name, value in data.items() if name != "event_id"})
    except (TypeError, ValueError) as error:
        raise BadEntry(f"its data cannot be sent: {error}") from None


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except ValueError:  # also half a surrogate pair, which JSON and its writers know as an escape
        pass
    try:
        return json.loads(raw.decode(), parse_constant=_no_number)  # of bytes it would take UTF-16, too
    except (ValueError, RecursionError) as error:
        raise BadEntry(f"its data is not JSON: {error}") from None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


# One by itself ------------------------------------------------------------------------------------------------

TOLD = b"+"
"""How a message begins that is an entry, so that no node has to ask for it."""
MAX_TOLD = 4096
"""Bytes of data that are told. Messages wait in Redis for a node that is slow, which it drops where they are too many;
entries do not."""

# What was the last entry before is told with it: a node that is there has missed nothing. It is stored also where its
# publisher may not tell of it.
_ADD_AND_TELL = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local trace = ARGV[5] and {'trace', ARGV[5]} or {}
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[3], 'data', ARGV[4], unpack(trace))
redis.call('EXPIRE', KEYS[1], ARGV[2])
local head = '+' .. id .. ' ' .. (last and last[1] or '0-0') .. ' ' .. ARGV[3]
if ARGV[5] then head = head .. '\\t' .. ARGV[5] end
local told = redis.pcall('PUBLISH', KEYS[1], head .. '\\n' .. ARGV[4])
return {id, type(told) == 'table' and told.err or ''}
"""


_EVAL = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n$1\r\n1\r\n" % (len(_ADD_AND_TELL), _ADD_AND_TELL.encode())


_ID = rb"([0-9]{1,20}-[0-9]{1,20})"
_TOLD = re.compile(rb"%b%b %b ([^\t\n]*)(?:\t([^\n]*))?\n(.*)" % (re.escape(TOLD), _ID, _ID), re.DOTALL)
"""The id, that of the entry before, the event, in whose name is no tabulator, the trace, and the data."""


def add(key: str, event: str, text: str, entries: int, trace: str | None) -> tuple[str | int, ...]:
    """The command that adds one update."""
    traced = () if trace is None else ("trace", trace)
    return ("XADD", key, "MAXLEN", "~", entries, "*", "event", event, "data", text, *traced)


def add_and_tell(key: str, event: str, data: bytes, entries: int, max_age: int, trace: str | None = None) -> bytes:
    """The command that adds one update and tells all of it, packed. Its answer has the id, and why it was not told."""
    words = [key.encode(), b"%d" % entries, b"%d" % max_age, event.encode(), data]
    if trace is not None:
        words.append(trace.encode())
    return b"*%d\r\n%b%b" % (3 + len(words), _EVAL, b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


def told(message: bytes) -> tuple[str, Entry]:
    """The entry that a message is, and the id of the one before it. Raises BadEntry."""
    found = _TOLD.fullmatch(message)
    if found is None:
        raise BadEntry("it tells of no entry")
    event_id, before, event, trace, data = found.groups()
    traced = () if trace is None else (b"trace", trace)
    return before.decode(), (event_id, (b"event", event, b"data", data, *traced))


# Several at once ----------------------------------------------------------------------------------------------

# Each event has a trace, perhaps an empty one.
_ADD_ALL = """
local ids = {}
for at = 3, #ARGV, 3 do
    local trace = ARGV[at + 2] ~= '' and {'trace', ARGV[at + 2]} or {}
    ids[#ids + 1] = redis.call(
        'XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[at], 'data', ARGV[at + 1], unpack(trace))
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return ids
"""


def add_all(
    project_id: str, events: Sequence[tuple[str, str]], entries: int, max_age: int, traces: Sequence[str] = ()
) -> tuple[str | int, ...]:
    """The command that adds several updates: all of them or none."""
    flat = [word for event, trace in zip_longest(events, traces, fillvalue="") for word in (*event, trace)]
    return ("EVAL", _ADD_ALL, 1, stream(project_id), entries, max_age, *flat)


# Claims -------------------------------------------------------------------------------------------------------

CLAIM_WINDOW = 120
"""Seconds after which what was heard on a channel is published no more. A claim outlasts them."""

# All times are by the clock of Redis, as a node may have been stopped for any time, and not know. The claim is written
# last, so that an update that Redis refuses is not claimed; who may not tell of it may publish for all that.
_ADD_ONCE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
if redis.call('TIME')[1] - ARGV[1] > tonumber(ARGV[2]) then return redis.error_reply('LATE it waited too long') end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'event', ARGV[5], 'data', ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('SET', KEYS[1], '', 'EX', ARGV[2] + 2)
redis.pcall('PUBLISH', KEYS[2], '')
return id
"""


def add_once(
    project_id: str, digest: str, since: str, entries: int, max_age: int, event: str, text: str
) -> tuple[str | int, ...]:
    """The command that adds an update, claims and tells of it, unless it was claimed; ``since`` it may have waited."""
    claim = f"automoderate:{{{project_id}}}:claim:{digest}"
    return ("EVAL", _ADD_ONCE, 2, claim, stream(project_id), since, CLAIM_WINDOW, entries, max_age, event, text)


# Announcements ------------------------------------------------------------------------------------------------


@frozen
class Announcement:
    """What one node tells all others; ``node`` is who said it."""

    node: str
    item: hub.AccessChanged | hub.LoggedOut

    def encode(self) -> str:
        """As it stands in the stream."""
        said: dict[str, Any] = {"node": self.node}
        if isinstance(self.item, hub.LoggedOut):
            said |= {"what": "logged_out", "user_id": self.item.user_id}
        else:
            said |= {"what": "access_changed", "user_id": self.item.user_id, "project_id": self.item.project_id}
        return json.dumps(said)

    @classmethod
    def decode(cls, entry: Entry) -> Announcement:
        """Raises BadEntry for what is none."""
        _, found = fields(entry)
        try:
            said = json.loads(found[b"said"])
            return cls(said["node"], _WHAT[said["what"]](said))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise BadEntry("it is no announcement") from None


def _logged_out(said: Mapping[str, Any]) -> hub.LoggedOut:
    if not isinstance(said["user_id"], str):
        raise TypeError
    return hub.LoggedOut(said["user_id"])


def _access_changed(said: Mapping[str, Any]) -> hub.AccessChanged:
    user_id, project_id = said["user_id"], said["project_id"]
    if not isinstance(user_id, str | None) or not isinstance(project_id, str | None):
        raise TypeError
    return hub.AccessChanged(user_id, project_id)


_WHAT: Mapping[str, Callable[[Mapping[str, Any]], hub.AccessChanged | hub.LoggedOut]] = {
    "logged_out": _logged_out,
    "access_changed": _access_changed,
}
