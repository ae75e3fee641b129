"""An echo server on AutoModerate's protocol package: another application than moderation, in one file.

It answers what the official protocol test suites of Engine.IO and Socket.IO expect of a server. A *driver* is all it
takes: the protocol turns bytes into events, the driver decides what they mean, an adapter moves the bytes. The base
class ``Layer`` is a driver but for that decision.

    python3 examples/echo_server.py --port 3000
    python3 examples/echo_server.py --port 3000 --engine-only
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from automoderate import adapters
from automoderate.adapters.runtime import Handle, Options
from automoderate.protocol import Client, Config, Driver, EngineIOServer, Layer, SocketIOServer
from automoderate.protocol.events import (
    AppRequestEnd,
    ClientConnecting,
    ClientDisconnected,
    EngineIOEvent,
    EventReceived,
    MessageReceived,
    SocketIOEvent,
)
from automoderate.protocol.timers import earliest

NAMESPACES = ("/", "/custom")
GREETING_DELAY = 0.01
"""Seconds between the CONNECT reply and ``auth``: the suites' clients see one message per read of their socket, so the
two may not arrive together."""


class EngineEcho(Layer[EngineIOEvent]):
    """Plain Engine.IO: every message goes back as it came."""

    def __init__(self, config: Config) -> None:
        self.protocol = EngineIOServer(config, new_id=new_id)
        super().__init__(self.protocol)

    def on_event(self, event: EngineIOEvent, now: float) -> None:
        if isinstance(event, MessageReceived):
            self.protocol.send(event.session, event.data, now)
        elif isinstance(event, AppRequestEnd):
            not_found(self, event, now)


class SocketEcho(Layer[SocketIOEvent]):
    """Socket.IO: ``message`` comes back as ``message-back``, ``message-with-ack`` as its acknowledgement."""

    def __init__(self, config: Config) -> None:
        self.protocol = SocketIOServer(config, new_id=new_id)
        super().__init__(self.protocol)
        self.greetings: dict[Client, tuple[float, Any]] = {}
        """When each new client is to be sent ``auth``, and what it connected with; the oldest is due first."""

    def on_event(self, event: SocketIOEvent, now: float) -> None:
        if isinstance(event, ClientConnecting):
            self.connecting(event.client, event.auth, now)
        elif isinstance(event, ClientDisconnected):
            self.greetings.pop(event.client, None)
        elif isinstance(event, EventReceived):
            self.greet(event.client, now)
            self.echo(event, now)
        elif isinstance(event, AppRequestEnd):
            not_found(self, event, now)

    def connecting(self, client: Client, auth: Any, now: float) -> None:
        if client.namespace in NAMESPACES:
            self.protocol.accept(client, now)
            self.greetings[client] = (now + GREETING_DELAY, auth)
        else:
            self.protocol.refuse(client, "Invalid namespace", None, now)

    def greet(self, client: Client, now: float) -> None:
        """Show the client what it connected with; once."""
        if client in self.greetings:
            _, auth = self.greetings.pop(client)
            with suppress(ValueError):  # an infinite number, such as a client may write as 1e999
                self.protocol.emit(client, "auth", auth, now=now)

    def echo(self, event: EventReceived, now: float) -> None:
        with suppress(ValueError):
            if event.event == "message":
                self.protocol.emit(event.client, "message-back", *event.args, now=now)
            elif event.event == "message-with-ack" and event.ack_id is not None:
                self.protocol.acknowledge(event.client, event.ack_id, event.args, now)

    def tick(self, now: float) -> None:
        for client in [client for client, (due, _) in self.greetings.items() if due <= now]:
            self.greet(client, now)
        super().tick(now)

    def next_deadline(self) -> float | None:
        due = next(iter(self.greetings.values()))[0] if self.greetings else None
        return earliest(due, super().next_deadline())


def not_found(driver: Driver, request: AppRequestEnd, now: float) -> None:
    """There is nothing to see on other paths."""
    driver.respond(request.connection, 404, "Not Found", [("Content-Length", "0")], now)
    driver.respond_end(request.connection, now)


def new_id() -> str:
    return secrets.token_urlsafe(15)


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


def build(arguments: argparse.Namespace) -> Driver:
    """The driver the arguments ask for."""
    config = Config(
        path="/engine.io/" if arguments.engine_only else "/socket.io/",
        ping_interval=arguments.ping_interval,
        ping_timeout=arguments.ping_timeout,
        max_payload=arguments.max_payload,
        connect_timeout=arguments.connect_timeout,
        allowed_origins=frozenset(arguments.cors),
    )
    return EngineEcho(config) if arguments.engine_only else SocketEcho(config)


def announce(handle: Handle) -> None:
    for host, port in handle.addresses:
        print(f"Echo server on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        adapter = adapters.load(arguments.adapter)
        adapter.run(build(arguments), Options(host=arguments.host, port=arguments.port), on_ready=announce)
    except adapters.MissingExtra as error:
        print(f"echo_server: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"echo_server: {error.strerror or error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
