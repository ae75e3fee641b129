"""The pages a person sees once logged in."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Flask, g, make_response, render_template
from werkzeug.wrappers import Response

from automoderate.dashboard.frame import require_person
from automoderate.dashboard.problems import here, problem
from automoderate.dashboard.services import services
from automoderate.directory import accounts

CLIENT = "vendor/socket.io.esm.min.js"
"""The browser's Socket.IO client below the static folder; building the package puts it there, or ``npm ci``."""


def client_installed() -> bool:
    """Whether the browser's Socket.IO client is there, without which live pages show nothing."""
    return (Path(__file__).parent / "static" / CLIENT).is_file()


def install(app: Flask) -> None:
    """Give ``app`` the pages."""
    blueprint = Blueprint("pages", __name__)
    blueprint.before_request(require_person)
    blueprint.add_url_rule("/", view_func=projects)
    blueprint.add_url_rule("/projects/<project_id>", view_func=live)
    app.register_blueprint(blueprint)


def projects() -> str:
    """The projects the person may see, live."""
    found = accounts.projects_for(services().database, g.me.id)
    return render_template("projects.html", projects=found, **_for_scripts())


def _for_scripts() -> dict[str, object]:
    """What a page that updates itself says: its own address, and where the browser's client is, if it is there."""
    return {"here": here(), "client": CLIENT, "client_installed": client_installed()}


def live(project_id: str) -> Response:
    """The live page of one project."""
    database = services().database
    project = next((p for p in accounts.projects_for(database, g.me.id) if p.id == project_id), None)
    if project is not None:
        page = render_template("live.html", project=project, content_url=services().content_url, **_for_scripts())
        return make_response(page)
    if accounts.get_project(database, project_id) is None:
        return problem(
            404, "project_not_found", "This project does not exist",
            "It may have been deleted, or the address is not complete.",
        )  # fmt: skip
    return problem(
        403, "access_denied", "You do not have access to this project",
        "Only its owner and its members can watch it. Ask the owner to add you, then try again.", retry=True,
    )  # fmt: skip
