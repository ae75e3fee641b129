"""A pretended network around the protocol server: clients that speak real HTTP and WebSocket bytes to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import h11
import pytest
from attrs import define, field
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import Side, State

from automoderate.protocol import (
    Config,
    Connection,
    Driver,
    EngineIOServer,
    Fanout,
    Peer,
    Session,
    SessionOpened,
    SocketIOServer,
    Write,
)
from automoderate.protocol.outputs import TransportCall, call_transport

ServerT = TypeVar("ServerT", EngineIOServer, SocketIOServer)
Feed = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[index : index + 1]


def in_sevens(data: bytes) -> Iterator[bytes]:
    for index in range(0, len(data), 7):
        yield data[index : index + 7]


FEEDS = {"whole": whole, "bytes": byte_by_byte, "sevens": in_sevens}


@define
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@define(eq=False)
class Line(Generic[ServerT]):
    """One TCP connection, seen from the client."""

    net: Net[ServerT]
    connection: Connection = field(init=False)
    received: bytearray = field(factory=bytearray)
    unread: bytearray = field(factory=bytearray)
    ended: str | None = None
    writes: int = 0
    paused: bool = False
    """The server does not want to hear more for now."""
    _socket: WebSocketProtocol | None = None
    frames: list[Frame] = field(factory=list)
    waiting = 0

    def write(self, data: bytes) -> int:
        assert self.ended is None
        self.writes += 1
        self.received += data
        self.unread += data
        return len(data)

    def keep(self, _rest: memoryview) -> None:
        raise AssertionError("every write takes everything")

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def send_eof(self) -> None:
        self.ended = self.ended or "eof"

    def close(self) -> None:
        self.ended = "closed" if self.ended in (None, "eof") else self.ended

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    # bytes
    def send(self, data: bytes) -> None:
        for piece in self.net.feed(data):
            self.net.server.receive_data(self.connection, piece, self.net.now)
            self.net.settle()

    def eof(self) -> None:
        self.net.server.receive_eof(self.connection, self.net.now)
        self.net.settle()

    def lose(self) -> None:
        self.ended = self.ended or "lost"
        self.net.server.connection_lost(self.connection, self.net.now)
        self.net.settle()

    # HTTP
    def request(
        self, method: str, target: str, body: bytes | None = None, headers: tuple[tuple[str, str], ...] = (),
        host: str | None = "server.test",
    ) -> None:  # fmt: skip
        lines = [f"{method} {target} HTTP/1.1"]
        if host is not None:
            lines.append(f"Host: {host}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.send(head + (body or b""))

    def reply(self) -> Reply | None:
        """The answer to the oldest request that has none yet; None while it is not there."""
        if not self.unread:
            return None
        probe = h11.Connection(h11.CLIENT)
        probe.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        probe.send(h11.EndOfMessage())
        probe.receive_data(bytes(self.unread))
        if self.ended:
            probe.receive_data(b"")
        response: h11.Response | None = None
        body = b""
        while True:
            event = probe.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return None
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                return None
        self.unread = bytearray(probe.trailing_data[0])
        assert response is not None
        headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
        return Reply(response.status_code, headers, body)

    def answered(self) -> Reply:
        reply = self.reply()
        assert reply is not None, bytes(self.unread)
        return reply

    def get(self, target: str, *headers: tuple[str, str]) -> Reply:
        self.request("GET", target, headers=headers)
        return self.answered()

    def post(self, target: str, body: str | bytes, *headers: tuple[str, str]) -> Reply:
        raw = body.encode() if isinstance(body, str) else body
        self.request("POST", target, raw, headers=headers)
        return self.answered()

    # WebSocket
    def upgrade(self, target: str, *headers: tuple[str, str]) -> None:
        self.send(upgrade_request(target, *headers))
        assert self.unread.startswith(b"HTTP/1.1 101"), bytes(self.unread)
        self.unread = bytearray(self.unread.partition(b"\r\n\r\n")[2])

    def say(self, *messages: str | bytes) -> None:
        """Send messages in masked frames."""
        self.send(b"".join(client_frame(message) for message in messages))

    def messages(self) -> list[str | bytes]:
        """The messages that have arrived since the last call; close frames are kept in ``frames``."""
        if self._socket is None:
            self._socket = WebSocketProtocol(Side.CLIENT, state=State.OPEN)
        self._socket.receive_data(bytes(self.unread))
        self.unread.clear()
        assert self._socket.parser_exc is None, self._socket.parser_exc
        messages: list[str | bytes] = []
        for frame in self._socket.events_received():
            assert isinstance(frame, Frame)
            self.frames.append(frame)
            if frame.opcode is Opcode.TEXT:
                messages.append(bytes(frame.data).decode())
            elif frame.opcode is Opcode.BINARY:
                messages.append(bytes(frame.data))
        return messages

    def close_code(self) -> int | None:
        """What a client reports of the server's close frame: its code, 1005 where it has none; None without a frame."""
        self.messages()
        for frame in self.frames:
            if frame.opcode is Opcode.CLOSE:
                return int.from_bytes(bytes(frame.data[:2]), "big") if frame.data else 1005
        return None


