"""The administrative commands tell every node through Redis, where none can be reached over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from automoderate.cli import announce as announcing
from automoderate.cli import cli
from automoderate.core.hub import AccessChanged, Input, LoggedOut
from kits import until
from kits.redis_server import Node, RedisServer

TOLD = "The nodes were told through Redis: it takes effect at once."


pytestmark = pytest.mark.usefixtures("empty_folder")


def run(*arguments: str, status: int = 0) -> str:
    """What a command prints: the answer, or the one line of its error."""
    result = CliRunner().invoke(cli, arguments, input="secret\n", prog_name="automoderate")
    assert result.exit_code == status, result.output
    (line,) = result.output.strip().splitlines()
    return line.removeprefix("Error: ")


def add_user(name: str) -> str:
    return run("user", "add", name, f"{name}@example.org", "--password-stdin")


def test_every_node_hears_each_command(
    new_node: Callable[..., Node], server: RedisServer, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [new_node(), new_node()]
    add_user("ann")
    bob = add_user("bob")
    forum = run("project", "add", "Forum", "--owner", "ann")
    run("member", "add", "Forum", "bob")
    by_flag = ["--redis-url", server.url]
    assert run("member", "remove", "Forum", "bob", *by_flag) == f"bob may no longer see Forum. {TOLD}"
    monkeypatch.setenv("AUTOMODERATE_REDIS_URL", server.url)
    assert run("user", "disconnect", "bob@example.org") == f"bob is disconnected. {TOLD}"
    assert run("user", "deactivate", "bob") == f"bob is locked out. {TOLD}"
    monkeypatch.delenv("AUTOMODERATE_REDIS_URL")
    (empty_folder / "options.toml").write_text(f"redis_url = '{server.url}'")
    assert run("user", "remove", "bob", "--config", "options.toml") == f"bob is removed. {TOLD}"
    assert run("project", "remove", "Forum", *by_flag) == f"Forum is removed. {TOLD}"
    expected: list[Input] = [
        AccessChanged(bob, forum),
        LoggedOut(bob),
        AccessChanged(user_id=bob),
        AccessChanged(user_id=bob),
        AccessChanged(project_id=forum),
    ]
    for node in nodes:
        until(lambda node=node: len(node.told) == len(expected), "the node hears all")  # type: ignore[misc]
        assert node.told == expected


def test_a_redis_that_is_away_is_said(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "TIMEOUT", 0.2)
    monkeypatch.setenv("AUTOMODERATE_REDIS_URL", server.url)
    add_user("bob")
    server.kill()
    why = f"Redis has not taken it: Error 111 connecting to 127.0.0.1:{server.port}. Connection refused"
    assert run("user", "deactivate", "bob") == (
        f"bob is locked out. The nodes were not told ({why}): it takes effect at their next re-check."
    )
    assert run("user", "disconnect", "bob", status=3) == f"bob is not disconnected: {why}"


def test_a_redis_that_refuses_is_said(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "TIMEOUT", 0.2)
    add_user("bob")
    with server.client() as client:
        client.config_set("requirepass", "secret")
    said = run("user", "disconnect", "bob", "--redis-url", server.url, status=3)
    assert said == "bob is not disconnected: Redis has not taken it: Authentication required"
    with_password = server.url.replace("//", "//:secret@")
    assert run("user", "disconnect", "bob", "--redis-url", with_password) == f"bob is disconnected. {TOLD}"
