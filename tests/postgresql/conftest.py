"""Servers, and raw clients, over a PostgreSQL database of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from automoderate.directory.database import Database
from kits.contract_client import Client
from kits.contract_site import SECRET, Site, World, signing_application
from kits.postgresql_server import PostgreSQL


@pytest.fixture
def name(postgresql: PostgreSQL) -> Iterator[str]:
    """The name of a new database with AutoModerate's tables."""
    name = postgresql.create_with_tables()
    yield name
    postgresql.drop(name)


@pytest.fixture
def world(postgresql: PostgreSQL, name: str) -> Iterator[World]:
    """That database, and an application that signs its users in."""
    database = Database(postgresql.url(name))
    yield World(database, signing_application(SECRET))
    database.close()


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., Site]]:
    """Start a server with these settings; it is stopped at the end."""
    started: list[Site] = []

    def begin(**options: object) -> Site:
        started.append(Site("asyncio", world, {"max_events_per_minute": 1_000_000, "drain_timeout": 0.1, **options}))
        return started[-1]

    yield begin
    for site in started:
        site.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[Site, str], Client]]:
    """Connect a client over a WebSocket and wait until the server knows who it is."""
    clients: list[Client] = []

    def begin(site: Site, user: str) -> Client:
        clients.append(site.connect(user, "websocket"))
        clients[-1].expect("connected")
        return clients[-1]

    yield begin
    for client in clients:
        client.wire.close()
