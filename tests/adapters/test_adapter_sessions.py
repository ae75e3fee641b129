"""Engine.IO and Socket.IO sessions through every adapter: the real protocol over real sockets."""

from __future__ import annotations

import base64
import http.client
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from echo_server import SocketEcho
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from automoderate.protocol.config import Config
from kits.adapters import PATIENCE, Running, Start, Web

HANDSHAKE = (
    b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


def echo() -> SocketEcho:
    return SocketEcho(Config())


def websocket(server: Running, path: str = "/socket.io/", sid: str | None = None, **options: Any) -> ClientConnection:
    query = "EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
    options = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "compression": None, "proxy": None} | options
    return connect(f"ws://127.0.0.1:{server.port}{path}?{query}", **options)


class Polling:
    """An Engine.IO client that polls."""

    def __init__(self, server: Running, path: str = "/socket.io/") -> None:
        self._server, self._path, self._waiting = server, path, list[str]()
        self.sid: str | None = None
        opened = json.loads(self.packet()[1:])
        self.sid = opened["sid"]

    def packet(self) -> str:
        while not self._waiting:
            self._waiting = self._request("GET").split("\x1e")
        return self._waiting.pop(0)

    def send(self, *packets: str) -> None:
        assert self._request("POST", "\x1e".join(packets)) == "ok"

    def _request(self, method: str, body: str | None = None) -> str:
        client = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=PATIENCE)
        sid = f"&sid={self.sid}" if self.sid else ""
        client.request(method, f"{self._path}?EIO=4&transport=polling{sid}", body)
        response = client.getresponse()
        text = response.read().decode()
        client.close()
        assert response.status == 200, text
        return text


def test_a_websocket_session(start: Start) -> None:
    with websocket(start(echo())) as client:
        assert json.loads(str(client.recv(PATIENCE))[1:])["upgrades"] == []
        client.send('40{"token":"abc"}')
        assert str(client.recv(PATIENCE)).startswith('40{"sid":')
        assert client.recv(PATIENCE) == '42["auth",{"token":"abc"}]'
        client.send('42["message",1,"two",{"three":[true]}]')
        assert client.recv(PATIENCE) == '42["message-back",1,"two",{"three":[true]}]'
        client.send('427["message-with-ack","x"]')
        assert client.recv(PATIENCE) == '437["x"]'
        client.send('451-["message",{"_placeholder":true,"num":0}]')
        client.send(b"\x00\xff")
        assert client.recv(PATIENCE) == '451-["message-back",{"_placeholder":true,"num":0}]'
        assert client.recv(PATIENCE) == b"\x00\xff"


def test_a_polling_session(start: Start) -> None:
    client = Polling(start(echo()))
    client.send("40")
    assert client.packet().startswith('40{"sid":')
    assert client.packet() == '42["auth",{}]'
    client.send('42["message","one"]', '42["message","two"]')
    assert [client.packet(), client.packet()] == ['42["message-back","one"]', '42["message-back","two"]']
    client.send('451-["message",{"_placeholder":true,"num":0}]', "bAP8=")
    assert client.packet() == '451-["message-back",{"_placeholder":true,"num":0}]'
    assert client.packet() == "bAP8="
    client.send("1")


def test_an_upgraded_session(start: Start) -> None:
    server = start(echo())
    polling = Polling(server)
    polling.send("40")
    assert polling.packet().startswith("40")
    with websocket(server, sid=polling.sid) as client:
        client.send("2probe")
        assert client.recv(PATIENCE) == "3probe"
        client.send("5")
        client.send('42["message","over here"]')
        received = [str(client.recv(PATIENCE)), str(client.recv(PATIENCE))]
        assert '42["message-back","over here"]' in received


def test_a_websocket_session_byte_by_byte(start: Start) -> None:
    server = start(Web())
    mask = b"\x01\x02\x03\x04"
    text = b"4slowly"
    frame = bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))
    with server.connect() as client:
        for byte in HANDSHAKE:
            client.send(bytes([byte]))
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        head = client.exactly(2)
        client.exactly(head[1] if head[1] < 126 else int.from_bytes(client.exactly(2), "big"))
        for byte in frame:
            client.send(bytes([byte]))
        assert client.exactly(2 + len(text)) == bytes([0x81, len(text)]) + text


