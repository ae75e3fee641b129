"""``python -m benchmarks.fanout``: our servers, those we are compared with, and the floor, measured side by side."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks import native, table
from benchmarks.peers.contenders import PEERS
from benchmarks.progress import Progress
from benchmarks.results import Results
from benchmarks.run import Cores, Run
from benchmarks.scenarios import KINDS, QUICK, Scenario, Sizes, chosen, fitted
from benchmarks.servers import ADAPTERS, FLOOR, Contender
from benchmarks.world import World

SECONDS, LONG, REPEAT, BUDGET = 1.0, 3.0, 3, 19 * 60.0
QUICK_SECONDS, QUICK_LONG, QUICK_REPEAT, QUICK_BUDGET = 0.3, 0.6, 1, 85.0
"""Seconds of a run at full speed and of one at a fixed rate, runs of each, and seconds after which none is begun."""

Names = tuple[str, ...]


def _words(text: str) -> Names:
    """Words with commas between them."""
    return tuple(text.replace(",", " ").split())


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 with commas between them."""
    words = _words(text)
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise click.BadParameter(f"{text!r} is no list of whole numbers from 1")
    return tuple(dict.fromkeys(int(word) for word in words))


def _known(contenders: Sequence[Contender], words: Names | None, what: str) -> list[Contender]:
    """The contenders of these names, all where none are named, and none for ``none``."""
    names = [contender.name for contender in contenders]
    for word in words or ():
        if word not in names and word != "none":
            raise click.UsageError(f"no {what} {word!r}: choose of {', '.join(names)}, or none")
    return [contender for contender in contenders if words is None or contender.name in words]


def _present(contenders: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    """Those that can run here, and why the others cannot."""
    missing = {contender.name: contender.missing() for contender in contenders}
    notes = [f"{c.title} is left out: {missing[c.name]}" for c in contenders if missing[c.name]]
    return [contender for contender in contenders if not missing[contender.name]], notes


def _cores() -> tuple[Cores, list[str]]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return Cores(None, None), ["server and load generator share the only core: figures are too low"]
    return Cores(cores[0], cores[1]), []


def raise_descriptors() -> int:
    """Allow as many open files as the system does; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _measure(contenders: list[Contender], scenarios: list[Scenario], repeat: int, quick: bool) -> Results:
    present, notes = _present(contenders)
    fitting, smaller = fitted(scenarios, raise_descriptors())
    cores, alone = _cores()
    if native.missing():
        notes.append(f"the load generator is the slow one in Python: {native.missing()}")
    results = Results(present, fitting, notes=[*notes, *smaller, *alone])
    progress = Progress(Run.steps(fitting, present, repeat))
    seconds, long, budget = (QUICK_SECONDS, QUICK_LONG, QUICK_BUDGET) if quick else (SECONDS, LONG, BUDGET)
    deadline = time.monotonic() + budget
    with tempfile.TemporaryDirectory(prefix="automoderate-benchmarks-") as folder:
        world = World.make(Path(folder), [scenario.layout for scenario in fitting])
        try:
            Run(results, world, cores, repeat, seconds, long, deadline, progress).run()
        finally:
            progress.close()
    return results


@click.command()
@click.option(
    "--adapters", type=_words, metavar="LIST", help="Our servers to measure, with commas between; none for none."
)
@click.option("--peers", type=_words, metavar="LIST", help="The others, the floor included.")
@click.option("--scenarios", type=_words, default="", metavar="LIST", help=f"Names or kinds: {', '.join(KINDS)}.")
@click.option(
    "--members", type=whole_numbers, metavar="LIST",
    help="Sizes of the one room; the largest bounds the other scenarios too.",
)  # fmt: skip
@click.option(
    "--rooms", type=whole_numbers, metavar="LIST", help="Numbers of rooms that at most 5,000 members are spread over."
)
@click.option("--repeat", type=click.IntRange(1, 100), help="Runs of each scenario.")
@click.option("--quick", is_flag=True, help="A look within 90 seconds: fewer members, shorter runs, one of each.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write every sample."
)
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), help="Draw plots into this folder.")
def main(
    adapters: Names | None, peers: Names | None, scenarios: Names, members: tuple[int, ...] | None,
    rooms: tuple[int, ...] | None, repeat: int | None, quick: bool, json_path: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """Measure fan-out over real sockets, and print medians and ratios."""
    contenders = [*_known(ADAPTERS, adapters, "adapter"), *_known([*PEERS, FLOOR], peers, "peer")]
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {json_path.parent}", param_hint="--json")
    if not contenders:
        raise click.UsageError("nothing to measure: name an adapter or a peer")
    sizes = QUICK if quick else Sizes()
    try:
        wanted = chosen(Sizes(members or sizes.members, rooms or sizes.rooms).scenarios(), scenarios)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    results = _measure(contenders, wanted, repeat or (QUICK_REPEAT if quick else REPEAT), quick)
    print(table.render(results))
    if json_path is not None:
        results.save(json_path, ["python", "-m", "benchmarks.fanout", *sys.argv[1:]])
    if plot is not None:
        from benchmarks import report  # here, as matplotlib is needed for nothing else

        report.draw(results, plot)
    sys.exit(1 if any(sample.error for sample in results.samples) else 0)


if __name__ == "__main__":
    main()
