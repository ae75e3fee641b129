"""Socket.IO packets, from text to values and back, and what may be in one.

The encoder is python-socketio's, around JSON that JavaScript can read. Its decoder is not used on what clients send: it
cuts off what follows a ``?`` in a namespace, takes digits of any alphabet, and lets placeholders of attachments count
from the end.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from attrs import define, field
from socketio import packet

from automoderate.protocol.broadcast import dump_json, is_nested_deeper, object_text

__all__ = [
    "ABSENT", "MAX_ATTACHMENTS", "RESERVED_EVENTS", "BrokenPacket", "Packet", "PartialPacket", "connect_packet",
    "encode_packet", "parse_packet",
]  # fmt: skip

MAX_ATTACHMENTS = 10
"""How many binary attachments a packet may have, as for the reference server."""
MAX_DEPTH = 64
"""How deep arrays and objects may be nested in a packet's data."""
MAX_VALUES = 2000
"""Values, and keys, that a packet's data may have altogether."""
SLICE = 16 * 1024
"""Characters that are looked at before it is asked whether there were too many values already."""
MAX_INTEGER = 2**53 - 1
"""The largest integer that JavaScript can tell from its neighbours."""
RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names of events that Socket.IO libraries emit themselves; a client that sends one breaks the protocol."""

_HEAD = re.compile(r"([0-6])(?:([0-9]++)-)?(?:(/[^,]*+),?)?([0-9]*+)")
_BINARY = (packet.BINARY_EVENT, packet.BINARY_ACK)


class BrokenPacket(ValueError):
    """A packet that breaks the Socket.IO protocol."""


class Absent(enum.Enum):
    """The type of ``ABSENT``."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""The data of a packet without any, which is not the same as null."""


@define(eq=False)
class Packet:
    """A packet as a client has sent it."""

    kind: int
    """Its type, of those in ``socketio.packet``."""
    namespace: str
    ack_id: int | None
    data: Any
    attachments: int
    """How many binary messages follow that belong to it."""


def parse_packet(text: str) -> Packet:
    """The packet of a text message (Socket.IO protocol 5, "Packet encoding"). Raises BrokenPacket."""
    head = _HEAD.match(text)
    if head is None:
        raise BrokenPacket("unknown packet type")
    kind, count, namespace, ack_id = int(head[1]), head[2], head[3], head[4]
    if (count is not None) != (kind in _BINARY):
        raise BrokenPacket("attachments to a packet that has none, or none to one that has")
    attachments = _small(count, MAX_ATTACHMENTS) if count else 0
    if count and not attachments:
        raise BrokenPacket("attachments to a packet that has none")
    return Packet(
        kind, namespace or "/", _small(ack_id, MAX_INTEGER) if ack_id else None, _parse(text[head.end() :]), attachments
    )


def _small(digits: str, largest: int) -> int:
    digits = digits.lstrip("0") or "0"
    if len(digits) > 16 or (value := int(digits)) > largest:
        raise BrokenPacket("number out of range")
    return value


def _parse(text: str) -> Any:
    if not text or text.isspace():  # a client's line may have an end
        return ABSENT
    if len(text) > MAX_VALUES and _too_many(text):
        raise BrokenPacket("too many values")
    try:
        data = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BrokenPacket("no JSON") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and is_nested_deeper(data, MAX_DEPTH):
        raise BrokenPacket("nested too deeply")
    return data


def _too_many(text: str) -> bool:
    """Whether there are more than ``MAX_VALUES`` in a text, told by what is between them.

    This takes less time than the decoder would, also where somebody has thought about how to make it longer.
    """
    if not _are_too_many([text]):
        return False
    # Some of what is between them may stand in strings; if those are too many to be taken out, they are too many.
    plain = text.replace("\\\\", "").replace('\\"', "") if "\\" in text else text
    return plain.count('"') > 2 * MAX_VALUES or _are_too_many(plain.split('"')[::2])


def _are_too_many(parts: Sequence[str]) -> bool:
    found = 0
    for part in parts:
        for start in range(0, len(part), SLICE):
            found += sum(map(part[start : start + SLICE].count, ",:[{"))
            if found > MAX_VALUES:
                return True
    return False


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 16 else _number(text)


def _number(text: str) -> int | float:
    """A number as JavaScript reads it: 1.0 is 1, integers beyond 2**53 are rounded, and 1e999 is infinite.

    Integers below 1e21 remain integers, as those are what JavaScript writes without an exponent.
    """
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_number, parse_int=_integer)


@define(eq=False)
class PartialPacket:
    """A packet whose attachments are still arriving."""

    packet: Packet
    size: int
    """Bytes of it so far."""
    _parts: list[bytes] = field(factory=list, init=False)

    def attach(self, data: bytes, max_size: int) -> bool:
        """Take the next attachment; True where it was the last, and the packet is complete. Raises BrokenPacket."""
        self.size += len(data)
        if self.size > max_size:
            raise BrokenPacket("attachments too large")
        self._parts.append(data)
        if len(self._parts) < self.packet.attachments:
            return False
        self.packet.data = self._fill_in(self.packet.data)
        return True

    def _fill_in(self, value: Any) -> Any:
        """A value with attachments in place of their placeholders."""
        if isinstance(value, list):
            return [self._fill_in(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get("_placeholder") is not True:
            return {key: self._fill_in(item) for key, item in value.items()}
        number = value.get("num")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self._parts):
            raise BrokenPacket("no such attachment")
        return self._parts[number]


class _Json:
    """JSON that JavaScript can read, in the form that python-socketio's packets take a codec."""

    @staticmethod
    def dumps(value: Any, separators: tuple[str, str]) -> str:
        return dump_json(value, separators)


class _OutgoingPacket(packet.Packet):  # type: ignore[misc]
    json = _Json


def encode_packet(
    kind: int, data: Any, namespace: str, ack_id: int | None = None, binary: bool | None = None
) -> list[Any]:
    """A packet's text and its attachments. Raises ValueError or TypeError for a value that JSON has no words for."""
    try:
        encoded = _OutgoingPacket(kind, data, namespace=namespace, id=ack_id, binary=binary).encode()
    except RecursionError:
        raise ValueError("nested too deeply, or in itself") from None
    return encoded if isinstance(encoded, list) else [encoded]


def connect_packet(namespace: str, sid: str) -> str:
    """The CONNECT packet that lets a client in, as ``encode_packet`` makes it.

    With the fast encoder, as every client gets one that comes back after a restart.
    """
    prefix = "" if namespace == "/" else f"{namespace},"
    return f"{packet.CONNECT}{prefix}{object_text({'sid': sid})}"
