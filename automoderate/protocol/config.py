"""The limits and rules the protocol works under."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from attrs import frozen


@frozen
class Config:
    """Settings of the protocol server. Times are seconds, sizes are bytes."""

    path: str = "/socket.io/"
    """The one path the protocol answers; every other path is the application's."""
    transports: frozenset[str] = frozenset({"polling", "websocket"})
    """How clients may connect."""
    node: str | None = None
    """The name of this node where several share an address: every session id begins with it and a dot."""
    ping_interval: float = 25.0
    """Pause between a client's pong and the next ping."""
    ping_timeout: float = 20.0
    """How long a client may take to answer a ping."""
    max_payload: int = 1_000_000
    """Largest POST body, poll response and WebSocket message, and largest Socket.IO packet with its attachments."""
    upgrade_timeout: float = 10.0
    """How long a WebSocket may probe before it has to complete the upgrade."""
    connect_timeout: float = 45.0
    """How long a session may stay without having been connected to a namespace."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins that may connect besides the server's own; ``"*"`` allows any."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks whose ``X-Forwarded-*`` headers are believed."""
    max_request_body: int = 16 * 1024 * 1024
    """Largest body of an application request; more is answered with 413."""
    send_buffer: int = 4 * 1024 * 1024
    """Bytes that may wait for one session while its polling client is away or an upgrade is under way."""
    header_timeout: float = 20.0
    """How long a request head may take; a body has the same grace and must then keep up a minimal rate."""
    keep_alive_timeout: float = 75.0
    """How long a connection may stay idle between requests."""
