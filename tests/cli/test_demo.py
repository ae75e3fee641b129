"""The demo: what it prints is true, its pipeline is busy and lifelike, and a restart keeps everybody logged in."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from automoderate import control, update_payloads
from automoderate.cli.common import program
from automoderate.cli.demo import DemoData, Pipeline, demo, describe
from automoderate.cli.login import log_in
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.notifier import WebSocketNotifier
from kits import PATIENCE, ROOT
from kits.processes import steady_port


class Demo:
    """``automoderate demo`` in a process of its own; ``text`` is what it printed."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "automoderate", "demo", *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        self.text = "".join(lines)

    def command(self, name: str, more: str = "") -> list[str]:
        """A printed command line as a shell takes it, in the folder in which the demo was started."""
        found = re.search(rf"^ *((?:\w+=\S+ )?\S*(?:python\S* -m )?automoderate {name} .*)$", self.text, re.MULTILINE)
        assert found, self.text
        return ["sh", "-c", f"exec env {found[1]} {more}"]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status and what it wrote to standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


Start = Callable[..., Demo]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start demos whose temporary files are in this test's folder, and stop them."""
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop(signal.SIGKILL)
        for stream in (one.process.stdout, one.process.stderr):
            assert stream is not None
            stream.close()


def test_what_it_prints_works_as_printed(start: Start, tmp_path: Path) -> None:
    running = start("--port", "0", "--rate", "50")
    (base,) = re.findall(r"AutoModerate demo: (http://127\.0\.0\.1:\d+)/", running.text)
    projects = re.findall(rf"page +({base}/projects/\S+)", running.text)
    passwords = dict(re.findall(r"(alice|bob) +password (\S+)", running.text))
    assert len(projects) == len(passwords) == 2
    for name, password in passwords.items():
        with requests.Session() as session:
            log_in(session, base, name, password)
            statuses = [session.get(page, timeout=PATIENCE).status_code for page in projects]
        assert (statuses[0], statuses[1] == 200) == (200, name == "bob")
    printed = subprocess.run(
        running.command("publish"), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert re.fullmatch(r"\d+-\d+\n", printed.stdout)
    watched = subprocess.run(
        running.command("watch", "--count 20"), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert watched.stdout.count("\n") == 20
    exports = [line.strip() for line in running.text.splitlines() if line.startswith("  export ")]
    script = "\n".join([*exports, 'echo "$URL $PROJECT $API_KEY $COOKIE"'])
    url, project, key, cookie = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout.split()
    assert f"API key  {key}\n" in running.text
    assert (url, project) == (base, projects[0].rpartition("/")[2])
    assert requests.get(projects[0], headers={"Cookie": cookie}, timeout=PATIENCE).history == []
    assert list(tmp_path.glob("automoderate-demo-*"))
    assert running.stop() == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_it_quietly(start: Start) -> None:
    assert start("--port", "0").stop(signal.SIGINT) == (0, "")


def test_its_log_may_be_objects(start: Start) -> None:
    running = start("--port", "0", "--log-format", "json")
    (base,) = re.findall(r"AutoModerate demo: (http://127\.0\.0\.1:\d+)/", running.text)
    command = {"Authorization": f"Bearer {control.sign('a secret that is not the demo')}"}
    requests.post(f"{base}/api/access-changes", json={"user_id": "u"}, headers=command, timeout=PATIENCE)
    status, errors = running.stop()
    assert status == 0
    assert [json.loads(line)["event"] for line in errors.splitlines()] == ["command_refused"]


def test_a_restart_lets_open_pages_come_back(start: Start) -> None:
    """Somebody who logged in to the first demo sees the second one's updates without logging in again."""
    port = str(steady_port())
    first = start("--port", port, "--rate", "50", "--seed", "7")
    with subprocess.Popen(
        first.command("watch"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stderr is not None
        try:
            assert "watching project_" in watching.stderr.readline()
            first.stop(signal.SIGKILL)
            assert "connection lost" in watching.stderr.readline()
            second = start("--port", port, "--rate", "50", "--seed", "7")
            assert second.text == first.text
            assert "connected again" in watching.stderr.readline()
        finally:
            watching.kill()


def test_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(demo, ["--port", str(port)])
    assert result.exit_code == 3
    assert result.stderr == (
        f"Error: cannot listen on 127.0.0.1 port {port}: the port is taken; choose another with --port\n"
    )


@pytest.mark.parametrize(
    "arguments", [["--rate", "0"], ["--rate", "nan"], ["--rate", "-1"], ["--port", "70000"], ["--adapter", "none"]]
)
def test_wrong_options(arguments: list[str]) -> None:
    assert CliRunner().invoke(demo, arguments).exit_code == 2


def test_a_host_that_is_none() -> None:
    result = CliRunner().invoke(demo, ["--host", "not a host"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "must be a host name" in result.stderr


def test_listening_beyond_this_machine_is_warned_of() -> None:
    data = DemoData.of(1)
    assert "WARNING" not in describe(data, ["127.0.0.1"], 6217, 2.0)
    assert "WARNING" not in describe(data, ["::1"], 6217, 2.0)
    assert "WARNING: listening on 0.0.0.0" in describe(data, ["0.0.0.0"], 6217, 2.0)
    assert "http://127.0.0.1:6217/" in describe(data, ["0.0.0.0"], 6217, 2.0)
    assert "WARNING: listening on 192.0.2.1. " in describe(data, ["127.0.0.1", "192.0.2.1"], 6217, 2.0)
    assert "http://[::1]:6218/" in describe(data, ["::1"], 6218, 2.0)


@pytest.mark.parametrize(
    ("called", "on_the_path", "shown"),
    [
        ("bin/automoderate", True, "automoderate"),
        ("bin/automoderate", False, "bin/automoderate"),
        ("bin of ann/automoderate", False, "'bin of ann/automoderate'"),
        ("lib/automoderate/__main__.py", False, f"{sys.executable} -m automoderate"),
    ],
)
def test_commands_are_printed_as_they_can_be_called(
    called: str, on_the_path: bool, shown: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / called
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(path), "demo"])
    monkeypatch.setenv("PATH", str(path.parent) if on_the_path else str(folder))
    assert program() == shown
    text = describe(DemoData.of(1), ["127.0.0.1"], 6217, 2.0, shown)
    assert f"  {shown} publish " in text
    assert ("in this folder" in text) == (shown.lstrip("'").startswith("bin"))
    monkeypatch.chdir(Path(__file__).parent)
    assert program().strip("'") == (str(path) if shown.strip("'") == called else shown), "it works from here, too"


def test_the_seed_decides_ids_and_passwords(tmp_path: Path) -> None:
    assert DemoData.of(1) == DemoData.of(1)
    assert DemoData.of(1) != DemoData.of(2)
    data = DemoData.of(3)
    database = Database(f"sqlite:///{tmp_path / 'demo.sqlite3'}")
    database.create_all()
    data.save(database)
    alice, bob = data.users
    forum, market = data.projects
    assert [info.name for info in accounts.projects_for(database, alice.id)] == ["Harbour Forum"]
    assert [info.role for info in accounts.projects_for(database, bob.id)] == ["member", "owner"]
    for project in (forum, market):
        keys = accounts.list_api_keys(database, project.id)
        assert [(key.key, key.is_active) for key in keys] == [(project.api_key, True)]
    assert accounts.authenticate(database, "alice", alice.password) is not None
    database.close()


class Listener:
    """A server that only notes what is published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, dict[str, Any]]] = []

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], _trace: str | None = None) -> Future[str]:
        self.published.append((project_id, event, update_payloads.validate(project_id, event, dict(data))))
        future: Future[str] = Future()
        future.set_result("1-0")
        return future

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        raise AssertionError((user_id, project_id))

    def logged_out(self, user_id: str) -> Future[None]:
        raise AssertionError(user_id)


def test_the_pipeline_is_lifelike() -> None:
    demo_data, listener = DemoData.of(1), Listener()
    pipeline = Pipeline(WebSocketNotifier(realtime=listener), demo_data.projects, 4.0, random.Random(1))
    now = 100.0
    while now < 700.0:
        now = pipeline.step(now)
    events = Counter(event for _, event, _ in listener.published)
    assert 2000 < events["content_received"] < 2800  # 4 a second for ten minutes
    assert events["moderation_update"] > events["content_received"] - 40
    assert events["rule_update"] > 20
    assert events["stats_update"] > 100
    assert {project for project, _, _ in listener.published} == {project.id for project in demo_data.projects}
    decided = [data for _, event, data in listener.published if event == "moderation_update"]
    assert {data["status"] for data in decided} == {"approved", "rejected", "flagged"}
    assert {data["moderator_type"] for data in decided} == {"rule", "ai", "manual"}
    assert all(bool(data["rule_name"]) == (data["moderator_type"] == "rule") for data in decided)
    assert len({data["processing_time"] for data in decided}) > 500
    received: set[str] = set()
    for _, event, data in listener.published:
        if event == "content_received":
            received.add(data["content_id"])
        elif event == "moderation_update":
            received.remove(data["content_id"])  # each is received first, and decided once
    *_, (project, _, stats) = (update for update in listener.published if update[1] == "stats_update")
    assert stats["total"] == stats["approved"] + stats["rejected"] + stats["flagged"]
    assert project in {project.id for project in demo_data.projects}


def test_a_pause_is_not_made_up_for() -> None:
    demo_data, listener = DemoData.of(1), Listener()
    pipeline = Pipeline(WebSocketNotifier(realtime=listener), demo_data.projects, 10.0, random.Random(1))
    pipeline.step(0.0)
    listener.published.clear()
    pipeline.step(3600.0)
    assert sum(event == "content_received" for _, event, _ in listener.published) < 30


def test_nothing_is_left_in_the_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        CliRunner().invoke(demo, ["--port", str(taken.getsockname()[1])])
    assert list(tmp_path.iterdir()) == []
