"""Fixtures of the adapter tests: every test that takes ``start`` runs once for every kind of adapter."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from kits.adapters import KINDS, Running, Start
from kits.complaints import complaints


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        one = metafunc.config.getoption("--adapter")
        metafunc.parametrize("kind", [one] if metafunc.config.getoption("--one-runtime") else KINDS, indirect=True)


@pytest.fixture
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
    assert complaints(caplog) == []
