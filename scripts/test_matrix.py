"""A pytest plugin that writes which tests passed on which server: ``make matrix``.

Tests that run once for every adapter have a parameter ``kind``, ``adapter`` or ``running``; its value is the column.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from attrs import define, field

COLUMN_PARAMETERS = ("kind", "adapter", "running")

INTRODUCTION = """# The test matrix

Written by `make matrix` from a run of the tests that are the same for every adapter and every server the rules are
attached to. ✓ passed (with the number of cases where there are several), ✗ failed, blank: not run there, as it does not
apply or, in `tests/contract`, as no runtime has a part in it and one is enough.
"""


@define
class Cell:
    """The outcomes of one test in one column."""

    passed: int = 0
    failed: int = 0

    def __str__(self) -> str:
        if self.failed:
            return "✗"
        return "✓" if self.passed == 1 else f"✓ {self.passed}"


@define(eq=False)
class Matrix:
    """Outcomes by file, test and column, in the order of the run."""

    target: Path
    places: dict[str, tuple[str, str, str]] = field(factory=dict)
    """File, test and column of each test id."""
    cells: dict[tuple[str, str, str], Cell] = field(factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Find each test's place."""
        for item in items:
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            columns = [str(parameters[name]) for name in COLUMN_PARAMETERS if name in parameters]
            if columns:
                name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
                self.places[item.nodeid] = (item.nodeid.partition("::")[0], name, columns[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count an outcome."""
        place = self.places.get(report.nodeid)
        if place is None or not (report.when == "call" or report.failed):
            return
        cell = self.cells.setdefault(place, Cell())
        if report.failed:
            cell.failed += 1
        else:
            cell.passed += 1

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        self.target.write_text("\n".join([INTRODUCTION, *self.tables()]))

    def tables(self) -> Iterable[str]:
        """The page's lines, a table a file."""
        places = sorted(self.cells, key=lambda place: place[0])  # and in a file in the order of its tests
        columns = list(dict.fromkeys(column for _, _, column in places))
        for file in dict.fromkeys(file for file, _, _ in places):
            shown = [column for column in columns if any((f, c) == (file, column) for f, _, c in self.cells)]
            yield f"## {file}\n"
            yield f"| | {' | '.join(shown)} |"
            yield "|---" * (len(shown) + 1) + "|"
            for test in dict.fromkeys(test for f, test, _ in self.cells if f == file):
                found = [self.cells.get((file, test, column), "") for column in shown]
                yield f"| {test} | {' | '.join(map(str, found))} |"
            yield ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--matrix``."""
    parser.addoption("--matrix", type=Path, required=False, help="write the matrix of tests and servers to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Look on where ``--matrix`` is given."""
    target = config.getoption("--matrix")
    if target is not None:
        config.pluginmanager.register(Matrix(target), "matrix")
