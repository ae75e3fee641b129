"""The messages of python-socketio's RedisManager: which of them are updates of projects, and what is wrong with some.

They are JSON, and were pickles before python-socketio 5.14. Those are never opened: one can run anything.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from automoderate.backplane.redis.entries import BadEntry, checked
from automoderate.core.hub import projects_in
from automoderate.protocol.broadcast import object_text

NAMESPACE = "/"


class NotJSON(BadEntry):
    """A message of another format."""


@frozen
class Emitted:
    """What somebody emitted to rooms of projects; ``text`` is the JSON of the data."""

    projects: tuple[str, ...]
    event: str
    text: str


def emitted(message: bytes) -> Emitted | None:
    """The update that a message is; None for what has nothing to do with projects. Raises BadEntry."""
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        raise NotJSON("it is not JSON") from None
    if not isinstance(said, dict) or said.get("method") != "emit" or (said.get("namespace") or NAMESPACE) != NAMESPACE:
        return None
    projects = projects_in(said.get("room"))
    if not projects:
        return None
    event = said.get("event")
    if not isinstance(event, str):
        raise BadEntry("its event has no name")
    try:
        text = _text(said)
    except (TypeError, ValueError) as error:
        raise BadEntry(f"the data of {event[:40]!r} {error}") from None
    return Emitted(tuple(projects), event, checked(event, text.encode()))


def _text(said: dict[str, Any]) -> str:
    """The JSON of the one object that was emitted, which comes in a list. Raises TypeError or ValueError."""
    if said.get("binary"):
        raise ValueError("is binary")
    data = said.get("data")
    if isinstance(data, list) and len(data) == 1:
        (data,) = data
    if not isinstance(data, dict):
        raise TypeError("is not one object")
    try:
        return object_text(data)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be sent: {error}") from None
