"""The whole server, its clients and the network between them in one thread and in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from automoderate._threads import outcome
from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import AccessChanged, Limits, LoggedOut
from automoderate.metrics import exposition
from automoderate.protocol.config import Config
from automoderate.protocol.model import Connection, Peer
from automoderate.protocol.outputs import (
    Abort,
    Awaited,
    Close,
    Fanout,
    Job,
    Output,
    PauseReading,
    RequestAborted,
    RequestBody,
    RequestFinished,
    RequestStarted,
    ResumeReading,
    SendEof,
    Write,
    call_transport,
)
from automoderate.server import Server
from automoderate.server.api import ApiOptions
from automoderate.server.interfaces import Backplane, Directory, Heard
from automoderate.server.tracing import Tracer
from automoderate.testing.client import SimulatedClient, TransportName
from automoderate.testing.directory import MemoryDirectory
from automoderate.testing.network import Faults, SimulatedConnection

TURN = 0.001
"""Shortest time, in seconds of virtual time, that one turn of the server's loop takes."""
EPOCH = 1_768_473_000.0
"""Wall-clock time, in seconds, when virtual time is 0."""


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
        api: ApiOptions | None = None,
        window: float = 0.0,
        tracer: Tracer | None = None,
    ) -> None:
        """``history``: how many updates of each project are remembered for clients that catch up.

        ``window``: for how many seconds updates of a room wait for one another, as ``--window`` says it. ``tracer``
        takes the server's spans.

        The server asks ``directory`` where one is given, and ``self.directory`` otherwise. ``connect`` makes cookies of
        the latter only: with a directory of your own pass the ``Cookie`` in ``headers``.
        """
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.directory = MemoryDirectory()
        self._asked: Directory = directory or self.directory
        self.now = 1000.0
        self._last_tick = 0.0
        self.max_write_buffer = 4 * 1024 * 1024
        self._limits, self._config, self._history, self._window = limits, config, history, window
        self._tracer = tracer
        self._api = api or ApiOptions(exposition=exposition)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._connections: dict[Connection, SimulatedConnection] = {}
        self._heard_at = 0.0
        self.server = self._new_server()

    def _new_backplane(self) -> Backplane:
        return MemoryBackplane(wall=lambda: EPOCH + self.now, entries=self._history)

    def _new_server(self) -> Server:
        return Server(
            self._asked,
            self._new_backplane(),
            new_id=lambda: f"{self.random.getrandbits(96):024x}",
            random=self.random.random,
            protocol=self._config,
            limits=self._limits,
            api=self._api,
            window=self._window,
            tracer=self._tracer,
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
    ) -> SimulatedClient:
        """A client that is logged in as ``user_id``; None: not logged in.

        It is connected already, unless ``run`` is False.
        """
        cookie = {} if user_id is None else {"Cookie": self.directory.cookie_of(user_id)}
        client = SimulatedClient(self, transport, {**cookie, **(headers or {})}, address)
        if run:
            self.run()
        return client

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> str:
        """Publish an event to a project's room; returns its ``event_id``."""
        published = self.server.publish(project_id, event, Server.encode(data), self.now)
        self._flush()
        return published if isinstance(published, str) else published.result(0)

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> None:
        """Announce that access may have changed, as the dashboard does."""
        self.server.announce(AccessChanged(user_id, project_id), self.now)
        self._flush()

    def logged_out(self, user_id: str) -> None:
        """Announce a logout."""
        self.server.announce(LoggedOut(user_id), self.now)
        self._flush()

    def drain(self) -> None:
        """Ask the server to stop, as SIGTERM does."""
        self.server.drain(self.now)
        self._flush()

    def restart(self) -> None:
        """Replace the server by a new one: every connection breaks, and the history is lost."""
        connections, self._connections = self._connections, {}
        self.server.backplane.close()
        self.server = self._new_server()
        for connection in connections.values():
            connection.cut()

    def run(self, *, within: float = 5.0) -> None:
        """Let everything happen that is under way, for at most ``within`` seconds of virtual time.

        What the server has planned for later (heartbeats, re-checks) does not happen.
        """
        limit = self.now + within
        while (when := self._next()) is not None and when <= limit and self._under_way(when):
            self._step(when)

    def advance(self, seconds: float) -> None:
        """Let this much virtual time pass, with everything that happens in it."""
        limit = self.now + seconds
        while (when := self._next()) is not None and when <= limit:
            self._step(when)
        self.now = limit

    def connections(self) -> list[SimulatedConnection]:
        """Every TCP connection that is open."""
        return list(self._connections.values())

    def hear(self, items: Sequence[Heard], delay: float) -> None:
        """Tell the server in ``delay`` seconds what other nodes say; never before what it was to be told earlier."""
        server = self.server
        self._heard_at = max(self._heard_at, self.now + delay)

        def receive() -> None:
            if server is self.server:
                server.receive(items, self.now)
                self._flush()

        self.at(self._heard_at, receive)

    # What the network calls

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at this time, after what is due by then already."""
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, act))

    def call(self, act: Callable[[], None]) -> None:
        """Do something next."""
        self.at(self.now, act)

    def accept(self, transport: SimulatedConnection, peer: Peer) -> Connection:
        """Connect a client's transport to the server."""
        connection = self.server.connect(transport, peer, self.now)
        self._connections[connection] = transport
        return connection

    def receive(self, connection: Connection, data: bytes) -> None:
        """Give the server what has arrived on a connection."""
        if connection in self._connections:
            self.server.receive_data(connection, data, self.now)
            self._flush()

    def lost(self, connection: Connection) -> None:
        """Tell the server that a connection broke."""
        if self._connections.pop(connection, None) is not None:
            self.server.connection_lost(connection, self.now)
            self._flush()

    # The loop

    def _under_way(self, when: float) -> bool:
        """Whether what happens next, then, is more than something planned for later."""
        return bool(self._queue) or self.server.asking or when <= self.now + TURN

    def _next(self) -> float | None:
        deadline = self._deadline()
        arrival = self._queue[0][0] if self._queue else None
        times = [max(when, self.now) for when in (deadline, arrival) if when is not None]
        return min(times, default=None)

    def _deadline(self) -> float | None:
        """When the server's next turn is: its own deadline, but no sooner than one turn after the last."""
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
        self.server.turned(self.now, 0.0)

    def _perform(self, output: Output) -> None:
        match output:
            case Write(connection, data):
                connection.write(data)
            case Fanout(writes):
                for connections, data in writes:
                    for connection in connections:
                        connection.write(data)
            case SendEof() | Close() | Abort() | PauseReading() | ResumeReading():
                call_transport(output)
            case Job(ticket, call):
                self._start_job(self.server, ticket, call)
            case Awaited(ticket, future):
                report = partial(self._report, self.server, ticket)
                future.add_done_callback(lambda future: self.call(lambda: report(outcome(future.result))))
            case RequestStarted(connection):
                self.call(lambda: self._not_found(connection))
            case RequestBody() | RequestFinished() | RequestAborted():
                pass  # The answer was given when the head came.

    def _not_found(self, connection: Connection) -> None:
        """Answer a request for another path: only the Socket.IO endpoint is simulated."""
        self.server.respond(connection, 404, "Not Found", [("Content-Length", "0")], self.now)
        self.server.respond_end(connection, self.now)
        self._flush()

    def _start_job(self, server: Server, ticket: int, call: Callable[[], object]) -> None:
        """Simulate a worker thread, which reads the directory some time later and reports some time after that."""
        fails = self.random.random() < self.faults.job_failure
        asked, reported = (self.random.random() * self.faults.max_job_time for _ in range(2))

        def read() -> None:
            result = ConnectionError("the database is away") if fails else outcome(call)
            self.at(self.now + reported, lambda: self._report(server, ticket, result))

        self.at(self.now + asked, read)

    def _report(self, server: Server, ticket: int, result: object) -> None:
        if server is self.server:
            server.job_done(ticket, result, self.now)
            self._flush()
