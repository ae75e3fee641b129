"""The inspector's page beside a mounted application, whose answers, cookies and settings stay its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import flask
import flask_login
import pytest
from attrs import define
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.test import Client, TestResponse

from automoderate.dashboard import is_genuine, put_inspector_beside
from automoderate.directory import accounts
from kits.dashboard_world import World

PAGE = "/realtime/inspector"
BROWSER = {"User-Agent": "a browser"}
ADDRESS = {"REMOTE_ADDR": "127.0.0.1"}


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


def existing() -> flask.Flask:
    """An application as people have it: Flask-Login, and pages of its own."""
    app = flask.Flask("existing", static_folder=None)
    app.config.update(SECRET_KEY="the existing application's own", SESSION_COOKIE_NAME="existing")
    manager = flask_login.LoginManager(app)
    manager.user_loader(User)
    manager.login_view = "account.sign_in"
    account = flask.Blueprint("account", __name__)

    def sign_in() -> str:
        if user := flask.request.args.get("user"):
            flask_login.login_user(User(user))
            flask.session["theirs"] = "kept"
        return "the application's login"

    account.add_url_rule("/account/sign-in", view_func=sign_in)
    app.register_blueprint(account)

    def told() -> Any:
        """What a page of it is told of its address."""
        environ = flask.request.environ
        return [environ["SCRIPT_NAME"], environ["PATH_INFO"]]

    app.add_url_rule("/told", endpoint="told", view_func=told)
    app.add_url_rule("/realtime", endpoint="bare", view_func=told)
    return app


@define
class Mounted:
    """An application with the inspector beside it, and a browser."""

    app: Any
    signer: flask.Flask
    client: Client

    def get(self, path: str = PAGE, **options: Any) -> TestResponse:
        return self.client.get(path, **{"headers": BROWSER, "environ_base": ADDRESS, "buffered": True, **options})

    def cookie(self) -> str | None:
        name = self.signer.config["SESSION_COOKIE_NAME"]
        found = self.client.get_cookie(name)
        return None if found is None else f"{name}={found.value}"

    def log_in(self, user: accounts.UserInfo) -> None:
        assert self.get(f"/account/sign-in?user={user.id}").status_code == 200

    def token(self) -> str:
        found = re.search('data-token="([^"]+)"', self.get().text)
        assert found is not None
        return found[1]


@pytest.fixture
def mount(world: World) -> Callable[..., Mounted]:
    def make(app: Any, signer: flask.Flask | None = None) -> Mounted:
        signer = signer or app
        beside = put_inspector_beside(app, "/realtime", world.database, world.realtime, signer)
        return Mounted(app, signer, Client(beside))

    with world.database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE users SET is_admin = 1 WHERE id = '{world.member.id}'")
        connection.commit()
    return make


Mount = Callable[..., Mounted]


def test_an_administrator_of_the_application_sees_the_page(mount: Mount, world: World) -> None:
    mounted = mount(existing())
    mounted.log_in(world.member)
    page = mounted.get()
    assert page.status_code == 200
    assert 'data-api="/realtime/api/admin"' in page.text
    assert 'data-login-url="/account/sign-in?next=%2Frealtime%2Finspector"' in page.text
    assert '<a class="brand" href="/">' in page.text
    assert re.findall(r'<a href="([^"]+)"(?: aria-current="(\w+)")?>(\w+)</a>', page.text) == [
        ("/", "", "Home"), (PAGE, "page", "Inspector")
    ]  # fmt: skip
    assert world.member.username in page.text
    assert '<form method="post"' not in page.text, "logging out is the application's"
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for address in re.findall('(?:href|src)="(/realtime/static/[^"]+)"', page.text):
        assert mounted.get(address).status_code == 200, address


def test_below_the_path_of_a_proxy(mount: Mount, world: World) -> None:
    mounted = mount(existing())
    proxied: dict[str, Any] = {"environ_overrides": {"SCRIPT_NAME": "/site"}}
    visitor = mounted.get(**proxied)
    assert (visitor.status_code, visitor.location) == (302, "/site/account/sign-in?next=%2Fsite%2Frealtime%2Finspector")
    mounted.log_in(world.member)
    page = mounted.get(**proxied)
    assert 'data-api="/site/realtime/api/admin"' in page.text
    assert '<a class="brand" href="/site/">' in page.text
    assert 'src="/site/realtime/static/inspector.js"' in page.text
    assert mounted.get("/told", **proxied).json == ["/site", "/told"]


def test_everybody_else_is_told_what_to_do(mount: Mount, world: World) -> None:
    mounted = mount(existing())
    visitor = mounted.get(f"{PAGE}?a=1")
    assert (visitor.status_code, visitor.location) == (302, "/account/sign-in?next=%2Frealtime%2Finspector%3Fa%3D1")
    mounted.log_in(world.owner)
    refused = mounted.get()
    assert (refused.status_code, 'data-code="admin_required"' in refused.text) == (403, True)
    assert '<a class="button button--primary" href="/">Go to the application</a>' in refused.text
    assert mounted.get("/realtime/nowhere").status_code == 404
    assert "There is no such page" in mounted.get("/realtime/nowhere").text
    assert mounted.client.post(PAGE).status_code == 405
    accounts.set_active(world.database, world.member.id, False)
    mounted.log_in(world.member)
    assert mounted.get().status_code == 302


@pytest.mark.parametrize("view", [None, "no.such.view"])
def test_where_nobody_knows_the_login(mount: Mount, view: str | None) -> None:
    app = existing()
    app.login_manager.login_view = view  # type: ignore[attr-defined]
    visitor = mount(app).get()
    assert (visitor.status_code, 'data-code="authentication_required"' in visitor.text) == (401, True)
    assert 'href="/">Go to the application</a>' in visitor.text


def test_a_login_at_an_address(mount: Mount) -> None:
    app = existing()
    app.login_manager.login_view = "https://sso.example/login?a=b"  # type: ignore[attr-defined]
    location = mount(app).get().location
    assert location is not None
    assert location.startswith("https://sso.example/login?a=b&next=")


def test_the_database_is_away(mount: Mount, world: World) -> None:
    mounted = mount(existing())
    mounted.log_in(world.member)
    assert world.database.path is not None
    world.database.close()
    world.database.path.rename(world.database.path.with_suffix(".away"))
    page = mounted.get()
    assert (page.status_code, 'href="/realtime/inspector">Try again' in page.text) == (503, True)


def test_the_application_answers_as_without_it(mount: Mount, world: World) -> None:
    """Nothing of its session, its settings or its answers changes, nor what it is told of its address."""
    app = existing()
    alone = Client(app)
    settings = dict(app.config)
    mounted = mount(app)
    mounted.log_in(world.member)
    cookie = mounted.cookie()
    for path in (PAGE, "/realtime/static/dashboard.css", "/realtime/nowhere", PAGE):
        answer = mounted.get(path)
        assert "Set-Cookie" not in answer.headers
    assert mounted.cookie() == cookie
    assert dict(app.config) == settings
    for path in ("/told", "/realtime", "/nowhere", "/static/dashboard.css", "/real%2F", "*", "/realtimes/inspector"):
        ours, theirs = mounted.client.get(path), alone.get(path)
        assert (ours.status_code, ours.data) == (theirs.status_code, theirs.data), path


def test_a_session_counts_as_the_api_counts_it(mount: Mount, world: World) -> None:
    app = existing()
    app.config["SESSION_PROTECTION"] = "strong"
    mounted = mount(app)
    mounted.log_in(world.member)
    assert mounted.get().status_code == 200
    assert mounted.get(headers={"User-Agent": "another"}).status_code == 302
    assert mounted.get(headers={**BROWSER, "X-Forwarded-For": "203.0.113.9"}).status_code == 302
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(seconds=-1)
    assert mounted.get().status_code == 302


def test_its_token_is_one_of_that_user_alone(mount: Mount, world: World) -> None:
    mounted, other = mount(existing()), mount(existing())
    mounted.log_in(world.member)
    other.log_in(world.owner)
    token = mounted.token()
    assert is_genuine(mounted.signer, mounted.cookie(), token)
    for wrong in ("", "x", token[:-1], mounted.signer.secret_key):
        assert not is_genuine(mounted.signer, mounted.cookie(), str(wrong))
    for another in (None, "", "existing=x", other.cookie()):
        assert not is_genuine(mounted.signer, another, token)
    mounted.signer.config["PERMANENT_SESSION_LIFETIME"] = timedelta(seconds=-1)
    assert not is_genuine(mounted.signer, mounted.cookie(), token)


class Stored(SecureCookieSessionInterface):
    """Sessions that are kept elsewhere, by their number."""

    def __init__(self) -> None:
        self.away = False
        self.kept: dict[str, dict[str, Any]] = {}

    def open_session(self, app: flask.Flask, request: flask.Request) -> SecureCookieSession:
        assert flask.current_app.name == app.name, "it finds its store by the application that is current"
        if self.away:
            raise OSError("the store is away")
        return SecureCookieSession(self.kept.get(request.cookies.get("existing", ""), {}))

    def save_session(self, _app: flask.Flask, session: Any, response: flask.Response) -> None:
        self.kept["1"] = dict(session)
        response.set_cookie("existing", "1")


def test_sessions_that_the_application_keeps_elsewhere(mount: Mount, world: World) -> None:
    app = existing()
    app.session_interface = interface = Stored()
    mounted = mount(app)
    mounted.log_in(world.member)
    before = dict(interface.kept)
    token = mounted.token()
    assert is_genuine(app, mounted.cookie(), token)
    assert interface.kept == before
    interface.away = True
    page = mounted.get()
    assert (page.status_code, "store is away" in page.text) == (500, False)
    assert mounted.get("/realtime/nowhere").status_code == 500


def test_an_application_that_is_no_flask(mount: Mount, world: World) -> None:
    """Whose cookies count is a Flask application that only knows the key."""

    def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["SCRIPT_NAME"].encode() + b"|" + environ["PATH_INFO"].encode()]

    signer = flask.Flask("automoderate.sessions", static_folder=None)
    signer.secret_key = "a key that both know"
    mounted = mount(plain, signer)
    assert mounted.get("/anywhere").text == "|/anywhere"
    assert mounted.get().status_code == 401
    serializer = signer.session_interface.get_signing_serializer(signer)  # type: ignore[attr-defined]
    mounted.client.set_cookie("session", serializer.dumps({"_user_id": world.member.id}))
    page = mounted.get()
    assert page.status_code == 200
    assert 'data-login-url="/"' in page.text
    assert is_genuine(signer, mounted.cookie(), mounted.token())
