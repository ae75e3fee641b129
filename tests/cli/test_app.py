"""A whole server from settings: over real sockets, with the dashboard or with another application mounted."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_login
import pytest
import requests
from attrs import frozen
from click.testing import CliRunner
from flask.sessions import SecureCookieSessionInterface

import automoderate
from automoderate import adapters, app
from automoderate.adapters.runtime import Handle
from automoderate.backplane.memory import MemoryBackplane
from automoderate.cli import cli
from automoderate.directory import accounts
from automoderate.directory.accounts import ProjectInfo, UserInfo
from automoderate.directory.database import Database
from automoderate.protocol.config import Config
from automoderate.settings import Settings
from kits import ROOT
from kits.real_clients import SimpleClient

SECRET = "a secret long enough for anybody"


@frozen
class World:
    """What the database of a test holds."""

    url: str
    owner: UserInfo
    member: UserInfo
    project: ProjectInfo
    api_key: str


@pytest.fixture
def world(folder: Path) -> World:
    database = Database(f"sqlite:///{folder}/existing.db")
    database.create_all()
    owner, member = (
        accounts.create_user(database, username=name, email=f"{name}@example.org", password="x")
        for name in ("owner", "member")
    )
    project = accounts.create_project(database, name="Forum", owner_id=owner.id)
    accounts.add_member(database, project.id, member.id)
    key = accounts.create_api_key(database, project.id, "ci").key
    database.close()
    return World(str(database), owner, member, project, key)


Serve = Callable[..., str]


@pytest.fixture
def serve(world: World) -> Iterator[Serve]:
    """Starts a server on a free port over the database of the test and returns its address."""
    stops: list[Callable[[], None]] = []

    def start(**options: Any) -> str:
        given: dict[str, Any] = {"port": 0, "database_url": world.url, "secret_key": SECRET, "auth_grace": 0}
        settings = Settings(**given | options)
        assembly = app.build(settings)
        ready = threading.Event()
        handles: list[Handle] = []

        def on_ready(handle: Handle) -> None:
            handles.append(handle)
            ready.set()

        thread = threading.Thread(target=assembly.run, args=(on_ready,))
        thread.start()

        def stop() -> None:
            handles[0].stop()
            thread.join(60)
            assert not thread.is_alive()
            assert not assembly.realtime.running

        stops.append(stop)
        assert ready.wait(60)
        return f"http://127.0.0.1:{handles[0].addresses[0][1]}"

    yield start
    for stop in stops:
        stop()


def cookie(signer: flask.Flask, user_id: str) -> str:
    """A Cookie header as the application would have set it for that user."""
    serializer = signer.session_interface.get_signing_serializer(signer)  # type: ignore[attr-defined]
    return f"{signer.config['SESSION_COOKIE_NAME']}={serializer.dumps({'_user_id': user_id})}"


def dashboard_cookie(user_id: str) -> str:
    signer = flask.Flask("signer")
    signer.secret_key = SECRET
    return cookie(signer, user_id)


@frozen
class Watcher:
    """A client that has joined the project's room."""

    client: SimpleClient

    def expect(self, event: str) -> dict[str, Any]:
        name, data = self.client.receive(timeout=60)
        assert name == event, data
        assert isinstance(data, dict)
        return data


Watch = Callable[..., Watcher]


@pytest.fixture
def watch(world: World) -> Iterator[Watch]:
    clients: list[SimpleClient] = []

    def join(url: str, header: str, agent: str = "a test") -> Watcher:
        client = SimpleClient(reconnection=False)
        clients.append(client)
        client.connect(url, headers={"Cookie": header, "User-Agent": agent}, transports=["websocket"], wait_timeout=60)
        watcher = Watcher(client)
        watcher.expect("connected")
        client.emit("join_project", {"project_id": world.project.id})
        assert watcher.expect("joined_project")["project_id"] == world.project.id
        return watcher

    yield join
    for client in clients:
        client.disconnect()


