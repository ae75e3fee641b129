"""What administrators may ask and do over HTTP, for the document of the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from contract_schemas import TEXT, TEXT_OR_NULL, Schema, array, described, open_record, record, ref

from automoderate.server.admin import MAX_PAGE, MAX_UPDATES, PAGE, UPDATES
from automoderate.server.inspection import MAX_ROWS

Codes: TypeAlias = Mapping[int, tuple[str, ...]]

NO_CODES: Codes = {}
COUNT: Schema = {"type": "integer", "minimum": 0}
RATE: Schema = {"type": ["number", "null"]}

ASKING: Codes = {400: ("invalid_request",), 401: ("authentication_required",), 403: ("admin_required",)}
"""What may come of a question."""
DOING: Codes = {
    400: ("invalid_json", "invalid_request"),
    401: ("authentication_required",),
    403: ("admin_required", "other_origin", "invalid_csrf_token"),
    504: ("timeout",),
}
"""What may come of a change."""


def schemas() -> dict[str, Schema]:
    """The schemas of it, by their names."""
    missing = {
        "silent": array(
            record(
                "A node that has not answered.",
                {"node": TEXT, "seconds": described(RATE, "For how long it has said nothing; null: not known.")},
            )
        ),
        "problem": described(TEXT_OR_NULL, "Why the other nodes could not be asked at all."),
    }
    return {
        **_nodes(missing),
        "AdminRoom": record("A room.", {"project_id": TEXT, "members": COUNT, "deliveries_per_second": RATE}),
        "AdminRooms": record(
            "A page of the rooms of all nodes.", {"total": COUNT, "rooms": array(ref("AdminRoom")), **missing}
        ),
        "AdminSession": record(
            "A session, as its node sees it.",
            {
                **dict.fromkeys(("sid", "node", "address", "transport", "client", "state"), TEXT),
                "user_agent": TEXT_OR_NULL,
                "user_id": TEXT_OR_NULL,
                "username": TEXT_OR_NULL,
                "rooms": array(record("", {"project_id": TEXT, "state": TEXT})),
                "rooms_total": COUNT,
                "waiting_bytes": described(COUNT, "What waits to be written to it."),
            },
        ),
        "AdminSessions": record(
            "A page of the sessions of all nodes, those first for which most waits.",
            {"total": COUNT, "sessions": array(ref("AdminSession")), **missing},
        ),
        "AdminRoomDetails": record(
            "One room.",
            {
                "project_id": TEXT,
                "nodes": array(record("", {"node": TEXT, "sessions": COUNT})),
                "last_event_id": ref("EventId"),
                "updates": array(ref("KeptEvent")),
                **missing,
            },
        ),
        "TestUpdate": record("What the test update says.", {}, {"status": ref("Status")}),
        "SessionEnded": record(
            "Whose session it was.",
            {"status": {"type": "string", "const": "accepted"}, "user_id": TEXT_OR_NULL, "username": TEXT_OR_NULL},
        ),
        "UserEnded": record(
            "All nodes were told.",
            {"status": {"type": "string", "const": "accepted"}, "sessions": described(COUNT, "How many there were.")},
        ),
    }


def _nodes(missing: Mapping[str, Schema]) -> dict[str, Schema]:
    refusal = record(
        "One error that a client was sent.",
        {
            "code": ref("ErrorCode"), "seconds_ago": {"type": "number"}, "user_id": TEXT_OR_NULL, "address": TEXT,
            "project_id": TEXT_OR_NULL,
        },
    )  # fmt: skip
    counts: Schema = {"type": "object", "additionalProperties": COUNT}
    return {
        "NodeStatus": open_record(
            "One node. It may be of another version, and say more.",
            {
                "node": TEXT,
                **dict.fromkeys(("sessions", "users", "rooms", "memberships", "other_clients"), COUNT),
                "transports": described(counts, "Sessions by transport."),
                "clients": described(
                    array(record("", {"client": TEXT, "sessions": COUNT})), "Sessions by client, the most first."
                ),
                "waiting_bytes": described(COUNT, "What waits to be written to all sessions."),
                "deliveries_per_second": RATE,
                "backplane": open_record("What it shares with other nodes.", {}),
                "refusals": record(
                    "What clients were refused lately.",
                    {"minutes": COUNT, "codes": counts, "newest": array(refusal)},
                ),
            },
            {"version": TEXT, "runtime": TEXT, "updates_total": COUNT, "deliveries_total": COUNT},
        ),
        "AdminStatus": record("Every node.", {"nodes": array(ref("NodeStatus")), **missing}),
    }


def paths(
    answer: Callable[[str, Schema], dict[str, Any]],
    query: Callable[[str, str, Schema], dict[str, Any]],
    problems: Callable[[Codes], dict[str, Any]],
    busy: Codes,
) -> dict[str, Any]:
    """The paths of it; the arguments say an answer, a parameter and what may be refused as for the other paths."""

    def asking(name: str, summary: str, said: str, more: Codes = NO_CODES, parameters: list[Any] | None = None) -> Any:
        return {
            "operationId": name,
            "summary": summary,
            "security": [{"session": []}, *([{"controlToken": []}] if name == "adminStatus" else [])],
            **({"parameters": parameters} if parameters else {}),
            "responses": {
                "200": answer("Of all nodes that have answered.", ref(said)),
                **problems({**busy, **ASKING, **more}),
            },
        }

    def doing(name: str, summary: str, said: str, missing: tuple[str, ...], body: Any = None) -> Any:
        token = {"name": "X-CSRFToken", "in": "header", "required": True, "schema": TEXT}
        return {
            "operationId": name,
            "summary": summary,
            "security": [{"session": []}],
            "parameters": [{**token, "description": "The token that the forms of the session's pages have."}],
            **({"requestBody": {"content": {"application/json": {"schema": body}}}} if body else {}),
            "responses": {"202": answer("Done.", ref(said)), **problems({**busy, **DOING, 404: missing})},
        }

    page = [
        query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE}),
        query("offset", "After how many.", {**COUNT, "maximum": MAX_ROWS - MAX_PAGE, "default": 0}),
        query("search", "What is to be in one of its words.", {"type": "string", "maxLength": 200}),
    ]
    some_id: Schema = {"type": "string", "maxLength": 200}
    sort = query("sort", "The largest first, or the busiest.", {"type": "string", "enum": ["members", "deliveries"]})
    updates = query("updates", "How many of its newest.", {**COUNT, "maximum": MAX_UPDATES, "default": UPDATES})
    tokens: Codes = {401: ("authentication_required", "invalid_token", "wrong_time")}
    unknown: Codes = {404: ("project_not_found",)}

    def named(name: str) -> dict[str, Any]:
        return {"parameters": [{"name": name, "in": "path", "required": True, "schema": TEXT}]}

    sessions = [*page, query("user_id", "Of this user.", some_id), query("project_id", "In this room.", some_id)]
    return {
        "/api/admin/status": {"get": asking("adminStatus", "How every node is.", "AdminStatus", tokens)},
        "/api/admin/rooms": {"get": asking("adminRooms", "Rooms of all nodes.", "AdminRooms", {}, [*page, sort])},
        "/api/admin/rooms/{project_id}": {
            **named("project_id"),
            "get": asking("adminRoom", "One room.", "AdminRoomDetails", unknown, [updates]),
        },
        "/api/admin/rooms/{project_id}/test-update": {
            **named("project_id"),
            "post": doing("adminTestUpdate", "Publish an update that says that it is a test.", "EventPublished",
                          ("project_not_found",), ref("TestUpdate")),
        },
        "/api/admin/sessions": {
            "get": asking("adminSessions", "Sessions of all nodes.", "AdminSessions", {}, sessions)
        },
        "/api/admin/sessions/{sid}/end": {
            **named("sid"),
            "post": doing("adminEndSession", "End a session on purpose.", "SessionEnded", ("session_not_found",)),
        },
        "/api/admin/users/{user_id}/end": {
            **named("user_id"),
            "post": doing("adminEndUser", "End all sessions of a user.", "UserEnded", ("user_not_found",)),
        },
    }  # fmt: skip
