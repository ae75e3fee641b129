"""A mounted application with a message queue, and other processes that emit through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flask_socketio
import pytest
import requests

from automoderate import adapters
from kits import PATIENCE, until
from kits.flask_socketio_site import Site, running_site
from kits.redis_server import RedisServer, disconnect


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.close()


@pytest.fixture(params=adapters.names())
def site(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Iterator[Site]:
    flags = ("--redis-url", server.url, "--redis-channel", "flask-socketio")
    with running_site(tmp_path, request.param, *flags, MESSAGE_QUEUE=server.url) as site:
        until(lambda: requests.get(f"{site.url}/realtime/readyz", timeout=PATIENCE).status_code == 200)
        yield site
        site.clients.close()


def test_what_it_and_others_emit_arrives_once(site: Site, server: RedisServer) -> None:
    alice = site.watch(site.login("alice"))
    worker = flask_socketio.SocketIO(message_queue=server.url, async_mode="threading")
    site.post(f"/moderate/{site.project}/application?count=20")
    for number in range(20):
        data = {"project_id": site.project, "source": "worker", "number": number}
        worker.emit("moderation_update", data, to=f"project_{site.project}")
    worker.emit("stats_update", {"source": "worker"}, to=f"project_{site.project}")
    disconnect(worker.server.manager)
    alice.wait("stats_update")
    site.post(f"/moderate/{site.project}/application?count=1")  # behind all that may have come twice
    updates = alice.wait_all("moderation_update", 41)
    for source, expected in (("application", [*range(20), 0]), ("worker", [*range(20)])):
        assert [update["number"] for update in updates if update["source"] == source] == expected
    assert "message queue is not read" not in site.log
