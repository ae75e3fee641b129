"""The command line: ``automoderate``, the same as ``python -m automoderate``.

Commands are imported when they are called, so that help and completion stay quick. Every error is one line on standard
error; exit status 1 means that what was asked for does not exist or cannot be done, 2 wrong usage, 3 that the command
cannot start (the database is away, the port is taken, ...).
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.exceptions import NoArgsIsHelpError

from automoderate import __version__
from automoderate.settings import CONFIG_VARIABLE, OPTIONS, Loaded, Option, SettingsError, load

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS = {
    "serve": ("automoderate.cli.serve:serve", "Serve the dashboard and live updates."),
    "demo": ("automoderate.cli.demo:demo", "Try it out with a throw-away database and a simulated pipeline."),
    "login": ("automoderate.cli.login:login", "Log in and print the cookie that clients need."),
    "publish": ("automoderate.cli.publish:publish", "Publish one update to the people who watch a project."),
    "watch": ("automoderate.cli.watch:watch", "Print a project's updates as they come."),
    "status": ("automoderate.cli.status:status", "Print what happens on the nodes."),
    "user": ("automoderate.cli.admin:user", "Add, list, lock out and remove users."),
    "project": ("automoderate.cli.admin:project", "Add, list and remove projects."),
    "member": ("automoderate.cli.admin:member", "Say who may see a project."),
    "apikey": ("automoderate.cli.admin:apikey", "Add, list, revoke and remove keys for publishing."),
    "database": ("automoderate.cli.admin:database", "Prepare a database."),
}
"""Command name -> where it is and what its group's help says of it."""


class WrongUsage(click.ClickException):
    """Ends a command with one line that names the fix, and exit status 2."""

    exit_code = 2


class Unavailable(click.ClickException):
    """Ends a command with one line that names the fix, and exit status 3."""

    exit_code = 3


class _Root(click.Group):
    """A group that imports its commands late and says what is wrong in one line."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            status = super().main(args, prog_name, complete_var, False, **extra)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            click.echo(f"Error: {_one_line(error)}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Aborted.", err=True)
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _one_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{message.rstrip('.')}; see {error.ctx.command_path} --help"
    return message


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="automoderate", message="%(prog)s %(version)s")
def cli() -> None:
    """Live moderation updates: a dashboard that shows decisions as they are made.

    \b
    automoderate demo                      try it out
    automoderate serve                     serve for real
    automoderate user add ann ann@example.org

    Every command has a --help of its own.
    """


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


def main() -> None:
    """Run the command line of this process."""
    cli.main(prog_name="automoderate")
