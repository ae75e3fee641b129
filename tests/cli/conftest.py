"""Every test of the command line works in an empty folder, with nothing of this machine's environment."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(empty_folder: Path) -> Path:
    """The working directory of the test."""
    return empty_folder
