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

__all__ = ["dump_json", "event_packet", "object_text"]

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
    """An event's data as ``dump_json`` writes it, faster. Raises TypeError or ValueError where ``dump_json`` does."""
    try:
        text = orjson.dumps(data, option=_STRICT)
    except TypeError:  # raised also for what only the slow encoder can encode, such as integers of more than 64 bits
        pass
    else:
        # orjson turns NaN into null. The slow encoder tells it from None, and raises.
        if b"null" not in text:
            return text.decode()
    try:
        return dump_json(data)
    except RecursionError:
        raise ValueError("nested too deeply, or in itself") from None


@lru_cache(maxsize=256)
def _opening(event: str) -> str:
    return f"{_HEADER}[{dump_json(event)},"


def event_packet(event: str, text: str) -> str:
    """The Engine.IO packet of a Socket.IO event in the default namespace; ``text`` is its one argument, as JSON."""
    return f"{_opening(event)}{text}]"
