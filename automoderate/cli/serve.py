"""``automoderate serve``: the dashboard and live updates, for real."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from automoderate import _logs
from automoderate._listening import passed_sockets
from automoderate.cli.common import Unavailable, load_settings, settings_options
from automoderate.settings import OPTIONS, Loaded


@click.command()
@settings_options(*OPTIONS)
@click.option("--check-config", is_flag=True, help="Show the effective options and whether they would do, then leave.")
def serve(config: str | None, check_config: bool, **flags: Any) -> None:
    """Serve the dashboard and live updates until SIGTERM or Ctrl-C.

    Every option may also be set in the environment, --max-rooms as AUTOMODERATE_MAX_ROOMS and so on, and in a TOML
    file as max_rooms. A flag wins over the environment, the environment over the file.

    \b
    export SECRET_KEY=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
    automoderate serve
    automoderate serve --host 0.0.0.0 --trusted-proxy 10.0.0.0/8 --config /etc/automoderate.toml
    automoderate serve --workers 4 --redis-url redis://127.0.0.1:6379/0

    In front of an existing AutoModerate, with its own secret key and database, which is only read:

    \b
    automoderate serve --wsgi run:app
    automoderate serve --wsgi 'app:create_app("production")'

    Exit status: 0 stopped, 2 wrong usage, 3 cannot start.
    """
    with _ended_by_signals():
        _serve(load_settings(config, flags), check_config)


def _serve(loaded: Loaded, check_config: bool) -> None:
    settings = loaded.settings
    _logs.configure(settings.log_level, alone=settings.wsgi is None, form=settings.log_format)
    from automoderate import app  # here, as it imports everything

    if check_config:
        _show(loaded)
        examined = app.examine(settings)
        if examined.database is not None:
            click.echo(f"# the database that would be read: {examined.database}")
        for problem in examined.problems[:-1]:
            click.echo(f"Error: {problem}", err=True)
        if examined.problems:
            raise Unavailable(examined.problems[-1])
        click.echo("# This would do.")
        return
    try:
        sockets = passed_sockets(os.environ)
    except OSError as error:
        raise Unavailable(str(error.strerror)) from None
    try:
        if settings.workers > 1:
            from automoderate import supervisor

            sys.exit(supervisor.run(settings, sockets))
        app.run(settings, sockets)
    except app.CannotStart as error:
        raise Unavailable(str(error)) from None


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within it SIGINT and SIGTERM end the process at once, until a server takes both.

    Python makes SIGINT an exception, which is lost where the signal comes in a callback of its memory management: then
    the server would start nevertheless. A signal that is ignored stays so, as that of a command in the background.
    """
    taken = {}
    # To the first process of a container, of number 1, the system by itself does nothing.
    how = signal.SIG_DFL if os.getpid() != 1 else _end
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                taken[number] = signal.signal(number, how)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)  # as shells say it


def _show(loaded: Loaded) -> None:
    """Print the effective options as a file that ``--config`` takes, each with where it came from."""
    for option in OPTIONS.values():
        value = getattr(loaded.settings, option.name)
        source = loaded.sources[option.name]
        if value is None:
            click.echo(f"# {option.name} is not set")
        elif option.name in ("secret_key", "secret_key_fallbacks"):
            size = f"{len(value)} keys" if isinstance(value, tuple) else f"{len(value)} characters"
            click.echo(
                f"# {option.name} is set, hidden, {size}  # {source}" if value else f"{option.name} = []  # {source}"
            )
        else:
            click.echo(f"{option.name} = {_toml(_shown(option.name, value))}  # {source}")


def _shown(name: str, value: Any) -> Any:
    if name == "database_url":
        from automoderate.directory.database import Database

        return str(Database(value))
    if name == "redis_url":
        from automoderate.backplane import redis_url

        return redis_url.parse(value).shown
    return value


def _toml(value: Any) -> str:
    """A value as TOML writes it; of these types that is also how JSON does."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)
