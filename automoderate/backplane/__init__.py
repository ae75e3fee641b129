"""How updates reach every session that should see them, and where recent ones wait for who was away."""

from __future__ import annotations

from automoderate.core.hub import History, Update
from automoderate.server.interfaces import Backplane

__all__ = ["Backplane", "History", "Update"]
