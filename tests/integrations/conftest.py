"""The whole server in a process of its own with the application of ``mounted_site`` mounted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from automoderate import adapters
from automoderate.directory import accounts

sys.path.insert(0, str(Path(__file__).parent.parent / "clients"))
sys.path.insert(0, str(Path(__file__).parent.parent / "redis"))
sys.path.insert(0, str(Path(__file__).parent))

from mounted_kit import Site, running_site


@pytest.fixture(scope="module", params=adapters.names())
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server an adapter."""
    with running_site(tmp_path_factory.mktemp("mounted"), request.param) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """The server, with bob a member again; the clients of the test leave at its end."""
    accounts.add_member(running.database, running.project, running.users["bob"])
    yield running
    while running.clients:
        running.clients.pop().close()
