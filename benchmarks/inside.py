"""Figures of updates that the server itself publishes, or a publisher through Redis."""

from __future__ import annotations

import math
from typing import Any

from attrs import evolve

from benchmarks.generator import Measured
from benchmarks.scenarios import Scenario
from benchmarks.site import Site, costs

MOST_DELIVERIES = 300_000  # in one run
WARM_UP = 3000  # deliveries
PING_MS, JOIN_MS = 2.0, 20.0  # between two questions of the probe
LONGEST = 120.0  # seconds a run may take
ANSWER = 30.0  # seconds in which a server has to say that it has published, when everything has arrived


def warm_up(site: Site, scenario: Scenario, seconds: float) -> None:
    """A short run that tells how long a real one has to be; none where it would be as long as a real one."""
    unpaced = evolve(scenario, kind="throughput", rate=None)
    updates = scenario.step * math.ceil(WARM_UP / scenario.deliveries(scenario.step))
    if not site.capacity or (scenario.rate is None and scenario.deliveries(updates) < site.capacity * seconds):
        measured, _ = _publish(site, unpaced, updates)
        site.capacity = measured.deliveries / measured.seconds


def measure(site: Site, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """The figures of one run of about so many seconds."""
    deliveries = min(MOST_DELIVERIES, site.capacity * seconds)
    if scenario.rate is not None:  # at which not every server can follow
        deliveries = min(deliveries, scenario.deliveries(scenario.rate * seconds))
    updates = scenario.step * max(1, round(deliveries / scenario.deliveries(scenario.step)))
    return _figures(site, scenario, updates)


def measure_at_rate(site: Site, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """The figures of one run at a fixed rate, whatever the server could do: what waits leaves together."""
    assert scenario.rate is not None
    return _figures(site, scenario, max(1, round(scenario.rate * seconds)))


def _figures(site: Site, scenario: Scenario, updates: int) -> dict[str, Any]:
    measured, spent = _publish(site, scenario, updates)
    others = {name: seconds for name, seconds in spent.items() if name != "server"}
    beside = sum(others.values()) if site.crowded else 0.0
    rate = measured.deliveries / measured.seconds
    if scenario.rate is None:
        site.capacity = rate
    figures = {
        "updates": updates, "deliveries": measured.deliveries, "rate": rate,
        **costs(measured, spent["server"], measured.deliveries, beside),
        **{f"{name}_cpu": seconds for name, seconds in others.items()},
        **{f"{name}_us": seconds / updates * 1e6 for name, seconds in others.items()},
        "delay": {
            **measured.delivery.summary(),
            "histogram": [[bound / 1000, count] for bound, count in measured.delivery.counts],
        },
    }  # fmt: skip
    if scenario.kind == "window":
        figures["per_cpu_second"] = measured.deliveries / spent["server"]
    if scenario.kind == "stall":
        for name, delays in (("ping", measured.ping), ("join", measured.join)):
            figures[name] = {"count": delays.count, **delays.summary()}
    return figures


def _publish(site: Site, scenario: Scenario, updates: int) -> tuple[Measured, dict[str, float]]:
    """Publish, and wait until everything has arrived; with the CPU seconds meanwhile, by who has used them."""
    stall = scenario.kind == "stall"
    site.load.begin(updates // scenario.rooms, ping_ms=PING_MS if stall else 0, join_ms=JOIN_MS if stall else 0)
    before = site.server.spent()
    site.server.publish(rooms=scenario.rooms, updates=updates, batch=scenario.batch, rate=scenario.rate)
    measured = site.load.result(LONGEST)
    spent = {name: seconds - before[name] for name, seconds in site.server.spent().items()}
    site.server.hear(ANSWER)
    return measured, spent
