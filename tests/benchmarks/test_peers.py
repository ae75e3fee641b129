"""The servers we are compared with do what they are measured for: log in, check who may join, and deliver."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.child import ChildFailed
from benchmarks.generator import LoadGenerator
from benchmarks.peers.contenders import PEERS
from benchmarks.servers import Contender, Server
from benchmarks.world import Member, World, project_id

MEMBERS, ROOMS = 5, 2
PATIENCE = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), [(MEMBERS, ROOMS)])


IN_PYTHON = [contender for contender in PEERS if contender.name != "node"]
"""Node's server has packages of its own, which only the benchmarks install."""


@pytest.fixture(scope="module", params=IN_PYTHON, ids=lambda contender: contender.name)
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
    connected = load.connect(world.members(MEMBERS, ROOMS), None)
    assert connected.joined == MEMBERS
    for rate, batch in ((None, 1), (None, 4), (200.0, 1)):
        load.begin(4)
        peer.publish(rooms=ROOMS, updates=4 * ROOMS, batch=batch, rate=rate)
        measured = load.result(PATIENCE)
        assert measured.deliveries == 4 * MEMBERS
        assert peer.hear(PATIENCE) == {"published": 4 * ROOMS}


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
    said = contenders.node_missing()
    assert said is not None
    assert len(said.splitlines()) == 1
