"""How the HTTP API knows that a request which changes something comes from a page of the site."""

from __future__ import annotations

from flask import Flask
from flask_wtf.csrf import validate_csrf
from itsdangerous import BadData, URLSafeTimedSerializer

from automoderate.directory.sessions import SessionReader

_SALT = "automoderate.page"
"""What tells these signatures from others with the same key."""


def page_token(app: Flask, user_id: str) -> str:
    """A token for a page of ours beside ``app``, whose session cookies count: it is that of one user.

    It is good for as long as a session of the application may last. The token of a form would have to be kept in the
    session, and what is in there is the application's to decide.
    """
    return str(_serializer(app).dumps(user_id))


def is_genuine(app: Flask, cookie: str | None, token: str) -> bool:
    """Whether a page or the forms of a session, that of a ``Cookie`` header for ``app``, have this token."""
    return _is_of_a_page(app, cookie, token) or _is_of_a_form(app, cookie, token)


def _is_of_a_page(app: Flask, cookie: str | None, token: str) -> bool:
    try:
        named = _serializer(app).loads(token, max_age=int(app.permanent_session_lifetime.total_seconds()))
    except BadData:
        return False
    return isinstance(named, str) and named == SessionReader(app).read(cookie).user_id


def _is_of_a_form(app: Flask, cookie: str | None, token: str) -> bool:
    with app.test_request_context(environ_overrides={"HTTP_COOKIE": cookie or ""}):
        try:
            validate_csrf(token)
        except ValueError:
            return False
    return True


def _serializer(app: Flask) -> URLSafeTimedSerializer:
    assert app.secret_key, "a server without one does not start"
    return URLSafeTimedSerializer(app.secret_key, salt=_SALT)
