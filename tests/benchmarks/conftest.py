"""Fixtures of the benchmarks' tests: a server that says exactly what a test wants a load generator to hear."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import native
from benchmarks.generator import LoadGenerator
from benchmarks.world import Member
from kits.scripted_server import ScriptedServer


@pytest.fixture(scope="session", autouse=True)
def _a_compiler_is_there() -> None:
    assert native.missing() is None, f"{native.missing()}: run scripts/install-services"


@pytest.fixture(params=["C", "C, awake", "Python"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the load generator is written in, and whether it does not sleep while there is nothing to do."""
    name: str = request.param
    if name == "Python":
        monkeypatch.setenv("CC", "there is no such compiler")
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
