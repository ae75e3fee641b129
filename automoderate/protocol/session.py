"""One Engine.IO session as the server keeps it, and messages encoded once for many of them."""

from __future__ import annotations

import enum
from collections.abc import Hashable

from attrs import define, field, frozen

from automoderate.protocol import websocket
from automoderate.protocol.http import Connection
from automoderate.protocol.payload import Kind, encode

# An Engine.IO close packet, then an empty packet. JavaScript clients take the close packet as "transport close" and
# come back by themselves. python-engineio takes a bare close packet as an order not to come back; it reads the whole
# payload before it acts, stumbles over the empty packet, treats the transport as broken and does come back.
FAREWELL = b"1\x1e"


class SessionState(enum.Enum):
    """The life of a session."""

    OPEN = "open"
    CLOSING = "closing"
    """Over for the layer above; the polling client has not been told yet."""
    CLOSED = "closed"


@frozen
class Encoded:
    """A message encoded once for any number of sessions."""

    packet: str
    """The Engine.IO packet, as it stands in a polling payload."""
    frame: bytes
    """The complete WebSocket text frame that carries it."""

    @classmethod
    def message(cls, data: str) -> Encoded:
        """Encode one text message."""
        packet = encode(Kind.MESSAGE, data)
        return cls(packet, websocket.text_frame(packet))


@define(eq=False)
class Session:
    """One Engine.IO session. Read ``sid``, ``cookie``, ``client_address``, ``credential``, ``connection`` and
    ``transport``.

    Thousands of these are idle, so they remember no more of the handshake than is asked for later; the whole request
    is in the session's ``SessionOpened``.
    """

    sid: str
    cookie: str | None
    """The handshake's ``Cookie`` header."""
    client_address: str
    """Where the handshake came from."""
    credential: Hashable
    """What ``credential(request)`` said of the handshake, or of the latest request that was let pass instead."""
    connection: Connection | None = None
    """The WebSocket, from the handshake or the completed upgrade on; None while polling."""
    state: SessionState = SessionState.OPEN
    poll: Connection | None = None
    post: Connection | None = None
    probe: Connection | None = None
    probed: bool = False
    next_noop: float = float("-inf")
    """No poll is answered with nothing before this time."""
    queue: list[tuple[str | bytes, int]] = field(factory=list)
    """Packets that wait for a poll, with their sizes; a list, as an empty deque takes ten times the memory."""
    queued: int = 0
    pinged: bool = False
    farewell: bytes = FAREWELL

    @property
    def transport(self) -> str:
        """``"polling"`` or ``"websocket"``."""
        return "polling" if self.connection is None else "websocket"
