"""The contract for machines: what clients and programs may rely on, as documents that their tools read.

They are files of this package: ``openapi.json`` (the HTTP API, OpenAPI 3.1), ``asyncapi.json`` (the Socket.IO events,
AsyncAPI 3.0) and ``events.d.ts`` (the events for TypeScript). A running server serves them below ``/api/``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["asyncapi", "documents", "openapi", "typescript"]

_FOLDER = Path(__file__).parent
_OWN = "/"
"""The server in the OpenAPI document that has nothing mounted."""


def openapi(prefix: str = "", cookie: str = "session") -> dict[str, Any]:
    """The OpenAPI document of the HTTP API where that is below ``prefix``, and the session cookie has this name."""
    document = _read("openapi.json")
    document["servers"] = [server for server in document["servers"] if server["url"] == (prefix or _OWN)]
    document["components"]["securitySchemes"]["session"]["name"] = cookie
    return document


def asyncapi(cookie: str = "session") -> dict[str, Any]:
    """The AsyncAPI document of the Socket.IO events where the session cookie has this name."""
    document = _read("asyncapi.json")
    document["servers"]["automoderate"]["security"][0]["name"] = cookie
    return document


def typescript() -> str:
    """The declarations of the Socket.IO events for TypeScript."""
    return (_FOLDER / "events.d.ts").read_text("utf-8")


def documents(prefix: str = "", cookie: str = "session") -> Mapping[str, tuple[bytes, str]]:
    """Body and content type of each document, by the path at which a server has it, without the prefix."""
    return {
        "/api/openapi.json": (json.dumps(openapi(prefix, cookie)).encode(), "application/json"),
        "/api/asyncapi.json": (json.dumps(asyncapi(cookie)).encode(), "application/json"),
        "/api/events.d.ts": (typescript().encode(), "application/typescript; charset=utf-8"),
    }


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_FOLDER / name).read_text("utf-8"))
    return document
