"""What travels, as JSON Schema: said once, for the events' document, the HTTP API's and the TypeScript types.

The schemas keep to what draft 7 (AsyncAPI 3.0) and draft 2020-12 (OpenAPI 3.1) mean alike: a ``$ref`` stands alone.
Names, limits, codes and messages are the code's own. When an error is told stands in ``docs/client-reference.md``, from
where it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from automoderate.core.hub import MAX_ID_LENGTH, MAX_RECENT, STATUSES, Error
from automoderate.core.updates import EVENTS
from automoderate.server.publications import MAX_EVENTS

Schema: TypeAlias = dict[str, Any]

CLIENT_REFERENCE = Path(__file__).parent.parent / "docs" / "client-reference.md"


def ref(name: str) -> Schema:
    """A schema of this page, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(schema: Schema, description: str) -> Schema:
    """A schema with a word about what it means here."""
    # Beside a reference draft 7 reads nothing else.
    return {"description": description, **({"allOf": [schema]} if "$ref" in schema else schema)}


def array(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def record(description: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}) -> Schema:
    """An object whose keys are all named here. Later versions may add some."""
    said = {"description": description} if description else {}
    needs = {"required": list(required)} if required else {}
    return {"type": "object", **said, **needs, "properties": {**required, **optional}}


def open_record(description: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}) -> Schema:
    """An object that may have any other key as well."""
    return {**record(description, required, optional), "additionalProperties": True}


def either(description: str, *choices: Schema) -> Schema:
    """One of several."""
    return {"description": description, "anyOf": list(choices)}


def with_event(description: str, data: Mapping[str, str]) -> Schema:
    """An object with the name of an event and what it says, by the name of each event's schema."""
    return either(
        description,
        *(record("", {"event": {"type": "string", "const": event}, "data": ref(name)}) for event, name in data.items()),
    )


TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
ASKED_ID: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
PROJECT = {"project_id": TEXT}

TO_PUBLISH: Mapping[str, str] = {
    "moderation_update": "ContentFields",
    "content_received": "ContentFields",
    "stats_update": "StatsFields",
    "rule_update": "RuleFields",
}
"""The data of an event as it is published, by the event's name."""

UPDATES: Mapping[str, str] = {
    "moderation_update": "ModerationUpdate",
    "content_received": "ModerationUpdate",
    "stats_update": "StatsUpdate",
    "rule_update": "RuleUpdate",
}
"""The data of an event as it is received, by the event's name."""

assert tuple(TO_PUBLISH) == tuple(UPDATES) == EVENTS


