"""Write what machines read of the contract: automoderate/contract/openapi.json, asyncapi.json and events.d.ts.

``python scripts/contract_documents.py`` writes them, ``--check`` only says (exit status 1) if they are out of date.
The schemas that they share are in ``contract_schemas.py``; a change of the contract is seen in the files' history.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import contract_admin
from contract_schemas import UPDATES, described, either, needed, ref, schemas
from contract_types import typescript

import automoderate
from automoderate.core.hub import HANDLED_EVENTS, Limits
from automoderate.server.api import MAX_PAGE, PAGE
from automoderate.server.publications import MAX_BODY, MAX_DATA, MAX_EVENTS

FOLDER = Path(__file__).parent.parent / "automoderate" / "contract"

RECEIVED: Mapping[str, tuple[str, str]] = {
    "connected": ("Connected", "It is known who connected."),
    "error": ("ErrorReport", "Something was refused, or access was taken away."),
    "joined_project": ("JoinedProject", "Live from here on."),
    "left_project": ("LeftProject", "No longer in the room."),
    "moderation_update": ("ModerationUpdate", "A decision."),
    "content_received": ("ModerationUpdate", "Content came, and is not decided on yet."),
    "stats_update": ("StatsUpdate", "Numbers of the project."),
    "rule_update": ("RuleUpdate", "A rule was changed."),
    "presence_state": ("PresenceState", "Everybody who is in the room."),
    "presence_change": ("PresenceChange", "Who came and who left."),
    "presence_looking": ("PresenceLooking", "What somebody has open."),
}
"""What a client receives: its data and a word about it, by the event's name."""

SENT: Mapping[str, tuple[str, str, str]] = {
    "join_project": ("JoinProject", "JoinAnswer", "Enter a project's room."),
    "leave_project": ("LeaveProject", "LeaveAnswer", "Leave it."),
    "looking_at": ("LookingAt", "LookAnswer", "Say what one has open."),
}
"""What a client sends: its data, what the acknowledgement says, and a word about it, by the event's name."""

assert set(SENT) == HANDLED_EVENTS
assert RECEIVED.items() >= {event: (name, RECEIVED[event][1]) for event, name in UPDATES.items()}.items()

INFO = {"version": automoderate.__version__, "license": {"name": "MIT", "identifier": "MIT"}}

# The events ---------------------------------------------------------------------------------------------------

DEFAULTS = Limits()
CONNECTION = f"""\
Socket.IO 5 on Engine.IO 4, at the path /socket.io/ in the namespace /, by WebSocket, by HTTP long-polling and by the \
upgrade from one to the other: unmodified Socket.IO clients. Each message is an event of the name given here with one \
argument, its payload. The credential is the session cookie of the dashboard (named session unless the operator named \
it otherwise); a page of another origin needs the operator's leave. By default a session may send \
{DEFAULTS.max_events_per_minute} events a minute and be in {DEFAULTS.max_rooms} rooms, and \
{DEFAULTS.max_connections_per_minute} connections a minute may come from one address."""


