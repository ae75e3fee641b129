"""HTTP/1.1 on the server side: one ``Connection`` per TCP connection, requests out, answers in.

``HttpServer`` has what a parser leaves to its user: timeouts, limits on what is buffered, error answers, and a way to
close a connection so that the last answer still arrives. The order of calls for one connection::

    feed(bytes) -> next_event() until it returns None -> answer()/start(), data(), end() or switch()

How requests are read stands in ``http_reading``. After an answer the next pipelined request may be waiting already;
``finished`` names the connections to look at.
"""

from __future__ import annotations

import http
import logging
import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache, partial

import h11

from automoderate.protocol.complaints import Complaints
from automoderate.protocol.config import Config
from automoderate.protocol.error_pages import error_page
from automoderate.protocol.http_heads import keeps_alive
from automoderate.protocol.http_reading import (
    Signal,
    answering_parser,
    blocked,
    next_piece,
    read_to_the_end,
    skip_rest,
    whole,
)
from automoderate.protocol.model import Connection, ConnectionState, HttpExchange, Peer, Request, Session, Transport
from automoderate.protocol.outbox import Outbox
from automoderate.protocol.proxies import counted
from automoderate.protocol.timers import Timers
from automoderate.protocol.unfinished import Large, Unfinished

_LOGGER = logging.getLogger("automoderate.protocol.http")

_QUOTED = re.compile(r":? (b['\"]|bytearray\().*", re.DOTALL)
"""What h11 quotes of a message: it may be a cookie."""

MAX_PIPELINED = 64 * 1024
"""Bytes a client may send ahead of an answer it is still waiting for."""
MAX_PIPELINED_REQUESTS = 100
"""Requests in a row for whose turn their client has not waited; the answer to the last of them ends the connection."""
MIN_UPLOAD_RATE = 1024
"""Bytes a second that an upload must keep up once its grace (``Config.header_timeout``) is used up."""
LINGER = 5.0
"""Seconds that a closing connection is read from still: closing it with input unread would reset it, and its client
might lose the last answer."""
EMPTY_LINES = b"\r\n"
"""What ends lines. Before a request it means nothing: some clients put an end of line behind a body."""
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)

_UNANSWERED = (h11.IDLE, h11.SEND_RESPONSE)
"""States of h11 in which nothing of an answer has been sent."""

Header = tuple[str, str]


