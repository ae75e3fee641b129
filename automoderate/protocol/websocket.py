"""The WebSocket protocol (RFC 6455) from the end of the opening handshake on."""

from __future__ import annotations

import logging

from attrs import frozen
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # the quicker of two
from websockets.protocol import Protocol, Side, State

MAX_FRAGMENTS = 8192
"""Frames that one message may come in. Empty ones would add nothing to its size, and cost as much as others."""
SMALL = 4096
"""Bytes of a frame that is kept until it is complete, so that it can be read by hand."""

_LOGGER = logging.getLogger("automoderate.protocol.websocket")
# The library logs every closed connection at level INFO, of which the events tell already.
_LOGGER.setLevel(logging.WARNING)

# The first byte of a final frame without reserved bits, and the bit of the second byte that says it is masked.
_TEXT_FRAME, _BINARY_FRAME, _MASKED = 0x81, 0x82, 0x80
_OPCODES = frozenset(Opcode)


@frozen
class WebSocketEnd:
    """The end of a WebSocket, as its peer has brought it about."""

    failed: bool
    """The peer broke the protocol or a limit. If not, it sent a close frame."""
    answer: bytes
    """The close frame to send, behind the answers to the messages before; empty where one was sent already."""


def text_frame(text: str) -> bytes:
    """A complete unmasked text frame, as servers send it (RFC 6455, section 5.2).

    Made by hand: the library takes ten times as long, which would be half the cost of a broadcast to a small room.
    """
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def binary_frame(data: bytes) -> bytes:
    """A complete unmasked binary frame."""
    return Frame(Opcode.BINARY, data).serialize(mask=False)


class _Parser(Protocol):
    """The library's parser, with a limit on fragments, a rule or two more, and what a WebSocket needs with it only."""

    size = missing = 0
    """Bytes of a frame of which it has the beginning, and of those the ones that are still to come."""
    skipping = False
    """That frame came behind our close frame, and means nothing."""
    fragments: bytearray | None = None
    """What has arrived of a message in fragments."""
    text = False
    """Whether that message is text."""
    _frames = 0  # of the message that is under way

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # Control frames may come amid a message (RFC 6455, section 5.4). The library takes this one for a mistake.
            self.current_size = None
        elif frame.opcode is Opcode.PING and self.state is not State.OPEN:
            return  # nothing is sent behind a close frame
        elif frame.opcode is Opcode.CONT:
            self._frames += 1
            if self._frames >= MAX_FRAGMENTS:
                self.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
                self.parser_exc = PayloadTooBig(None, self.max_message_size)
                return
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._frames = 0
        super().recv_frame(frame)


