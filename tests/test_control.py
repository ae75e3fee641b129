"""Tokens of the command line: for how long they count, and whose they have to be."""

from __future__ import annotations

import logging
import time

import pytest
from itsdangerous import URLSafeTimedSerializer

from automoderate import control
from automoderate._logs import LINES, Sparingly
from automoderate.control import MAX_AGE
from automoderate.directory.signatures import CLOCK_LEEWAY

SECRET = "what the command line and the server know"


def refused(token: str, secret: str = SECRET) -> str | None:
    """The code of the refusal."""
    refusal = control.refusal(token, secret)
    return None if refusal is None else refusal[0]


def test_a_token_counts_with_the_same_secret(caplog: pytest.LogCaptureFixture) -> None:
    assert refused(control.sign(SECRET)) is None
    assert caplog.messages == []
    assert refused(control.sign("another")) == "invalid_token"
    assert caplog.messages == ["a command was refused: it was signed with another secret key"]


def test_who_tries_tokens_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "log", Sparingly(logging.getLogger("automoderate.control")))
    for _ in range(3 * LINES):
        refused("nonsense")
    assert len(caplog.messages) == LINES


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "\u20ac"])
def test_what_is_no_token_does_not(token: str) -> None:
    assert refused(token) == "invalid_token"


def test_a_token_that_says_something_else_does_not() -> None:
    for salt, subject in (("automoderate.control", "something else"), ("another", "access-changes")):
        assert refused(str(URLSafeTimedSerializer(SECRET, salt=salt).dumps(subject))) == "invalid_token"


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (-CLOCK_LEEWAY - 2, "wrong_time"), (-CLOCK_LEEWAY + 2, None), (0, None), (MAX_AGE - 2, None),
        (MAX_AGE + 2, "wrong_time"),
    ],
)  # fmt: skip
def test_clocks_may_differ_and_tokens_grow_old(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: int, code: str | None
) -> None:
    """``seconds`` is how long ago it was signed by the clock of the server."""
    token = control.sign(SECRET)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)
    assert refused(token) == code
    assert bool(caplog.messages) is (code is not None)