class HttpServer:
    """All connections of a server, until they become WebSockets."""

    def __init__(self, config: Config, outbox: Outbox, complaints: Complaints) -> None:
        self._config = config
        self._complaints = complaints
        self._outbox = outbox
        self.timers: Timers[Connection] = Timers()
        self.connections: set[Connection] = set()
        """Connections that speak HTTP, and WebSockets that close: in between a WebSocket belongs to its session."""
        self.finished: deque[Connection] = deque()
        """Connections on which the next request is already waiting."""
        self.abandoned: deque[tuple[Connection, ConnectionState, Session | None]] = deque()
        """Connections that were given up, each with what it was busy with."""
        self._silent: Unfinished[Connection] = Unfinished(config.max_pending, _say_too_many)
        """Connections on which no request has come yet."""
        self.large: Large[Connection] = Large(_say_too_large)
        """Connections on which much of a body, or of a WebSocket's message, has come, and not all of it."""
        self.closing = False
        """Set while draining: every answer is the last one on its connection."""

    # Connections -------------------------------------------------------------------------------------------

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        """Take a connection that was accepted; it has ``Config.header_timeout`` seconds for a request."""
        connection = Connection(transport, peer, transport.write)
        self.connections.add(connection)
        self.timers.set(connection, now + self._config.header_timeout)
        if counted(peer, self._config.trusted_proxies):
            oldest = self._silent.add(connection, peer.address)
            if oldest is not None:
                self.close(oldest)
        return connection

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone; idempotent."""
        if connection.peer is not None:
            self._silent.discard(connection, connection.peer.address)
        self._give_up(connection, ConnectionState.GONE)
        self.timers.cancel(connection)
        self.connections.discard(connection)

    def close(self, connection: Connection) -> None:
        """Close once everything written has left; idempotent."""
        if connection.state is not ConnectionState.GONE:
            self._outbox.close(connection)
            self.lost(connection)

    def abort(self, connection: Connection) -> None:
        """Close at once."""
        self._outbox.abort(connection)
        self.lost(connection)

    def linger(self, connection: Connection, now: float) -> None:
        """Close once the peer has closed, or after ``LINGER`` seconds."""
        self._give_up(connection, ConnectionState.LINGERING)
        self.timers.set(connection, now + LINGER)

    def write(self, connection: Connection, data: bytes) -> None:
        """Queue bytes for a connection."""
        self._outbox.write(connection, data)

    def send_eof(self, connection: Connection) -> None:
        """Send no more to a connection, once everything written has left."""
        self._outbox.send_eof(connection)

    # Requests ----------------------------------------------------------------------------------------------

    def feed(self, connection: Connection, data: bytes, now: float) -> None:
        """Take bytes from the peer. Call ``next_event`` afterwards."""
        exchange = connection.http
        if exchange is None:
            return
        if exchange.started is None:
            if not connection.unread and not (data := data.lstrip(EMPTY_LINES)):
                return
            exchange.started = now
            self.timers.set(connection, now + self._config.header_timeout)
        connection.unread += data
        # While a decision is awaited, nothing is read from the connection.
        held = connection.state is ConnectionState.HELD
        if len(connection.unread) > MAX_PIPELINED and not held and blocked(exchange):
            self.abort(connection)

    def feed_eof(self, connection: Connection) -> None:
        """The peer will send no more than has been fed. Call ``next_event`` afterwards."""
        assert connection.http is not None, "of a WebSocket nothing is read"
        read_to_the_end(connection, connection.http)

    def next_event(self, connection: Connection, now: float) -> Request | bytes | Signal | None:
        """The next piece of the current request; None when there is none yet."""
        exchange = connection.http
        if exchange is None or connection.state is ConnectionState.HELD:
            return None
        try:
            event = next_piece(connection, exchange, self._config)
        except h11.RemoteProtocolError as error:
            self._complain(connection, _why(error), now)
            self.reject(connection, error.error_status_hint, now)
            return Signal.FAILED
        if isinstance(event, Request):
            self._silent.discard(connection, event.peer.address)
            connection.request = event
            exchange.started = now
            if exchange.left != 0:
                self.timers.set(connection, now + self._config.header_timeout)
        elif isinstance(event, bytes):
            if exchange.left != 0:
                grace = self._config.header_timeout + exchange.received / MIN_UPLOAD_RATE
                self.timers.set(connection, (exchange.started or now) + grace)
        elif event is Signal.END:
            self.timers.cancel(connection)
        elif event is Signal.CLOSED:
            if connection.state is not ConnectionState.APPLICATION:
                # An application request may still be answered: its client has only closed its own direction.
                self.close(connection)
            return None
        return event

    def received(self, connection: Connection) -> int:
        """Bytes of the current request's body so far."""
        return 0 if connection.http is None else connection.http.received

    def restart_timer(self, connection: Connection, now: float) -> None:
        """Give the body of a request that was held back its full grace."""
        assert connection.http is not None, "it is read"
        connection.http.started = now
        self.timers.set(connection, now + self._config.header_timeout)

    def proceed(self, connection: Connection) -> None:
        """Tell a client that asks first (``Expect: 100-continue``) to send its body."""
        parser = None if connection.http is None else connection.http.parser
        if parser is not None and parser.they_are_waiting_for_100_continue:
            self._send(connection, parser, h11.InformationalResponse(status_code=100, headers=[]))

    def timed_out(self, connection: Connection, now: float) -> None:
        """The connection's deadline has passed: answer a request that came too slowly, close an idle connection."""
        if connection.http is not None and connection.http.started is not None:
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
        """Answer the current request in one go. The headers are ours, and are not checked.

        The connection ends with the answer where ``last`` is true (None: while draining), its client wants that, or
        part of the request is missing.
        """
        exchange = connection.http
        if exchange is None:
            return
        request = connection.request
        ends = (self.closing if last is None else last) or self._enough(connection, exchange, now)
        complete = whole(exchange) if ends else skip_rest(connection, exchange)
        ends = ends or not complete or (exchange.left is None and request is not None and not keeps_alive(request))
        fields = [_status_line(status), *[f"{name}: {value}\r\n" for name, value in headers]]
        if status not in (204, 304):
            fields.append(f"Content-Length: {len(body)}\r\n")
        fields.append("Connection: close\r\n\r\n" if ends else "\r\n")
        content = body if request is None or request.method != "HEAD" else b""
        self._outbox.write(connection, "".join(fields).encode("latin-1") + content)
        if ends:
            self._end(connection, complete, now)
        else:
            self._await_next(connection, exchange, now)

    def refuse(self, connection: Connection, status: int, now: float, last: bool | None = None) -> None:
        """Answer the current request with an error."""
        page = error_page(self._config.error_pages, status, connection.request)
        plain = [("Content-Type", "text/plain")], f"{http.HTTPStatus(status).phrase}\n".encode()
        headers, body = page or plain
        self.answer(connection, status, body, headers, now, last)

    def reply(self, connection: Connection, status: int, body: bytes, headers: Sequence[Header], now: float) -> None:
        """Answer an application's request in one go, with headers that are ours; ignored where that is over."""
        if connection.state is ConnectionState.APPLICATION:
            self.answer(connection, status, body, headers, now)

    def start(self, connection: Connection, status: int, reason: str, headers: Sequence[Header], now: float) -> None:
        """Begin an application's answer. Its headers about the connection are left out: those are the server's."""
        exchange, request = connection.http, connection.request
        if connection.state is not ConnectionState.APPLICATION or exchange is None or request is None:
            return
        parser = answering_parser(exchange, request.method)
        if parser.our_state is not h11.SEND_RESPONSE:
            return
        fields = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
        if self.closing or self._enough(connection, exchange, now) or not whole(exchange):
            fields.append(("Connection", "close"))
        try:
            phrase = reason.encode("latin-1", "replace")
            response = h11.Response(status_code=status, headers=_latin1(fields), reason=phrase)
        except (h11.LocalProtocolError, UnicodeError) as error:
            _LOGGER.error(  # noqa: TRY400
                "The application's answer is no valid HTTP: %s", _why(error),
                extra={"event": "answer_invalid", "reason": _why(error)},
            )  # fmt: skip
            self.refuse(connection, 500, now)
            return
        self._send(connection, parser, response)
        exchange.bodiless = request.method == "HEAD" or status in (204, 304)

    def data(self, connection: Connection, data: bytes) -> None:
        """A piece of the application's answer; nothing is sent where the request allows no body."""
        exchange, parser = connection.http, self._answering(connection)
        if exchange is not None and parser is not None and not exchange.bodiless:
            self._try(connection, parser, h11.Data(data=data))

    def end(self, connection: Connection, now: float) -> None:
        """The application's answer is complete."""
        exchange, parser = connection.http, self._answering(connection)
        if exchange is None or parser is None or not self._try(connection, parser, h11.EndOfMessage()):
            return
        if parser.our_state is h11.DONE and whole(exchange):
            self._await_next(connection, exchange, now)
        else:
            self._end(connection, whole(exchange), now)

    def switch(self, connection: Connection, headers: Sequence[Header]) -> None:
        """Answer 101 and be done with the connection; what came behind the request is left ``unread``.

        Written by hand: h11 would take a seventh of a handshake's time to check headers that are our own.
        """
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._outbox.write(connection, f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode())
        connection.http = connection.request = connection.peer = None
        connection.state = ConnectionState.WEBSOCKET
        self.connections.discard(connection)
        self.timers.cancel(connection)

    # Private -----------------------------------------------------------------------------------------------

    def _give_up(self, connection: Connection, state: ConnectionState) -> None:
        self._abandon(connection)
        self.large.forget(connection)
        if connection.websocket is not None:
            connection.websocket.forget()
        connection.state = state
        connection.http = connection.websocket = connection.session = connection.request = connection.body = None
        connection.packets, connection.unread = None, b""

    def _abandon(self, connection: Connection) -> None:
        if connection.session is not None or connection.state is ConnectionState.APPLICATION:
            self.abandoned.append((connection, connection.state, connection.session))

    def _enough(self, connection: Connection, exchange: HttpExchange, now: float) -> bool:
        """Whether this request is the last of those that may come without waiting."""
        if exchange.pipelined < MAX_PIPELINED_REQUESTS:
            return False
        self._complain(connection, f"{MAX_PIPELINED_REQUESTS} requests without waiting for an answer", now)
        return True

    def _complain(self, connection: Connection, why: str, now: float) -> None:
        request, peer = connection.request, connection.peer
        assert peer is not None, "a WebSocket sends no requests"
        self._complaints.say(peer.address if request is None else request.client_address, "request", why, now)

    @staticmethod
    def _answering(connection: Connection) -> h11.Connection | None:
        """What writes the answer that is under way."""
        parser = None if connection.http is None else connection.http.parser
        if connection.state is ConnectionState.APPLICATION and parser is not None and parser.our_state is h11.SEND_BODY:
            return parser
        return None

    def _send(self, connection: Connection, parser: h11.Connection, event: h11.Event) -> None:
        self._outbox.write(connection, parser.send(event) or b"")

    def _try(self, connection: Connection, parser: h11.Connection, event: h11.Event) -> bool:
        try:
            self._send(connection, parser, event)
        except h11.LocalProtocolError as error:
            _LOGGER.error(  # noqa: TRY400
                "The application's answer does not fit its headers: %s", _why(error),
                extra={"event": "answer_invalid", "reason": _why(error)},
            )  # fmt: skip
            self.abort(connection)
            return False
        return True

    def reject(self, connection: Connection, status: int, now: float) -> None:
        """Answer the current request with an error and close; where an answer has begun, drop the connection."""
        exchange = connection.http
        begun = exchange is not None and exchange.parser is not None and exchange.parser.our_state not in _UNANSWERED
        if exchange is None or begun:
            self.abort(connection)
            return
        self._abandon(connection)
        self.refuse(connection, status, now, last=True)

    def _end(self, connection: Connection, complete: bool, now: float) -> None:
        """The last answer has been written: close, once the peer has it."""
        self._forget_request(connection)
        if connection.unread or not complete:
            self.linger(connection, now)
        else:
            self.close(connection)

    def _await_next(self, connection: Connection, exchange: HttpExchange, now: float) -> None:
        """The request has been answered, and the connection goes on."""
        self._forget_request(connection)
        connection.unread = connection.unread.lstrip(EMPTY_LINES)
        exchange.begin_anew(pipelined=bool(connection.unread))
        self.timers.set(connection, now + self._config.keep_alive)
        if connection.unread or connection.half_closed:
            self.finished.append(connection)

    def _forget_request(self, connection: Connection) -> None:
        self.large.forget(connection)
        connection.request = connection.session = connection.body = None
        connection.state = ConnectionState.IDLE


def _why(error: Exception) -> str:
    return _QUOTED.sub("", str(error))


def _say_closed(what: str, reason: str, address: str) -> None:
    _LOGGER.info(
        "Closed a connection from %s, which has %s", address, what,
        extra={"event": "connection_closed", "address": address, "reason": reason},
    )  # fmt: skip


_say_too_many = partial(_say_closed, "too many without a request", "too many without a request")
_say_too_large = partial(_say_closed, "too many large bodies or messages under way", "too many large bodies")


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"


def _latin1(headers: Sequence[Header]) -> list[tuple[bytes, bytes]]:
    """Headers as bytes. h11 encodes text as ASCII, which an application's header or an echoed one need not be."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
