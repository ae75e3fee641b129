"""One client by hand, which can stop reading: a Socket.IO session over a WebSocket on a blocking socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from benchmarks.world import Member

RECEIVE_BUFFER = 4096  # bytes that the kernel takes for a reader that has stopped
QUIET = 1.0  # seconds without a byte after which nothing more is expected
PATIENCE = 30.0


class Reader:
    """A session that has joined its room. ``seqs`` are the updates that it has got, in order.

    Raises ConnectionError where it cannot join.
    """

    def __init__(self, port: int, member: Member, last_event_id: str | None = None) -> None:
        self.seqs: list[int] = []
        self.last_event_id = last_event_id
        self.recovered: bool | None = None
        self.ended = False
        self._member = member
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.settimeout(PATIENCE)
        uri = parse_uri(f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket")
        self._protocol = ClientProtocol(uri, max_size=None)
        try:
            self._socket.connect(("127.0.0.1", port))
            self._join()
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        request = self._protocol.connect()
        request.headers["Cookie"] = self._member.cookie
        self._protocol.send_request(request)
        self._flush()
        for text in self._texts():
            if text.startswith("0{"):
                self._say("40")
            elif text.startswith('42["connected"'):
                more = {} if self.last_event_id is None else {"last_event_id": self.last_event_id}
                self._say(f"42{json.dumps(['join_project', {'project_id': self._member.project_id, **more}])}")
            elif text.startswith('42["joined_project"'):
                self.recovered = json.loads(text[2:])[1].get("recovered")
                return
            elif text.startswith(('42["error"', "44", "41")):
                raise ConnectionError(text)
        raise ConnectionError("the server hung up")

    def read_on(self) -> None:
        """Read until nothing more comes, or the connection ends."""
        self._socket.settimeout(QUIET)
        try:
            for _ in self._texts():
                continue
        except TimeoutError:
            return
        self.ended = True

    def close(self) -> None:
        self._socket.close()

    def _texts(self) -> Iterator[str]:
        """What is said, until the connection ends; updates are noted, and pings answered."""
        while True:
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                return
            if not data:
                return
            self._protocol.receive_data(data)
            self._flush()
            for event in self._protocol.events_received():
                if isinstance(event, Response) and event.status_code != 101:
                    raise ConnectionError(f"no upgrade but {event.status_code}")
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    yield self._note(bytes(event.data).decode())

    def _note(self, text: str) -> str:
        if text == "2":
            self._say("3")
        elif text.startswith('42["moderation_update"'):
            data: dict[str, Any] = json.loads(text[2:])[1]
            self.seqs.append(data["meta_data"]["seq"])
            self.last_event_id = data["event_id"]
        return text

    def _say(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                try:
                    self._socket.sendall(data)
                except ConnectionError:  # the end is read next
                    return
