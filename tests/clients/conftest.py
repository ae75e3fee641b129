"""Real servers and real clients; everything a test starts is stopped with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kits.live_server import LiveServer, running_server
from kits.real_clients import Clients


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
def client() -> Iterator[Clients]:
    """Makes clients of any library; afterwards they leave."""
    with Clients() as clients:
        yield clients