def client_frame(message: str | bytes) -> bytes:
    if isinstance(message, str):
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)
    return Frame(Opcode.BINARY, message).serialize(mask=True)


def upgrade_request(target: str, *headers: tuple[str, str]) -> bytes:
    lines = [
        f"GET {target} HTTP/1.1", "Host: server.test", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *(f"{name}: {value}" for name, value in headers),
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@define(eq=False)
class Net(Generic[ServerT]):
    """The server, its clock and its connections."""

    server: ServerT
    feed: Feed
    now: float = 1000.0
    events: list[Any] = field(factory=list)
    react: Callable[[Any], None] | None = None

    def connect(self, address: str = "192.0.2.1", scheme: str = "http") -> Line[ServerT]:
        line: Line[ServerT] = Line(self)
        line.connection = self.server.connect(line, Peer(address, 50000, scheme), self.now)
        self.settle()
        return line

    def settle(self) -> None:
        """Do what the layers above and below would, until nothing waits for its turn."""
        self.perform()
        while (deadline := self.server.next_deadline()) is not None and deadline <= self.now:
            self.server.tick(self.now)
            self.perform()

    def perform(self) -> None:
        """Hand out events and perform outputs."""
        while (event := self.server.next_event()) is not None:
            self.events.append(event)
            if self.react is not None:
                self.react(event)
        for output in self.server.outputs():
            if isinstance(output, Write):
                output.connection.write(output.data)
            elif isinstance(output, Fanout):
                for connections, data in output.writes:
                    for connection in connections:
                        connection.write(data)
            elif isinstance(output, TransportCall):
                call_transport(output)

    def wait(self, seconds: float) -> None:
        """Let time pass, ticking at every deadline on the way."""
        end = self.now + seconds
        while (deadline := self.server.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.server.tick(self.now)
            self.settle()
        self.now = end

    def taken(self, kind: type[Any]) -> list[Any]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def session(self) -> Session:
        """The session opened last."""
        session = self.taken(SessionOpened)[-1].session
        assert isinstance(session, Session)
        return session


@pytest.fixture(params=sorted(FEEDS))
def feed(request: pytest.FixtureRequest) -> Feed:
    """How a client's bytes are cut on their way to the server."""
    return FEEDS[request.param]


def counter() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"id{next(numbers)}"


def settings(**changes: Any) -> Config:
    """The configuration most tests use, with changes: small limits, so that tests can exceed them."""
    limits: dict[str, Any] = {"path": "/engine.io/", "max_payload": 10_000, "send_buffer": 20_000}
    return Config(**{**limits, **changes})


@pytest.fixture
def config() -> Config:
    return settings()


@pytest.fixture
def engine(config: Config, feed: Feed) -> Net[EngineIOServer]:
    return Net(EngineIOServer(config, new_id=counter()), feed)


@pytest.fixture
def sio(config: Config, feed: Feed) -> Net[SocketIOServer]:
    return Net(SocketIOServer(config, new_id=counter()), feed)


@pytest.fixture
def make(feed: Feed) -> Callable[..., Net[Any]]:
    """Makes a network around a server of the given class, with changed settings."""

    def build(kind: type[Any], credential: Any = None, **changes: Any) -> Net[Any]:
        more = {} if credential is None else {"credential": credential}
        return Net(kind(settings(**changes), new_id=counter(), **more), feed)

    return build


class Driven:
    """What the network asks of a server, without events: the layer inside acts on them itself."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def next_event(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


@pytest.fixture
def around(feed: Feed) -> Callable[[Driver], Net[Any]]:
    """Makes a network around an application."""

    def build(driver: Driver) -> Net[Any]:
        served: Any = Driven(driver)
        return Net(served, feed)

    return build


@pytest.fixture
def helpers() -> Any:
    """Bytes that clients send, for tests that put them together themselves."""

    class Helpers:
        upgrade_request = staticmethod(upgrade_request)
        client_frame = staticmethod(client_frame)

        @staticmethod
        def close_frame(code: int) -> bytes:
            return Frame(Opcode.CLOSE, code.to_bytes(2, "big")).serialize(mask=True)

    return Helpers
