"""HTTP/1.1 on the server side: one ``Connection`` per TCP connection, requests out, answers in.

``HttpServer`` wraps h11 and adds what h11 leaves to its user: timeouts, limits on what is buffered, clean error
answers, and closing a connection so that the last answer still arrives. Order of use for one connection::

    feed(bytes) -> next_event() until it returns None -> answer()/start(), data(), end() or switch()

After an answer the next pipelined request may already be waiting; ``finished`` names the connections to look at.
"""

from __future__ import annotations

import enum
import http
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
from attrs import define

from automoderate.protocol.config import Config
from automoderate.protocol.events import Request, joined
from automoderate.protocol.outbox import Outbox
from automoderate.protocol.outputs import Peer, Transport
from automoderate.protocol.proxies import viewpoint
from automoderate.protocol.timers import Timers

if TYPE_CHECKING:
    from automoderate.protocol.session import Session
    from automoderate.protocol.websocket import WebSocket

_LOGGER = logging.getLogger("automoderate.protocol.http")

MAX_HEAD = 16 * 1024
"""Bytes of a request head."""
MAX_PIPELINED = 64 * 1024
"""Bytes a client may send ahead of an answer it is still waiting for."""
MIN_UPLOAD_RATE = 1024
"""Bytes a second that an upload must keep up once its grace (``Config.header_timeout``) is used up."""
LINGER = 5.0
"""Seconds a closing connection goes on reading, so that unread input does not reset it under the last answer."""
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)

Header = tuple[str, str]


class Use(enum.Enum):
    """What a connection is busy with."""

    IDLE = "idle"
    """Between requests, or reading a request head."""
    READING = "reading"
    """A protocol request whose body is being read."""
    HELD = "held"
    """A protocol request that waits for a decision about whose session it is."""
    POLLING = "polling"
    """A poll that waits for something to tell."""
    APPLICATION = "application"
    """An application request, until its answer is complete."""
    WEBSOCKET = "websocket"
    LINGERING = "lingering"
    """The last answer is written; what still comes in is thrown away."""
    GONE = "gone"


class Signal(enum.Enum):
    """Events of a request besides its head and the pieces of its body."""

    END = "end"
    """The body is complete."""
    FAILED = "failed"
    """The peer broke HTTP or a limit; the connection has been answered and is being closed."""


@define(eq=False)
class Connection:
    """One TCP connection. Adapters use ``transport`` and ``write``; the rest belongs to the protocol."""

    transport: Transport
    peer: Peer | None
    """The other end; forgotten with the last HTTP request, as thousands of WebSockets are idle."""
    write: Callable[[bytes], int]
    """``transport.write``, or what an adapter puts there while the kernel buffer is full."""
    http: h11.Connection | None
    use: Use = Use.IDLE
    request: Request | None = None
    """The request being served."""
    session: Session | None = None
    """The Engine.IO session this request or WebSocket belongs to."""
    websocket: WebSocket | None = None
    body: bytearray | None = None
    bodiless: bool = False
    """The answer under way has no body, whatever the application says."""
    started: float | None = None
    """When the current request began to arrive."""
    received: int = 0
    """Bytes of its body so far."""


