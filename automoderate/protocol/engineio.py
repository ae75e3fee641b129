"""Engine.IO 4: sessions over HTTP long-polling and WebSocket, and the move from one to the other.

``EngineIOServer`` is a state machine without I/O. Its inputs are the methods of ``driver.Inputs``; after any of them
drain ``next_event()`` until it is None, act on the events, then drain ``outputs()``. Events come in the order in which
they happened; outputs in the order in which they must be performed. Whatever a peer sends becomes an answer on the wire
and an event, never an exception.

This file turns requests and packets into what they mean. How polls wait and are answered stands in
``engineio_polling``, the upgrade in ``engineio_upgrade``, packets and heartbeat in ``engineio_packets``, how sessions
end in ``engineio_closing``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from sys import intern

from automoderate.protocol import websocket
from automoderate.protocol.complaints import Complaints
from automoderate.protocol.config import Config
from automoderate.protocol.engineio_closing import Closing
from automoderate.protocol.engineio_packets import FRAMES_A_PACKET, Packets, open_packet
from automoderate.protocol.engineio_payload import InvalidPacket, Kind, encode, split
from automoderate.protocol.engineio_polling import TEXT, Polling
from automoderate.protocol.engineio_requests import Answers, Failure, log_other_origin, log_too_large, refusal
from automoderate.protocol.engineio_sessions import Sessions
from automoderate.protocol.engineio_upgrade import Upgrades
from automoderate.protocol.events import (
    AppBody,
    AppRequest,
    AppRequestAborted,
    AppRequestEnd,
    CredentialChanged,
    EngineIOEvent,
    SessionOpened,
)
from automoderate.protocol.http import MAX_PIPELINED, Header, HttpServer
from automoderate.protocol.http_heads import MAX_HEAD
from automoderate.protocol.http_reading import Signal
from automoderate.protocol.model import (
    CloseReason,
    Connection,
    ConnectionState,
    Encoded,
    EngineIOSessionState,
    Farewell,
    Peer,
    Request,
    Session,
    Transport,
    cookie_of,
)
from automoderate.protocol.origin import check_origin, cors_headers, preflight_headers
from automoderate.protocol.outbox import Outbox
from automoderate.protocol.outputs import Output
from automoderate.protocol.routing import Routing
from automoderate.protocol.timers import earliest
from automoderate.protocol.turns import CHUNK, FRAME, MESSAGE, PACKET, InputTurns, of_bytes, of_head, of_target

__all__ = ["EngineIOServer"]

BUSY = frozenset({
    ConnectionState.READING, ConnectionState.HELD, ConnectionState.POLLING, ConnectionState.APPLICATION,
    ConnectionState.WEBSOCKET,
})  # fmt: skip
"""States of a connection that draining waits for."""

MAX_AGENT = 200
"""Characters of a ``User-Agent`` that a session keeps."""


class EngineIOServer:
    """The Engine.IO server; see the module's description for the order of calls."""

    def __init__(
        self,
        config: Config,
        *,
        new_id: Callable[[], str],
        credential: Callable[[Request], Hashable] = lambda _: None,
        identification: Callable[[Request], str | None] = cookie_of,
    ) -> None:
        """Serve no connection yet.

        ``new_id`` makes unguessable session ids. ``credential`` says who sends a request: of one session all have the
        same, or ``settle`` decides about them. ``identification`` is what a session keeps of its first request.
        """
        self.config = config
        self.routing = Routing(config.node)
        self._new_id = new_id
        self._credential = credential
        self._identification = identification
        self.events: deque[EngineIOEvent] = deque()
        """Events that wait to be handed out."""
        self._ended: deque[tuple[Connection, websocket.WebSocketEnd]] = deque()
        self._outbox = Outbox()
        self.complaints = Complaints()
        """What is said of clients."""
        self._http = HttpServer(config, self._outbox, self.complaints)
        self._turns = InputTurns(self._outbox, self._work)
        self._sessions = Sessions()
        self._answers = Answers(config, self._http, self.routing)
        self._polling = Polling(config, self._answers, self._sessions)
        self._upgrades = Upgrades(config, self._http, self._answers, self._polling, self.events)
        self._closing = Closing(self._sessions, self._polling, self._upgrades, self.events)
        self._packets = Packets(
            config, self._http, self._sessions, self._polling, self._closing, self.events, self.complaints
        )
        self._now = float("-inf")

    # Driver: described in driver.Inputs --------------------------------------------------------------------

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        self._expire(now)
        return self._http.connect(transport, peer, now)

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        self._expire(now)
        if connection.websocket is None:
            self._http.feed(connection, data, now)
        else:
            connection.unread += data
        if connection.state is ConnectionState.HELD:
            if len(connection.unread) > MAX_PIPELINED:
                self._turns.pause(connection)
        else:
            self._turns.offer(connection, now)
        self._settle_accounts(now)

    def receive_eof(self, connection: Connection, now: float) -> None:
        self._expire(now)
        connection.half_closed = True
        self._turns.offer(connection, now)
        self._settle_accounts(now)

    def connection_lost(self, connection: Connection, now: float) -> None:
        self._expire(now)
        self._http.lost(connection)
        self._turns.forget(connection)
        self._settle_accounts(now)

    def respond(self, connection: Connection, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        self._http.start(connection, status, reason, headers, now)
        self._settle_accounts(now)

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        self._http.data(connection, data)
        self._settle_accounts(now)

    def respond_end(self, connection: Connection, now: float) -> None:
        self._http.end(connection, now)
        self._settle_accounts(now)

    def reply(self, connection: Connection, status: int, body: bytes, headers: Sequence[Header], now: float) -> None:
        """``respond``, ``respond_body`` and ``respond_end`` at once, with headers that are known to be good."""
        self._http.reply(connection, status, body, headers, now)
        self._settle_accounts(now)

    def tick(self, now: float) -> None:
        self._act_on_deadlines(now)
        self._turns.take(now)
        self._settle_accounts(now)

    def _expire(self, now: float) -> None:
        """Before every input: act on the deadlines that have passed, once for all inputs of a turn."""
        if now > self._now:
            self._turns.renew()
            self._act_on_deadlines(now)

    def _act_on_deadlines(self, now: float) -> None:
        self._now = max(self._now, now)
        while (connection := self._http.timers.pop_due(now)) is not None:
            self._on_connection_deadline(connection, now)
        while (session := self._sessions.timers.pop_due(now)) is not None:
            self._packets.on_deadline(session, now)
        while (session := self._sessions.noops.pop_due(now)) is not None:
            self._polling.due[session] = None
        self._settle_accounts(now)

    def next_deadline(self) -> float | None:
        if self._turns.busy or self._http.finished:
            return self._now
        return earliest(self._http.timers.next(), self._sessions.timers.next(), self._sessions.noops.next())

    def has_outputs(self) -> bool:
        """Whether ``outputs`` may have something."""
        return bool(self._polling.due or self._outbox.items)

    def outputs(self) -> list[Output]:
        """What is to be done, in order. Packets for polling clients are bundled here, into one answer each."""
        if self._polling.due:
            self._polling.answer_due(self._now)
        return self._outbox.drain()

    def drain(self, now: float) -> None:
        self._expire(now)
        self._http.closing = True
        self._closing.drain(now)
        self._settle_accounts(now)

    def drained(self) -> bool:
        """True once ``drain`` was called, every client has been told or given up, and every request is answered."""
        return (
            self._http.closing
            and not self._sessions
            and not any(connection.state in BUSY for connection in self._http.connections)
        )

    # Sessions ----------------------------------------------------------------------------------------------

    def next_event(self) -> EngineIOEvent | None:
        """The next event; None when all have been handed out.

        The end of a WebSocket waits until all events before it have been acted on: the answers to what a client said
        go out before the close frame that answers its own.
        """
        while not self.events and self._ended:
            self._on_end(*self._ended.popleft(), self._now)
        return self.events.popleft() if self.events else None

    def send(self, session: Session, data: str | bytes, now: float) -> None:
        """Send one message; ignored when the session is over."""
        self._packets.send(session, encode(Kind.MESSAGE, data) if isinstance(data, str) else data, now)

    def send_encoded(self, session: Session, encoded: Encoded, now: float) -> None:
        """Send a message that was encoded before; ignored when the session is over."""
        self._packets.send_encoded(session, encoded, now)

    def wire_connection(self, session: Session) -> Connection | None:
        """The WebSocket to which a ready frame may be written directly; None for a session that polls or is over."""
        return session.connection if session.state is EngineIOSessionState.OPEN else None

    def drop(self, session: Session, reason: CloseReason, now: float) -> None:
        """End a session so that its client comes back by itself, after it has got what is queued. Idempotent."""
        self._closing.end(session, reason, Farewell.COME_BACK, now)

    def end(self, session: Session, reason: CloseReason, farewell: Farewell, now: float) -> None:
        """End a session after its client has got what is queued and then this farewell. Idempotent."""
        self._closing.end(session, reason, farewell, now)

    def terminate(self, session: Session, reason: CloseReason, now: float) -> None:
        """End a session at once, as for one whose client has broken the protocol. Idempotent."""
        self._closing.terminate(session, reason, Farewell.BROKEN, now)

    def charge(self, session: Session, packets: float, now: float) -> None:
        """Count so many packets more as sent by the session's client, for what costs more than a packet does."""
        self._packets.charge(session, packets, now)

    def settle(self, connection: Connection, allowed: bool, now: float) -> None:
        """Decide about the request of a ``CredentialChanged``; ignored when that connection is gone."""
        self._expire(now)
        session, request = connection.session, connection.request
        if connection.state is not ConnectionState.HELD or session is None or request is None:
            return
        connection.state = ConnectionState.READING
        if allowed:
            session.credential = self._credential(request)
            self._begin(connection, request, now)
        else:
            self._answers.fail(connection, Failure.FORBIDDEN, now)
        self._turns.offer(connection, now)
        self._settle_accounts(now)

    # Input -------------------------------------------------------------------------------------------------

    def _work(self, connection: Connection, now: float) -> bool:
        """Work through what has arrived on a connection, a bite of it; whether there may be more."""
        while self._turns.left > 0:
            if connection.packets is not None:
                self._on_packets(connection, connection.packets, now)
            elif connection.websocket is not None:
                if not self._on_frames(connection, connection.websocket, now):
                    break
            elif not self._on_http(connection, now):
                break
        else:
            return True
        if connection.half_closed:
            self._on_eof(connection, now)
        return False

    def _settle_accounts(self, now: float) -> None:
        """What every input ends with: see to connections given up on the way, and to requests that waited."""
        while self._http.abandoned or self._http.finished:
            while self._http.abandoned:
                self._on_abandoned(*self._http.abandoned.popleft(), now)
            if self._http.finished:
                self._turns.offer(self._http.finished.popleft(), now)

    def _on_eof(self, connection: Connection, now: float) -> None:
        """The peer sends no more, and what it has sent is worked through as far as it can be."""
        alive = (ConnectionState.IDLE, ConnectionState.READING, ConnectionState.APPLICATION)
        if connection.state in alive:
            self._http.feed_eof(connection)
            while self._on_http(connection, now):
                pass
        if connection.state not in alive:
            self._http.close(connection)

    def _on_abandoned(
        self, connection: Connection, state: ConnectionState, session: Session | None, now: float
    ) -> None:
        if state is ConnectionState.APPLICATION:
            self.events.append(AppRequestAborted(connection))
        if session is None:
            return
        if session.probe is connection:
            self._upgrades.cancel(session, now)
        elif session.connection is connection:
            self._closing.terminate(session, CloseReason.TRANSPORT_CLOSE, Farewell.BROKEN, now)
        elif connection is session.poll or connection in session.posts:
            self._closing.terminate(session, CloseReason.TRANSPORT_ERROR, Farewell.BROKEN, now)

    # HTTP --------------------------------------------------------------------------------------------------

    def _on_http(self, connection: Connection, now: float) -> bool:
        """Act on the next piece of a request, if there is one."""
        before = len(connection.unread)
        event = self._http.next_event(connection, now)
        if event is None:
            return False
        if isinstance(event, Request):
            self._turns.spend(of_head(before - len(connection.unread), len(event.headers)))
            self._turns.spend(of_target(len(event.query), event.target.count("%")))
            self._on_head(connection, event, now)
            return True
        if event is Signal.FAILED:
            self._turns.spend(of_head(min(before, MAX_HEAD), 0))
            return True
        self._turns.spend(CHUNK)
        if event is Signal.END:
            self._http.large.forget(connection)
        if isinstance(event, bytes):
            self._turns.spend(of_bytes(len(event)))
            self._on_body(connection, event, now)
        elif connection.state is ConnectionState.APPLICATION:
            self.events.append(AppRequestEnd(connection))
        else:
            assert connection.request is not None, "an answer that came before the end has read to it"
            self._on_request(connection, connection.request, now)
        return True

    def _on_head(self, connection: Connection, request: Request, now: float) -> None:
        if not request.path.startswith(self.config.path):
            self._on_application_head(connection, request, now)
            return
        file = self.config.files.get(request.path)
        if file is not None:
            status, body, headers = file.answer(request)
            headers += cors_headers(request, check_origin(request, self.config.allowed_origins))
            self._http.answer(connection, status, body, headers, now)
            return
        connection.state = ConnectionState.READING
        failure = self._refusal(request)
        if failure is not None:
            if failure is Failure.FORBIDDEN and self.complaints.due(request.client_address, "origin", now):
                log_other_origin(request)
            self._answers.fail(connection, failure, now)
            return
        # A preflight belongs to no session: browsers send it without the cookie that the request after it will carry.
        session = None if request.method == "OPTIONS" else self._sessions.get(request.query.get("sid", ""))
        if session is not None:
            connection.session = session
            if self._credential(request) != session.credential:
                connection.state = ConnectionState.HELD
                self._http.timers.cancel(connection)
                self.events.append(CredentialChanged(connection, session, request))
                return
        self._begin(connection, request, now)

    def _on_application_head(self, connection: Connection, request: Request, now: float) -> None:
        if request.method == "CONNECT":
            self._http.answer(connection, 405, b"", [("Allow", "GET, HEAD, POST")], now)
        elif request.content_length > self.config.max_request_body:
            self._say_too_large(connection, self.config.max_request_body, now)
            self._http.refuse(connection, 413, now)
        else:
            connection.state = ConnectionState.APPLICATION
            self.events.append(AppRequest(connection, request))
            self._http.proceed(connection)

    def _on_body(self, connection: Connection, data: bytes, now: float) -> None:
        assert connection.request is not None, "a body belongs to a request"
        self._note_size(connection, connection.request.client_address, self._http.received(connection), now)
        if connection.state is ConnectionState.APPLICATION:
            if self._http.received(connection) > self.config.max_request_body:
                self._say_too_large(connection, self.config.max_request_body, now)
                self._http.reject(connection, 413, now)
            else:
                self.events.append(AppBody(connection, data))
        elif self._http.received(connection) > self.config.max_payload:
            self._too_large(connection, now)
        else:
            connection.body = connection.body or bytearray()
            connection.body += data

    def _note_size(self, connection: Connection, address: str, size: int, now: float) -> None:
        """So much has come of a body or message. What its visitor has begun first may have to end for that."""
        oldest = self._http.large.note(connection, address, size)
        if oldest is None:
            return
        session = oldest.session
        if oldest.websocket is None:
            self._http.reject(oldest, 408, now)
            return
        if session is not None and session.probe is oldest:
            self._upgrades.cancel(session, now)
        elif session is not None:
            self._closing.terminate(session, CloseReason.FLOOD, Farewell.BROKEN, now)
        self._http.linger(oldest, now)  # what it has sent is let go of at once

    def _say_too_large(self, connection: Connection, allowed: int, now: float) -> None:
        assert connection.request is not None, "a body belongs to a request"
        if self.complaints.due(connection.request.client_address, "size", now):
            log_too_large(connection.request, allowed)

    def _refusal(self, request: Request) -> Failure | None:
        session = self._sessions.get(request.query.get("sid", ""))
        return refusal(request, session, self.config, draining=self._http.closing)

    def _begin(self, connection: Connection, request: Request, now: float) -> None:
        """Read the body of a request that may go on."""
        session = connection.session
        if request.content_length > self.config.max_payload:
            self._too_large(connection, now)
            return
        if request.method == "POST" and session is not None:
            session.posts += (connection,)
        self._http.restart_timer(connection, now)
        self._http.proceed(connection)

    def _too_large(self, connection: Connection, now: float) -> None:
        session, connection.session = connection.session, None
        self._say_too_large(connection, self.config.max_payload, now)
        self._answers.fail(connection, Failure.TOO_LARGE, now)
        if session is not None:
            self._closing.terminate(session, CloseReason.TRANSPORT_ERROR, Farewell.BROKEN, now)

    def _on_request(self, connection: Connection, request: Request, now: float) -> None:
        """Act on a protocol request that is complete."""
        session = connection.session
        failure = self._refusal(request)
        if session is not None and connection in session.posts:
            self._on_post(connection, session, now)
        elif failure is not None:
            self._answers.fail(connection, failure, now)
        elif request.method == "OPTIONS":
            self._answers.answer(connection, 204, b"", preflight_headers(request), now)
        elif request.query["transport"] == "websocket":
            self._on_websocket(connection, session, request, now)
        elif session is None:
            session = self._open(request, None, now)
            self._answers.answer(connection, 200, open_packet(session, self.config).encode(), TEXT, now)
        else:
            self._on_poll(connection, session, now)

    def _on_poll(self, connection: Connection, session: Session, now: float) -> None:
        if session.poll is not None:
            self._closing.terminate(session, CloseReason.TRANSPORT_ERROR, Farewell.BROKEN, now)
            self._answers.fail(connection, Failure.BAD_REQUEST, now)
            return
        self._polling.wait(connection, session)

    def _on_post(self, connection: Connection, session: Session, now: float) -> None:
        body, connection.body = bytes(connection.body or b""), None
        if session.state is EngineIOSessionState.CLOSED:
            self._posted(connection, session)
            self._answers.fail(connection, Failure.UNKNOWN_SID, now)
            return
        self._turns.spend(of_bytes(len(body)))
        try:
            connection.packets = iter(split(body))
        except InvalidPacket as error:
            self._on_invalid_post(connection, session, error, now)

    def _on_packets(self, connection: Connection, packets: Iterator[str], now: float) -> None:
        """Act on the packets of a POST, as many as it is their turn; the last is followed by the answer."""
        session = connection.session
        assert session is not None, "it is forgotten with the answer"
        while self._turns.left > 0 and connection.packets is not None:
            packet = next(packets, None)
            if packet is None or session.state is not EngineIOSessionState.OPEN:
                self._posted(connection, session)
                self._answers.answer(connection, 200, b"ok", [("Content-Type", "text/html")], now, last=False)
                return
            try:
                self._receive(session, packet, now)
            except InvalidPacket as error:
                self._on_invalid_post(connection, session, error, now)

    def _on_invalid_post(self, connection: Connection, session: Session, error: InvalidPacket, now: float) -> None:
        self._posted(connection, session)
        self.complaints.say(session.client_address, "packet", str(error), now)
        self._closing.terminate(session, CloseReason.PARSE_ERROR, Farewell.BROKEN, now)
        self._answers.fail(connection, Failure.BAD_REQUEST, now)

    @staticmethod
    def _posted(connection: Connection, session: Session) -> None:
        """A POST has been worked through, as far as it ever will."""
        connection.packets = None
        session.posts = tuple(post for post in session.posts if post is not connection)

    # WebSocket ---------------------------------------------------------------------------------------------

    def _on_websocket(self, connection: Connection, session: Session | None, request: Request, now: float) -> None:
        if not self._upgrades.accept(connection, request, now):
            return
        if session is None:
            session = connection.session = self._open(request, connection, now)
            self._http.write(connection, websocket.text_frame(open_packet(session, self.config)))
        else:
            self._upgrades.start(connection, session, now)

    def _on_frames(self, connection: Connection, wire: websocket.WebSocket, now: float) -> bool:
        """Act on frames, on about as many as it is their turn; whether there was one, or a part of one."""
        data = connection.unread
        if not data:
            return False
        received, end, frames = wire.receive(data, 1 + self._turns.left // (FRAME + PACKET + MESSAGE))
        connection.unread = data[end:]
        self._turns.spend(FRAME * frames + of_bytes(end))
        self._http.write(connection, wire.data_to_send())
        if frames > len(received) and connection.session is not None:
            self._packets.charge(connection.session, (frames - len(received)) / FRAMES_A_PACKET, now)
        if connection.session is not None and (wire.held or self._http.large):
            self._note_size(connection, connection.session.client_address, wire.held, now)
        for message in received:
            session = connection.session
            if isinstance(message, websocket.WebSocketEnd):
                self._ended.append((connection, message))
            elif session is not None and session.probe is connection:
                self._turns.spend(PACKET)
                self._upgrades.on_message(connection, session, message, now)
            elif session is not None:
                self._on_packet(session, message, now)
        return end > 0

    def _on_end(self, connection: Connection, end: websocket.WebSocketEnd, now: float) -> None:
        """A peer has ended its WebSocket, and all it said before has been acted on."""
        if connection.websocket is None:
            return  # it was dropped for what it said before
        session = connection.session
        self._http.write(connection, end.answer)
        if end.failed:
            if session is not None and session.connection is connection:
                self.complaints.say(session.client_address, "frame", "a frame that is broken or too large", now)
                self._closing.terminate(session, CloseReason.TRANSPORT_ERROR, Farewell.BROKEN, now)
            self._http.linger(connection, now)
        else:
            self._http.close(connection)
        self._settle_accounts(now)

    def _on_packet(self, session: Session, packet: str | bytes, now: float) -> None:
        """Act on a packet that came over a WebSocket."""
        try:
            self._receive(session, packet, now)
        except InvalidPacket as error:
            self.complaints.say(session.client_address, "packet", str(error), now)
            self._closing.terminate(session, CloseReason.PARSE_ERROR, Farewell.BROKEN, now)

    def _receive(self, session: Session, packet: str | bytes, now: float) -> None:
        """Act on a packet. Raises InvalidPacket."""
        self._turns.spend(of_bytes(len(packet)))
        reported = len(self.events)
        self._packets.receive(session, packet, now)
        self._turns.spend(PACKET if len(self.events) == reported else PACKET + MESSAGE)
        self._packets.charge(session, 1, now)

    def _open(self, request: Request, connection: Connection | None, now: float) -> Session:
        sid, credential = self.routing.name(self._new_id), self._credential(request)
        agent = intern((request.header("user-agent") or "")[:MAX_AGENT])  # thousands of clients have the same
        session = Session(sid, self._identification(request), request.client_address, credential, agent, connection)
        self._sessions.add(session)
        self._sessions.timers.set(session, now + self.config.ping_interval)
        self.events.append(SessionOpened(session, request))
        return session

    def _on_connection_deadline(self, connection: Connection, now: float) -> None:
        session = connection.session
        if connection.state is not ConnectionState.WEBSOCKET or session is None:
            self._http.timed_out(connection, now)
        else:
            self._upgrades.cancel(session, now)
