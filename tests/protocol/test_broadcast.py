"""The fast encoding of a broadcast means what the codecs make of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from engineio import packet as engine_packet
from hypothesis import given
from hypothesis import strategies as st
from socketio import packet as socket_packet
from websockets.frames import Frame, Opcode

from automoderate.core.hub import stamped
from automoderate.protocol.broadcast import MAX_DEPTH, event_packet, object_text
from automoderate.protocol.websocket import text_frame

TEXT = st.text(st.characters())  # surrogates among them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=6)


def codec_packet(event: str, data: Mapping[str, Any]) -> str:
    """What python-socketio and python-engineio make of an event."""
    message = socket_packet.Packet(socket_packet.EVENT, [event, data], namespace="/").encode()
    return str(engine_packet.Packet(engine_packet.MESSAGE, message).encode())


def meaning(packet: str) -> Any:
    assert packet.startswith("42")
    return json.loads(packet[2:])


@given(TEXT, OBJECTS)
def test_a_packet_means_what_the_codec_says(event: str, data: dict[str, Any]) -> None:
    packet = event_packet(event, object_text(data))
    assert meaning(packet) == meaning(codec_packet(event, data)) == [event, data]
    packet.encode()  # whatever the codec leaves of half a surrogate pair, this can be sent


@given(OBJECTS.filter(lambda data: "event_id" not in data))
def test_an_event_id_is_added_to_what_was_there(data: dict[str, Any]) -> None:
    text = stamped(object_text(data), "12-3")
    assert json.loads(text) == {**data, "event_id": "12-3"}
    assert list(json.loads(text)) == [*data, "event_id"]


@given(TEXT.filter(lambda text: text.isascii()) | st.integers(0, 70_000).map(lambda size: "x" * size))
def test_a_frame_is_the_librarys_letter_for_letter(text: str) -> None:
    assert text_frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


@pytest.mark.parametrize("size", [0, 125, 126, 127, 65535, 65536, 65537])
def test_frames_at_the_borders_of_the_length_field(size: int) -> None:
    assert text_frame("x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)


@pytest.mark.parametrize(
    "value", [2**64, -(2**63) - 1, 1e308, -0.0, None, "null", {"1": None}, "\u2028\0\x7f", "\ud800", {1: "one"}]
)
def test_what_the_fast_encoder_would_not_say_the_same_way(value: Any) -> None:
    said = json.loads(object_text({"value": value}))["value"]
    assert said == json.loads(json.dumps(value))
    if value == 0.0:
        assert math.copysign(1, said) == -1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"deep": [math.nan]}, [None, math.nan]])
def test_numbers_that_are_no_json_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        object_text({"value": value})


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        object_text({"value": value})


def test_data_nested_in_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["itself"] = data
    with pytest.raises(ValueError, match=r"nested|Circular"):
        object_text(data)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        object_text({"deep": deep})


@pytest.mark.parametrize("beside", [1, 2**70, None], ids=["as the fast encoder", "as the slow one", "as both"])
@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH])
def test_nothing_is_sent_that_is_nested_deeper_than_every_reader_goes(beside: Any, depth: int) -> None:
    inner: Any = 1
    for number in range(depth):
        inner = [inner] if number % 2 else {"in": inner}
    data = {"beside": beside, "deep": inner}
    if depth < MAX_DEPTH:
        assert json.loads(object_text(data)) == data
    else:
        with pytest.raises(ValueError, match="nested too deeply"):
            object_text(data)
