"""The command that prints a project's updates: against a real server, cut off, restarted, and refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from automoderate.cli import login as login_module
from automoderate.cli import watch as watch_module
from automoderate.cli.common import harmless
from automoderate.cli.watch import Watcher, describe, watch
from kits import PATIENCE
from kits.cables import Cable, NoWebSocket
from kits.live_server import PASSWORD, LiveServer, running_server
from kits.terminals import Open, terminals


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def terminal() -> Iterator[Open]:
    with terminals() as open_one:
        yield open_one


def alice(server: LiveServer, *more: str) -> list[str]:
    return [server.project, "--url", server.url, "--username", "alice", *more]


def run(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(watch, list(arguments), input=stdin)


def failed(result: Result, exit_code: int, message: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1


# With a server ------------------------------------------------------------------------------------------------


def test_updates_are_printed_in_order(server: LiveServer, terminal: Open) -> None:
    watching = terminal(*alice(server, "--count", "200", "--json"), AUTOMODERATE_PASSWORD=PASSWORD)
    assert watching.err.get(timeout=PATIENCE) == f"watching project_{server.project}; Ctrl-C ends"
    for number in range(200):
        server.publish(number)
    updates = [json.loads(watching.out.get(timeout=PATIENCE)) for _ in range(200)]
    assert [update["data"]["number"] for update in updates] == list(range(200))
    assert updates[0]["event"] == "moderation_update"
    assert watching.wait() == 0
    assert watching.err.empty()


def test_lines_for_people_and_ctrl_c(server: LiveServer, terminal: Open) -> None:
    watching = terminal(*alice(server), AUTOMODERATE_PASSWORD=PASSWORD)
    watching.err.get(timeout=PATIENCE)
    server.publish(1)
    line = watching.out.get(timeout=PATIENCE)
    assert line[8:19] == "  approved "
    assert "\x1b" not in line  # a pipe has no colours
    watching.interrupt()
    assert watching.wait() == 130
    assert watching.err.empty()
    assert watching.out.empty()


def test_a_session_cookie_instead_of_a_login(server: LiveServer, terminal: Open) -> None:
    cookie = server.cookie("alice")
    for given in (cookie, cookie.removeprefix("session="), f"other=1; {cookie}"):
        watching = terminal(server.project, "--url", server.url, "--count", "1", AUTOMODERATE_COOKIE=given)
        assert "watching" in watching.err.get(timeout=PATIENCE)
        server.publish(1)
        assert watching.wait() == 0


def test_a_restarted_server(tmp_path: Path, terminal: Open) -> None:
    with running_server(tmp_path) as own:
        watching = terminal(*alice(own, "--count", "2", "--json"), AUTOMODERATE_PASSWORD=PASSWORD)
        watching.err.get(timeout=PATIENCE)
        own.publish(1)
        assert json.loads(watching.out.get(timeout=PATIENCE))["data"]["number"] == 1
        own.stop(signal.SIGKILL)
        assert "connection lost" in watching.err.get(timeout=PATIENCE)
        own.start()
        # The history was in the killed process's memory.
        assert "some updates were missed" in watching.err.get(timeout=PATIENCE)
        own.publish(2)
        assert json.loads(watching.out.get(timeout=PATIENCE))["data"]["number"] == 2
        assert watching.wait() == 0


def test_what_was_missed_while_cut_off_is_printed_first(server: LiveServer, terminal: Open) -> None:
    cable = Cable(server.port)
    try:
        arguments = [server.project, "--url", cable.url, "--username", "alice", "--count", "4", "--json"]
        watching = terminal(*arguments, AUTOMODERATE_PASSWORD=PASSWORD)
        watching.err.get(timeout=PATIENCE)
        server.publish(1)
        watching.out.get(timeout=PATIENCE)
        cable.cut()
        assert "connection lost" in watching.err.get(timeout=PATIENCE)
        server.publish(2)
        server.publish(3)
        cable.plugged.set()
        assert watching.err.get(timeout=PATIENCE) == "connected again; nothing was missed"
        server.publish(4)
        came = [json.loads(watching.out.get(timeout=PATIENCE))["data"]["number"] for _ in range(3)]
        assert came == [2, 3, 4]
        assert watching.wait() == 0
    finally:
        cable.close()


REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"), [(REFUSAL, "it answered 403"), (b"", "Connection to remote host was lost")]
)
def test_a_proxy_that_lets_no_websocket_through(server: LiveServer, terminal: Open, answer: bytes, said: str) -> None:
    proxy = NoWebSocket(server.port, answer)
    try:
        arguments = [server.project, "--url", proxy.url, "--username", "alice", "--count", "3", "--json"]
        watching = terminal(*arguments, AUTOMODERATE_PASSWORD=PASSWORD)
        note = f"no WebSocket at {proxy.url}: {said}; watching by long-polling"
        assert watching.err.get(timeout=PATIENCE) == note
        assert "watching" in watching.err.get(timeout=PATIENCE)
        for number in range(3):
            server.publish(number)
        came = [json.loads(watching.out.get(timeout=PATIENCE))["data"]["number"] for _ in range(3)]
        assert came == [0, 1, 2]
        assert watching.wait() == 0
        assert watching.err.empty()
    finally:
        proxy.close()


def test_refusals(server: LiveServer) -> None:
    denied = "Access denied - you are not a member of this project"
    address = ("--url", server.url)
    arguments = (*address, "--username", "alice", "--password-stdin")
    failed(run(server.other, *arguments, stdin=f"{PASSWORD}\n"), 1, denied)
    failed(run("nowhere", *arguments, stdin=f"{PASSWORD}\n"), 1, "Project not found")
    failed(run(server.project, *arguments, stdin="wrong\n"), 1, "that username or password is not right")
    failed(run(server.project, *address, "--cookie", "bad"), 1, "Authentication required")


def test_a_logout_somewhere_else(server: LiveServer, terminal: Open) -> None:
    watching = terminal(*alice(server), AUTOMODERATE_PASSWORD=PASSWORD)
    watching.err.get(timeout=PATIENCE)
    server.announce(user_id=server.users["alice"], logged_out=True)
    assert watching.err.get(timeout=PATIENCE) == "Error: Authentication required"
    assert watching.wait() == 1


# Without one --------------------------------------------------------------------------------------------------


def test_nobody_there(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    result = run("p", "--url", url, "--username", "alice", "--password-stdin", stdin="x")
    failed(result, 3, f"cannot reach {url}: Connection refused; is the server running")
    failed(run("p", "--url", url, "--cookie", "c"), 3, f"cannot reach {url}: Connection refused; is the server running")


def test_a_server_that_is_something_else(scripted_api: Any) -> None:
    arguments = ("p", "--url", scripted_api.url)
    result = run(*arguments, "--username", "alice", "--password-stdin", stdin="x")
    failed(result, 1, "there is no login form at")
    refused = "does not let anybody connect, by WebSocket: it answered 405; by long-polling: Unexpected status code 405"
    failed(run(*arguments, "--cookie", "c"), 1, refused)


def test_wrong_usage() -> None:
    failed(run("p"), 2, "who logs in?")
    failed(run("p", "--username", "alice"), 2, "there is no terminal to ask for the password")
    failed(run("p", "--url", "localhost"), 2, "is no server address")
    failed(run("p", "--cookie", "a\nb"), 2, "--cookie is no cookie")
    assert run("p", "--count", "0").exit_code == 2


def test_ctrl_c_while_the_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> str:
        raise click.Abort

    monkeypatch.setattr(login_module, "has_terminal", lambda: True)
    monkeypatch.setattr(click, "prompt", interrupted)
    result = run("p", "--username", "alice")
    assert (result.exit_code, result.output) == (130, "")


# Lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\r\tand\x08 a\x7f tab", "two\\nlines\\r\\tand\\x08 a\\x7f tab"),
        ("c1 \x9b31m nel \x85", "c1 \\x9b31m nel \\x85"),
        ("\u202eright to left", "\\u202eright to left"),
        ("line\u2028separator", "line\\u2028separator"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("no-break\xa0space", "no-break space"),
        ("family 👨\u200d👩\u200d👧, é, 日本", "family 👨\u200d👩\u200d👧, é, 日本"),
        (7, "7"),
    ],
)
def test_content_cannot_control_the_terminal(hostile: object, shown: str) -> None:
    assert harmless(hostile) == shown
    for name in ("content_preview", "moderator_name", "rule_name", "status"):
        assert shown in click.unstyle(describe("moderation_update", {name: hostile}))


def test_control_characters_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    watch_module.printer(True)("moderation_update", {"content_preview": "\x1b[2J\x7f\x9b\n"})
    out = capsys.readouterr().out
    assert [character for character in out if not character.isprintable()] == ["\n"]
    assert json.loads(out)["data"] == {"content_preview": "\x1b[2J\x7f\x9b\n"}


def test_a_line_tells_what_matters() -> None:
    data = {
        "status": "rejected",
        "moderator_name": "Rule",
        "rule_name": "Spam",
        "processing_time": 1.234,
        "content_preview": "Buy now",
        "timestamp": "2026-01-15T10:30:00+00:00",
    }
    line = describe("moderation_update", data)
    assert "\x1b[31m" in line
    assert click.unstyle(line)[8:].split() == ["rejected", "Rule:", "Spam", "1.23", "s", "Buy", "now"]
    line = describe("stats_update", {"total": 1, "event_id": "1768473000000-0"})
    assert line[8:] == '  stats_update  {"total": 1}'
    assert line[2] == line[5] == ":"


@pytest.mark.parametrize(
    "data",
    [None, [], "text", {}, {"timestamp": "never"}, {"timestamp": 7}, {"event_id": "9" * 19 + "-0"}, {"event_id": []}],
)
@pytest.mark.parametrize("event", ["moderation_update", "stats_update"])
def test_odd_updates_are_still_a_line(event: str, data: Any) -> None:
    line = describe(event, data)
    assert line.startswith("--:--:--")
    assert "\n" not in line


# Decisions ----------------------------------------------------------------------------------------------------


class Wire:
    """The client as far as the watcher tells it something."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, data: dict[str, Any]) -> None:
        self.sent.append((event, data))


