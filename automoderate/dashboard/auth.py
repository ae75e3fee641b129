"""Logging in and out: Flask-Login's session, so that every Flask application with the same key can read it."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import Future
from urllib.parse import urlsplit

import flask_login
from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_wtf.csrf import CSRFError, CSRFProtect
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.wrappers import Response as BaseResponse

from automoderate.dashboard.problems import problem
from automoderate.dashboard.services import Person, load_person, services
from automoderate.directory import accounts
from automoderate.protocol.proxies import visitor

log = logging.getLogger(__name__)

PER_ADDRESS = RateLimitItemPerMinute(30)
"""Attempts to log in from one address (of IPv6, one /64)."""

PER_ACCOUNT = RateLimitItemPerMinute(10, 5)
"""Attempts to log in as one user in five minutes; forgotten when one succeeds."""


class LoginLimiter:
    """Counts attempts to log in, in memory, and says how long to wait once there were too many."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def wait(self, address: str, name: str) -> int | None:
        """Count one attempt. None: go on; else the seconds until the next one is worth making."""
        # The address first: once it has tried too often it cannot go on to use up the attempts of other accounts.
        for item, key in ((PER_ADDRESS, visitor(address)), (PER_ACCOUNT, _account(name))):
            if not self._limiter.hit(item, key):
                return self._wait(item, key)
        return None

    def succeeded(self, name: str) -> None:
        """Forget the attempts on this account."""
        self._limiter.clear(PER_ACCOUNT, _account(name))

    def _wait(self, item: RateLimitItem, key: str) -> int:
        reset: float = self._limiter.get_window_stats(item, key)[0]
        return max(1, math.ceil(reset - time.time()))


def _account(name: str) -> str:
    return name.strip().casefold()[:255]


def install(app: Flask) -> None:
    """Give ``app`` sessions, cross-site request forgery protection and the pages to log in and out."""
    manager = flask_login.LoginManager()
    manager.init_app(app, add_context_processor=False)
    manager.user_loader(load_person)
    CSRFProtect(app)
    app.extensions["automoderate_login_limiter"] = LoginLimiter()
    app.register_error_handler(CSRFError, _form_expired)
    blueprint = Blueprint("auth", __name__, url_prefix="/auth")
    blueprint.add_url_rule("/login", view_func=login)
    blueprint.add_url_rule("/login", view_func=log_in, methods=["POST"])
    blueprint.add_url_rule("/logout", view_func=logout, methods=["POST"])
    blueprint.add_url_rule("/signed-out", view_func=signed_out)
    app.register_blueprint(blueprint)


def current_person() -> Person | None:
    """Who is logged in, looked up once a request."""
    user = flask_login.current_user._get_current_object()  # noqa: SLF001 - Werkzeug's documented way
    return user if isinstance(user, Person) else None


def login() -> BaseResponse:
    """The form; somebody already logged in goes straight on."""
    if current_person() is not None:
        return redirect(_next_page() or url_for("pages.projects"))
    return _form()


def log_in() -> BaseResponse:
    """Check name and password and begin a new session."""
    name = request.form.get("username", "").strip()
    password = request.form.get("password", "")
    if not name or not password:
        return _form("Please enter your username or email and your password.", 400)
    limiter: LoginLimiter = current_app.extensions["automoderate_login_limiter"]
    wait = limiter.wait(request.remote_addr or "", name)
    if wait is not None:
        log.warning(
            "too many attempts to log in from %s", request.remote_addr,
            extra={"event": "login_refused", "reason": "too many attempts", "address": request.remote_addr},
        )  # fmt: skip
        response = _form(f"Too many attempts to log in. Please try again in {_spell(wait)}.", 429)
        response.headers["Retry-After"] = str(wait)
        return response
    user = accounts.authenticate(services().database, name, password)
    if user is None:
        log.info(
            "failed login from %s", request.remote_addr,
            extra={"event": "login_failed", "address": request.remote_addr},
        )  # fmt: skip
        return _form("That username or password is not right.", 401)
    limiter.succeeded(name)
    target = _next_page() or url_for("pages.projects")
    session.clear()  # nothing that was in the cookie before, nor its CSRF token, outlives the login
    flask_login.login_user(Person(user.id, user.username))
    return redirect(target)


def logout() -> BaseResponse:
    """End the session, here and on the person's open live pages; also while the database is away."""
    user_id = session.get("_user_id")  # Flask-Login's own way to end it would look the user up
    session.clear()
    if user_id is not None:
        services().realtime.logged_out(user_id).add_done_callback(_report)
    return redirect(url_for("auth.signed_out"))


def signed_out() -> BaseResponse:
    """What somebody sees who has logged out."""
    if "_user_id" in session:
        return redirect(url_for("pages.projects"))
    text = "The pages that are open in this browser show nothing new any more."
    return problem(200, "signed_out", "You are signed out", text, log_in=True)


def _report(announced: Future[None]) -> None:
    if error := announced.exception():
        log.warning(
            "a logout could not be announced to the live pages: %s", error,
            extra={"event": "announcement_failed", "reason": str(error)},
        )  # fmt: skip


def _form(error: str | None = None, status: int = 200) -> Response:
    name = request.form.get("username", "").strip()[:255]
    page = render_template("login.html", error=error, username=name, next_page=_next_page())
    return make_response(page, status)


def _form_expired(_error: CSRFError) -> BaseResponse:
    if request.endpoint == "auth.log_in":
        return _form("This page had been open for too long. Please try again.", 400)
    return redirect(url_for("pages.projects"))


def _next_page() -> str | None:
    """The page to go to after logging in: a path of this site, else None."""
    target = request.args.get("next", "")
    # A browser reads "//host", "/\host" and a path with a tab or newline in it as another site.
    if not target.startswith("/") or "\\" in target or any(ord(letter) < 33 for letter in target):
        return None
    parts = urlsplit(target)
    return None if parts.scheme or parts.netloc or target.startswith("//") else target


def _spell(seconds: int) -> str:
    if seconds > 60:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{seconds} seconds" if seconds > 1 else "a second"
