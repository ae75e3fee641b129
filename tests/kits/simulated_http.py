"""A program that talks HTTP with a simulated server, over one kept-alive connection.

Answers of the API have to be as its document says.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import h11
from attrs import frozen

from automoderate.testing import Simulation
from automoderate.testing.network import SimulatedConnection
from kits import contract_documents


@frozen
class Reply:
    """What a request was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """The status and the code of an answer other than success, which is JSON and has a message."""
        assert self.headers["content-type"] == "application/json"
        error = self.json["error"]
        assert set(error) - {"event"} == {"message", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        return self.status, error["code"]


class Program:
    """One connection; requests on it are answered in turn."""

    def __init__(self, simulation: Simulation, prefix: str = "", **headers: str) -> None:
        """``headers`` go with each request; an underscore stands for a hyphen. The API is below ``prefix``."""
        self.simulation = simulation
        self._prefix = prefix
        self.headers = headers
        self.replies: list[Reply] = []
        self._open()

    def _open(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT)
        self.closed = False
        self.connection = SimulatedConnection(self.simulation, "10.0.0.9")
        self.connection.on_data = self._on_data
        self.connection.on_lost = self._on_lost
        self._reply: list[Any] = []
        self._asked: deque[tuple[str, str]] = deque()

    def send(self, method: str, path: str, body: Any = b"", **headers: str) -> None:
        """Send a request and do not wait; on a new connection where the last answer has ended the old one."""
        if self.closed:
            self._open()
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {"Host": "localhost", **self.headers, **headers}
        if "Transfer_Encoding" not in names:
            names["Content_Length"] = str(len(sent))
        fields = [(name.replace("_", "-").encode(), value.encode("latin-1").strip()) for name, value in names.items()]
        head = h11.Request(method=method, target=path, headers=fields)
        pieces = [self._h11.send(head), self._h11.send(h11.Data(data=sent)) if sent else b"",
                  self._h11.send(h11.EndOfMessage())]  # fmt: skip
        self._asked.append((method, path))
        self.connection.send(b"".join(piece for piece in pieces if piece))

    def begin(self, method: str, path: str, size: int) -> None:
        """Send the head of a request whose body of so many bytes never comes."""
        fields = [(name.replace("_", "-"), value) for name, value in self.headers.items()]
        head = h11.Request(method=method, target=path, headers=[("Host", "x"), ("Content-Length", str(size)), *fields])
        self._asked.append((method, path))
        self.connection.send(self._h11.send(head) or b"")

    def request(self, method: str, path: str, body: Any = b"", **headers: str) -> Reply:
        """Send a request and let the simulation run until it is answered."""
        before = len(self.replies)
        self.send(method, path, body, **headers)
        self.simulation.run()
        assert len(self.replies) == before + 1, "it was not answered"
        return self.replies[-1]

    def _on_data(self, data: bytes) -> None:
        self._h11.receive_data(data)
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                self._reply = [event.status_code, headers, b""]
            elif isinstance(event, h11.Data):
                self._reply[2] += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.replies.append(Reply(*self._reply))
                self._check(self.replies[-1])
                if self._h11.their_state is h11.MUST_CLOSE or self._h11.our_state is not h11.DONE:
                    self.closed = True
                    return
                self._h11.start_next_cycle()
            else:
                return

    def _check(self, reply: Reply) -> None:
        method, path = self._asked.popleft()
        content_type = reply.headers.get("content-type", "")
        contract_documents.answered(method, path, reply.status, content_type, reply.body.decode(), self._prefix)

    def _on_lost(self) -> None:
        self.closed = True