def asyncapi() -> dict[str, Any]:
    """The document of the events."""
    messages: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    for event, (payload, answer, summary) in SENT.items():
        messages[event] = _message(event, payload, summary)
        acknowledgement = _message(
            f"{event} acknowledged", answer, "What the acknowledgement says, where one was asked for."
        )
        answers[f"{event}_acknowledged"] = acknowledgement
        operations[event] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/events"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/events/messages/{event}"}],
            "reply": {
                "channel": {"$ref": "#/channels/acknowledgements"},
                "messages": [{"$ref": f"#/channels/acknowledgements/messages/{event}_acknowledged"}],
            },
        }
    for event, (payload, summary) in RECEIVED.items():
        messages[event] = _message(event, payload, summary)
        operations[event] = {
            "action": "send",
            "channel": {"$ref": "#/channels/events"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/events/messages/{event}"}],
        }
    channels = {
        "events": {
            "address": "/",
            "description": "The namespace in which all events travel. What an application emits of its own into a "
            "project's room comes beside them.",
            "messages": messages,
        },
        "acknowledgements": {
            "address": None,
            "description": "The acknowledgements of Socket.IO, on the same connection.",
            "messages": answers,
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "AutoModerate live",
            "version": INFO["version"],
            "description": "Live moderation updates: what travels between the server and its Socket.IO clients.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "automoderate": {
                "host": "{host}",
                "pathname": "/socket.io/",
                "protocol": "ws",
                "description": CONNECTION,
                "variables": {"host": {"default": "127.0.0.1:6217", "description": "Host and port."}},
                "security": [{"type": "httpApiKey", "name": "session", "in": "cookie"}],
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"schemas": needed(channels, schemas())},
    }


def _message(name: str, payload: str, summary: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "payload": ref(payload)}


# The HTTP API -------------------------------------------------------------------------------------------------

KEY: dict[str, list[str]] = {"apiKey": []}
COMMAND: dict[str, list[str]] = {"controlToken": []}
SESSION: dict[str, list[str]] = {"session": []}

PROBLEMS: Mapping[int, str] = {
    400: "The body, an event or a parameter is wrong; the message says what.",
    401: "No credential, or none that is valid.",
    403: "Another project's key, or somebody who may not see the project, or not do this.",
    404: "There is no such thing.",
    413: f"More than {MAX_DATA} bytes of one event, or more than the request may have.",
    429: "The server is behind; Retry-After says after how many seconds to try again.",
    500: "The server failed.",
    503: "The database or Redis is away, or the server is leaving; Retry-After says when to try again.",
    504: "Whether it was done is unknown.",
}
RETRIED = (429, 503)
ANY_TIME: Mapping[int, tuple[str, ...]] = {413: ("too_large",), 500: ("internal_server_error",)}
"""What may come of any request, by status."""
WHERE_BUSY: Mapping[int, tuple[str, ...]] = {**ANY_TIME, 429: ("busy",), 503: ("unavailable",)}
"""What may come of a request that something is done for."""


def _problem(status: int, codes: tuple[str, ...]) -> dict[str, Any]:
    code = {"properties": {"error": {"properties": {"code": {"enum": list(codes)}}}}}
    answer = _json(PROBLEMS[status], {"allOf": [ref("HttpProblem"), code]})
    if status == 413:  # what is more than any request may have is refused before it is known what it is for
        answer["content"]["text/plain"] = {"schema": {"type": "string"}}
    if status in RETRIED:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return answer


def _problems(codes: Mapping[int, tuple[str, ...]]) -> dict[str, Any]:
    return {str(status): _problem(status, codes[status]) for status in sorted(codes)}


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text(description: str, content_type: str) -> dict[str, Any]:
    return {"description": description, "content": {content_type: {"schema": {"type": "string"}}}}


def _publish() -> dict[str, Any]:
    one_or_many = {"anyOf": [ref("EventToPublish"), ref("EventsToPublish")]}
    codes = {
        **WHERE_BUSY,
        400: ("invalid_json", "invalid_request", "invalid_event"),
        401: ("invalid_api_key",),
        403: ("access_denied",),
        504: ("timeout",),
    }
    published = either("Ids, where several were sent.", ref("EventPublished"), ref("EventsPublished"))
    return {
        "operationId": "publish",
        "summary": "Publish one event to a project's room, or several: all of them, in this order, or none.",
        "description": f"A request may have {MAX_BODY} bytes and {MAX_EVENTS} events, an event {MAX_DATA} bytes.",
        "security": [KEY],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": one_or_many},
                "application/x-ndjson": {"schema": described({"type": "string"}, "An event (EventToPublish) a line.")},
            },
        },
        "responses": {"202": _json("It is published, and delivered from here on.", published), **_problems(codes)},
    }


def _history() -> dict[str, Any]:
    codes = {
        **WHERE_BUSY,
        400: ("invalid_request",),
        401: ("invalid_api_key", "authentication_required"),
        403: ("access_denied",),
        404: ("project_not_found",),
    }
    return {
        "operationId": "history",
        "summary": "Read what was published.",
        "security": [KEY, SESSION],
        "parameters": [
            _query("after", "What came after this id, oldest first; without it the newest.", ref("EventId")),
            _query("before", "In place of after: the newest of those before this id, oldest first.", ref("EventId")),
            _query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE}),
        ],
        "responses": {"200": _json("A page.", ref("HistoryPage")), **_problems(codes)},
    }


