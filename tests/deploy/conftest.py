"""What ships in ``deploy/``, running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from automoderate.directory.database import Database
from kits.cluster import Cluster
from kits.live_server import LiveServer
from kits.postgresql_server import PostgreSQL
from kits.processes import Process
from kits.real_clients import Clients
from kits.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def world(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Users, a project, an API key and cookies, in a PostgreSQL database that all nodes share."""
    world = LiveServer(tmp_path_factory.mktemp("world"), Database(postgresql.url(postgresql.create_with_tables())))
    yield world
    world.close()


@pytest.fixture
def new_process(tmp_path: Path, world: LiveServer) -> Iterator[Callable[..., Process]]:
    """Makes servers over that database, to be started by the test, perhaps by another command; afterwards they end."""
    made: list[Process] = []

    def new_process(started_by: Sequence[str] = (), **settings: str) -> Process:
        process = Process(tmp_path / "log", database_url=str(world.database), **settings)
        process.started_by = [*started_by]
        made.append(process)
        return process

    yield new_process
    for process in made:
        process.close()


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
def client() -> Iterator[Clients]:
    """Makes clients of any library; afterwards they leave."""
    with Clients() as clients:
        yield clients
