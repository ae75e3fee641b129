"""The WebSocket protocol (RFC 6455) from the end of the opening handshake on, and that handshake's rules."""

from __future__ import annotations

import base64
import binascii
import enum
import logging

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.utils import accept_key, apply_mask

from automoderate.protocol.events import Request

_LOGGER = logging.getLogger("automoderate.protocol.websocket")
# The library notes every closed connection at level INFO, which says nothing that our events do not say better.
_LOGGER.setLevel(logging.WARNING)

VERSION = "13"

# The first byte of a final frame without reserved bits, and the bit of the second byte that says it is masked.
_TEXT_FRAME, _BINARY_FRAME, _MASKED = 0x81, 0x82, 0x80


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
    """One open WebSocket: bytes in, messages out. ``receive``, then ``data_to_send``.

    Nearly everything a client of ours sends is a short message in one frame that arrives in one piece. Such frames need
    no memory of what came before and are read by hand, so that a connection gets the library's parser, which takes more
    memory than everything else about an idle connection, only once something else has arrived.
    """

    __slots__ = ("_fragments", "_max_size", "_protocol", "_text")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._protocol: Protocol | None = None
        self._fragments: bytearray | None = None
        self._text = False

    def receive(self, data: bytes) -> list[str | bytes | Ending]:
        """The messages that ``data`` completes; an ``Ending`` is the last item there will ever be."""
        received: list[str | bytes | Ending] = []
        if self._protocol is None:
            start = 0
            while (found := _whole_message(data, start, self._max_size)) is not None:
                message, start = found
                received.append(message)
            if start == len(data):
                return received
            data = data[start:]
        self._parse(data, received)
        return received

    def _parse(self, data: bytes, received: list[str | bytes | Ending]) -> None:
        protocol = self._parser()
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                received.append(Ending.CLOSED)
                return
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                message = self._assemble(protocol, frame)
                if message is not None:
                    received.append(message)
                if message is Ending.FAILED:
                    return
        if protocol.parser_exc is not None:
            received.append(Ending.FAILED)

    def _parser(self) -> Protocol:
        if self._protocol is None:
            self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=self._max_size, logger=_LOGGER)
        return self._protocol

    def _assemble(self, protocol: Protocol, frame: Frame) -> str | bytes | Ending | None:
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
            protocol.fail(1007, "invalid UTF-8")
            return Ending.FAILED

    def close(self, code: int = 1000) -> None:
        """Start the closing handshake; a no-op once it has begun from either side."""
        protocol = self._parser()
        if protocol.state is State.OPEN:
            protocol.send_close(code)

    def data_to_send(self) -> bytes:
        """Bytes the protocol itself has to send: pongs and close frames."""
        return b"" if self._protocol is None else b"".join(self._protocol.data_to_send())


def _whole_message(data: bytes, start: int, max_size: int) -> tuple[str | bytes, int] | None:
    """The message that is the one frame at ``start`` (RFC 6455, section 5.2), and where the next frame begins.

    None for whatever is not a complete, final, masked text or binary frame of less than 64 KB, without reserved bits,
    within ``max_size`` and, where it is text, UTF-8: all that is the library's to read or to refuse.
    """
    if len(data) < start + 6 or data[start] not in (_TEXT_FRAME, _BINARY_FRAME):
        return None
    size, at = data[start + 1] - _MASKED, start + 2
    if size == 126:
        size, at = int.from_bytes(data[at : at + 2], "big"), at + 2
    elif not 0 <= size < 126:
        return None
    end = at + 4 + size
    if size > max_size or end > len(data):
        return None
    payload = apply_mask(data[at + 4 : end], data[at : at + 4])
    if data[start] == _BINARY_FRAME:
        return payload, end
    try:
        return payload.decode(), end
    except UnicodeDecodeError:
        return None