@pytest.mark.parametrize("progress", ["half a handshake", "open", "half a frame", "poll waiting", "probing"])
def test_a_reset_in_any_phase_leaves_the_others_alone(start: Start, progress: str) -> None:
    driver = Web()
    server = start(driver)
    with websocket(server, "/engine.io/") as other:
        other.recv(PATIENCE)
        before = len(os.listdir("/proc/self/fd"))
        client = server.connect()
        if progress == "half a handshake":
            client.send(HANDSHAKE[:-10])
        elif progress in ("open", "half a frame"):
            client.send(HANDSHAKE)
            client.until(b"pingInterval")
            client.send(b"\x81\xfe" if progress == "half a frame" else b"")
        else:
            polling = Polling(server, "/engine.io/")
            suffix = f"&sid={polling.sid} HTTP/1.1\r\n".encode()
            if progress == "poll waiting":
                client.send(b"GET /engine.io/?EIO=4&transport=polling" + suffix + b"Host: x\r\n\r\n")
                while server.call(lambda _: driver.sessions[-1].poll) is None:
                    pass
            else:
                client.send(HANDSHAKE.replace(b" HTTP/1.1\r\n", suffix, 1))
                client.until(b"\r\n\r\n")
        client.reset()
        if progress == "probing":
            polling.send("1")  # its session polls on, and leaving would wait for it
        other.send("4still here")
        assert other.recv(PATIENCE) == "4still here"
        server.call(lambda now: driver.broadcast("to whoever is left", now))
        assert other.recv(PATIENCE) == "4to whoever is left"
        settle(other, before)


def settle(other: ClientConnection, files: int) -> None:
    """Exchange messages until the server has closed what others left open."""
    for _ in range(1000):
        other.send("4and now")
        assert other.recv(PATIENCE) == "4and now"
        if len(os.listdir("/proc/self/fd")) <= files:
            return
    raise AssertionError("a connection was left open")


def test_a_member_that_never_reads_is_dropped_and_the_others_get_every_broadcast_in_order(start: Start) -> None:
    driver = Web(send_buffer=64 * 1024 * 1024)
    server = start(driver, max_write_buffer=256 * 1024)
    with server.connect_slow() as deaf, websocket(server, "/engine.io/", max_size=None) as listener:
        deaf.send(HANDSHAKE)
        deaf.until(b"pingInterval")
        listener.recv(PATIENCE)
        polling = Polling(server, "/engine.io/")
        padding = "x" * 50_000
        count = 0
        while server.call(lambda _: len(driver.sessions)) == 3:
            assert count < 1000, "the member that never reads was kept"
            text = f"{count} {padding}"
            server.call(lambda now, text=text: driver.broadcast(text, now))  # type: ignore[misc]
            assert listener.recv(PATIENCE) == f"4{count} {padding}"
            count += 1
        assert [polling.packet().partition(" ")[0] for _ in range(count)] == [f"4{n}" for n in range(count)]
        assert deaf.ended()
        listener.send("4still here")
        assert listener.recv(PATIENCE) == "4still here"
        polling.send("1")


def test_broadcasts_go_on_whatever_the_application_does(start: Start) -> None:
    """While one request takes long, one streams and others fail, every broadcast arrives, in order."""
    begun, release = threading.Semaphore(0), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        begun.release()
        if environ["PATH_INFO"] == "/raises":
            raise RuntimeError("on purpose")
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/streams":
            while not release.is_set():
                yield b"x" * 1000
        release.wait(PATIENCE)
        yield b"done"

    driver = Web()
    server = start(driver, app=app)
    with websocket(server, "/engine.io/") as listener, server.connect() as long, server.connect() as stream:
        listener.recv(PATIENCE)
        long.send(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        stream.send(b"GET /streams HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):
            assert begun.acquire(timeout=PATIENCE)
        for number in range(50):
            with server.connect() as failing:
                failing.send(b"GET /raises HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                server.call(lambda now, number=number: driver.broadcast(str(number), now))  # type: ignore[misc]
                assert listener.recv(PATIENCE) == f"4{number}"
                assert failing.rest().startswith(b"HTTP/1.1 500")
        release.set()
        assert b"200 OK" in long.until(b"done")


def test_leaving_tells_every_session_so_that_it_comes_back(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    driver = Web()
    server = start(driver, drain_timeout=PATIENCE)
    poller = Polling(server, "/engine.io/")
    with websocket(server, "/engine.io/") as client, server.connect() as waiting:
        client.recv(PATIENCE)
        waiting.send(f"GET /engine.io/?EIO=4&transport=polling&sid={poller.sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while server.call(lambda _: driver.sessions[0].poll) is None:
            pass
        server.handle.stop()
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        assert b"\r\n\r\n1" in waiting.rest()
    server.stop()
    assert "Not everything was finished" not in caplog.text
