"""Run the whole server in memory, in virtual time: for this project's tests and for yours.

No socket is opened and nothing sleeps. Real bytes flow: the clients speak HTTP, WebSocket, Engine.IO and Socket.IO to
the same :class:`automoderate.server.Server` that an adapter drives::

    simulation = Simulation()
    simulation.directory.add_user("alice")
    simulation.directory.add_project("p1", owner="alice")
    alice = simulation.connect("alice")
    alice.emit("join_project", {"project_id": "p1"})
    simulation.run()
    simulation.publish("p1", "stats_update", {"total": 3})
    simulation.run()
    assert alice.received[-1].event == "stats_update"

``run()`` lets everything that is under way happen; ``advance(seconds)`` lets time pass. With ``Faults`` the network
cuts the streams of bytes anywhere and delays them, and the directory is slow or fails; everything that is left to
chance comes from the one ``seed``, so that a run can be had again.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, TypeAlias

import h11
from attrs import define, field, frozen
from engineio import packet as engine_packet
from socketio import packet as socket_packet
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import (
    Access,
    AccessChanged,
    History,
    Input,
    Limits,
    LoggedOut,
    Lost,
    Published,
    Update,
)
from automoderate.protocol.config import Config
from automoderate.protocol.http import Connection
from automoderate.protocol.outputs import (
    Abort,
    Close,
    Fanout,
    Job,
    Output,
    Peer,
    RequestAborted,
    RequestBody,
    RequestFinished,
    RequestStarted,
    Write,
)
from automoderate.server import Directory, LocalBackplane, RemoteBackplane, Server

__all__ = ["Client", "Faults", "MemoryDirectory", "Nodes", "Received", "Simulation"]

TransportName: TypeAlias = Literal["websocket", "polling", "upgrade"]

PATH = "/socket.io/"
TURN = 0.001
"""Seconds of virtual time that one turn of the server's loop takes at least."""
EPOCH = 1_768_473_000.0
"""Wall-clock seconds at the simulation's start."""


# Who is who ---------------------------------------------------------------------------------------------------


@define
class MemoryDirectory:
    """Users, projects and members in dictionaries: a ``Directory`` for tests.

    A user's cookie is ``session=<id>``; what follows a ``#`` in it is ignored, as in a cookie that was renewed.
    """

    users: dict[str, bool] = field(factory=dict)
    """Whether each user is active."""
    projects: dict[str, set[str]] = field(factory=dict)
    """Who may see each project: its owner and its members."""

    def add_user(self, user_id: str, *, active: bool = True) -> None:
        self.users[user_id] = active

    def add_project(self, project_id: str, *, owner: str, members: Sequence[str] = ()) -> None:
        self.projects[project_id] = {owner, *members}

    def cookie_of(self, user_id: str) -> str:
        """The ``Cookie`` header of somebody who logged in as this user."""
        return f"session={user_id}"

    def identify(self, cookie: str | None) -> str | None:
        user_id = self.session_user(cookie)
        return user_id if user_id is not None and self.users.get(user_id) else None

    def session_cookie(self, cookie: str | None) -> str | None:
        for part in (cookie or "").split("; "):
            name, _, value = part.partition("=")
            if name == "session":
                return value
        return None

    def session_user(self, cookie: str | None) -> str | None:
        value = self.session_cookie(cookie)
        return None if value is None else value.partition("#")[0]

    def check_access(self, user_id: str, project_id: str) -> Access:
        if not self.users.get(user_id):
            return Access.NO_USER
        if project_id not in self.projects:
            return Access.NOT_FOUND
        return Access.GRANTED if user_id in self.projects[project_id] else Access.DENIED

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        if not self.users.get(user_id):
            return None
        return frozenset(p for p in project_ids if user_id in self.projects.get(p, ()))


@frozen
class Faults:
    """What goes wrong, and how often. The default: nothing does, and nothing takes time."""

    max_delay: float = 0.0
    """A piece of a TCP stream takes up to this many seconds."""
    cut: float = 0.0
    """Probability that a write arrives in pieces, cut anywhere."""
    max_job_time: float = 0.0
    """A question to the directory takes up to this many seconds to be read, and as many to be answered."""
    job_failure: float = 0.0
    """Probability that a question to the directory fails."""


# The network --------------------------------------------------------------------------------------------------


