"""What a hostile client sends: a megabyte of things that are quickly made and take long to work through.

None of these clients is logged in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Literal

from attrs import frozen

SIZE = 1_000_000
"""Bytes of each: the most that a message or a body may have by default."""
HEADERS, LONG = 3000, 15_000
HOST = b"Host: 127.0.0.1\r\n"
PATH = "/socket.io/?EIO=4&transport="
SEPARATOR = "\x1e"
DEEP = 30
"""Objects in each other; many such stand beside each other."""

How = Literal["raw", "post", "chunks", "websocket", "silence"]


@frozen
class Input:
    """One kind of bytes, and how they reach the server.

    ``raw`` goes over a new connection as it is. ``post`` is the body of a POST to a session that was opened by polling
    and has connected, ``chunks`` a body for which ``make`` has made the transfer coding, and ``websocket`` what follows
    the upgrade and CONNECT. ``silence`` is a session with a WebSocket that never connects to a namespace.
    """

    name: str
    title: str
    how: How
    make: Callable[[], bytes]
    slow: bool = False
    """It is sent in a byte a second, but for the head of a POST."""


def repeated(unit: bytes, size: int = SIZE) -> bytes:
    """As many whole units as fit."""
    return unit * (size // len(unit))


def request(target: str, headers: bytes = b"") -> bytes:
    """A GET over a connection that is kept."""
    return f"GET {target} HTTP/1.1\r\n".encode() + HOST + headers + b"\r\n"


def packets(*texts: str) -> bytes:
    """A body of these packets again and again."""
    unit = SEPARATOR.join(texts) + SEPARATOR
    return repeated(unit.encode()).removesuffix(SEPARATOR.encode())


def frame(payload: bytes, opcode: int = 0x1, *, last: bool = True) -> bytes:
    """A frame as a client sends it; the mask is zero."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes([(0x80 if last else 0) | opcode]) + length + b"\0\0\0\0" + payload


def fragments(payload: bytes) -> bytes:
    """One text in as many frames as a megabyte has room for."""
    return frame(b"4", last=False) + repeated(frame(payload, 0x0, last=False))


def _headers() -> Iterator[bytes]:
    for number in range(HEADERS):
        yield f"x{number}: y\r\n".encode()


def _event(value: str, size: int = 900_000) -> bytes:
    """A single event of so many values beside each other."""
    values = ",".join([value] * (size // (len(value) + 1)))
    return frame(f'42["x",[{values}]]'.encode())


def _nested() -> str:
    return '{"a":' * DEEP + "{}" + "}" * DEEP


INPUTS = (
    Input("pipelined-bad", "pipelined requests that are refused", "raw",
          lambda: repeated(request("/socket.io/?EIO=9&transport=polling"))),
    Input("pipelined-handshakes", "pipelined handshakes", "raw", lambda: repeated(request(f"{PATH}polling"))),
    Input("chunked", "a body in chunks of one byte", "chunks", lambda: repeated(b"1\r\n6\r\n")),
    Input("post-connects", "POST of 40 and 41 in turn", "post", lambda: packets("40", "41")),
    Input("post-acks", "POST of 430[]", "post", lambda: packets("430[]")),
    Input("post-events", 'POST of 42["x"]', "post", lambda: packets('42["x"]')),
    Input("post-namespaces", "POST of 40/x,", "post", lambda: packets("40/x,")),
    Input("post-pongs", "POST of 3", "post", lambda: packets("3")),
    Input("post-noops", "POST of 6", "post", lambda: packets("6")),
    Input("ws-acks", "WebSocket: 430[]", "websocket", lambda: repeated(frame(b"430[]"))),
    Input("ws-pings", "WebSocket: empty pings", "websocket", lambda: repeated(frame(b"", 0x9))),
    Input("ws-noops", "WebSocket: 6", "websocket", lambda: repeated(frame(b"6"))),
    Input("ws-connects", "WebSocket: 41 and 40 in turn", "websocket", lambda: repeated(frame(b"41") + frame(b"40"))),
    Input("ws-fragments", "WebSocket: fragments of one byte", "websocket", lambda: fragments(b"x")),
    Input("ws-empty", "WebSocket: empty fragments", "websocket", lambda: fragments(b"")),
    Input("headers", f"requests with {HEADERS:,} headers", "raw",
          lambda: repeated(request(f"{PATH}polling", b"".join(_headers())))),
    Input("query", "requests with 15 KB of query", "raw",
          lambda: repeated(request(f"{PATH}polling&" + "&".join(f"a{n}=b" for n in range(LONG // 7))))),
    Input("cookie", "requests with 15 KB of cookie", "raw",
          lambda: repeated(request(f"{PATH}polling", f"Cookie: {'; '.join(['a=b'] * (LONG // 5))}\r\n".encode()))),
    Input("event-objects", "one event of {}s", "websocket", lambda: _event(json.dumps({}))),
    Input("event-nested", "one event of nested objects", "websocket", lambda: _event(_nested())),
)  # fmt: skip
"""Inputs of a megabyte each."""
MANY = (
    Input("silent", "sessions that never connect", "silence", lambda: b""),
    Input("slow-headers", "headers of a byte a second", "raw",
          lambda: request(f"{PATH}polling", b"a: b\r\n" * 100), slow=True),
    Input("slow-bodies", "bodies of a byte a second", "post", lambda: packets("6")[:10_000], slow=True),
)  # fmt: skip
"""Inputs that are many instead of large."""
