from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from automoderate.protocol import Peer, Request
from automoderate.protocol.websocket import (
    Ending,
    WebSocket,
    accept_value,
    binary_frame,
    text_frame,
    wants_websocket,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
Received = list[str | bytes | Ending]


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin).serialize(mask=True)


def masked(head: bytes, payload: bytes = b"") -> bytes:
    """A frame the library would not write: any first two bytes, an all-zero mask."""
    return head + b"\0\0\0\0" + payload


def receive(data: bytes, feed: object, max_size: int = 1000) -> tuple[Received, bytes]:
    wire = WebSocket(max_size)
    received: Received = []
    for piece in feed(data):  # type: ignore[operator]
        received += wire.receive(piece)
    return received, wire.data_to_send()


def close_code(sent: bytes) -> int:
    assert sent[0] == 0x88
    return int(struct.unpack("!H", sent[2:4])[0])


def test_messages_arrive_in_order_and_with_their_type(feed: object) -> None:
    received, sent = receive(frame(1, "é".encode()) + frame(2, b"\xff") + frame(1, b""), feed)
    assert received == ["é", b"\xff", ""]
    assert sent == b""


def test_fragments_are_put_together_and_pings_answered_in_between(feed: object) -> None:
    data = (
        frame(1, b"\xc3", fin=False) + frame(9, b"hi") + frame(0, b"", fin=False) + frame(10, b"") + frame(0, b"\xa9")
        + frame(2, b"a", fin=False) + frame(0, b"b")
    )  # fmt: skip
    received, sent = receive(data, feed)
    assert received == ["é", b"ab"]
    assert sent == Frame(Opcode.PONG, b"hi").serialize(mask=False)


def test_a_close_frame_is_answered_and_ends_it(feed: object) -> None:
    received, sent = receive(frame(8, b"\x03\xe9bye") + frame(1, b"late"), feed)
    assert received == [Ending.CLOSED]
    assert close_code(sent) == 1001


def test_an_empty_close_frame_is_a_close_frame(feed: object) -> None:
    received, sent = receive(frame(8, b""), feed)
    assert received == [Ending.CLOSED]
    assert sent == b"\x88\x00"


