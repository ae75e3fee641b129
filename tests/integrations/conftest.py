"""The rules on servers of python-socketio, and the whole server with an application of Flask-SocketIO mounted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from automoderate import adapters
from automoderate.directory import accounts
from kits.attached_servers import KINDS, World, running_world
from kits.flask_socketio_site import Site, running_site


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One kind of python-socketio's servers."""
    name: str = request.param
    return name


@pytest.fixture
def world(kind: str) -> Iterator[World]:
    """A server of that kind with the rules attached."""
    with running_world(kind) as world:
        yield world


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
    running.clients.close()
