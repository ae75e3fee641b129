"""Logging in for a cookie: at our own form and at other applications, below a prefix, and what each refusal says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from click.testing import CliRunner, Result
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from automoderate.cli import cli
from automoderate.cli.login import cookies
from automoderate.dashboard import create_app
from automoderate.realtime import Realtime
from kits import PATIENCE
from kits.live_server import PASSWORD, LiveServer, running_server
from kits.processes import SECRET_KEY
from kits.real_clients import SimpleClient


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def site() -> Iterator[Callable[[Any], str]]:
    """Serves a WSGI application on a free loopback port; its address."""
    servers = []

    def serve(application: Any) -> str:
        server = make_server("127.0.0.1", 0, application, threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def login(*arguments: str, password: str | None = PASSWORD, stdin: str | bytes | None = None) -> Result:
    environment = {"AUTOMODERATE_PASSWORD": password}
    return CliRunner(env=environment).invoke(cli, ["login", *arguments], input=stdin, prog_name="automoderate")


def refused(result: Result, status: int) -> str:
    """The one line that a refusal is."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert PASSWORD not in line
    return str(line.removeprefix("Error: "))


def test_the_cookie_lets_a_client_in(server: LiveServer) -> None:
    result = login("--url", server.url, "--username", "alice", "--print-cookie")
    assert result.exit_code == 0, result.output
    (cookie,) = result.stdout.splitlines()
    assert cookie.startswith("session=")
    client = SimpleClient(reconnection=False)
    try:
        client.connect(server.url, headers={"Cookie": cookie}, transports=["websocket"], wait_timeout=PATIENCE)
        assert client.receive(PATIENCE)[0] == "connected"
        client.emit("join_project", {"project_id": server.project})
        assert client.receive(PATIENCE)[0] == "joined_project"
    finally:
        client.disconnect()


def test_without_the_flag_no_secret_is_shown(server: LiveServer) -> None:
    result = login("--url", f"{server.url}/", "--username", "alice@example.org")
    assert result.exit_code == 0, result.output
    assert (
        result.stdout == f"alice@example.org may log in at {server.url}; --print-cookie prints the session's cookie.\n"
    )


def test_the_password_may_come_from_standard_input(server: LiveServer) -> None:
    arguments = ("--url", server.url, "--username", "alice", "--password-stdin", "--print-cookie")
    assert login(*arguments, password=None, stdin=f"{PASSWORD}\n").stdout.startswith("session=")


def test_what_is_refused_is_one_line(server: LiveServer, closed_port: int) -> None:
    arguments = ("--url", server.url, "--username", "alice", "--password-stdin")
    assert refused(login(*arguments, stdin=b"hush\xff\n"), 2) == "the password on standard input is not UTF-8"
    at = ("--url", server.url, "--username", "alice")
    assert refused(login(*at, password="wrong"), 1) == "that username or password is not right"
    assert "who logs in? --username" in refused(login("--url", server.url), 2)
    assert "no terminal to ask" in refused(login(*at, password=None), 2)
    assert "is no server address" in refused(login("--url", "localhost:6217", "--username", "alice"), 2)
    nowhere = login("--url", f"http://127.0.0.1:{closed_port}", "--username", "alice")
    assert f"cannot reach http://127.0.0.1:{closed_port}: Connection refused" in refused(nowhere, 3)


def test_a_dashboard_below_a_prefix(server: LiveServer, site: Callable[[Any], str]) -> None:
    dashboard = create_app(server.database, Realtime(), secret_key=SECRET_KEY)
    url = site(DispatcherMiddleware(flask.Flask("outside"), {"/moderation": dashboard}))
    result = login("--url", f"{url}/moderation", "--username", "alice", "--print-cookie")
    assert result.stdout.startswith("session="), result.output
    assert "there is no login form at" in refused(login("--url", url, "--username", "alice"), 1)


# Other applications -------------------------------------------------------------------------------------------

FORM = """<!doctype html><form action="/search"><input name="q"></form>
<form method="POST" {action}><input type="hidden" name="token" value="t&amp;t"><input type="email" name="email">
<input type="password" name="password"><input type="checkbox" name="remember"><input type="submit" name="go"></form>"""


