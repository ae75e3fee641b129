"""The nouns of the protocol: a TCP connection and its peer, a request, an Engine.IO session, a Socket.IO client.

Each has its states beside it. The protocol's servers work on these objects, and events hand them to the layers above.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Protocol

import h11
from attrs import define, field, frozen

from automoderate.protocol.engineio_payload import Kind, encode
from automoderate.protocol.websocket import WebSocket, text_frame


class Transport(Protocol):
    """An accepted TCP connection, as an adapter implements it."""

    @property
    def write(self) -> Callable[[bytes], int]:
        """A function like a non-blocking socket's ``send``.

        It sends what the kernel takes now and returns how many bytes those were, or raises BlockingIOError where it
        takes none. The adapter hands the rest to ``keep``.
        """

    @property
    def waiting(self) -> int:
        """Bytes that were written and have not left, because the peer is slow."""

    def keep(self, rest: memoryview, /) -> object:
        """Buffer the rest of a write, within a bound. Until it has left, the connection's ``write`` adds to it."""

    def pause_reading(self) -> object:
        """Hand nothing more of what the peer sends to the driver, for now."""

    def resume_reading(self) -> object:
        """Read again, unless the stream has ended."""

    def send_eof(self) -> object:
        """Send no more once everything written has left, and read for the end of what the peer sends; idempotent.

        TCP calls it a half-close; with TLS an alert goes before (``close_notify``).
        """

    def close(self) -> object:
        """Close the connection once everything written has left; idempotent."""

    def abort(self) -> object:
        """Close the connection at once and throw away what has not left; idempotent."""


@frozen
class Peer:
    """The other end of a TCP connection: its ``address`` without port ("" for a Unix socket), and our end."""

    address: str
    port: int
    scheme: str = "http"
    local_address: str = "127.0.0.1"
    local_port: int = 0


@define
class Request:
    """The head of an HTTP request: a value. Treat it as immutable: a frozen class would cost half a microsecond.

    ``path`` is percent-decoded, ``target`` is as sent. ``client_address``, ``scheme``, ``host`` and ``prefix`` are as a
    trusted proxy reports them (:mod:`automoderate.protocol.proxies`), else as the connection and the request have them.
    """

    method: str
    target: str
    path: str
    query_string: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in order of arrival; values decoded as Latin-1."""
    http_version: str
    peer: Peer
    client_address: str
    scheme: str
    host: str
    prefix: str = ""

    query: dict[str, str] = field(factory=dict, eq=False)
    """The query's parameters, the last of each name."""
    _values: dict[str, str] = field(eq=False, repr=False)
    """What ``header`` returns, by name, where it is known already."""

    @_values.default
    def _join_values(self) -> dict[str, str]:
        return joined(self.headers)

    content_length: int = field(init=False, eq=False, repr=False)
    """The size of the body as the request announces it; 0 where it does not say."""

    @content_length.default
    def _read_size(self) -> int:
        return int(self._values.get("content-length") or 0)

    def header(self, name: str) -> str | None:
        """The value of a header, several of one name joined with ", "; None where it is absent.

        Cookies are joined with "; ", because a proxy that speaks HTTP/2 to browsers can pass on a header for each.
        """
        return self._values.get(name)


