"""Reading the session cookie of a Flask application: who signed in there is who connects here.

The application's own settings decide: its secret key and fallbacks, cookie name, session lifetime and session
interface. Flask-Login leaves the user's id in the session as ``_user_id``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha512
from typing import Any, Protocol

from attrs import frozen
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.sansio.http import parse_cookie
from werkzeug.test import create_environ

from automoderate.directory.database import storable
from automoderate.directory.signatures import WrongTime, load_signed

MAX_USER_ID_LENGTH = 100
"""Longest user id, in characters, that is looked up; the ids themselves are UUIDs of 36."""


@frozen
class SessionUser:
    """What a Cookie header says: a user's id, or why it names no user (for the log, never for the visitor)."""

    user_id: str | None
    problem: str = ""


class Sender(Protocol):
    """Who sent a request: as much of it as Flask-Login knows a browser by."""

    @property
    def client_address(self) -> str:
        """Where the request comes from."""

    def header(self, name: str, /) -> str | None:
        """The value of a header, in lower case; None where it is absent."""


@frozen
class _Signatures:
    """How the application signs its sessions: looked up once for all that are read together."""

    serializer: URLSafeTimedSerializer | None
    """None where it has no secret key."""
    lifetime: int
    """Seconds."""


class SessionReader:
    """Reads the sessions of ``app``, any Flask application, without calling the application.

    No method raises for what a visitor sends; a session interface of the application's own may raise for reasons of
    its own, such as a session store that is away.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def session_cookie(self, cookie: str | None) -> str | None:
        """The value of the session cookie in a whole Cookie header; None where it is absent. Parses text, no more."""
        name = self._app.session_interface.get_cookie_name(self._app)
        # The header of most requests without a session is settled by this look.
        if not cookie or name not in cookie:
            return None
        return parse_cookie(_decoded(cookie)).get(name)

    def identification(self, request: Sender) -> str | None:
        """What ``read`` has to know of a request: its Cookie header, most often.

        Where Flask-Login protects the application's sessions strongly, the browser stands behind a line break, as it
        is known to Flask-Login. No header can have a line break.
        """
        cookie = request.header("cookie")
        if cookie is None or not self._protected():
            return cookie
        return f"{cookie}\n{_browser(request)}"

    def read(self, identification: str | None) -> SessionUser:
        """The user whom a whole Cookie header names; whether that user exists is not asked here."""
        return self._read(identification, self._signatures)

    def read_many(self, identifications: Sequence[str | None]) -> list[SessionUser | Exception]:
        """``read`` of many; an exception where a session interface of the application's own has raised it."""
        signatures = cache(self._signatures)
        found: list[SessionUser | Exception] = []
        for identification in identifications:
            try:
                found.append(self._read(identification, signatures))
            except Exception as error:  # such an interface may do anything
                found.append(error)
        return found

    def _read(self, identification: str | None, looked_up: Callable[[], _Signatures | None]) -> SessionUser:
        cookie, _, browser = (identification or "").partition("\n")
        value = self.session_cookie(cookie)
        if not value:
            return SessionUser(None, "no cookie")
        signatures = looked_up()
        session = self._open(cookie) if signatures is None else _open_signed(signatures, value)
        if isinstance(session, SessionUser):
            return session
        if browser and _made_for_another(session, browser):
            return SessionUser(None, "the session was made for another address or browser")
        return _user_of(session)

    def _protected(self) -> bool:
        manager = getattr(self._app, "login_manager", None)
        mode = self._app.config.get("SESSION_PROTECTION", getattr(manager, "session_protection", None))
        return manager is not None and mode == "strong"

    def _signatures(self) -> _Signatures | None:
        """None where the sessions are not Flask's own, or are opened in another way."""
        interface = self._app.session_interface
        if not isinstance(interface, SecureCookieSessionInterface) or (
            type(interface).open_session is not SecureCookieSessionInterface.open_session
        ):
            return None
        lifetime = int(self._app.permanent_session_lifetime.total_seconds())
        return _Signatures(interface.get_signing_serializer(self._app), lifetime)

    def _open(self, cookie: str) -> Any:
        """The session that an interface of the application's own finds for a cookie."""
        environ = create_environ()
        environ["HTTP_COOKIE"] = _decoded(cookie).encode().decode("latin-1")
        with self._app.app_context():
            return self._app.session_interface.open_session(self._app, self._app.request_class(environ))


def _open_signed(signatures: _Signatures, value: str) -> Any:
    """The session of a cookie, as Flask's own ``open_session`` opens it, or why it names no user."""
    if signatures.serializer is None:
        return SessionUser(None, "the application has no secret key")
    try:
        return load_signed(signatures.serializer, value, signatures.lifetime)
    except WrongTime as error:
        return SessionUser(None, "expired" if error.age >= 0 else f"{error} by the clock of this machine")
    except BadData:
        return SessionUser(None, "bad signature")


def _browser(request: Sender) -> str:
    """The sender of a request as Flask-Login knows it, who leaves this in the session as ``_id``."""
    forwarded = request.header("x-forwarded-for")
    address = (request.client_address if forwarded is None else forwarded).encode().split(b",")[0].strip()
    agent = request.header("user-agent")
    return sha512(f"{address!r}|{None if agent is None else agent.encode()!r}".encode()).hexdigest()


def _made_for_another(session: Any, browser: str) -> bool:
    """Whether Flask-Login's strong protection refuses the session, which it does unless that is permanent."""
    if not session or not isinstance(session, Mapping):
        return False
    return not session.get("_permanent") and session.get("_id") != browser


def _user_of(session: Any) -> SessionUser:
    user_id = session.get("_user_id") if isinstance(session, Mapping) else None
    if not isinstance(user_id, str) or not 0 < len(user_id) <= MAX_USER_ID_LENGTH or not storable(user_id):
        return SessionUser(None, "no user in the session")
    return SessionUser(user_id)


def _decoded(cookie: str) -> str:
    """The header's text, its bytes having arrived as Latin-1 the way HTTP headers do; malformed UTF-8 is replaced."""
    if cookie.isascii():
        return cookie
    return cookie.encode("latin-1", "replace").decode("utf-8", "replace")
