"""A Socket.IO server for one client at a time, which logs in and joins; then it says what the test tells it to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from types import TracebackType

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from kits import PATIENCE

WELCOME = {
    "40": ('40{"sid":"a"}', '42["connected",{"message":"Connected to AutoModerate"}]'),
    '42["join_project"': ('42["joined_project",{"project_id":"project","room":"project_project"}]',),
}


class ScriptedServer:
    """Listens on ``port``; ``heard`` are the texts that arrived, and the names of other frames. It answers no ping."""

    def __init__(self) -> None:
        self.welcome = WELCOME
        self.heard: list[str] = []
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.port: int = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self._thread.join(PATIENCE)
        self._listener.close()

    def send(self, data: bytes) -> None:
        assert self._client is not None
        self._client.sendall(data)

    def say(self, text: str) -> None:
        self.send(frame(text))

    def hang_up(self) -> None:
        """End the connection; the client is told."""
        if self._client is not None:
            with contextlib.suppress(OSError):  # the client was quicker
                self._client.shutdown(socket.SHUT_RDWR)

    def wait_for(self, text: str) -> None:
        """Wait until the client has said this."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.heard, PATIENCE), self.heard

    def wait_for_number(self, text: str, number: int) -> None:
        """Wait until clients have said this so many times."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.heard.count(text) >= number, PATIENCE), self.heard

    def _serve(self) -> None:
        """One client after the other, until nobody can come any more."""
        with contextlib.suppress(OSError):
            while True:
                self._client, _ = self._listener.accept()
                with self._client:
                    self._serve_client()

    def _serve_client(self) -> None:
        protocol = ServerProtocol(max_size=None)
        while data := self._receive():
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
                    self.send(b"".join(protocol.data_to_send()))
                    self.say('0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}')
                elif isinstance(event, Frame):
                    self._hear(bytes(event.data).decode() if event.opcode is Opcode.TEXT else event.opcode.name)

    def _receive(self) -> bytes:
        assert self._client is not None
        try:
            return self._client.recv(4096)
        except OSError:
            return b""

    def _hear(self, text: str) -> None:
        for beginning, answers in self.welcome.items():
            if text.startswith(beginning):
                for answer in answers:
                    self.say(answer)
        with self._changed:
            self.heard.append(text)
            self._changed.notify_all()


def frame(text: str) -> bytes:
    """The text as a server sends it."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def update(seq: int) -> str:
    """One update, published now."""
    meta_data = {"seq": seq, "sent": time.monotonic_ns()}
    data = {"status": "approved", "meta_data": meta_data, "event_id": f"1768473000000-{seq}"}
    return f"42{json.dumps(['moderation_update', data], separators=(',', ':'))}"
