"""What a run has found, to look at: ``python -m benchmarks.report RESULT.json [--markdown] [--plot DIR]``.

RESULT.json is what ``python -m benchmarks.fanout --json RESULT.json`` has written (:mod:`benchmarks.results`), or
``python -m benchmarks.nodes``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from attrs import fields, frozen

from benchmarks import planning, table
from benchmarks.results import SCHEMA, Results, Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import Contender


class UnreadableResults(ValueError):
    """The file is no result of a run; the message is one line."""


MARK = "<!-- From here on"
"""What begins the line of a page behind which nothing is written by hand."""


class UnmarkedPage(ValueError):
    """The page has no place for tables; the message is one line."""


@frozen
class Report:
    """The results of a run, and where and when it was."""

    results: Results
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    command: Sequence[str]
    contender_versions: dict[str, dict[str, str]]
    """By the contender's name."""

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Report:
        """From what a result file holds. Raises :exc:`UnreadableResults`."""
        if stored["schema"] != SCHEMA:
            raise UnreadableResults(f"its schema is {stored['schema']!r}, and {SCHEMA} is read here; run it again")
        names = [field.name for field in fields(Scenario)]
        results = Results(
            [_contender(contender) for contender in stored["contenders"]],
            [Scenario(**{name: s[name] for name in names if name in s}) for s in stored["scenarios"]],
            [_sample(sample) for sample in stored["samples"]],
            stored["notes"],
        )
        versions = {c["name"]: c["versions"] for c in stored["contenders"]}
        return cls(results, stored["date"], stored["machine"], stored["versions"], stored["command"], versions)

    @classmethod
    def load(cls, path: Path) -> Report:
        """From a result file. Raises :exc:`UnreadableResults`."""
        try:
            return cls.of(json.loads(path.read_text()))
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UnreadableResults(f"no result of benchmarks.fanout: {error!r}") from error

    @property
    def rounds(self) -> int:
        """How often each scenario was run."""
        return max((sample.round for sample in self.results.samples), default=-1) + 1

    @property
    def origin(self) -> str:
        """Date and machine in one line."""
        cores = self.machine["cores"]
        memory = f"{self.machine['memory'] / 2**30:.0f} GB"
        return f"{self.date[:10]}, {self.machine['processor']}, {cores} cores, {memory}, {self.machine['system']}"


def _contender(stored: dict[str, Any]) -> Contender:
    command = tuple(stored["command"])
    return Contender(stored["name"], stored["title"], stored["kind"], command, nodes=stored.get("nodes", 0))


def _sample(stored: dict[str, Any]) -> Sample:
    figures = {key: value for key, value in stored.items() if key not in ("scenario", "contender", "round")}
    return Sample(stored["scenario"], stored["contender"], stored["round"], figures)


# Markdown -----------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Everything that was measured as Markdown: a table for each scenario, then what ran."""
    results = report.results
    measured = {sample.scenario for sample in results.samples}
    medians = f" Medians of {report.rounds}, in brackets smallest and largest." if report.rounds > 1 else ""
    parts = [
        f"{report.origin}.{medians} `{' '.join(report.command)}`",
        *(
            "\n".join(_table(results, scenario))
            for scenario in results.scenarios
            if scenario.name in measured and scenario.kind != "hostile"
        ),
        *("\n".join(lines) for lines in [list(_waits(results))] if lines),
        *("\n".join(lines) for lines in [list(_planning(results))] if lines),
        "\n".join(_versions(report)),
    ]
    if results.notes:
        parts.append("\n".join(f"- {note}" for note in results.notes))
    return "\n\n".join(parts) + "\n"


def write_page(page: Path, results: Results, command: Sequence[str]) -> None:
    """Put a run that has just ended behind the last line of a page of the documentation that begins with ``MARK``.

    Raises :exc:`UnmarkedPage`.
    """
    page.write_text(f"{by_hand(page)}\n{markdown(Report.of(results.as_dict(command)))}")


