"""What a person is told instead of the page they wanted: one kind of page, a clear sentence, and a way on."""

from __future__ import annotations

import logging
from urllib.parse import quote

from flask import Flask, g, make_response, render_template, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.wrappers import Response

from automoderate.dashboard.services import services
from automoderate.directory.database import DatabaseUnavailable

log = logging.getLogger(__name__)

_TOLD = {
    400: ("This request cannot be understood", "Something may have changed it on its way. Go back and try again."),
    403: ("You do not have access to this page", "Ask whoever runs this site for it, or log in as somebody who has."),
    404: ("There is no such page", "The address may be incomplete or out of date."),
    405: ("This page cannot be opened by its address", "A form of another page leads here."),
    413: ("This is too large", "What was sent is larger than any form of this site needs."),
}
"""Title and text for each status of an error that says nothing better itself."""


SERVER_ERROR = (
    "Something went wrong", "The server could not make this page. If it stays so, tell whoever runs this site."
)  # fmt: skip
"""The same where all that is known is that something failed."""


def install(app: Flask) -> None:
    """Give ``app`` a readable answer to every error."""
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(SQLAlchemyError, _database_away)
    app.register_error_handler(DatabaseUnavailable, _database_away)


def here() -> str:
    """The address of this page on this site, below whatever path a proxy shows us, with its query."""
    query = request.query_string.decode("ascii", "replace")
    return quote(request.script_root + request.path) + (f"?{query}" if query else "")


def problem(status: int, code: str, title: str, text: str, *, retry: bool = False, log_in: bool = False) -> Response:
    """The page that tells of it, under a ``code`` for scripts.

    The way on leads home, and first to the same page where it helps to ``retry``; or it is to ``log_in``.
    """
    around = services().around
    ways_on = [(around.way_home, around.home())]
    if retry:
        ways_on.insert(0, ("Try again", _again()))
    if log_in and (address := around.login()) is not None:
        ways_on = [("Log in", address)]
    page = render_template("problem.html", status=status, code=code, title=title, text=text, ways_on=ways_on)
    return make_response(page, status)


def _again() -> str:
    """Where to try again: not with what a form sent, which only the browser has."""
    form = request.endpoint == "auth.log_in"
    return here() if form or request.method in ("GET", "HEAD") else services().around.home()


def _http_error(error: HTTPException) -> Response:
    if isinstance(error, InternalServerError):
        g.without_person = True  # whatever failed, the page about it must not fail again
        return problem(500, "server_error", *SERVER_ERROR, retry=True)
    status = error.code or 500
    title, text = _TOLD.get(status, (error.name, error.description or ""))
    response = problem(status, "not_found" if status == 404 else "error", title, text)
    response.headers.extend((name, value) for name, value in error.get_headers() if name in ("Allow", "Retry-After"))
    return response


def _database_away(error: Exception) -> Response:
    log.error("the database is away: %s", error, extra={"event": "database_away", "reason": str(error)})
    g.without_person = True
    response = problem(
        503, "unavailable", "The database cannot be reached", "This is usually over in a moment.", retry=True
    )
    response.headers["Retry-After"] = "5"
    return response
