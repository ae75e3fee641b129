"""What clients send that they should not, or that few do: the bytes, the right answer, and where the answer is from.

The table runs over the sans-IO server, cut in every way, and over every runtime with another client beside it that must
not notice. The server is the example's ``SocketEcho``. What a client hears is written down as one line an answer or a
message: ``400 Bad request``, ``text 3probe``, ``close 1000``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Protocol

import h11
from attrs import field, frozen
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import Side, State

HOST = "server.test"
PATH = "/socket.io/"
POLL = f"{PATH}?EIO=4&transport=polling"
WS = f"{PATH}?EIO=4&transport=websocket"
GREETED = ('text 40{"sid":"…"}', 'text 42["auth",{}]')


def frame(message: str | bytes, opcode: int | None = None, *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    data = message.encode() if isinstance(message, str) else message
    kind = Opcode(opcode if opcode is not None else Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
    plain = Frame(kind, data, fin).serialize(mask=False)
    at = {126: 4, 127: 10}.get(plain[1], 2)
    return plain[:1] + bytes([plain[1] | 0x80]) + plain[2:at] + b"\0\0\0\0" + plain[at:]


CLOSE_FRAME = re.compile(rb"\x88[\x80\x82]\0\0\0\0")


def close_frame(code: int = 1000) -> bytes:
    return frame(code.to_bytes(2, "big"), Opcode.CLOSE)


def get(target: str = POLL, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", f"Host: {HOST}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(body: str | bytes, *headers: str, target: str = POLL + "&sid={sid}") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return get(target, *headers, f"Content-Length: {len(data)}", method="POST") + data


def upgrade(target: str = WS, *headers: str) -> bytes:
    return get(
        target, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers,
    )  # fmt: skip


@frozen
class Case:
    """One row: after ``stage`` a client sends ``data`` and hears ``answer``. Its connection then ``ends``, or not."""

    name: str
    stage: str
    """What came before on the connection: nothing (``http``); nothing, and a session that polls was opened on another
    (``polling``); a session opened by WebSocket (``websocket``) that was then let into the namespace (``joined``); a
    WebSocket to which a session that polls may upgrade (``probe``)."""
    data: bytes
    """``{sid}`` stands for the session's."""
    answer: tuple[str, ...]
    source: str
    ends: bool = field(default=False)
    """If not, the connection still serves what it served before."""
    target: str = WS
    """Of the request for the WebSocket."""


def http(name: str, data: bytes, answer: str, source: str, *, ends: bool = False) -> Case:
    return Case(name, "http", data, (answer,), source, ends)


def polling(name: str, data: bytes, answer: str, source: str) -> Case:
    return Case(name, "polling", data, (answer,), source)


def message(name: str, text: str, answer: str, source: str) -> Case:
    """A Socket.IO packet that is answered, or ignored where the answer is ``""``."""
    return Case(name, "joined", frame(text), (answer,) if answer else (), source)


def broken(name: str, *messages: str | bytes, source: str) -> Case:
    """Messages that break a protocol: the server says farewell, with a close frame that has no code, and no more."""
    return Case(name, "joined", b"".join(map(frame, messages)), ("close 1005",), source, ends=True)


EIO = "engine.io 6.6"
SIO = "socket.io-parser 4.2"
JSON = "ECMA-262, 25.5.1 (JSON.parse)"
OPEN = "200 open"
BAD = "400 Bad request"


