"""A Socket.IO server for one client, which logs in and joins; after that it says what the test tells it to."""

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

PATIENCE = 60.0
WELCOME = {
    "40": ('40{"sid":"a"}', '42["connected",{"message":"Connected to AutoModerate"}]'),
    '42["join_project"': ('42["joined_project",{"project_id":"project","room":"project_project"}]',),
}


class ScriptedServer:
    """Listens on ``port``; ``heard`` are the texts that arrived."""

    def __init__(self) -> None:
        self.welcome = WELCOME
        self.heard: list[str] = []
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.port: int = self._listener.getsockname()[1]
        self._protocol = ServerProtocol(max_size=None)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hang_up()
        self._listener.close()
        self._thread.join(PATIENCE)

    def send(self, data: bytes) -> None:
        assert self._client is not None
        self._client.sendall(data)

    def say(self, text: str) -> None:
        self.send(frame(text))

    def hang_up(self) -> None:
        """End the connection; the client is told."""
        with contextlib.suppress(OSError):  # the client was quicker
            (self._client or self._listener).shutdown(socket.SHUT_RDWR)

    def wait_for(self, text: str) -> None:
        """Wait until the client has said this."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.heard, PATIENCE), self.heard

    def _serve(self) -> None:
        try:
            self._client, _ = self._listener.accept()
        except OSError:  # nobody came
            return
        with self._client:
            while data := self._receive():
                self._protocol.receive_data(data)
                for event in self._protocol.events_received():
                    if isinstance(event, Request):
                        self._protocol.send_response(self._protocol.accept(event))
                        self.send(b"".join(self._protocol.data_to_send()))
                        self.say('0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}')
                    elif isinstance(event, Frame):
                        self._hear(bytes(event.data).decode())

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
    data = {"status": "approved", "meta_data": {"seq": seq, "sent": time.monotonic_ns()}}
    return f"42{json.dumps(['moderation_update', data])}"