def cookie_of(request: Request) -> str | None:
    """The whole ``Cookie`` header, which says who sends a request; None where there is none."""
    return request.header("cookie")


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The value of each header, as ``Request.header`` returns it."""
    values: dict[str, str] = {}
    for name, value in headers:
        if name in values:
            values[name] += ("; " if name == "cookie" else ", ") + value
        else:
            values[name] = value
    return values


class ConnectionState(enum.Enum):
    """What a connection is busy with."""

    IDLE = "idle"
    """Between requests, or reading a request head."""
    READING = "reading"
    """A protocol request whose body is being read."""
    HELD = "held"
    """A protocol request that waits for a decision about its credential."""
    POLLING = "polling"
    """A poll that waits for packets to its client."""
    APPLICATION = "application"
    """An application request, until its answer is complete."""
    WEBSOCKET = "websocket"
    LINGERING = "lingering"
    """The last answer is written; what still comes in is thrown away."""
    GONE = "gone"


@define(eq=False, weakref_slot=False)
class HttpExchange:
    """A request on a connection and its answer: how far they have come. The next begins where ``begin_anew`` is called.

    Forgotten with the last, like the connection's peer.
    """

    parser: h11.Connection | None = None
    """h11's, where the request or the answer is not of the plain sort."""
    left: int | None = None
    """Bytes of the body that are still to be read; None where h11 counts them, or no head has come."""
    over: bool = False
    """The end of a request whose body is counted here was reported."""
    started: float | None = None
    """When the request began to arrive."""
    searched: int = 0
    """So many of the bytes that are unread are known not to end its head."""
    received: int = 0
    """Bytes of its body so far."""
    chunks: int = 0
    """How many chunks its body has come in so far, where it comes in chunks."""
    bodiless: bool = False
    """The answer under way has no body, even if the application sends one."""
    pipelined: int = 0
    """How many requests in a row had arrived before the one before them was answered."""

    def begin_anew(self, *, pipelined: bool) -> None:
        """The request was answered; the next may have arrived before that."""
        self.parser = self.left = self.started = None
        self.over = False
        self.searched = self.received = self.chunks = 0
        self.pipelined = self.pipelined + 1 if pipelined else 0


@define(eq=False, weakref_slot=False)
class Connection:
    """A TCP connection. Adapters use ``transport`` and ``write``; the rest belongs to the protocol."""

    transport: Transport
    peer: Peer | None
    """The other end. Forgotten with the last HTTP request, to save memory: most WebSockets are idle."""
    write: Callable[[bytes], int]
    """``transport.write``, or what an adapter puts there while the kernel buffer is full."""
    http: HttpExchange | None = field(factory=HttpExchange)
    """The current request and its answer; None once it speaks HTTP no more."""
    state: ConnectionState = ConnectionState.IDLE
    request: Request | None = None
    """The request being served."""
    session: Session | None = None
    """The Engine.IO session this request or WebSocket belongs to."""
    websocket: WebSocket | None = None
    base64: bool = False
    """Binary messages go out on this WebSocket as text, in base64."""
    body: bytearray | None = None
    unread: bytes = b""
    """What has arrived and is not worked through yet."""
    half_closed: bool = False
    """Nothing will arrive any more."""
    packets: Iterator[str] | None = None
    """The packets of a POST, which is complete, that have not been acted on yet."""


class Farewell(enum.Enum):
    """What a client sees of the end of its session, and by which it decides whether it comes back by itself.

    By long-polling that is the payload which answers the last poll. On a WebSocket it is the code that the close frame
    carries, or one of the two that only clients report (RFC 6455, section 7.4.1): 1005 is a close frame without a code,
    1006 no close frame at all.

    JavaScript clients come back after all of these. python-engineio takes a lone CLOSE packet as an order not to; with
    something behind it that is no packet it finds the payload broken, before it acts on any of it, and comes back. The
    C++ client stays away after 1000, and the Java client hears no close frame until its ping is missed.
    """

    COME_BACK = (b"1\x1ex", 1006)
    """The server drops the client, which is to come back by itself."""
    STAY_AWAY = (b"1", 1000)
    """The server ends the session on purpose. Socket.IO has sent a DISCONNECT packet before."""
    BROKEN = (b"1\x1ex", 1005)
    """The client broke the protocol. The close frame is the reference server's."""
    AGREED = (b"6", 1000)
    """The client has ended the session by a CLOSE packet."""

    @property
    def payload(self) -> bytes:
        """The answer to the last poll."""
        return self.value[0]

    @property
    def close_code(self) -> int:
        """What the client's WebSocket reports."""
        return self.value[1]


