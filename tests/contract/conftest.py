"""The contract over real sockets.

The whole contract is run on one runtime, that of ``--adapter``. The rows that a runtime could break are marked
``every_runtime`` and run on each: connecting, joining, receiving, acknowledging, coming back, limits and every kind of
end, on each transport. What the other rows say is decided above the adapter, in code that no runtime has a part in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kits import until
from kits.complaints import complaints
from kits.contract_client import TRANSPORTS, Client, TransportName
from kits.contract_site import KINDS, Site, World

Sites = Callable[..., Site]
Connect = Callable[..., Client]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One database for all servers; tests make the users and projects that they change."""
    world = World.make(tmp_path_factory.mktemp("contract") / "contract.db")
    yield world
    world.database.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        everywhere = metafunc.definition.get_closest_marker("every_runtime") is not None
        one = metafunc.config.getoption("--adapter")
        kinds = KINDS if everywhere and not metafunc.config.getoption("--one-runtime") else (one,)
        metafunc.parametrize("kind", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """The adapter that serves."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def sites(kind: str, world: World) -> Iterator[Sites]:
    """Servers with given settings; those with the same settings are one, which no test stops."""
    running: dict[str, Site] = {}

    def get(**options: Any) -> Site:
        key = repr(sorted(options.items()))
        if key not in running:
            # Sessions that tests have left behind are not worth waiting for.
            running[key] = Site(kind, world, {"drain_timeout": 0.1, **options})
        return running[key]

    yield get
    for site in running.values():
        site.handle.stop()
    for site in running.values():
        site.stop()


@pytest.fixture
def site(sites: Sites) -> Site:
    """The server of the tests that need no special one."""
    return sites()


@pytest.fixture
def own_site(kind: str, world: World) -> Iterator[Callable[..., Site]]:
    """Servers that the test may stop."""
    started: list[Site] = []

    def start(**options: Any) -> Site:
        started.append(Site(kind, world, options))
        return started[-1]

    yield start
    for site in started:
        site.stop()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    name: TransportName = request.param
    return name


@pytest.fixture(params=["polling", "websocket"])
def first_transport(request: pytest.FixtureRequest) -> TransportName:
    """Where a session may end before it could move on to another transport."""
    name: TransportName = request.param
    return name


@pytest.fixture
def connect(caplog: pytest.LogCaptureFixture) -> Iterator[Connect]:
    """Connect clients. Afterwards they leave, the server has to forget them, and no adapter may have complained."""
    clients: list[tuple[Site, Client]] = []

    def begin(site: Site, user: str | None, transport: TransportName, **options: Any) -> Client:
        client = site.connect(user, transport, **options)
        clients.append((site, client))
        return client

    with caplog.at_level(logging.INFO):
        yield begin
        for _, client in clients:
            client.wire.close()
        for site in {site for site, _ in clients if site.server.running}:
            until(lambda site=site: is_empty(site.stats()), "the server forgets its clients")  # type: ignore[misc]
    assert complaints(caplog) == []


def is_empty(stats: dict[str, float]) -> bool:
    return not any(stats[name] for name in ("sessions", "users", "rooms", "memberships", "jobs"))


@pytest.fixture(scope="session")
def alice(world: World) -> str:
    """Owner of projects."""
    return world.user()


@pytest.fixture(scope="session")
def bob(world: World) -> str:
    """Member of projects."""
    return world.user()


@pytest.fixture(scope="session")
def carol(world: World) -> str:
    """Neither."""
    return world.user()


@pytest.fixture(scope="session")
def inactive(world: World) -> str:
    """Somebody who may not log in any more."""
    return world.user(active=False)


@pytest.fixture(scope="session")
def project(world: World, alice: str, bob: str) -> str:
    """Alice's, with bob in it."""
    return world.project(alice, bob)


@pytest.fixture
def fresh(world: World, alice: str, bob: str) -> str:
    """A project that the test may change."""
    return world.project(alice, bob)
