"""The table at the end: medians, how far the samples are apart, and ratios to those we are compared with.

"CPU µs each" is for each delivery (or session), "Redis µs" and "publisher µs" are for each update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks import planning
from benchmarks.results import Results
from benchmarks.scenarios import Kind, Scenario

# By kind: the figure that ratios are of, then every column's heading, figure, divisor and digits.
Column = tuple[str, str, float, int]
COLUMNS: dict[Kind, tuple[str, tuple[Column, ...]]] = {
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
    "publish": (
        "rate",
        (("POSTs/s", "rate", 1, 0), ("CPU µs each", "cost_us", 1, 0), ("answer p99 ms", "answer.p99_ms", 1, 2)),
    ),
    "notifier": (
        "rate",
        (
            ("updates/s", "rate", 1, 0),
            ("dropped", "dropped", 1, 0),
            ("CPU µs each", "cost_us", 1, 0),
            ("notifier µs", "notifier_us", 1, 0),
        ),
    ),
    "polling": (
        "cost_us",
        (("CPU µs each", "cost_us", 1, 2), ("p50 ms", "delay.p50_ms", 1, 2), ("p99 ms", "delay.p99_ms", 1, 2)),
    ),
    "window": (
        "per_cpu_second",
        (
            ("each CPU s", "per_cpu_second", 1, 0),
            ("CPU µs each", "cost_us", 1, 2),
            ("p50 ms", "delay.p50_ms", 1, 2),
            ("p99 ms", "delay.p99_ms", 1, 2),
        ),
    ),
    "storm": (
        "seconds",
        (
            ("all back s", "seconds", 1, 2),
            ("half of them s", "back.p50_ms", 1000, 2),
            ("CPU µs each", "cost_us", 1, 0),
            ("statements", "statements", 1, 0),
            ("errors", "errors", 1, 0),
        ),
    ),
    "jitter": (
        "back.p99_ms",
        (
            ("replay p50 ms", "back.p50_ms", 1, 2),
            ("replay p99 ms", "back.p99_ms", 1, 2),
            ("delivered %", "delivered", 0.01, 2),
            ("replayed", "replayed", 1, 0),
        ),
    ),
    "stalled": (
        "delivered",
        (
            ("delivered", "delivered", 1, 0),
            ("lost unnoticed", "lost_unnoticed", 1, 0),
            ("after an end", "lost_ended", 1, 0),
            ("and told", "lost_told", 1, 0),
            ("MB grown", "grown", 2**20, 1),
        ),
    ),
    "connect": ("rate", (("sessions/s", "rate", 1, 0), ("CPU µs each", "cost_us", 1, 0))),
    "memory": ("bytes_each", (("KB each", "bytes_each", 1024, 1),)),
}
SHARED = (("Redis µs", "redis_us", 1.0, 1), ("publisher µs", "publisher_us", 1.0, 1))
"""Further columns where nodes share a Redis."""
REFERENCES = {
    "memory": "× memory", "uvicorn_socketio": "× socketio", "node": "× Node", "uws_socketio": "× io on µWS",
    "uws_raw": "× µWS", "floor": "× floor",
}  # fmt: skip
"""With whom everybody is compared, and the headings of the ratios."""
WORTH_SAYING = 5 * 2**20  # bytes by which a server has grown
NAME = 38
WIDTH, RATIO = 13, 8


def render(results: Results) -> str:
    """Everything that was measured, one block for each scenario."""
    measured = {sample.scenario for sample in results.samples}
    blocks = [
        "\n".join(_block(results, scenario))
        for scenario in results.scenarios
        if scenario.name in measured and scenario.kind != "hostile"
    ]
    if hostile := waits(results):
        blocks.append("\n".join(_aligned_left(hostile)))
    costs = planning.rows(results)
    if costs:
        blocks.append("\n".join([f"{planning.TITLE}, CPU µs", *map(_planned, costs)]))
    return "\n\n".join([*blocks, *results.notes])


def columns(results: Results, scenario: Scenario) -> tuple[str, list[Column]]:
    """The figure that ratios are of, and the columns of a scenario's table."""
    main, always = COLUMNS[scenario.kind]
    present = [s for s in results.samples if s.scenario == scenario.name]
    return main, [*always, *(column for column in SHARED if any(s.figure(column[1]) is not None for s in present))]


