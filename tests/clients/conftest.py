"""Real servers and real clients; everything a test starts is stopped with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client_kit import LIBRARIES, TRANSPORTS, RealClient
from live_server import LiveServer, running_server

Connect = Callable[..., RealClient]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, adapter: str) -> Iterator[LiveServer]:
    """One server for all tests that leave it running."""
    with running_server(tmp_path_factory.mktemp("server"), adapter=adapter) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path, adapter: str) -> Iterator[LiveServer]:
    """A server for a test that stops it."""
    with running_server(tmp_path, adapter=adapter) as server:
        yield server


@pytest.fixture
def client() -> Iterator[Callable[[str, str, str, str | None], RealClient]]:
    """Make a client: library, transports, URL and cookie. It has not been told to connect yet."""
    made: list[RealClient] = []

    def make(library: str, transports: str, url: str, cookie: str | None) -> RealClient:
        made.append(LIBRARIES[library](url, cookie, TRANSPORTS[transports]))
        return made[-1]

    yield make
    for one in made:
        one.close()
