"""What nodes tell one another of who is in a room: messages on the channel of the project's stream.

Every node that has members in the room is subscribed there already, and no other node is. Nothing is stored: a message
that is lost is missed in the next, and a node that falls silent counts as gone after some seconds
(:mod:`automoderate.core.hub`).
"""

from __future__ import annotations

import json

from automoderate.backplane.redis.connection import Command
from automoderate.backplane.redis.entries import BadEntry, stream
from automoderate.core.hub import PresenceReport, PresenceShared, PresentUser


def tell(node: str, report: PresenceReport) -> Command:
    """The command that tells all nodes with members in the room."""
    said = {
        "node": node,
        "project_id": report.project_id,
        "number": report.number,
        "base": report.base,
        "present": [[user.user_id, user.username, user.looking_at] for user in report.present],
        "gone": report.gone,
        "wanted": report.wanted,
        "asks": report.asks,
    }
    return ("PUBLISH", stream(report.project_id), json.dumps(said, separators=(",", ":")))


def heard(message: bytes) -> PresenceShared:
    """What a message says. Raises BadEntry for what is no such message."""
    try:
        said = json.loads(message)
        node, project_id, number, base = (said[key] for key in ("node", "project_id", "number", "base"))
        present = tuple(PresentUser(*user) for user in said["present"])
        gone, wanted, asks = tuple(said["gone"]), said["wanted"], said["asks"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise BadEntry("it says nothing of who is there") from None
    texts = [node, project_id, *gone, *(text for user in present for text in (user.user_id, user.username))]
    looks = [user.looking_at for user in present]
    right = all(isinstance(text, str) for text in texts) and all(isinstance(text, str | None) for text in looks)
    if not right or type(number) is not int or type(base) not in (int, type(None)):
        raise BadEntry("it says nothing of who is there")
    return PresenceShared(node, PresenceReport(project_id, number, base, present, gone, wanted is True, asks is True))
