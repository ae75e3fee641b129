"""Putting the Flask applications together: the whole dashboard, or the publishing API alone."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask, Response, request
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import HTTPException

from automoderate.dashboard import api, auth, pages
from automoderate.dashboard.services import install
from automoderate.directory.database import Database
from automoderate.realtime import Realtime

MAX_FORM_SIZE = 64 * 1024
"""Bytes of a form; a login needs a few hundred."""

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class _SessionInterface(SecureCookieSessionInterface):
    """Flask's signed session cookie, kept to encrypted connections where the person came over one."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure or super().get_cookie_secure(app)


def create_app(database: Database, realtime: Realtime, *, secret_key: str) -> Flask:
    """The dashboard with the publishing API.

    ``secret_key`` signs the session cookie that the real-time server reads as well. Nothing is written to ``database``.
    """
    app = Flask("automoderate.dashboard")
    app.session_interface = _SessionInterface()
    app.config.update(
        SECRET_KEY=secret_key,
        MAX_CONTENT_LENGTH=MAX_FORM_SIZE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a live page stays open for days
    )
    install(app, database, realtime, secret_key)
    app.register_blueprint(api.create_blueprint())
    auth.install(app)
    pages.install(app)
    app.after_request(_secure)
    return app


def create_api_app(database: Database, realtime: Realtime, *, secret_key: str) -> Flask:
    """The publishing API, health and metrics alone, to be mounted beside another application."""
    app = Flask("automoderate.dashboard", static_folder=None)
    install(app, database, realtime, secret_key)
    app.register_blueprint(api.create_blueprint())
    app.register_error_handler(HTTPException, api.http_error)
    app.after_request(_secure)
    return app


def _secure(response: Response) -> Response:
    """Headers that keep a page from running, loading or being framed by anything that is not ours."""
    connect = "connect-src 'self'"
    if _HOST.fullmatch(request.host):
        # Browsers disagree on whether 'self' covers the WebSocket of the same origin.
        connect += f" ws://{request.host} wss://{request.host}"
    headers: dict[str, Any] = {
        "Content-Security-Policy": (
            f"default-src 'self'; {connect}; object-src 'none'; base-uri 'none'; form-action 'self'; "
            "frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response
