"""Encoding for the fan-out path: an event's data becomes JSON where it is published, and a packet by concatenation.

The packet means the same as the one python-socketio's encoder would make. That encoder takes ten times as long, which
would be most of the cost of a broadcast to a small room. A value that orjson treats otherwise than the standard library
does is encoded by the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from socketio import packet

from automoderate.protocol.engineio_payload import Kind

__all__ = ["MAX_DEPTH", "dump_json", "event_packet", "is_nested_deeper", "object_text"]

MAX_DEPTH = 254
"""How deep arrays and objects may be nested in an event's data: as deep as orjson writes them.

The standard library reads and writes more, or less, by how much of the stack is in use: what one part of the server
has taken the next could not read.
"""

_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_HEADER = f"{int(Kind.MESSAGE)}{packet.EVENT}"


def dump_json(value: Any, separators: tuple[str, str] = (",", ":")) -> str:
    """A value as JSON that JavaScript can read, without spaces.

    Raises TypeError or ValueError for a value that JSON has no words for, such as NaN or an infinity.
    """
    text = json.dumps(value, separators=separators, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which a client can send as an escape
        return json.dumps(value, separators=separators, allow_nan=False)
    return text


def object_text(data: Mapping[str, Any]) -> str:
    """An event's data as ``dump_json`` writes it, faster.

    Raises TypeError or ValueError where ``dump_json`` does, and for what is nested deeper than ``MAX_DEPTH``.
    """
    may_be_deep = False
    try:
        text = orjson.dumps(data, option=_STRICT)
    except TypeError:  # raised also for what only the slow encoder can encode, such as integers of more than 64 bits
        may_be_deep = True
    else:
        # orjson turns NaN into null. The slow encoder tells it from None, and raises.
        if b"null" not in text:
            return text.decode()
    try:
        slowly = dump_json(data)
    except RecursionError:
        raise ValueError("nested too deeply, or in itself") from None
    if may_be_deep and is_nested_deeper(data, MAX_DEPTH):
        raise ValueError("nested too deeply")
    return slowly


def is_nested_deeper(value: Any, most: int) -> bool:
    """Whether arrays and objects are nested beyond ``most``. Without recursion, which has a limit of its own.

    ``value`` is not nested in itself.
    """
    level = [value]
    for _ in range(most):
        nested = [item for item in level if isinstance(item, (dict, list, tuple))]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return any(isinstance(item, (dict, list, tuple)) for item in level)


@lru_cache(maxsize=256)
def _opening(event: str) -> str:
    return f"{_HEADER}[{dump_json(event)},"


def event_packet(event: str, text: str) -> str:
    """The Engine.IO packet of a Socket.IO event in the default namespace; ``text`` is its one argument, as JSON."""
    return f"{_opening(event)}{text}]"
