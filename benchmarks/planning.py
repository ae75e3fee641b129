"""What deliveries and updates cost nodes that share a Redis: the figures that docs/scaling.md reckons with."""

from __future__ import annotations

from benchmarks.results import Results
from benchmarks.scenarios import Scenario
from benchmarks.servers import Contender

TITLE = "What to plan with"
WIDTH = 74


def rows(results: Results) -> list[tuple[str, ...]]:
    """A heading with the contenders and a row for each figure; nothing where no Redis was shared.

    A delivery costs what it does in the scenario with the most members a room, where an update is next to nothing. In
    the others an update's share is what is left when its deliveries are taken off at that price. What Redis and the
    publisher spend on it stands in the tables of the scenarios.
    """
    throughput = [scenario for scenario in results.scenarios if scenario.kind == "throughput"]
    if not throughput or all(sample.figure("redis_us") is None for sample in results.samples):
        return []
    large = max(throughput, key=lambda scenario: scenario.deliveries(1))
    small = sorted((s for s in results.scenarios if s.rooms > large.rooms), key=lambda s: (s.rooms, s.rate is not None))
    contenders = [contender for contender in results.contenders if contender.kind == "adapter"]
    return [
        ("", *(contender.name for contender in contenders)),
        ("a delivery", *(_text(results.median(large.name, c.name, "cost_us")) for c in contenders)),
        *((_title(scenario), *(_text(_update(results, large, scenario, c)) for c in contenders)) for scenario in small),
    ]


def _title(scenario: Scenario) -> str:
    how = "as many as they take" if scenario.rate is None else f"{scenario.rate:g} a second"
    return f"an update, on each node that follows {scenario.rooms:,} projects, {how}"


def _update(results: Results, large: Scenario, scenario: Scenario, contender: Contender) -> float | None:
    """Microseconds of each node."""
    delivery = results.median(large.name, contender.name, "cost_us")
    each = results.median(scenario.name, contender.name, "cost_us")
    if each is None or delivery is None:
        return None
    return max(0.0, each - delivery) * scenario.deliveries(1) / max(1, contender.nodes)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
