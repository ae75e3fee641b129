"""Reading the session cookie of a Flask application: who signed in there is who connects here.

The application's own settings decide: its secret key and fallbacks, cookie name, session lifetime and session
interface. Flask-Login leaves the user's id in the session as ``_user_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadData, SignatureExpired
from werkzeug.sansio.http import parse_cookie
from werkzeug.test import create_environ

from automoderate.directory.database import storable

MAX_USER_ID_LENGTH = 100
"""Longest user id, in characters, that is looked up; the ids themselves are UUIDs of 36."""


@frozen
class SessionUser:
    """What a Cookie header says: a user's id, or why it names nobody (for the log, never for the visitor)."""

    user_id: str | None
    problem: str = ""


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

    def read(self, cookie: str | None) -> SessionUser:
        """The user whom a whole Cookie header names; whether that user exists is not asked here."""
        value = self.session_cookie(cookie)
        if not cookie or not value:
            return SessionUser(None, "no cookie")
        interface = self._app.session_interface
        if isinstance(interface, SecureCookieSessionInterface) and (
            type(interface).open_session is SecureCookieSessionInterface.open_session
        ):
            return self._read_signed(interface, value)
        environ = create_environ()
        environ["HTTP_COOKIE"] = _decoded(cookie).encode().decode("latin-1")
        with self._app.app_context():
            return _user_of(interface.open_session(self._app, self._app.request_class(environ)))

    def _read_signed(self, interface: SecureCookieSessionInterface, value: str) -> SessionUser:
        """What Flask's own ``open_session`` does, except that it says what is wrong with the cookie."""
        serializer = interface.get_signing_serializer(self._app)
        if serializer is None:
            return SessionUser(None, "the application has no secret key")
        lifetime = int(self._app.permanent_session_lifetime.total_seconds())
        try:
            return _user_of(serializer.loads(value, max_age=lifetime))
        except SignatureExpired:
            return SessionUser(None, "expired")
        except BadData:
            return SessionUser(None, "bad signature")


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
