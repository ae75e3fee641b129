"""Socket.IO 5: namespaces, events, acknowledgements and binary attachments on top of Engine.IO sessions.

``SocketIOServer`` is driven like ``EngineIOServer``: after every input drain ``next_event()``, act on the events, then
drain ``outputs()``. Every ``ClientConnecting`` has to be answered with ``accept`` or ``refuse``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from attrs import define
from socketio import packet

from automoderate.protocol.config import Config
from automoderate.protocol.driver import Layer
from automoderate.protocol.engineio import EngineIOServer
from automoderate.protocol.events import (
    AckReceived,
    ClientConnecting,
    ClientDisconnected,
    EngineIOEvent,
    EventReceived,
    MessageReceived,
    SessionClosed,
    SessionOpened,
    SocketIOEvent,
)
from automoderate.protocol.model import (
    Client,
    ClientState,
    CloseReason,
    Connection,
    Encoded,
    Farewell,
    Request,
    Session,
    cookie_of,
)
from automoderate.protocol.socketio_packets import (
    ABSENT,
    RESERVED_EVENTS,
    BrokenPacket,
    Packet,
    PartialPacket,
    connect_packet,
    encode_packet,
    parse_packet,
)
from automoderate.protocol.timers import Timers, earliest
from automoderate.protocol.unfinished import Unfinished

_LOGGER = logging.getLogger("automoderate.protocol.socketio")

CONNECT_PACKETS = 10
"""A CONNECT costs about as much as so many other packets."""
MAX_NAMESPACES = 64
"""Namespaces one session may be in at a time."""
MAX_NAMESPACE, NAMESPACE_PACKET = 4096, 64
"""Characters of a namespace, with its query, and those that count as a packet more: who is refused gets it back."""


@define(eq=False, weakref_slot=False)
class _SocketIOSession:
    """What Socket.IO remembers of an Engine.IO session."""

    clients: tuple[Client, ...] = ()
    """One for each namespace it is in."""
    partial: PartialPacket | None = None
    broken: bool = False
    """It broke the protocol. What it sent afterwards is not read."""

    def client(self, namespace: str) -> Client | None:
        """Its client in that namespace."""
        return next((client for client in self.clients if client.namespace == namespace), None)


class SocketIOServer(Layer[EngineIOEvent]):
    """The Socket.IO server; see the module's description for the order of calls."""

    def __init__(
        self,
        config: Config,
        *,
        new_id: Callable[[], str],
        credential: Callable[[Request], Hashable] = lambda _: None,
        identification: Callable[[Request], str | None] = cookie_of,
    ) -> None:
        self._engine = EngineIOServer(config, new_id=new_id, credential=credential, identification=identification)
        super().__init__(self._engine)
        self.config = config
        self.has_outputs = self._engine.has_outputs
        """Whether ``outputs`` may have something. Bound here, as every update of every room asks."""
        self._new_id = new_id
        self._state_of: dict[Session, _SocketIOSession] = {}
        self._timers: Timers[Session] = Timers()
        self._waiting: Unfinished[Session] = Unfinished(config.max_pending, _say_too_many)
        """Sessions that have not been let into a namespace yet."""
        self._events: deque[SocketIOEvent] = deque()
        self._now = float("-inf")

    # Driver ------------------------------------------------------------------------------------------------

    def pump(self, now: float) -> None:
        self._now = now
        while self._engine.events:
            self.on_event(self._engine.events.popleft(), now)

    def next_deadline(self) -> float | None:
        return earliest(self._engine.next_deadline(), self._timers.next())

    def tick(self, now: float) -> None:
        while (session := self._timers.pop_due(now)) is not None:
            self._engine.drop(session, CloseReason.CONNECT_TIMEOUT, now)
        super().tick(now)

    def reply(
        self, connection: Connection, status: int, body: bytes, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        """Answer an application's request in one go, with headers that are known to be good."""
        self._engine.reply(connection, status, body, headers, now)
        self.pump(now)

    def on_event(self, event: EngineIOEvent, now: float) -> None:
        """Turn what happened to an Engine.IO session into events of its Socket.IO clients."""
        if isinstance(event, MessageReceived):
            self._on_message(event.session, event.data, now)
            return
        if isinstance(event, SessionOpened):
            self._on_opened(event.session, now)
        elif isinstance(event, SessionClosed):
            self._timers.cancel(event.session)
            self._waiting.discard(event.session, event.session.client_address)
            for client in self._state_of[event.session].clients:
                self._leave(client, event.reason)
            del self._state_of[event.session]
        self._events.append(event)

    def _on_opened(self, session: Session, now: float) -> None:
        self._state_of[session] = _SocketIOSession()
        self._timers.set(session, now + self.config.connect_timeout)
        oldest = self._waiting.add(session, session.client_address)
        if oldest is not None:
            self._engine.terminate(oldest, CloseReason.CONNECT_TIMEOUT, now)

    @property
    def misrouted(self) -> int:
        """Requests so far for sessions of other nodes."""
        return self._engine.routing.misrouted

    def settle(self, connection: Connection, allowed: bool, now: float) -> None:
        """Decide about the request of a ``CredentialChanged``; ignored when that connection is gone."""
        self._engine.settle(connection, allowed, now)
        self.pump(now)

    # Clients -----------------------------------------------------------------------------------------------

    def next_event(self) -> SocketIOEvent | None:
        """The next event; None when all have been handed out."""
        # Not by way of ``pump`` alone: the engine has more where what happened so far has been acted on.
        while not self._events and (event := self._engine.next_event()) is not None:
            self.on_event(event, self._now)
        return self._events.popleft() if self._events else None

    def accept(self, client: Client, now: float) -> None:
        """Let the client into its namespace; ignored when it is gone or has been let in before."""
        if client.state is ClientState.CONNECTING:
            client.state = ClientState.CONNECTED
            self._timers.cancel(client.session)
            self._waiting.discard(client.session, client.session.client_address)
            self._engine.send(client.session, connect_packet(client.namespace, client.sid), now)
            self.pump(now)

    def refuse(self, client: Client, message: str, data: Any, now: float) -> None:
        """Keep the client out of its namespace: its "connect_error" has the message, and the data unless it is None."""
        if client.state is ClientState.CONNECTING:
            reason = {"message": message} if data is None else {"message": message, "data": data}
            self._remove(client)
            self._send(client, packet.CONNECT_ERROR, reason, now)

    def emit(self, client: Client, event: str, *args: Any, now: float, ack_id: int | None = None) -> None:
        """Send an event, whose arguments may hold bytes; with ``ack_id`` the client's answer is an ``AckReceived``.

        Ignored when the client is not connected. Raises ValueError or TypeError for a value that JSON has no words for.
        """
        if client.state is ClientState.CONNECTED:
            self._send(client, packet.EVENT, [event, *args], now, ack_id)
            if ack_id is not None:
                client.awaited |= {ack_id}

    def acknowledge(self, client: Client, ack_id: int, args: Sequence[Any], now: float) -> None:
        """Answer an event that came with an ack id; ignored when the client is not connected. Raises like ``emit``."""
        if client.state is ClientState.CONNECTED:
            self._send(client, packet.ACK, list(args), now, ack_id)

    def disconnect(self, client: Client, now: float) -> None:
        """Put the client out of its namespace for good: it sees "io server disconnect", and stays away by itself.

        With the last of its clients the session ends, too.
        """
        if client.state is ClientState.CONNECTED:
            self._send(client, packet.DISCONNECT, None, now)
        if client.state is not ClientState.GONE:
            self._leave(client, CloseReason.SERVER_DISCONNECT)
            if not self._state_of[client.session].clients:
                self._engine.end(client.session, CloseReason.SERVER_DISCONNECT, Farewell.STAY_AWAY, now)
                self.pump(now)

    def drop(self, session: Session, reason: CloseReason, now: float) -> None:
        """End a session: its clients see "transport close" and come back by themselves. Idempotent."""
        self._engine.drop(session, reason, now)
        self.pump(now)

    @staticmethod
    def encode(event: str, args: Sequence[Any], namespace: str = "/") -> Encoded:
        """Encode an event once, for any number of clients of a namespace; its arguments hold no bytes.

        Raises ValueError or TypeError for a value that JSON has no words for.
        """
        return Encoded.message(encode_packet(packet.EVENT, [event, *args], namespace, binary=False)[0])

    def send_encoded(self, client: Client, encoded: Encoded, now: float) -> None:
        """Send an encoded event; ignored when the client is not connected."""
        if client.state is ClientState.CONNECTED:
            self._engine.send_encoded(client.session, encoded, now)
            self.pump(now)

    def wire_connection(self, session: Session) -> Connection | None:
        """The WebSocket to which a ready frame may be written directly; None for a client that polls or is gone."""
        return self._engine.wire_connection(session)

    # Private -----------------------------------------------------------------------------------------------

    def _on_message(self, session: Session, data: str | bytes, now: float) -> None:
        state = self._state_of[session]
        if state.broken:
            return
        try:
            if (complete := self._parse(state, data)) is not None:
                self._on_packet(state, session, complete, now)
        except BrokenPacket as error:
            self._engine.complaints.say(session.client_address, "packet", str(error), now)
            state.broken = True
            self._engine.end(session, CloseReason.PARSE_ERROR, Farewell.BROKEN, now)

    def _parse(self, state: _SocketIOSession, data: str | bytes) -> Packet | None:
        """The packet that a message completes; None while attachments of it are missing."""
        partial = state.partial
        if isinstance(data, bytes):
            if partial is None:
                raise BrokenPacket("unexpected attachment")
            if not partial.attach(data, self.config.max_payload):
                return None
            state.partial = None
            return partial.packet
        if partial is not None:
            raise BrokenPacket("an attachment was expected")
        parsed = parse_packet(data)
        if parsed.attachments:
            if state.client(parsed.namespace) is None:
                raise BrokenPacket("not connected to this namespace")  # nothing is kept for a stranger
            state.partial = PartialPacket(parsed, len(data))
            return None
        return parsed

    def _on_packet(self, state: _SocketIOSession, session: Session, received: Packet, now: float) -> None:
        kind, namespace, data = received.kind, received.namespace, received.data
        client = state.client(namespace)
        if kind == packet.CONNECT:
            self._on_connect(state, session, namespace, data, now)
        elif client is None:
            raise BrokenPacket("not connected to this namespace")
        elif kind == packet.DISCONNECT:
            if data is not ABSENT:
                raise BrokenPacket("a DISCONNECT has no payload")
            self._leave(client, CloseReason.CLIENT_DISCONNECT)
        elif client.state is not ClientState.CONNECTED:
            raise BrokenPacket("not connected to this namespace yet")
        elif kind in (packet.EVENT, packet.BINARY_EVENT):
            self._on_event(client, received.ack_id, data)
        elif kind in (packet.ACK, packet.BINARY_ACK):
            self._on_ack(client, received.ack_id, data)
        else:
            raise BrokenPacket("only servers send CONNECT_ERROR")

    def _on_connect(self, state: _SocketIOSession, session: Session, namespace: str, auth: Any, now: float) -> None:
        if state.client(namespace) is not None or len(state.clients) >= MAX_NAMESPACES:
            raise BrokenPacket("connected to this namespace before, or to too many")
        if len(namespace) > MAX_NAMESPACE:
            raise BrokenPacket("the namespace is too long")
        if auth is ABSENT:
            auth = {}
        if not isinstance(auth, dict):
            raise BrokenPacket("the payload of CONNECT is an object")
        self._engine.charge(session, CONNECT_PACKETS + len(namespace) // NAMESPACE_PACKET, now)
        client = Client(self._new_id(), namespace, session)
        state.clients += (client,)
        self._events.append(ClientConnecting(client, auth))

    def _on_event(self, client: Client, ack_id: int | None, data: Any) -> None:
        if data is ABSENT:
            return  # as the reference server does
        if not isinstance(data, list) or not data:
            raise BrokenPacket("the payload of EVENT is an array")
        name, *args = data
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or name in RESERVED_EVENTS:
            raise BrokenPacket("no event name")
        self._events.append(EventReceived(client, name, tuple(args), ack_id))

    def _on_ack(self, client: Client, ack_id: int | None, data: Any) -> None:
        if data is ABSENT:
            return  # as the reference server does
        if not isinstance(data, list):
            raise BrokenPacket("the payload of ACK is an array")
        if ack_id is not None and ack_id in client.awaited:
            client.awaited -= {ack_id}
            self._events.append(AckReceived(client, ack_id, tuple(data)))

    def _send(self, client: Client, kind: int, data: Any, now: float, ack_id: int | None = None) -> None:
        for part in encode_packet(kind, data, client.namespace, ack_id):
            self._engine.send(client.session, part, now)
        self.pump(now)

    def _leave(self, client: Client, reason: CloseReason) -> None:
        self._remove(client)
        self._events.append(ClientDisconnected(client, reason))

    def _remove(self, client: Client) -> None:
        client.state = ClientState.GONE
        client.awaited = frozenset()
        state = self._state_of[client.session]
        state.clients = tuple(other for other in state.clients if other is not client)


def _say_too_many(address: str) -> None:
    _LOGGER.info(
        "Ended a session of %s, which has too many without a CONNECT", address,
        extra={"event": "session_ended", "address": address, "reason": "too many without a CONNECT"},
    )  # fmt: skip
