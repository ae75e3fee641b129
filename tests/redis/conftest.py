"""A Redis for each test, and nodes that are closed after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from live_server import until
from redis_kit import Node, RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.close()


@pytest.fixture
def new_node(server: RedisServer) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(**options: Any) -> Node:
        node = Node(server.url, **options)
        nodes.append(node)
        until(node.hears, "the node hears Redis")
        return node

    yield make
    for node in nodes:
        node.backplane.close()


@pytest.fixture
def node(new_node: Callable[..., Node]) -> Node:
    return new_node()
