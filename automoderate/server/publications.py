"""What a program sends to be published over HTTP: one event, or many of which all are taken or none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson
from attrs import frozen

from automoderate.core.hub import Update
from automoderate.core.updates import checked
from automoderate.protocol.broadcast import dump_json, object_text
from automoderate.server.requests import HttpError
from automoderate.server.tracing import is_traceparent

__all__ = ["MAX_BODY", "MAX_DATA", "MAX_EVENTS", "EventBatch", "encoded", "event_batch", "events_text", "json_object"]

MAX_BODY = 1024 * 1024
"""Bytes of a request."""

MAX_DATA = 256 * 1024
"""Bytes of one event's data as JSON."""

MAX_EVENTS = 1000
"""Events in one request."""

MAX_LINES = 10 * MAX_EVENTS
"""Lines that they may stand on, as some may be blank."""

NDJSON = "application/x-ndjson"

_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LARGE_NUMBER = b"0" * 19
"""Then there may be an integer of more than 64 bits, which orjson would round. With ``re`` it would take ten times as
long to look for one."""
_MAX_BYTES = 4
"""Of a character in UTF-8."""


@frozen
class EventBatch:
    """What is to be published, in order: events with their data, which is encoded."""

    events: list[tuple[str, str]]
    traces: list[str | None]
    """The traceparent of each."""
    many: bool
    """Whether the answer names several ids: also where the list that was sent has one event."""


def encoded(data: Mapping[str, Any]) -> str:
    """An event's data as the JSON to publish, without an ``event_id`` of its own.

    Raises ValueError or TypeError for what JSON cannot say.
    """
    if "event_id" in data:
        data = {key: value for key, value in data.items() if key != "event_id"}
    return object_text(data)


def events_text(updates: Iterable[Update]) -> str:
    """Updates as JSON: a list of events with their data, which is not parsed for that.

    An event that came through Redis may have any name.
    """
    return "[" + ",".join(f'{{"event":{dump_json(update.event)},"data":{update.text}}}' for update in updates) + "]"


def event_batch(project_id: str, content_type: str | None, body: bytes, trace: str | None = None) -> EventBatch:
    """What a request is to publish. Raises HttpError, and publishes nothing, where any of it may not be.

    ``trace`` is the traceparent of events that have none of their own.
    """
    if content_type is not None and content_type.partition(";")[0].strip().lower() == NDJSON:
        # Of a megabyte of lines no more are read than it takes to see that they are too many: it holds up others.
        said = list(islice(_lines(body), MAX_EVENTS + 1)) if body.count(b"\n") < MAX_LINES else []
        many = True
    else:
        found = json_object(body)
        many = "events" in found
        said = found["events"] if many else [found]
        if not isinstance(said, list):
            raise HttpError(400, "invalid_request", "events must be a list")
    if not 1 <= len(said) <= MAX_EVENTS:
        raise HttpError(400, "invalid_request", f"There may be 1 to {MAX_EVENTS} events")
    # Half a surrogate pair can only have been sent as an escape: in UTF-8, or in UTF-16 or 32, which has zeros.
    halves = b"\\ud" in body or b"\\uD" in body or b"\0" in body
    events = []
    for number, item in enumerate(said, 1):
        try:
            events.append(_event(project_id, item, halves=halves))
        except HttpError as error:
            if not many:
                raise
            message = f"event {number}: {error.message}"
            raise HttpError(error.status, error.code, message, event=number) from None
    return EventBatch(events, [_trace(item) or trace for item in said], many)


def json_object(body: bytes) -> dict[str, Any]:
    """The object that a body is. Raises HttpError."""
    try:
        found = _parsed(body)
    except ValueError:
        raise HttpError(400, "invalid_json", "The body must be JSON") from None
    if not isinstance(found, dict):
        raise HttpError(400, "invalid_json", "The body must be a JSON object")
    return found


def _lines(body: bytes) -> Iterator[Any]:
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            try:
                yield _parsed(line)
            except ValueError:
                raise HttpError(400, "invalid_json", f"Line {number} is not JSON") from None


def _trace(item: Mapping[str, Any]) -> str | None:
    trace = item.get("traceparent")
    return trace if isinstance(trace, str) and is_traceparent(trace) else None


def _event(project_id: str, item: Any, *, halves: bool) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise HttpError(400, "invalid_event", "it must be a JSON object")
    try:
        data = checked(project_id, item.get("event"), item.get("data"))
        if halves:
            json.dumps(data, ensure_ascii=False).encode()
        text = encoded(data)
    except UnicodeEncodeError:
        raise HttpError(400, "invalid_event", "data holds a lone surrogate, which is not text") from None
    except ValueError as error:
        raise HttpError(400, "invalid_event", str(error)) from None
    if len(text) > MAX_DATA // _MAX_BYTES and len(text.encode()) > MAX_DATA:
        raise HttpError(413, "too_large", f"data may have at most {MAX_DATA} bytes")
    return item["event"], text


def _parsed(text: bytes) -> Any:
    """Raises ValueError for what is not JSON, or not UTF-8."""
    if _LARGE_NUMBER not in text.translate(_DIGITS_AS_ZEROS):
        try:
            return orjson.loads(text)
        except ValueError:
            pass  # also for what the standard library takes, such as UTF-16
    try:
        # Of bytes the standard library takes halves of surrogate pairs as well, which no encoding has.
        return json.loads(text.decode(json.detect_encoding(text)), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
