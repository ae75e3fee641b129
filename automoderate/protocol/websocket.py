"""The WebSocket protocol (RFC 6455) from the end of the opening handshake on, and that handshake's rules."""

from __future__ import annotations

import base64
import binascii
import enum
import logging

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.utils import accept_key

from automoderate.protocol.events import Request

_LOGGER = logging.getLogger("automoderate.protocol.websocket")
# The library notes every closed connection at level INFO, which says nothing that our events do not say better.
_LOGGER.setLevel(logging.WARNING)

VERSION = "13"


class Ending(enum.Enum):
    """How a peer ended a WebSocket."""

    CLOSED = "closed"
    """By a close frame."""
    FAILED = "failed"
    """By breaking the protocol or a limit; it was told the status code."""


def text_frame(text: str) -> bytes:
    """One complete unmasked text frame, as servers send it (RFC 6455, section 5.2).

    By hand, as the library takes ten times as long: more than half of what a broadcast to a small room costs.
    """
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def binary_frame(data: bytes) -> bytes:
    """One complete unmasked binary frame."""
    return Frame(Opcode.BINARY, data).serialize(mask=False)


def wants_websocket(request: Request) -> bool:
    """Whether the request asks to switch to WebSocket (RFC 9110, section 7.8)."""
    return (request.header("upgrade") or "").strip().lower() == "websocket"


def accept_value(request: Request) -> str | None:
    """The ``Sec-WebSocket-Accept`` of an upgrade request, or None where it breaks RFC 6455, section 4.2.1.

    The version is left to the caller: it has an answer of its own (section 4.2.2).
    """
    options = [option.strip().lower() for option in (request.header("connection") or "").split(",")]
    key = (request.header("sec-websocket-key") or "").strip()
    if request.http_version != "1.1" or "upgrade" not in options:
        return None
    try:
        nonce = base64.b64decode(key.encode("latin-1"), validate=True)
    except binascii.Error:
        return None
    return accept_key(key) if len(nonce) == 16 else None


class WebSocket:
    """One open WebSocket: bytes in, messages out. ``receive``, then ``data_to_send``."""

    __slots__ = ("_fragments", "_protocol", "_text")

    def __init__(self, max_size: int) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size, logger=_LOGGER)
        self._fragments: bytearray | None = None
        self._text = False

    def receive(self, data: bytes) -> list[str | bytes | Ending]:
        """The messages that ``data`` completes; an ``Ending`` is the last item there will ever be."""
        protocol = self._protocol
        protocol.receive_data(data)
        received: list[str | bytes | Ending] = []
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                received.append(Ending.CLOSED)
                return received
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                message = self._assemble(frame)
                if message is not None:
                    received.append(message)
                if message is Ending.FAILED:
                    return received
        if protocol.parser_exc is not None:
            received.append(Ending.FAILED)
        return received

    def _assemble(self, frame: Frame) -> str | bytes | Ending | None:
        """Collect fragments; the whole message once it is there. The library has checked the order and size."""
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
            self._fragments = None if frame.fin else bytearray()
        data = bytes(frame.data)
        if self._fragments is not None:
            self._fragments += data
            if not frame.fin:
                return None
            data = bytes(self._fragments)
            self._fragments = None
        if not self._text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._protocol.fail(1007, "invalid UTF-8")
            return Ending.FAILED

    def close(self, code: int = 1000) -> None:
        """Start the closing handshake; a no-op once it has begun from either side."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code)

    def data_to_send(self) -> bytes:
        """Bytes the protocol itself has to send: pongs and close frames."""
        return b"".join(self._protocol.data_to_send())
