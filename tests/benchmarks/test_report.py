"""What a run has found is reported as it is: ``run.json`` holds made-up figures that are easy to reckon with."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from attrs import evolve
from click.testing import CliRunner

from benchmarks import plots, report
from benchmarks.report import Report, UnreadableResults
from benchmarks.servers import ADAPTERS, FLOOR

RUN = Path(__file__).parent / "run.json"
PAGES = ("#ffffff", "#0d1117")  # GitHub's light and dark
PICTURES = {"throughput-members.svg", "throughput-rooms.svg", "delay.svg", "cost.svg", "memory.svg"}


@pytest.fixture
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RUN.read_text())
    return found


def test_says_where_and_when_the_run_was() -> None:
    loaded = Report.load(RUN)
    assert loaded.origin == "2026-01-15, Example 9000, 2 cores, 8 GB, Linux 6.1 x86_64"
    assert loaded.rounds == 3


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell."""
    (section,) = [part for part in text.split("### ") if part.startswith(heading)]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def test_markdown_has_medians_ranges_and_ratios() -> None:
    found = rows(report.markdown(Report.load(RUN)), "1 room of 1,000, as many")
    assert found["`fanout-1x1000`"] == ["deliveries/s", "CPU µs each", "× socketio", "× Node", "× floor"]
    assert found["**AutoModerate, asyncio**"] == [
        "200,000 (100,000 to 300,000)", "5.00 (3.33 to 10.00)", "20.00", "4.00", "0.50",
    ]  # fmt: skip
    assert found["Node's socket.io"][2:] == ["5.00", "1.00", "0.12"]
    assert "bare send() loop in C (load generator at its limit)" in found


def test_markdown_says_what_failed_what_ran_and_what_was_left_out() -> None:
    text = report.markdown(Report.load(RUN))
    stall = rows(text, "1 room of 1,000, while another session")
    assert stall["python-socketio on uvicorn"][0] == "failed: said nothing for 20 seconds"
    assert "| Node's socket.io | node 22.0.0 |" in text
    assert "- Flask-SocketIO, threads is left out: not installed" in text


def test_every_row_has_as_many_cells_as_its_heading() -> None:
    for block in report.markdown(Report.load(RUN)).split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, block


def test_the_results_of_a_run_that_has_just_ended_are_drawn(tmp_path: Path) -> None:
    drawn = report.draw(Report.load(RUN).results, tmp_path)
    assert {path.name for path in drawn} == PICTURES == {path.name for path in tmp_path.iterdir()}
    for path in drawn:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert path.stat().st_size < 300_000


def test_pictures_of_one_run_are_always_the_same(tmp_path: Path) -> None:
    loaded = Report.load(RUN)
    first, second = (report.draw_report(loaded, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_was_not_measured_is_not_drawn(stored: dict[str, Any], tmp_path: Path) -> None:
    stored["scenarios"] = [s for s in stored["scenarios"] if s["kind"] == "memory"]
    stored["samples"] = [s for s in stored["samples"] if s["scenario"].startswith("memory")]
    assert [path.name for path in report.draw_report(Report.of(stored), tmp_path)] == ["memory.svg"]
    stored["samples"] = []
    assert report.draw_report(Report.of(stored), tmp_path) == []


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2.2 has it ("relative luminance")."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("colour", [*plots.COOL, *plots.WARM, plots.TEXT])
def test_colours_are_legible_on_light_and_dark_pages(colour: str, page: str) -> None:
    assert contrast(colour, page) >= 4.0


def test_everybody_looks_different_and_ours_stand_out() -> None:
    from benchmarks.peers.contenders import PEERS

    looks = plots.styles([*ADAPTERS, *PEERS, FLOOR])
    assert len({look.colour for look in looks.values()}) == len(looks)
    assert {name for name, look in looks.items() if look.ours} == {contender.name for contender in ADAPTERS}


@pytest.mark.parametrize("places", [[10.0], [10.0, 10.0, 10.0], [50.0, 10.0, 12.0, 14.0, 90.0], [5.0, 4.0, 3.0, 40.0]])
def test_names_of_lines_keep_apart_and_in_order(places: list[float]) -> None:
    moved = plots.apart(places)
    order = sorted(range(len(places)), key=lambda index: places[index])
    gaps = [moved[after] - moved[before] for before, after in itertools.pairwise(order)]
    assert all(gap >= plots.LABEL_GAP - 1e-9 for gap in gaps)
    assert sum(moved) == pytest.approx(sum(places))


def test_the_command_prints_the_terminals_table_or_markdown_and_draws(tmp_path: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(report.main, [str(RUN)])
    assert shown.exit_code == 0
    assert re.search(r"AutoModerate, trio +240,000 ", shown.output)
    written = runner.invoke(report.main, [str(RUN), "--markdown", "--plot", str(tmp_path)])
    assert written.stdout.rstrip() == report.markdown(Report.load(RUN)).rstrip()
    assert {path.name for path in tmp_path.iterdir()} == PICTURES


@pytest.mark.parametrize("text", ["not JSON", "{}", '{"schema": 1}', '{"schema": 2}', "[]"])
def test_another_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UnreadableResults):
        Report.load(path)
    refused = CliRunner().invoke(report.main, [str(path)])
    assert refused.exit_code == 2
    assert len([line for line in refused.stderr.splitlines() if line.startswith("Error: ")]) == 1


def test_a_single_round_has_no_range() -> None:
    loaded = Report.load(RUN)
    samples = [sample for sample in loaded.results.samples if sample.round == 0]
    once = evolve(loaded, results=evolve(loaded.results, samples=samples))
    found = rows(report.markdown(once), "1 room of 100, as many")
    assert found["**AutoModerate, trio**"][0] == "240,000"