class WebSocket:
    """An open WebSocket: bytes in, messages out. Call ``receive``, then ``data_to_send``.

    Clients nearly always send short messages, each in one frame. Such frames are read by hand, as they need no memory
    of what came before. The library's parser takes more memory than everything else about an idle connection, so a
    connection gets one only when something else arrives. It is given one frame at a time.
    """

    __slots__ = ("_closed", "_max_size", "_over", "_protocol", "_to_send")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._protocol: _Parser | None = None
        self._closed = False
        self._over = False
        self._to_send = b""

    def receive(self, data: bytes, most: int) -> tuple[list[str | bytes | WebSocketEnd], int, int]:
        """The messages that the first frames of ``data`` complete, where those end, and how many they were at ``most``.

        What is behind them is to come again, with what arrives later before it. A ``WebSocketEnd`` is the last message
        there will ever be.
        """
        received: list[str | bytes | WebSocketEnd] = []
        at = frames = 0
        while frames < most and at < len(data):
            if self._over:
                at = len(data)  # nothing that comes behind the end means anything
                break
            protocol = self._protocol
            missing = 0 if protocol is None else protocol.missing
            by_hand = not self._closed and (protocol is None or (not missing and protocol.fragments is None))
            if by_hand and (found := _whole_message(data, at, self._max_size)) is not None:
                message, at = found
                received.append(message)
                frames += 1
                continue
            size = missing or _frame_size(data, at)
            if size is None:
                break
            here = min(size, len(data) - at)
            if by_hand and here < size <= SMALL and data[at] in (_TEXT_FRAME, _BINARY_FRAME):
                break
            protocol = self._parser()
            if not missing:
                protocol.skipping = self._closed and data[at] & 0x0F != Opcode.CLOSE
                protocol.size = size
            protocol.missing = size - here
            if not protocol.skipping:
                self._parse(protocol, data[at : at + here], received)
            at += here
            frames += not protocol.missing
        return received, at, frames

    def _parse(self, protocol: _Parser, data: bytes, received: list[str | bytes | WebSocketEnd]) -> None:
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                received.append(self._end(protocol, failed=False))
                return
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                try:
                    message = _assemble(protocol, frame)
                except UnicodeDecodeError:
                    protocol.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
                    received.append(self._end(protocol, failed=True))
                    return
                if message is not None:
                    received.append(message)
        if protocol.parser_exc is not None:
            received.append(self._end(protocol, failed=True))
        else:
            self._to_send += b"".join(protocol.data_to_send())

    def _end(self, protocol: _Parser, *, failed: bool) -> WebSocketEnd:
        """Take the close frame, which is the last that the library sends, out of what is to be sent."""
        self._over = True
        *pongs, answer = [b"", *filter(None, protocol.data_to_send())]
        if self._closed:
            return WebSocketEnd(failed, b"")
        self._closed = True
        self._to_send += b"".join(pongs)
        return WebSocketEnd(failed, answer)

    def _parser(self) -> _Parser:
        if self._protocol is None:
            self._protocol = _Parser(Side.SERVER, state=State.OPEN, max_size=self._max_size, logger=_LOGGER)
        return self._protocol

    def close(self, code: int) -> None:
        """Start the closing handshake, with 1005 by a close frame without a code.

        Does nothing once either side has started it.
        """
        protocol = self._parser()
        if protocol.state is State.OPEN:
            self._closed = True
            protocol.send_close(None if code == CloseCode.NO_STATUS_RCVD else code)
            self._to_send += b"".join(protocol.data_to_send())

    def forget(self) -> None:
        """Let go of what has arrived: the connection is over, and nothing is asked any more.

        The library's parser and its generator hold each other, and a part of a message, until Python looks for such
        cycles, which it does rarely while serving.
        """
        if self._protocol is not None:
            self._protocol.parser.close()
            self._protocol = None

    @property
    def held(self) -> int:
        """Bytes that have arrived of a message whose end is still to come."""
        protocol = self._protocol
        if protocol is None:
            return 0
        return len(protocol.fragments or b"") + (protocol.size - protocol.missing if protocol.missing else 0)

    def data_to_send(self) -> bytes:
        """What is to be sent now: pongs, and the close frame that ``close`` has made."""
        data, self._to_send = self._to_send, b""
        return data


def _assemble(protocol: _Parser, frame: Frame) -> str | bytes | None:
    """Collect fragments, and return the message with the last. The library has checked their order and size.

    Raises UnicodeDecodeError.
    """
    if frame.opcode is not Opcode.CONT:
        protocol.text = frame.opcode is Opcode.TEXT
        protocol.fragments = None if frame.fin else bytearray()
    data = bytes(frame.data)
    if protocol.fragments is not None:
        protocol.fragments += data
        if not frame.fin:
            return None
        data = bytes(protocol.fragments)
        protocol.fragments = None
    return data.decode() if protocol.text else data


def _frame_size(data: bytes, start: int) -> int | None:
    """The size of the frame that begins at ``start`` (RFC 6455, section 5.2); None while its header does not say."""
    if len(data) < start + 2:
        return None
    if data[start] & 0x0F not in _OPCODES or data[start + 1] < _MASKED:
        return len(data) - start  # the library refuses it by these two bytes
    size, at = data[start + 1] - _MASKED, start + 2
    if size >= 126:
        end = at + (2 if size == 126 else 8)
        if len(data) < end:
            return None
        size, at = int.from_bytes(data[at:end], "big"), end
    return at + 4 + size - start


def _whole_message(data: bytes, start: int, max_size: int) -> tuple[str | bytes, int] | None:
    """The message in the frame that begins at ``start`` (RFC 6455, section 5.2), and where the next frame begins.

    None where that is no complete, final, masked text or binary frame of less than 64 KB, without reserved bits, within
    ``max_size`` and, if it is text, in UTF-8. The library then reads or refuses it.
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
