"""``python -m benchmarks.fanout``: our servers, those we are compared with, and the floor, measured side by side."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks import native, table
from benchmarks.budget import Budget
from benchmarks.choosing import (
    Names,
    also,
    contender_options,
    json_option,
    known,
    present,
    raise_descriptors,
    two_cores,
    whole_numbers,
    words,
)
from benchmarks.peers.contenders import PEERS
from benchmarks.progress import Progress
from benchmarks.results import Results
from benchmarks.run import Run
from benchmarks.scenarios import KINDS, QUICK, Scenario, Sizes, chosen, fitted
from benchmarks.servers import ADAPTERS, FLOOR, Contender
from benchmarks.worlds import Worlds

SECONDS, LONG, REPEAT, BUDGET = 1.0, 2.0, 2, 19 * 60.0
QUICK_SECONDS, QUICK_LONG, QUICK_REPEAT, QUICK_BUDGET = 0.3, 0.6, 1, 85.0
"""Seconds of a run at full speed and of one at a fixed rate, runs of each, and seconds after which none is begun."""


def _measure(
    contenders: list[Contender], scenarios: list[Scenario], repeat: int, quick: bool, sparing: bool
) -> Results:
    here, notes = present(contenders)
    fitting, smaller = fitted(scenarios, raise_descriptors())
    cores, alone = two_cores()
    if native.missing():
        notes.append(f"the load generator is the slow one in Python: {native.missing()}")
    results = Results(here, fitting, notes=[*notes, *smaller, *alone])
    seconds, long, whole = (QUICK_SECONDS, QUICK_LONG, QUICK_BUDGET) if quick else (SECONDS, LONG, BUDGET)
    budget = Budget(seconds, long, time.monotonic() + whole, sparing)
    progress = Progress(Run.steps(fitting, here, budget, repeat))
    with tempfile.TemporaryDirectory(prefix="automoderate-benchmarks-") as folder:
        try:
            with Worlds(Path(folder), fitting, cores.load) as worlds:
                Run(results, worlds, cores, repeat, budget, progress).run()
        finally:
            progress.close()
    return results


@click.command()
@contender_options
@click.option("--scenarios", type=words, default="", metavar="LIST", help=f"Names or kinds: {', '.join(KINDS)}.")
@click.option(
    "--members", type=whole_numbers, metavar="LIST",
    help="Sizes of the one room; the largest bounds the other scenarios too.",
)  # fmt: skip
@click.option(
    "--rooms", type=whole_numbers, metavar="LIST", help="Numbers of rooms that at most 5,000 members are spread over."
)
@click.option("--repeat", type=click.IntRange(1, 100), help="Runs of each scenario.")
@click.option("--quick", is_flag=True, help="A look within 90 seconds: fewer members, shorter runs, one of each.")
@json_option
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), help="Draw plots into this folder.")
def main(
    adapters: Names | None, peers: Names | None, checkouts: tuple[Path, ...], scenarios: Names,
    members: tuple[int, ...] | None, rooms: tuple[int, ...] | None, repeat: int | None, quick: bool,
    json_path: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """Measure fan-out over real sockets, and print medians and ratios."""
    ours = also(known(ADAPTERS, adapters, "adapter"), checkouts)
    contenders = [*ours, *known([*PEERS, FLOOR], peers, "peer")]
    if not contenders:
        raise click.UsageError("nothing to measure: name an adapter or a peer")
    sizes = QUICK if quick else Sizes()
    try:
        wanted = chosen(Sizes(members or sizes.members, rooms or sizes.rooms).scenarios(), scenarios, quick=quick)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    rounds = repeat or (QUICK_REPEAT if quick else REPEAT)
    results = _measure(contenders, wanted, rounds, quick, sparing=not scenarios)
    print(table.render(results))
    if json_path is not None:
        results.save(json_path, ["python", "-m", "benchmarks.fanout", *sys.argv[1:]])
    if plot is not None:
        from benchmarks import report  # here, as matplotlib is needed for nothing else

        report.draw(results, plot)
    sys.exit(1 if any(sample.error for sample in results.samples) else 0)


if __name__ == "__main__":
    main()
