"""The examples of attaching, each as a program of its own with a real client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from kits import PATIENCE, PYTHONPATH
from kits.real_clients import Clients


@contextmanager
def program(name: str, argument: str, log_file: Path) -> Iterator[str]:
    """A running example: its address."""
    environment = os.environ | {"PASSWORD": "correct horse", "PYTHONPATH": PYTHONPATH}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", name, argument],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not (said := re.search(r"running on (http://127\.0\.0\.1:\d+)", log_file.read_text("utf-8"))):
            assert process.poll() is None, log_file.read_text("utf-8")
            assert time.monotonic() < deadline, log_file.read_text("utf-8")
            time.sleep(0.02)
        yield said[1]
    finally:
        process.terminate()
        process.wait(PATIENCE)


def cookie(browser: requests.Session) -> str | None:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items()) or None


def log_in(url: str, username: str, password: str = "correct horse") -> requests.Session:
    browser = requests.Session()
    form = {"username": username, "password": password}
    answer = browser.post(f"{url}/login", json=form, timeout=PATIENCE)
    assert answer.status_code == (204 if password == "correct horse" else 401), answer.text
    return browser


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("attach_starlette", "0"),
        ("attach_threads", "0"),
        ("attach_flask_socketio", "0"),
        ("kits.greenlet_app", "eventlet"),
        ("kits.greenlet_app", "gevent"),
    ],
    ids=["starlette", "threads", "flask-socketio", "eventlet", "gevent"],
)
def test_an_example_runs(name: str, argument: str, tmp_path: Path) -> None:
    with program(name, argument, tmp_path / "log") as url:
        browser = log_in(url, "alice")
        projects = browser.get(f"{url}/projects", timeout=PATIENCE)
        project = projects.json()[0] if projects.ok else "forum"
        assert requests.post(f"{url}/updates/{project}", json={}, timeout=PATIENCE).status_code == 403
        with Clients("echo") as client:
            alice, nobody = client(url, cookie(browser)), client(url, cookie(log_in(url, "alice", "wrong")))
            alice.welcomed()
            nobody.connect()
            assert alice.call("join_project", {"project_id": project})["room"] == f"project_{project}"
            update = {"project_id": project, "status": "approved"}
            answer = browser.post(f"{url}/updates/{project}", json=update, timeout=PATIENCE)
            assert answer.status_code == 202
            assert alice.wait("moderation_update") == {**update, **answer.json()}
            assert alice.call("join_project", {"project_id": "none"})["error"]["code"] == "project_not_found"
            assert alice.call("echo", "the application's own") == "the application's own"
            assert nobody.wait("error")["code"] == "authentication_required"
            assert nobody.wait("disconnect") == "server disconnect"
            if name == "attach_flask_socketio":
                browser.post(f"{url}/logout", timeout=PATIENCE)
                assert alice.wait("disconnect") == "server disconnect"
