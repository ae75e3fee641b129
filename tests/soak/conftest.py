"""Runs with faults, on a Redis and two nodes that are real."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (".", "../clients", "../redis", "../deploy"):
    sys.path.insert(0, str((Path(__file__).parent / folder).resolve()))
