from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoderate.protocol.engineio_payload import InvalidPacket, Kind, decode, encode, join, size_of, split

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OTHER_ALPHABET = str.maketrans("-_", "+/")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x1e"))


@pytest.mark.parametrize("kind", list(Kind))
def test_a_packet_is_its_type_and_its_text(kind: Kind) -> None:
    assert encode(kind, "x") == f"{int(kind)}x"
    assert decode(encode(kind, "x")) == (kind, "x")


@pytest.mark.parametrize("text", ['{"a": 1}', "true", "0", "", "[1", "é"])
def test_text_comes_out_as_it_was_sent(text: str) -> None:
    assert decode(f"4{text}") == (Kind.MESSAGE, text)


@pytest.mark.parametrize("raw", ["", "7", "9x", "abc", "٤x", "²"])
def test_other_text_is_no_packet(raw: str) -> None:
    with pytest.raises(InvalidPacket):
        decode(raw)


def test_binary_comes_raw_or_as_base64() -> None:
    assert decode(b"\x01\x02") == (Kind.MESSAGE, b"\x01\x02")
    assert decode("bAQI=") == (Kind.MESSAGE, b"\x01\x02")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("AQIDBA==\n", b"\1\2\3\4"), ("AQID\r\nBA==", b"\1\2\3\4"), ("AQIDBA", b"\1\2\3\4"), ("AQIDBA=", b"\1\2\3\4"),
        ("AQ-_", b"\1\x0f\xbf"), ("AQ+/", b"\1\x0f\xbf"), ("AQ==AQ==", b"\1"), (" AQ==", b"\1"), ("!A.Q\xe9", b"\1"),
        ("A", b""), ("AQIDB", b"\1\2\3"), ("", b""), ("=", b""), ("!", b""),
    ],
)  # fmt: skip
def test_base64_is_taken_in_every_spelling_that_node_takes(text: str, data: bytes) -> None:
    assert decode(f"b{text}") == (Kind.MESSAGE, data)


@settings(print_blob=True, derandomize=True)
@given(st.text(st.sampled_from("AQz09+/-_=\n !\x00\xe9\u0661\U0001f600"), max_size=30))
def test_base64_has_the_digits_that_it_has_and_nothing_else_counts(text: str) -> None:
    digits = [_DIGITS.index(digit) for digit in text.partition("=")[0].translate(_OTHER_ALPHABET) if digit in _DIGITS]
    bits = "".join(f"{digit:06b}" for digit in digits)
    assert decode(f"b{text}")[1] == bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


def test_a_payload_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(InvalidPacket):
        split(b"4\xff")


@settings(print_blob=True, derandomize=True)
@given(st.lists(st.one_of(TEXT.map(lambda text: f"4{text}"), st.binary()), min_size=1, max_size=40))
def test_payloads_survive_the_way_there_and_back(items: list[str | bytes]) -> None:
    body = join(items)
    assert len(body) == sum(size_of(item) for item in items) + len(items) - 1
    decoded = [decode(raw)[1] for raw in split(body)]
    assert decoded == [item if isinstance(item, bytes) else item[1:] for item in items]