class HttpServer:
    """All HTTP connections of a server."""

    def __init__(self, config: Config, outbox: Outbox) -> None:
        self._config = config
        self._outbox = outbox
        self.timers: Timers[Connection] = Timers()
        self.connections: set[Connection] = set()
        self.finished: deque[Connection] = deque()
        """Connections on which the next request is already waiting."""
        self.abandoned: deque[tuple[Connection, Use, Session | None]] = deque()
        """Connections that were given up, with what they were busy with."""
        self.closing = False
        """Set while draining: every answer is the last one on its connection."""

    # Connections -------------------------------------------------------------------------------------------

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        connection = Connection(transport, peer, transport.write, h11.Connection(h11.SERVER, MAX_HEAD))
        self.connections.add(connection)
        self.timers.set(connection, now + self._config.header_timeout)
        return connection

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone; idempotent."""
        self._give_up(connection, Use.GONE)
        self.timers.cancel(connection)
        self.connections.discard(connection)

    def close(self, connection: Connection) -> None:
        """Close after what has been written."""
        if connection.use is not Use.GONE:
            self._outbox.close(connection)
            self.lost(connection)

    def abort(self, connection: Connection) -> None:
        """Close at once."""
        self._outbox.abort(connection)
        self.lost(connection)

    def linger(self, connection: Connection, now: float) -> None:
        """Close once the peer has, or after ``LINGER`` seconds."""
        self._give_up(connection, Use.LINGERING)
        self.timers.set(connection, now + LINGER)

    def write(self, connection: Connection, data: bytes) -> None:
        self._outbox.write(connection, data)

    # Requests ----------------------------------------------------------------------------------------------

    def feed(self, connection: Connection, data: bytes, now: float) -> None:
        """Take bytes from the peer; ``b""`` is end of file. Call ``next_event`` afterwards."""
        parser = connection.http
        if parser is None:
            return
        if connection.started is None and data:
            connection.started = now
            self.timers.set(connection, now + self._config.header_timeout)
        parser.receive_data(data)
        limit = MAX_PIPELINED + (self._config.max_payload if connection.use is Use.HELD else 0)
        if self._blocked(connection, parser) and len(parser.trailing_data[0]) > limit:
            self.abort(connection)

    def next_event(self, connection: Connection, now: float) -> Request | bytes | Signal | None:
        """The next piece of the current request; None when there is none yet."""
        parser = connection.http
        if parser is None or connection.use is Use.HELD:
            return None
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            self.reject(connection, error.error_status_hint, now)
            return Signal.FAILED
        if isinstance(event, h11.Request):
            assert connection.peer is not None, "a WebSocket reads no requests"
            # h11 minds the limit only while the head is incomplete, which depends on how TCP cut it.
            headers = list(event.headers)  # once, as h11 takes its time to hand them out
            if len(event.target) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
                self.reject(connection, 431, now)
                return Signal.FAILED
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
                # Whoever stands before us may have gone by the other one (RFC 9112, section 6.1).
                self.reject(connection, 400, now)
                return Signal.FAILED
            connection.request = _request_of(event, headers, connection.peer, self._config)
            connection.started, connection.received = now, 0
            self.timers.set(connection, now + self._config.header_timeout)
            return connection.request
        if isinstance(event, h11.Data):
            connection.received += len(event.data)
            grace = self._config.header_timeout + connection.received / MIN_UPLOAD_RATE
            self.timers.set(connection, (connection.started or now) + grace)
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self.timers.cancel(connection)
            return Signal.END
        if isinstance(event, h11.ConnectionClosed) and connection.use is not Use.APPLICATION:
            # An application request may still be answered: its client has only closed its own direction.
            self.close(connection)
        return None

    def restart_timer(self, connection: Connection, now: float) -> None:
        """Give the body of a request that was held back its full grace."""
        connection.started = now
        self.timers.set(connection, now + self._config.header_timeout)

    def proceed(self, connection: Connection) -> None:
        """Tell a client that asked (``Expect: 100-continue``) to go on with its body."""
        parser = connection.http
        if parser is not None and parser.they_are_waiting_for_100_continue:
            self._send(connection, parser, h11.InformationalResponse(status_code=100, headers=[]))

    def timed_out(self, connection: Connection, now: float) -> None:
        """A deadline of this connection's has passed."""
        parser = connection.http
        if parser is not None and connection.started is not None:
            self.reject(connection, 408, now)
        else:
            self.close(connection)

    # Answers -----------------------------------------------------------------------------------------------

    def answer(
        self,
        connection: Connection,
        status: int,
        body: bytes,
        headers: Sequence[Header],
        now: float,
        last: bool | None = None,
    ) -> None:
        """Answer the current request in one go.

        ``last`` (None: while draining) ends the connection, and so does a request of which part is missing.
        """
        parser = connection.http
        if parser is None:
            return
        fields = list(headers)
        if status != 204:
            fields.append(("Content-Length", str(len(body))))
        if (self.closing if last is None else last) or self._incomplete(parser):
            fields.append(("Connection", "close"))
        reason = http.HTTPStatus(status).phrase
        self._send(connection, parser, h11.Response(status_code=status, headers=_latin1(fields), reason=reason))
        if connection.request is None or connection.request.method != "HEAD":
            self._send(connection, parser, h11.Data(data=body))
        self._send(connection, parser, h11.EndOfMessage())
        self._complete(connection, parser, now)

    def start(self, connection: Connection, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        """Begin an application's answer. Headers that belong to the connection are ours and are dropped."""
        parser = connection.http
        if connection.use is not Use.APPLICATION or parser is None or connection.request is None:
            return
        if parser.our_state is not h11.SEND_RESPONSE:
            return
        fields = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
        if self.closing or parser.their_state is h11.SEND_BODY:
            fields.append(("Connection", "close"))
        try:
            phrase = reason.encode("latin-1", "replace")
            response = h11.Response(status_code=status, headers=_latin1(fields), reason=phrase)
        except (h11.LocalProtocolError, UnicodeError) as error:
            _LOGGER.error("The application's answer is no valid HTTP: %s", error)  # noqa: TRY400
            self.answer(connection, 500, b"Internal Server Error\n", [("Content-Type", "text/plain")], now)
            return
        self._send(connection, parser, response)
        connection.bodiless = connection.request.method == "HEAD" or status in (204, 304)

    def data(self, connection: Connection, data: bytes) -> None:
        """A piece of the application's answer; nothing is sent where the request allows no body."""
        parser = self._answering(connection)
        if parser is not None and not connection.bodiless:
            self._try(connection, parser, h11.Data(data=data))

    def end(self, connection: Connection, now: float) -> None:
        """The application's answer is complete."""
        parser = self._answering(connection)
        if parser is not None and self._try(connection, parser, h11.EndOfMessage()):
            self._complete(connection, parser, now)

    def switch(self, connection: Connection, headers: Sequence[Header]) -> bytes:
        """Answer 101 and hand the connection over; returns the bytes that came after the request.

        By hand: h11 takes a seventh of a handshake's time for it, and is done with the connection. Our own headers need
        no checks.
        """
        parser = connection.http
        assert parser is not None
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._outbox.write(connection, f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode())
        connection.http = connection.request = connection.peer = None
        connection.use = Use.WEBSOCKET
        self.timers.cancel(connection)
        return parser.trailing_data[0]

    # Private -----------------------------------------------------------------------------------------------

    def _give_up(self, connection: Connection, use: Use) -> None:
        self._abandon(connection)
        connection.use = use
        connection.http = connection.websocket = connection.session = connection.request = connection.body = None

    def _abandon(self, connection: Connection) -> None:
        if connection.session is not None or connection.use is Use.APPLICATION:
            self.abandoned.append((connection, connection.use, connection.session))

    def _blocked(self, connection: Connection, parser: h11.Connection) -> bool:
        """Whether input cannot be read before something else has happened."""
        return connection.use is Use.HELD or parser.their_state not in (h11.IDLE, h11.SEND_BODY)

    def _answering(self, connection: Connection) -> h11.Connection | None:
        parser = connection.http
        if connection.use is Use.APPLICATION and parser is not None and parser.our_state is h11.SEND_BODY:
            return parser
        return None

    def _send(self, connection: Connection, parser: h11.Connection, event: h11.Event) -> None:
        self._outbox.write(connection, parser.send(event) or b"")

    def _try(self, connection: Connection, parser: h11.Connection, event: h11.Event) -> bool:
        try:
            self._send(connection, parser, event)
        except h11.LocalProtocolError as error:
            _LOGGER.error("The application's answer does not fit its headers: %s", error)  # noqa: TRY400
            self.abort(connection)
            return False
        return True

    def _incomplete(self, parser: h11.Connection) -> bool:
        """Whether part of the request has not arrived; what has arrived of its body is thrown away."""
        try:
            while parser.their_state is h11.SEND_BODY:
                if parser.next_event() is h11.NEED_DATA:
                    return True
        except h11.RemoteProtocolError:
            return True
        return parser.their_state in (h11.IDLE, h11.ERROR)

    def reject(self, connection: Connection, status: int, now: float) -> None:
        """Give up the current request with an error answer, or without one where an answer has begun, and close."""
        parser = connection.http
        if parser is None or parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort(connection)
            return
        self._abandon(connection)
        body = f"{http.HTTPStatus(status).phrase}\n".encode()
        self.answer(connection, status, body, [("Content-Type", "text/plain")], now, last=True)

    def _complete(self, connection: Connection, parser: h11.Connection, now: float) -> None:
        """An answer has been written: on to the next request, or close."""
        connection.request = connection.session = connection.body = None
        connection.use = Use.IDLE
        connection.started = None
        if parser.our_state is h11.DONE and parser.their_state is h11.DONE:
            parser.start_next_cycle()
            self.timers.set(connection, now + self._config.keep_alive_timeout)
            data, eof = parser.trailing_data
            if data or eof:
                self.finished.append(connection)
        elif parser.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            self.linger(connection, now)
        else:
            self.close(connection)


def _request_of(event: h11.Request, fields: list[tuple[bytes, bytes]], peer: Peer, config: Config) -> Request:
    """The request head h11 has parsed, seen from the client's side of any trusted proxy."""
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
    target = event.target.decode("latin-1")
    raw = target
    if not raw.startswith("/"):
        raw = _relative(raw)
    raw_path, _, query_string = raw.partition("?")
    query: dict[str, str] = {}
    for name, value in parse_qsl(query_string, keep_blank_values=True):
        query.setdefault(name, value)
    view = viewpoint(peer, joined(headers), config.trusted_proxies)
    return Request(
        method=event.method.decode("latin-1"),
        target=target,
        path=unquote(raw_path),
        query_string=query_string,
        headers=headers,
        http_version=event.http_version.decode("latin-1"),
        peer=peer,
        client_address=view.client_address,
        scheme=view.scheme,
        host=view.host,
        query=query,
    )


def _latin1(headers: Sequence[Header]) -> list[tuple[bytes, bytes]]:
    """Headers as they travel. h11 takes text for ASCII, which an application's or an echoed one need not be."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _relative(target: str) -> str:
    """Path and query of an absolute target (RFC 9112, section 3.2.2); anything else, such as ``*``, as it is."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return target
    if not parts.netloc:
        return target
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path
