"""The pictures of a run, as SVG: legible on light and dark pages, each line or row with its name beside it.

The background is transparent, and every colour has a contrast of at least 4:1 to white and to GitHub's dark grey.
Ours are thick lines and full dots in cool colours, the others thin and dashed with open dots in warm ones, the floor
is grey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.results import Results
from benchmarks.scenarios import Scenario
from benchmarks.servers import Contender

WIDTH = 9.0  # inches
TEXT = "#747b85"
GRID = "#8a919b40"
COOL = ("#1f7fd6", "#0d8a8a", "#8265d9", "#2c8a3c")
WARM = ("#c3631a", "#d04a45", "#91765f", "#c2508c", "#8c7f00", "#ae4faf", "#9b657b", "#e81717", "#9e6b07")
PERCENTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)
MOST_PERCENTILE = 0.9999
LABEL_GAP = 13.0  # points between the names of neighbouring lines

SETTINGS: Any = {
    "font.size": 10.0, "font.family": "DejaVu Sans", "text.color": TEXT, "axes.labelcolor": TEXT, "xtick.color": TEXT,
    "ytick.color": TEXT, "axes.edgecolor": TEXT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GRID, "axes.axisbelow": True, "svg.hashsalt": "automoderate",
    "lines.solid_capstyle": "round",
}  # fmt: skip


@frozen
class Style:
    """How a contender looks in every picture."""

    colour: str
    ours: bool
    floor: bool

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of a line with its dots."""
        return {
            "color": self.colour, "linewidth": 2.6 if self.ours else 1.4,
            "linestyle": "-" if self.ours else ":" if self.floor else "--", **self.dots,
        }  # fmt: skip

    @property
    def dots(self) -> dict[str, Any]:
        """Keywords of the dots alone."""
        face = self.colour if self.ours else "none"
        return {
            "marker": "o" if not self.floor else "s",
            "markersize": 6,
            "markerfacecolor": face,
            "markeredgecolor": self.colour,
        }


@frozen
class Line:
    """One contender's values over some sizes, or rows."""

    contender: Contender
    points: list[tuple[float, float]]


