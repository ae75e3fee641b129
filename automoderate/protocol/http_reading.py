"""From what has arrived on a connection to the pieces of its requests: head, body, end.

What has arrived waits in ``connection.unread``. The body of a plain request is counted here. Of any other request h11
is given the head when it is complete, and then the body in pieces.
"""

from __future__ import annotations

import enum

import h11

from automoderate.protocol.config import Config
from automoderate.protocol.http_heads import MAX_HEAD, cut_head, plain_head, read_head
from automoderate.protocol.model import Connection, HttpExchange, Request

__all__ = ["Signal", "answering_parser", "blocked", "next_piece", "read_to_the_end", "skip_rest", "whole"]

CHUNKED_PIECE = 4096
"""Bytes of a body whose end is not known that h11 is given at a time."""
MAX_SKIPPED = 16
"""Pieces of an unwanted body that are read for the sake of the connection."""
MAX_CHUNKS, MIN_CHUNK = 1000, 64
"""Chunks that a body may come in whatever their size, and the bytes that they have to have on average beyond that."""


class Signal(enum.Enum):
    """Events of a request besides its head and the pieces of its body."""

    END = "end"
    """The body is complete."""
    CLOSED = "closed"
    """The peer has ended the connection instead of beginning a request."""
    FAILED = "failed"
    """The peer broke HTTP or a limit; it has been answered, and the connection is being closed."""


def next_piece(connection: Connection, exchange: HttpExchange, config: Config) -> Request | bytes | Signal | None:
    """The next piece of the current request; None when there is none yet. Raises RemoteProtocolError."""
    if exchange.left is not None:
        return _counted(connection, exchange, exchange.left)
    parser = exchange.parser
    if parser is None:
        head = cut_head(connection, exchange) if connection.unread else b""
        if not head:
            return None
        assert connection.peer is not None, "a WebSocket reads no requests"
        request = plain_head(head, connection.peer, config)
        if request is not None:
            exchange.left = request.content_length
            return request
        parser = exchange.parser = h11.Connection(h11.SERVER, MAX_HEAD)
        parser.receive_data(head)
    event = _parsed(connection, exchange, parser)
    if isinstance(event, h11.Request):
        assert connection.peer is not None, "a WebSocket reads no requests"
        return read_head(event, connection.peer, config)
    return event


def read_to_the_end(connection: Connection, exchange: HttpExchange) -> None:
    """The peer will send no more than is unread."""
    if exchange.left is None and not (blocked(exchange) and connection.unread):
        parser = exchange.parser = exchange.parser or h11.Connection(h11.SERVER, MAX_HEAD)
        if connection.unread:
            parser.receive_data(connection.unread)  # part of a head
            connection.unread = b""
        parser.receive_data(b"")


def blocked(exchange: HttpExchange) -> bool:
    """Whether what arrives now has to wait for an answer."""
    if exchange.left is not None:
        return exchange.over
    return exchange.parser is not None and exchange.parser.their_state not in (h11.IDLE, h11.SEND_BODY)


def whole(exchange: HttpExchange) -> bool:
    """Whether all of the request has been read."""
    if exchange.left is not None:
        return exchange.left == 0
    return exchange.parser is not None and exchange.parser.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)


def skip_rest(connection: Connection, exchange: HttpExchange) -> bool:
    """Throw away what has arrived of the rest of the request, unless it is much; whether that is all of it."""
    if exchange.left is not None:
        _take(connection, exchange, exchange.left)
        return exchange.left == 0
    parser = exchange.parser
    assert parser is not None, "a head was read"
    try:
        for _ in range(MAX_SKIPPED):
            if parser.their_state is not h11.SEND_BODY or _parsed(connection, exchange, parser) is None:
                break
    except h11.RemoteProtocolError:
        return False
    return whole(exchange)


def answering_parser(exchange: HttpExchange, method: str) -> h11.Connection:
    """What writes an answer of unknown size. It has read the request, or one to which answers are written alike."""
    if exchange.parser is None:
        exchange.parser = h11.Connection(h11.SERVER, MAX_HEAD)
        exchange.parser.receive_data(f"{method} / HTTP/1.1\r\nHost: -\r\n\r\n".encode())
        while exchange.parser.their_state is not h11.DONE:
            exchange.parser.next_event()
    return exchange.parser


def _counted(connection: Connection, exchange: HttpExchange, left: int) -> bytes | Signal | None:
    """The next piece of a body whose size is known."""
    if left:
        if not connection.unread and connection.half_closed:
            raise h11.RemoteProtocolError("the body is incomplete", error_status_hint=400)
        return _take(connection, exchange, left) or None
    if exchange.over:
        return None
    exchange.over = True
    return Signal.END


def _take(connection: Connection, exchange: HttpExchange, left: int) -> bytes:
    unread = connection.unread
    data = unread[:left]
    connection.unread = unread[left:]
    exchange.left = left - len(data)
    exchange.received += len(data)
    return data


def _parsed(
    connection: Connection, exchange: HttpExchange, parser: h11.Connection
) -> h11.Request | bytes | Signal | None:
    """The next piece of a request that h11 reads, for which h11 is given as much as it needs."""
    while (event := parser.next_event()) is h11.NEED_DATA and parser.their_state is h11.SEND_BODY:
        if not connection.unread:
            return None
        size = _wanted(connection.request, exchange)
        parser.receive_data(connection.unread[:size])
        connection.unread = connection.unread[size:]
    if isinstance(event, h11.Request):
        return event
    if isinstance(event, h11.Data):
        exchange.received += len(event.data)
        exchange.chunks += event.chunk_start
        if exchange.chunks > MAX_CHUNKS + exchange.received // MIN_CHUNK:
            raise h11.RemoteProtocolError("the chunks are too small", error_status_hint=400)
        return bytes(event.data)
    if isinstance(event, h11.EndOfMessage):
        connection.unread = parser.trailing_data[0] + connection.unread
        return Signal.END
    return Signal.CLOSED if isinstance(event, h11.ConnectionClosed) else None


def _wanted(request: Request | None, exchange: HttpExchange) -> int:
    """How much of what is unread h11 is to be given: nothing beyond the body where its size is known."""
    if request is None or request.header("transfer-encoding") is not None:
        return CHUNKED_PIECE
    return request.content_length - exchange.received
