"""Putting the Flask application together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, request
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer

from automoderate.dashboard import auth, inspector, pages, problems
from automoderate.dashboard.services import install
from automoderate.directory.database import Database
from automoderate.directory.signatures import LenientSigner
from automoderate.realtime import Realtime

MAX_FORM_SIZE = 64 * 1024
"""Bytes of a form; a login needs a few hundred."""

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class _SessionInterface(SecureCookieSessionInterface):
    """Flask's signed session cookie, kept to encrypted connections where the person came over one.

    Another node may have signed it, whose clock need not be ours.
    """

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        serializer = super().get_signing_serializer(app)
        if serializer is not None:
            serializer.signer = LenientSigner
        return serializer

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure or super().get_cookie_secure(app)


def create_app(
    database: Database,
    realtime: Realtime,
    *,
    secret_key: str,
    secret_key_fallbacks: Sequence[str] = (),
    session_cookie_name: str = "session",
    content_url: str | None = None,
) -> Flask:
    """The dashboard.

    ``secret_key`` signs the session cookie that the real-time server reads as well; what ``secret_key_fallbacks`` have
    signed is still good. ``content_url`` is the address of the page of one content, with ``{content_id}`` and, where it
    is needed, ``{project_id}`` in it: rows of the live page lead there. Nothing is written to ``database``.
    """
    app = Flask("automoderate.dashboard")
    app.session_interface = _SessionInterface()
    app.config.update(
        SECRET_KEY=secret_key,
        SECRET_KEY_FALLBACKS=list(secret_key_fallbacks),
        SESSION_COOKIE_NAME=session_cookie_name,
        MAX_CONTENT_LENGTH=MAX_FORM_SIZE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a live page stays open for days
    )
    install(app, database, realtime, content_url)
    auth.install(app)
    pages.install(app)
    problems.install(app)
    inspector.install(app)
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
