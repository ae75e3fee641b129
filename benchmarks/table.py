"""The table at the end: medians, how far the samples are apart, and ratios to those we are compared with.

"CPU µs each" is for each delivery (or session), "Redis µs" and "publisher µs" are for each update.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import planning
from benchmarks.results import Results
from benchmarks.scenarios import Scenario

# By kind: the figure that ratios are of, then every column's heading, figure, divisor and digits.
Column = tuple[str, str, float, int]
COLUMNS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "throughput": ("rate", (("deliveries/s", "rate", 1, 0), ("CPU µs each", "cost_us", 1, 2))),
    "backlog": ("rate", (("deliveries/s", "rate", 1, 0), ("CPU µs each", "cost_us", 1, 2))),
    "delay": (
        "delay.p99_ms",
        (("p50 ms", "delay.p50_ms", 1, 2), ("p99 ms", "delay.p99_ms", 1, 2), ("max ms", "delay.max_ms", 1, 2)),
    ),
    "stall": (
        "ping.p99_ms",
        (("ping p99 ms", "ping.p99_ms", 1, 2), ("join p99 ms", "join.p99_ms", 1, 2), ("deliveries/s", "rate", 1, 0)),
    ),
    "connect": ("rate", (("sessions/s", "rate", 1, 0), ("CPU µs each", "cost_us", 1, 0))),
    "memory": ("bytes_each", (("KB each", "bytes_each", 1024, 1),)),
}
SHARED = (("Redis µs", "redis_us", 1.0, 1), ("publisher µs", "publisher_us", 1.0, 1))
"""Further columns where nodes share a Redis."""
REFERENCES = {"memory": "× memory", "uvicorn_socketio": "× socketio", "node": "× Node", "floor": "× floor"}
NAME = 38
WIDTH = 13


def render(results: Results) -> str:
    """Everything that was measured, one block for each scenario."""
    blocks = ["\n".join(_block(results, scenario)) for scenario in results.scenarios]
    costs = planning.rows(results)
    if costs:
        blocks.append("\n".join([f"{planning.TITLE}, CPU µs", *map(_planned, costs)]))
    return "\n\n".join([*blocks, *results.notes])


def columns(results: Results, scenario: Scenario) -> tuple[str, list[Column]]:
    """The figure that ratios are of, and the columns of a scenario's table."""
    main, always = COLUMNS[scenario.kind]
    present = [s for s in results.samples if s.scenario == scenario.name]
    return main, [*always, *(column for column in SHARED if any(s.figure(column[1]) is not None for s in present))]


def _planned(row: tuple[str, ...]) -> str:
    what, *cells = row
    return f"  {what:<{planning.WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _block(results: Results, scenario: Scenario) -> Iterator[str]:
    main, shown = columns(results, scenario)
    references = [name for name in REFERENCES if results.median(scenario.name, name, main) is not None]
    headings = [*(heading for heading, *_ in shown), "spread", *(REFERENCES[name] for name in references)]
    yield f"{scenario.name}: {scenario.title}"
    yield f"  {'':<{NAME}}" + "".join(f"{heading:>{WIDTH}}" for heading in headings)
    for contender in results.contenders:
        values = results.values(scenario.name, contender.name, main)
        for error in results.errors(scenario.name, contender.name):
            yield f"  {contender.title:<{NAME}}  failed: {error}"
        if not values:
            continue
        cells = [
            "" if value is None else f"{value / divisor:,.{digits}f}"
            for _, figure, divisor, digits in shown
            for value in [results.median(scenario.name, contender.name, figure)]
        ]
        median = results.median(scenario.name, contender.name, main) or 0.0
        cells.append(f"{(max(values) - min(values)) / median:.0%}" if median and len(values) > 1 else "")
        for name in references:
            other = results.median(scenario.name, name, main)
            cells.append(f"{median / other:.2f}" if other else "")
        limited = any(results.values(scenario.name, contender.name, "load_limited"))
        mark = "  load generator at its limit" if limited else ""
        yield f"  {contender.title:<{NAME}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells) + mark
