"""What native clients send, byte by byte: those that the tests cannot run, as no package has them built.

The Java and the C++ client's bytes were taken down from the clients themselves, built from their sources; the others'
are read in their sources. Each habit is a function that is such a client to the example's ``SocketEcho``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from kits.hostile import GREETED, HOST, Client, Wire, close_frame, frame

Connect = Callable[[], Wire]
Habit = Callable[[Connect], None]

CONNECTED, AUTH = (line.removeprefix("text ") for line in GREETED)
BYTES = bytes(range(100))
BINARY = '451-["message",{"_placeholder":true,"num":0}]'
BINARY_BACK = BINARY.replace("message", "message-back")
KEY = "Sec-WebSocket-Key: ZLRlB4A1Zbpen2bw/+YW2Q=="


class Line(Client):
    """One connection of a client."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect())

    def poll(self, request: bytes, *packets: str) -> None:
        """Poll, as often as it takes, until these packets have come; NOOPs are passed over."""
        came: list[str] = []
        while len(came) < len(packets):
            self.send(request)
            came += [packet for packet in self.next().removeprefix("200 ").split("\x1e") if packet != "6"]
        assert tuple(came) == packets, came


def head(method: str, target: str, *headers: str) -> bytes:
    return ("\r\n".join([f"{method} {target} HTTP/1.1", *headers]) + "\r\n\r\n").encode()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Java: socket.io-client-java 2.1, on OkHttp ------------------------------------------------------------------------

OKHTTP = (f"Host: {HOST}", "Connection: Keep-Alive", "Accept-Encoding: gzip", "User-Agent: okhttp/4.12.0")


def java(target: str, body: str | None = None) -> bytes:
    """One of its requests by long-polling."""
    target = f"/socket.io/?EIO=4&transport=polling{target}"
    if body is None:
        return head("GET", target, "Accept: */*", *OKHTTP)
    kind, size = "Content-Type: text/plain;charset=UTF-8", f"Content-Length: {len(body)}"
    return head("POST", target, "Accept: */*", kind, size, *OKHTTP) + body.encode()


def java_upgrade(target: str) -> bytes:
    return head(
        "GET", f"/socket.io/?EIO=4&transport=websocket{target}", "Upgrade: websocket", "Connection: Upgrade", KEY,
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Extensions: permessage-deflate", f"Host: {HOST}",
        "Accept-Encoding: gzip", "User-Agent: okhttp/4.12.0",
    )  # fmt: skip


def java_base64(data: bytes) -> str:
    """Android's default: lines of 76 characters, and the end of a line behind the last."""
    text = encoded(data)
    return "".join(f"{text[at : at + 76]}\n" for at in range(0, len(text), 76))


def java_by_polling(connect: Connect) -> None:
    one, two = Line(connect), Line(connect)
    one.send(java(""))
    one.hear("200 open")
    sid = f"&sid={one.sid}"
    one.send(java(sid, "40"))
    two.poll(java(sid), CONNECTED, AUTH)
    one.hear("200 ok")
    one.send(java(sid, f'42["message",1]\x1e{BINARY}\x1eb{java_base64(BYTES)}'))
    two.poll(java(sid), '42["message-back",1]', BINARY_BACK, f"b{encoded(BYTES)}")
    one.hear("200 ok")
    two.send(java(sid))
    for body in ("41", "1"):
        one.send(java(sid, body))
        one.hear("200 ok")
    two.hear("200 6")


def java_by_websocket(connect: Connect) -> None:
    line = Line(connect)
    line.send(java_upgrade(""))
    line.hear("101", "text open")
    line.send(frame("40"))
    line.hear(*GREETED)
    line.send(frame(BINARY))
    line.send(frame(BYTES))
    line.hear(f"text {BINARY_BACK}", f"binary {BYTES.decode()}")
    line.send(frame("41"))
    line.send(close_frame())
    line.hear("close 1000")
    line.hear_end()


