"""What the protocol tells the layer above it: requests, sessions and Socket.IO packets, as frozen values.

Engine.IO sessions and Socket.IO clients are identified by the objects handed out in these events; the layer above
never parses a byte of the wire.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from automoderate.protocol.outputs import Peer

if TYPE_CHECKING:
    from automoderate.protocol.http import Connection
    from automoderate.protocol.session import Session
    from automoderate.protocol.socketio import Client


@frozen
class Request:
    """One HTTP request head.

    ``path`` is percent-decoded, ``target`` is as sent. ``client_address``, ``scheme`` and ``host`` are what a trusted
    proxy reported (``X-Forwarded-For``, ``-Proto``, ``-Host``), else what the connection itself says.
    """

    method: str
    target: str
    path: str
    query_string: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in order of arrival; values decoded as Latin-1."""
    http_version: str
    peer: Peer
    client_address: str
    scheme: str
    host: str

    query: dict[str, str] = field(factory=dict, eq=False)
    """The query's parameters, the first of each name."""
    _values: dict[str, str] = field(init=False, eq=False, repr=False)

    @_values.default
    def _join_values(self) -> dict[str, str]:
        return joined(self.headers)

    def header(self, name: str) -> str | None:
        """The value of a header, several of one name joined with ", "; None where it is absent.

        Cookies are joined with "; ": a proxy that speaks HTTP/2 to browsers may get and pass on one header for each.
        """
        return self._values.get(name)


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The value of each header, as ``Request.header`` has it."""
    values: dict[str, str] = {}
    for name, value in headers:
        if name in values:
            values[name] += ("; " if name == "cookie" else ", ") + value
        else:
            values[name] = value
    return values


class CloseReason(enum.Enum):
    """Why a session ended; the values are the reference server's words for it."""

    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"
    PING_TIMEOUT = "ping timeout"
    PARSE_ERROR = "parse error"
    CLIENT_DISCONNECT = "client namespace disconnect"
    SERVER_DISCONNECT = "server namespace disconnect"
    SERVER_CLOSE = "server shutting down"
    CONNECT_TIMEOUT = "connect timeout"
    OVERFLOW = "buffer overflow"


# Engine.IO ----------------------------------------------------------------------------------------------------


@frozen
class SessionOpened:
    """An Engine.IO handshake, ``request``, was answered."""

    session: Session
    request: Request


@frozen
class SessionUpgraded:
    """The session moved from polling to WebSocket; ``session.connection`` is the WebSocket from now on."""

    session: Session


@frozen
class MessageReceived:
    """One Engine.IO message (Engine.IO server only; a Socket.IO server consumes it)."""

    session: Session
    data: str | bytes


@frozen
class SessionClosed:
    """The session is over; nothing may be sent on it any more."""

    session: Session
    reason: CloseReason


@frozen
class CredentialChanged:
    """A request carries a known sid but another credential than the one the session was opened with.

    The request waits until ``settle(connection, allowed, now)`` is called: True lets it go on, False answers 403.
    """

    connection: Connection
    session: Session
    request: Request


# Socket.IO ----------------------------------------------------------------------------------------------------


@frozen
class ClientConnecting:
    """A CONNECT packet: answer with ``accept`` or ``refuse``, at once or later."""

    client: Client
    auth: Any


@frozen
class EventReceived:
    """An EVENT or BINARY_EVENT packet; ``ack_id`` is set where the client asked for an acknowledgement."""

    client: Client
    event: str
    args: tuple[Any, ...]
    ack_id: int | None = None


@frozen
class AckReceived:
    """The client's answer to an event that was sent with an ack id."""

    client: Client
    ack_id: int
    args: tuple[Any, ...]


@frozen
class ClientDisconnected:
    """The client left the namespace, was disconnected from it, or its session closed."""

    client: Client
    reason: CloseReason


# Anything else over HTTP --------------------------------------------------------------------------------------


@frozen
class AppRequest:
    """A request for another path than the protocol's; answer it with ``respond``/``respond_body``/``respond_end``."""

    connection: Connection
    request: Request


@frozen
class AppBody:
    """A piece of that request's body."""

    connection: Connection
    data: bytes


@frozen
class AppRequestEnd:
    """That request's body is complete."""

    connection: Connection


@frozen
class AppRequestAborted:
    """The connection went away before that request was answered."""

    connection: Connection


EngineEvent = (
    SessionOpened | SessionUpgraded | MessageReceived | SessionClosed | CredentialChanged
    | AppRequest | AppBody | AppRequestEnd | AppRequestAborted
)  # fmt: skip
SocketEvent = (
    SessionOpened | SessionUpgraded | SessionClosed | CredentialChanged
    | ClientConnecting | EventReceived | AckReceived | ClientDisconnected
    | AppRequest | AppBody | AppRequestEnd | AppRequestAborted
)  # fmt: skip
