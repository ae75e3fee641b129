"""The command line: exit statuses, one-line errors, and what serve says before it serves."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from automoderate import __version__, app
from automoderate.cli import COMMANDS, cli
from automoderate.dashboard import pages
from automoderate.directory import database as database_module
from automoderate.directory.database import Database
from automoderate.notifier import WebSocketNotifier
from kits import ROOT

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
        (["user", "set-password", "nobody"], 3, "there is no automoderate.sqlite3 in this folder"),
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
    for flag, said in (("--version", f"automoderate {__version__}"), ("--help", "Usage: automoderate")):
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


def test_a_command_that_writes_does_not_say_that_it_only_reads() -> None:
    assert "only reads" in " ".join(invoke("serve", "--help").stdout.split())
    for path in commands(cli):
        if path and path[0] in ("user", "project", "member", "apikey", "database"):
            assert "only reads" not in " ".join(invoke(*path, "--help").stdout.split()), path


def test_a_group_without_a_command_shows_its_help() -> None:
    result = invoke("user")
    assert result.exit_code == 2
    assert "deactivate" in result.stderr


def test_a_terminal_that_has_not_every_character_is_shown_the_others() -> None:
    """What commands print may have been written by anybody, and one character must not end them."""
    result = subprocess.run(
        [sys.executable, "-m", "automoderate", "apikey", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "iso8859-1"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert result.stderr == ""
    assert "automoderate apikey revoke am_\\u2026\n" in result.stdout


def test_the_console_script_is_this_command_line() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"automoderate": "automoderate.cli:main"}


# Addresses ----------------------------------------------------------------------------------------------------

BAD_REDIS_URLS = [
    ("redis://ann:hush@", "must be redis://host:port/0"),
    ("redis://ann:hu/sh@h", "must be redis://host:port/0"),
    ("redis://:hu#sh@h/0", "must be redis://host:port/0"),
    ("redis://:hush@h/0#1", "in a password write # as %23"),
    ("redis://:hush@h/forum", "behind the host stands the number of the database"),
    ("redis://:hush@h/0?decode_responses=true", "the option decode_responses is not known; it may have db, username"),
    ("redis://:hush@h/0?hush hush@h", "an option is not known"),
    ("redis://h/0?HUSH@h", "an option is not known"),
    ("redis://:hush@h/0?ssl_cert_reqs=none", "the option ssl_cert_reqs goes with rediss:// only"),
    ("rediss://:hush@h/0?ssl_cert_reqs=never", "the option ssl_cert_reqs must be none, optional or required"),
    ("rediss://:hush@h/0?ssl_check_hostname=perhaps", "the option ssl_check_hostname must be true or false"),
    ("redis://:hush@h/0?socket_timeout=nan", "the option socket_timeout must be a number of seconds greater than 0"),
    ("redis://:hush@h/0?db=-1", "the option db must be a whole number, 0 or more"),
    ("redis://h/0?password=", "the option password has no value"),
    ("redis://:hush@h..b/0", "must be redis://host:port/0"),
    (f"rediss://:hush@{'h' * 64}", "must be redis://host:port/0"),
    ("unix://ann:hush@run/redis.sock", "unix:///path"),
    ("http://ann:hush@h", "must be redis://host:port/0"),
]


@pytest.mark.parametrize(("url", "said"), BAD_REDIS_URLS)
@pytest.mark.parametrize("command", [("serve",), ("serve", "--check-config"), ("user", "deactivate", "ann")])
def test_a_redis_address_that_cannot_be_used_is_wrong_usage(
    folder: Path, command: tuple[str, ...], url: str, said: str
) -> None:
    result = invoke(*command, "--redis-url", url, SECRET_KEY=SECRET)
    message = refused(result, 2)
    assert message.startswith("redis_url (from --redis-url): ")
    assert said in message
    assert "hush" not in result.output.lower()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("url", "said"), BAD_REDIS_URLS)
def test_and_the_notifier_says_the_same(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        WebSocketNotifier(redis_url=url)
    assert "hush" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("redis://ann:hush@h:6380/3", "redis://***@h:6380/3"),
        ("redis://h/0?password=hush&username=ann", "redis://h/0?password=***&username=ann"),
        ("unix:///run/redis.sock?db=1&password=hush", "unix:///run/redis.sock?db=1&password=***"),
        ("rediss://:hush@h/?ssl_cert_reqs=CERT_NONE", "rediss://***@h/?ssl_cert_reqs=CERT_NONE"),
        ("rediss://h?ssl_keyfile=k&ssl_password=hush", "rediss://h?ssl_keyfile=k&ssl_password=***"),
    ],
)
def test_check_config_shows_a_redis_address_without_its_secrets(url: str, shown: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "examine", lambda _: app.Examination([], None))
    result = invoke("serve", "--check-config", "--redis-url", url, SECRET_KEY=SECRET)
    assert result.exit_code == 0, result.output
    assert f'redis_url = "{shown}"  # --redis-url' in result.stdout.splitlines()
    assert "hush" not in result.output


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6217", "ftp://h", "http://", "http://h:0", "http://h:99999", "http://h:port", "http://[::1",
        "http://h h", "http://h\n", "http://h/?x=hush", "http://ann:hush@h#hush", "//ann:hush@h",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "command",
    [("publish", "p", "--api-key", "am_x"), ("watch", "p", "--cookie", "c"), ("login",), ("user", "remove", "ann")],
)
def test_a_server_address_that_is_none_is_wrong_usage(command: tuple[str, ...], url: str, folder: Path) -> None:
    result = invoke(*command, "--url", url)
    assert "is no server address; it should look like http://127.0.0.1:6217" in refused(result, 2)
    assert "hush" not in result.output
    with pytest.raises(ValueError, match="is no server address") as caught:
        WebSocketNotifier(url=url, api_key="am_x")
    assert "hush" not in str(caught.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", [("publish", "p", "--api-key", "am_x"), ("watch", "p"), ("login",)])
def test_a_password_in_an_address_is_not_repeated(command: tuple[str, ...], closed_port: int) -> None:
    url = f"http://ann:hush@127.0.0.1:{closed_port}/moderation"
    who = {} if command[0] == "publish" else {"AUTOMODERATE_USERNAME": "ann", "AUTOMODERATE_PASSWORD": "x"}
    message = refused(invoke(*command, "--url", url, **who), 3)
    assert message.startswith(f"cannot reach http://***@127.0.0.1:{closed_port}/moderation: Connection refused")


# serve --check-config -----------------------------------------------------------------------------------------


def test_check_config_shows_every_option_with_its_source_and_hides_secrets(folder: Path) -> None:
    (folder / "options.toml").write_text("max_rooms = 7\ntrusted_proxy = ['10.0.0.0/8']\n")
    with closing(Database("sqlite:///x.db")) as database:
        database.create_all()
    result = invoke(
        "serve", "--check-config", "--port", "81", "--config", "options.toml",
        SECRET_KEY=SECRET, DATABASE_URL="sqlite:///x.db", AUTOMODERATE_PING_TIMEOUT="5",
        SECRET_KEY_FALLBACKS="hush hush-too",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for line in (
        "port = 81  # --port",
        "max_rooms = 7  # options.toml",
        'trusted_proxy = ["10.0.0.0/8"]  # options.toml',
        "ping_timeout = 5.0  # AUTOMODERATE_PING_TIMEOUT",
        'host = ["127.0.0.1"]  # default',
        "# secret_key_fallbacks is set, hidden, 2 keys  # SECRET_KEY_FALLBACKS",
        'database_url = "sqlite:///x.db"  # DATABASE_URL',
        f"# secret_key is set, hidden, {len(SECRET)} characters  # SECRET_KEY",
        "# wsgi is not set",
    ):
        assert line in result.stdout.splitlines()
    assert SECRET not in result.output
    assert "hush" not in result.output
    assert tomllib.loads(result.stdout)["max_rooms"] == 7, "what it shows is a file to start from"


def test_check_config_makes_nothing(folder: Path) -> None:
    result = invoke("serve", "--check-config", SECRET_KEY=SECRET)
    assert result.exit_code == 0, result.output
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_check_config_names_every_problem() -> None:
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
    shown = where.replace("//", "//***@")
    assert line.startswith(f"Error: cannot use Redis at {shown}: ")
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


def test_the_first_process_of_a_container_ends_while_it_starts(folder: Path) -> None:
    """A signal that nobody takes does nothing to process 1."""
    code = "import os, signal\nos.getpid = lambda: {}\nimport automoderate.cli as cli\ncli.main()"
    (folder / "signalled.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)")
    for process, status in ((1, 128 + signal.SIGTERM), (2, -signal.SIGTERM)):
        result = subprocess.run(
            [sys.executable, "-c", code.format(process), "serve", "--wsgi", "signalled:app"],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (status, b"")


def test_serve_says_that_the_port_is_taken() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        message = refused(invoke("serve", "--port", str(port), SECRET_KEY=SECRET), 3)
    assert message == f"cannot listen on 127.0.0.1 port {port}: the port is taken; choose another with --port"


def test_serve_says_that_the_address_is_not_ours() -> None:
    assert "cannot listen on 192.0.2.1" in refused(invoke("serve", "--host", "192.0.2.1", SECRET_KEY=SECRET), 3)


def test_serve_says_which_index_is_missing_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database("sqlite:///existing.db")
    database.create_all()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        arguments = ("serve", "--database-url", "sqlite:///existing.db", "--port", str(taken.getsockname()[1]))
        assert "CREATE INDEX" not in invoke(*arguments, SECRET_KEY=SECRET).stderr
        with database.begin() as connection:
            connection.exec_driver_sql("DROP INDEX ix_project_members_user_id_project_id")
        assert "CREATE INDEX" not in invoke(*arguments, SECRET_KEY=SECRET).stderr, "there are few memberships"
        monkeypatch.setattr(database_module, "MANY_MEMBERSHIPS", 0)
        said = invoke(*arguments, SECRET_KEY=SECRET).stderr
    assert "to make it: CREATE INDEX ix_project_members_user_id_project_id ON project_members" in said
    database.close()


def test_serve_says_at_its_start_that_the_browsers_client_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert "Socket.IO client" not in invoke("serve", "--port", port, SECRET_KEY=SECRET).stderr
        monkeypatch.setattr(pages, "CLIENT", "vendor/not-there.js")
        said = invoke("serve", "--port", port, SECRET_KEY=SECRET).stderr
    (line,) = [line for line in said.splitlines() if "Socket.IO client" in line]
    assert "the browser's Socket.IO client is not installed, so that live pages show nothing: run npm ci" in line


def test_serve_warns_of_a_weak_secret() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        result = invoke("serve", "--port", str(taken.getsockname()[1]), SECRET_KEY="shrt")
    assert "WARNING automoderate.app: the secret key is weak" in result.stderr
    assert "shrt" not in result.stderr


@pytest.mark.usefixtures("folder")
def test_serve_makes_its_database_listens_and_leaves_on_a_signal() -> None:
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
