"""A Socket.IO client that hides nothing: every packet is seen, in its order, and nothing happens by itself.

It speaks over loopback sockets, one step at a time, on the thread of the test. Heartbeats are answered; everything
else is the test's to say. What it gets is held against the documents for machines.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from attrs import define, field, frozen
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from kits import PATIENCE, contract_documents

TransportName = Literal["polling", "websocket", "upgrade"]
TRANSPORTS: tuple[TransportName, ...] = ("polling", "websocket", "upgrade")

Item = tuple[str, Any]
"""What a client saw: an event and its data, ("ack", data), ("connect_error", data), ("disconnect", None), or
("closed", None) for the end of the transport."""

BARRIER = {"project_id": "a project nobody has"}


@frozen
class Answer:
    """The answer to one HTTP request."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Refused(Exception):
    """The server did not take the handshake."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Http:
    """One persistent HTTP connection. Answers of the API, which is below ``prefix``, have to be as documented."""

    def __init__(self, address: tuple[str, int], headers: Mapping[str, str] | None = None, prefix: str = "") -> None:
        self.headers = dict(headers or {})
        self._prefix = prefix
        self._asked = ("", "")
        self._connection = http.client.HTTPConnection(*address, timeout=PATIENCE)

    def start(self, method: str, target: str, body: str | bytes | None = None, **headers: str) -> None:
        """Send a request without waiting for its answer."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        data = body.encode() if isinstance(body, str) else body
        self._asked = method, target
        self._connection.request(method, target, data, sent)

    def finish(self) -> Answer:
        """Wait for the answer."""
        response = self._connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, headers, response.read().decode())
        content_type = headers.get("content-type", "")
        contract_documents.answered(*self._asked, answer.status, content_type, answer.text, self._prefix)
        return answer

    def request(self, method: str, target: str, body: str | bytes | None = None, **headers: str) -> Answer:
        self.start(method, target, body, **headers)
        return self.finish()

    def close(self) -> None:
        self._connection.close()


def target(transport: str, sid: str = "", query: str = "") -> str:
    """The path and query of an Engine.IO request."""
    return f"/socket.io/?EIO=4&transport={transport}{f'&sid={sid}' if sid else ''}{query}"


def event_packet(event: str, *args: Any, ack: int | None = None) -> str:
    """The Engine.IO packet of an event of the default namespace, which may ask for an acknowledgement."""
    return f"42{'' if ack is None else ack}{json.dumps([event, *args])}"


def websocket(
    address: tuple[str, int], headers: Mapping[str, str], *, sid: str = "", query: str = ""
) -> ClientConnection:
    """Open a WebSocket. Raises :exc:`Refused`."""
    # Entered here and left by ``close``: a newer library wants to be used as a context manager.
    url = f"ws://{address[0]}:{address[1]}{target('websocket', sid, query)}"
    try:
        return connect(
            url, additional_headers=dict(headers), compression=None, proxy=None, ping_interval=None,
            open_timeout=PATIENCE, close_timeout=PATIENCE,
        ).__enter__()  # fmt: skip
    except InvalidStatus as error:
        raise Refused(error.response.status_code, bytes(error.response.body or b"").decode()) from error


class Wire(Protocol):
    """One Engine.IO session on one transport."""

    sid: str

    def send(self, packet: str) -> None:
        """Send one Engine.IO packet."""

    def receive(self) -> str | None:
        """The next Engine.IO packet; None: the session is over."""

    def cut(self) -> None:
        """The network fails."""

    def close(self) -> None:
        """Leave, and give back what is open."""


