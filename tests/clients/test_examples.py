"""The two clients of the README, run as they stand: they print what is published, also after a restart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from live_server import PATIENCE, LiveServer, until

from automoderate.publishing import PublishingApi

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
COMMANDS = {"client.py": [sys.executable], "client.mjs": ["node"]}


@pytest.fixture(params=COMMANDS)
def example(request: pytest.FixtureRequest, own_server: LiveServer) -> Iterator[subprocess.Popen[str]]:
    given = {"URL": own_server.url, "PROJECT": own_server.project, "COOKIE": own_server.cookie("alice")}
    command = [*COMMANDS[request.param], str(EXAMPLES / request.param)]
    with subprocess.Popen(command, env={**os.environ, **given}, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def members(server: LiveServer) -> int:
    """How many memberships the server counts."""
    text = requests.get(f"{server.url}/metrics", timeout=PATIENCE).text
    found = re.search(r"^automoderate_memberships (\d+)", text, re.MULTILINE)
    assert found, text
    return int(found[1])


def test_the_clients_of_the_readme(example: subprocess.Popen[str], own_server: LiveServer) -> None:
    assert example.stdout is not None
    for text in ("first", "after a restart"):
        until(lambda: members(own_server) == 1, "the join")
        with PublishingApi(own_server.url, timeout=PATIENCE) as api:
            data = {"status": "flagged", "content_preview": text}
            api.publish(own_server.project, own_server.api_key, "moderation_update", data)
        while not (line := example.stdout.readline().strip()).endswith(f"flagged {text}"):
            assert line, "the example ended"
        own_server.stop()
        own_server.start()
