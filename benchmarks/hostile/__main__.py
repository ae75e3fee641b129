"""The command: ours and Node's socket.io while somebody is hostile to them, and what the others wait for."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import native, report, table
from benchmarks.child import ChildFailed
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
from benchmarks.hostile.control import MEMBERS, Attack, Ground, wait_with
from benchmarks.hostile.inputs import INPUTS, Input
from benchmarks.hostile.situations import RETURNING, SITUATIONS, Situation
from benchmarks.peers.contenders import PEERS
from benchmarks.progress import Progress
from benchmarks.results import Results, Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import ADAPTERS, Contender
from benchmarks.site import Cores
from benchmarks.world import World

OURS = ("asyncio", "uvloop", "trio", "eventlet")
THEIRS = ("node",)
CONNECTIONS = (1, 50)
SECONDS = 1.0
NOTHING = "nothing"

Act = tuple[Scenario, Input | Situation | None, int]
"""What is done to a server: nothing, an input over so many connections, or a situation."""


class CannotRun(click.ClickException):
    """Something is missing: one line that names the fix, and exit status 3."""

    exit_code = 3


def acts(names: Names, connections: Sequence[int]) -> list[Act]:
    """Everything that is to be done. Raises :exc:`click.UsageError` for a name that is none."""
    existing = [NOTHING, *(kind.name for kind in INPUTS), *(situation.name for situation in SITUATIONS)]
    for name in names:
        if name not in existing:
            raise click.UsageError(f"nothing hostile is called {name!r}: choose of {', '.join(existing)}")

    def chosen(name: str) -> bool:
        return not names or name in names

    return [
        *([(_scenario(NOTHING, "nothing is done"), None, 0)] if chosen(NOTHING) else []),
        *(
            (_scenario(f"{kind.name}-{number}", f"{kind.title}, {number} ×"), kind, number)
            for number in connections
            for kind in INPUTS
            if chosen(kind.name)
        ),
        *((_scenario(each.name, each.title), each, 0) for each in SITUATIONS if chosen(each.name)),
    ]


def _scenario(name: str, title: str) -> Scenario:
    return Scenario(name, "hostile", MEMBERS, words=title)


def measure(
    contenders: Sequence[Contender], wanted: Sequence[Act], seconds: float, cores: Cores, notes: Sequence[str]
) -> Results:
    """One sample of each."""
    results = Results(contenders, [scenario for scenario, _, _ in wanted], notes=list(notes))
    progress = Progress(len(wanted) * len(contenders))
    with tempfile.TemporaryDirectory(prefix="automoderate-benchmarks-") as folder, contextlib.closing(progress):
        world = World.make(Path(folder), [(2 * RETURNING, 2), (MEMBERS, 1)])
        for contender in contenders:
            with Ground(contender, world, cores) as ground:
                for act in wanted:
                    _measure_one(results, ground, act, seconds, progress)
    return results


def _measure_one(results: Results, ground: Ground, act: Act, seconds: float, progress: Progress) -> None:
    scenario, what, number = act
    step = f"{scenario.name} {ground.contender.name}"
    progress.begin(step)
    try:
        figures = _figures(ground, what, number, seconds)
    except (ChildFailed, OSError) as error:
        figures = {"error": str(error)}
    results.samples.append(Sample(scenario.name, ground.contender.name, 0, figures))
    progress.end(f"{step}: {table.wait(results, scenario, ground.contender.name)}")


def _figures(ground: Ground, what: Input | Situation | None, number: int, seconds: float) -> dict[str, Any]:
    if isinstance(what, Situation):
        ground.clear()
        return what.measure(ground.contender, ground.world, ground.cores)
    with ground.taken() as site:
        if what is None:
            return wait_with(site, seconds)
        with contextlib.closing(Attack(site.server.ports[0], what.name, number, ground.cores.load)) as attack:
            figures = wait_with(site, seconds, attack.begin)
            if "gave_up" not in figures:
                return figures | attack.end()
    ground.clear()
    return figures


def _marked(_context: click.Context, _option: click.Parameter, page: Path | None) -> Path | None:
    """Find out before the measurements whether there is a place for them."""
    if page is not None:
        try:
            report.by_hand(page)
        except report.UnmarkedPage as error:
            raise click.BadParameter(str(error)) from error
    return page


@click.command()
@contender_options
@click.option("--only", type=words, default="", metavar="LIST", help="What is done to them, by name; all by default.")
@click.option(
    "--connections", type=whole_numbers, default=",".join(map(str, CONNECTIONS)), show_default=True, metavar="LIST",
    help="Over how many connections at once, of what is sent.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.2, 60), default=SECONDS, show_default=True,
    help="How long others are listened to while something is sent.",
)  # fmt: skip
@json_option
@click.option(
    "--page", type=click.Path(path_type=Path, exists=True, dir_okay=False), callback=_marked, metavar="FILE",
    help="Write the table into this page of the documentation, behind its mark.",
)  # fmt: skip
def main(
    adapters: Names | None, peers: Names | None, checkouts: tuple[Path, ...], only: Names,
    connections: tuple[int, ...], seconds: float, json_path: Path | None, page: Path | None,
) -> None:  # fmt: skip
    """Measure what other clients wait for while somebody is hostile to their server."""
    ours = known(ADAPTERS, OURS if adapters is None else adapters, "adapter")
    chosen = [*also(ours, checkouts), *known(PEERS, THEIRS if peers is None else peers, "peer")]
    wanted = acts(only, connections)
    if not chosen:
        raise click.UsageError("nothing to measure: name an adapter or a peer")
    if (missing := native.missing()) is not None:
        raise CannotRun(missing)
    here, notes = present(chosen)
    raise_descriptors()
    cores, alone = two_cores()
    results = measure(here, wanted, seconds, cores, [*notes, *alone])
    print(table.render(results))
    command = ["python", "-m", "benchmarks.hostile", *sys.argv[1:]]
    if json_path is not None:
        results.save(json_path, command)
    if page is not None:
        report.write_page(page, results, command)
    sys.exit(1 if any(sample.error for sample in results.samples) else 0)


if __name__ == "__main__":
    main()