class Link:
    """One TCP connection, both ends of it: to the server it is the ``Transport`` of an adapter."""

    def __init__(self, simulation: Simulation, client: Client, address: str) -> None:
        self.open = True
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_lost: Callable[[], None] = lambda: None
        self.stalled = False
        self._simulation = simulation
        self._arrivals = {"up": 0.0, "down": 0.0}
        self._waiting: deque[bytes] = deque()
        self._in_flight = 0
        self.server_closed = False
        self._connection = simulation.accept(self, Peer(address, 40_000))

    # The server's end

    def write(self, data: bytes) -> int:
        if self.open and not self.server_closed:
            self._in_flight += len(data)
            if self._in_flight > self._simulation.max_write_buffer:
                self.abort()
            else:
                self._transmit("down", data, self._arrive)
        return len(data)

    def keep(self, rest: memoryview) -> None:
        """The rest of a write; ``write`` takes everything."""
        raise AssertionError("nothing is left of a write here")

    def close(self) -> None:
        if self.open and not self.server_closed:
            self.server_closed = True
            self._at("down", self.cut)

    def abort(self) -> None:
        self._simulation.call(self.cut)

    # The client's end

    def send(self, data: bytes) -> None:
        if self.open and data:
            self._transmit("up", data, self._reach_server)

    def cut(self) -> None:
        """The connection breaks, both ends learn of it, and what is in flight is lost."""
        if self.open:
            self.open = False
            self._waiting.clear()
            self._simulation.lost(self._connection)
            self.on_lost()

    def stall(self) -> None:
        """The client stops reading."""
        self.stalled = True

    def resume(self) -> None:
        """The client reads again, starting with what waits."""
        self.stalled = False
        while self._waiting and self.open:
            self._take(self._waiting.popleft())

    def _transmit(self, direction: str, data: bytes, deliver: Callable[[bytes], None]) -> None:
        chance, faults = self._simulation.random, self._simulation.faults
        while data:
            size = chance.randint(1, len(data)) if chance.random() < faults.cut else len(data)
            piece, data = data[:size], data[size:]
            self._at(direction, lambda piece=piece: deliver(piece))  # type: ignore[misc]

    def _at(self, direction: str, act: Callable[[], None]) -> None:
        """In order within each direction, however long each piece takes."""
        simulation = self._simulation
        arrival = simulation.now + simulation.random.random() * simulation.faults.max_delay
        self._arrivals[direction] = max(self._arrivals[direction], arrival)
        simulation.at(self._arrivals[direction], lambda: act() if self.open else None)

    def _reach_server(self, data: bytes) -> None:
        self._simulation.receive(self._connection, data)

    def _arrive(self, data: bytes) -> None:
        if self.stalled:
            self._waiting.append(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._in_flight -= len(data)
        self.on_data(data)


# The client ---------------------------------------------------------------------------------------------------


@frozen
class Received:
    """One event a client was sent, and when."""

    event: str
    args: tuple[Any, ...]
    at: float

    @property
    def data(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else None


class _Http:
    """Requests one after the other over one link."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._link: Link | None = None
        self._h11 = h11.Connection(h11.CLIENT)
        self._body = b""
        self._status = 0
        self._done: Callable[[int, bytes], None] | None = None

    @property
    def busy(self) -> bool:
        return self._done is not None

    def request(self, method: str, target: str, body: bytes, done: Callable[[int, bytes], None]) -> None:
        """Send one request; ``done(status, body)`` with the answer."""
        if self._link is None:
            self._link = self._client.dial()
            self._link.on_data = self._on_data
            self._link.on_lost = self._on_lost
            self._h11 = h11.Connection(h11.CLIENT)
        self._done, self._body = done, b""
        headers = [*self._client.headers(), ("Content-Length", str(len(body)))]
        pieces = [
            self._h11.send(h11.Request(method=method, target=target, headers=headers)),
            self._h11.send(h11.Data(data=body)),
            self._h11.send(h11.EndOfMessage()),
        ]
        self._link.send(b"".join(piece for piece in pieces if piece))

    def _on_data(self, data: bytes) -> None:
        self._h11.receive_data(data)
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._finish()
                return
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return

    def _on_lost(self) -> None:
        """An idle connection that the server has closed is nothing special: the next request opens another."""
        self._link = None
        if self.busy:
            self._client.lost()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if self._h11.our_state is h11.MUST_CLOSE:
            link, self._link = self._link, None
            if link is not None:
                link.cut()
        else:
            self._h11.start_next_cycle()
        assert done is not None
        done(self._status, self._body)

    def links(self) -> list[Link]:
        return [self._link] if self._link is not None else []


class Client:
    """A Socket.IO client of the default namespace, over WebSocket, polling, or polling upgraded to WebSocket."""

    def __init__(
        self, simulation: Simulation, transport: TransportName, headers: Mapping[str, str], address: str
    ) -> None:
        self.sid: str | None = None
        self.connected = False
        """Whether the namespace is connected."""
        self.received: list[Received] = []
        self.on_event: Callable[[Received], None] = lambda received: None
        self.ended: str | None = None
        """Why the session ended: "io server disconnect", "io client disconnect" or "transport close"."""
        self.refused: int | None = None
        """The HTTP status of the handshake, where it was refused."""
        self.upgraded = False
        self._simulation = simulation
        self._kind = transport
        self._headers = dict(headers)
        self._address = address
        self._engine_sid: str | None = None
        self._socket: ClientProtocol | None = None
        self._socket_link: Link | None = None
        self._getter, self._poster = _Http(self), _Http(self)
        self._outbox: list[str | bytes] = []
        self._paused = False
        self._acks: dict[int, Callable[..., None]] = {}
        self._last_ack = 0
        self._partial: socket_packet.Packet | None = None
        if transport == "websocket":
            self._open_socket()
        else:
            self._getter.request("GET", self._target("polling"), b"", self._on_poll)

    # What a test does

    def emit(self, event: str, *args: Any, ack: Callable[..., None] | None = None) -> None:
        """Send an event; ``ack(*args)`` is called with the server's acknowledgement."""
        ack_id = None
        if ack is not None:
            self._last_ack += 1
            ack_id = self._last_ack
            self._acks[ack_id] = ack
        self._send_packet(socket_packet.Packet(socket_packet.EVENT, [event, *args], id=ack_id))

    def call(self, event: str, *args: Any) -> Any:
        """Send an event, let the simulation run, and return the acknowledgement.

        :raises AssertionError: where none came.
        """
        answers: list[Any] = []
        self.emit(event, *args, ack=lambda *values: answers.append(values[0] if values else None))
        self._simulation.run()
        assert answers, f"{event!r} was not acknowledged"
        return answers[0]

    def events(self, event: str) -> list[Any]:
        """The data of every event of that name, in order of arrival."""
        return [received.data for received in self.received if received.event == event]

    def disconnect(self) -> None:
        """Leave on purpose."""
        self._send_packet(socket_packet.Packet(socket_packet.DISCONNECT))
        self._finish("io client disconnect")

    def cut(self) -> None:
        """The network fails: every connection of this client breaks."""
        for link in self.links():
            link.cut()
        self.lost()

    def stall(self) -> None:
        """Stop reading."""
        for link in self.links():
            link.stall()

    def resume(self) -> None:
        """Read again."""
        for link in self.links():
            link.resume()

    def links(self) -> list[Link]:
        """The client's TCP connections."""
        links = [*self._getter.links(), *self._poster.links()]
        return links if self._socket_link is None else [*links, self._socket_link]

    # Connections

    def dial(self) -> Link:
        return Link(self._simulation, self, self._address)

    def headers(self) -> list[tuple[str, str]]:
        return [("Host", "localhost:6217"), *self._headers.items()]

    def lost(self) -> None:
        if self._socket is not None and not self.upgraded and self._kind == "upgrade" and self._getter.busy:
            self._socket = self._socket_link = None  # only the probe failed: polling goes on
            self._paused = False
            return
        self._finish("transport close")

    def _finish(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            self.connected = False

    def _target(self, transport: str) -> str:
        sid = "" if self._engine_sid is None else f"&sid={self._engine_sid}"
        return f"{PATH}?EIO=4&transport={transport}{sid}"

    # WebSocket

    def _open_socket(self) -> None:
        self._socket = ClientProtocol(parse_uri("ws://localhost:6217" + self._target("websocket")))
        self._socket_link = self.dial()
        self._socket_link.on_data = self._on_socket_data
        self._socket_link.on_lost = self.lost
        request = self._socket.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._socket.send_request(request)
        self._flush_socket()

    def _flush_socket(self) -> None:
        if self._socket is not None and self._socket_link is not None:
            for data in self._socket.data_to_send():
                if data:
                    self._socket_link.send(data)

    def _on_socket_data(self, data: bytes) -> None:
        if self._socket is None:
            return
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Response):
                self._on_handshake(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                data = bytes(event.data)
                self._on_engine_packet(data.decode() if event.opcode is Opcode.TEXT else data, on_socket=True)
        self._flush_socket()

    def _on_handshake(self, response: Response) -> None:
        if response.status_code != 101:
            self.refused = response.status_code
            self._finish("transport close")
        elif self._kind == "upgrade":
            self._send_on_socket("2probe")

    def _send_on_socket(self, data: str | bytes) -> None:
        if self._socket is None or self._socket.state is not State.OPEN:
            return
        if isinstance(data, str):
            self._socket.send_text(data.encode())
        else:
            self._socket.send_binary(data)
        self._flush_socket()

    # Polling

    def _on_poll(self, status: int, body: bytes) -> None:
        if status != 200:
            self.refused = status if self._engine_sid is None else self.refused
            self._finish("transport close")
            return
        for part in body.decode().split("\x1e"):
            if self.ended is None:
                self._on_engine_packet(part, on_socket=False)
        if self.ended is not None or self.upgraded:
            return
        if self._paused:
            self._complete_upgrade()
        else:
            self._getter.request("GET", self._target("polling"), b"", self._on_poll)

    def _flush_posts(self) -> None:
        if self._outbox and not self._poster.busy and self._engine_sid is not None and self.ended is None:
            packets, self._outbox = self._outbox, []
            body = "\x1e".join(part if isinstance(part, str) else _base64(part) for part in packets)
            self._poster.request("POST", self._target("polling"), body.encode(), self._on_posted)

    def _on_posted(self, status: int, body: bytes) -> None:
        if status != 200:
            self._finish("transport close")
        elif self._paused and not self._getter.busy:
            self._complete_upgrade()
        else:
            self._flush_posts()

    def _complete_upgrade(self) -> None:
        """Both polling requests are over: the WebSocket takes the session from here."""
        if self._poster.busy or self.upgraded:
            return
        self.upgraded = True
        self._send_on_socket("5")
        waiting, self._outbox = self._outbox, []
        for data in waiting:
            self._send_on_socket(data)

    # Engine.IO

    def _send_message(self, data: str | bytes) -> None:
        encoded = engine_packet.Packet(engine_packet.MESSAGE, data).encode()
        self._send_engine(encoded)

    def _send_engine(self, encoded: str | bytes) -> None:
        if self._kind == "websocket" or self.upgraded:
            self._send_on_socket(encoded)
        else:
            self._outbox.append(encoded)
            if not self._paused:
                self._flush_posts()

    def _on_engine_packet(self, encoded: str | bytes, *, on_socket: bool) -> None:
        received = engine_packet.Packet(encoded_packet=encoded)
        if received.packet_type == engine_packet.OPEN:
            self._engine_sid = received.data["sid"]
            self._send_packet(socket_packet.Packet(socket_packet.CONNECT))
            if self._kind == "upgrade":
                self._open_socket()
        elif received.packet_type == engine_packet.PING:
            self._send_engine("3")
        elif received.packet_type == engine_packet.PONG and on_socket:
            self._paused = True
            if not self._getter.busy:
                self._complete_upgrade()
        elif received.packet_type == engine_packet.CLOSE:
            self._finish("transport close")
        elif received.packet_type == engine_packet.MESSAGE:
            self._on_message(received.data)

    # Socket.IO

    def _send_packet(self, packet: socket_packet.Packet) -> None:
        encoded = packet.encode()
        for part in encoded if isinstance(encoded, list) else [encoded]:
            self._send_message(part)

    def _on_message(self, data: Any) -> None:
        if self._partial is not None:
            if not self._partial.add_attachment(data):
                return
            received, self._partial = self._partial, None
        else:
            received = socket_packet.Packet(encoded_packet=data)
            if received.attachment_count:
                self._partial = received
                return
        self._on_packet(received)

    def _on_packet(self, received: socket_packet.Packet) -> None:
        if received.packet_type == socket_packet.CONNECT:
            self.sid = received.data["sid"]
            self.connected = True
        elif received.packet_type == socket_packet.DISCONNECT:
            self._finish("io server disconnect")
        elif received.packet_type in (socket_packet.EVENT, socket_packet.BINARY_EVENT):
            item = Received(received.data[0], tuple(received.data[1:]), self._simulation.now)
            self.received.append(item)
            self.on_event(item)
        elif received.packet_type in (socket_packet.ACK, socket_packet.BINARY_ACK):
            answer = self._acks.pop(received.id, None)
            if answer is not None:
                answer(*received.data)


def _base64(data: bytes) -> str:
    return str(engine_packet.Packet(engine_packet.MESSAGE, data).encode(b64=True))


# The simulation -----------------------------------------------------------------------------------------------


class Simulation:
    """One server, its clients, the network between them and the clock of all of them."""

    def __init__(
        self,
        *,
        seed: int = 0,
        faults: Faults | None = None,
        limits: Limits | None = None,
        config: Config | None = None,
        history: int = 1000,
        directory: Directory | None = None,
    ) -> None:
        """``history``: updates remembered for each project, for clients that catch up.

        ``directory`` is asked in place of the one in memory, whose users the simulation's ``connect`` knows; give its
        clients their ``Cookie`` in ``headers``.
        """
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.directory = MemoryDirectory()
        self._asked: Directory = directory or self.directory
        self.now = 1000.0
        self._last_tick = 0.0
        self.max_write_buffer = 4 * 1024 * 1024
        self._limits, self._config, self._history = limits, config, history
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._links: dict[Connection, Link] = {}
        self._heard_at = 0.0
        self.server = self._new_server()

    def _new_backplane(self) -> LocalBackplane | RemoteBackplane:
        return MemoryBackplane(wall=lambda: EPOCH + self.now, entries=self._history)

    def _new_server(self) -> Server:
        return Server(
            self._asked,
            self._new_backplane(),
            new_id=lambda: f"{self.random.getrandbits(96):024x}",
            random=self.random.random,
            protocol=self._config,
            limits=self._limits,
        )

    # What a test does

    def connect(
        self,
        user_id: str | None = None,
        *,
        transport: TransportName = "websocket",
        headers: Mapping[str, str] | None = None,
        address: str = "10.0.0.1",
        run: bool = True,
    ) -> Client:
        """A client of somebody who is logged in as ``user_id``, or of nobody; connected already, unless not ``run``."""
        cookie = {} if user_id is None else {"Cookie": self.directory.cookie_of(user_id)}
        client = Client(self, transport, {**cookie, **(headers or {})}, address)
        if run:
            self.run()
        return client

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> str:
        """Publish an event to a project's room; returns its ``event_id``."""
        event_id = self.server.publish(project_id, event, Server.encode(data), self.now)
        self._flush()
        return event_id

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> None:
        """Announce a change, as the dashboard does."""
        self.server.receive([AccessChanged(user_id, project_id)], self.now)
        self._flush()

    def logged_out(self, user_id: str) -> None:
        """Announce a logout."""
        self.server.receive([LoggedOut(user_id)], self.now)
        self._flush()

    def drain(self) -> None:
        """Ask the server to stop, as SIGTERM does."""
        self.server.drain(self.now)
        self._flush()

    def restart(self) -> None:
        """The server dies: every connection breaks, its history is lost, and a new one takes its place."""
        links, self._links = self._links, {}
        self.server = self._new_server()
        for link in links.values():
            link.cut()

    def run(self, *, within: float = 5.0) -> None:
        """Let everything happen that is under way, for at most ``within`` seconds of virtual time.

        Deadlines of the server further away than that (heartbeats, re-checks) are left alone.
        """
        limit = self.now + within
        while (when := self._next()) is not None and when <= limit and (self._queue or when <= self.now + TURN):
            self._step(when)

    def advance(self, seconds: float) -> None:
        """Let this much time pass, with everything that happens in it."""
        limit = self.now + seconds
        while (when := self._next()) is not None and when <= limit:
            self._step(when)
        self.now = limit

    def links(self) -> list[Link]:
        """Every TCP connection that is open."""
        return list(self._links.values())

    def hear(self, items: Sequence[Input], delay: float) -> None:
        """In ``delay`` seconds the server hears this from other nodes; what it is told keeps its order."""
        server = self.server
        self._heard_at = max(self._heard_at, self.now + delay)

        def receive() -> None:
            if server is self.server:
                server.receive(items, self.now)
                self._flush()

        self.at(self._heard_at, receive)

    # What the network calls

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, act))

    def call(self, act: Callable[[], None]) -> None:
        """As soon as what is being done now is done."""
        self.at(self.now, act)

    def accept(self, link: Link, peer: Peer) -> Connection:
        connection = self.server.connect(link, peer, self.now)
        self._links[connection] = link
        return connection

    def receive(self, connection: Connection, data: bytes) -> None:
        if connection in self._links:
            self.server.receive_data(connection, data, self.now)
            self._flush()

    def lost(self, connection: Connection) -> None:
        if self._links.pop(connection, None) is not None:
            self.server.connection_lost(connection, self.now)
            self._flush()

    # The loop

    def _next(self) -> float | None:
        deadline = self._deadline()
        arrival = self._queue[0][0] if self._queue else None
        times = [max(when, self.now) for when in (deadline, arrival) if when is not None]
        return min(times, default=None)

    def _deadline(self) -> float | None:
        """When the server is next told the time: it has to wait for its turn, like everybody else."""
        deadline = self.server.next_deadline()
        return None if deadline is None else max(deadline, self._last_tick + TURN)

    def _step(self, when: float) -> None:
        self.now = when
        deadline = self._deadline()
        if deadline is not None and deadline <= when:
            self._last_tick = when
            self.server.tick(when)
            self._flush()
        elif self._queue and self._queue[0][0] <= when:
            heapq.heappop(self._queue)[2]()

    def _flush(self) -> None:
        for output in self.server.outputs():
            self._perform(output)

    def _perform(self, output: Output) -> None:
        match output:
            case Write(connection, data):
                connection.write(data)
            case Fanout(writes):
                for connections, data in writes:
                    for connection in connections:
                        connection.write(data)
            case Close(connection):
                connection.transport.close()
            case Abort(connection):
                connection.transport.abort()
            case Job(ticket, call):
                self._start_job(self.server, ticket, call)
            case RequestStarted(connection):
                self.call(lambda: self._not_found(connection))
            case RequestBody() | RequestFinished() | RequestAborted():
                pass  # the answer was given with the head

    def _not_found(self, connection: Connection) -> None:
        """There is no application here, only the Socket.IO endpoint."""
        self.server.respond(connection, 404, "Not Found", [("Content-Length", "0")], self.now)
        self.server.respond_end(connection, self.now)
        self._flush()

    def _start_job(self, server: Server, ticket: int, call: Callable[[], object]) -> None:
        """A worker thread: it reads the directory some time after it was asked, and reports some time after that."""
        fails = self.random.random() < self.faults.job_failure
        asked, reported = (self.random.random() * self.faults.max_job_time for _ in range(2))

        def read() -> None:
            result: object = ConnectionError("the database is away")
            if not fails:
                try:
                    result = call()
                except Exception as error:
                    result = error
            self.at(self.now + reported, lambda: report(result))

        def report(result: object) -> None:
            if server is self.server:
                server.job_done(ticket, result, self.now)
                self._flush()

        self.at(self.now + asked, read)


# Several nodes ------------------------------------------------------------------------------------------------


class Nodes:
    """Several servers that share their updates, as through Redis, with one clock and one directory.

    Each hears of an update up to ``max_delay`` seconds after it was published, each at its own time. Nodes are
    simulations of their own: ``nodes[1].connect("alice")``.
    """

    def __init__(
        self, count: int = 2, *, seed: int = 0, max_delay: float = 0.0, faults: Faults | None = None,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.max_delay = max_delay
        self.directory = MemoryDirectory()
        self.now = 1000.0
        self.backplanes: list[SharedBackplane] = []
        self._shared = self._new_history()
        self._nodes = [_Node(self, self.random.random(), faults, limits) for _ in range(count)]

    def __getitem__(self, index: int) -> Simulation:
        return self._nodes[index]

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> str:
        """Publish an event from anywhere; returns its ``event_id``."""
        return self._shared.publish(project_id, event, Server.encode(data)).event_id

    def read(self, project_id: str, after: str | None) -> History:
        """What a node is told of a project's history."""
        return self._shared.read(project_id, after)

    def forget(self) -> None:
        """What the nodes share comes back empty."""
        self._shared = self._new_history()
        for backplane in self.backplanes:
            backplane.lose()

    def run(self, *, within: float = 5.0) -> None:
        """Let everything happen that is under way, for at most ``within`` seconds, on every node."""
        self._go(self.now + within, lambda node: node.busy)

    def advance(self, seconds: float) -> None:
        """Let this much time pass, on every node."""
        limit = self.now + seconds
        self._go(limit, lambda node: True)
        self._set(limit)

    def _go(self, limit: float, wanted: Callable[[_Node], bool]) -> None:
        while any(wanted(node) for node in self._nodes):
            times = [(when, index) for index, node in enumerate(self._nodes) if (when := node.next_time()) is not None]
            if not times or min(times)[0] > limit:
                return
            when, index = min(times)
            self._set(when)
            self._nodes[index].step(when)

    def _set(self, now: float) -> None:
        self.now = now
        for node in self._nodes:
            node.now = now

    def _new_history(self) -> MemoryBackplane:
        shared = MemoryBackplane(wall=lambda: EPOCH + self.now)
        shared.listener = self._tell
        return shared

    def _tell(self, update: Update) -> None:
        for backplane in self.backplanes:
            backplane.hear(update)


class _Node(Simulation):
    """One of several: time passes for all of them together."""

    def __init__(self, nodes: Nodes, seed: float, faults: Faults | None, limits: Limits | None) -> None:
        self._nodes = nodes
        super().__init__(seed=int(seed * 2**32), faults=faults, limits=limits, directory=nodes.directory)
        self.directory = nodes.directory
        self.now = nodes.now

    @property
    def busy(self) -> bool:
        return bool(self._queue)

    def next_time(self) -> float | None:
        return self._next()

    def step(self, when: float) -> None:
        self._step(when)

    def run(self, *, within: float = 5.0) -> None:
        self._nodes.run(within=within)

    def advance(self, seconds: float) -> None:
        self._nodes.advance(seconds)

    def _new_backplane(self) -> LocalBackplane | RemoteBackplane:
        backplane = SharedBackplane(self._nodes, self)
        self._nodes.backplanes.append(backplane)
        return backplane


class SharedBackplane:
    """What one of several simulated nodes sees of what they share."""

    blocking: Literal[True] = True
    deaf = False

    def __init__(self, nodes: Nodes, node: Simulation) -> None:
        self._nodes = nodes
        self._node = node
        self._followed: dict[str, bool] = {}
        """Whether the first history of each followed project was read, from the end of which updates are heard."""

    def follow(self, project_id: str) -> None:
        self._followed[project_id] = False

    def unfollow(self, project_id: str) -> None:
        self._followed.pop(project_id, None)

    def read(self, project_id: str, after: str | None) -> History:
        if project_id in self._followed:
            self._followed[project_id] = True
        return self._nodes.read(project_id, after)

    def hear(self, update: Update) -> None:
        if self._followed.get(update.project_id):
            self._hear(Published(update))

    def lose(self) -> None:
        """Updates may be missing of everything that is followed."""
        projects, self._followed = list(self._followed), {}
        for project_id in projects:
            self._hear(Lost(project_id))

    def publish(self, project_id: str, event: str, text: str) -> Future[str]:
        future: Future[str] = Future()
        future.set_result(self._nodes.publish(project_id, event, json.loads(text)))
        return future

    def announce(self, item: AccessChanged | LoggedOut) -> Future[Any]:
        for backplane in self._nodes.backplanes:
            if backplane is not self:
                backplane._hear(item)
        future: Future[Any] = Future()
        future.set_result(None)
        return future

    def start(self, receive: Callable[[list[Input]], Future[None]]) -> None:
        """Nothing to do: the node is told by the simulation."""

    def close(self) -> None:
        self._followed.clear()

    def stats(self) -> dict[str, float]:
        return {"backplane_streams": len(self._followed)}

    def _hear(self, item: Input) -> None:
        self._node.hear([item], self._nodes.random.random() * self._nodes.max_delay)
