"""A Redis for each test, and nodes that are closed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kits import until
from kits.cables import Cable
from kits.redis_server import Loop, Node, RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.close()


@pytest.fixture
def new_cable(server: RedisServer) -> Iterator[Callable[[], Cable]]:
    """Lays cables to Redis."""
    cables: list[Cable] = []

    def lay() -> Cable:
        cables.append(Cable(server.port))
        return cables[-1]

    yield lay
    for cable in cables:
        cable.close()


@pytest.fixture
def cable(new_cable: Callable[[], Cable]) -> Cable:
    return new_cable()


BY_THREAD_TOO = frozenset({"test_backplane.py", "test_faults.py", "test_subscription.py"})
"""Tests that are tried with a thread that hears everything, too, as it does over TLS and without hiredis."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop" in metafunc.fixturenames:
        by_thread = ["thread"] if metafunc.definition.path.name in BY_THREAD_TOO else []
        metafunc.parametrize("loop", ["loop", *by_thread], indirect=True)


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Iterator[Loop | None]:
    """The loop of a node's server, or none, where a thread of the node hears everything."""
    loop = Loop() if request.param == "loop" else None
    yield loop
    if loop is not None:
        loop.stop()


@pytest.fixture
def new_node(server: RedisServer, loop: Loop | None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Node]]:
    """Starts nodes, perhaps at the end of a cable. They end before their cables do."""
    request.getfixturevalue("new_cable")  # what is asked for first ends last
    nodes: list[Node] = []

    def make(cable: Cable | None = None, **options: Any) -> Node:
        node = Node(server.url if cable is None else server.through(cable), loop, **options)
        nodes.append(node)
        until(node.hears, "the node hears Redis")
        return node

    yield make
    for node in nodes:
        node.backplane.close()


@pytest.fixture
def node(new_node: Callable[..., Node]) -> Node:
    return new_node()
