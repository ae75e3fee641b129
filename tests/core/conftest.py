"""Hubs in the three states that tests begin with."""

from __future__ import annotations

import pytest

from kits.hub_bench import HubBench


@pytest.fixture
def bench() -> HubBench:
    """A hub without sessions."""
    return HubBench()


@pytest.fixture
def live(bench: HubBench) -> HubBench:
    """A hub with session ``s`` of user ``u``."""
    bench.connect()
    return bench


@pytest.fixture
def member(live: HubBench) -> HubBench:
    """A hub whose session ``s`` is in the room of project ``p``."""
    live.join()
    return live