def java_with_an_upgrade(connect: Connect) -> None:
    """It asks for the WebSocket before it polls, posts while it probes, and sends what waits along with the ``5``."""
    one, two = Line(connect), Line(connect)
    one.send(java(""))
    one.hear("200 open")
    sid = f"&sid={one.sid}"
    one.send(java(sid, "40"))
    one.hear("200 ok")
    two.send(java_upgrade(sid))
    two.hear("101")
    one.poll(java(sid), CONNECTED, AUTH)
    two.send(frame("2probe"))
    two.hear("text 3probe")
    one.send(java(sid, '42["message",1]'))
    one.hear("200 ok")
    one.send(java(sid))
    assert one.next() in ('200 42["message-back",1]', "200 6")
    two.send(frame("5") + frame('42["message",2]'))
    while (said := two.next()) != 'text 42["message-back",2]':
        assert said == 'text 42["message-back",1]', "what the poll had no place for comes here"


# C++: socket.io-client-cpp 3.1, on WebSocket++ ---------------------------------------------------------------------


def cpp(connect: Connect) -> None:
    line = Line(connect)
    line.send(head(
        "GET", "/socket.io/?EIO=4&transport=websocket&t=1795760367", "Connection: Upgrade", f"Host: {HOST}", KEY,
        "Sec-WebSocket-Version: 13", "Upgrade: websocket", "User-Agent: WebSocket++/0.8.2",
    ))  # fmt: skip
    line.hear("101", "text open")
    line.send(frame("40"))
    line.hear(*GREETED)
    line.send(frame('42["message",1]'))
    line.hear('text 42["message-back",1]')
    line.send(frame(b"\x03\xe8End by user", 8))
    line.hear("close 1000")
    line.hear_end()


# Swift: socket.io-client-swift 16, on URLSession and Starscream ----------------------------------------------------

URLSESSION = (f"Host: {HOST}", "Accept: */*", "Accept-Language: en-us", "Connection: keep-alive",
              "Accept-Encoding: gzip, deflate", "User-Agent: App/1 CFNetwork/1474 Darwin/23.0.0")  # fmt: skip


def swift(sid: str, body: str | None = None) -> bytes:
    target = f"/socket.io/?transport=polling&b64=1&EIO=4{sid}"
    if body is None:
        return head("GET", target, *URLSESSION)
    kind, size = "Content-Type: text/plain; charset=UTF-8", f"Content-Length: {len(body)}"
    return head("POST", target, *URLSESSION, kind, size) + body.encode()


def swift_with_an_upgrade(connect: Connect) -> None:
    """Its origin is the WebSocket's own address; posts that it has not sent when it moves become text frames."""
    one, two, three = Line(connect), Line(connect), Line(connect)
    one.send(swift(""))
    one.hear("200 open")
    sid = f"&sid={one.sid}"
    three.send(head(
        "GET", f"/socket.io/?transport=websocket&EIO=4{sid}", f"Host: {HOST}", "Upgrade: websocket",
        "Connection: Upgrade", "Sec-WebSocket-Version: 13", KEY, f"Origin: ws://{HOST}",
    ))  # fmt: skip
    three.hear("101")
    three.send(frame("2probe"))
    two.send(swift(sid, "40/,"))
    two.hear("200 ok")
    one.poll(swift(sid), CONNECTED, AUTH)
    three.hear("text 3probe")
    two.send(swift(sid, "6"))
    two.hear("200 ok")
    one.send(swift(sid))
    assert one.next() == "200 6"
    three.send(frame("5") + frame(BINARY) + frame(f"b{encoded(BYTES)}"))
    three.hear(f"text {BINARY_BACK}", f"binary {BYTES.decode()}")
    three.send(frame("1") + close_frame())
    three.hear("close 1000")
    three.hear_end()


# C#: SocketIOClient, on HttpClient and ClientWebSocket -------------------------------------------------------------


def csharp(method: str, sid: str, body: str = "") -> bytes:
    """Its polls have a body, too, which is empty."""
    target = f"/socket.io/?EIO=4&transport=polling{sid}"
    kind, size = "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"
    return head(method, target, f"Host: {HOST}", kind, size) + body.encode()


