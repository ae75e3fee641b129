"""The examples of a server inside somebody's own program, run as they stand and watched by a real client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kits import PATIENCE, ROOT
from kits.live_server import LiveServer
from kits.processes import SECRET_KEY
from kits.real_clients import Clients

PROGRAMS = ("trio_program.py", "asyncio_program.py")
PAGE = ROOT / "docs" / "embedding.md"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveServer]:
    """Users and a project, whose server the program brings."""
    site = LiveServer(tmp_path)
    yield site
    site.close()


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest, site: LiveServer) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / request.param), site.project, "0"]
    environment = os.environ | {
        "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": str(site.database.url),
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = re.fullmatch(r"Serving on http://127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        assert said, process.stderr.read()
        site.port = int(said[1])
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_publishes_and_takes_its_server_with_it(
    program: subprocess.Popen[str],
    site: LiveServer,
    client: Clients,
    number: signal.Signals,
) -> None:
    alice = client(site.url, site.cookie("alice"), "upgrade", "node")
    alice.connect()
    alice.wait("connected")
    alice.emit("join_project", {"project_id": site.project})
    counted = [data["counted"] for data in alice.wait_all("stats_update", 3)]
    assert counted == list(range(counted[0], counted[0] + len(counted)))
    program.send_signal(number)
    assert alice.wait("disconnect") == "transport close"
    _, complaints = program.communicate(timeout=PATIENCE)
    assert (program.returncode, complaints) == (0, "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_shows_the_program(name: str) -> None:
    assert f"```python\n{(ROOT / 'examples' / name).read_text()}```\n" in PAGE.read_text()
