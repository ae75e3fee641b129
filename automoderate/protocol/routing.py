"""Which of several nodes a session belongs to: the front of every session id names it.

Behind one address a proxy has to send everything of a session to the node that holds it. With the node's name in front
of the id (``a.J8s…``) a proxy can tell, and so can a node that gets what is another's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

NODE_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""What a node may be called; the session id goes into URLs and a proxy's patterns as it is."""

COMPLAINT_INTERVAL = 60.0
"""Seconds between two complaints in the log about requests that went to the wrong node."""

_LOGGER = logging.getLogger("automoderate.protocol.routing")


class Routing:
    """One node's view. Without a name, ids carry none and nobody can tell."""

    def __init__(self, node: str | None) -> None:
        self.node = node
        self.misrouted = 0
        """Requests so far for sessions of other nodes."""
        self._silent_until = float("-inf")

    def name(self, new_id: Callable[[], str]) -> str:
        """A new session id."""
        return f"{self.node}.{new_id()}" if self.node else new_id()

    def stray(self, sid: str, now: float) -> str | None:
        """What is wrong with a request for a session that is not here, where it is another node's; counts it."""
        other, dot, _ = sid.partition(".")
        if not self.node or not dot or other == self.node or not NODE_NAME.fullmatch(other):
            return None
        self.misrouted += 1
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_INTERVAL
            _LOGGER.warning(
                "A request for a session of node %s came to node %s: %s is down, or the proxy does not route by "
                "session id (%d such requests so far)", other, self.node, other, self.misrouted,
            )  # fmt: skip
        return f"this is a session of node {other}, and this is node {self.node}"
