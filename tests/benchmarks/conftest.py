"""Fixtures of the benchmarks' tests: a server that says exactly what a test wants a load generator to hear."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from scripted_server import ScriptedServer

from benchmarks import native
from benchmarks.generator import LoadGenerator
from benchmarks.world import Member


@pytest.fixture(params=["C", "C, awake", "Python"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the load generator is written in, and whether it does not sleep while there is nothing to do."""
    name: str = request.param
    if name == "Python":
        monkeypatch.setenv("CC", "there is no such compiler")
    elif (why := native.missing()) is not None:
        pytest.skip(why)
    return name


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def load(language: str, server: ScriptedServer) -> Iterator[LoadGenerator]:
    """A load generator with one session, which has joined."""
    load = LoadGenerator([server.port], None, awake="awake" in language)
    try:
        load.connect([Member(0, "project", "session=signed")])
        yield load
    finally:
        load.close()
