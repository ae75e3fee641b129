"""``python -m benchmarks.nodes``: one and two nodes that share a Redis, and the in-memory backplane beside them.

What is measured is the whole way: a publisher in a process of its own, Redis, one or two nodes, and everybody in the
room; also of two servers of others that share a Redis in their way. See docs/benchmarks.md.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click
from attrs import evolve

from benchmarks import cluster, native, table
from benchmarks.budget import Budget
from benchmarks.choosing import Names, json_option, known, present, raise_descriptors, whole_numbers, words
from benchmarks.fanout import REPEAT
from benchmarks.ours import SOURCE
from benchmarks.peers.contenders import sharing_redis
from benchmarks.progress import Progress
from benchmarks.results import Results
from benchmarks.run import Run
from benchmarks.scenarios import SEVERAL, Scenario, delay, fitted, throughput
from benchmarks.servers import ADAPTERS, Contender, distributions, of_checkout
from benchmarks.site import Cores
from benchmarks.worlds import Worlds

NODES = (1, 2)
MEMBERS, ROOMS, SECONDS = 2000, (1, 100, 1000), 2.0
RATES = {1: 50.0}  # updates a second by the number of rooms, where delay is measured
RATE = 200.0  # with any other


class CannotRun(click.ClickException):
    """Something is missing: one line that names the fix, and exit status 3."""

    exit_code = 3


def contenders(adapter: Contender, checkouts: Sequence[Path] = ()) -> list[Contender]:
    """The adapter alone with its backplane in memory, and nodes of it that share a Redis.

    Of each other checkout one node, to which its own publisher publishes. ``ValueError`` where there is no checkout.
    """

    def versions() -> dict[str, str]:
        return {**adapter.versions(), **cluster.redis_version(), **distributions("redis")()}

    return [
        evolve(adapter, name="memory", title="in memory, 1 node"),
        *(
            evolve(adapter, name=f"redis-{nodes}", title=f"through Redis, {nodes} node{'s' if nodes > 1 else ''}",
                   versions=versions, nodes=nodes)
            for nodes in NODES
        ),
        *(_of_checkout(adapter, path) for path in checkouts),
    ]  # fmt: skip


def _of_checkout(adapter: Contender, path: Path) -> Contender:
    other = of_checkout(adapter, path)
    return evolve(
        other, name=f"redis-1@{path.name}", title=f"through Redis, 1 node, {path.name}", nodes=1,
        publisher=(*cluster.PUBLISHER, SOURCE, str(other.source)),
    )  # fmt: skip


def scenarios(members: int, rooms: Sequence[int]) -> list[Scenario]:
    """Throughput with all members in each of these numbers of rooms, and delay with no more than a thousand.

    Each room gets the same, and at least one member on each node, for which delay too may need more. ``ValueError``
    where there are too few.
    """
    few = next((number for number in rooms if members < number * max(NODES)), None)
    if few is not None:
        raise ValueError(f"{few} rooms need at least {few * max(NODES)} members, one of each room on each node")
    found = [throughput(members // number * number, number) for number in rooms]
    for number in rooms:
        several = min(members, max(SEVERAL, number * max(NODES)))
        found.append(delay(several // number * number, number, RATES.get(number, RATE)))
    return found


def placed(cores: Sequence[int]) -> tuple[Cores, list[str]]:
    """Which process runs on which of these cores, and what that does to the figures."""
    most = max(NODES)
    if len(cores) >= most + 2:
        nodes, load, others = tuple(cores[:most]), cores[most], cores[most + 1]
        return Cores(nodes[0], load, nodes, others), []
    if len(cores) < 2:
        return Cores(None, None, (None,) * most, None), ["everything shares the only core: figures are too low"]
    note = (
        f"{len(cores)} cores: all nodes share one, and the load generator, Redis and the publisher another, so that two"
        " nodes cannot deliver more than one. What counts here is CPU µs each, of all nodes together: n nodes with a"
        " core each would deliver n × 1,000,000 / CPU µs a second"
    )
    return Cores(cores[0], cores[1], (cores[0],) * most, cores[1]), [note]


def _measure(compared: list[Contender], wanted: list[Scenario], repeat: int, seconds: float) -> Results:
    here, absent = present(compared)
    fitting, notes = fitted(wanted, raise_descriptors())
    cores, crowded = placed(sorted(os.sched_getaffinity(0)))
    if native.missing():
        notes.append(f"the load generator is the slow one in Python: {native.missing()}")
    notes.append('Redis keeps what it is told with "appendonly yes" and "appendfsync everysec"')
    results = Results(here, fitting, notes=[*absent, *notes, *crowded])
    budget = Budget(seconds, seconds, math.inf)
    progress = Progress(Run.steps(fitting, results.contenders, budget, repeat))
    with tempfile.TemporaryDirectory(prefix="automoderate-benchmarks-") as folder:
        try:
            with Worlds(Path(folder), fitting) as worlds:
                Run(results, worlds, cores, repeat, budget, progress).run()
        finally:
            progress.close()
    return results


@click.command()
@click.option(
    "--adapter",
    type=click.Choice([adapter.name for adapter in ADAPTERS]),
    default=lambda: "asyncio" if find_spec("uvloop") is None else "uvloop",
    help="What the nodes run on; uvloop where it is installed, else asyncio.",
)
@click.option("--members", type=click.IntRange(1), default=MEMBERS, show_default=True, help="Of all rooms together.")
@click.option(
    "--rooms", type=whole_numbers, default=",".join(map(str, ROOMS)), show_default=True, metavar="LIST",
    help="Numbers of rooms that they are spread over.",
)  # fmt: skip
@click.option("--repeat", type=click.IntRange(1, 100), default=REPEAT, show_default=True, help="Runs of each scenario.")
@click.option(
    "--seconds", type=click.FloatRange(0.05, 60), default=SECONDS, show_default=True, help="How long a run is to last."
)
@click.option("--peers", type=words, metavar="LIST", help="Others that share a Redis; none for none.")
@click.option(
    "--also", "checkouts", type=click.Path(path_type=Path, exists=True, file_okay=False), multiple=True,
    metavar="PATH", help="One node and its publisher as they are in another checkout too.",
)  # fmt: skip
@json_option
def main(
    adapter: str, members: int, rooms: tuple[int, ...], repeat: int, seconds: float, peers: Names | None,
    checkouts: tuple[Path, ...], json_path: Path | None,
) -> None:  # fmt: skip
    """Measure one and two nodes that share a Redis, and print medians and what to plan with."""
    others = known(sharing_redis(max(NODES)), peers, "peer")
    try:
        wanted = scenarios(members, rooms)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    chosen = next(contender for contender in ADAPTERS if contender.name == adapter)
    try:
        ours = contenders(chosen, checkouts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--also") from error
    for missing in (chosen.missing(), cluster.missing()):
        if missing is not None:
            raise CannotRun(missing)
    results = _measure([*ours, *others], wanted, repeat, seconds)
    print(table.render(results))
    if json_path is not None:
        results.save(json_path, ["python", "-m", "benchmarks.nodes", *sys.argv[1:]])
    sys.exit(1 if any(sample.error for sample in results.samples) else 0)


if __name__ == "__main__":
    main()