class Polling:
    """HTTP long-polling."""

    def __init__(self, address: tuple[str, int], headers: Mapping[str, str], query: str = "") -> None:
        self.getter, self.poster = Http(address, headers), Http(address, headers)
        self._queue: deque[str] = deque()
        answer = self.getter.request("GET", target("polling", query=query))
        if answer.status != 200:
            self.getter.close()
            raise Refused(answer.status, answer.text)
        self.sid = json.loads(answer.text[1:])["sid"]

    def send(self, packet: str) -> None:
        answer = self.poster.request("POST", target("polling", self.sid), packet)
        assert answer.status == 200, answer

    def receive(self) -> str | None:
        while not self._queue:
            answer = self.getter.request("GET", target("polling", self.sid))
            if answer.status != 200:
                return None
            self._queue.extend(answer.text.split("\x1e"))
        return None if self._queue[0] == "1" else self._queue.popleft()

    def cut(self) -> None:
        """With a poll under way: without one the server has no connection to lose."""
        self.getter.start("GET", target("polling", self.sid))
        self.getter.close()
        self.poster.close()

    def close(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self.poster.request("POST", target("polling", self.sid), "1").status == 200:
                # The server waits for this poll, and would do so while it drains.
                self.getter.request("GET", target("polling", self.sid))
        self.getter.close()
        self.poster.close()


class WebSocket:
    """A WebSocket from the beginning."""

    def __init__(self, address: tuple[str, int], headers: Mapping[str, str], query: str = "") -> None:
        self._socket = websocket(address, headers, query=query)
        opened = self._socket.recv(PATIENCE)
        self.sid = json.loads(opened[1:])["sid"]

    def send(self, packet: str) -> None:
        self._socket.send(packet)

    def receive(self) -> str | None:
        try:
            packet = self._socket.recv(PATIENCE)
        except ConnectionClosed:
            return None
        assert isinstance(packet, str), packet
        return packet

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


class Upgrading:
    """Polling first; ``upgrade`` moves the session to a WebSocket, and what was queued has to come along."""

    def __init__(self, address: tuple[str, int], headers: Mapping[str, str], query: str = "") -> None:
        self._address, self._headers = address, headers
        self.polling = Polling(address, headers, query)
        self._wire: Wire = self.polling
        self.sid = self._wire.sid

    def upgrade(self) -> None:
        """Probe and take over."""
        wire = object.__new__(WebSocket)
        wire.sid = self.sid
        wire._socket = websocket(self._address, self._headers, sid=self.sid)
        wire.send("2probe")
        assert wire.receive() == "3probe"
        wire.send("5")
        self._wire = wire

    def send(self, packet: str) -> None:
        self._wire.send(packet)

    def receive(self) -> str | None:
        return self._wire.receive()

    def cut(self) -> None:
        self._wire.cut()

    def close(self) -> None:
        self._wire.close()
        self.polling.getter.close()
        self.polling.poster.close()


_WIRES: Mapping[TransportName, type[Polling | WebSocket | Upgrading]] = {
    "polling": Polling, "websocket": WebSocket, "upgrade": Upgrading,
}  # fmt: skip


@define(eq=False)
class Client:
    """A client of the default namespace."""

    wire: Polling | WebSocket | Upgrading
    items: list[Item] = field(factory=list)
    """All that was read so far."""
    _last_ack: int = 0
    _asked: dict[int, tuple[str, Sequence[Any]]] = field(factory=dict)
    """The events that were sent with a wish for an acknowledgement, with their arguments."""

    @classmethod
    def connect(
        cls, address: tuple[str, int], transport: TransportName, headers: Mapping[str, str], *,
        query: str = "", auth: str = "",
    ) -> Client:  # fmt: skip
        """Open a session, and upgrade it where the transport says so. Raises :exc:`Refused`."""
        client = cls(_WIRES[transport](address, headers, query))
        client.wire.send(f"40{auth}")
        if isinstance(client.wire, Upgrading):
            client.wire.upgrade()
        packet = client._packet()
        assert packet is not None
        assert packet.startswith('40{"sid":'), packet
        return client

    def emit(self, event: str, *args: Any) -> None:
        """Send an event."""
        self.wire.send(event_packet(event, *args))

    def request(self, event: str, *args: Any) -> int:
        """Send an event and ask for an acknowledgement; its number."""
        self._last_ack += 1
        self._asked[self._last_ack] = event, args
        self.wire.send(event_packet(event, *args, ack=self._last_ack))
        return self._last_ack

    def read(self) -> Item:
        """The next thing that the server says, or the end."""
        item = _item(self._packet())
        self.items.append(item)
        self._check(*item)
        return item

    def _check(self, name: str, data: Any) -> None:
        """Hold what came against the document of the events."""
        if name == "ack":
            number, answer = data
            contract_documents.acknowledged(*self._asked[number], answer)
        elif name not in ("connect_error", "disconnect", "closed"):
            contract_documents.received(name, data)

    def expect(self, event: str) -> Any:
        """The data of the next thing, which has to be this."""
        name, data = self.read()
        assert name == event, (name, data)
        return data

    def until(self, event: str) -> Any:
        """The data of the next event of that name, whatever comes before it."""
        while (item := self.read())[0] != event:
            assert item[0] != "closed", self.items
        return item[1]

    def call(self, event: str, *args: Any) -> Any:
        """Send an event; the acknowledgement."""
        number = self.request(event, *args)
        while (answer := self.until("ack"))[0] != number:
            pass
        return answer[1]

    def settle(self) -> list[Item]:
        """What the server had said before it answered one more event: nothing else is on its way."""
        start = len(self.items)
        self.call("leave_project", BARRIER)
        answers = ("left_project", BARRIER), ("ack", (self._last_ack, BARRIER))
        return [item for item in self.items[start:] if item not in answers]

    def rest(self) -> list[Item]:
        """Everything up to the end of the transport."""
        start = len(self.items)
        while self.read()[0] != "closed":
            pass
        return self.items[start:-1]

    def ended(self) -> str:
        """Read up to the end, if that was not done yet; how a client reports it."""
        if ("closed", None) not in self.items:
            self.rest()
        return "io server disconnect" if ("disconnect", None) in self.items else "transport close"

    def events(self, name: str) -> list[Any]:
        """The data of all events of that name read so far."""
        return [data for event, data in self.items if event == name]

    def _packet(self) -> str | None:
        deadline = time.monotonic() + PATIENCE
        while (packet := self.wire.receive()) in ("2", "6", ""):
            # Heartbeats alone would keep a test waiting for ever.
            assert time.monotonic() < deadline, self.items
            if packet == "2":
                self.wire.send("3")
        return packet


def _item(packet: str | None) -> Item:
    if packet is None:
        return "closed", None
    kind, body = packet[:2], packet[2:]
    if kind == "42":
        event, *args = json.loads(body)
        assert len(args) == 1, packet
        return event, args[0]
    if kind == "43":
        number = body[: body.index("[")]
        (data,) = json.loads(body[len(number) :])
        return "ack", (int(number), data)
    if kind == "41":
        return "disconnect", None
    assert kind == "44", packet
    return "connect_error", json.loads(body[body.index("{") :])
