"""What a delivery and an update cost where nodes share a Redis: the figures that docs/scaling.md reckons with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.results import Results
from benchmarks.scenarios import Scenario
from benchmarks.servers import Contender

TITLE = "What to plan with"
WIDTH = 62
Cost = Callable[[Contender], float | None]


def rows(results: Results) -> list[tuple[str, ...]]:
    """A heading with the contenders and a row for each figure; nothing where no Redis was shared.

    A delivery costs what it does in the scenario with the most members a room, where an update is next to nothing. Of
    the scenarios with the fewest, an update's share is what is left when its deliveries are taken off at that price.
    """
    throughput = sorted((s for s in results.scenarios if s.kind == "throughput"), key=_members_each)
    if not throughput or all(sample.figure("redis_us") is None for sample in results.samples):
        return []
    few = [s for s in results.scenarios if s.rooms == throughput[0].rooms and s.kind == "delay"]

    def delivery(contender: Contender) -> float | None:
        return results.median(throughput[-1].name, contender.name, "cost_us")

    def update(scenario: Scenario) -> Cost:
        return lambda contender: _update(results, scenario, contender, delivery(contender))

    def figure(scenario: Scenario, name: str) -> Cost:
        return lambda contender: results.median(scenario.name, contender.name, name)

    found: list[tuple[str, Cost]] = [("a delivery", delivery)]
    for scenario in [throughput[0], *few]:
        how = "as many as they take" if scenario.rate is None else f"{scenario.rate:g} a second"
        found += [
            (f"an update, on each node that follows it, {how}", update(scenario)),
            (f"an update, in Redis, {how}", figure(scenario, "redis_us")),
            (f"an update, in its publisher, {how}", figure(scenario, "publisher_us")),
        ]
    contenders = [contender for contender in results.contenders if contender.nodes or contender.name == "memory"]
    return [("", *(contender.name for contender in contenders)), *_texts(found, contenders)]


def _members_each(scenario: Scenario) -> float:
    return scenario.members / scenario.rooms


def _update(results: Results, scenario: Scenario, contender: Contender, delivery: float | None) -> float | None:
    each = results.median(scenario.name, contender.name, "cost_us")
    if each is None or delivery is None:
        return None
    return max(0.0, each - delivery) * scenario.deliveries(1) / max(1, contender.nodes)


def _texts(found: Sequence[tuple[str, Cost]], contenders: Sequence[Contender]) -> list[tuple[str, ...]]:
    texts = []
    for what, cost in found:
        values = [cost(contender) for contender in contenders]
        texts.append((what, *("" if value is None else f"{value:,.1f}" for value in values)))
    return texts
