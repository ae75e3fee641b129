"""The inspector: a page for administrators of what happens on all nodes. What it shows it asks of the HTTP API."""

from __future__ import annotations

from flask import Blueprint, Flask, g, make_response, render_template, request
from werkzeug.wrappers import Response

from automoderate.dashboard.frame import require_person
from automoderate.dashboard.problems import here, problem
from automoderate.dashboard.services import services


def install(app: Flask) -> None:
    """Give ``app`` the page."""
    blueprint = Blueprint("inspector", __name__)
    blueprint.before_request(require_person)
    blueprint.add_url_rule("/inspector", view_func=inspector)
    app.register_blueprint(blueprint)


def inspector() -> Response:
    """The page; nobody else may see it."""
    if not g.me.is_admin:
        text = "It shows what happens on all nodes. Whoever runs this site can make you an administrator."
        return problem(403, "admin_required", "This page is for administrators", text)
    around = services().around
    page = render_template(
        "inspector.html", api=f"{request.script_root}/api/admin", token=around.token(g.me),
        login_url=around.login(here()) or around.home(),
    )  # fmt: skip
    return make_response(page)
