"""The tests of both notifiers share what they send, and to whom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from automoderate import _delivery as delivery_module


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again soon."""
    monkeypatch.setattr(delivery_module, "_BACK_OFF", (0.001, 0.01))