def requests() -> Iterator[Case]:
    """Requests that are no more than their head."""
    yield http("transport twice", get(f"{POLL}&transport=websocket"), BAD, f"{EIO}: the last counts")
    yield http("transport twice, polling last", get(f"{WS}&transport=polling"), OPEN, f"{EIO}: the last counts")
    yield http("EIO twice", get(f"{POLL}&EIO=3"), "400 Unsupported protocol version", f"{EIO}: the last counts")
    yield http("EIO twice, 4 last", get(f"{PATH}?EIO=3&transport=polling&EIO=4"), OPEN, f"{EIO}: the last counts")
    yield http("base64 by polling", get(f"{POLL}&b64=1"), OPEN, f"{EIO}; its client's forceBase64 asks so")
    for number in ("0", "", "x"):
        yield http(f"JSONP {number}", get(f"{POLL}&j={number}"), "400 JSONP polling is not served", "ours")
    for path in ("anything", "a/b", "socket.io", "%2e%2e/x"):
        yield http(f"below the path: {path}", get(POLL.replace("/?", f"/{path}?")), OPEN, EIO)
    yield http(
        "no client for browsers", get(f"{PATH}socket.io.js"), "400 Transport unknown", f"{EIO}: serveClient false"
    )
    yield http("without the slash", get(POLL.replace("/?", "?")), "404 ", f"{EIO}: another path")
    for origin in (f"http://{HOST}", f"ws://{HOST}", f"ws://{HOST}:80"):
        yield http(f"origin {origin}", get(POLL, f"Origin: {origin}"), OPEN, "RFC 6454, 5; Swift names ws")
    for origin in (f"wss://{HOST}", f"ws://{HOST}:81", "ws://", "null", f"capacitor://{HOST}", "file://", HOST):
        yield http(f"origin {origin}", get(POLL, f"Origin: {origin}"), "403 Forbidden", "RFC 6454, 5")
    for version in ("2.0", "3.0", "0.9"):
        yield http(
            f"HTTP/{version}", get(version=version), "505 HTTP Version Not Supported", "RFC 9110, 15.6.6", ends=True
        )
    yield http("HTTP/1.2", get(version="1.2"), OPEN, "RFC 9110, 2.5")
    yield http(
        "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "505 HTTP Version Not Supported",
        "RFC 9113, 3.4", ends=True,
    )  # fmt: skip
    for lines in (b"\r\n", b"\n", b"\r\n\n\r\n"):
        yield http(f"behind {lines!r}", lines + get(), OPEN, "RFC 9112, 2.2")
    yield http("100 headers", get(POLL, *["X: y"] * 99), OPEN, "ours")
    too_many = "431 Request Header Fields Too Large"
    yield http("101 headers", get(POLL, *["X: y"] * 100), too_many, "RFC 6585, 5", ends=True)
    yield http("3,000 headers", get(POLL, *["X: y"] * 3000), too_many, "RFC 6585, 5", ends=True)
    yield http("a header of 17 KB", get(POLL, "X: " + "y" * 17_000), too_many, "RFC 6585, 5", ends=True)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    for name, head in {
        "HTTP/1.0": b"POST /x HTTP/1.0\r\nHost: x\r\n",
        "a length": b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n",
    }.items():
        yield http(f"chunks on {name}", head + chunked, "400 Bad Request", "RFC 9112, 6.1", ends=True)


def upgrades() -> Iterator[Case]:
    """Requests for a WebSocket."""
    for offer in ("my-token", "my-token, other", "my-token , other", "my-token,", ",my-token"):
        yield Case(
            f"subprotocol {offer}", "http", upgrade(WS, f"Sec-WebSocket-Protocol: {offer}"),
            ("101 my-token", "text open"), "ws 8; RFC 9110, 5.6.1", ends=True,
        )  # fmt: skip
    for offer in ("", ",", "a b", "a,a", "a;b", "a/b", '"a"', "\xe9"):
        yield http(f"subprotocol {offer!r}", upgrade(WS, f"Sec-WebSocket-Protocol: {offer}"), BAD, "RFC 6455, 4.1")
    for offer in ("permessage-deflate; client_max_window_bits", 'x; y="z"', "a, b; c=d"):
        yield Case(
            f"extension {offer}", "http", upgrade(WS, f"Sec-WebSocket-Extensions: {offer}"), ("101", "text open"),
            "RFC 6455, 9.1", ends=True,
        )  # fmt: skip
    yield http(
        "101 subprotocols", upgrade(WS, f"Sec-WebSocket-Protocol: {','.join(map(str, range(101)))}"), BAD, "ours"
    )
    yield http("1 KB of extensions", upgrade(WS, f"Sec-WebSocket-Extensions: {'a;b=c,' * 170}abcde"), BAD, "ours")
    for name, offer, chosen in (
        ("100 subprotocols", f"Sec-WebSocket-Protocol: {','.join(map(str, range(100)))}", "101 0"),
        ("a long subprotocol", f"Sec-WebSocket-Protocol: {'x' * 8000}", f"101 {'x' * 8000}"),
        ("1,024 characters of extensions", f"Sec-WebSocket-Extensions: {'a;b=c,' * 170}abcd", "101"),
    ):
        yield Case(name, "http", upgrade(WS, offer), (chosen, "text open"), "ours", ends=True)
    for offer in ("", ",", "a b", "a;", "a;b=", 'a;b="c d"', "=", "a;b=c d"):
        yield http(f"extension {offer!r}", upgrade(WS, f"Sec-WebSocket-Extensions: {offer}"), BAD, "RFC 6455, 9.1")


