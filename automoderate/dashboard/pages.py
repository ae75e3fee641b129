"""The pages a person sees once logged in, and what they see when something is not there."""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Blueprint, Flask, current_app, g, make_response, redirect, render_template, request, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.wrappers import Response

from automoderate.dashboard import api
from automoderate.dashboard.auth import current_person
from automoderate.dashboard.services import services
from automoderate.directory import accounts
from automoderate.directory.database import DatabaseUnavailable

log = logging.getLogger(__name__)

CLIENT = "vendor/socket.io.esm.min.js"
"""The browser's Socket.IO client below the static folder; npm puts it there."""


def install(app: Flask) -> None:
    """Give ``app`` the pages and a readable answer to every error."""
    blueprint = Blueprint("pages", __name__)
    blueprint.before_request(_require_person)
    blueprint.add_url_rule("/", view_func=projects)
    blueprint.add_url_rule("/projects/<project_id>", view_func=live)
    app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(SQLAlchemyError, _database_away)
    app.register_error_handler(DatabaseUnavailable, _database_away)


def _require_person() -> Response | None:
    """Send whoever is not logged in to do so, and back here afterwards."""
    g.me = current_person()
    return redirect(url_for("auth.login", next=request.path)) if g.me is None else None


def projects() -> str:
    """The projects the person may see."""
    return render_template("projects.html", projects=accounts.projects_for(services().database, g.me.id))


def live(project_id: str) -> Response:
    """The live page of one project."""
    database = services().database
    project = next((p for p in accounts.projects_for(database, g.me.id) if p.id == project_id), None)
    if project is not None:
        installed = (Path(current_app.static_folder or "") / CLIENT).is_file()
        return make_response(render_template("live.html", project=project, client=CLIENT, client_installed=installed))
    if accounts.get_project(database, project_id) is None:
        return _problem(
            404, "project_not_found", "This project does not exist",
            "It may have been deleted, or the address is not complete.",
        )  # fmt: skip
    return _problem(
        403, "access_denied", "You do not have access to this project",
        "Only its owner and its members can watch it. Ask the owner to add you, then try again.", retry=True,
    )  # fmt: skip


def _problem(status: int, code: str, title: str, text: str, *, retry: bool = False) -> Response:
    again = (request.path if request.method == "GET" else url_for("pages.projects")) if retry else None
    page = render_template("problem.html", code=code, title=title, text=text, retry=again)
    return make_response(page, status)


def _http_error(error: HTTPException) -> Response:
    if api.is_api(request.path):
        return api.http_error(error)
    if isinstance(error, InternalServerError):
        g.without_person = True  # whatever failed, the page about it must not fail again
        return _problem(500, "server_error", "Something went wrong", "The server could not make this page.", retry=True)
    if error.code == 404:
        return _problem(404, "not_found", "There is no such page", "The address may be incomplete or out of date.")
    response = _problem(error.code or 500, "error", error.name, error.description or "")
    response.headers.extend((name, value) for name, value in error.get_headers() if name in ("Allow", "Retry-After"))
    return response


def _database_away(error: Exception) -> Response:
    log.error("the database is away: %s", error)
    g.without_person = True
    response = _problem(
        503, "unavailable", "The database cannot be reached", "This is usually over in a moment.", retry=True
    )
    response.headers["Retry-After"] = "5"
    return response
