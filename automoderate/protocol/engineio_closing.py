"""The ends of an Engine.IO session: what its client sees of each, and whether it comes back by itself.

``end``
    The server ends the session. A client that polls gets what is queued and then its ``Farewell``, with the poll that
    waits or the next one; on a WebSocket everything is written already.
``terminate``
    The session is over at once, because its client broke the protocol, gave no sign of life or is gone. What is queued
    is lost. A poll that waits is answered with the ``Farewell``, any later request with "Session ID unknown".
``client_left``
    The client has ended the session with a CLOSE packet. A poll of its own that is still on its way is answered with
    nothing to do. The client stays away until its user connects again.
``drain``
    ``end`` for every session, so that its client comes back, with less patience.

What each ``Farewell`` is on the wire, and who comes back after it, stands at the enumeration.

Beside these ``Sessions.forget`` takes away the sid and tells the client nothing, and ``Upgrades.cancel`` ends a probe
while the session goes on.
"""

from __future__ import annotations

from collections import deque

from automoderate.protocol.engineio_polling import Polling
from automoderate.protocol.engineio_sessions import Sessions
from automoderate.protocol.engineio_upgrade import Upgrades
from automoderate.protocol.events import EngineIOEvent, SessionClosed
from automoderate.protocol.http import LINGER
from automoderate.protocol.model import CloseReason, EngineIOSessionState, Farewell, Session

__all__ = ["DRAIN_PATIENCE", "FAREWELL_TIMEOUT", "Closing"]

FAREWELL_TIMEOUT = 30.0
"""Seconds that a dropped session waits for the poll by which its client is told."""

DRAIN_PATIENCE = 5.0
"""Seconds of ``FAREWELL_TIMEOUT`` while draining: a client between two polls asks again long before that."""


class Closing:
    """Ends sessions; the module's description says how each method differs. All are idempotent."""

    def __init__(self, sessions: Sessions, polling: Polling, upgrades: Upgrades, events: deque[EngineIOEvent]) -> None:
        self._sessions = sessions
        self._polling = polling
        self._upgrades = upgrades
        self._events = events

    def end(self, session: Session, reason: CloseReason, farewell: Farewell, now: float) -> None:
        """End a session after its client has got what is queued."""
        if session.state is not EngineIOSessionState.OPEN:
            return
        if session.connection is not None:
            self.terminate(session, reason, farewell, now)
            return
        session.farewell = farewell
        self._events.append(SessionClosed(session, reason))
        session.state = EngineIOSessionState.CLOSING
        self._sessions.timers.set(session, now + FAREWELL_TIMEOUT)
        self._upgrades.cancel(session, now)
        self._polling.due[session] = None

    def terminate(self, session: Session, reason: CloseReason, farewell: Farewell, now: float) -> None:
        """End a session at once."""
        if session.state is EngineIOSessionState.OPEN:
            self._events.append(SessionClosed(session, reason))
        self._sessions.forget(session)
        self._polling.release(session, farewell.payload, now)
        self._upgrades.cancel(session, now)
        if session.connection is not None:
            self._upgrades.close_websocket(session.connection, farewell, now)

    def client_left(self, session: Session, now: float) -> None:
        """End a session as its client has asked for."""
        self.end(session, CloseReason.TRANSPORT_CLOSE, Farewell.AGREED, now)
        self._polling.take_queue(session)
        if session.state is EngineIOSessionState.CLOSING:
            self._sessions.timers.set(session, now + LINGER)

    def drain(self, now: float) -> None:
        """End all sessions."""
        for session in self._sessions:
            self.end(session, CloseReason.SERVER_CLOSE, Farewell.COME_BACK, now)
            if session.farewell is Farewell.AGREED:
                self.terminate(session, CloseReason.TRANSPORT_CLOSE, Farewell.AGREED, now)
            elif session.state is EngineIOSessionState.CLOSING:
                ended = self._sessions.timers.deadline(session) - FAREWELL_TIMEOUT
                self._sessions.timers.set(session, ended + DRAIN_PATIENCE)
