"""Socket.IO 5: namespaces, events, acknowledgements and binary attachments on top of Engine.IO sessions.

``SocketServer`` is driven like ``EngineServer``: after every input drain ``next_event()``, act on the events, then
drain ``outputs()``. Every ``ClientConnecting`` has to be answered with ``accept`` or ``refuse``.
"""

from __future__ import annotations

import enum
import json
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NoReturn

from attrs import define
from socketio import packet

from automoderate.protocol.broadcast import dump_json, object_text
from automoderate.protocol.config import Config
from automoderate.protocol.engineio import EngineServer
from automoderate.protocol.events import (
    AckReceived,
    ClientConnecting,
    ClientDisconnected,
    CloseReason,
    EngineEvent,
    EventReceived,
    MessageReceived,
    Request,
    SessionClosed,
    SessionOpened,
    SocketEvent,
)
from automoderate.protocol.http import Connection, Header
from automoderate.protocol.outputs import Output, Peer, Transport
from automoderate.protocol.session import Encoded, Session
from automoderate.protocol.timers import Timers, earliest

MAX_ATTACHMENTS = 64
"""Binary attachments one packet may have."""
MAX_NAMESPACES = 64
"""Namespaces one session may be in at a time."""
MAX_DEPTH = 64
"""Arrays and objects that a packet's data may be nested in each other."""
MAX_ACK_ID = 2**53 - 1
"""The largest integer a JavaScript client can tell from its neighbours."""
RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names that Socket.IO libraries use themselves; a client that sends one breaks the protocol."""


class _Invalid(ValueError):
    """A packet that breaks the protocol."""


class _Json:
    """JSON as JavaScript reads it: python-socketio's packets are encoded and decoded with this."""

    @staticmethod
    def dumps(value: Any, separators: tuple[str, str]) -> str:
        return dump_json(value, separators)

    @staticmethod
    def loads(text: str) -> Any:
        return _DECODER.decode(text)


