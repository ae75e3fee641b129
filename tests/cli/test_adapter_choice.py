"""The same command on every runtime, and what it says where one is not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from automoderate import adapters
from automoderate.directory.database import Database
from kits import PATIENCE, ROOT

COMMAND = "from automoderate.cli import main; main()"
PATCHED = (
    "import warnings; warnings.filterwarnings('ignore', message=r'\\s*Eventlet is deprecated');"
    f"import eventlet; eventlet.monkey_patch(); {COMMAND}"
)
"""The command in a process that eventlet has patched first."""

MOUNTED = """
import eventlet
eventlet.monkey_patch()
from flask import Flask
app = Flask(__name__)
app.secret_key = "another secret for these tests"
app.get("/")(lambda: "the mounted application")
"""


@contextmanager
def started(folder: Path, *arguments: str, program: str = COMMAND) -> Iterator[tuple[str, str]]:
    """Run a command that serves on a free port: its address and what it said. SIGTERM ends it, and has to."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOMODERATE_")}
    environment |= {"SECRET_KEY": "a secret for these tests", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environment.pop("DATABASE_URL", None)
    command = [sys.executable, "-W", "error", "-c", program, *arguments, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            said = ""
            while (address := re.search(r"http://[\d.]+:\d+", said)) is None:
                line = server.stdout.readline()
                assert line, f"it ended with {server.wait(PATIENCE)}:\n{said}"
                said += line
            yield address[0], said
            server.terminate()
            rest, _ = server.communicate(timeout=PATIENCE)
            assert server.returncode == 0, rest
            assert "Traceback" not in rest
        finally:
            server.kill()


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize("adapter", adapters.names())
def test_every_runtime_serves_the_same(adapter: str, command: str, tmp_path: Path) -> None:
    with started(tmp_path, command, "--adapter", adapter) as (url, said):
        assert requests.get(f"{url}/health", timeout=PATIENCE).json()["status"] == "healthy"
        polling = f"{url}/socket.io/?EIO=4&transport=polling"
        opened = requests.get(polling, timeout=PATIENCE).text
        assert opened.startswith('0{"sid":')
        # So that leaving has nobody to wait for.
        sid = opened.split('"')[3]
        assert requests.post(f"{polling}&sid={sid}", "1", timeout=PATIENCE).text == "ok"
        if command == "serve":
            assert f"with {adapter}" in said


def test_a_process_that_eventlet_has_patched_heeds_signals(tmp_path: Path) -> None:
    with started(tmp_path, "serve", "--adapter", "eventlet", program=PATCHED) as (url, said):
        assert "Threads are monkey-patched" in said
        assert requests.get(f"{url}/health", timeout=PATIENCE).ok


def test_an_application_that_patches_the_process_may_be_mounted(tmp_path: Path) -> None:
    (tmp_path / "patching.py").write_text(MOUNTED)
    with closing(Database(f"sqlite:///{tmp_path}/database.sqlite3")) as database:
        database.create_all()
    options = ("--wsgi", "patching:app", "--database-url", str(database))
    with started(tmp_path, "serve", "--adapter", "eventlet", *options) as (url, _):
        assert requests.get(url, timeout=PATIENCE).text == "the mounted application"
        assert requests.get(f"{url}/realtime/health", timeout=PATIENCE).ok


def test_an_adapter_of_ones_own_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter.py").write_text("def run(driver, options, **more): ...\n")
    run = subprocess.run(
        # -P: as for the script that pip installs, the working directory is not where Python looks by itself.
        [sys.executable, "-P", "-W", "error", "-c", COMMAND, "serve", "--check-config", "--adapter", "mine.adapter"],
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE,
        env=os.environ | {"SECRET_KEY": "a secret for these tests", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["serve"], ["serve", "--check-config"], ["demo"]])
@pytest.mark.parametrize("runtime", ["trio", "eventlet"])
def test_a_missing_runtime_is_one_line_that_names_the_command(
    runtime: str, arguments: list[str], tmp_path: Path
) -> None:
    program = f"import sys; sys.modules[{runtime!r}] = None; {COMMAND}"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments, "--adapter", runtime],
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE,
        env=os.environ | {"SECRET_KEY": "a secret for these tests", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 3
    assert run.stderr == f'Error: the {runtime} adapter needs {runtime}: pip install "automoderate[{runtime}]"\n'
    assert not list(tmp_path.iterdir())
