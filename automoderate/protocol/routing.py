"""Which of several nodes a session belongs to: the front of every session id names the node.

A proxy in front of several nodes has to send all requests of a session to the node that holds it. The node's name in
front of the id (``a.J8s…``) tells the proxy which one that is, and a node that gets a request for another's session.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from automoderate.protocol.complaints import Complaints

NODE_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""What a node may be called: session ids stand in URLs and in a proxy's patterns without escapes."""

_LOGGER = logging.getLogger("automoderate.protocol.routing")


class Routing:
    """Names the sessions of a node, and counts requests for other nodes' sessions. Does neither for a nameless node."""

    def __init__(self, node: str | None) -> None:
        self.node = node
        self.misrouted = 0
        """Requests so far for sessions of other nodes."""
        self._complaints = Complaints()

    def name(self, new_id: Callable[[], str]) -> str:
        """A new session id."""
        return f"{self.node}.{new_id()}" if self.node else new_id()

    def stray(self, sid: str, now: float) -> str | None:
        """Why a sid is unknown here, where it is one of another node's; the request is counted."""
        other, dot, _ = sid.partition(".")
        if not self.node or not dot or other == self.node or not NODE_NAME.fullmatch(other):
            return None
        self.misrouted += 1
        if self._complaints.due("", "misrouted", now):
            _LOGGER.warning(
                "A request for a session of node %s came to node %s: %s is down, or the proxy does not route by "
                "session id (%d such requests so far)", other, self.node, other, self.misrouted,
                extra={"event": "misrouted"},
            )  # fmt: skip
        return f"this is a session of node {other}, and this is node {self.node}"
