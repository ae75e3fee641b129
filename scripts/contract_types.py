"""The contract's schemas as TypeScript, for the type arguments of socket.io-client's ``Socket``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

HEAD = """\
// The events of AutoModerate live, for the types of socket.io-client:
//
//   const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io();
//
// Written by scripts/contract_documents.py.
"""

PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript(
    schemas: Mapping[str, Mapping[str, Any]], *, received: Mapping[str, str], sent: Mapping[str, tuple[str, str]]
) -> str:
    """The text of a declaration file: a type for each schema, and an interface for the events of each direction.

    ``received`` has the schema of what a client receives, ``sent`` those of what it sends and of what the
    acknowledgement says.
    """
    parts = [HEAD, *(_declaration(name, schema) for name, schema in schemas.items())]
    said = [f"  {event}: (data: {name}) => void;" for event, name in received.items()]
    parts.append("\n".join(["/** What the server sends. */", "export interface ServerToClientEvents {", *said, "}\n"]))
    asked = [
        f"  {event}: (request: {name}, acknowledge?: (answer: {answer}) => void) => void;"
        for event, (name, answer) in sent.items()
    ]
    parts.append("\n".join(["/** What a client sends. */", "export interface ClientToServerEvents {", *asked, "}\n"]))
    return "\n".join(parts)


def _declaration(name: str, schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        return f"{_comment(schema)}export interface {name} {_type(schema)}\n"
    return f"{_comment(schema)}export type {name} = {_type(schema)};\n"


def _type(schema: Mapping[str, Any], depth: int = 0) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return " | ".join(json.dumps(word, ensure_ascii=False) for word in schema["enum"])
    if "allOf" in schema:
        return " & ".join(_type(part, depth) for part in schema["allOf"])
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, depth)
    if "anyOf" in schema:
        return " | ".join(_type(part, depth) for part in schema["anyOf"])
    if kind == "array":
        items = _type(schema["items"], depth)
        return f"{items}[]" if items.isidentifier() else f"Array<{items}>"
    if isinstance(kind, list):
        return " | ".join(PRIMITIVES[each] for each in kind)
    return PRIMITIVES[kind] if kind is not None else "unknown"


def _object(schema: Mapping[str, Any], depth: int) -> str:
    if not schema["properties"]:
        return "Record<string, unknown>"
    margin = "  " * (depth + 1)
    required = schema.get("required", ())
    lines = []
    for name, each in schema["properties"].items():
        mark = "" if name in required else "?"
        lines += [f"{margin}{line}" for line in _comment(each).splitlines()]
        lines.append(f"{margin}{name}{mark}: {_type(each, depth + 1)};")
    return "\n".join(["{", *lines, "  " * depth + "}"])


def _comment(schema: Mapping[str, Any]) -> str:
    lines = list(_lines(schema))
    if not lines:
        return ""
    if len(lines) == 1:
        return f"/** {lines[0]} */\n"
    return "\n".join(["/**", *(f" * {line}" for line in lines), " */\n"])


def _lines(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from textwrap.wrap(schema.get("description", ""), 110)