def publish(base: str, world: World) -> requests.Response:
    return requests.post(
        f"{base}/api/projects/{world.project.id}/events",
        json={"event": "stats_update", "data": {"total": 1}},
        headers={"X-API-Key": world.api_key},
        timeout=60,
    )


def test_serves_dashboard_updates_and_api_over_a_database_it_only_reads(
    world: World, serve: Serve, watch: Watch, folder: Path
) -> None:
    before = (folder / "existing.db").read_bytes()
    url = serve()
    assert requests.get(f"{url}/readyz", timeout=60).status_code == 200
    assert "password" in requests.get(f"{url}/auth/login", timeout=60).text
    watcher = watch(url, dashboard_cookie(world.member.id))
    assert publish(url, world).status_code == 202
    assert watcher.expect("stats_update")["total"] == 1
    assert (folder / "existing.db").read_bytes() == before


def test_a_member_who_is_removed_on_the_command_line_stops_seeing_at_once(
    world: World, serve: Serve, watch: Watch
) -> None:
    url = serve()
    watcher = watch(url, dashboard_cookie(world.member.id))
    result = CliRunner().invoke(
        cli, ["member", "remove", "Forum", "member", "--url", url],
        env={"SECRET_KEY": SECRET, "DATABASE_URL": world.url},
    )  # fmt: skip
    assert result.stdout == (
        "member may no longer see Forum. The running server was told: it takes effect at once.\n"
    ), result.output
    assert watcher.expect("error")["code"] == "access_denied"


def test_another_secret_tells_the_server_nothing(world: World, serve: Serve) -> None:
    result = CliRunner().invoke(
        cli, ["user", "deactivate", "member", "--url", serve()],
        env={"SECRET_KEY": "not that of the server", "DATABASE_URL": world.url},
    )  # fmt: skip
    assert result.exit_code == 0
    assert "does not accept this SECRET_KEY" in result.stdout


FLASK_APP = """
import flask, flask_login

def create_app():
    app = flask.Flask("existing")
    app.secret_key = "the existing application's own"
    app.config["SESSION_COOKIE_NAME"] = "existing"
    manager = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):
        def __init__(self, id):
            self.id = id

    manager.user_loader(User)
    app.add_url_rule("/", view_func=lambda: "the existing application", endpoint="home")

    def logout():
        flask_login.logout_user()
        return "bye"

    app.add_url_rule("/logout", view_func=logout)
    return app

app = create_app()
"""


@pytest.fixture
def existing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[flask.Flask]:
    """An existing application in the working directory, importable as ``existing_site``."""
    (folder / "existing_site.py").write_text(FLASK_APP)
    (folder / "plain_site.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'plain ' + environ['PATH_INFO'].encode()]\n"
    )
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    importlib.invalidate_caches()
    found: flask.Flask = importlib.import_module("existing_site").app
    yield found
    for name in ("existing_site", "plain_site"):
        sys.modules.pop(name, None)


def test_a_mounted_flask_application_is_served_and_its_sessions_count(
    world: World, serve: Serve, watch: Watch, existing: flask.Flask
) -> None:
    url = serve(wsgi="existing_site:app", secret_key=None)
    assert requests.get(f"{url}/", timeout=60).text == "the existing application"
    assert requests.get(f"{url}/auth/login", timeout=60).status_code == 404
    assert requests.get(f"{url}/realtime/health", timeout=60).json()["status"] == "healthy"
    watcher = watch(url, cookie(existing, world.member.id))
    assert publish(f"{url}/realtime", world).status_code == 202
    watcher.expect("stats_update")
    with pytest.raises(AssertionError, match="Authentication required"):
        watch(url, dashboard_cookie(world.member.id))


def test_a_logout_from_the_mounted_application_ends_live_sessions(
    world: World, serve: Serve, watch: Watch, existing: flask.Flask
) -> None:
    url = serve(wsgi="existing_site:app")
    header = cookie(existing, world.member.id)
    watcher, other = watch(url, header), watch(url, cookie(existing, world.owner.id))
    anonymous = requests.get(f"{url}/logout", timeout=60)
    assert anonymous.text == "bye", "nobody was logged in, and nothing ends"
    assert requests.get(f"{url}/logout", headers={"Cookie": header}, timeout=60).text == "bye"
    assert watcher.expect("error")["code"] == "authentication_required"
    publish(f"{url}/realtime", world)
    other.expect("stats_update")


