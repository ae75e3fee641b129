from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from automoderate.protocol import Peer, Request
from automoderate.protocol.handshake import accept_value, wants_websocket
from automoderate.protocol.websocket import WebSocket, WebSocketEnd, binary_frame, text_frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
Received = list[str | bytes | WebSocketEnd]


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin).serialize(mask=True)


def masked(head: bytes, payload: bytes = b"") -> bytes:
    """A frame the library would not write: any first two bytes, an all-zero mask."""
    return head + b"\0\0\0\0" + payload


class Reader:
    """A WebSocket whose owner keeps what it leaves unread."""

    def __init__(self, max_size: int, most: int = 3) -> None:
        self.wire = WebSocket(max_size)
        self.most = most
        self.unread = b""

    def receive(self, data: bytes) -> Received:
        received: Received = []
        self.unread, end = self.unread + data, 1
        while end:
            messages, end, frames = self.wire.receive(self.unread, self.most)
            assert len([item for item in messages if not isinstance(item, WebSocketEnd)]) <= frames <= self.most
            received += messages
            self.unread = self.unread[end:]
        return received


def receive(data: bytes, feed: object, max_size: int = 1000) -> tuple[Received, bytes]:
    reader = Reader(max_size)
    received = [item for piece in feed(data) for item in reader.receive(piece)]  # type: ignore[operator]
    return received, reader.wire.data_to_send()


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
    (end,) = received
    assert isinstance(end, WebSocketEnd)
    assert not end.failed
    assert close_code(end.answer) == 1001
    assert sent == b""


def test_an_empty_close_frame_is_a_close_frame(feed: object) -> None:
    received, sent = receive(frame(8, b""), feed)
    assert received == [WebSocketEnd(False, b"\x88\x00")]
    assert sent == b""


def test_a_close_frame_may_come_amid_a_message_and_behind_a_ping(feed: object) -> None:
    data = frame(1, b"begun", fin=False) + frame(9, b"hi") + frame(8, b"\x03\xe8") + frame(9, b"late") + frame(0, b".")
    received, sent = receive(data, feed)
    assert received == [WebSocketEnd(False, Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False))]
    assert sent == Frame(Opcode.PONG, b"hi").serialize(mask=False)


@pytest.mark.parametrize("fragments", [8191, 8192, 8193])
def test_fragments_are_bounded(feed: object, fragments: int) -> None:
    data = frame(1, b"", fin=False) + frame(0, b"", fin=False) * (fragments - 2) + frame(0, b"")
    received, _ = receive(data, feed)
    if fragments > 8192:
        (end,) = received
        assert isinstance(end, WebSocketEnd)
        assert close_code(end.answer) == 1009
    else:
        assert received == [""]


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
    before, *ends = received
    assert before == "before"
    assert all(isinstance(end, WebSocketEnd) and end.failed for end in ends)
    assert [close_code(end.answer) for end in ends if isinstance(end, WebSocketEnd) and end.answer] == [code]
    assert sent == b""


def test_closing_says_so_once() -> None:
    wire = WebSocket(1000)
    wire.close(1000)
    wire.close(1001)
    assert close_code(wire.data_to_send()) == 1000
    assert wire.data_to_send() == b""
    received, _, _ = wire.receive(frame(9, b"ping") + frame(8, b"\x03\xe8"), 3)
    assert received == [WebSocketEnd(False, b"")]
    assert wire.data_to_send() == b""


def test_a_close_frame_may_have_no_code() -> None:
    wire = WebSocket(1000)
    wire.close(1005)
    assert wire.data_to_send() == b"\x88\0"


def test_a_ping_that_our_close_frame_overtakes_is_not_answered() -> None:
    reader, ping = Reader(1000), frame(9, b"hi")
    assert reader.receive(ping[:4]) == []
    reader.wire.close(1000)
    assert close_code(reader.wire.data_to_send()) == 1000
    assert reader.receive(ping[4:]) == []
    assert reader.wire.data_to_send() == b""


