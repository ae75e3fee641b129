"""What threads see of a server that ends while they ask."""

from __future__ import annotations

from typing import Any

import pytest

from automoderate.realtime import Realtime
from automoderate.server.interfaces import NotRunning
from automoderate.testing import Simulation


class Unbinding(Realtime):
    """Unbound by another thread right after it was looked at."""

    _found: Any = None

    @property
    def _bound(self) -> Any:
        found, self._found = self._found, None
        return found

    @_bound.setter
    def _bound(self, found: Any) -> None:
        self._found = found


def test_a_server_that_ends_at_this_moment_is_no_error() -> None:
    realtime = Unbinding()
    server: Any = Simulation().server
    realtime.bind(server, server)
    assert realtime.draining is False
    assert realtime.running is False


def test_a_call_at_this_moment_fails_as_any_call_to_a_server_that_is_not_running() -> None:
    class Handle:
        def submit(self, _call: Any) -> Any:
            raise NotRunning

        def watch(self, _fileno: int, _ready: Any) -> Any:
            raise NotRunning

    realtime = Unbinding()
    server: Any = Simulation().server
    realtime.bind(server, Handle())
    with pytest.raises(NotRunning):
        realtime.logged_out("alice")
    with pytest.raises(NotRunning):
        realtime.logged_out("alice").result(0)