@pytest.mark.parametrize(("mode", "permanent", "let_in"), [
    ("strong", False, False), ("strong", True, True), ("basic", False, True), (None, False, True),
])  # fmt: skip
def test_a_session_made_for_another_browser_counts_as_flask_login_counts_it(
    world: World, serve: Serve, watch: Watch, existing: flask.Flask, mode: str | None, permanent: bool, let_in: bool
) -> None:
    existing.config["SESSION_PROTECTION"] = mode

    class Owner(flask_login.UserMixin):  # type: ignore[misc]
        id = world.owner.id

    def who() -> str:
        return "somebody" if flask_login.current_user.is_authenticated else "nobody"

    def login() -> str:
        flask.session.permanent = permanent
        flask_login.login_user(Owner())
        return "welcome"

    existing.add_url_rule("/who", view_func=who)
    existing.add_url_rule("/log-in", view_func=login)
    url = serve(wsgi="existing_site:app", secret_key=None)
    with requests.Session() as browser:
        browser.headers["User-Agent"] = "a browser"
        assert browser.get(f"{url}/log-in", timeout=60).text == "welcome"
        header = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    watch(url, header, "a browser")
    for agent, forwarded in (("another", None), ("a browser", "203.0.113.9")):
        more = {"User-Agent": agent, "Cookie": header} | ({"X-Forwarded-For": forwarded} if forwarded else {})
        page = requests.get(f"{url}/who", headers=more, timeout=60).text
        assert (page == "somebody") == let_in, "the pages of the application"
        history = requests.get(f"{url}/realtime/api/projects/{world.project.id}/events", headers=more, timeout=60)
        assert (history.status_code == 200) == let_in, "the publishing API"
        client = SimpleClient(reconnection=False)
        client.connect(url, headers=more, transports=["websocket"], wait_timeout=60)
        assert (client.receive(timeout=60)[0] == "connected") == let_in, "live sessions"
        client.disconnect()


