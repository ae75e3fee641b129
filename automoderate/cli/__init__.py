"""The command line: ``automoderate``, the same as ``python -m automoderate``.

Commands are imported when they are called, so that help and completion stay quick. Every error is one line on standard
error; exit status 1 means that what was asked for does not exist or cannot be done, 2 wrong usage, 3 that the command
cannot start (the database is away, the port is taken, ...).
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.exceptions import NoArgsIsHelpError

from automoderate import __version__
from automoderate.settings import CONFIG_VARIABLE, OPTIONS, Loaded, Option, SettingsError, load

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS = {
    "serve": ("automoderate.cli:serve", "Serve the dashboard and live updates."),
    "demo": ("automoderate.demo:demo", "Try it out with a throw-away database and a simulated pipeline."),
    "publish": ("automoderate.publish:publish", "Publish one update to the people who watch a project."),
    "watch": ("automoderate.watch:watch", "Print a project's updates as they come."),
    "user": ("automoderate.admin:user", "Add, list, lock out and remove users."),
    "project": ("automoderate.admin:project", "Add, list and remove projects."),
    "member": ("automoderate.admin:member", "Say who may see a project."),
    "apikey": ("automoderate.admin:apikey", "Add, list, revoke and remove keys for publishing."),
    "database": ("automoderate.admin:database", "Prepare a database."),
}
"""Command name -> where it is and what its group's help says of it."""


class WrongUsage(click.ClickException):
    """Ends a command with one line that names the fix, and exit status 2."""

    exit_code = 2


class CannotStart(click.ClickException):
    """Ends a command with one line that names the fix, and exit status 3."""

    exit_code = 3


class _Root(click.Group):
    """A group that imports its commands late and says what is wrong in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
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


def settings_options(*names: str) -> Callable[[F], F]:
    """Give a command the flags of these options and ``--config``; it gets them as keyword arguments, as given."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = _flag(OPTIONS[name])(command)
        return click.option(
            "--config", metavar="FILE", help=f"A TOML file with options, named as here.  [env: {CONFIG_VARIABLE}]"
        )(command)

    return decorate


def _flag(option: Option) -> Callable[[F], F]:
    default = "" if option.default in (None, ()) else f"  [default: {option.default}]"
    variables = f"  [env: {option.variables[1]}]" if len(option.variables) > 1 else ""
    return click.option(
        option.flag, option.name, metavar=option.metavar, multiple=option.multiple,
        help=f"{option.help}{default}{variables}",
    )  # fmt: skip


def load_settings(config: str | None, flags: dict[str, Any]) -> Loaded:
    """The effective settings of a command that has some of the flags. Ends the command where one cannot be used."""
    try:
        return load(flags, os.environ, config)
    except SettingsError as error:
        raise WrongUsage(str(error)) from None


@cli.command()
@settings_options(*OPTIONS)
@click.option("--check-config", is_flag=True, help="Show the effective options and whether they would do, then leave.")
def serve(config: str | None, check_config: bool, **flags: Any) -> None:
    """Serve the dashboard and live updates until SIGTERM or Ctrl-C.

    Every option may also be set in the environment, --max-rooms as AUTOMODERATE_MAX_ROOMS and so on, and in a TOML
    file as max_rooms. A flag wins over the environment, the environment over the file.

    \b
    export SECRET_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
    automoderate serve
    automoderate serve --host 0.0.0.0 --trusted-proxy 10.0.0.0/8 --config /etc/automoderate.toml
    automoderate serve --workers 4 --redis-url redis://127.0.0.1:6379/0

    In front of an existing AutoModerate, whose database is only read:

    \b
    DATABASE_URL=postgresql://… automoderate serve --wsgi 'app:create_app()'

    Exit status: 0 stopped, 2 wrong usage, 3 cannot start.
    """
    loaded = load_settings(config, flags)
    settings = loaded.settings
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    from automoderate import app  # here, as it imports everything

    if check_config:
        _show(loaded)
        found = app.problems(settings)
        for problem in found[:-1]:
            click.echo(f"Error: {problem}", err=True)
        if found:
            raise CannotStart(found[-1])
        click.echo("# This would do.")
        return
    try:
        if settings.workers > 1:
            from automoderate import workers

            sys.exit(workers.run(settings))
        app.run(settings)
    except app.CannotStart as error:
        raise CannotStart(str(error)) from None


def _show(loaded: Loaded) -> None:
    """Print the effective options as a file that ``--config`` takes, each with where it came from."""
    for option in OPTIONS.values():
        value = getattr(loaded.settings, option.name)
        source = loaded.sources[option.name]
        if value is None:
            click.echo(f"# {option.name} is not set")
        elif option.name == "secret_key":
            click.echo(f"# {option.name} is set, hidden, {len(value)} characters  # {source}")
        else:
            click.echo(f"{option.name} = {_toml(_shown(option.name, value))}  # {source}")


def _shown(name: str, value: Any) -> Any:
    if name == "database_url":
        from automoderate.directory.database import Database

        return str(Database(value))
    if name == "redis_url":
        return re.sub(r"//[^/@]*@", "//***@", value)
    return value


def _toml(value: Any) -> str:
    """A value as TOML writes it; of these types that is also how JSON does."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Run the command line of this process."""
    cli.main(prog_name="automoderate")
