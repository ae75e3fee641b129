"""What travels on an Engine.IO session whichever way it is connected: packets in and out, and the heartbeat."""

from __future__ import annotations

from collections import deque

from automoderate.protocol.broadcast import object_text
from automoderate.protocol.complaints import Complaints
from automoderate.protocol.config import Config
from automoderate.protocol.engineio_closing import Closing
from automoderate.protocol.engineio_payload import Kind, decode, encode
from automoderate.protocol.engineio_polling import Polling
from automoderate.protocol.engineio_sessions import Sessions
from automoderate.protocol.engineio_upgrade import frame
from automoderate.protocol.events import EngineIOEvent, MessageReceived
from automoderate.protocol.http import HttpServer
from automoderate.protocol.model import CloseReason, Encoded, EngineIOSessionState, Farewell, Session

__all__ = ["BURST", "FRAMES_A_PACKET", "RATE", "Packets", "open_packet"]

RATE = 100.0
"""Packets a second that a session may send in the long run."""
BURST = 2000
"""Packets that a session may send at once."""
FRAMES_A_PACKET = 16
"""WebSocket frames that carry no packet of their own (pings, fragments), and count as one."""


class Packets:
    """Packets of open sessions, and the pings that show whether their clients are there."""

    def __init__(
        self,
        config: Config,
        http: HttpServer,
        sessions: Sessions,
        polling: Polling,
        closing: Closing,
        events: deque[EngineIOEvent],
        complaints: Complaints,
    ) -> None:
        self._complaints = complaints
        self._config = config
        self._http = http
        self._sessions = sessions
        self._polling = polling
        self._closing = closing
        self._events = events

    def receive(self, session: Session, raw: str | bytes, now: float) -> None:
        """Act on a packet. What only servers send is ignored, as the reference server does. Raises InvalidPacket."""
        kind, data = decode(raw)
        if kind is Kind.MESSAGE:
            self._events.append(MessageReceived(session, data))
        elif kind is Kind.PONG:
            if session.pinged:
                session.pinged = False
                self._sessions.timers.set(session, now + self._config.ping_interval)
        elif kind is Kind.CLOSE:
            self._closing.client_left(session, now)
        elif kind is Kind.PING:
            self._closing.terminate(session, CloseReason.TRANSPORT_ERROR, Farewell.BROKEN, now)

    def charge(self, session: Session, packets: float, now: float) -> None:
        """Count what a session's client has sent. One that sends too much is ended: no client comes near by itself."""
        session.paced_until = max(session.paced_until, now) + packets / RATE
        if session.paced_until > now + BURST / RATE and session.state is EngineIOSessionState.OPEN:
            self._complaints.say(session.client_address, "packets", f"more than {BURST} packets at once", now)
            self._closing.terminate(session, CloseReason.FLOOD, Farewell.BROKEN, now)

    def send(self, session: Session, packet: str | bytes, now: float) -> None:
        """Send a packet; ignored when the session is over."""
        if session.state is not EngineIOSessionState.OPEN:
            return
        if session.connection is not None:
            self._http.write(session.connection, frame(packet, session.connection))
        elif not self._polling.enqueue(session, packet, now):
            self._closing.end(session, CloseReason.OVERFLOW, Farewell.COME_BACK, now)

    def send_encoded(self, session: Session, encoded: Encoded, now: float) -> None:
        """Send a message that was encoded before; ignored when the session is over."""
        if session.state is EngineIOSessionState.OPEN and session.connection is not None:
            self._http.write(session.connection, encoded.frame)
        else:
            self.send(session, encoded.packet, now)

    def on_deadline(self, session: Session, now: float) -> None:
        """Ask an open session's client for a sign of life, give up one that gave none, and forget a closing one."""
        if session.state is EngineIOSessionState.CLOSING:
            self._sessions.forget(session)
        elif session.pinged:
            self._closing.terminate(session, CloseReason.PING_TIMEOUT, Farewell.COME_BACK, now)
        else:
            session.pinged = True
            self._sessions.timers.set(session, now + self._config.ping_timeout)
            self.send(session, encode(Kind.PING), now)


def open_packet(session: Session, config: Config) -> str:
    """The OPEN packet, which answers a handshake."""
    return encode(Kind.OPEN, object_text({
        "sid": session.sid,
        "upgrades": ["websocket"] if session.transport == "polling" else [],
        "pingInterval": round(config.ping_interval * 1000),
        "pingTimeout": round(config.ping_timeout * 1000),
        "maxPayload": config.max_payload,
    }))  # fmt: skip
