"""The tests of both notifiers share what they send, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from automoderate.notifier import WebSocketNotifier, http_publisher


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again soon."""
    monkeypatch.setattr(http_publisher, "BACK_OFF", (0.001, 0.01))


@pytest.fixture
def make() -> Iterator[Callable[..., WebSocketNotifier]]:
    """Make notifiers, and close them."""
    made: list[WebSocketNotifier] = []

    def make(**options: Any) -> WebSocketNotifier:
        made.append(WebSocketNotifier(**{"timeout": 60, **options}))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of what goes over HTTP: one number, which only the test changes."""
    now = [0.0]
    monkeypatch.setattr(http_publisher, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now
