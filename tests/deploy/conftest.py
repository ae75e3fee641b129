"""What ships in ``deploy/``, running."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
sys.path.insert(0, str(Path(__file__).parents[1] / "redis"))

from client_kit import LIBRARIES, TRANSPORTS, RealClient
from deploy_kit import Cluster
from live_server import LiveServer
from redis_kit import RedisServer

from automoderate.directory.database import Database


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def world(postgresql: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Users, a project, an API key and cookies, in a PostgreSQL database that all nodes share."""
    world = LiveServer(tmp_path_factory.mktemp("world"), Database(postgresql.url(postgresql.create_with_tables())))
    yield world
    world.close()


@pytest.fixture(scope="session")
def cluster(
    redis_server: RedisServer, world: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two nodes behind nginx; a test that stops a node starts it again."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), redis_server.url, str(world.database), world)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def client() -> Iterator[Callable[..., RealClient]]:
    """Make a client: transports, URL and cookie. It has not been told to connect yet."""
    made: list[RealClient] = []

    def make(transports: str, url: str, cookie: str, library: str = "python-async") -> RealClient:
        made.append(LIBRARIES[library](url, cookie, TRANSPORTS[transports]))
        return made[-1]

    yield make
    for one in made:
        one.close()
