"""Engine.IO 4: sessions over HTTP long-polling and WebSocket, and the move from one to the other.

``EngineServer`` is a state machine without I/O. Inputs are the driver methods (``receive_data``, ``tick``, ...);
after any of them drain ``next_event()`` until it is None, act on the events, then drain ``outputs()``. Events come
in the order in which they happened; outputs in the order in which they must be performed. Whatever a peer sends
becomes an answer on the wire and an event, never an exception.
"""

from __future__ import annotations

import enum
import json
import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from automoderate.protocol import websocket
from automoderate.protocol.broadcast import object_text
from automoderate.protocol.config import Config
from automoderate.protocol.events import (
    AppBody,
    AppRequest,
    AppRequestAborted,
    AppRequestEnd,
    CloseReason,
    CredentialChanged,
    EngineEvent,
    MessageReceived,
    Request,
    SessionClosed,
    SessionOpened,
    SessionUpgraded,
)
from automoderate.protocol.http import LINGER, Connection, Header, HttpServer, Use
from automoderate.protocol.origin import Verdict, cors_headers, judge, preflight_headers
from automoderate.protocol.outbox import Outbox
from automoderate.protocol.outputs import Output, Peer, Transport
from automoderate.protocol.payload import InvalidPacket, Kind, decode, encode, join, size_of, split
from automoderate.protocol.routing import Routing
from automoderate.protocol.session import FAREWELL, Encoded, Session, SessionState
from automoderate.protocol.timers import Timers, earliest

__all__ = ["FAREWELL_TIMEOUT", "Encoded", "EngineServer", "Session"]

FAREWELL_TIMEOUT = 30.0
"""Seconds a polling session that the server has closed waits for the poll that tells its client."""

DRAIN_PATIENCE = 5.0
"""The same while draining: a client that is between two polls is back long before that, and nobody waits longer."""

NOOP_INTERVAL = 0.1
"""Seconds between two empty answers to a client that polls on while its upgrade is pending, as the reference server."""

MAX_POLL_PACKETS = 16
"""Packets in one answer to a poll: python-engineio's clients give up a transport that brings them more at once."""

_LOGGER = logging.getLogger("automoderate.protocol.engineio")

_NOOP = b"6"
_TEXT = (("Content-Type", "text/plain; charset=UTF-8"),)


class _Failure(enum.Enum):
    """The error answers of the reference server: status, code, message."""

    UNKNOWN_TRANSPORT = (400, 0, "Transport unknown")
    UNKNOWN_SID = (400, 1, "Session ID unknown")
    BAD_HANDSHAKE_METHOD = (400, 2, "Bad handshake method")
    BAD_REQUEST = (400, 3, "Bad request")
    FORBIDDEN = (403, 4, "Forbidden")
    UNSUPPORTED_PROTOCOL_VERSION = (400, 5, "Unsupported protocol version")
    TOO_LARGE = (413, 3, "Payload too large")
    UPGRADE_REQUIRED = (426, 3, "Bad request")
    DRAINING = (503, 3, "Server is shutting down")


