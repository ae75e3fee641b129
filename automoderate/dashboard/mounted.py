"""The inspector where another application is mounted: a page of ours beside the application's own.

Who is logged in is found as the HTTP API finds it, in the application's session, which is read and never written: what
the application answers, and what is in its cookies, stays its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flask_login
from attrs import frozen
from flask import Flask, Request, g, request, url_for
from flask.sessions import SessionInterface
from werkzeug.routing import BuildError

from automoderate.dashboard import frame, inspector
from automoderate.dashboard.services import Person, Services, load_person
from automoderate.dashboard.tokens import page_token
from automoderate.directory.database import Database
from automoderate.directory.sessions import SessionReader
from automoderate.realtime import Realtime

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@frozen
class Beside:
    """``ours`` below a path, and everywhere else the ``application``, which gets its requests as they come."""

    application: WSGIApplication
    ours: WSGIApplication
    path: str

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Answer as PEP 3333 has it."""
        path: str = environ["PATH_INFO"]
        if not path.startswith(f"{self.path}/"):
            return self.application(environ, start_response)
        below = {"SCRIPT_NAME": environ["SCRIPT_NAME"] + self.path, "PATH_INFO": path.removeprefix(self.path)}
        return self.ours(environ | below, start_response)


def put_inspector_beside(
    application: WSGIApplication, path: str, database: Database, realtime: Realtime, signer: Flask
) -> WSGIApplication:
    """The application with the inspector at ``path``/inspector. ``signer`` is whose session cookies count."""
    app = Flask("automoderate.dashboard")
    app.session_interface = _NoSessions()
    frame.install(app, Services(database, realtime, None, _Mounted(signer, path)))
    inspector.install(app)
    return Beside(application, app, path)


class _NoSessions(SessionInterface):
    """No session of our own: the cookies of this address are the application's."""

    def open_session(self, app: Flask, request: Request) -> None:
        """There is none."""


class _Mounted:
    """The mounted application, as the page's surroundings."""

    way_home = "Go to the application"

    def __init__(self, signer: Flask, path: str) -> None:
        self._signer = signer
        self._reader = SessionReader(signer)
        self._path = path

    def person(self) -> Person | None:
        if "person" not in g:
            identification = self._reader.identification(_Browser(request))
            user_id = self._reader.read(identification).user_id
            g.person = None if user_id is None else load_person(user_id)
        found: Person | None = g.person
        return found

    def home(self) -> str:
        return f"{self._root()}/"

    def links(self, _person: Person) -> Sequence[tuple[str, str, str]]:
        inspector = ("Inspector", url_for("inspector.inspector"), "inspector.inspector")
        return [("Home", self.home(), ""), inspector]

    def login(self, back: str | None = None) -> str | None:
        """The application's own page, where its Flask-Login knows one."""
        view = getattr(getattr(self._signer, "login_manager", None), "login_view", None)
        if not view:
            return None
        if not view.startswith(("/", "http://", "https://")):
            environ = request.environ | {"SCRIPT_NAME": self._root()}
            adapter = self._signer.create_url_adapter(self._signer.request_class(environ))
            try:
                view = adapter.build(view) if adapter is not None else None
            except BuildError:
                return None
        return str(flask_login.login_url(view, back))

    def logout(self) -> None:
        """The application's."""

    def token(self, person: Person) -> str:
        return page_token(self._signer, person.id)

    def _root(self) -> str:
        """Where the application begins, below whatever path a proxy shows."""
        return request.script_root.removesuffix(self._path)


@frozen
class _Browser:
    """Who sent a request, as the HTTP API knows it."""

    _request: Request

    @property
    def client_address(self) -> str:
        return self._request.remote_addr or ""

    def header(self, name: str) -> str | None:
        return self._request.headers.get(name)
