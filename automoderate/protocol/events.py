"""What the protocol tells the layer above it: requests, sessions and Socket.IO packets, as frozen values.

The objects in these events identify connections, Engine.IO sessions and Socket.IO clients.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from automoderate.protocol.model import Client, CloseReason, Connection, Request, Session

# Engine.IO ----------------------------------------------------------------------------------------------------


@frozen
class SessionOpened:
    """A client opened an Engine.IO session with ``request``."""

    session: Session
    request: Request


@frozen
class SessionUpgraded:
    """The session moved from polling to WebSocket: ``session.connection`` is now the WebSocket."""

    session: Session


@frozen
class MessageReceived:
    """An Engine.IO message arrived. ``SocketIOServer`` reads it, and hands out what it means instead."""

    session: Session
    data: str | bytes


@frozen
class SessionClosed:
    """The session is over; nothing may be sent on it any more."""

    session: Session
    reason: CloseReason


@frozen
class CredentialChanged:
    """A request names the session, but carries another credential than the session has.

    The request waits for ``settle(connection, allowed, now)``: with True it goes on and its credential becomes the
    session's, with False it is answered 403.
    """

    connection: Connection
    session: Session
    request: Request


# Socket.IO ----------------------------------------------------------------------------------------------------


@frozen
class ClientConnecting:
    """A client asks to be let into a namespace: answer with ``accept`` or ``refuse``, at once or later."""

    client: Client
    auth: Any


@frozen
class EventReceived:
    """A client sent an event; ``ack_id`` is set where it asked for an acknowledgement."""

    client: Client
    event: str
    args: tuple[Any, ...]
    ack_id: int | None = None


@frozen
class AckReceived:
    """A client acknowledged an event that was sent with an ack id."""

    client: Client
    ack_id: int
    args: tuple[Any, ...]


@frozen
class ClientDisconnected:
    """A client left its namespace, was put out of it, or its session is over."""

    client: Client
    reason: CloseReason


# Anything else over HTTP --------------------------------------------------------------------------------------


@frozen
class AppRequest:
    """A request for another path than the protocol's; answer it by ``respond``, ``respond_body``, ``respond_end``."""

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


EngineIOEvent = (
    SessionOpened | SessionUpgraded | MessageReceived | SessionClosed | CredentialChanged
    | AppRequest | AppBody | AppRequestEnd | AppRequestAborted
)  # fmt: skip
"""Everything that ``EngineIOServer`` reports."""
SocketIOEvent = (
    SessionOpened | SessionUpgraded | SessionClosed | CredentialChanged
    | ClientConnecting | EventReceived | AckReceived | ClientDisconnected
    | AppRequest | AppBody | AppRequestEnd | AppRequestAborted
)  # fmt: skip
"""Everything that ``SocketIOServer`` reports."""
