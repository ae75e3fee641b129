"""An echo server on AutoModerate's protocol package: another application than moderation, in one file.

It answers what the official protocol test suites of Engine.IO and Socket.IO expect of a server. A *driver* is all it
takes: the protocol turns bytes into events, the driver decides what they mean, an adapter moves the bytes.

    python examples/echo_server.py --port 3000
    python examples/echo_server.py --port 3000 --engine-only
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from automoderate import adapters
from automoderate.protocol import Client, Config, Connection, EngineServer, SocketServer
from automoderate.protocol.events import (
    AppRequestEnd,
    ClientConnecting,
    ClientDisconnected,
    EngineEvent,
    EventReceived,
    MessageReceived,
    SocketEvent,
)
from automoderate.protocol.outputs import Output, Peer, Transport

NAMESPACES = ("/", "/custom")
GREETING_DELAY = 0.01
"""Seconds between the CONNECT reply and ``auth``: the suites' clients see one message per read of their socket, so the
two may not arrive together."""


class Echo(ABC):
    """The part both servers share: hand every input to the protocol, then react to the events it produced."""

    def __init__(self, protocol: EngineServer | SocketServer) -> None:
        self.protocol = protocol

    @abstractmethod
    def react(self, now: float) -> None:
        """Handle the events of the last input; the applications below differ in nothing else."""

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        return self.protocol.connect(transport, peer, now)

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        self.protocol.receive_data(connection, data, now)
        self.react(now)

    def receive_eof(self, connection: Connection, now: float) -> None:
        self.protocol.receive_eof(connection, now)
        self.react(now)

    def connection_lost(self, connection: Connection, now: float) -> None:
        self.protocol.connection_lost(connection, now)
        self.react(now)

    def respond(
        self, connection: Connection, status: int, reason: str, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        self.protocol.respond(connection, status, reason, headers, now)

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        self.protocol.respond_body(connection, data, now)

    def respond_end(self, connection: Connection, now: float) -> None:
        self.protocol.respond_end(connection, now)
        self.react(now)

    def job_done(self, ticket: int, result: object | BaseException, now: float) -> None:  # noqa: B027 - none is started
        """Nothing here takes long enough to need a worker thread."""

    def tick(self, now: float) -> None:
        self.protocol.tick(now)
        self.react(now)

    def next_deadline(self) -> float | None:
        return self.protocol.next_deadline()

    def outputs(self) -> list[Output]:
        return self.protocol.outputs()

    def drain(self, now: float) -> None:
        self.protocol.drain(now)
        self.react(now)

    def drained(self) -> bool:
        return self.protocol.drained()

    def not_found(self, request: AppRequestEnd, now: float) -> None:
        """There is nothing to see on other paths."""
        self.protocol.respond(request.connection, 404, "Not Found", [("Content-Length", "0")], now)
        self.protocol.respond_end(request.connection, now)


class EngineEcho(Echo):
    """Plain Engine.IO: every message goes back as it came."""

    protocol: EngineServer

    def react(self, now: float) -> None:
        while (event := self.protocol.next_event()) is not None:
            self.handle(event, now)

    def handle(self, event: EngineEvent, now: float) -> None:
        if isinstance(event, MessageReceived):
            self.protocol.send(event.session, event.data, now)
        elif isinstance(event, AppRequestEnd):
            self.not_found(event, now)


class SocketEcho(Echo):
    """Socket.IO: ``message`` comes back as ``message-back``, ``message-with-ack`` as its acknowledgement."""

    protocol: SocketServer

    def __init__(self, protocol: SocketServer) -> None:
        super().__init__(protocol)
        self.greetings: dict[Client, tuple[float, Any]] = {}

    def react(self, now: float) -> None:
        while (event := self.protocol.next_event()) is not None:
            self.handle(event, now)
        for client in [client for client, (due, _) in self.greetings.items() if due <= now]:
            self.greet(client, now)

    def handle(self, event: SocketEvent, now: float) -> None:
        if isinstance(event, ClientConnecting):
            self.connecting(event.client, event.auth, now)
        elif isinstance(event, ClientDisconnected):
            self.greetings.pop(event.client, None)
        elif isinstance(event, EventReceived):
            self.greet(event.client, now)
            self.echo(event, now)
        elif isinstance(event, AppRequestEnd):
            self.not_found(event, now)

    def connecting(self, client: Client, auth: Any, now: float) -> None:
        if client.namespace in NAMESPACES:
            self.protocol.accept(client, now)
            self.greetings[client] = (now + GREETING_DELAY, {} if auth is None else auth)
        else:
            self.protocol.refuse(client, "Invalid namespace", None, now)

    def greet(self, client: Client, now: float) -> None:
        """Show the client what it connected with; once."""
        if client in self.greetings:
            _, auth = self.greetings.pop(client)
            self.protocol.emit(client, "auth", auth, now=now)

    def echo(self, event: EventReceived, now: float) -> None:
        if event.event == "message":
            self.protocol.emit(event.client, "message-back", *event.args, now=now)
        elif event.event == "message-with-ack" and event.ack_id is not None:
            self.protocol.acknowledge(event.client, event.ack_id, event.args, now)

    def next_deadline(self) -> float | None:
        # All greetings wait equally long, so the oldest is due first.
        due = [next(iter(self.greetings.values()))[0]] if self.greetings else []
        deadline = super().next_deadline()
        return min(due if deadline is None else [*due, deadline], default=None)


def positive(text: str) -> float:
    """A number of seconds greater than zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Echo server for Engine.IO 4 and Socket.IO 5, as the official protocol test suites expect it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--adapter", choices=adapters.names(), default="asyncio", help="runtime to serve on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--engine-only", action="store_true", help="plain Engine.IO echo on /engine.io/ instead of Socket.IO"
    )
    for option, default, meaning in (
        ("--ping-interval", 25.0, "pause between two pings; fractions are allowed"),
        ("--ping-timeout", 20.0, "time a client has for its pong"),
        ("--connect-timeout", 45.0, "time a client has to connect to a namespace"),
    ):
        parser.add_argument(option, type=positive, default=default, metavar="SECONDS", help=meaning)
    parser.add_argument("--max-payload", type=int, default=1_000_000, metavar="BYTES", help="largest message accepted")
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help='origin that may connect besides the server\'s own, "*" for any; may be repeated',
    )
    return parser.parse_args(argv)


def build(arguments: argparse.Namespace) -> Echo:
    """The driver the arguments ask for."""
    config = Config(
        path="/engine.io/" if arguments.engine_only else "/socket.io/",
        ping_interval=arguments.ping_interval,
        ping_timeout=arguments.ping_timeout,
        max_payload=arguments.max_payload,
        connect_timeout=arguments.connect_timeout,
        allowed_origins=frozenset(arguments.cors),
    )
    if arguments.engine_only:
        return EngineEcho(EngineServer(config, new_id=new_id))
    return SocketEcho(SocketServer(config, new_id=new_id))


def new_id() -> str:
    return secrets.token_urlsafe(15)


def announce(handle: adapters.Handle) -> None:
    for host, port in handle.addresses:
        print(f"Echo server on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        adapter = adapters.load(arguments.adapter)
        adapter.run(build(arguments), host=arguments.host, port=arguments.port, on_ready=announce)
    except adapters.MissingExtra as error:
        print(f"echo_server: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"echo_server: {error.strerror or error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
