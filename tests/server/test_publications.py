"""A body that is published is read as the standard library reads JSON, whichever parser does it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automoderate.server.publications import json_object
from automoderate.server.requests import HttpError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def said(body: bytes) -> Any:
    """The object, or the code of the error."""
    try:
        return json_object(body)
    except HttpError as error:
        return error.code


@given(VALUES, st.booleans())
def test_any_value_is_read_as_it_was_written(value: Any, escaped: bool) -> None:
    body = json.dumps({"value": value}, ensure_ascii=escaped).encode()
    assert repr(said(body)) == repr(json.loads(body))


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551615", "18446744073709551616", "-9223372036854775809", "1" * 400, "-0", "-0.0", "1E5",
        "1e-400", "4.9e-324", "1234567890123456789012.5", '"\\ud83d\\ude00"', '"\\/"', "[[[[]]]]",
    ],
)  # fmt: skip
def test_numbers_and_escapes_mean_what_they_mean_to_the_standard_library(text: str) -> None:
    body = f' {{"value": {text}}}\n'.encode()
    assert repr(said(body)) == repr(json.loads(body))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_are_read(encoding: str) -> None:
    assert said('{"value": "é"}'.encode(encoding)) == {"value": "é"}


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "01", "1.", "[1,]", "'a'", '"\t"', "{1: 2}", "[" * 2000 + "]" * 2000]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    assert said(f'{{"value": {text}}}'.encode()) == "invalid_json"
    assert said(b'{"value": "\xff"}') == "invalid_json"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32-be"])
def test_half_a_surrogate_pair_is_text_in_no_encoding(encoding: str) -> None:
    assert said('{"value": "\ud800"}'.encode(encoding, "surrogatepass")) == "invalid_json"