def posts() -> Iterator[Case]:
    """Bodies of POST requests."""
    for text in ("AQIDBA==\n", "AQID\r\nBA==", "AQIDBA", "AQIDBA=", "AQ-_", "AQ==AQ==", " AQ==", "!AQ", "A", "", "="):
        yield polling(f"binary {text!r}", post(f'40\x1e451-["x"]\x1eb{text}'), "200 ok", f"{EIO}: Buffer.from")
    for kind in ("application/octet-stream", "application/octet-stream; a=b", "application/json", "x"):
        yield polling(
            f"content type {kind}", post("40", f"Content-Type: {kind}"), "200 ok", "python-engineio 4.0 sends the first"
        )
    yield polling("an empty line behind the body", post("40") + b"\r\n", "200 ok", "RFC 9112, 2.2; Node")
    yield polling("content that is no UTF-8", post(b"4\xff"), BAD, "RFC 3629")


def probes() -> Iterator[Case]:
    """What a client says on a WebSocket to which it may upgrade. The type of the packet decides."""

    def probe(name: str, *messages: str | bytes, answer: tuple[str, ...] = ()) -> Case:
        return Case(f"probe {name}", "probe", b"".join(map(frame, messages)), answer, EIO)

    yield probe("5 at once", "5", "40", answer=GREETED)
    yield probe("5 with more", "5x", "40", answer=GREETED)
    yield probe("twice", "2probe", "2probe", answer=("text 3probe",) * 2)
    yield probe("and 5 with more", "2probe", "5probe", "40", answer=("text 3probe", *GREETED))
    for text in ("2", "2x", "2probe ", "2Probe", "3probe", "4", "40", "6", "0", "1", "b", "x", "", b"2probe", b"5"):
        yield Case(f"probe {text!r}", "probe", frame(text), ("close 1005",), EIO, ends=True)
        yield Case(
            f"probe 2probe {text!r}",
            "probe",
            frame("2probe") + frame(text),
            ("text 3probe", "close 1005"),
            EIO,
            ends=True,
        )


def closings() -> Iterator[Case]:
    """Close frames, and mistakes, behind something that is still to be answered. Nothing follows a close frame."""
    hello, back = frame('42["message",1]'), 'text 42["message-back",1]'
    wrong = b"\xc1\x80\0\0\0\0"  # a reserved bit
    source = "RFC 6455, 5.5.1"

    def closing(name: str, stage: str, data: bytes, *answer: str, source: str = source) -> Case:
        return Case(f"close {name}", stage, data, answer, source, ends=True)

    end = close_frame()
    yield closing("behind a probe", "probe", frame("2probe") + end, "text 3probe", "close 1000")
    yield closing("before a probe", "probe", frame("2probe") + end + frame("2probe"), "text 3probe", "close 1000")
    yield closing("behind an event", "joined", hello + end, back, "close 1000")
    yield closing("between events", "joined", hello + end + hello, back, "close 1000")
    yield closing("behind a ping", "joined", frame(b"a", 9) + hello + end, "pong a", back, "close 1000")
    yield closing("before a ping", "joined", hello + end + frame(b"a", 9), back, "close 1000")
    yield closing("twice", "joined", hello + end + end, back, "close 1000")
    yield closing("of another code", "joined", hello + close_frame(3001), back, "close 3001")
    yield closing("without a code", "joined", hello + frame(b"", 8), back, "close 1005")
    amid = "RFC 6455, 5.4 (Autobahn 7.1.5)"
    yield closing(
        "amid a message", "joined", hello + frame("4", fin=False) + end + frame("2", 0), back, "close 1000", source=amid
    )
    strict = "RFC 6455, 7.1.7 (Autobahn 3.2, 4.1, 5.15: not only the non-strict answer)"
    yield closing("for a mistake", "joined", hello + wrong, back, "close 1002", source=strict)
    yield closing("for a mistake amid events", "joined", hello + wrong + hello, back, "close 1002", source=strict)
    yield closing("for bad UTF-8", "joined", hello + frame(b"\xff", 1), back, "close 1007", source=strict)
    yield closing(
        "for a mistake on a probe", "probe", frame("2probe") + wrong, "text 3probe", "close 1002", source=strict
    )
    pieces = frame("", 1, fin=False) + frame("", 0, fin=False) * 10_000
    yield closing(
        "for 10,000 empty fragments", "joined", hello + pieces, back, "close 1009", source="ws 8: maxFragments"
    )