def application(where: str = "/auth/login", action: str = "", answer: Callable[[], Any] | None = None) -> flask.Flask:
    """Another application with a login form of its own: by email, with a token, and no word of why it refuses."""
    app = flask.Flask("another")
    app.secret_key = "its own secret"

    @app.get("/")
    def home() -> Any:
        return flask.redirect(where) if where != "/" else FORM.format(action=action)

    @app.get(where, endpoint="form")
    def form() -> Any:
        return FORM.format(action=action)

    @app.post(where)
    def log_in() -> Any:
        if answer is not None:
            return answer()
        good = {"token": "t&t", "email": "ann@example.org", "password": PASSWORD}
        if flask.request.form.to_dict() != good or flask.request.headers["Referer"] != flask.request.url:
            return FORM.format(action=action)
        flask.session["_user_id"] = "7"
        return flask.redirect("/dashboard")

    return app


@pytest.mark.parametrize("where", ["/auth/login", "/sign-in"])
def test_the_form_of_another_application_is_filled_in(where: str, site: Callable[[Any], str]) -> None:
    url = site(application(where))
    result = login("--url", url, "--username", "ann@example.org", "--print-cookie")
    assert result.stdout.startswith("session="), result.output
    said = refused(login("--url", url, "--username", "ann"), 1)
    assert said.startswith(f"{url}{where} did not let the user in and does not say why: it asks for email and password")
    assert "with a browser and copy its session cookie" in said
    watched = CliRunner(env={"AUTOMODERATE_PASSWORD": PASSWORD}).invoke(
        cli, ["watch", "p", "--url", url, "--username", "ann"], prog_name="automoderate"
    )
    assert refused(watched, 1) == said
    assert "--cookie" in said


def test_the_form_is_found_where_the_start_page_is_for_everybody(site: Callable[[Any], str]) -> None:
    """The inspector, which is beside each mounted application, sends visitors to its login page."""
    app = application("/sign-in")
    app.view_functions["home"] = lambda: "Welcome, whoever you are"
    app.add_url_rule("/realtime/inspector", view_func=lambda: flask.redirect("/sign-in?next=/realtime/inspector"))
    result = login("--url", site(app), "--username", "ann@example.org", "--print-cookie")
    assert result.stdout.startswith("session="), result.output


def test_a_start_page_may_be_the_form_and_what_is_behind_it(site: Callable[[Any], str]) -> None:
    app = flask.Flask("one page")
    app.secret_key = "its own secret"

    @app.route("/", methods=["GET", "POST"])
    def page() -> Any:
        if flask.request.method == "POST":
            if flask.request.form["password"] == PASSWORD:
                flask.session["_user_id"] = "7"
            return flask.redirect("/")
        return "Welcome" if "_user_id" in flask.session else FORM.format(action="")

    url = site(app)
    result = login("--url", url, "--username", "ann@example.org", "--print-cookie")
    assert result.stdout.startswith("session="), result.output
    assert "did not let the user in" in refused(login("--url", url, "--username", "ann", password="wrong"), 1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: flask.redirect("/auth/login?failed=1"), "does not say why"),
        (lambda: ("", 401), "does not say why: it asks for email"),
        (lambda: ("", 403), "does not say why"),
        (lambda: ("", 429, {"Retry-After": "17"}), "too many attempts to log in; try again in 17 seconds"),
        (lambda: ("", 503), "answered 503 SERVICE UNAVAILABLE; try again later"),
        (lambda: flask.redirect("/dashboard"), "let the user in without a cookie for this address"),
    ],
)
def test_what_another_application_may_answer(answer: Callable[[], Any], said: str, site: Callable[[Any], str]) -> None:
    url = site(application(answer=answer))
    assert said in refused(login("--url", url, "--username", "ann@example.org"), 1)


def test_no_password_goes_to_another_server(site: Callable[[Any], str]) -> None:
    url = site(application(action='action="http://elsewhere.example/log-in"'))
    said = refused(login("--url", url, "--username", "ann@example.org"), 1)
    assert said.startswith(f"the login form at {url}/auth/login sends passwords to another server; log in there with")


def test_an_application_without_a_form(site: Callable[[Any], str]) -> None:
    url = site(flask.Flask("nothing"))
    said = refused(login("--url", url, "--username", "ann@example.org"), 1)
    assert said.startswith(f"there is no login form at {url}/auth/login (it answered 404); log in there with a browser")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (".eJwl.aw-Q.Jl_F", {"session": ".eJwl.aw-Q.Jl_F"}),
        ("my.app~session=.eJwl.aw-Q.Jl_F", {"my.app~session": ".eJwl.aw-Q.Jl_F"}),
        ("__Host-session=a; other=b", {"__Host-session": "a", "other": "b"}),
    ],
)
def test_a_cookie_by_itself_or_with_its_name(given: str, read: dict[str, str]) -> None:
    """The name may be whatever SESSION_COOKIE_NAME may be."""
    assert cookies(given) == read