def error_rows() -> Iterator[tuple[str, str, str, str]]:
    """Code, message, when, and what becomes of the session, from the table in the client reference."""
    section = CLIENT_REFERENCE.read_text("utf-8").partition("\n## Errors\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            code, message, when, session = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            yield code.strip("`"), message.strip("`"), when, session


def _problem() -> Schema:
    rows = {(code, message): (when, session) for code, message, when, session in error_rows()}
    pairs = []
    for error in Error:
        code, message = error.value
        when, session = rows[code, message]
        said = f"{when}; the session {session}" if when else f"The session {session}"
        pairs.append({
            "description": said.replace("`", ""),
            "properties": {"code": {"const": code}, "message": {"const": message}},
        })  # fmt: skip
    schema = record(
        "Why something was refused. Existing dashboards compare the message; the code is for new ones.",
        {"message": TEXT, "code": ref("ErrorCode")},
    )
    return {**schema, "oneOf": pairs}


def _content_fields() -> Schema:
    return open_record(
        "A decision on content, or content that has just come. The server looks at project_id and status only and "
        "passes on everything; these are the fields that AutoModerate's pipelines fill in.",
        {},
        {
            "content_id": TEXT_OR_NULL,
            "project_id": described(TEXT, "The project; filled in where it is missing."),
            "status": ref("Status"),
            "content_type": described(TEXT, "Such as text or image."),
            "content_preview": described(
                TEXT, "The first 100 characters, then ... if there is more. Written by strangers."
            ),
            "meta_data": {"description": "Any JSON. Written by strangers."},
            "results_count": described({"type": "integer", "minimum": 0}, "How many moderators had a result."),
            "processing_time": described({"type": "number", "minimum": 0}, "Seconds until the decision."),
            "moderator_type": described(TEXT, "rule, ai, manual, pending, unknown, or another word."),
            "moderator_name": described(TEXT, "The same for people."),
            "rule_name": described(TEXT_OR_NULL, "The rule that decided, where one did."),
            "timestamp": described(TEXT, "When it was decided, in ISO 8601."),
        },
    )


def _stamped(description: str, fields: str, **required: Schema) -> Schema:
    """An update as it is received: with the id that the server has given it."""
    keys = {**required, "event_id": ref("EventId")}
    return {
        "description": description,
        "allOf": [ref(fields), {"type": "object", "required": list(keys), "properties": keys}],
    }


def _updates() -> dict[str, Schema]:
    return {
        "Status": {"type": "string", "enum": list(STATUSES), "description": "What became of content."},
        "EventId": {
            "type": "string",
            "pattern": "^[0-9]{1,20}-[0-9]{1,20}$",
            "description": "An update and its place in its project: milliseconds-sequence, compared as two numbers.",
        },
        "ContentFields": _content_fields(),
        "StatsFields": open_record("Any numbers of the project.", {}),
        "RuleFields": open_record(
            "A rule of the project was changed.",
            {},
            {
                "action": described(TEXT, "Such as created, updated or deleted."),
                "rule": open_record("The rule's fields.", {}),
                "timestamp": described(TEXT, "When, in ISO 8601."),
            },
        ),
        "ModerationUpdate": _stamped(
            "A decision on content (moderation_update), or content that has just come (content_received).",
            "ContentFields",
            project_id=TEXT,
        ),
        "StatsUpdate": _stamped("Numbers of the project.", "StatsFields"),
        "RuleUpdate": _stamped("A rule of the project was changed.", "RuleFields"),
    }  # fmt: skip


def _requests() -> dict[str, Schema]:
    content = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_ID_LENGTH}
    return {
        "JoinProject": record(
            "Enter a project's room.",
            {"project_id": ASKED_ID},
            {
                "last_event_id": described(TEXT_OR_NULL, "Where this client stopped: what was missed is sent first."),
                "recent": described(
                    {"type": "integer", "minimum": 1, "maximum": MAX_RECENT},
                    "How many of the newest updates are sent first; ignored beside last_event_id.",
                ),
                "statuses": described(
                    array(ref("Status"), minItems=1),
                    "Of moderation_update and content_received only those with one of these are sent.",
                ),
                "presence": described({"type": "boolean"}, "Whether to be told who is in the room."),
            },
        ),
        "LeaveProject": record("Leave a project's room.", {"project_id": ASKED_ID}),
        "LookingAt": record(
            "Tell the others in the room what this user has open.",
            {"project_id": ASKED_ID, "content_id": described(content, "null: nothing any more.")},
        ),
    }


def _answers() -> dict[str, Schema]:
    codes = list(dict.fromkeys(error.value[0] for error in Error))
    return {
        "Connected": record(
            "It is known who connected; sent once.",
            {"message": {"type": "string", "const": "Connected to AutoModerate"}},
        ),
        "JoinedProject": record(
            "This client is in the room, and is sent every update from here on.",
            {
                **PROJECT,
                "room": described(TEXT, "project_ and the project's id."),
                "last_event_id": described(ref("EventId"), "Where to go on after a lost connection."),
            },
            {
                "recovered": described(
                    {"type": "boolean"},
                    "There where the join said last_event_id. false: the history no longer reaches back that far, and "
                    "the client has to reload what it shows.",
                )
            },
        ),
        "LeftProject": record("This client is not in the room (any more).", PROJECT),
        "LookedAt": record("The others are told.", {**PROJECT, "content_id": TEXT_OR_NULL}),
        "ErrorCode": {"type": "string", "enum": codes, "description": "Why something was refused."},
        "Problem": _problem(),
        "ErrorAnswer": record("The answer to an event that was refused.", {"error": ref("Problem")}),
        "ErrorReport": {
            "description": "Something was refused, or access was taken away.",
            "allOf": [
                ref("Problem"),
                record("", {}, {"project_id": described(TEXT, "The project, where the request named one.")}),
            ],
        },
        "JoinAnswer": either(
            "What the acknowledgement of join_project says. LeftProject: a leave overtook the join.",
            ref("JoinedProject"), ref("LeftProject"), ref("ErrorAnswer"),
        ),
        "LeaveAnswer": either(
            "What the acknowledgement of leave_project says.", ref("LeftProject"), ref("ErrorAnswer")
        ),
        "LookAnswer": either("What the acknowledgement of looking_at says.", ref("LookedAt"), ref("ErrorAnswer")),
    }  # fmt: skip