def events() -> Iterator[Case]:
    """Socket.IO packets without attachments."""
    js = "ECMA-262, 25.5.1 (JSON.parse)"
    numbers = "1.0,1e2,-0,0.1e-400,9007199254740993,12345678901234567890"
    yield message(
        "numbers", f'42["message",{numbers}]',
        'text 42["message-back",1,100,0,0,9007199254740992,12345678901234567168]', js,
    )  # fmt: skip
    for number in ("1e400", "-1e400", "1e999", "9" * 400, "9" * 5000):
        # Infinite in JavaScript, and JSON has no words for that. The example echoes nothing, the reference null.
        yield message(f"number {number[:9]}", f'42["message",{number}]', "", js)
        yield message(f"deep number {number[:9]}", f'42["message",[{{"a":{number}}}]]', "", js)
        yield message(f"number {number[:9]} for a name", f"42[{number}]", "", js)
    yield message("number for a name", "42[1.5]", "", SIO)
    yield message("same key twice", '42["message",{"a":1,"a":2}]', 'text 42["message-back",{"a":2}]', js)
    yield message("white space", '42["message"] \t\r\n', 'text 42["message-back"]', js)
    for text in ("42", "421", "42\n", "43", "430", "43[]", "4399[]"):
        yield message(f"nothing to do in {text!r}", text, "", SIO)
    for text in ("40 ", "40\n", "40/,\r\n"):
        yield Case(f"white space behind {text!r}", "websocket", frame(text), GREETED, SIO)
    yield Case("white space behind 41", "joined", frame("41\n") + frame("40"), GREETED, SIO)
    yield message("half a character", '42["message","\\ud800"]', 'text 42["message-back","\\ud800"]', js)
    yield message("ack id with zeros", '4207["message-with-ack"]', "text 437[]", SIO)
    yield message("placeholder without attachments", '42["message",{"_placeholder":true,"num":0}]',
                  'text 42["message-back",{"_placeholder":true,"num":0}]', SIO)  # fmt: skip
    for namespace in ("/custom?token=abc", "/custom?", "/nobody", "/CUSTOM", "/custom/"):
        refused = f'text 44{namespace},{{"message":"Invalid namespace"}}'
        yield Case(f"namespace {namespace}", "websocket", frame(f"40{namespace},{{}}"), (refused,), SIO)
    longest = "/" + "x" * 4095
    refused = f'text 44{longest},{{"message":"Invalid namespace"}}'
    yield Case("namespace of 4,096 characters", "websocket", frame(f"40{longest},"), (refused,), "ours")
    yield broken("namespace of 4,097 characters", f"40{longest}x,", source="ours; the reference sends it back")
    yield Case(
        "attachments before a connect", "websocket", frame('451-["x",{"_placeholder":true,"num":0}]'), ("close 1005",),
        f"{SIO}, which first waits for them", ends=True,
    )  # fmt: skip
    yield Case("namespace, slash", "websocket", frame("40/,"), GREETED, SIO)
    yield Case(
        "infinite number for auth", "websocket", frame('40/custom,{"a":1e999}'), ('text 40/custom,{"sid":"…"}',), js
    )
    for name, text in {
        "NaN": '42["message",NaN]', "Infinity": '42["message",-Infinity]', "leading zero": '42["message",01]',
        "plus": '42["message",+1]', "hexadecimal": '42["message",0x1]', "half a number": '42["message",1.]',
        "comma": '42["message",]', "quotes": "42['message']", "comment": '42["message"/**/]', "control": '42["a\tb"]',
        "ack id in Arabic": '42\u0661["message"]',
        "ack id squared": '42\xb2["message"]',
        "ack id with a sign": '42+1["message"]', "negative ack id": '42-1["message"]', "ack id 1e3": '421e3["message"]',
        "type in Arabic": '4\u0662["message"]',
        "connect with null": "40/custom,null", "connect with a list": "40/custom,[]",
        "connect with text": '40/custom,"x"',
        "query without a namespace": "40?token=abc,{}", "ack without a list": "43{}", "disconnect with null": "41null",
        "attachments to an event": '421-["x"]',
        "attachments to a connect": "401-{}", "unknown namespace": '42/custom?,["x"]',
    }.items():  # fmt: skip
        yield broken(name, text, source=SIO)
    # Digits to the reference server are all that JavaScript turns into numbers; it takes these two for 0 and for 2**53.
    yield broken("byte order mark", '42\ufeff["message"]', source="Socket.IO protocol 5")
    yield broken("ack id beyond integers", '429007199254740993["message"]', source="Socket.IO protocol 5")