def draw(results: Results, origin: str, rounds: int, folder: Path) -> list[Path]:
    """Draw everything there are samples for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    caption = f"{origin}; medians of {rounds}" if rounds > 1 else origin
    pictures: dict[str, Callable[[Results], Figure | None]] = {
        "throughput-members": _throughput_over_members,
        "throughput-rooms": _throughput_over_rooms,
        "delay": _delays,
        "cost": _costs,
        "memory": _memory,
    }
    drawn = []
    with mpl.rc_context(SETTINGS):
        for name, picture in pictures.items():
            figure = picture(results)
            if figure is not None:
                figure.text(0.008, 0.008, caption, fontsize=7.5)
                path = folder / f"{name}.svg"
                figure.savefig(path, transparent=True, metadata={"Date": None})
                drawn.append(path)
    return drawn


def styles(contenders: Sequence[Contender]) -> dict[str, Style]:
    """One style for each, the same in every picture of a run."""
    seen: Counter[bool] = Counter()
    found = {}
    for contender in contenders:
        ours = contender.kind == "adapter"
        colours = COOL if ours else WARM
        floor = contender.kind == "floor"
        found[contender.name] = Style(TEXT if floor else colours[seen[ours] % len(colours)], ours, floor)
        seen[ours] += 1
    return found


# Lines --------------------------------------------------------------------------------------------------------


def _throughput_over_members(results: Results) -> Figure | None:
    scenarios = [s for s in results.scenarios if s.kind == "throughput" and s.rooms == 1]
    return _throughput(
        results, scenarios, lambda s: s.members, "members of one room", "Deliveries a second to one room"
    )


def _throughput_over_rooms(results: Results) -> Figure | None:
    spread = [s for s in results.scenarios if s.kind == "throughput" and s.rooms > 1]
    if not spread:
        return None
    members = spread[0].members
    scenarios = [s for s in results.scenarios if s.kind == "throughput" and s.members == members]
    title = f"Deliveries a second to {members:,} members in so many rooms"
    return _throughput(results, scenarios, lambda s: s.rooms, "rooms", title)


def _throughput(
    results: Results, scenarios: Sequence[Scenario], size: Callable[[Scenario], int], label: str, title: str
) -> Figure | None:
    lines = []
    for contender in results.contenders:
        found = ((size(s), results.median(s.name, contender.name, "rate")) for s in scenarios)
        points = sorted((float(at), rate) for at, rate in found if rate is not None)
        if points:
            lines.append(Line(contender, points))
    if not lines:
        return None
    figure, (axes,) = _figure(title, 1, 5.0)
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="deliveries a second (log scale)")
    looks = styles(results.contenders)
    for line in lines:
        axes.plot(*zip(*line.points, strict=True), **looks[line.contender.name].line)
    axes.set_xticks(sorted({at for line in lines for at, _ in line.points}))
    _plain_numbers(axes)
    _name_lines(axes, lines, looks)
    return figure


def _delays(results: Results) -> Figure | None:
    scenarios = [s for s in results.scenarios if s.kind == "delay"]
    histograms = {
        (s.name, c.name): merged for s in scenarios for c in results.contenders if (merged := _histogram(results, s, c))
    }
    scenarios = [s for s in scenarios if any(name == s.name for name, _ in histograms)]
    if not scenarios:
        return None
    figure, panels = _figure("Delay from publication to receipt", len(scenarios), 4.6 * len(scenarios))
    looks = styles(results.contenders)
    for axes, scenario in zip(panels, scenarios, strict=True):
        lines = [
            Line(contender, _tail(histograms[scenario.name, contender.name]))
            for contender in results.contenders
            if (scenario.name, contender.name) in histograms
        ]
        axes.set(
            xscale="log", yscale="log", xlabel="share of the deliveries", ylabel="milliseconds or less (log scale)"
        )
        axes.set_title(scenario.title, fontsize=10, loc="left")
        for line in lines:
            axes.plot(*zip(*line.points, strict=True), **looks[line.contender.name].line | {"marker": ""})
        shown = [p for p in PERCENTILES if 1 / (1 - p) <= max(at for line in lines for at, _ in line.points) * 1.01]
        axes.set_xticks([1 / (1 - p) for p in shown], [f"{p * 100:g} %" for p in shown])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        _name_lines(axes, lines, looks)
    return figure


def _histogram(results: Results, scenario: Scenario, contender: Contender) -> Counter[float]:
    """The delays of all samples together: how many up to each bound in microseconds."""
    merged: Counter[float] = Counter()
    for sample in results.samples:
        if (sample.scenario, sample.contender) == (scenario.name, contender.name) and sample.error is None:
            for bound, count in sample.figures["delay"]["histogram"]:
                merged[bound] += count
    return merged


def _tail(histogram: Counter[float]) -> list[tuple[float, float]]:
    """From the median on: 1 / (1 - share), and the milliseconds within which that share was delivered."""
    total, so_far, points = sum(histogram.values()), 0, []
    for bound, count in sorted(histogram.items()):
        begin, so_far = so_far / total, so_far + count
        share = min(so_far / total, MOST_PERCENTILE)
        if share >= PERCENTILES[0]:
            # A bucket holds for all shares that end in it.
            points += [(1 / (1 - max(begin, PERCENTILES[0])), bound / 1000), (1 / (1 - share), bound / 1000)]
        if so_far / total >= MOST_PERCENTILE:
            break
    return points


# Rows ---------------------------------------------------------------------------------------------------------


def _costs(results: Results) -> Figure | None:
    members = max((s.members for s in results.scenarios if s.kind == "throughput" and s.rooms > 1), default=0)
    scenarios = [s for s in results.scenarios if s.kind == "throughput" and s.members == members][:4]
    contenders = [c for c in results.contenders if any(results.median(s.name, c.name, "cost_us") for s in scenarios)]
    if not contenders:
        return None
    height = 1.5 + 0.3 * len(contenders)
    figure, panels = _figure(
        "Server CPU for each delivery, microseconds (log scale)", len(scenarios), height, across=True
    )
    looks = styles(results.contenders)
    for axes, scenario in zip(panels, scenarios, strict=True):
        each = f"{scenario.members // scenario.rooms:,}"
        rooms = f"1 room of {each}" if scenario.rooms == 1 else f"{scenario.rooms:,} rooms of {each}"
        axes.set_title(rooms, fontsize=10, loc="left")
        axes.set_xscale("log")
        axes.grid(visible=False, axis="y")
        for row, contender in enumerate(contenders):
            cost = results.median(scenario.name, contender.name, "cost_us")
            if cost is not None:
                look = looks[contender.name]
                axes.plot([cost], [row], linestyle="", **look.dots)
                axes.annotate(
                    f"{cost:.3g}", (cost, row), (7, 0), textcoords="offset points", va="center", color=look.colour,
                    fontsize=9, weight="bold" if look.ours else "normal",
                )  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(low / 1.2, high * 3)  # all of them: the scale is shared, and the largest figure needs room
    _name_rows(panels, contenders, looks)
    return figure


def _memory(results: Results) -> Figure | None:
    scenario = next((s for s in results.scenarios if s.kind == "memory"), None)
    if scenario is None:
        return None
    values = {c.name: results.median(scenario.name, c.name, "bytes_each") for c in results.contenders}
    contenders = [c for c in results.contenders if values[c.name] is not None and c.kind != "floor"]
    if not contenders:
        return None
    title = f"Resident memory for each of {scenario.members:,} idle joined sessions, KB"
    figure, (axes,) = _figure(title, 1, 1.4 + 0.3 * len(contenders))
    axes.grid(visible=False, axis="y")
    looks = styles(results.contenders)
    for row, contender in enumerate(contenders):
        look, kilobytes = looks[contender.name], (values[contender.name] or 0.0) / 1024
        face = look.colour if look.ours else "none"
        axes.barh(row, kilobytes, height=0.62, facecolor=face, edgecolor=look.colour, linewidth=1.4)
        axes.annotate(
            f"{kilobytes:.1f}", (kilobytes, row), (5, 0), textcoords="offset points", va="center", color=look.colour,
            weight="bold" if look.ours else "normal",
        )  # fmt: skip
    _name_rows([axes], contenders, looks)
    return figure


# What they share ----------------------------------------------------------------------------------------------


def _figure(title: str, panels: int, height: float, *, across: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0.0, 0.3 / height, 0.99, 1 - 0.32 / height))  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, x=0.008, ha="left", fontsize=12, weight="bold")
    rows, columns = (1, panels) if across else (panels, 1)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=across, sharey=across)
    return figure, list(grid.flat)


def _plain_numbers(axes: Axes) -> None:
    """Ticks as whole numbers with thousands separated."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def _name_lines(axes: Axes, lines: Sequence[Line], looks: dict[str, Style]) -> None:
    """Write each line's name where it ends; names that would be on top of each other are moved apart."""
    figure = axes.figure
    right = max(at for line in lines for at, _ in line.points)
    figure.canvas.draw()
    height = axes.get_window_extent().height * 72 / figure.dpi  # points
    low, high = axes.transScale.transform([(1, value) for value in axes.get_ylim()])[:, 1]
    ends = [float(axes.transScale.transform((1, line.points[-1][1]))[1]) for line in lines]
    wanted = [(end - low) / (high - low) * height for end in ends]
    for line, was, place in zip(lines, wanted, apart(wanted), strict=True):
        look = looks[line.contender.name]
        axes.annotate(
            line.contender.title, (right, line.points[-1][1]), (10, place - was), textcoords="offset points",
            va="center", color=look.colour, fontsize=9.5, weight="bold" if look.ours else "normal",
            annotation_clip=False,
        )  # fmt: skip


