"""Every way in which a session cookie may be none, through the whole server in memory, with real signatures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner

from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database
from automoderate.directory.sessions import SessionReader
from automoderate.testing import Simulation, TransportName

SECRET = "what the web application signs with"
LIFETIME = 3600


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'people.sqlite3'}")
    database.create_all()
    yield database
    database.close()


@pytest.fixture
def user_id(database: Database) -> str:
    return accounts.create_user(database, username="ann", email="ann@example.org", password="correct horse").id


def application(secret: str) -> Flask:
    """A web application with sessions of an hour."""
    app = Flask(__name__)
    app.secret_key = secret
    app.permanent_session_lifetime = timedelta(seconds=LIFETIME)
    return app


def cookie(user_id: str, secret: str = SECRET) -> str:
    """The session of somebody who is logged in, signed."""
    serializer = SecureCookieSessionInterface().get_signing_serializer(application(secret))
    assert serializer is not None
    return f"session={serializer.dumps({'_user_id': user_id})}"


def expired(user_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A session that was signed longer ago than sessions live."""
    with monkeypatch.context() as long_ago:
        signed_at = TimestampSigner("any").get_timestamp() - LIFETIME - 60
        long_ago.setattr(TimestampSigner, "get_timestamp", lambda _: signed_at)
        return cookie(user_id)


def tampered(cookie: str) -> str:
    """Another payload under the same signature."""
    return cookie.replace("session=", "session=A", 1)


Connect = Callable[[str | None], list[object]]


@pytest.fixture(params=["websocket", "polling", "upgrade"])
def first_words(request: pytest.FixtureRequest, database: Database) -> Connect:
    """What a client with a cookie is told first, and whether it is still there after the grace."""
    transport: TransportName = request.param
    simulation = Simulation(directory=SQLDirectory(database, SessionReader(application(SECRET))))

    def connect(cookie: str | None) -> list[object]:
        client = simulation.connect(transport=transport, headers={} if cookie is None else {"Cookie": cookie})
        simulation.advance(1.5)
        return [*((item.event, item.data["message"]) for item in client.received), client.ended]

    return connect


WELCOME = [("connected", "Connected to AutoModerate"), None]
NOBODY = [("error", "Authentication required"), "io server disconnect"]


def test_a_good_cookie(first_words: Connect, user_id: str) -> None:
    assert first_words(cookie(user_id)) == WELCOME
    assert first_words(f"theme=dark; {cookie(user_id)}; lang=en") == WELCOME


def test_no_good_cookie(
    first_words: Connect,
    user_id: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = accounts.create_user(database, username="bob", email="bob@example.org", password="correct horse").id
    accounts.set_active(database, other, False)
    cases = {
        "no cookie": None,
        "bad signature": cookie(user_id, "another secret"),
        "bad signature ": tampered(cookie(user_id)),
        "expired": expired(user_id, monkeypatch),
        "unknown user": cookie("nobody-of-that-id"),
        "inactive user": cookie(other),
    }
    for reason, value in cases.items():
        caplog.clear()
        with caplog.at_level(logging.INFO, "automoderate.directory"):
            assert first_words(value) == NOBODY, reason
        assert reason.strip() in caplog.text
        assert value is None or value.removeprefix("session=") not in caplog.text