def texts() -> Iterator[Case]:
    """What may stand in an event's JSON, and around it. What is right here is right to the reference as well."""
    for text, back in {
        r'"a\u0000b"': r'"a\u0000b"', '"a\x7fb"': '"a\x7fb"', '"a\u2028b"': '"a\u2028b"', r'"\/"': '"/"',
        r'"\udc00"': r'"\udc00"', r'"\udc00\ud800"': r'"\udc00\ud800"', r'"\ud83dx"': r'"\ud83dx"',
        r'"\ud83d\ude00"': '"\U0001f600"', '{"__proto__":{"a":1},"b":2}': '{"__proto__":{"a":1},"b":2}',
        "1E5,1e+5,-0.0,1e21": "100000,100000,0,1e+21",
        "5e-324,1.7976931348623157e308": "5e-324,1.7976931348623157e+308",
    }.items():  # fmt: skip
        yield message(f"text {text}", f'42["message",{text}]', f'text 42["message-back",{back}]', JSON)
    for text in (
        '"a\0b"', r'"\x41"', r'"\u12"', r'"\u+123"', r'"\u1_23"', '"\\u\u0661\u0661\u0661\u0661"', r'"\U0041"',
        "-01", ".5", "1e", "True", "undefined",
    ):  # fmt: skip
        yield broken(f"text {text!r}", f'42["message",{text}]', source=JSON)
    for behind in ("\x0b", "\x0c", "\xa0", "\ufeff", '["x"]', "0"):
        yield broken(f"{behind!r} behind an event", f'42["message"]{behind}', source=JSON)
    for name in ("null", "true", '["message"]', '{"a":1}', '"connect"', '"disconnecting"'):
        yield broken(f"{name} for a name", f"42[{name}]", source=SIO)
    for name in ("", "error", "__proto__", "hasOwnProperty", "toString"):
        yield message(f"name {name!r}", f'42["{name}",1]', "", SIO)
    for data in ('{"0":"message","length":1}', '"message"', "null", "true"):
        yield broken(f"an event that is {data}", f"42{data}", source=SIO)
    for ack_id, back in {"0": "0", f"{2**53 - 1}": f"{2**53 - 1}", f"{'0' * 30}7": "7", "/,5": "5"}.items():
        yield message(f"ack id {ack_id}", f'42{ack_id}["message-with-ack"]', f"text 43{back}[]", SIO)
    for text in ("42-0[]", "42//,[]", "41/nope,", "40", '44{"message":"x"}', "47[]", "4", "4 2[]"):
        yield broken(f"packet {text}", text, source=SIO)
    for text in ("5", "0{}", "3probe", "6x"):
        yield message(f"packet {text} means nothing", text, "", EIO)
    for text in ("7", "", "2", "2probe", "b", "b!!!!"):
        yield broken(f"packet {text!r} of Engine.IO", text, source=EIO)
    for sent in ('42["message"]', "41", "431[]", b"abc", "40custom,", "40,{}"):
        yield Case(f"{sent!r} before a connect", "websocket", frame(sent), ("close 1005",), SIO, ends=True)