def csharp_upgrade(sid: str) -> bytes:
    return head(
        "GET", f"/socket.io/?EIO=4&transport=websocket{sid}", f"Host: {HOST}", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY,
    )  # fmt: skip


def csharp_by_polling(connect: Connect) -> None:
    """An event and its attachments are posts of their own."""
    one, two = Line(connect), Line(connect)
    one.send(csharp("GET", ""))
    one.hear("200 open")
    sid, at = f"&sid={one.sid}", "&t=1795760367123"
    two.send(csharp("POST", sid + at, "40"))
    one.poll(csharp("GET", sid + at), CONNECTED, AUTH)
    two.hear("200 ok")
    for body in (BINARY, f"b{encoded(BYTES)}"):
        two.send(csharp("POST", sid + at, body))
        two.hear("200 ok")
    one.poll(csharp("GET", sid + at), BINARY_BACK, f"b{encoded(BYTES)}")


def csharp_with_an_upgrade(connect: Connect) -> None:
    """It neither polls nor probes, and sends long messages in fragments of 8 KiB."""
    one, two = Line(connect), Line(connect)
    one.send(csharp("GET", ""))
    one.hear("200 open")
    two.send(csharp_upgrade(f"&sid={one.sid}"))
    two.hear("101")
    two.send(frame("5"))
    two.send(frame("40"))
    two.hear(*GREETED)
    text = "x" * 20_000
    message = f'42["message","{text}"]'
    pieces = [message[at : at + 8192] for at in range(0, len(message), 8192)]
    for number, piece in enumerate(pieces):
        two.send(frame(piece, 0 if number else 1, fin=number == len(pieces) - 1))
    two.hear(f'text 42["message-back","{text}"]')
    two.send(frame("41") + frame(b"\x03\xe8io client disconnect", 8))
    two.hear("close 1000")
    two.hear_end()


# ESP32: arduinoWebSockets 2.7 --------------------------------------------------------------------------------------


def esp32_upgrade(sid: str, *headers: str) -> bytes:
    return head(
        "GET", f"/socket.io/?EIO=4&transport=websocket&sid={sid}", f"Host: {HOST}:80", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY, "Sec-WebSocket-Protocol: arduino", *headers,
        "User-Agent: arduino-WebSocket-Client",
    )  # fmt: skip


def esp32(connect: Connect) -> None:
    """All on one connection; it waits for no answer to its probe, and has a heartbeat of ping frames besides."""
    line = Line(connect)
    agent = "User-Agent: arduino-WebSocket-Client"
    line.send(head("GET", "/socket.io/?EIO=4&transport=polling", f"Host: {HOST}:80", "Connection: keep-alive", agent))
    line.hear("200 open")
    line.send(esp32_upgrade(line.sid))
    line.hear("101 arduino")
    line.send(frame("2probe"))
    line.send(frame("5"))
    line.hear("text 3probe")
    line.send(frame("40"))
    line.hear(*GREETED)
    line.send(frame(b"", 9))
    line.hear("pong ")
    line.send(frame('42["message",1]'))
    line.hear('text 42["message-back",1]')


def esp32_as_it_comes(connect: Connect) -> None:
    """Unless it is told otherwise its origin is ``file://``, which has to be allowed."""
    line = Line(connect)
    origin, agent = "Origin: file://", "User-Agent: arduino-WebSocket-Client"
    line.send(
        head("GET", "/socket.io/?EIO=4&transport=polling", f"Host: {HOST}:80", "Connection: keep-alive", origin, agent)
    )
    line.hear("403 Forbidden")


HABITS: tuple[Habit, ...] = (
    java_by_polling, java_by_websocket, java_with_an_upgrade, cpp, swift_with_an_upgrade, csharp_by_polling,
    csharp_with_an_upgrade, esp32, esp32_as_it_comes,
)  # fmt: skip