def happens(watcher: Watcher, wire: Wire, what: str, data: Any = None) -> None:
    watcher._happened.put(watch_module._Happened(what, data))
    watcher._take(wire)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["timeout", "server_error", "rate_limited"])
def test_a_temporary_failure_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    monkeypatch.setattr(watch_module, "_ASK_AGAIN", 0.01)
    shown: list[str] = []
    watcher, wire = Watcher("p", "http://h", lambda event, _data: shown.append(event)), Wire()
    happens(watcher, wire, "connect")
    happens(watcher, wire, "error", {"message": "Please try again", "code": code})
    assert "Please try again; asking again" in capsys.readouterr().err
    watcher._take(wire)  # type: ignore[arg-type]
    assert wire.sent == [("join_project", {"project_id": "p"})] * 2
    happens(watcher, wire, "joined_project", {"project_id": "p", "room": "project_p", "last_event_id": "5-0"})
    happens(watcher, wire, "nobody knows this event", {})
    happens(watcher, wire, "stats_update", None)
    assert shown == ["stats_update"]
    happens(watcher, wire, "disconnect", "transport error")
    happens(watcher, wire, "connect")
    assert wire.sent[-1] == ("join_project", {"project_id": "p", "last_event_id": "5-0"})
    with pytest.raises(click.ClickException, match="the server ended the session"):
        happens(watcher, wire, "disconnect", "server disconnect")
    with pytest.raises(click.ClickException, match="the server reported an error"):
        happens(watcher, wire, "error", "odd")