def frames() -> Iterator[Case]:
    """Frames that are no usual ones, but well-formed; and those that are not."""
    source = "RFC 6455, 5.2"
    for name, size in {"two": b"\xfe\0\1", "eight": b"\xff" + (1).to_bytes(8, "big")}.items():
        yield Case(f"a size of one in {name} bytes", "joined", b"\x81" + size + b"\0\0\0\x006", (), source)
    halves = frame(b'42["message","\xc3', 1, fin=False) + frame(b'\xa9"]', 0)
    yield Case("a character in two fragments", "joined", halves, ('text 42["message-back","\xe9"]',), "RFC 6455, 5.6")
    for name, data, code in (
        ("no mask", b"\x81\x016", 1002), ("a reserved opcode", b"\x83\x80\0\0\0\0", 1002),
        ("a ping in fragments", b"\x09\x80\0\0\0\0", 1002),
        ("a ping of 126 bytes", b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126, 1002),
        ("a negative size", b"\x81\xff\x80" + bytes(11), 1009), ("a continuation of nothing", frame(b"", 0), 1002),
        ("a text amid a text", frame("4", fin=False) + frame("2"), 1002),
        ("a close frame of one byte", b"\x88\x81\0\0\0\0\x03", 1002),
        ("a surrogate", frame(b'42["message","\xed\xa0\x80"]', 1), 1007),
        ("an overlong slash", frame(b'42["message","\xc0\xaf"]', 1), 1007),
        *((f"close code {wrong}", close_frame(wrong), 1002) for wrong in (0, 999, 1004, 1005, 1006, 1015, 1016, 5000)),
    ):  # fmt: skip
        yield Case(name, "joined", data, (f"close {code}",), "RFC 6455, 5 and 7.4; ws 8", ends=True)


def framing() -> Iterator[Case]:
    """Requests of which two readers might take different parts for the body. A proxy before us may be the other one."""
    body = b"2\r\n40\r\n0\r\n\r\n"
    for length in ("+2", "-1", "", "1e3", "0x2", "9" * 25, "2 2", "2,3", "\xb2"):
        data = get(POLL, f"Content-Length: {length}", method="POST") + b"40"
        yield http(f"length {length!r}", data, "400 Bad Request", "RFC 9110, 8.6", ends=True)
    for coding in ("gzip, chunked", "identity", "xchunked", "chunked, chunked"):
        data = get(POLL, f"Transfer-Encoding: {coding}", method="POST") + body
        yield http(f"coding {coding}", data, "501 Not Implemented", "RFC 9112, 6.1", ends=True)
    for size in ("0x2", "+2", " 2", "-2", "2_0", "g", ""):
        data = get("/x", "Transfer-Encoding: chunked", method="POST") + size.encode() + body[1:]
        yield http(f"chunk of {size!r} bytes", data, "400 Bad Request", "RFC 9112, 7.1", ends=True)
    for line in ("A : b", "nocolon", ": x", "A: a\0b", "A: a\rb", "Host: other"):
        yield http(f"header {line!r}", get(POLL, line), "400 Bad Request", "RFC 9112, 5", ends=True)
    for old, new in (
        (b" HTTP", b"  HTTP"),
        (b" HTTP", b"\tHTTP"),
        (b"HTTP", b"http"),
        (b"1.1", b"1.10"),
        (b"GET", b" GET"),
    ):
        yield http(f"{new!r} for {old!r}", get().replace(old, new, 1), "400 Bad Request", "RFC 9112, 3", ends=True)


