"""The command line: exit statuses, one-line errors, and what serve says before it serves."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from automoderate.cli import COMMANDS, cli
from automoderate.directory.database import Database

ROOT = Path(__file__).parents[2]
SECRET = "a secret long enough for anybody"


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment, prog_name="automoderate")


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "automoderate", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def refused(result: Result | subprocess.CompletedProcess[str], status: int) -> str:
    """The one line with which a command ended that could not do what it was asked."""
    assert (result.exit_code if isinstance(result, Result) else result.returncode) == status, result.stderr
    lines = [line for line in result.stderr.splitlines() if " WARNING " not in line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["serve", "--prot", "1"], 2, "automoderate serve --help"),
        (["serve", "--port", "99999"], 2, "from 0 to 65535"),
        (["serve", "--config", "missing.toml"], 2, "cannot read the configuration file"),
        (["serve", "--redis-channel", "socketio"], 2, "socketio (from --redis-channel): needs the Redis"),
        (["serve", "--redis-url", "redis://h", "--redis-channel", "a\nb"], 2, "(from --redis-channel): must be text"),
        (["serve"], 3, "SECRET_KEY"),
        (["user", "set-password", "nobody"], 1, "no such user: nobody"),
        (["user", "list", "--database-url", "sqlite:///missing.db"], 3, "automoderate database create"),
    ],
)
def test_exit_statuses_and_one_line(arguments: list[str], status: int, said: str) -> None:
    assert said in refused(shell(*arguments), status)


def test_version_and_help_are_quick_and_complete() -> None:
    code = (
        "import sys; from automoderate.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'flask', 'sqlalchemy', 'asyncio', 'trio', 'requests'} & sys.modules.keys()))"
    )
    for flag, said in (("--version", "automoderate 0.1.0"), ("--help", "Usage: automoderate")):
        result = subprocess.run(
            [sys.executable, "-c", code, flag], env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert result.stdout.startswith(said)
        assert result.stdout.endswith("[]\n"), "nothing heavy was imported for that"
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def commands(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(group, click.Group):
        return [path]
    context = click.Context(group)
    found = [path]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name))
    return found


def test_every_command_has_help_with_an_example() -> None:
    every = commands(cli)
    assert ("user", "set-password") in every
    assert ("database", "create") in every
    for path in every:
        result = invoke(*path, "--help")
        assert result.exit_code == 0, path
        assert f"automoderate {' '.join(path)} ".strip() in result.stdout.partition("\n")[2], path


def test_a_group_without_a_command_shows_its_help() -> None:
    result = invoke("user")
    assert result.exit_code == 2
    assert "deactivate" in result.stderr


def test_the_console_script_is_this_command_line() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"automoderate": "automoderate.cli:main"}


# serve --check-config -----------------------------------------------------------------------------------------


def test_check_config_shows_every_option_with_its_source_and_hides_secrets(folder: Path) -> None:
    (folder / "options.toml").write_text("max_rooms = 7\ntrusted_proxy = ['10.0.0.0/8']\n")
    Database("sqlite:///x.db").create_all()
    result = invoke(
        "serve", "--check-config", "--port", "81", "--config", "options.toml",
        SECRET_KEY=SECRET, DATABASE_URL="sqlite:///x.db", AUTOMODERATE_PING_TIMEOUT="5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for line in (
        "port = 81  # --port",
        "max_rooms = 7  # options.toml",
        'trusted_proxy = ["10.0.0.0/8"]  # options.toml',
        "ping_timeout = 5.0  # AUTOMODERATE_PING_TIMEOUT",
        'host = "127.0.0.1"  # default',
        'database_url = "sqlite:///x.db"  # DATABASE_URL',
        f"# secret_key is set, hidden, {len(SECRET)} characters  # SECRET_KEY",
        "# wsgi is not set",
    ):
        assert line in result.stdout.splitlines()
    assert SECRET not in result.output
    assert tomllib.loads(result.stdout)["max_rooms"] == 7, "what it shows is a file to start from"


def test_check_config_makes_nothing(folder: Path) -> None:
    result = invoke("serve", "--check-config", SECRET_KEY=SECRET)
    assert result.exit_code == 0, result.output
    assert list(folder.iterdir()) == []


def test_check_config_names_every_problem(folder: Path) -> None:
    result = invoke("serve", "--check-config", "--wsgi", "no_such_module:app", "--database-url", "sqlite:///missing.db")
    assert result.exit_code == 3
    assert "cannot load the application no_such_module:app: ModuleNotFoundError" in result.stderr
    assert "cannot open sqlite:///missing.db" in result.stderr
    result = invoke("serve", "--check-config", "--database-url", "postgresql://ann:hush@127.0.0.1:1/x")
    assert result.exit_code == 3
    assert "SECRET_KEY" in result.stderr
    assert "hush" not in result.output


# serve --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--check-config",)])
def test_a_redis_that_is_away_is_one_line(folder: Path, closed_port: int, flags: tuple[str, ...]) -> None:
    where = f"redis://127.0.0.1:{closed_port}/0"
    given = where.replace("//", "//ann:hush@")
    result = invoke("serve", *flags, "--redis-url", given, SECRET_KEY=SECRET)
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: cannot use Redis at {where}: ")
    assert line.endswith("; see --redis-url")
    assert "hush" not in result.output
    assert list(folder.iterdir()) == []


def test_serve_refuses_what_cannot_start_in_one_line(folder: Path) -> None:
    (folder / "broken_app.py").write_text("raise RuntimeError('no\\nconfiguration')\nimport os")
    (folder / "number_app.py").write_text("app = 5")
    (folder / "keyless_app.py").write_text("import flask\napp = flask.Flask('x')")
    with closing(sqlite3.connect(folder / "empty.db")) as connection, connection:
        connection.execute("CREATE TABLE notes (text)")
    for arguments, said in (
        (["--wsgi", "broken_app:app"], "RuntimeError: no configuration"),
        (["--wsgi", "number_app:app"], "no WSGI application but a int"),
        (["--wsgi", "number_app:missing"], "has no attribute 'missing'"),
        (["--wsgi", "keyless_app:app"], "has no secret key"),
        (["--database-url", "sqlite:///missing.db"], "automoderate database create --database-url"),
        (["--database-url", "sqlite:///empty.db"], "no table api_keys, project_members, projects, users"),
    ):
        assert said in refused(invoke("serve", *arguments, SECRET_KEY=SECRET), 3)
    assert not (folder / "missing.db").exists()
    message = refused(invoke("serve"), 3)
    assert "secrets.token_urlsafe" in message
    assert not (folder / "automoderate.sqlite3").exists()


def test_serve_says_that_the_port_is_taken() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        message = refused(invoke("serve", "--port", str(port), SECRET_KEY=SECRET), 3)
    assert message == f"cannot listen on 127.0.0.1 port {port}: the port is taken; choose another with --port"


def test_serve_says_that_the_address_is_not_ours() -> None:
    assert "cannot listen on 192.0.2.1" in refused(invoke("serve", "--host", "192.0.2.1", SECRET_KEY=SECRET), 3)


def test_serve_warns_of_a_weak_secret(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        invoke("serve", "--port", str(taken.getsockname()[1]), SECRET_KEY="short")
    assert "the secret key is weak" in caplog.text
    assert "short" not in caplog.text


def test_serve_makes_its_database_listens_and_leaves_on_a_signal(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SECRET_KEY": SECRET}
    with subprocess.Popen(
        [sys.executable, "-m", "automoderate", "serve", "--port", "0"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert "listening on http://127.0.0.1:" in line
            port = int(line.partition("127.0.0.1:")[2].split()[0])
            with closing(socket.create_connection(("127.0.0.1", port), 60)) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                connection.settimeout(60)
                assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()
    database = Database("sqlite:///automoderate.sqlite3", read_only=True)
    database.check()
    database.close()