def apart(places: Sequence[float]) -> list[float]:
    """The same places at least LABEL_GAP from each other, in the same order, moved as a group about their middle."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[list[float]] = []  # centre and number of each
    for index in order:
        groups.append([places[index], 1])
        while len(groups) > 1:
            (centre, count), (before, others) = groups[-1], groups[-2]
            if (centre - (count - 1) * LABEL_GAP / 2) - (before + (others - 1) * LABEL_GAP / 2) >= LABEL_GAP:
                break
            groups[-2:] = [[(centre * count + before * others) / (count + others), count + others]]
    found = [0.0] * len(places)
    moved = iter(order)
    for centre, count in groups:
        for number in range(int(count)):
            found[next(moved)] = centre + (number - (count - 1) / 2) * LABEL_GAP
    return found


def _name_rows(panels: Sequence[Axes], contenders: Sequence[Contender], looks: dict[str, Style]) -> None:
    """Write the contenders' names in front of their rows, the first at the top."""
    panels[0].set_yticks(range(len(contenders)), [contender.title for contender in contenders])
    for label, contender in zip(panels[0].get_yticklabels(), contenders, strict=True):
        look = looks[contender.name]
        label.set(color=look.colour, weight="bold" if look.ours else "normal")
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_ylim(len(contenders) - 0.4, -0.6)