def _no_number(text: str) -> NoReturn:
    raise _Invalid(f"{text} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Invalid("number out of range")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


class _Packet(packet.Packet):  # type: ignore[misc]
    json = _Json


def _too_deep(value: Any) -> bool:
    """Whether arrays and objects are nested beyond ``MAX_DEPTH``: what is let in can be sent on without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return bool(level)


def _encode(kind: int, data: Any, namespace: str, ack_id: int | None = None, binary: bool | None = None) -> list[Any]:
    """A packet and its attachments. Raises ValueError or TypeError for what JSON cannot say."""
    try:
        encoded = _Packet(kind, data, namespace=namespace, id=ack_id, binary=binary).encode()
    except RecursionError:
        raise ValueError("nested too deeply, or in itself") from None
    return encoded if isinstance(encoded, list) else [encoded]


def _connect_packet(client: Client) -> str:
    """What ``_encode`` makes of it, with the fast encoder: every client that comes back after a restart gets one."""
    namespace = "" if client.namespace == "/" else f"{client.namespace},"
    return f"{packet.CONNECT}{namespace}{object_text({'sid': client.sid})}"


class ClientState(enum.Enum):
    """The life of a client in one namespace."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    GONE = "gone"


@define(eq=False)
class Client:
    """One session in one namespace."""

    sid: str
    """The Socket.IO id, another one than the session's."""
    namespace: str
    session: Session
    state: ClientState = ClientState.CONNECTING
    awaited: frozenset[int] = frozenset()
    """Ids of events the client has been asked to acknowledge."""


@define(eq=False)
class _Peer:
    """What Socket.IO remembers of an Engine.IO session."""

    clients: tuple[Client, ...] = ()
    """One of each namespace it is in."""
    partial: _Packet | None = None
    """A packet whose attachments are still arriving."""
    partial_size: int = 0
    broken: bool = False
    """It broke the protocol: what it sent afterwards is not read."""

    def client(self, namespace: str) -> Client | None:
        """The one in that namespace."""
        return next((client for client in self.clients if client.namespace == namespace), None)


class SocketServer:
    """The Socket.IO server; the driver methods are those of ``EngineServer``."""

    def __init__(
        self, config: Config, *, new_id: Callable[[], str], credential: Callable[[Request], Hashable] = lambda _: None
    ) -> None:
        self.config = config
        self._engine = EngineServer(config, new_id=new_id, credential=credential)
        self.has_outputs = self._engine.has_outputs
        """Whether ``outputs`` may have something. Bound here, as every update of every room asks."""
        self._new_id = new_id
        self._peers: dict[Session, _Peer] = {}
        self._timers: Timers[Session] = Timers()
        self._events: deque[SocketEvent] = deque()

    # Driver ------------------------------------------------------------------------------------------------

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        """A TCP connection was accepted."""
        connection = self._engine.connect(transport, peer, now)
        self._pump(now)
        return connection

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        """Bytes arrived."""
        self._engine.receive_data(connection, data, now)
        self._pump(now)

    def receive_eof(self, connection: Connection, now: float) -> None:
        """The peer will send no more."""
        self._engine.receive_eof(connection, now)
        self._pump(now)

    def connection_lost(self, connection: Connection, now: float) -> None:
        """The connection is gone, whoever ended it; idempotent."""
        self._engine.connection_lost(connection, now)
        self._pump(now)

    def respond(self, connection: Connection, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        """Start the answer to the connection's application request; ignored when that is over."""
        self._engine.respond(connection, status, reason, headers, now)
        self._pump(now)

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        """A piece of the answer's body."""
        self._engine.respond_body(connection, data, now)
        self._pump(now)

    def respond_end(self, connection: Connection, now: float) -> None:
        """The answer is complete."""
        self._engine.respond_end(connection, now)
        self._pump(now)

    def tick(self, now: float) -> None:
        """Act on every deadline that has passed; harmless at any other time."""
        self._engine.tick(now)
        self._pump(now)

    def next_deadline(self) -> float | None:
        """When to call ``tick`` at the latest."""
        return earliest(self._engine.next_deadline(), self._timers.next())

    def outputs(self) -> list[Output]:
        """What is to be done, in order."""
        return self._engine.outputs()

    @property
    def misrouted(self) -> int:
        """Requests so far for sessions of other nodes."""
        return self._engine.routing.misrouted

    def drain(self, now: float) -> None:
        """Close every session so that its client comes back by itself, and refuse new ones with 503."""
        self._engine.drain(now)
        self._pump(now)

    def drained(self) -> bool:
        """True once ``drain`` was called and nothing is left that deserves waiting for."""
        return self._engine.drained()

    def settle(self, connection: Connection, allowed: bool, now: float) -> None:
        """Decide about the request of a ``CredentialChanged``; ignored when that connection is gone."""
        self._engine.settle(connection, allowed, now)
        self._pump(now)

    # Clients -----------------------------------------------------------------------------------------------

    def next_event(self) -> SocketEvent | None:
        """The next event; None when all have been handed out."""
        return self._events.popleft() if self._events else None

    def accept(self, client: Client, now: float) -> None:
        """Let the client into its namespace; ignored when it is gone or has been let in before."""
        if client.state is ClientState.CONNECTING:
            client.state = ClientState.CONNECTED
            self._timers.cancel(client.session)
            self._engine.send(client.session, _connect_packet(client), now)
            self._pump(now)

    def refuse(self, client: Client, message: str, data: Any, now: float) -> None:
        """Keep the client out of its namespace; its "connect_error" has the message, and the data unless None."""
        if client.state is ClientState.CONNECTING:
            reason = {"message": message} if data is None else {"message": message, "data": data}
            self._remove(client)
            self._send(client, packet.CONNECT_ERROR, reason, now)

    def emit(self, client: Client, event: str, *args: Any, now: float, ack_id: int | None = None) -> None:
        """Send an event, binary arguments included; with ``ack_id`` the client's answer is an ``AckReceived``.

        Ignored when the client is not connected. Raises ValueError or TypeError for what JSON cannot say.
        """
        if client.state is ClientState.CONNECTED:
            self._send(client, packet.EVENT, [event, *args], now, ack_id)
            if ack_id is not None:
                client.awaited |= {ack_id}

    def acknowledge(self, client: Client, ack_id: int, args: Sequence[Any], now: float) -> None:
        """Answer an event that came with an ack id. Raises ValueError or TypeError for what JSON cannot say."""
        if client.state is ClientState.CONNECTED:
            self._send(client, packet.ACK, list(args), now, ack_id)

    def disconnect(self, client: Client, now: float) -> None:
        """Put the client out of its namespace ("io server disconnect"); the last one closes the session."""
        if client.state is ClientState.CONNECTED:
            self._send(client, packet.DISCONNECT, None, now)
        if client.state is not ClientState.GONE:
            self._leave(client, CloseReason.SERVER_DISCONNECT)
            if not self._peers[client.session].clients:
                self.close(client.session, CloseReason.SERVER_DISCONNECT, now)

    def close(self, session: Session, reason: CloseReason, now: float) -> None:
        """End a session; its clients see "transport close" and come back by themselves. Idempotent."""
        self._engine.close(session, reason, now)
        self._pump(now)

    @staticmethod
    def encode(event: str, args: Sequence[Any], namespace: str = "/") -> Encoded:
        """Encode an event without binary arguments once, for any number of clients of one namespace.

        Raises ValueError or TypeError for what JSON cannot say.
        """
        return Encoded.message(_encode(packet.EVENT, [event, *args], namespace, binary=False)[0])

    def send_encoded(self, client: Client, encoded: Encoded, now: float) -> None:
        """Send an encoded event; ignored when the client is not connected."""
        if client.state is ClientState.CONNECTED:
            self._engine.send_encoded(client.session, encoded, now)
            self._pump(now)

    def wire_connection(self, session: Session) -> Connection | None:
        """The WebSocket that may be written a ready frame directly; None while polling or upgrading, and at the end."""
        return self._engine.wire_connection(session)

    # Private -----------------------------------------------------------------------------------------------

    def _pump(self, now: float) -> None:
        """Turn what happened to Engine.IO sessions into events of Socket.IO clients."""
        while (session := self._timers.pop_due(now)) is not None:
            self._engine.close(session, CloseReason.CONNECT_TIMEOUT, now)
        while (event := self._engine.next_event()) is not None:
            self._on_engine_event(event, now)

    def _on_engine_event(self, event: EngineEvent, now: float) -> None:
        if isinstance(event, MessageReceived):
            self._on_message(event.session, event.data, now)
            return
        if isinstance(event, SessionOpened):
            self._peers[event.session] = _Peer()
            self._timers.set(event.session, now + self.config.connect_timeout)
        elif isinstance(event, SessionClosed):
            self._timers.cancel(event.session)
            for client in self._peers[event.session].clients:
                self._leave(client, event.reason)
            del self._peers[event.session]
        self._events.append(event)

    def _on_message(self, session: Session, data: str | bytes, now: float) -> None:
        peer = self._peers[session]
        if peer.broken:
            return
        try:
            complete = self._attach(peer, data) if isinstance(data, bytes) else self._parse(peer, data)
            if complete is not None:
                self._on_packet(peer, session, complete)
        except _Invalid:
            peer.broken = True
            self._engine.close(session, CloseReason.PARSE_ERROR, now)

    def _parse(self, peer: _Peer, text: str) -> _Packet | None:
        """The packet in a text message; None while its attachments are missing."""
        if peer.partial is not None:
            raise _Invalid("an attachment was expected")
        if text[:1] not in tuple("0123456"):
            raise _Invalid("unknown packet type")
        try:
            parsed = _Packet(encoded_packet=text)
        except Exception as error:
            # The parser is python-socketio's: text that is no packet makes it raise a good many things, among them
            # RecursionError for JSON nested too deeply.
            raise _Invalid("no packet") from error
        if text.count("[") + text.count("{") > MAX_DEPTH and _too_deep(parsed.data):
            raise _Invalid("nested too deeply")
        if parsed.packet_type not in (packet.BINARY_EVENT, packet.BINARY_ACK):
            if parsed.attachment_count:
                raise _Invalid("attachments to a packet that has none")
            return parsed
        if parsed.attachment_count > MAX_ATTACHMENTS:
            raise _Invalid("too many attachments")
        if parsed.attachment_count == 0:
            return parsed
        peer.partial, peer.partial_size = parsed, len(text)
        return None

    def _attach(self, peer: _Peer, data: bytes) -> _Packet | None:
        partial = peer.partial
        if partial is None:
            raise _Invalid("unexpected attachment")
        peer.partial_size += len(data)
        if peer.partial_size > self.config.max_payload:
            raise _Invalid("attachments too large")
        try:
            complete = partial.add_attachment(data)
        except Exception as error:
            raise _Invalid("attachments do not fit the packet") from error
        if not complete:
            return None
        peer.partial = None
        return partial

    def _on_packet(self, peer: _Peer, session: Session, received: _Packet) -> None:
        namespace, data = received.namespace or "/", received.data
        client = peer.client(namespace)
        kind = received.packet_type
        if kind == packet.CONNECT:
            self._on_connect(peer, session, namespace, data)
        elif client is None:
            raise _Invalid("not connected to this namespace")
        elif kind == packet.DISCONNECT:
            if data is not None:
                raise _Invalid("a DISCONNECT has no payload")
            self._leave(client, CloseReason.CLIENT_DISCONNECT)
        elif client.state is not ClientState.CONNECTED:
            raise _Invalid("not connected to this namespace yet")
        elif kind in (packet.EVENT, packet.BINARY_EVENT):
            self._on_event(client, received.id, data)
        elif kind in (packet.ACK, packet.BINARY_ACK):
            self._on_ack(client, received.id, data)
        else:
            raise _Invalid("only servers send CONNECT_ERROR")

    def _on_connect(self, peer: _Peer, session: Session, namespace: str, auth: Any) -> None:
        if peer.client(namespace) is not None or len(peer.clients) >= MAX_NAMESPACES:
            raise _Invalid("connected to this namespace before, or to too many")
        if auth is None:
            auth = {}
        if not isinstance(auth, dict):
            raise _Invalid("the payload of CONNECT is an object")
        client = Client(self._new_id(), namespace, session)
        peer.clients += (client,)
        self._events.append(ClientConnecting(client, auth))

    def _on_event(self, client: Client, ack_id: int | None, data: Any) -> None:
        if ack_id is not None and ack_id > MAX_ACK_ID:
            raise _Invalid("ack id out of range")
        if not isinstance(data, list) or not data:
            raise _Invalid("the payload of EVENT is an array")
        name, *args = data
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or name in RESERVED_EVENTS:
            raise _Invalid("no event name")
        self._events.append(EventReceived(client, name, tuple(args), ack_id))

    def _on_ack(self, client: Client, ack_id: int | None, data: Any) -> None:
        if ack_id is None or not isinstance(data, list):
            raise _Invalid("an ACK has an id and an array")
        if ack_id in client.awaited:
            client.awaited -= {ack_id}
            self._events.append(AckReceived(client, ack_id, tuple(data)))

    def _send(self, client: Client, kind: int, data: Any, now: float, ack_id: int | None = None) -> None:
        for part in _encode(kind, data, client.namespace, ack_id):
            self._engine.send(client.session, part, now)
        self._pump(now)

    def _leave(self, client: Client, reason: CloseReason) -> None:
        self._remove(client)
        self._events.append(ClientDisconnected(client, reason))

    def _remove(self, client: Client) -> None:
        client.state = ClientState.GONE
        client.awaited = frozenset()
        peer = self._peers[client.session]
        peer.clients = tuple(other for other in peer.clients if other is not client)
