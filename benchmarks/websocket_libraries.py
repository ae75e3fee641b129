"""Compare the two sans-IO WebSocket libraries, wsproto and websockets, at what a server of many clients does with one.

    python -m benchmarks.websocket_libraries

Three costs: encoding a broadcast (one server text frame), answering an opening handshake, parsing masked client
frames. And strictness: what each library does with frames that RFC 6455 forbids. wsproto is in the ``test`` extra.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from attrs import frozen
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, CloseConnection, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from automoderate.protocol import Peer, Request
from automoderate.protocol.handshake import accept_value
from automoderate.protocol.websocket import WebSocket, WebSocketEnd

ROUNDS = 7
LIMIT = 1_000_000
REFUSALS = frozenset({1002, 1007, 1009})
"""Status codes that say "you broke the protocol or a limit"."""
UPDATE = '42["moderation_update",{"content_preview":"' + "x" * 350 + '"}]'
CLIENT_PACKET = '42["join_project",{"project_id":"5e0ac5cc-9d33-4d1e-b2bb-6f0b6ef5d0a5"}]'
HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HEADERS = (
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
REQUEST = Request("GET", "/", "/", "", HEADERS, "1.1", Peer("192.0.2.1", 1), "192.0.2.1", "http", "example.test")


@frozen
class Cost:
    """Microseconds a piece."""

    what: str
    wsproto: float
    websockets: float


def measure(call: Callable[[], object], repeat: int, pieces: int = 1) -> float:
    """Median microseconds a piece over several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        rounds.append((time.perf_counter() - start) / repeat / pieces * 1e6)
    return statistics.median(rounds)


# Costs --------------------------------------------------------------------------------------------------------


def encode_wsproto() -> Callable[[], object]:
    connection = Connection(ConnectionType.SERVER)
    return lambda: connection.send(TextMessage(data=UPDATE))


def encode_websockets() -> Callable[[], object]:
    return lambda: Frame(Opcode.TEXT, UPDATE.encode()).serialize(mask=False)


def handshake_wsproto() -> object:
    connection = WSConnection(ConnectionType.SERVER)
    connection.receive_data(HANDSHAKE)
    list(connection.events())
    return connection.send(AcceptConnection())


def handshake_websockets() -> object:
    connection = ServerProtocol(max_size=LIMIT)
    connection.receive_data(HANDSHAKE)
    (request,) = connection.events_received()
    connection.send_response(connection.accept(request))  # type: ignore[arg-type]
    return connection.data_to_send()


def frames_after_h11_wsproto() -> object:
    """What is left of a handshake where h11 has read the request: the frame parser."""
    return accept_value(REQUEST), Connection(ConnectionType.SERVER)


def frames_after_h11_websockets() -> object:
    return accept_value(REQUEST), Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)


def parse_wsproto(data: bytes) -> Callable[[], object]:
    connection = Connection(ConnectionType.SERVER)

    def parse() -> object:
        connection.receive_data(data)
        return list(connection.events())

    return parse


def parse_websockets(data: bytes) -> Callable[[], object]:
    connection = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)

    def parse() -> object:
        connection.receive_data(data)
        return [bytes(frame.data).decode() for frame in connection.events_received() if isinstance(frame, Frame)]

    return parse


def client_frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin).serialize(mask=True)


def costs() -> list[Cost]:
    small = client_frame(1, CLIENT_PACKET.encode())
    large = client_frame(1, b"x" * 100_000)
    return [
        Cost("encode a 400-byte text frame", measure(encode_wsproto(), 5000), measure(encode_websockets(), 5000)),
        Cost("opening handshake by itself", measure(handshake_wsproto, 300), measure(handshake_websockets, 300)),
        Cost("accept value and frame parser", measure(frames_after_h11_wsproto, 1000),
             measure(frames_after_h11_websockets, 1000)),
        Cost("parse an 80-byte masked frame", measure(parse_wsproto(small), 2000),
             measure(parse_websockets(small), 2000)),
        Cost("parse one of 50 frames in a read", measure(parse_wsproto(small * 50), 50, 50),
             measure(parse_websockets(small * 50), 50, 50)),
        Cost("parse a 100,000-byte masked frame", measure(parse_wsproto(large), 50),
             measure(parse_websockets(large), 50)),
    ]  # fmt: skip


# Strictness ---------------------------------------------------------------------------------------------------


def raw(head: bytes, payload: bytes = b"") -> bytes:
    """A masked frame that no library would write; the mask is zero."""
    return head + b"\0\0\0\0" + payload


FORBIDDEN = {
    "unmasked frame": b"\x81\x01x",
    "reserved bit set": raw(b"\xc1\x81", b"x"),
    "unknown opcode": raw(b"\x83\x80"),
    "ping of 126 bytes": raw(b"\x89\xfe\x00\x7e", b"x" * 126),
    "fragmented ping": raw(b"\x09\x80"),
    "continuation of nothing": client_frame(0, b"x"),
    "message inside a message": client_frame(1, b"a", fin=False) + client_frame(1, b"b"),
    "invalid UTF-8": client_frame(1, b"\xff"),
    "invalid UTF-8 in fragments": client_frame(1, b"\xc3", fin=False) + client_frame(0, b"("),
    "close frame of one byte": client_frame(8, b"\x03"),
    "close code 1005": client_frame(8, b"\x03\xed"),
    "length beyond 2^63": raw(b"\x82\xff" + b"\xff" * 8),
    f"message over {LIMIT:,} bytes": client_frame(2, b"x" * (LIMIT + 1)),
}


def verdict_wsproto(data: bytes) -> str:
    connection = Connection(ConnectionType.SERVER)
    try:
        connection.receive_data(data)
        events = list(connection.events())
    except (RemoteProtocolError, LocalProtocolError) as error:
        return f"raises {type(error).__name__}"
    closing = [int(event.code) for event in events if isinstance(event, CloseConnection)]
    if closing and closing[0] in REFUSALS:
        return f"refused, {closing[0]}"
    return f"accepted, {len(events)} events"


def verdict_websockets(data: bytes) -> str:
    connection = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)
    connection.receive_data(data)
    frames = connection.events_received()
    if connection.close_sent is not None and connection.parser_exc is not None:
        return f"refused, {int(connection.close_sent.code)}"
    return f"accepted, {len(frames)} frames"


def verdict_ours(data: bytes) -> str:
    """What our own layer on websockets makes of it: it puts messages together and decodes text."""
    wire = WebSocket(LIMIT)
    received, _, _ = wire.receive(data, LIMIT)
    if received and isinstance(end := received[-1], WebSocketEnd):
        return f"refused, {int.from_bytes(end.answer[2:4], 'big')}"
    return f"accepted, {len(received)} messages"


def main() -> None:
    """Print both tables."""
    print(f"{'microseconds each (median of ' + str(ROUNDS) + ')':<36}{'wsproto':>12}{'websockets':>12}")
    for cost in costs():
        print(f"{cost.what:<36}{cost.wsproto:>12.2f}{cost.websockets:>12.2f}")
    print()
    print(f"{'forbidden input':<30}{'wsproto':<22}{'websockets':<22}{'our layer on it':<20}".rstrip())
    for name, data in FORBIDDEN.items():
        verdicts = f"{verdict_wsproto(data):<22}{verdict_websockets(data):<22}{verdict_ours(data):<20}"
        print(f"{name:<30}{verdicts}".rstrip())


if __name__ == "__main__":
    main()