def _query(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _announce() -> dict[str, Any]:
    codes = {
        **WHERE_BUSY,
        400: ("invalid_json", "invalid_request"),
        401: ("invalid_api_key", "invalid_token", "wrong_time"),
        403: ("access_denied",),
        504: ("timeout",),
    }
    return {
        "operationId": "announceAccessChange",
        "summary": "Say that access changed: live sessions are looked at again at once, on every node.",
        "description": "An API key speaks for its own project, and cannot say that somebody logged out.",
        "security": [KEY, COMMAND],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("AccessChange")}}},
        "responses": {"202": _json("It takes effect.", ref("Accepted")), **_problems(codes)},
    }


def _question(operation: str, summary: str, responses: Mapping[str, Any], codes: Mapping[int, tuple[str, ...]]) -> Any:
    """A GET that anybody may ask."""
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "security": [],
            "responses": {**responses, **_problems(codes)},
        }
    }


def _paths() -> dict[str, Any]:
    project = {"name": "project_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/api/projects/{project_id}/events": {"parameters": [project], "post": _publish(), "get": _history()},
        "/api/access-changes": {"post": _announce()},
        "/api/openapi.json": _question(
            "openapi", "This document.", {"200": _json("It.", {"type": "object"})}, WHERE_BUSY
        ),
        "/api/asyncapi.json": _question(
            "asyncapi", "The document of the Socket.IO events.", {"200": _json("It.", {"type": "object"})}, WHERE_BUSY
        ),
        "/api/events.d.ts": _question(
            "types", "The events' types for TypeScript.", {"200": _text("They.", "application/typescript")}, WHERE_BUSY
        ),
        "/health": _question(
            "health", "Whether the process is alive.", {"200": _json("It is.", ref("Health"))}, ANY_TIME
        ),
        "/readyz": _question(
            "ready",
            "Whether clients should be sent here.",
            {
                "200": _json("They should.", ref("Readiness")),
                "503": _json("The database or the other nodes are away, or the server is leaving.", ref("Readiness")),
            },
            ANY_TIME,
        ),
        "/metrics": _question(
            "metrics", "The server's numbers for Prometheus.", {"200": _text("They.", "text/plain")}, ANY_TIME
        ),
        **contract_admin.paths(_json, _query, _problems, WHERE_BUSY),
    }


def openapi() -> dict[str, Any]:
    """The document of the HTTP API."""
    paths = _paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AutoModerate live",
            "description": "Publishing moderation updates, reading them back, and what operators ask. Live updates "
            "come by Socket.IO, which the AsyncAPI document describes.",
            **INFO,
        },
        "servers": [
            {"url": "/", "description": "With the server's own dashboard"},
            {"url": "/realtime", "description": "Where another application is mounted"},
        ],
        "paths": paths,
        "components": {
            "schemas": needed(paths, {**schemas(), **contract_admin.schemas()}),
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The project's key."},
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "session", "description": "The dashboard's session.",
                },
                "controlToken": {
                    "type": "http", "scheme": "bearer", "description": "The command line signs it with the secret key.",
                },
            },
        },
    }  # fmt: skip


def render() -> dict[str, str]:
    """The files, by their names."""
    return {
        "openapi.json": json.dumps(openapi(), indent=2, ensure_ascii=False) + "\n",
        "asyncapi.json": json.dumps(asyncapi(), indent=2, ensure_ascii=False) + "\n",
        "events.d.ts": typescript(
            schemas(),
            received={event: payload for event, (payload, _) in RECEIVED.items()},
            sent={event: (payload, answer) for event, (payload, answer, _) in SENT.items()},
        ),
    }


def main() -> int:
    """Write the files, or check them; the exit status."""
    status = 0
    for name, text in render().items():
        target = FOLDER / name
        if "--check" not in sys.argv[1:]:
            target.write_text(text, "utf-8")
        elif not target.exists() or target.read_text("utf-8") != text:
            print(f"{target.relative_to(FOLDER.parent.parent)} is out of date: run python {Path(__file__).name}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