def _presence() -> dict[str, Schema]:
    return {
        "PresentUser": record("Somebody who is in the room.", {"user_id": TEXT, "username": TEXT}),
        "PresenceState": record(
            "Everybody who is in the room; replaces what was known.", {**PROJECT, "users": array(ref("PresentUser"))}
        ),
        "PresenceChange": record(
            "Who came and who left, at most once a second.",
            {
                **PROJECT,
                "joined": array(ref("PresentUser")),
                "left": array(record("Somebody who left.", {"user_id": TEXT})),
            },
        ),
        "PresenceLooking": record(
            "What somebody has open; null: nothing any more.",
            {**PROJECT, "user_id": TEXT, "content_id": TEXT_OR_NULL},
        ),
    }


def _http() -> dict[str, Schema]:
    word = {"type": "string", "enum": ["ok", "unavailable"]}
    return {
        "EventToPublish": with_event("One event to publish.", TO_PUBLISH),
        "EventsToPublish": record(
            "Several events, of which all are published or none.",
            {"events": array(ref("EventToPublish"), minItems=1, maxItems=MAX_EVENTS)},
        ),
        "EventPublished": record("It was published.", {"event_id": ref("EventId")}),
        "EventsPublished": record("They were, in this order.", {"event_ids": array(ref("EventId"), minItems=1)}),
        "KeptEvent": either(
            "One event as clients were sent it; of other names where an application emits its own through Redis.",
            *with_event("", UPDATES)["anyOf"],
            record("", {"event": {"type": "string", "not": {"enum": [*UPDATES]}}, "data": record("", {})}),
        ),
        "HistoryPage": record(
            "A project's updates, oldest first.",
            {
                "events": array(ref("KeptEvent")),
                "complete": described({"type": "boolean"}, "false: the history does not reach back that far."),
                "last_event_id": described(ref("EventId"), "Where to go on."),
            },
        ),
        "AccessChange": {
            **record(
                "Whose access to what may have changed.",
                {},
                {
                    "user_id": ASKED_ID,
                    "project_id": ASKED_ID,
                    "logged_out": described({"type": "boolean"}, "The user's sessions end. Needs a control token."),
                },
            ),
            "anyOf": [{"required": ["user_id"]}, {"required": ["project_id"]}],
        },
        "Accepted": record("It takes effect now, on every node.", {"status": {"type": "string", "const": "accepted"}}),
        "Health": record(
            "The process is alive.",
            {
                "status": {"type": "string", "const": "healthy"},
                "service": {"type": "string", "const": "AutoModerate"},
            },
        ),
        "Readiness": record(
            "Whether clients should be sent here, and what is missing.",
            {
                "status": {"type": "string", "enum": ["ready", "unavailable"]},
                "checks": record(
                    "",
                    {
                        "database": word,
                        "realtime": {"type": "string", "enum": ["ok", "draining", "cut off from the other nodes"]},
                        "publishing": word,
                    },
                ),
            },
        ),
        "HttpProblem": record(
            "Why a request was refused; nothing of it was published.",
            {
                "error": record(
                    "",
                    {"message": described(TEXT, "For people."), "code": described(TEXT, "For programs.")},
                    {"event": described({"type": "integer", "minimum": 1}, "Which of several events, from 1.")},
                )
            },
        ),
    }  # fmt: skip


def schemas() -> dict[str, Schema]:
    """Every schema, by its name."""
    return {**_updates(), **_requests(), **_answers(), **_presence(), **_http()}


def needed(document: object, known: Mapping[str, Schema]) -> dict[str, Schema]:
    """The schemas that a document refers to, directly or through others."""
    found: dict[str, Schema] = {}
    todo = list(_names_in(document))
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = known[name]
            todo.extend(_names_in(known[name]))
    return {name: found[name] for name in known if name in found}


def _names_in(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
            yield reference.rpartition("/")[2]
        for item in value.values():
            yield from _names_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names_in(item)