def test_a_factory_and_a_session_interface_of_its_own(
    world: World, serve: Serve, watch: Watch, existing: flask.Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[flask.Flask] = []

    class Salted(SecureCookieSessionInterface):
        salt = "its own"

    def create() -> flask.Flask:
        existing.session_interface = Salted()
        made.append(existing)
        return existing

    monkeypatch.setattr(sys.modules["existing_site"], "create_app", create)
    url = serve(wsgi="existing_site:create_app()")
    assert made == [existing]
    watch(url, cookie(existing, world.member.id))


@pytest.mark.usefixtures("existing")
def test_any_other_wsgi_application_goes_with_our_secret(world: World, serve: Serve, watch: Watch) -> None:
    url = serve(wsgi="plain_site:app")
    assert requests.get(f"{url}/auth/login", timeout=60).text == "plain /auth/login"
    watch(url, dashboard_cookie(world.member.id))


def test_the_client_for_browsers_is_where_pages_look_for_it(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CLIENT_FOLDER", folder)
    (folder / "socket.io.min.js").write_text("io()")
    url = serve()
    for name in ("socket.io.js", "socket.io.min.js"):
        reply = requests.get(f"{url}/socket.io/{name}", timeout=60)
        assert (reply.status_code, reply.text) == (200, "io()")
        assert reply.headers["Content-Type"] == "application/javascript; charset=utf-8"
    assert requests.get(f"{url}/socket.io/socket.io.esm.min.js", timeout=60).status_code == 400


@pytest.mark.parametrize("wsgi", [None, "plain_site:app"])
@pytest.mark.usefixtures("existing")
def test_cookies_signed_with_an_old_key_and_of_another_name_are_good(
    serve: Serve, watch: Watch, world: World, wsgi: str | None
) -> None:
    signer = flask.Flask("signer")
    signer.config.update(SECRET_KEY=SECRET, SESSION_COOKIE_NAME="moderation")
    header = cookie(signer, world.owner.id)
    url = serve(
        wsgi=wsgi, secret_key="this year's key, and long enough", secret_key_fallbacks=("older", SECRET),
        session_cookie_name="moderation",
    )  # fmt: skip
    watch(url, header)
    if wsgi is None:
        page = requests.get(f"{url}/projects", headers={"Cookie": header}, timeout=60)
        assert page.history == [], "the dashboard takes it too"
        form = requests.get(f"{url}/auth/login", timeout=60)
        assert [found.name for found in form.cookies] == ["moderation"]


def test_limits_and_origins_reach_the_server(world: World, serve: Serve, watch: Watch) -> None:
    url = serve(max_rooms=1, cors_origin=["https://a.example"], ping_interval=7.5, max_payload=5000)
    allowed, refused = (
        requests.get(f"{url}/socket.io/?EIO=4&transport=polling", headers={"Origin": origin}, timeout=60)
        for origin in ("https://a.example", "https://b.example")
    )
    assert allowed.status_code == 200
    assert '"pingInterval":7500' in allowed.text
    assert '"maxPayload":5000' in allowed.text
    sid = allowed.text.split('"')[3]
    requests.post(f"{url}/socket.io/?EIO=4&transport=polling&sid={sid}", "1", timeout=60)  # nobody to wait for
    assert refused.status_code in (400, 403)
    watcher = watch(url, dashboard_cookie(world.member.id))
    watcher.client.emit("join_project", {"project_id": "another"})
    assert watcher.expect("error")["code"] == "room_limit"


def test_a_whole_history_may_wait_for_a_slow_client_whatever_its_transport(world: World) -> None:
    assembly = app.build(Settings(secret_key=SECRET, database_url=world.url))
    assembly.database.close()
    history: int = inspect.signature(MemoryBackplane).parameters["max_bytes"].default
    assert assembly.options.max_write_buffer == Config().send_buffer > history


def test_our_own_database_is_made_in_the_working_directory(folder: Path) -> None:
    assembly = app.build(Settings(secret_key=SECRET))
    assembly.database.check()
    assembly.database.close()
    assert (folder / "automoderate.sqlite3").exists()
    assert assembly.database.read_only


def test_a_missing_runtime_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise adapters.MissingExtra('the trio adapter needs trio: pip install "automoderate[trio]"')

    monkeypatch.setattr(adapters, "load", missing)
    settings = Settings(secret_key=SECRET)
    with pytest.raises(app.CannotStart, match="pip install"):
        app.build(settings)
    assert any("pip install" in problem for problem in app.examine(settings).problems)


def test_the_signal_of_a_stranger_ends_nothing(world: World, existing: flask.Flask) -> None:
    """A logout from an application that is not mounted is none of our business."""
    assembly = app.build(Settings(secret_key=SECRET, database_url=world.url, wsgi="existing_site:app"))
    calls: list[str] = []
    object.__setattr__(assembly.realtime, "logged_out", calls.append)
    user = flask_login.UserMixin()
    user.id = "u"
    flask_login.user_logged_out.send(flask.Flask("stranger"), user=user)
    assert calls == []
    flask_login.user_logged_out.send(existing, user=user)
    flask_login.user_logged_out.send(existing, user=flask_login.AnonymousUserMixin())
    assert calls == ["u"]
    assembly.database.close()


def test_one_call_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(app, "run", served.append)
    automoderate.run(port=81, secret_key=SECRET)
    assert served == [Settings(port=81, secret_key=SECRET)]
    with pytest.raises(ValueError, match="from 0 to 65535"):
        automoderate.run(port=99999)


def test_importing_the_package_stays_light() -> None:
    code = "import sys, automoderate; print(sorted({'asyncio', 'trio', 'eventlet', 'flask'} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "[]\n"