@pytest.mark.parametrize("begun", [b"", frame(2, b"x" * 5000)[:4999]])
def test_what_comes_behind_our_close_frame_is_skipped_up_to_the_peers(feed: object, begun: bytes) -> None:
    reader = Reader(10_000)
    assert reader.receive(begun) == []
    reader.wire.close(1000)
    reader.wire.data_to_send()
    rest = frame(2, b"x" * 5000)[4999:] if begun else b""
    late = frame(1, b"\xff") + frame(9, b"late") + frame(0, b"y" * 5000) + frame(1, b"late", fin=False)
    data = rest + late + frame(8, b"\x03\xe8") + frame(1, b"later")
    received = [item for piece in feed(data) for item in reader.receive(piece)]  # type: ignore[operator]
    # Of what came before the close frame, which may be the beginning of a message, nothing is lost.
    assert received[-1] == WebSocketEnd(False, b"")
    assert len(received) == (2 if begun else 1)
    assert reader.wire.data_to_send() == b""


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
    assert Reader(100_000, 1000).receive(data) == messages
    wire = Reader(100_000)
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
    at_once, one_by_one = Reader(200), Reader(200)
    received = [message for byte in data for message in one_by_one.receive(bytes([byte]))]
    ended = [item for item in received if isinstance(item, WebSocketEnd)]
    expected = received[: received.index(ended[0]) + 1] if ended else received
    at_once_received = at_once.receive(data)
    if ended:  # two mistakes that come together: either may be the one it is told of
        assert at_once_received[:-1] == expected[:-1]
        assert isinstance(at_once_received[-1], WebSocketEnd)
    else:
        assert at_once_received == expected
    assert at_once.wire.data_to_send() == one_by_one.wire.data_to_send()


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_every_length_is_read_whole_and_in_pieces(size: int) -> None:
    data = frame(2, b"x" * size)
    assert Reader(size).receive(data) == [b"x" * size]
    for cut in (1, 2, 5, 7, len(data) - 1):
        wire = Reader(size)
        assert wire.receive(data[:cut]) + wire.receive(data[cut:]) == [b"x" * size]
    if size:
        (end,) = Reader(size - 1).receive(data)
        assert isinstance(end, WebSocketEnd)
        assert end.failed


def test_a_message_that_comes_with_the_beginning_of_another_is_handed_out_at_once() -> None:
    wire = Reader(1000)
    first, second = frame(1, b"first"), frame(1, b"second")
    assert wire.receive(first + second[:3]) == ["first"]
    assert wire.receive(second[3:] + first) == ["second", "first"]


@settings(print_blob=True, derandomize=True)
@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    reader = Reader(1000)
    reader.receive(data)
    reader.receive(data)
    reader.wire.data_to_send()


def test_frames_are_handed_out_as_many_as_are_asked_for() -> None:
    wire = WebSocket(1000)
    six = b"".join(frame(1, str(number).encode()) for number in range(3)) + frame(9, b"") * 3
    received, end, frames = wire.receive(six, 2)
    assert (received, end, frames) == (["0", "1"], 2 * len(frame(1, b"0")), 2)
    received, end, frames = wire.receive(six[end:], 3)
    assert (received, frames) == (["2"], 3)
    assert wire.data_to_send() == b"\x8a\x00" * 2


@pytest.mark.parametrize("size", [1, 4000, 5000])
def test_a_frame_that_is_cut_is_left_unread_where_it_is_small(size: int) -> None:
    data = frame(2, b"x" * size)
    received, end, frames = WebSocket(10_000).receive(data[:-1], 3)
    assert (received, end, frames) == ([], 0 if size < 4096 else len(data) - 1, 0)


@pytest.mark.parametrize("header", [b"\x89", b"\x81\xfe", b"\x02\xff\0\0\0\0\0\0\0"])
def test_a_header_that_is_cut_is_left_unread(header: bytes) -> None:
    assert WebSocket(1000).receive(header, 3) == ([], 0, 0)


def test_server_frames_are_complete_and_unmasked() -> None:
    assert text_frame("é") == b"\x81\x02\xc3\xa9"
    assert binary_frame(b"x" * 126) == b"\x82\x7e\x00\x7e" + b"x" * 126
