"""The Engine.IO sessions of a server, and when each of them has to be looked at."""

from __future__ import annotations

from collections.abc import Iterator

from automoderate.protocol.model import EngineIOSessionState, Session
from automoderate.protocol.timers import Timers

__all__ = ["Sessions"]


class Sessions:
    """All sessions that a request may name, by sid."""

    def __init__(self) -> None:
        self._by_sid: dict[str, Session] = {}
        self.timers: Timers[Session] = Timers()
        """The one deadline a session has: its heartbeat's or, once it is closing, the end of the wait for its poll."""
        self.noops: Timers[Session] = Timers()
        """When a poll that waits while its session upgrades may be answered with nothing."""

    def __len__(self) -> int:
        return len(self._by_sid)

    def __iter__(self) -> Iterator[Session]:
        """A copy: sessions may be forgotten on the way."""
        return iter(list(self._by_sid.values()))

    def get(self, sid: str) -> Session | None:
        """The session of that sid, open or closing."""
        return self._by_sid.get(sid)

    def add(self, session: Session) -> None:
        """Make a session known by its sid."""
        self._by_sid[session.sid] = session

    def forget(self, session: Session) -> None:
        """Let the session be over: requests that name its sid are answered "Session ID unknown". Idempotent."""
        session.state = EngineIOSessionState.CLOSED
        self._by_sid.pop(session.sid, None)
        self.timers.cancel(session)
        self.noops.cancel(session)
