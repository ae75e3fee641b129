"""What tests share: the servers, clients and sites that they start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
PYTHONPATH = f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'examples'}"
"""For a program that a test starts: it then imports what the test imports."""
PATIENCE = 60.0
"""Seconds after which what should have happened counts as not happening."""


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for something that another thread or process is about to do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)
