"""The demo: what it prints is true, its pipeline is busy and lifelike, and a restart keeps everybody logged in."""

from __future__ import annotations

import os
import random
import re
import shlex
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

sys.path.insert(0, str(Path(__file__).parent.parent / "clients"))

from live_server import PATIENCE, ROOT, steady_port

from automoderate import payloads
from automoderate.demo import Pipeline, World, demo, describe
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.notifier import WebSocketNotifier
from automoderate.watch import log_in


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

    def command(self, name: str) -> tuple[list[str], dict[str, str]]:
        """A printed command line, as words and environment."""
        found = re.search(rf"^ *((?:\w+=\S+ )?automoderate {name} .*)$", self.text, re.MULTILINE)
        assert found, self.text
        words = shlex.split(found[1])
        environment = {}
        while "=" in words[0]:
            key, _, environment[key] = words.pop(0).partition("=")
        assert words.pop(0) == "automoderate"
        return [sys.executable, "-m", "automoderate", *words], environment

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
    publish, environment = running.command("publish")
    printed = subprocess.run(
        publish,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert re.fullmatch(r"\d+-\d+\n", printed.stdout)
    watch, environment = running.command("watch")
    watched = subprocess.run(
        [*watch, "--count", "20"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert watched.stdout.count("\n") == 20
    assert list(tmp_path.glob("automoderate-demo-*"))
    assert running.stop() == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_it_quietly(start: Start) -> None:
    assert start("--port", "0").stop(signal.SIGINT) == (0, "")


def test_a_restart_lets_open_pages_come_back(start: Start) -> None:
    """Somebody who logged in to the first demo sees the second one's updates without logging in again."""
    port = str(steady_port())
    first = start("--port", port, "--rate", "50", "--seed", "7")
    watch, environment = first.command("watch")
    with subprocess.Popen(
        watch, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
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


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "-1"], ["--port", "70000"], ["--adapter", "none"]])
def test_wrong_options(arguments: list[str]) -> None:
    assert CliRunner().invoke(demo, arguments).exit_code == 2


def test_a_host_that_is_none() -> None:
    result = CliRunner().invoke(demo, ["--host", "not a host"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "must be a host name" in result.stderr


def test_listening_beyond_this_machine_is_warned_of() -> None:
    world = World.of(1)
    assert "WARNING" not in describe(world, "127.0.0.1", 6217, 2.0)
    assert "WARNING" not in describe(world, "::1", 6217, 2.0)
    assert "WARNING: listening on 0.0.0.0" in describe(world, "0.0.0.0", 6217, 2.0)
    assert "http://127.0.0.1:6217/" in describe(world, "0.0.0.0", 6217, 2.0)
    assert "http://[::1]:6218/" in describe(world, "::1", 6218, 2.0)


def test_the_seed_decides_ids_and_passwords(tmp_path: Path) -> None:
    assert World.of(1) == World.of(1)
    assert World.of(1) != World.of(2)
    world = World.of(3)
    database = Database(f"sqlite:///{tmp_path / 'demo.sqlite3'}")
    database.create_all()
    world.save(database)
    alice, bob = world.people
    forum, market = world.places
    assert [info.name for info in accounts.projects_for(database, alice.id)] == ["Harbour Forum"]
    assert [info.role for info in accounts.projects_for(database, bob.id)] == ["member", "owner"]
    for place in (forum, market):
        key = accounts.api_key(database, place.api_key)
        assert key is not None
        assert key.project_id == place.id
    assert accounts.authenticate(database, "alice", alice.password) is not None
    database.close()


class Listener:
    """A server that only notes what is published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, dict[str, Any]]] = []

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
        self.published.append((project_id, event, payloads.validate(project_id, event, dict(data))))
        future: Future[str] = Future()
        future.set_result("1-0")
        return future

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        raise AssertionError

    def logged_out(self, user_id: str) -> Future[None]:
        raise AssertionError


def test_the_pipeline_is_lifelike() -> None:
    world, listener = World.of(1), Listener()
    pipeline = Pipeline(WebSocketNotifier(realtime=listener), world.places, 4.0, random.Random(1))
    now = 100.0
    while now < 700.0:
        now = pipeline.step(now)
    events = Counter(event for _, event, _ in listener.published)
    assert 2000 < events["content_received"] < 2800  # 4 a second for ten minutes
    assert events["moderation_update"] > events["content_received"] - 40
    assert events["rule_update"] > 20
    assert events["stats_update"] > 100
    assert {project for project, _, _ in listener.published} == {place.id for place in world.places}
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
    assert project in {place.id for place in world.places}


def test_a_pause_is_not_made_up_for() -> None:
    world, listener = World.of(1), Listener()
    pipeline = Pipeline(WebSocketNotifier(realtime=listener), world.places, 10.0, random.Random(1))
    pipeline.step(0.0)
    listener.published.clear()
    pipeline.step(3600.0)
    assert sum(event == "content_received" for _, event, _ in listener.published) < 30


def test_nothing_is_left_in_the_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        CliRunner().invoke(demo, ["--port", str(taken.getsockname()[1])])
    assert list(tmp_path.iterdir()) == []
