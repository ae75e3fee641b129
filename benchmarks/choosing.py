"""What the commands have in common: which servers are measured, and what this machine gives them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.servers import Contender, of_checkout
from benchmarks.site import Cores

Names = tuple[str, ...]
Command = TypeVar("Command", bound=Callable[..., Any])


def words(text: str) -> Names:
    """Words with commas between them."""
    return tuple(text.replace(",", " ").split())


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 with commas between them."""
    found = words(text)
    if not found or not all(word.isdecimal() and int(word) for word in found):
        raise click.BadParameter(f"{text!r} is no list of whole numbers from 1")
    return tuple(dict.fromkeys(int(word) for word in found))


def existing_folder(path: Path | None) -> Path | None:
    """A file to write, in a folder that is there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}", param_hint="--json")
    return path


def contender_options(command: Command) -> Command:
    """The options that say who is measured: ``adapters``, ``peers`` and ``checkouts``."""
    options = (
        click.option(
            "--adapters", type=words, metavar="LIST",
            help="Our servers to measure, with commas between; none for none.",
        ),
        click.option(
            "--peers", type=words, metavar="LIST", help="The others; all for all of them, none for none."
        ),
        click.option(
            "--also", "checkouts", type=click.Path(path_type=Path, exists=True, file_okay=False), multiple=True,
            metavar="PATH", help="Our servers as they are in another checkout too; more than once for several.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """The option that says where every sample goes: ``json_path``."""
    return click.option(
        "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False, writable=True),
        callback=lambda _context, _parameter, path: existing_folder(path),
        help="Write every sample; python -m benchmarks.report reads them.",
    )(command)  # fmt: skip


def known(contenders: Sequence[Contender], names: Names | None, what: str) -> list[Contender]:
    """The contenders of these names, the standard ones where none are named, ``all`` and ``none`` for what they say."""
    existing = [contender.name for contender in contenders]
    for name in names or ():
        if name not in existing and name not in ("all", "none"):
            raise click.UsageError(f"no {what} {name!r}: choose of {', '.join(existing)}, all or none")
    if names is None:
        return [contender for contender in contenders if contender.standard]
    return [contender for contender in contenders if contender.name in names or "all" in names]


def also(ours: Sequence[Contender], checkouts: Sequence[Path]) -> list[Contender]:
    """Each of ours, followed by the same of every other checkout."""
    try:
        found = [[adapter, *(of_checkout(adapter, path) for path in checkouts)] for adapter in ours]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--also") from error
    if len({contender.name for each in found for contender in each}) < sum(map(len, found)):
        raise click.BadParameter("two checkouts in folders of the same name cannot be told apart", param_hint="--also")
    return [contender for each in found for contender in each]


def present(contenders: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    """The contenders that can run here, and why the others cannot."""
    missing = {contender.name: contender.missing() for contender in contenders}
    notes = [f"{c.title} is left out: {missing[c.name]}" for c in contenders if missing[c.name]]
    return [contender for contender in contenders if not missing[contender.name]], notes


def two_cores() -> tuple[Cores, list[str]]:
    """Where server and load generator run, and what it does to the figures where there are no two cores for them."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return Cores(None, None), ["server and load generator share the only core: figures are too low"]
    return Cores(cores[0], cores[1]), []


def raise_descriptors() -> int:
    """Allow as many open files as the system does; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
