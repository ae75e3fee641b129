"""A Socket.IO client in memory, which speaks real HTTP, WebSocket, Engine.IO and Socket.IO to the simulated server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from attrs import frozen
from engineio import packet as engine_packet
from socketio import packet as socket_packet
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from automoderate.testing.http import HttpRequests
from automoderate.testing.network import SimulatedConnection, SimulatedNetwork

TransportName: TypeAlias = Literal["websocket", "polling", "upgrade"]
"""How a client connects: by one transport, or by long-polling with an upgrade to WebSocket."""

PATH = "/socket.io/"


@frozen
class ReceivedEvent:
    """One event that a client was sent, and when, in seconds of virtual time."""

    event: str
    args: tuple[Any, ...]
    at: float

    @property
    def data(self) -> Any:
        """The event's first argument; None where it has none."""
        return self.args[0] if self.args else None


class SimulatedClient:
    """A Socket.IO client of the default namespace, over WebSocket, polling, or polling upgraded to WebSocket."""

    def __init__(
        self, simulation: SimulatedNetwork, transport: TransportName, headers: Mapping[str, str], address: str
    ) -> None:
        self.sid: str | None = None
        self.connected = False
        """Whether the namespace is connected."""
        self.received: list[ReceivedEvent] = []
        self.on_event: Callable[[ReceivedEvent], None] = lambda _: None
        self.ended: str | None = None
        """Why the session ended: "io server disconnect", "io client disconnect" or "transport close"."""
        self.refused: int | None = None
        """The HTTP status of the handshake, where it was refused."""
        self.upgraded = False
        self.headers = dict(headers)
        """Sent with each request. Change it to be somebody else, or to have the cookie renewed."""
        self._simulation = simulation
        self._kind = transport
        self._address = address
        self._engine_sid: str | None = None
        self._socket: ClientProtocol | None = None
        self._socket_connection: SimulatedConnection | None = None
        self._getter, self._poster = (HttpRequests(self._dial, self.headers, self._lost) for _ in range(2))
        self._outbox: list[str | bytes] = []
        self._paused = False
        self._acks: dict[int, Callable[..., None]] = {}
        self._last_ack = 0
        self._partial: socket_packet.Packet | None = None
        if transport == "websocket":
            self._open_socket()
        else:
            self._getter.request("GET", self._target("polling"), b"", self._on_poll)

    # What a test does

    def emit(self, event: str, *args: Any, ack: Callable[..., None] | None = None) -> None:
        """Send an event; ``ack(*args)`` is called with the server's acknowledgement."""
        ack_id = None
        if ack is not None:
            self._last_ack += 1
            ack_id = self._last_ack
            self._acks[ack_id] = ack
        self._send_packet(socket_packet.Packet(socket_packet.EVENT, [event, *args], id=ack_id))

    def call(self, event: str, *args: Any) -> Any:
        """Send an event, let the simulation run, and return the acknowledgement.

        :raises AssertionError: where none came.
        """
        answers: list[Any] = []
        self.emit(event, *args, ack=lambda *values: answers.append(values[0] if values else None))
        self._simulation.run()
        assert answers, f"{event!r} was not acknowledged"
        return answers[0]

    def events(self, event: str) -> list[Any]:
        """The data of every event of that name, in order of arrival."""
        return [received.data for received in self.received if received.event == event]

    def disconnect(self) -> None:
        """Disconnect the namespace, as ``socket.disconnect()`` does."""
        self._send_packet(socket_packet.Packet(socket_packet.DISCONNECT))
        self._finish("io client disconnect")

    def cut(self) -> None:
        """Let the network fail: every connection of this client breaks."""
        for connection in self.connections():
            connection.cut()
        self._lost()

    def stall(self) -> None:
        """Stop reading."""
        for connection in self.connections():
            connection.stall()

    def resume(self) -> None:
        """Read again."""
        for connection in self.connections():
            connection.resume()

    def connections(self) -> list[SimulatedConnection]:
        """The client's TCP connections."""
        connections = [*self._getter.connections(), *self._poster.connections()]
        return connections if self._socket_connection is None else [*connections, self._socket_connection]

    # Connections

    def _dial(self) -> SimulatedConnection:
        return SimulatedConnection(self._simulation, self._address)

    def _lost(self) -> None:
        if self._socket is not None and not self.upgraded and self._kind == "upgrade" and self._getter.busy:
            self._socket = self._socket_connection = None  # Only the probe failed; polling goes on.
            self._paused = False
            return
        self._finish("transport close")

    def _finish(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            self.connected = False

    def _target(self, transport: str) -> str:
        sid = "" if self._engine_sid is None else f"&sid={self._engine_sid}"
        return f"{PATH}?EIO=4&transport={transport}{sid}"

    # WebSocket

    def _open_socket(self) -> None:
        self._socket = ClientProtocol(parse_uri("ws://localhost:6217" + self._target("websocket")))
        self._socket_connection = self._dial()
        self._socket_connection.on_data = self._on_socket_data
        self._socket_connection.on_lost = self._lost
        request = self._socket.connect()
        for name, value in self.headers.items():
            request.headers[name] = value
        self._socket.send_request(request)
        self._flush_socket()

    def _flush_socket(self) -> None:
        if self._socket is not None and self._socket_connection is not None:
            for data in self._socket.data_to_send():
                if data:
                    self._socket_connection.send(data)

    def _on_socket_data(self, data: bytes) -> None:
        if self._socket is None:
            return
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Response):
                self._on_handshake(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                data = bytes(event.data)
                self._on_engine_packet(data.decode() if event.opcode is Opcode.TEXT else data, on_socket=True)
        self._flush_socket()

    def _on_handshake(self, response: Response) -> None:
        if response.status_code != 101:
            self.refused = response.status_code
            self._finish("transport close")
        elif self._kind == "upgrade":
            self._send_on_socket("2probe")

    def _send_on_socket(self, data: str | bytes) -> None:
        if self._socket is None or self._socket.state is not State.OPEN:
            return
        if isinstance(data, str):
            self._socket.send_text(data.encode())
        else:
            self._socket.send_binary(data)
        self._flush_socket()

    # Polling

    def _on_poll(self, status: int, body: bytes) -> None:
        if status != 200:
            self.refused = status if self._engine_sid is None else self.refused
            self._finish("transport close")
            return
        for part in body.decode().split("\x1e"):
            if self.ended is None:
                self._on_engine_packet(part, on_socket=False)
        if self.ended is not None or self.upgraded:
            return
        if self._paused:
            self._complete_upgrade()
        else:
            self._getter.request("GET", self._target("polling"), b"", self._on_poll)

    def _flush_posts(self) -> None:
        if self._outbox and not self._poster.busy and self._engine_sid is not None and self.ended is None:
            packets, self._outbox = self._outbox, []
            body = "\x1e".join(part if isinstance(part, str) else _base64(part) for part in packets)
            self._poster.request("POST", self._target("polling"), body.encode(), self._on_posted)

    def _on_posted(self, status: int, _body: bytes) -> None:
        if status != 200:
            self._finish("transport close")
        elif self._paused and not self._getter.busy:
            self._complete_upgrade()
        else:
            self._flush_posts()

    def _complete_upgrade(self) -> None:
        """Both polling requests are over: the WebSocket takes the session from here."""
        if self._poster.busy or self.upgraded:
            return
        self.upgraded = True
        self._send_on_socket("5")
        waiting, self._outbox = self._outbox, []
        for data in waiting:
            self._send_on_socket(data)

    # Engine.IO

    def _send_message(self, data: str | bytes) -> None:
        encoded = engine_packet.Packet(engine_packet.MESSAGE, data).encode()
        self._send_engine(encoded)

    def _send_engine(self, encoded: str | bytes) -> None:
        if self._kind == "websocket" or self.upgraded:
            self._send_on_socket(encoded)
        else:
            self._outbox.append(encoded)
            if not self._paused:
                self._flush_posts()

    def _on_engine_packet(self, encoded: str | bytes, *, on_socket: bool) -> None:
        received = engine_packet.Packet(encoded_packet=encoded)
        if received.packet_type == engine_packet.OPEN:
            self._engine_sid = received.data["sid"]
            self._send_packet(socket_packet.Packet(socket_packet.CONNECT))
            if self._kind == "upgrade":
                self._open_socket()
        elif received.packet_type == engine_packet.PING:
            self._send_engine("3")
        elif received.packet_type == engine_packet.PONG and on_socket:
            self._paused = True
            if not self._getter.busy:
                self._complete_upgrade()
        elif received.packet_type == engine_packet.CLOSE:
            self._finish("transport close")
        elif received.packet_type == engine_packet.MESSAGE:
            self._on_message(received.data)

    # Socket.IO

    def _send_packet(self, packet: socket_packet.Packet) -> None:
        encoded = packet.encode()
        for part in encoded if isinstance(encoded, list) else [encoded]:
            self._send_message(part)

    def _on_message(self, data: Any) -> None:
        if self._partial is not None:
            if not self._partial.add_attachment(data):
                return
            received, self._partial = self._partial, None
        else:
            received = socket_packet.Packet(encoded_packet=data)
            if received.attachment_count:
                self._partial = received
                return
        self._on_packet(received)

    def _on_packet(self, received: socket_packet.Packet) -> None:
        if received.packet_type == socket_packet.CONNECT:
            self.sid = received.data["sid"]
            self.connected = True
        elif received.packet_type == socket_packet.DISCONNECT:
            self._finish("io server disconnect")
        elif received.packet_type in (socket_packet.EVENT, socket_packet.BINARY_EVENT):
            item = ReceivedEvent(received.data[0], tuple(received.data[1:]), self._simulation.now)
            self.received.append(item)
            self.on_event(item)
        elif received.packet_type in (socket_packet.ACK, socket_packet.BINARY_ACK):
            answer = self._acks.pop(received.id, None)
            if answer is not None:
                answer(*received.data)


def _base64(data: bytes) -> str:
    return str(engine_packet.Packet(engine_packet.MESSAGE, data).encode(b64=True))
