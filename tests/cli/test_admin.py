"""Administration: users, projects, members and keys, over a real SQLite file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from automoderate.cli import admin, cli
from automoderate.directory import accounts
from automoderate.directory.database import Database

SECRET = "a secret long enough for anybody"


def run(*arguments: str, status: int = 0, typed: str | bytes = "", **environment: str) -> str:
    """Run a command; its standard output, or its one line of standard error where it is expected to fail."""
    result = CliRunner().invoke(cli, arguments, input=typed, env=environment, prog_name="automoderate")
    assert result.exit_code == status, result.output
    if status == 0:
        return result.stdout.strip()
    (line,) = result.stderr.strip().splitlines()
    return line.removeprefix("Error: ")


def add_user(name: str) -> str:
    return run("user", "add", name, f"{name}@example.org", "--password-stdin", typed=f"{name} secret\n")


@pytest.fixture
def users() -> tuple[str, str]:
    return add_user("ann"), add_user("bob")


@pytest.fixture
def forum(users: tuple[str, str]) -> str:
    return run("project", "add", "Forum", "--owner", users[0], "--description", "All of it")


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json"))
    return found


def test_the_first_user_makes_our_own_database(folder: Path) -> None:
    add_user("ann")
    assert (folder / "automoderate.sqlite3").exists()
    assert [user["username"] for user in listed("user", "list")] == ["ann"]
    assert run("project", "list") == ""
    assert listed("project", "list") == []


def test_users(users: tuple[str, str]) -> None:
    ann, bob = users
    expected = {"id": ann, "username": "ann", "email": "ann@example.org", "is_active": True}
    assert listed("user", "list")[0] == expected
    assert [line.split()[:2] for line in run("user", "list").splitlines()] == [
        ["ID", "USERNAME"], [ann, "ann"], [bob, "bob"],
    ]  # fmt: skip
    assert "exists already" in run("user", "add", "ann", "x@y", "--password-stdin", typed="x", status=1)
    assert run("user", "set-password", "ann@example.org", "--password-stdin", typed="new one\r\n") == (
        "ann has a new password."
    )
    database = Database("sqlite:///automoderate.sqlite3")
    assert accounts.authenticate(database, "ann", "new one") is not None
    assert accounts.authenticate(database, "bob", "bob secret") is not None
    database.close()
    assert run("user", "deactivate", bob).startswith("bob is locked out.")
    assert [user["is_active"] for user in listed("user", "list")] == [True, False]
    assert run("user", "activate", "bob") == "bob may log in."
    assert run("user", "remove", "bob").startswith("bob is removed.")
    assert len(listed("user", "list")) == 1
    for command in ("set-password", "activate", "deactivate", "disconnect", "remove"):
        assert run("user", command, "bob", status=1) == "no such user: bob"


@pytest.mark.parametrize(
    "command",
    [
        ("user", "list"), ("user", "deactivate", "ann"), ("user", "disconnect", "ann"), ("project", "list"),
        ("project", "add", "Forum", "--owner", "ann"), ("member", "remove", "Forum", "ann"),
        ("apikey", "list", "Forum"),
    ],
)  # fmt: skip
def test_in_the_folder_of_an_application_no_database_of_ours_is_made(command: tuple[str, ...]) -> None:
    """It would be empty, and whoever is looked for in it unknown."""
    environment = {"SECRET_KEY": SECRET} if command[1] in ("deactivate", "disconnect", "remove") else {}
    assert run(*command, status=3, **environment) == (
        "there is no automoderate.sqlite3 in this folder; name the database with --database-url or DATABASE_URL "
        "(to begin one of our own: automoderate user add)"
    )
    assert list(Path().iterdir()) == []


def test_an_administrator() -> None:
    run("user", "add", "root", "root@example.org", "--admin", "--password-stdin", typed="x\n")
    with closing(sqlite3.connect("automoderate.sqlite3")) as connection:
        assert connection.execute("SELECT is_admin FROM users").fetchall() == [(1,)]


def test_a_password_is_asked_for_only_where_somebody_is_there() -> None:
    for command in (["user", "add", "ann", "a@b"], ["user", "set-password", "ann"]):
        assert run(*command, typed="hush hush\nhush hush\n", status=2) == (
            "there is no terminal to ask for the password: --password-stdin"
        )
        if command[1] == "add":
            add_user("ann")


def test_a_password_is_asked_for_twice_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "has_terminal", lambda: True)
    result = CliRunner().invoke(cli, ["user", "add", "ann", "a@b"], input="hush hush\nhush hush\n")
    assert result.exit_code == 0, result.output
    assert "hush" not in result.output
    result = CliRunner().invoke(cli, ["user", "set-password", "ann"], input="one\nother\n")
    assert result.exit_code == 1
    assert "other" not in result.output
    assert run("user", "set-password", "ann", "--password-stdin", status=2) == "the password must not be empty"
    said = run("user", "set-password", "ann", "--password-stdin", typed=b"hush\xff\n", status=2)
    assert said == "the password on standard input is not UTF-8"
    assert "username" in run("user", "add", " ", "x@y", "--password-stdin", typed="x", status=2)


def test_projects(users: tuple[str, str], forum: str) -> None:
    ann, _ = users
    assert listed("project", "list") == [{"id": forum, "name": "Forum", "owner_id": ann}]
    assert listed("project", "list", "--user", "ann")[0]["role"] == "owner"
    assert listed("project", "list", "--user", "bob") == []
    assert run("project", "list", "--user", "nobody", status=1) == "no such user: nobody"
    assert run("project", "add", "X", "--owner", "nobody", status=1) == "no such user: nobody"
    assert "--owner" in run("project", "add", "X", status=2)
    assert "owns 1 project(s)" in run("user", "remove", "ann", status=1)
    second = run("project", "add", "Forum", "--owner", "bob")
    said = run("project", "remove", "Forum", status=1)
    assert "2 projects have the name Forum" in said
    assert second in said
    assert run("project", "remove", second).startswith("Forum is removed.")
    assert run("project", "remove", "Forum").startswith("Forum is removed.")
    assert run("project", "remove", forum, status=1) == f"no such project: {forum}"


def test_members(users: tuple[str, str], forum: str) -> None:
    ann, bob = users
    assert run("member", "add", "Forum", "bob") == "bob may see Forum."
    assert run("member", "add", forum, bob, "--role", "admin") == "bob may see Forum."
    assert [(member["user_id"], member["role"]) for member in listed("member", "list", "Forum")] == [
        (ann, "owner"), (bob, "admin"),
    ]  # fmt: skip
    assert "'boss' is not one of" in run("member", "add", "Forum", "bob", "--role", "boss", status=2)
    assert "owns the project" in run("member", "remove", "Forum", "ann", status=1)
    assert run("member", "remove", "Forum", "bob").startswith("bob may no longer see Forum.")
    assert "no member" in run("member", "remove", "Forum", "bob", status=1)
    assert "no such project" in run("member", "list", "none", status=1)


def test_api_keys(forum: str) -> None:
    key = run("apikey", "add", "Forum", "build server")
    assert key.startswith("am_")
    (shown,) = listed("apikey", "list", "Forum")
    assert shown["key"] == f"{key[:7]}…"
    assert (shown["name"], shown["project_id"], shown["is_active"]) == ("build server", forum, True)
    assert key not in run("apikey", "list", "Forum")
    revoked = run("apikey", "revoke", key)
    assert revoked.startswith("The key is revoked. The running server was not told (")
    assert revoked.endswith("): it takes effect within a few seconds.")
    assert [each["is_active"] for each in listed("apikey", "list", forum)] == [False]
    assert run("apikey", "remove", shown["id"]).startswith("The key is removed. ")
    assert listed("apikey", "list", "Forum") == []
    for command in ("revoke", "remove"):
        assert run("apikey", command, key, status=1) == "no such API key"


@pytest.mark.usefixtures("users")
def test_a_name_cannot_command_the_terminal() -> None:
    run("project", "add", "red\x1b[31m\nalert", "--owner", "ann")
    lines = run("project", "list").splitlines()
    assert len(lines) == 2
    assert r"red\x1b[31m\nalert" in lines[1]
    assert run("project", "add", "red", "--owner", "\x1b[31m\nann", status=1) == r"no such user: \x1b[31m ann"


def test_a_given_database_is_not_made_by_accident(folder: Path) -> None:
    url = "sqlite:///given.db"
    for arguments in (["user", "list"], ["user", "activate", "ann"], ["project", "remove", "x"]):
        said = run(*arguments, "--database-url", url, status=3)
        assert "automoderate database create --database-url 'sqlite:///given.db'" in said
    assert list(folder.iterdir()) == []
    assert run("database", "create", DATABASE_URL=url) == "sqlite:///given.db has its tables."
    assert run("database", "create", "--database-url", url) == "sqlite:///given.db has its tables."
    run("user", "add", "ann", "a@b", "--password-stdin", typed="x", DATABASE_URL=url)
    (folder / "options.toml").write_text(f"database_url = '{url}'")
    assert "ann" in run("user", "list", "--config", "options.toml")
    assert "cannot open sqlite:///no/folder/x.db" in run(
        "database", "create", "--database-url", "sqlite:///no/folder/x.db", status=3
    )
    assert "write sqlite:///" in run("user", "list", "--database-url", "given.db", status=2)


@pytest.mark.usefixtures("users")
def test_a_locked_database_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automoderate.directory.urls.BUSY_TIMEOUT", 0.0)
    with closing(sqlite3.connect("automoderate.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert run("user", "deactivate", "ann", status=3).endswith("database is locked")


# Telling the running server -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("users", "forum")
def test_says_when_the_server_is_not_told(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    run("member", "add", "Forum", "bob")
    said = run("member", "remove", "Forum", "bob", "--url", url, "--secret-key", SECRET)
    assert said == (
        f"bob may no longer see Forum. The running server was not told (cannot reach {url}: Connection refused): "
        "it takes effect at its next re-check."
    )
    assert "(SECRET_KEY is not set)" in run("user", "deactivate", "bob")


@pytest.mark.usefixtures("users")
def test_an_address_that_is_none_is_found_before_anything_is_changed() -> None:
    assert "is no server address" in run("user", "deactivate", "bob", "--url", "nonsense", status=2, SECRET_KEY=SECRET)
    assert [user["is_active"] for user in json.loads(run("user", "list", "--json"))] == [True, True]


@pytest.mark.usefixtures("users")
def test_a_user_who_could_not_be_disconnected_is_an_error(closed_port: int, scripted_api: Api) -> None:
    """It takes effect at once or never."""
    disconnect = ("user", "disconnect", "bob", "--url")
    url = f"http://127.0.0.1:{closed_port}"
    assert run(*disconnect, url, status=3, SECRET_KEY=SECRET) == (
        f"bob is not disconnected: cannot reach {url}: Connection refused"
    )
    assert run(*disconnect, url, status=2) == "bob is not disconnected: SECRET_KEY is not set"
    assert "is no server address" in run(*disconnect, "nonsense", status=2, SECRET_KEY=SECRET)
    scripted_api.answers = [(401, {}), (404, {})]
    assert run(*disconnect, scripted_api.url, status=1, SECRET_KEY=SECRET) == (
        f"bob is not disconnected: {scripted_api.url} does not accept this SECRET_KEY"
    )
    assert run("user", "disconnect", "eve", status=1) == "no such user: eve"


@pytest.mark.usefixtures("users")
def test_what_keeps_everybody_from_being_told_changes_nothing() -> None:
    for url in ("http://127.0.0.1:6379", "redis://127.0.0.1/0?socket_timeout=soon"):
        assert run("user", "deactivate", "bob", "--redis-url", url, status=2).startswith("redis_url")
    assert [user["is_active"] for user in listed("user", "list")] == [True, True]


class Api:
    """What the tests use of the scripted API of the shared fixtures."""

    url: str
    requests: list[Any]
    answers: list[Any]
    missing: str | None


def test_tells_the_server_whose_access_changed(
    users: tuple[str, str], forum: str, scripted_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bob = users
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.setenv("AUTOMODERATE_URL", scripted_api.url)
    run("member", "add", "Forum", "bob")
    for arguments, body in (
        (["member", "remove", "Forum", "bob"], {"project_id": forum, "user_id": bob}),
        (["user", "disconnect", "bob"], {"user_id": bob, "logged_out": True}),
        (["user", "deactivate", "bob"], {"user_id": bob}),
        (["user", "remove", "bob"], {"user_id": bob}),
        (["project", "remove", "Forum"], {"project_id": forum}),
    ):
        assert run(*arguments).endswith("The running server was told: it takes effect at once.")
        assert scripted_api.requests[-1].path == "/api/access-changes"
        assert scripted_api.requests[-1].body == body
    assert len(scripted_api.requests) == 5


@pytest.mark.usefixtures("users")
def test_finds_the_server_behind_a_mounted_application(scripted_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.setenv("AUTOMODERATE_URL", scripted_api.url)
    for first in ((404, ""), (401, "log in"), (302, "")):
        scripted_api.answers = [first, (202, {})]
        assert "was told" in run("user", "deactivate", "bob")
        assert scripted_api.requests[-1].path == "/realtime/api/access-changes"
    scripted_api.answers = [(401, {}), (404, {})]
    assert "does not accept this SECRET_KEY" in run("user", "deactivate", "bob")
    scripted_api.answers = [(401, {"error": {"code": "wrong_time", "message": "it was"}})]
    assert "not told (the clocks of " in run("user", "deactivate", "bob")
    scripted_api.answers = [(404, {}), (503, {})]
    assert "answered 503" in run("user", "deactivate", "bob")