class EngineIOSessionState(enum.Enum):
    """The life of an Engine.IO session."""

    OPEN = "open"
    CLOSING = "closing"
    """Over for the layer above; the client, which polls, has not been told yet."""
    CLOSED = "closed"
    """Its sid is unknown."""


@frozen
class Encoded:
    """A message encoded once for any number of sessions."""

    packet: str
    """The Engine.IO packet, as it stands in a polling payload."""
    frame: bytes
    """The complete WebSocket text frame that carries it."""

    @classmethod
    def message(cls, data: str) -> Encoded:
        """Encode one text message."""
        packet = encode(Kind.MESSAGE, data)
        return cls(packet, text_frame(packet))


NOTHING_QUEUED: list[tuple[str | bytes, int]] = []
"""In place of an empty queue of its own for each of thousands of sessions. Nothing is ever put into it."""


@define(eq=False, weakref_slot=False)
class Session:
    """An Engine.IO session.

    The layers above read ``sid``, ``cookie``, ``client_address``, ``agent``, ``credential``, ``connection``,
    ``transport`` and ``waiting``.

    A session remembers only what is asked for later, to save memory: most are idle. The whole handshake request is in
    its ``SessionOpened``.
    """

    sid: str
    cookie: str | None
    """The handshake's ``Cookie`` header, or what ``EngineIOServer`` was told to keep of it instead."""
    client_address: str
    """Where the handshake came from."""
    credential: Hashable
    """The credential of the handshake, or of the latest request for which another was allowed."""
    agent: str = ""
    """The handshake's ``User-Agent``, or as much of it as is kept."""
    connection: Connection | None = None
    """The WebSocket, from the handshake or the completed upgrade on; None while polling."""
    state: EngineIOSessionState = EngineIOSessionState.OPEN
    poll: Connection | None = None
    """The GET request that waits for packets."""
    posts: tuple[Connection, ...] = ()
    """The POST requests whose bodies are being read."""
    probe: Connection | None = None
    """The WebSocket on which an upgrade is under way."""
    probed: bool = False
    """The client has asked there whether the WebSocket works, and been told so."""
    next_noop: float = float("-inf")
    """No poll is answered with nothing before this time."""
    queue: list[tuple[str | bytes, int]] = field(default=NOTHING_QUEUED)
    """Packets that wait for a poll, with their sizes. A list, as an empty deque takes ten times the memory."""
    queued: int = 0
    """Bytes in the queue."""
    pinged: bool = False
    """A ping has not been answered yet."""
    paced_until: float = float("-inf")
    """When as much as it has sent would have come at the rate at which sessions may send in the long run."""
    farewell: Farewell = Farewell.COME_BACK
    """What the client sees of the end."""

    @property
    def transport(self) -> str:
        """``"polling"`` or ``"websocket"``."""
        return "polling" if self.connection is None else "websocket"

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client: for its next poll, or because it takes nothing from its WebSocket."""
        return self.queued if self.connection is None else self.connection.transport.waiting


class CloseReason(enum.Enum):
    """Why a session ended; the values are the reference server's words for it."""

    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"
    PING_TIMEOUT = "ping timeout"
    PARSE_ERROR = "parse error"
    FLOOD = "too many packets"
    CLIENT_DISCONNECT = "client namespace disconnect"
    SERVER_DISCONNECT = "server namespace disconnect"
    SERVER_CLOSE = "server shutting down"
    CONNECT_TIMEOUT = "connect timeout"
    OVERFLOW = "buffer overflow"


class ClientState(enum.Enum):
    """The life of a client in its namespace."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    GONE = "gone"


@define(eq=False, weakref_slot=False)
class Client:
    """A session in one of its namespaces, which the JavaScript server calls a socket."""

    sid: str
    """The Socket.IO id, which is another one than the session's."""
    namespace: str
    session: Session
    state: ClientState = ClientState.CONNECTING
    awaited: frozenset[int] = frozenset()
    """Ids of the events that the client has been asked to acknowledge and has not."""