def attachments() -> Iterator[Case]:
    """Binary packets."""

    def place(number: str) -> str:
        return f'{{"_placeholder":true,"num":{number}}}'

    def event(*args: str, count: int | str = 1) -> str:
        return f'45{count}-["message",{",".join(args)}]'

    def echoed(name: str, *messages: str | bytes, answer: tuple[str, ...]) -> Case:
        return Case(f"attachment {name}", "joined", b"".join(map(frame, messages)), answer, SIO)

    back = '["message-back",'
    one, a = f"text 451-{back}{place('0')}]", "binary a"
    yield echoed("whole", event(place("0")), b"a", answer=(one, a))
    yield echoed("as text", event(place("0")), "bYQ==\n", answer=(one, a))
    yield echoed("numbered 0.0", event(place("0.0")), b"a", answer=(one, a))
    twice = f"text 452-{back}{place('0')},{place('1')}]"
    yield echoed("used twice", event(place("0"), place("0")), b"a", answer=(twice, a, a))
    yield echoed("unused", event("1"), b"a", answer=(f"text 42{back}1]",))
    yield echoed("count with zeros", event(place("0"), count="01"), b"a", answer=(one, a))
    for flag in ("1", "false", '"true"', "null"):
        value = f'{{"_placeholder":{flag},"num":0}}'
        yield echoed(f"not placed by {flag}", event(value), b"a", answer=(f"text 42{back}{value}]",))
    ten: list[str | bytes] = [event("1", count=10), *[b"a"] * 10]
    yield echoed("10 of them", *ten, answer=(f"text 42{back}1]",))
    yield broken(
        "attachment numbered 0.5", event(place("0.5")), b"a", source="ours; the reference puts undefined there"
    )
    for number in ("-1", "1", "true", '"0"', "null", "1e400"):
        yield broken(f"attachment numbered {number}", event(place(number)), b"a", source=SIO)
    none = '{"_placeholder":true}'
    mistakes: dict[str, list[str | bytes]] = {
        "not numbered": [event(none), b"a"], "for a name": [f"451-[{place('0')}]", b"a"],
        "more than declared": ['451-["x",1]', b"a", b"b"], "of nothing": ['42["x"]', b"a"],
        "text instead": [event("1"), '42["x"]'], "0 of them": [event("1", count=0)], "0 to an ack": ["460-1[1]"],
        "00 of them": [event("1", count="00")], "no count": ['45-["message",1]'], "no dash": ['451["message",1]'],
        "no count at all": ['45["message",1]'], "count in Arabic": ['45\u0661-["message",1]', b"a"],
        "count squared": ['45\xb2-["message",1]', b"a"], "count 1e0": ['451e0-["x",1]', b"a"],
        "negative count": ['45-1-["message",1]'], "11 of them": [event("1", count=11)],
        "many of them": [event("1", count="9" * 5000)],
    }  # fmt: skip
    for name, messages in mistakes.items():
        yield broken(f"attachment {name}", *messages, source=SIO)
    for value in ("1", "0", "x"):
        yield Case(
            f"base64 on a WebSocket, {value}", "joined", frame(event(place("0"))) + frame(b"a"), (one, "text bYQ=="),
            EIO, target=f"{WS}&b64={value}",
        )  # fmt: skip


TABLE = (requests, framing, upgrades, posts, probes, closings, frames, events, texts, attachments)
CASES = [case for rows in TABLE for case in rows()]


# How a case is run ------------------------------------------------------------------------------------------------


class Wire(Protocol):
    """One connection of a client to the server under test."""

    def send(self, data: bytes) -> None: ...

    def receive(self) -> bytes | None:
        """What has come, waiting for it where that takes time; ``b""`` at the end, None where nothing will come now."""

    def end(self) -> None:
        """Send no more."""


