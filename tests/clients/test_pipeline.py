"""The example of a pipeline on asyncio or trio, run as it stands and watched by a real client."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kits import PATIENCE, ROOT
from kits.live_server import LiveServer
from kits.real_clients import Clients

EXAMPLE = ROOT / "examples" / "async_pipeline.py"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_dashboards_see_what_the_pipeline_decides(server: LiveServer, client: Clients, backend: str) -> None:
    alice = client(server.url, server.cookie("alice"), library="python").welcomed()
    alice.emit("join_project", {"project_id": server.project})
    alice.wait("joined_project")
    given = {"URL": server.url, "API_KEY": server.api_key, "PROJECT": server.project, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), backend],
        env=os.environ | given, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    received = alice.wait_all("content_received", 3)
    # trio starts the tasks of one batch in any order.
    previews = {data["content_id"]: data["content_preview"] for data in received}
    assert previews == {"0": "Hello everybody", "1": "Buy my spam", "2": "See you tomorrow"}
    decided = {data["content_id"]: data["status"] for data in alice.wait_all("moderation_update", 3)}
    assert decided == {"0": "approved", "1": "rejected", "2": "approved"}


def test_the_page_shows_the_program() -> None:
    assert f"```python\n{EXAMPLE.read_text()}```\n" in (ROOT / "docs" / "notifier.md").read_text()
