"""Engine.IO packets and polling payloads.

Packet types, and the encoder of binary packets, are python-engineio's. Its decoder is not used on what clients send: it
reads a message that looks like JSON as JSON, so that ``4{"a": 1}`` would not come out as the text that was sent, and it
refuses more than sixteen packets in a payload.
"""

from __future__ import annotations

import binascii
import enum
from collections.abc import Iterable

from engineio import packet

SEPARATOR = "\x1e"
MAX_PACKETS = 1000
"""Packets in one payload that a client sends: ten times the events that a session may send in a minute.

The JavaScript client puts everything that waits into one payload, so that a page which emits a hundred events at once
sends a hundred packets. python-engineio's servers take sixteen.
"""
_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_NO_DIGITS = bytes(set(range(256)) - set(_DIGITS))
_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")

NOOP = b"6"
"""The payload that says nothing."""


class InvalidPacket(ValueError):
    """The text is no packet."""


class Kind(enum.IntEnum):
    """Packet types of Engine.IO 4."""

    OPEN = packet.OPEN
    CLOSE = packet.CLOSE
    PING = packet.PING
    PONG = packet.PONG
    MESSAGE = packet.MESSAGE
    UPGRADE = packet.UPGRADE
    NOOP = packet.NOOP


_KINDS = {str(int(kind)): kind for kind in Kind}


def encode(kind: Kind, data: str = "") -> str:
    """A text packet."""
    return f"{kind.value}{data}"


def decode(raw: str | bytes) -> tuple[Kind, str | bytes]:
    """Type and content of a packet. A binary message comes raw or, in text, as base64 behind a ``b``.

    Raises InvalidPacket.
    """
    if isinstance(raw, bytes):
        return Kind.MESSAGE, raw
    if raw.startswith("b"):
        return Kind.MESSAGE, decode_base64(raw[1:])
    kind = _KINDS.get(raw[:1])
    if kind is None:
        raise InvalidPacket("unknown packet type")
    return kind, raw[1:]


def decode_base64(text: str) -> bytes:
    """The bytes that a client has written in base64, as Node.js reads it.

    Either alphabet will do, padding may be missing, other characters such as line breaks are skipped, and whatever
    follows padding is none of it. The other characters are taken out in one go: with ``re`` a megabyte of them would
    hold the loop for forty milliseconds.
    """
    digits = text.partition("=")[0].encode("ascii", "ignore").translate(_ONE_ALPHABET, _NO_DIGITS)
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # a single digit is not a whole byte
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def encode_binary(data: bytes) -> str:
    """The text packet of a binary message."""
    return str(packet.Packet(packet.MESSAGE, data).encode(b64=True))


def size_of(item: str | bytes) -> int:
    """The bytes that a packet takes in a polling payload."""
    if isinstance(item, bytes):
        return 1 + 4 * ((len(item) + 2) // 3)
    return len(item) if item.isascii() else len(item.encode())


def join(items: Iterable[str | bytes]) -> bytes:
    """The polling payload of some packets, of which binary messages are raw."""
    return SEPARATOR.join(item if isinstance(item, str) else encode_binary(item) for item in items).encode()


def split(body: bytes) -> list[str]:
    """The packets of a polling payload, not yet decoded.

    Raises InvalidPacket where it is no UTF-8, or has more than ``MAX_PACKETS``.
    """
    if body.count(SEPARATOR.encode()) >= MAX_PACKETS:
        raise InvalidPacket("too many packets")
    try:
        return body.decode().split(SEPARATOR)
    except UnicodeDecodeError as error:
        raise InvalidPacket("no UTF-8") from error
