"""The command line: ``automoderate``, the same as ``python -m automoderate``.

Commands are imported when they are called, so that help and completion stay quick. Every error is one line on standard
error; exit status 1 means that what was asked for does not exist or cannot be done, 2 wrong usage, 3 that the command
cannot start (the database is away, the port is taken, ...).
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from automoderate import __version__
from automoderate.cli.common import harmless

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
    return harmless(message)


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


def main() -> None:
    """Run the command line of this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error: in some locales not every character can be shown.
        sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(prog_name="automoderate")