class EngineServer:
    """The Engine.IO server; see the module's description for the order of calls."""

    def __init__(
        self, config: Config, *, new_id: Callable[[], str], credential: Callable[[Request], Hashable] = lambda _: None
    ) -> None:
        self.config = config
        self.routing = Routing(config.node)
        self._new_id = new_id
        self._credential = credential
        self._outbox = Outbox()
        self._http = HttpServer(config, self._outbox)
        self._sessions: dict[str, Session] = {}
        self._timers: Timers[Session] = Timers()
        self._noops: Timers[Session] = Timers()
        self._events: deque[EngineEvent] = deque()
        self._dirty: dict[Session, None] = {}
        self._now = float("-inf")

    # Driver ------------------------------------------------------------------------------------------------

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        """A TCP connection was accepted."""
        self.tick(now)
        return self._http.connect(transport, peer, now)

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        """Bytes arrived."""
        self.tick(now)
        if connection.websocket is not None:
            self._on_frames(connection, connection.websocket, data, now)
        else:
            self._http.feed(connection, data, now)
            self._advance(connection, now)
        self._settle_accounts(now)

    def receive_eof(self, connection: Connection, now: float) -> None:
        """The peer will send no more. An application request that is complete is still answered."""
        self.tick(now)
        if connection.use in (Use.IDLE, Use.READING, Use.APPLICATION):
            self._http.feed(connection, b"", now)
            self._advance(connection, now)
        if connection.use not in (Use.IDLE, Use.READING, Use.APPLICATION):
            self._http.close(connection)
        self._settle_accounts(now)

    def connection_lost(self, connection: Connection, now: float) -> None:
        """The connection is gone, whoever ended it; idempotent."""
        self.tick(now)
        self._http.lost(connection)
        self._settle_accounts(now)

    def respond(self, connection: Connection, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        """Start the answer to the connection's application request; ignored when that is over."""
        self._http.start(connection, status, reason, headers, now)
        self._settle_accounts(now)

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        """A piece of the answer's body; ignored before ``respond`` and when the request is over."""
        self._http.data(connection, data)
        self._settle_accounts(now)

    def respond_end(self, connection: Connection, now: float) -> None:
        """The answer is complete."""
        self._http.end(connection, now)
        self._settle_accounts(now)

    def tick(self, now: float) -> None:
        """Act on every deadline that has passed; harmless at any other time."""
        self._now = max(self._now, now)
        while (connection := self._http.timers.pop_due(now)) is not None:
            self._on_connection_deadline(connection, now)
        while (session := self._timers.pop_due(now)) is not None:
            self._on_session_deadline(session, now)
        while (session := self._noops.pop_due(now)) is not None:
            self._dirty[session] = None
        self._settle_accounts(now)

    def next_deadline(self) -> float | None:
        """When to call ``tick`` at the latest."""
        if self._http.finished:
            return self._now
        return earliest(self._http.timers.next(), self._timers.next(), self._noops.next())

    def has_outputs(self) -> bool:
        """Whether ``outputs`` may have something."""
        return bool(self._dirty or self._outbox.items)

    def outputs(self) -> list[Output]:
        """What is to be done, in order. Packets for polling clients are bundled here, into one answer each."""
        dirty, self._dirty = self._dirty, {}
        for session in dirty:
            self._answer_poll(session, self._now)
        return self._outbox.drain()

    def drain(self, now: float) -> None:
        """Close every session so that its client comes back by itself, and refuse new ones with 503.

        Connections are still taken: a client between two polls asks once more, and is told then.
        """
        self.tick(now)
        self._http.closing = True
        for session in list(self._sessions.values()):
            self.close(session, CloseReason.SERVER_CLOSE, now)
            if session.farewell is _NOOP:
                self._over(session, CloseReason.TRANSPORT_CLOSE, now, farewell=_NOOP)  # it said goodbye itself
            elif session.state is SessionState.CLOSING:
                self._timers.set(session, now + DRAIN_PATIENCE)
        self._settle_accounts(now)

    def drained(self) -> bool:
        """True once ``drain`` was called and every session has been told, or given up, and every request answered."""
        busy = (Use.READING, Use.HELD, Use.POLLING, Use.APPLICATION, Use.WEBSOCKET)
        return (
            self._http.closing
            and not self._sessions
            and not any(connection.use in busy for connection in self._http.connections)
        )

    # Sessions ----------------------------------------------------------------------------------------------

    def next_event(self) -> EngineEvent | None:
        """The next event; None when all have been handed out."""
        return self._events.popleft() if self._events else None

    def send(self, session: Session, data: str | bytes, now: float) -> None:
        """Send one message; ignored when the session is over."""
        if isinstance(data, str):
            self._send(session, encode(Kind.MESSAGE, data), now)
        else:
            self._send(session, data, now)

    def send_encoded(self, session: Session, encoded: Encoded, now: float) -> None:
        """Send a message that was encoded before."""
        if session.state is not SessionState.OPEN:
            return
        if session.connection is not None:
            self._http.write(session.connection, encoded.frame)
        else:
            self._enqueue(session, encoded.packet, now)

    def wire_connection(self, session: Session) -> Connection | None:
        """The WebSocket that may be written a ready frame directly; None while polling or upgrading, and at the end."""
        return session.connection if session.state is SessionState.OPEN else None

    def close(self, session: Session, reason: CloseReason, now: float) -> None:
        """End a session; clients see "transport close" and come back by themselves. Idempotent.

        A WebSocket gets a close frame. A polling client gets what is queued and then, with the poll that waits or the
        next one, the end; it has ``FAREWELL_TIMEOUT`` seconds to ask.
        """
        if session.state is not SessionState.OPEN:
            return
        if session.connection is not None:
            self._over(session, reason, now)
            return
        self._events.append(SessionClosed(session, reason))
        session.state = SessionState.CLOSING
        self._timers.set(session, now + FAREWELL_TIMEOUT)
        self._end_probe(session, now)
        self._dirty[session] = None

    def settle(self, connection: Connection, allowed: bool, now: float) -> None:
        """Decide about the request of a ``CredentialChanged``; ignored when that connection is gone."""
        self.tick(now)
        session, request = connection.session, connection.request
        if connection.use is not Use.HELD or session is None or request is None:
            return
        connection.use = Use.READING
        if allowed:
            session.credential = self._credential(request)
            self._begin(connection, request, now)
        else:
            self._fail(connection, _Failure.FORBIDDEN, now)
        self._advance(connection, now)
        self._settle_accounts(now)

    # HTTP --------------------------------------------------------------------------------------------------

    def _advance(self, connection: Connection, now: float) -> None:
        """Work through what has arrived on a connection that speaks HTTP."""
        while (event := self._http.next_event(connection, now)) is not None:
            if isinstance(event, Request):
                self._on_head(connection, event, now)
            elif isinstance(event, bytes):
                self._on_body(connection, event, now)
            elif connection.use is Use.APPLICATION:
                self._events.append(AppRequestEnd(connection))
            elif connection.request is not None:
                self._on_request(connection, connection.request, now)

    def _settle_accounts(self, now: float) -> None:
        """What every input ends with: connections given up on the way, and requests that waited behind others."""
        while self._http.abandoned or self._http.finished:
            while self._http.abandoned:
                self._on_abandoned(*self._http.abandoned.popleft(), now)
            if self._http.finished:
                self._advance(self._http.finished.popleft(), now)

    def _on_abandoned(self, connection: Connection, use: Use, session: Session | None, now: float) -> None:
        if use is Use.APPLICATION:
            self._events.append(AppRequestAborted(connection))
        if session is None:
            return
        if session.probe is connection:
            self._end_probe(session, now)
        elif session.connection is connection:
            self._over(session, CloseReason.TRANSPORT_CLOSE, now)
        elif connection in (session.poll, session.post):
            self._over(session, CloseReason.TRANSPORT_ERROR, now)

    def _on_head(self, connection: Connection, request: Request, now: float) -> None:
        length = int(request.header("content-length") or 0)
        if request.path != self.config.path:
            self._on_application_head(connection, request, length, now)
            return
        connection.use = Use.READING
        failure = self._verify(request)
        if failure is not None:
            self._fail(connection, failure, now)
            return
        # A preflight is nobody's: browsers send it without the cookie, whatever the request after it will carry.
        session = None if request.method == "OPTIONS" else self._sessions.get(request.query.get("sid", ""))
        if session is not None:
            connection.session = session
            if self._credential(request) != session.credential:
                connection.use = Use.HELD
                self._http.timers.cancel(connection)
                self._events.append(CredentialChanged(connection, session, request))
                return
        self._begin(connection, request, now)

    def _on_application_head(self, connection: Connection, request: Request, length: int, now: float) -> None:
        if request.method == "CONNECT":
            self._http.answer(connection, 405, b"", [("Allow", "GET, HEAD, POST")], now)
        elif length > self.config.max_request_body:
            self._http.answer(connection, 413, b"Content Too Large\n", [("Content-Type", "text/plain")], now)
        else:
            connection.use = Use.APPLICATION
            self._events.append(AppRequest(connection, request))
            self._http.proceed(connection)

    def _on_body(self, connection: Connection, data: bytes, now: float) -> None:
        if connection.use is Use.APPLICATION:
            if connection.received > self.config.max_request_body:
                self._http.reject(connection, 413, now)
            else:
                self._events.append(AppBody(connection, data))
        elif connection.received > self.config.max_payload:
            self._too_large(connection, now)
        else:
            connection.body = connection.body or bytearray()
            connection.body += data

    def _verify(self, request: Request) -> _Failure | None:
        """The checks that need no body, in the reference server's order."""
        verdict = judge(request, self.config.allowed_origins)
        if verdict is Verdict.REFUSED:
            # Behind a proxy that is not trusted every page is refused, and only this says why.
            origin, own = request.header("origin"), f"{request.scheme}://{request.host}"
            _LOGGER.info("Refused a page of %r, as this is %r", origin, own)
            return _Failure.FORBIDDEN
        if verdict is Verdict.ALLOWED and request.method == "OPTIONS":
            return None
        transport, sid = request.query.get("transport"), request.query.get("sid")
        upgrade = websocket.wants_websocket(request)
        if transport not in self.config.transports:
            return _Failure.UNKNOWN_TRANSPORT
        if sid:
            session = self._sessions.get(sid)
            if session is None:
                return _Failure.UNKNOWN_SID
            fits = upgrade if transport == "websocket" else session.transport == "polling" and not upgrade
            fits = fits and (request.method == "GET" or (request.method == "POST" and transport == "polling"))
            return None if fits else _Failure.BAD_REQUEST
        if request.method != "GET":
            return _Failure.BAD_HANDSHAKE_METHOD
        if request.query.get("EIO") != "4":
            return _Failure.UNSUPPORTED_PROTOCOL_VERSION
        if upgrade != (transport == "websocket"):
            return _Failure.BAD_REQUEST
        return _Failure.DRAINING if self._http.closing else None

    def _begin(self, connection: Connection, request: Request, now: float) -> None:
        """The request may go on: read its body."""
        session = connection.session
        if int(request.header("content-length") or 0) > self.config.max_payload:
            self._too_large(connection, now)
            return
        if request.method == "POST" and session is not None:
            if session.post is not None:
                self._over(session, CloseReason.TRANSPORT_ERROR, now)
                self._fail(connection, _Failure.BAD_REQUEST, now)
                return
            session.post = connection
        self._http.restart_timer(connection, now)
        self._http.proceed(connection)

    def _on_request(self, connection: Connection, request: Request, now: float) -> None:
        """A protocol request is complete."""
        session = connection.session
        failure = self._verify(request)
        if session is not None and session.post is connection:
            session.post = None
            self._on_post(connection, session, request, now)
        elif failure is not None:
            self._fail(connection, failure, now)
        elif request.method == "OPTIONS":
            self._answer(connection, 204, b"", preflight_headers(request), now)
        elif request.query["transport"] == "websocket":
            self._on_websocket(connection, session, request, now)
        elif session is None:
            session = self._open(request, None, now)
            self._answer(connection, 200, self._open_packet(session).encode(), _TEXT, now)
        else:
            self._on_poll(connection, session, now)

    def _answer(
        self,
        connection: Connection,
        status: int,
        body: bytes,
        headers: Sequence[Header],
        now: float,
        last: bool | None = None,
    ) -> None:
        """Answer a protocol request; nothing of it may be cached. ``last`` is that of ``HttpServer.answer``."""
        request = connection.request
        cors: list[Header] = []
        if request is not None:
            cors = cors_headers(request, judge(request, self.config.allowed_origins))
        self._http.answer(connection, status, body, [*headers, ("Cache-Control", "no-store"), *cors], now, last)

    def _fail(self, connection: Connection, failure: _Failure, now: float) -> None:
        status, code, message = failure.value
        body = {"code": code, "message": message}
        if (detail := self._detail(failure, connection.request, now)) is not None:
            body["detail"] = detail
        headers = [("Content-Type", "application/json")]
        if failure is _Failure.UPGRADE_REQUIRED:
            headers += [("Upgrade", "websocket"), ("Sec-WebSocket-Version", websocket.VERSION)]
        self._answer(connection, status, json.dumps(body).encode(), headers, now)

    def _detail(self, failure: _Failure, request: Request | None, now: float) -> str | None:
        """What an operator has to know besides; clients are done with the code."""
        if failure is _Failure.UNKNOWN_SID and request is not None:
            return self.routing.stray(request.query.get("sid", ""), now)
        if failure is _Failure.UNKNOWN_TRANSPORT and self.config.transports == {"websocket"}:
            return "only WebSocket is served here: set transports to websocket in the client"
        return None

    # Polling -----------------------------------------------------------------------------------------------

    def _on_poll(self, connection: Connection, session: Session, now: float) -> None:
        if session.poll is not None:
            self._over(session, CloseReason.TRANSPORT_ERROR, now, farewell=b"1")
            self._fail(connection, _Failure.BAD_REQUEST, now)
            return
        session.poll = connection
        connection.use = Use.POLLING
        self._dirty[session] = None

    def _on_post(self, connection: Connection, session: Session, request: Request, now: float) -> None:
        body, connection.body = bytes(connection.body or b""), None
        if session.state is SessionState.CLOSED:
            self._fail(connection, _Failure.UNKNOWN_SID, now)
            return
        if (request.header("content-type") or "").startswith("application/octet-stream"):
            self._over(session, CloseReason.TRANSPORT_ERROR, now)
            self._fail(connection, _Failure.BAD_REQUEST, now)
            return
        try:
            for raw in split(body):
                if session.state is SessionState.OPEN:
                    self._on_packet(session, *decode(raw), now)
        except InvalidPacket:
            self._over(session, CloseReason.PARSE_ERROR, now)
            self._fail(connection, _Failure.BAD_REQUEST, now)
            return
        self._answer(connection, 200, b"ok", [("Content-Type", "text/html")], now, last=False)

    def _too_large(self, connection: Connection, now: float) -> None:
        session, connection.session = connection.session, None
        self._fail(connection, _Failure.TOO_LARGE, now)
        if session is not None:
            self._over(session, CloseReason.TRANSPORT_ERROR, now)

    def _answer_poll(self, session: Session, now: float) -> None:
        """Give the waiting poll what there is to say; without anything it goes on waiting."""
        connection = session.poll
        if connection is None:
            return
        # Whoever has to ask again keeps the connection also while draining: there may be nobody who takes a new one.
        last: bool | None = False
        if session.queue:
            body = self._bundle(session)
        elif session.state is SessionState.CLOSING:
            body, last = session.farewell, None
            self._forget(session)
        elif session.probed and now >= session.next_noop:
            body = _NOOP
            session.next_noop = now + NOOP_INTERVAL
        else:
            if session.probed:
                self._noops.set(session, session.next_noop)
            return
        session.poll = None
        self._answer(connection, 200, body, _TEXT, now, last)

    def _bundle(self, session: Session) -> bytes:
        """As many queued packets as ``max_payload`` and the clients allow, at least one."""
        items: list[str | bytes] = []
        room = self.config.max_payload
        for item, size in session.queue[:MAX_POLL_PACKETS]:
            if items and size > room:
                break
            session.queued -= size
            room -= size + 1
            items.append(item)
        del session.queue[: len(items)]
        return join(items)

    # WebSocket ---------------------------------------------------------------------------------------------

    def _on_websocket(self, connection: Connection, session: Session | None, request: Request, now: float) -> None:
        accept = websocket.accept_value(request)
        if request.header("sec-websocket-version") != websocket.VERSION:
            self._fail(connection, _Failure.UPGRADE_REQUIRED, now)
            return
        if accept is None:
            self._fail(connection, _Failure.BAD_REQUEST, now)
            return
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
        early = self._http.switch(connection, headers)
        connection.websocket = wire = websocket.WebSocket(self.config.max_payload)
        if session is None:
            session = connection.session = self._open(request, connection, now)
            self._http.write(connection, websocket.text_frame(self._open_packet(session)))
        elif session.transport == "websocket" or session.probe is not None or session.state is not SessionState.OPEN:
            self._close_websocket(connection, now)
        else:
            session.probe = connection
            self._http.timers.set(connection, now + self.config.upgrade_timeout)
        if early:
            self._on_frames(connection, wire, early, now)

    def _on_frames(self, connection: Connection, wire: websocket.WebSocket, data: bytes, now: float) -> None:
        received = wire.receive(data)
        self._http.write(connection, wire.data_to_send())
        for message in received:
            session = connection.session
            if message is websocket.Ending.CLOSED:
                self._http.close(connection)
            elif message is websocket.Ending.FAILED:
                if session is not None and session.connection is connection:
                    self._over(session, CloseReason.TRANSPORT_ERROR, now)
                self._http.linger(connection, now)
            elif session is not None and session.probe is connection:
                self._on_probe(connection, session, message, now)
            elif session is not None:
                self._on_message(session, message, now)

    def _on_message(self, session: Session, message: str | bytes, now: float) -> None:
        try:
            kind, data = decode(message)
        except InvalidPacket:
            self._over(session, CloseReason.PARSE_ERROR, now)
            return
        self._on_packet(session, kind, data, now)

    def _on_probe(self, connection: Connection, session: Session, message: str | bytes, now: float) -> None:
        """A message on a WebSocket that has not taken over yet: ``2probe``, then ``5``."""
        if message == "2probe":
            session.probed = True
            self._dirty[session] = None
            self._http.write(connection, websocket.text_frame("3probe"))
        elif message == "5" and session.probed:
            self._upgrade(connection, session, now)
        else:
            self._end_probe(session, now)

    def _upgrade(self, connection: Connection, session: Session, now: float) -> None:
        self._http.timers.cancel(connection)
        session.probe, session.probed = None, False
        session.connection = connection
        self._release_poll(session, _NOOP, now)
        for item, _ in session.queue:
            self._http.write(connection, _frame(item))
        session.queue.clear()
        session.queued = 0
        self._events.append(SessionUpgraded(session))

    def _end_probe(self, session: Session, now: float) -> None:
        """The upgrade has failed, or the session has ended before it came through; polling is not affected."""
        connection, session.probe, session.probed = session.probe, None, False
        if connection is not None:
            self._close_websocket(connection, now)

    def _close_websocket(self, connection: Connection, now: float) -> None:
        """Say goodbye and wait for the peer's close frame, which its client answers with at once."""
        wire, connection.session = connection.websocket, None
        if wire is not None:
            wire.close()
            self._http.write(connection, wire.data_to_send())
            self._http.timers.set(connection, now + LINGER)

    # Any transport -----------------------------------------------------------------------------------------

    def _open(self, request: Request, connection: Connection | None, now: float) -> Session:
        sid, credential = self.routing.name(self._new_id), self._credential(request)
        session = Session(sid, request.header("cookie"), request.client_address, credential, connection)
        self._sessions[session.sid] = session
        self._timers.set(session, now + self.config.ping_interval)
        self._events.append(SessionOpened(session, request))
        return session

    def _open_packet(self, session: Session) -> str:
        return encode(Kind.OPEN, object_text({
            "sid": session.sid,
            "upgrades": ["websocket"] if session.transport == "polling" else [],
            "pingInterval": round(self.config.ping_interval * 1000),
            "pingTimeout": round(self.config.ping_timeout * 1000),
            "maxPayload": self.config.max_payload,
        }))  # fmt: skip

    def _on_packet(self, session: Session, kind: Kind, data: str | bytes, now: float) -> None:
        """One packet of an open session. What only servers send is ignored, as the reference server does."""
        if kind is Kind.MESSAGE:
            self._events.append(MessageReceived(session, data))
        elif kind is Kind.PONG:
            if session.pinged:
                session.pinged = False
                self._timers.set(session, now + self.config.ping_interval)
        elif kind is Kind.CLOSE:
            self._on_close(session, now)
        elif kind is Kind.PING:
            self._over(session, CloseReason.TRANSPORT_ERROR, now)

    def _on_close(self, session: Session, now: float) -> None:
        """The client ends the session. Its poll may be on its way still, and is answered when it comes."""
        session.farewell = _NOOP
        self.close(session, CloseReason.TRANSPORT_CLOSE, now)
        session.queue.clear()
        if session.state is SessionState.CLOSING:
            self._timers.set(session, now + LINGER)

    def _send(self, session: Session, packet: str | bytes, now: float) -> None:
        if session.state is not SessionState.OPEN:
            return
        if session.connection is not None:
            self._http.write(session.connection, _frame(packet))
        else:
            self._enqueue(session, packet, now)

    def _enqueue(self, session: Session, packet: str | bytes, now: float) -> None:
        size = size_of(packet)
        if session.queued + size > self.config.send_buffer:
            self._answer_poll(session, now)
        session.queue.append((packet, size))
        session.queued += size
        self._dirty[session] = None
        if session.queued > self.config.send_buffer:
            self.close(session, CloseReason.OVERFLOW, now)

    def _on_session_deadline(self, session: Session, now: float) -> None:
        if session.state is SessionState.CLOSING:
            self._forget(session)
        elif session.pinged:
            self._over(session, CloseReason.PING_TIMEOUT, now)
        else:
            session.pinged = True
            self._timers.set(session, now + self.config.ping_timeout)
            self._send(session, encode(Kind.PING), now)

    def _on_connection_deadline(self, connection: Connection, now: float) -> None:
        session = connection.session
        if connection.use is not Use.WEBSOCKET or session is None:
            self._http.timed_out(connection, now)
        else:
            self._end_probe(session, now)

    def _over(self, session: Session, reason: CloseReason, now: float, farewell: bytes = FAREWELL) -> None:
        """End a session at once: the sid is unknown from here on. Idempotent."""
        if session.state is SessionState.OPEN:
            self._events.append(SessionClosed(session, reason))
        self._forget(session)
        self._release_poll(session, farewell, now)
        self._end_probe(session, now)
        if session.connection is not None:
            self._close_websocket(session.connection, now)

    def _forget(self, session: Session) -> None:
        session.state = SessionState.CLOSED
        self._sessions.pop(session.sid, None)
        self._timers.cancel(session)
        self._noops.cancel(session)

    def _release_poll(self, session: Session, body: bytes, now: float) -> None:
        connection, session.poll = session.poll, None
        if connection is not None:
            self._answer(connection, 200, body, _TEXT, now)


def _frame(packet: str | bytes) -> bytes:
    return websocket.text_frame(packet) if isinstance(packet, str) else websocket.binary_frame(packet)
