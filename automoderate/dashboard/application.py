"""Putting the dashboard together."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Flask, request, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import generate_csrf
from itsdangerous import URLSafeTimedSerializer

from automoderate.dashboard import auth, frame, inspector, pages
from automoderate.dashboard.services import Person, Services
from automoderate.directory.database import Database
from automoderate.directory.signatures import LenientSigner
from automoderate.realtime import Realtime

MAX_FORM_SIZE = 64 * 1024
"""Bytes of a form; a login needs a few hundred."""


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
    frame.install(app, Services(database, realtime, content_url, _Dashboard()))
    auth.install(app)
    pages.install(app)
    inspector.install(app)
    return app


class _Dashboard:
    """The dashboard, as the surroundings of its own pages."""

    way_home = "Go to your projects"

    def person(self) -> Person | None:
        return auth.current_person()

    def home(self) -> str:
        return url_for("pages.projects")

    def links(self, person: Person) -> Sequence[tuple[str, str, str]]:
        links = [("Projects", self.home(), "pages.projects")]
        if person.is_admin:
            links.append(("Inspector", url_for("inspector.inspector"), "inspector.inspector"))
        return links

    def login(self, back: str | None = None) -> str:
        return url_for("auth.login", next=back)

    def logout(self) -> str:
        return url_for("auth.logout")

    def token(self, _person: Person) -> str:
        return str(generate_csrf())
