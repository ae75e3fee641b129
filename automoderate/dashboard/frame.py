"""What all pages have in common: who is greeted and must be logged in, and headers that keep others out."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask, Response, g, redirect, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response as BaseResponse

from automoderate.dashboard import problems
from automoderate.dashboard.problems import here, problem
from automoderate.dashboard.services import Person, Services, services
from automoderate.directory.database import DatabaseUnavailable

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


def install(app: Flask, found: Services) -> None:
    """Give ``app`` what its views need, a readable answer to every error, and the headers of every answer."""
    app.extensions["automoderate"] = found
    app.context_processor(lambda: {"person": _greeted(), "around": found.around})
    problems.install(app)
    app.after_request(_secure)


def require_person() -> BaseResponse | None:
    """Send a visitor who is not logged in to the login, and back here afterwards."""
    g.me = services().around.person()
    if g.me is not None:
        return None
    address = services().around.login(here())
    if address is not None:
        return redirect(address)
    return problem(401, "authentication_required", "Log in first", "Log in to the application, then come back here.")


def _greeted() -> Person | None:
    """Whom a page greets; None where the database cannot say, since a page about a failure must not fail itself."""
    if g.get("without_person"):
        return None
    try:
        return services().around.person()
    except (SQLAlchemyError, DatabaseUnavailable):
        return None


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
