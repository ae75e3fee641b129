"""Engine.IO packets and polling payloads.

Base64 and the packet types are python-engineio's. Its decoder is not used on what peers send: it reads every message
that looks like JSON as JSON, so that ``4{"a": 1}`` would not come out as the text that was sent, refuses more than
sixteen packets a payload, and skips what is not base64 in binary packets.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Iterable

from engineio import packet

SEPARATOR = "\x1e"


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
    """Type and content of one packet; a binary message may come raw or, in text, as base64 after a ``b``.

    Raises InvalidPacket.
    """
    if isinstance(raw, bytes):
        return Kind.MESSAGE, raw
    if raw.startswith("b"):
        try:
            return Kind.MESSAGE, base64.b64decode(raw[1:].encode(), validate=True)
        except binascii.Error as error:
            raise InvalidPacket("no base64") from error
    kind = _KINDS.get(raw[:1])
    if kind is None:
        raise InvalidPacket("unknown packet type")
    return kind, raw[1:]


def size_of(item: str | bytes) -> int:
    """Bytes a packet takes in a polling payload."""
    if isinstance(item, bytes):
        return 1 + 4 * ((len(item) + 2) // 3)
    return len(item) if item.isascii() else len(item.encode())


def join(items: Iterable[str | bytes]) -> bytes:
    """A polling payload of text packets and raw binary messages."""
    return SEPARATOR.join(
        item if isinstance(item, str) else str(packet.Packet(packet.MESSAGE, item).encode(b64=True)) for item in items
    ).encode()


def split(body: bytes) -> list[str]:
    """The packets of a polling payload, not yet decoded. Raises InvalidPacket where it is no UTF-8."""
    try:
        return body.decode().split(SEPARATOR)
    except UnicodeDecodeError as error:
        raise InvalidPacket("no UTF-8") from error
