"""Cookies of a plain Flask and Flask-Login application, good and bad, and headers that are no cookies at all."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import flask
import pytest
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from automoderate.directory.sessions import SessionReader
from automoderate.directory.signatures import CLOCK_LEEWAY

MakeApp = Callable[..., flask.Flask]
Login = Callable[[flask.Flask, str], str]


def test_reads_the_user_whom_another_application_with_the_same_key_logged_in(make_app: MakeApp, login: Login) -> None:
    cookie = login(make_app(), "user-1")
    reader = SessionReader(make_app())
    assert reader.read(cookie).user_id == "user-1"
    value = reader.session_cookie(cookie)
    assert value is not None
    assert f"session={value}" in cookie


def test_says_no_cookie_without_one(make_app: MakeApp) -> None:
    reader = SessionReader(make_app())
    for cookie in (None, "", "theme=dark", "session=", "xsession=abc", "session"):
        visitor = reader.read(cookie)
        assert visitor.user_id is None
        assert visitor.problem == "no cookie"
    assert reader.session_cookie("theme=session") is None


def test_refuses_another_key(make_app: MakeApp, login: Login) -> None:
    visitor = SessionReader(make_app()).read(login(make_app("quite another secret"), "user-1"))
    assert visitor.user_id is None
    assert visitor.problem == "bad signature"


def test_refuses_every_tampered_cookie(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    cookie = login(app, "user-1")
    reader = SessionReader(app)
    start = cookie.index("session=") + len("session=")
    # The last character of a base64 group has bits that decode to nothing: all but it.
    for position in range(start, len(cookie) - 1):
        if position + 1 < len(cookie) and cookie[position + 1] == ".":
            continue
        swapped = "A" if cookie[position] != "A" else "B"
        forged = cookie[:position] + swapped + cookie[position + 1 :]
        assert reader.read(forged).user_id is None, position


def test_refuses_an_expired_session(make_app: MakeApp, login: Login) -> None:
    cookie = login(make_app(), "user-1")
    visitor = SessionReader(make_app(PERMANENT_SESSION_LIFETIME=timedelta(seconds=-1))).read(cookie)
    assert visitor.user_id is None
    assert visitor.problem == "expired"


def test_a_clock_that_is_a_little_ahead_of_ours_does_no_harm(make_app: MakeApp, login: Login) -> None:
    app, now = make_app(), int(time.time())
    for ahead in (1, CLOCK_LEEWAY - 1):
        with mock.patch.object(TimestampSigner, "get_timestamp", return_value=now + ahead):
            cookie = login(app, "user-1")
        assert SessionReader(app).read(cookie).user_id == "user-1"


def test_a_clock_that_is_wrong_is_named(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    with mock.patch.object(TimestampSigner, "get_timestamp", return_value=int(time.time()) + 3600):
        cookie = login(app, "user-1")
    visitor = SessionReader(app).read(cookie)
    assert visitor.user_id is None
    assert re.fullmatch(r"signed 3\d\d\d s in the future by the clock of this machine", visitor.problem)


def test_a_session_in_which_nobody_logged_in_names_nobody(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    visitor = SessionReader(app).read(login(app, ""))
    assert visitor.user_id is None
    assert visitor.problem == "no user in the session"


@pytest.mark.parametrize("user_id", [7, None, True, ["a"], {"a": 1}, "", "x" * 101, "a\0b", "\ud800", 1e400])
def test_an_absurd_user_id_names_nobody(make_app: MakeApp, user_id: Any) -> None:
    app = make_app()
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    visitor = SessionReader(app).read(f"session={serializer.dumps({'_user_id': user_id})}")
    assert visitor.user_id is None
    assert visitor.problem == "no user in the session"


@pytest.mark.parametrize("payload", [[], "text", None, 5, ["_user_id"], {"_user": "x"}])
def test_a_signed_cookie_that_is_no_session_names_nobody(make_app: MakeApp, payload: Any) -> None:
    app = make_app()
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    assert SessionReader(app).read(f"session={serializer.dumps(payload)}").user_id is None


def test_a_signed_cookie_that_is_no_json_names_nobody(make_app: MakeApp) -> None:
    app = make_app()
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    signed = serializer.make_signer("cookie-session").sign(b"bm8ganNvbg").decode()
    visitor = SessionReader(app).read(f"session={signed}")
    assert visitor.user_id is None
    assert visitor.problem == "bad signature"


def test_uses_the_cookie_name_of_the_application(make_app: MakeApp, login: Login) -> None:
    renamed = make_app(SESSION_COOKIE_NAME="moderation")
    cookie = login(renamed, "user-1")
    assert SessionReader(renamed).read(cookie).user_id == "user-1"
    assert SessionReader(make_app()).read(cookie).problem == "no cookie"


def test_takes_cookies_of_a_key_that_was_replaced(make_app: MakeApp, login: Login) -> None:
    cookie = login(make_app("last year's secret"), "user-1")
    fallbacks = make_app("this year's secret", SECRET_KEY_FALLBACKS=["an older one", "last year's secret"])
    assert SessionReader(fallbacks).read(cookie).user_id == "user-1"
    assert SessionReader(make_app("this year's secret")).read(cookie).problem == "bad signature"


def test_an_application_without_a_key_has_no_users(make_app: MakeApp, login: Login) -> None:
    visitor = SessionReader(make_app(None)).read(login(make_app(), "user-1"))
    assert visitor.user_id is None
    assert visitor.problem == "the application has no secret key"


class StoredSession(SecureCookieSession):
    """A session whose contents stay on the server."""

    key = ""


class StoredSessions(SessionInterface):
    """Keeps sessions in memory and only a random key in the cookie, as server-side session extensions do."""

    def __init__(self) -> None:
        self.store: dict[str, dict[str, Any]] = {}

    def open_session(self, app: flask.Flask, request: flask.Request) -> StoredSession:
        assert flask.current_app == app
        return StoredSession(self.store.get(request.cookies.get(self.get_cookie_name(app), ""), {}))

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        key = f"key-{len(self.store)}"
        self.store[key] = dict(session)
        response.set_cookie(self.get_cookie_name(app), key)


def test_asks_a_session_interface_of_the_applications_own(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    app.session_interface = StoredSessions()
    cookie = login(app, "user-1")
    assert cookie == "theme=dark; session=key-0"
    reader = SessionReader(app)
    assert reader.read(cookie).user_id == "user-1"
    assert reader.read("session=key-1").problem == "no user in the session"
    assert reader.read("session=\xff\xfe\r\n").user_id is None
    app.session_interface.store.clear()
    assert reader.read(cookie).user_id is None, "a session that was deleted there opens no live session"


class SaltedSessions(SecureCookieSessionInterface):
    """Flask's own sessions signed a little differently."""

    salt = "another salt"


