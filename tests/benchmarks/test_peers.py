"""The servers we are compared with do what they are measured for: log in, check who may join, and deliver."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.child import ChildFailed
from benchmarks.generator import LoadGenerator
from benchmarks.peers.contenders import PEERS
from benchmarks.servers import Contender, Server
from benchmarks.world import TEMPLATE, Member, World, api_key, project_id
from kits import PATIENCE

MEMBERS, ROOMS = 5, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), [(MEMBERS, ROOMS)])


@pytest.fixture(scope="module", params=PEERS, ids=lambda contender: contender.name)
def peer(request: pytest.FixtureRequest, world: World) -> Iterator[Server]:
    contender: Contender = request.param
    assert contender.missing() is None
    server = Server(contender, world.config, None)
    yield server
    server.close()


@pytest.fixture
def load(peer: Server) -> Iterator[LoadGenerator]:
    load = LoadGenerator(peer.ports, None)
    yield load
    load.close()


def test_delivers_to_whoever_joined(peer: Server, world: World, load: LoadGenerator) -> None:
    loads = [load]
    if "polling" not in peer.contender.lacks:
        loads.append(LoadGenerator(peer.ports, None, polling=True))
    try:
        for each in loads:
            assert each.connect(world.members(MEMBERS, ROOMS), None).joined == MEMBERS
        for rate, batch in ((None, 1), (None, 4), (200.0, 1)):
            for each in loads:
                each.begin(4)
            peer.publish(rooms=ROOMS, updates=4 * ROOMS, batch=batch, rate=rate)
            for each in loads:
                assert each.result(PATIENCE).deliveries == 4 * MEMBERS
            assert peer.hear(PATIENCE) == {"published": 4 * ROOMS}
    finally:
        for each in loads[1:]:
            each.close()


STRANGERS = {
    "nobody": (Member(0, project_id(0), "session=forged"), "Authentication required"),
    "no member": (Member(0, project_id(0), ""), "Access denied - you are not a member of this project"),
    "no project": (Member(0, "there-is-none", ""), "Project not found"),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_refuses_a_stranger(world: World, load: LoadGenerator, who: str) -> None:
    stranger, message = STRANGERS[who]
    # The last of the users is in none of the rooms.
    cookie = stranger.cookie or world.cookies[-1]
    with pytest.raises(ChildFailed, match=message):
        load.connect([Member(stranger.room, stranger.project_id, cookie)], None)


def test_publishes_with_the_key_of_the_project(peer: Server, world: World, load: LoadGenerator) -> None:
    load.connect(world.members(1, 1))
    load.begin(1)
    assert post(peer, 0, "no such key") == 401
    assert post(peer, 1, api_key(0)) == 403
    assert post(peer, 0, api_key(0)) == 202
    assert load.result(PATIENCE).deliveries == 1


def post(peer: Server, project: int, key: str) -> int:
    """Publish an update to a project; the status of the answer."""
    data = {"project_id": project_id(project), "meta_data": {"seq": 0, "sent": time.monotonic_ns()}}
    connection = http.client.HTTPConnection("127.0.0.1", peer.ports[0], timeout=PATIENCE)
    body = json.dumps({"event": "moderation_update", "data": TEMPLATE | data})
    with contextlib.closing(connection):
        connection.request("POST", f"/api/projects/{project_id(project)}/events", body, {"X-API-Key": key})
        return connection.getresponse().status


def test_ends_with_its_input(peer: Server, world: World) -> None:
    process = subprocess.Popen(
        [*peer.argv[:-1], str(world.config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["port"] > 0
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()


def test_without_its_packages_node_is_missing_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.peers import contenders

    monkeypatch.setattr(contenders, "FOLDER", tmp_path)
    monkeypatch.setattr(contenders, "BUN", tmp_path / "bun")
    for said in (contenders.node_missing(("socket.io",)), contenders.bun_missing()):
        assert said is not None
        assert len(said.splitlines()) == 1
