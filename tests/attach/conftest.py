"""The rules on servers of python-socketio: every test runs over every kind of server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "clients"))
sys.path.insert(0, str(Path(__file__).parent))

from attach_kit import KINDS, World, running_world


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def world(kind: str) -> Iterator[World]:
    with running_world(kind) as world:
        yield world
