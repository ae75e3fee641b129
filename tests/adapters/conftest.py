"""Fixtures of the adapter tests: every test that takes ``start`` runs once for every kind of adapter."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
sys.path.insert(0, str(Path(__file__).parent))

from adapter_kit import KINDS, Running, Start


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of one adapter, on one of its event loops."""
    name: str = request.param
    return name


@pytest.fixture
def start(kind: str, caplog: pytest.LogCaptureFixture) -> Iterator[Start]:
    """Start servers in threads of their own; afterwards all are stopped, and no event loop may have complained."""
    running: list[Running] = []

    def begin(driver: object, **options: object) -> Running:
        running.append(Running(kind, driver, options))
        return running[-1]

    with caplog.at_level(logging.INFO):
        yield begin
        for server in running:
            server.stop()
    assert not [record.getMessage() for record in caplog.get_records("call") if is_complaint(record)]


def is_complaint(record: logging.LogRecord) -> bool:
    """Whether an event loop or an adapter says that something went wrong."""
    # This one is how asyncio counts writes between a reset and the moment it reports the connection lost.
    if record.name in ("asyncio", "trio", "eventlet") and record.getMessage() != "socket.send() raised exception.":
        return record.levelno >= logging.WARNING
    return record.name.startswith("automoderate.adapters") and record.levelno >= logging.ERROR
