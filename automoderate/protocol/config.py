"""The settings of the protocol: its path, its limits and how long it waits."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from attrs import field, frozen

from automoderate.protocol.error_pages import ErrorPage
from automoderate.protocol.files import StaticFile


@frozen
class Config:
    """Settings of ``EngineIOServer`` and ``SocketIOServer``. Times are seconds, sizes are bytes."""

    path: str = "/socket.io/"
    """Where the protocol answers, at this path and below; every other path is the application's."""
    files: Mapping[str, StaticFile] = field(factory=dict, hash=False, repr=False)
    """Files to serve, by their whole paths, which are below ``path``."""
    error_pages: Mapping[int, ErrorPage] = field(factory=dict, hash=False, repr=False)
    """What browsers are answered in place of plain text, by its status, where a request of a person is refused."""
    transports: frozenset[str] = frozenset({"polling", "websocket"})
    """How clients may connect."""
    node: str | None = None
    """The name of this node where several nodes share an address: every session id then begins with it and a dot."""
    ping_interval: float = 25.0
    """Pause between a client's pong and the next ping."""
    ping_timeout: float = 20.0
    """How long a client may take to answer a ping."""
    max_payload: int = 1_000_000
    """The largest POST body, answer to a poll, WebSocket message, and Socket.IO packet with its attachments."""
    upgrade_timeout: float = 10.0
    """How long a client has, from the WebSocket's handshake on, to complete an upgrade."""
    connect_timeout: float = 45.0
    """How long a session may last without its client being let into a namespace."""
    max_pending: int = 1000
    """Connections without a request, and sessions that have not been let into a namespace, that one address may have.

    The oldest ends for a further one. Connections from trusted proxies are not counted.
    """
    allowed_origins: frozenset[str] = frozenset()
    """Origins that may connect besides the server's own; ``"*"`` allows any."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of the proxies whose ``X-Forwarded-*`` headers count."""
    max_request_body: int = 16 * 1024 * 1024
    """The largest body of an application request; a larger one is answered with 413."""
    send_buffer: int = 4 * 1024 * 1024
    """How much may wait for one client between its polls; a client that more would wait for is dropped."""
    header_timeout: float = 20.0
    """How long a request head may take to arrive. A body has as long, and must then keep up a minimal rate."""
    keep_alive: float = 75.0
    """How long a connection may stay idle between requests."""