class Client:
    """A client that writes down what it hears on one connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.heard: list[str] = []
        self.ended = False
        self.sid = ""
        """Of the session that it has opened."""
        self._unread = bytearray()
        self._socket: WebSocketProtocol | None = None

    def send(self, data: bytes) -> None:
        self.wire.send(data)

    def hear(self, *lines: str) -> None:
        """Listen until these lines have come; they are taken off what was heard."""
        while len(self.heard) < len(lines) and not self.ended and self._listen():
            pass
        assert tuple(self.heard[: len(lines)]) == lines, (self.heard, lines)
        del self.heard[: len(lines)]

    def next(self) -> str:
        """The next line that comes."""
        while not self.heard:
            assert not self.ended, "the connection has ended"
            self._listen()
        return self.heard.pop(0)

    def hear_end(self) -> None:
        """Listen until the server has ended the connection, without another word."""
        while not self.ended:
            assert self._listen(), "the server has not ended the connection"
        assert self.heard == []

    def _listen(self) -> bool:
        data = self.wire.receive()
        if data is None:
            return False
        self.ended = data == b""
        self._unread += data
        if not self.sid and (found := re.search(rb'"sid":"([^"]+)"', self._unread)):
            self.sid = found[1].decode()
        while self._understand():
            pass
        return True

    def _understand(self) -> bool:
        if self._socket is not None:
            self._read_frames(self._socket)
            return False
        return bool(self._unread) and self._read_answer()

    def _read_answer(self) -> bool:
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Upgrade", "websocket")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(bytes(self._unread))
        head, body = parser.next_event(), b""
        while isinstance(head, h11.Response):
            event = parser.next_event()
            if event is h11.NEED_DATA:
                return False
            if isinstance(event, h11.EndOfMessage):
                break
            assert isinstance(event, h11.Data)
            body += bytes(event.data)
        if head is h11.NEED_DATA:
            return False
        assert isinstance(head, h11.Response | h11.InformationalResponse)
        self._unread = bytearray(parser.trailing_data[0])
        headers = {name.decode(): value.decode() for name, value in head.headers}
        if head.status_code == 101:
            self._socket = WebSocketProtocol(Side.CLIENT, state=State.OPEN)
            protocol = headers.get("sec-websocket-protocol")
            self.heard.append("101" if protocol is None else f"101 {protocol}")
        else:
            self.heard.append(f"{head.status_code} {_gist(body)}")
        return True

    def _read_frames(self, socket: WebSocketProtocol) -> None:
        socket.receive_data(bytes(self._unread))
        self._unread.clear()
        assert socket.parser_exc is None, socket.parser_exc
        for event in socket.events_received():
            assert isinstance(event, Frame)
            data = bytes(event.data)
            kind = event.opcode.name.lower()
            if event.opcode is Opcode.CLOSE:
                text = str(int.from_bytes(data[:2], "big") if data else 1005)
            else:
                text = _gist(data)
            self.heard.append(f"{kind} {text}")


def _gist(data: bytes) -> str:
    """What matters of an answer's body or a message."""
    text = data.decode()
    if text.startswith("0{"):
        return "open"
    if text.startswith('{"code"'):
        return str(json.loads(text)["message"])
    return re.sub(r'"sid":"[^"]*"', '"sid":"…"', text).strip()


def run(case: Case, connect: Callable[[], Wire]) -> None:
    """Be the client of a case; raises AssertionError where the server does not do as the table says."""
    sid = ""
    if case.stage in ("polling", "probe"):
        sid = open_session(connect())
    client = Client(connect())
    if case.stage == "probe":
        client.send(upgrade(f"{case.target}&sid={sid}"))
        client.hear("101")
    elif case.stage in ("websocket", "joined"):
        client.send(upgrade(case.target))
        client.hear("101", "text open")
    if case.stage == "joined":
        client.send(frame("40"))
        client.hear(*GREETED)
    client.send(case.data.replace(b"{sid}", sid.encode()))
    client.hear(*case.answer)
    if case.ends:
        if case.answer[0].startswith("101"):
            client.send(close_frame())
            client.hear("close 1000")
        elif not CLOSE_FRAME.search(case.data) or case.answer[-1] == "close 1002":  # a wrong one is no close frame
            client.wire.end()
        client.hear_end()
    elif case.stage in ("http", "polling"):
        client.send(get())
        client.hear(OPEN)
    elif case.stage == "joined":
        client.send(frame('42["message","alive"]'))
        client.hear('text 42["message-back","alive"]')
    else:
        client.send(frame(b"alive", 9))
        client.hear("pong alive")
    assert client.heard == []


def open_session(wire: Wire) -> str:
    """Open a session by polling; returns its sid."""
    client = Client(wire)
    client.send(get())
    client.hear(OPEN)
    return client.sid
