"""What commands share: flags of options of the server, the two ways to end, how they were called, safe text."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from automoderate.settings import CONFIG_VARIABLE, OPTIONS, Loaded, Option, SettingsError, load

__all__ = ["Unavailable", "WrongUsage", "harmless", "load_settings", "program", "settings_options"]

F = TypeVar("F", bound=Callable[..., Any])

_HARMLESS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")


class WrongUsage(click.ClickException):
    """Ends a command with one line that names the fix, and exit status 2."""

    exit_code = 2


class Unavailable(click.ClickException):
    """Ends a command with one line that names the fix, and exit status 3."""

    exit_code = 3


def settings_options(*names: str, **helps: str) -> Callable[[F], F]:
    """Give a command the flags of these options and ``--config``; it gets them as keyword arguments, as given.

    ``helps`` has the text for options that mean something else to this command than to ``serve``.
    """

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = _flag(OPTIONS[name], helps.get(name))(command)
        return click.option(
            "--config", metavar="FILE", help=f"A TOML file with options, named as here.  [env: {CONFIG_VARIABLE}]"
        )(command)

    return decorate


def _flag(option: Option, text: str | None) -> Callable[[F], F]:
    value = ", ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    default = "" if value in (None, "") else f"  [default: {value}]"
    variables = f"  [env: {option.variables[1]}]" if len(option.variables) > 1 else ""
    return click.option(
        option.flag, option.name, metavar=option.metavar, multiple=option.multiple,
        help=f"{text or option.help}{default}{variables}",
    )  # fmt: skip


def load_settings(config: str | None, flags: dict[str, Any]) -> Loaded:
    """The effective settings of a command that has some of the flags. Ends the command where one cannot be used."""
    try:
        return load(flags, os.environ, config)
    except SettingsError as error:
        raise WrongUsage(str(error)) from None


def program() -> str:
    """How to call this command line from a shell in the working directory, as it was called just now.

    ``automoderate`` where a shell finds it by that name, else its path: what a command prints for a person to copy has
    to work as it is printed.
    """
    called = Path(sys.argv[0])
    as_module = called.name == "__main__.py"
    path = Path(sys.executable) if as_module else called.absolute()
    found = shutil.which(path.name)
    if found is not None and Path(found).absolute() == path:
        shown = path.name
    else:
        shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return shlex.quote(shown) + (" -m automoderate" if as_module else "")


def harmless(value: object) -> str:
    """``value`` as text in which everything that could move a cursor, ring a bell or turn text around is escaped."""
    return "".join(
        character if character.isprintable() or character in _HARMLESS
        else " " if unicodedata.category(character) == "Zs"
        else character.encode("unicode_escape").decode()
        for character in str(value)
    )  # fmt: skip