def test_a_session_interface_derived_from_flasks_own_still_tells_what_is_wrong(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    app.session_interface = SaltedSessions()
    reader = SessionReader(app)
    assert reader.read(login(app, "user-1")).user_id == "user-1"
    assert reader.read(login(make_app(), "user-1")).problem == "bad signature"


class NoSessions(SessionInterface):
    """Has no session for anybody, as Flask's own where there is no secret."""

    def open_session(self, _app: flask.Flask, _request: flask.Request) -> None:
        return None


def test_a_session_interface_may_have_no_session(make_app: MakeApp) -> None:
    app = make_app()
    app.session_interface = NoSessions()
    assert SessionReader(app).read("session=x").problem == "no user in the session"


def test_the_first_of_two_session_cookies_counts_as_it_does_for_flask(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    first, second = (login(app, user).removeprefix("theme=dark; ") for user in ("user-1", "user-2"))
    assert SessionReader(app).read(f"{first}; {second}").user_id == "user-1"


def test_no_cookie_header_is_too_malformed(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    reader = SessionReader(app)
    good = login(app, "user-1")
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    pieces = [
        "session",
        "=",
        ";",
        '"',
        "\\",
        "\0",
        "\xff",
        "\u20ac",
        "\ud800",
        " ",
        ",",
        "\r\n",
        ".",
        good,
        "\\377",
        "é",
    ]
    for _ in range(2000):
        header = "".join(chance.choices(pieces, k=chance.randrange(12)))
        reader.session_cookie(header)
        reader.read(header)
    assert reader.read(f"\xff\xfe=\xff; ;;=;{good}").user_id == "user-1"


def test_reads_what_itsdangerous_signs_with_flasks_settings(make_app: MakeApp) -> None:
    """Pins the format, so that cookies made before an upgrade of Flask stay valid after it."""
    signer = URLSafeTimedSerializer(
        "a secret that both applications know", salt="cookie-session", signer_kwargs={"key_derivation": "hmac"}
    )
    assert SessionReader(make_app()).read(f"session={signer.dumps({'_user_id': 'user-1'})}").user_id == "user-1"