STRICTNESS = {
    "unmasked": (b"\x81\x01x", 1002),
    "reserved bit": (masked(b"\xc1\x81", b"x"), 1002),
    "unknown opcode": (masked(b"\x83\x80"), 1002),
    "long ping": (masked(b"\x89\xfe\x00\x7e", b"x" * 126), 1002),
    "fragmented ping": (masked(b"\x09\x80"), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "message inside a message": (frame(1, b"a", fin=False) + frame(1, b"b"), 1002),
    "bad utf-8": (frame(1, b"\xff"), 1007),
    "bad utf-8 in fragments": (frame(1, b"\xc3", fin=False) + frame(0, b"("), 1007),
    "one-byte close": (frame(8, b"\x03"), 1002),
    "invalid close code": (frame(8, b"\x03\xed"), 1002),
    "too large": (frame(2, b"x" * 1001), 1009),
    "too large in fragments": (frame(2, b"x" * 600, fin=False) + frame(0, b"x" * 600), 1009),
    "absurdly large": (masked(b"\x82\xff" + b"\x7f" + b"\xff" * 7), 1009),
}


@pytest.mark.parametrize("case", sorted(STRICTNESS))
def test_a_peer_that_breaks_the_protocol_is_told_and_no_longer_read(case: str, feed: object) -> None:
    data, code = STRICTNESS[case]
    received, sent = receive(frame(1, b"before") + data + frame(1, b"after"), feed)
    assert received[:2] == ["before", Ending.FAILED]
    assert set(received[2:]) <= {Ending.FAILED}
    assert close_code(sent) == code


def test_closing_says_so_once() -> None:
    wire = WebSocket(1000)
    wire.close()
    wire.close(1001)
    assert close_code(wire.data_to_send()) == 1000
    assert wire.data_to_send() == b""
    assert wire.receive(frame(8, b"\x03\xe8")) == [Ending.CLOSED]
    assert wire.data_to_send() == b""


def request(version: str = "1.1", **headers: str) -> Request:
    pairs = {"connection": "keep-alive, Upgrade", "upgrade": "WebSocket", "sec-websocket-key": KEY}
    pairs.update({name.replace("_", "-"): value for name, value in headers.items()})
    return Request("GET", "/", "/", "", tuple(pairs.items()), version, Peer("", 0), "", "http", "x")


def test_the_accept_value_is_the_one_of_the_specification() -> None:
    assert wants_websocket(request())
    assert accept_value(request()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("key", ["", "short", "c2hvcnQ=", "é" * 24, KEY + "="])
def test_a_key_is_sixteen_bytes_of_base64(key: str) -> None:
    assert accept_value(request(sec_websocket_key=key)) is None


def test_the_request_has_to_be_a_real_upgrade() -> None:
    assert not wants_websocket(request(upgrade="h2c"))
    assert accept_value(request(connection="keep-alive")) is None
    assert accept_value(request(version="1.0")) is None


@settings(print_blob=True, derandomize=True)
@given(st.lists(st.one_of(st.text(st.characters(codec="utf-8")), st.binary()), max_size=10), st.integers(0, 2**32))
def test_messages_survive_any_cutting(messages: list[str | bytes], seed: int) -> None:
    chance = random.Random(seed)
    data = b"".join(frame(1, m.encode()) if isinstance(m, str) else frame(2, m) for m in messages)
    # The whole of it at once is read by another path than its pieces.
    assert WebSocket(100_000).receive(data) == messages
    wire = WebSocket(100_000)
    received: Received = []
    while data:
        size = chance.randint(1, 20)
        received += wire.receive(data[:size])
        data = data[size:]
    assert received == messages


@settings(print_blob=True, derandomize=True)
@given(st.binary(max_size=300), st.booleans(), st.binary(max_size=20))
def test_bytes_mean_the_same_at_once_and_one_by_one(payload: bytes, text: bool, rest: bytes) -> None:
    data = frame(1 if text else 2, payload) + rest
    at_once, one_by_one = WebSocket(200), WebSocket(200)
    received = [message for byte in data for message in one_by_one.receive(bytes([byte]))]
    ended = [item for item in received if isinstance(item, Ending)]
    expected = received[: received.index(ended[0]) + 1] if ended else received
    assert at_once.receive(data) == expected
    if not ended:  # two mistakes that come together: either may be the one it is told of
        assert at_once.data_to_send() == one_by_one.data_to_send()


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_every_length_is_read_whole_and_in_pieces(size: int) -> None:
    data = frame(2, b"x" * size)
    assert WebSocket(size).receive(data) == [b"x" * size]
    for cut in (1, 2, 5, 7, len(data) - 1):
        wire = WebSocket(size)
        assert wire.receive(data[:cut]) + wire.receive(data[cut:]) == [b"x" * size]
    if size:
        assert WebSocket(size - 1).receive(data) == [Ending.FAILED]


def test_a_message_that_comes_with_the_beginning_of_another_is_handed_out_at_once() -> None:
    wire = WebSocket(1000)
    first, second = frame(1, b"first"), frame(1, b"second")
    assert wire.receive(first + second[:3]) == ["first"]
    assert wire.receive(second[3:] + first) == ["second", "first"]


@settings(print_blob=True, derandomize=True)
@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    wire = WebSocket(1000)
    wire.receive(data)
    wire.receive(data)
    wire.data_to_send()


def test_server_frames_are_complete_and_unmasked() -> None:
    assert text_frame("é") == b"\x81\x02\xc3\xa9"
    assert binary_frame(b"x" * 126) == b"\x82\x7e\x00\x7e" + b"x" * 126