def ratios(results: Results, scenario: Scenario, main: str) -> dict[str, dict[str, float]]:
    """The headings of a table's ratios, and the ratio of each contender that has one.

    Ours are also compared with themselves as they are in another checkout, whose name stands behind an ``@``.
    """
    medians = {c.name: results.median(scenario.name, c.name, main) for c in results.contenders}
    checkouts = dict.fromkeys(checkout for _, _, checkout in (name.partition("@") for name in medians) if checkout)
    against: dict[str, Callable[[str], str]] = {
        f"× {checkout}": lambda name, checkout=checkout: f"{name.partition('@')[0]}@{checkout}"  # type: ignore[misc]
        for checkout in checkouts
    }
    against |= {heading: lambda _, other=other: other for other, heading in REFERENCES.items()}  # type: ignore[misc]
    found = {
        heading: {
            name: median / reference
            for name, median in medians.items()
            if median is not None and (reference := medians.get(other(name)))
        }
        for heading, other in against.items()
    }
    return {heading: each for heading, each in found.items() if each}


WAITS = "ms that others wait: p99 (longest)"


def waits(results: Results) -> list[list[str]]:
    """What others waited for while something was done to their server: a heading, and a row for everything done.

    Nothing where that was not measured.
    """
    scenarios = [scenario for scenario in results.scenarios if scenario.kind == "hostile"]
    if not scenarios:
        return []
    heading = [WAITS, *(contender.title for contender in results.contenders)]
    return [heading, *([s.title, *(wait(results, s, c.name) for c in results.contenders)] for s in scenarios)]


def wait(results: Results, scenario: Scenario, contender: str) -> str:
    """One cell: the worst of ping, join and update, memory that grew by much, and what else is to be said."""
    errors = results.errors(scenario.name, contender)
    if errors:
        return f"failed: {errors[0]}"
    if (gave_up := results.median(scenario.name, contender, "gave_up")) is not None:
        return f"> {gave_up * 1000:,.0f}"
    parts = []
    p99, longest, grown = (results.median(scenario.name, contender, name) for name in ("p99_ms", "max_ms", "grown"))
    if p99 is not None and longest is not None:
        parts.append(f"{p99:,.1f} ({longest:,.0f})")
    if grown is not None and grown >= WORTH_SAYING:
        parts.append(f"+{grown / 2**20:,.0f} MB")
    said = [s.figures["said"] for s in results.of(scenario.name, contender) if "said" in s.figures]
    return ", ".join([*parts, *said[-1:]])


def _aligned_left(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _planned(row: tuple[str, ...]) -> str:
    what, *cells = row
    return f"  {what:<{planning.WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _block(results: Results, scenario: Scenario) -> Iterator[str]:
    main, shown = columns(results, scenario)
    compared = ratios(results, scenario, main)
    headings = [*(heading for heading, *_ in shown), "spread", *compared]
    widths = [max(RATIO if heading in compared else WIDTH, len(heading) + 2) for heading in headings]
    name = max(NAME, *(len(contender.title) + 2 for contender in results.contenders))
    yield f"{scenario.name}: {scenario.title}"
    yield f"  {'':<{name}}" + _aligned(headings, widths)
    for contender in results.contenders:
        values = results.values(scenario.name, contender.name, main)
        for error in results.errors(scenario.name, contender.name):
            yield f"  {contender.title:<{name}}  failed: {error}"
        if not values:
            continue
        cells = [
            "" if value is None else f"{value / divisor:,.{digits}f}"
            for _, figure, divisor, digits in shown
            for value in [results.median(scenario.name, contender.name, figure)]
        ]
        median = results.median(scenario.name, contender.name, main) or 0.0
        cells.append(f"{(max(values) - min(values)) / median:.0%}" if median and len(values) > 1 else "")
        cells += [f"{each[contender.name]:.2f}" if contender.name in each else "" for each in compared.values()]
        limited = any(results.values(scenario.name, contender.name, "load_limited"))
        mark = "  load generator at its limit" if limited else ""
        yield f"  {contender.title:<{name}}" + _aligned(cells, widths) + mark


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