def by_hand(page: Path) -> str:
    """What of a page is written by hand: up to and with its last mark. Raises :exc:`UnmarkedPage`."""
    lines = page.read_text().splitlines(keepends=True)
    marks = [number for number, line in enumerate(lines, 1) if line.startswith(MARK)]
    if not marks:
        raise UnmarkedPage(f"no line of {page} begins with {MARK!r}")
    return "".join(lines[: marks[-1]])


def _table(results: Results, scenario: Scenario) -> Iterator[str]:
    main, columns = table.columns(results, scenario)
    compared = table.ratios(results, scenario, main)
    headings = [*(heading for heading, *_ in columns), *compared]
    yield f"### {scenario.title[0].upper()}{scenario.title[1:]}\n"
    yield f"| `{scenario.name}` | " + " | ".join(headings) + " |"
    yield "|---|" + "--:|" * len(headings)
    for contender in results.contenders:
        name = f"**{contender.title}**" if contender.kind == "adapter" else contender.title
        if results.median(scenario.name, contender.name, main) is None:
            for error in results.errors(scenario.name, contender.name):
                yield f"| {name} | failed: {error.replace('|', ' ')} |" + " |" * (len(headings) - 1)
            continue
        cells = [_cell(results, scenario, contender, *column[1:]) for column in columns]
        cells += [f"{each[contender.name]:.2f}" if contender.name in each else "" for each in compared.values()]
        limited = any(results.values(scenario.name, contender.name, "load_limited"))
        yield f"| {name}{' (load generator at its limit)' if limited else ''} | " + " | ".join(cells) + " |"


def _planning(results: Results) -> Iterator[str]:
    heading, *rows = planning.rows(results) or [()]
    if heading:
        yield f"### {planning.TITLE}\n"
        yield "| CPU µs | " + " | ".join(heading[1:]) + " |"
        yield "|---|" + "--:|" * (len(heading) - 1)
        yield from ("| " + " | ".join(row) + " |" for row in rows)


def _waits(results: Results) -> Iterator[str]:
    heading, *rows = table.waits(results) or [[]]
    if heading:
        yield "| " + " | ".join(heading) + " |"
        yield "|---|" + "--:|" * (len(heading) - 1)
        yield from ("| " + " | ".join(cell.replace("|", " ") for cell in row) + " |" for row in rows)


def _cell(results: Results, scenario: Scenario, contender: Contender, figure: str, divisor: float, digits: int) -> str:
    """The median, and how far the samples are apart where there are several."""
    values = results.values(scenario.name, contender.name, figure)
    median = results.median(scenario.name, contender.name, figure)
    if median is None:
        return ""
    low, middle, high = (f"{value / divisor:,.{digits}f}" for value in (min(values), median, max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def _versions(report: Report) -> Iterator[str]:
    yield "| server | runs on |"
    yield "|---|---|"
    yield "| all in Python | " + _listed(report.versions) + " |"
    for contender in report.results.contenders:
        if versions := report.contender_versions[contender.name]:
            yield f"| {contender.title} | {_listed(versions)} |"


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


# Pictures and the command line --------------------------------------------------------------------------------


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw the plots of a run that has just ended into ``folder``; returns what was drawn."""
    return draw_report(Report.of(results.as_dict([])), folder)


def draw_report(report: Report, folder: Path) -> list[Path]:
    """Draw the plots for which there are samples into ``folder``; returns what was drawn."""
    from benchmarks import plots  # here, as matplotlib is needed for nothing else

    return plots.draw(report.results, report.origin, report.rounds, folder)


@click.command()
@click.argument("path", metavar="RESULT.json", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Tables for the documentation, instead of the terminal's."
)
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), help="Draw plots into this folder.")
def main(path: Path, as_markdown: bool, plot: Path | None) -> None:
    """Show what a run of the benchmarks has found."""
    try:
        report = Report.load(path)
    except UnreadableResults as error:
        raise click.UsageError(f"{path}: {error}") from error
    if plot is not None:
        for drawn in draw_report(report, plot):
            click.echo(f"drawn: {drawn}", err=True)
    click.echo(markdown(report) if as_markdown else table.render(report.results))


if __name__ == "__main__":
    main()
