"""The commands that change who is who and who may see what: ``automoderate user``, ``project``, ``member``, ...

They write to the database whatever made it. What takes access away is announced to the running servers, which then
look again at once; without that they would notice at their next re-check.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import click
from sqlalchemy.exc import SQLAlchemyError

from automoderate.cli.announce import Announcer, announce, announcer
from automoderate.cli.common import Unavailable, WrongUsage, harmless, load_settings, settings_options
from automoderate.cli.login import has_terminal, piped_password
from automoderate.cli.running import DEFAULT_URL
from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.directory import accounts
from automoderate.directory.accounts import Conflict, NotFound
from automoderate.directory.database import Database, DatabaseUnavailable
from automoderate.settings import DEFAULT_DATABASE_URL

F = TypeVar("F", bound=Callable[..., Any])


_DATABASE = (
    "The database of users and projects (sqlite:///file or postgresql://…). Without it automoderate.sqlite3 in the "
    "working directory, which the first user add makes."
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input; do not ask."
)


KEYS_LATER = "within a few seconds"
"""When a key stops working where no server was told: they believe in one no longer."""


def database_options(command: F) -> F:
    """The flags that say which database."""
    return settings_options("database_url", database_url=_DATABASE)(command)


def announcing_options(command: F) -> F:
    """The flags that say which database, and which servers are told of the change."""
    url = click.option(
        "--url", envvar="AUTOMODERATE_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
        help="The running server that is told at once, where there is no Redis.",
    )  # fmt: skip
    redis_url = click.option(
        "--redis-url", metavar="URL", help="The Redis that the nodes share, through which all of them are told at once."
    )
    signing = "The running server's secret key, with which it is told. Better set SECRET_KEY: others can see a flag."
    options = settings_options("database_url", "secret_key", database_url=_DATABASE, secret_key=signing)
    return options(redis_url(url(command)))


@contextlib.contextmanager
def opened(config: str | None, flags: Mapping[str, Any], *, write: bool, make: bool = False) -> Iterator[Database]:
    """The database; our own is made with ``make``. What goes wrong with it ends the command in one line."""
    url = load_settings(config, dict(flags)).settings.database_url
    database = Database(url or DEFAULT_DATABASE_URL, read_only=not write, pool_size=1)
    try:
        if url is None and make:
            database.create_all()
        elif url is None and database.path is not None and not database.path.exists():
            # Most likely the folder of an application, whose own database is meant.
            raise Unavailable(
                f"there is no {database.path.name} in this folder; name the database with --database-url or "
                "DATABASE_URL (to begin one of our own: automoderate user add)"
            )
        else:
            database.check()
        yield database
    except DatabaseUnavailable as error:
        raise Unavailable(str(error)) from None
    except (NotFound, Conflict) as error:
        raise click.ClickException(str(error.args[0])) from None
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    except SQLAlchemyError as error:
        raise Unavailable(database.explain(error)) from None
    finally:
        database.close()


@contextlib.contextmanager
def announced(
    config: str | None, flags: Mapping[str, Any], url: str, *, write: bool = True
) -> Iterator[tuple[Database, Announcer]]:
    """The database, and whom to tell; an address that is none is found before anything is changed."""
    to = announcer(load_settings(config, dict(flags)).settings, url)
    with opened(config, flags, write=write) as database:
        yield database, to


# Users --------------------------------------------------------------------------------------------------------


@click.group()
def user() -> None:
    """Add, list, lock out and remove users.

    A USER is named by id, username or email.

    \b
    automoderate user add ann ann@example.org
    automoderate user deactivate ann
    automoderate user list --json
    """


@user.command("add")
@click.argument("username")
@click.argument("email")
@click.option("--admin", is_flag=True, help="Make the user an administrator of AutoModerate.")
@password_stdin
@database_options
def user_add(username: str, email: str, admin: bool, password_stdin: bool, config: str | None, **flags: Any) -> None:
    """Add a user and print the new id. The password is asked for.

    \b
    automoderate user add ann ann@example.org
    pass show ann | automoderate user add ann ann@example.org --password-stdin
    """
    with opened(config, flags, write=True, make=True) as database:
        password = _password(password_stdin)
        added = accounts.create_user(database, username=username, email=email, password=password, is_admin=admin)
        click.echo(added.id)


@user.command("list")
@as_json
@database_options
def user_list(as_json: bool, config: str | None, **flags: Any) -> None:
    """List all users by username.

    \b
    automoderate user list
    automoderate user list --json | jq -r '.[] | select(.is_active | not) | .email'
    """
    with opened(config, flags, write=False) as database:
        _print([attrs.asdict(each) for each in accounts.list_users(database)], as_json)


@user.command("set-password")
@click.argument("name", metavar="USER")
@password_stdin
@database_options
def user_set_password(name: str, password_stdin: bool, config: str | None, **flags: Any) -> None:
    """Replace a user's password. The new one is asked for.

    \b
    automoderate user set-password ann
    """
    with opened(config, flags, write=True) as database:
        found = accounts.find_user(database, name)
        accounts.set_password(database, found.id, _password(password_stdin))
        click.echo(f"{found.username} has a new password.")


@user.command("activate")
@click.argument("name", metavar="USER")
@database_options
def user_activate(name: str, config: str | None, **flags: Any) -> None:
    """Let a user in again who was locked out.

    \b
    automoderate user activate ann
    """
    with opened(config, flags, write=True) as database:
        found = accounts.find_user(database, name)
        accounts.set_active(database, found.id, True)
        click.echo(f"{found.username} may log in.")


@user.command("deactivate")
@click.argument("name", metavar="USER")
@announcing_options
def user_deactivate(name: str, url: str, config: str | None, **flags: Any) -> None:
    """Lock a user out: no login, and live sessions end. Nothing is removed.

    \b
    automoderate user deactivate ann
    """
    with announced(config, flags, url) as (database, to):
        found = accounts.find_user(database, name)
        accounts.set_active(database, found.id, False)
    click.echo(f"{found.username} is locked out. {announce(to, AccessChanged(user_id=found.id))}")


@user.command("remove")
@click.argument("name", metavar="USER")
@announcing_options
def user_remove(name: str, url: str, config: str | None, **flags: Any) -> None:
    """Remove a user and the user's memberships; live sessions end.

    A user who owns projects cannot be removed before they are.

    \b
    automoderate user remove ann@example.org
    """
    with announced(config, flags, url) as (database, to):
        found = accounts.find_user(database, name)
        accounts.remove_user(database, found.id)
    click.echo(f"{found.username} is removed. {announce(to, AccessChanged(user_id=found.id))}")


@user.command("disconnect")
@click.argument("name", metavar="USER")
@announcing_options
def user_disconnect(name: str, url: str, config: str | None, **flags: Any) -> None:
    """End a user's live sessions now. Nothing is changed.

    A browser that is still logged in comes back as a new session: to keep a user out, deactivate the user. Exit
    status: 0 announced, 1 no such user or refused, 2 wrong usage, 3 no server can be told.

    \b
    automoderate user disconnect ann
    automoderate user disconnect ann --redis-url redis://127.0.0.1:6379/0
    """
    with announced(config, flags, url, write=False) as (database, to):
        found = accounts.find_user(database, name)
    try:
        to.tell(LoggedOut(found.id))
    except click.ClickException as error:
        raise type(error)(f"{found.username} is not disconnected: {error.message}") from None
    click.echo(f"{found.username} is disconnected. {to.told}")


# Projects -----------------------------------------------------------------------------------------------------


@click.group()
def project() -> None:
    """Add, list and remove projects.

    A PROJECT is named by its id, or by its name where only one has it.

    \b
    automoderate project add Forum --owner ann
    automoderate project list --user bob
    """


@project.command("add")
@click.argument("name")
@click.option("--owner", required=True, metavar="USER", help="Whose project it is, by id, username or email.")
@click.option("--description", default="", metavar="TEXT", help="What it is about.")
@database_options
def project_add(name: str, owner: str, description: str, config: str | None, **flags: Any) -> None:
    """Add a project and print the new id.

    \b
    automoderate project add Forum --owner ann
    """
    with opened(config, flags, write=True) as database:
        owner_id = accounts.find_user(database, owner).id
        click.echo(accounts.create_project(database, name=name, owner_id=owner_id, description=description).id)


@project.command("list")
@click.option("--user", "name", metavar="USER", help="Only what this user may see, with the user's role.")
@as_json
@database_options
def project_list(name: str | None, as_json: bool, config: str | None, **flags: Any) -> None:
    """List projects by name.

    \b
    automoderate project list
    automoderate project list --user ann --json
    """
    with opened(config, flags, write=False) as database:
        if name is None:
            fields = attrs.filters.exclude("role")
            found = [attrs.asdict(each, filter=fields) for each in accounts.list_projects(database)]
        else:
            user_id = accounts.find_user(database, name).id
            found = [attrs.asdict(each) for each in accounts.projects_for(database, user_id)]
        _print(found, as_json)


@project.command("remove")
@click.argument("name", metavar="PROJECT")
@announcing_options
def project_remove(name: str, url: str, config: str | None, **flags: Any) -> None:
    """Remove a project, its members and its API keys; those who watch it stop seeing it.

    \b
    automoderate project remove 3f0c9a34-…
    """
    with announced(config, flags, url) as (database, to):
        found = accounts.find_project(database, name)
        accounts.remove_project(database, found.id)
    click.echo(f"{found.name} is removed. {announce(to, AccessChanged(project_id=found.id))}")


# Members ------------------------------------------------------------------------------------------------------


@click.group()
def member() -> None:
    """Say who may see a project besides its owner.

    A PROJECT is named by id or name, a USER by id, username or email.

    \b
    automoderate member add Forum bob
    automoderate member list Forum
    """


@member.command("add")
@click.argument("name", metavar="PROJECT")
@click.argument("user_name", metavar="USER")
@click.option(
    "--role", type=click.Choice(accounts.ROLES), default="member", show_default=True,
    help="What the user may do in AutoModerate; every role sees the same updates.",
)  # fmt: skip
@database_options
def member_add(name: str, user_name: str, role: str, config: str | None, **flags: Any) -> None:
    """Let a user see a project, or give a member another role.

    \b
    automoderate member add Forum bob --role admin
    """
    with opened(config, flags, write=True) as database:
        found, person = accounts.find_project(database, name), accounts.find_user(database, user_name)
        accounts.add_member(database, found.id, person.id, role)
        click.echo(f"{person.username} may see {found.name}.")


@member.command("list")
@click.argument("name", metavar="PROJECT")
@as_json
@database_options
def member_list(name: str, as_json: bool, config: str | None, **flags: Any) -> None:
    """List who may see a project: the owner first, then the members by username.

    \b
    automoderate member list Forum --json
    """
    with opened(config, flags, write=False) as database:
        found = accounts.find_project(database, name)
        _print([attrs.asdict(each) for each in accounts.list_members(database, found.id)], as_json)


@member.command("remove")
@click.argument("name", metavar="PROJECT")
@click.argument("user_name", metavar="USER")
@announcing_options
def member_remove(name: str, user_name: str, url: str, config: str | None, **flags: Any) -> None:
    """Take a member's access to a project away, from live sessions too.

    \b
    automoderate member remove Forum bob
    """
    with announced(config, flags, url) as (database, to):
        found, person = accounts.find_project(database, name), accounts.find_user(database, user_name)
        accounts.remove_member(database, found.id, person.id)
    told = announce(to, AccessChanged(project_id=found.id, user_id=person.id))
    click.echo(f"{person.username} may no longer see {found.name}. {told}")


# API keys -----------------------------------------------------------------------------------------------------


@click.group()
def apikey() -> None:
    """Add, list, revoke and remove keys with which programs publish into one project.

    A KEY is named by its id, or by the secret itself.

    \b
    automoderate apikey add Forum "build server"
    automoderate apikey revoke am_…
    """


@apikey.command("add")
@click.argument("project_name", metavar="PROJECT")
@click.argument("name")
@database_options
def apikey_add(project_name: str, name: str, config: str | None, **flags: Any) -> None:
    """Add a key to a project and print it. Lists show only its beginning.

    \b
    export AUTOMODERATE_API_KEY=$(automoderate apikey add Forum "build server")
    """
    with opened(config, flags, write=True) as database:
        found = accounts.find_project(database, project_name)
        click.echo(accounts.create_api_key(database, found.id, name).key)


@apikey.command("list")
@click.argument("project_name", metavar="PROJECT")
@as_json
@database_options
def apikey_list(project_name: str, as_json: bool, config: str | None, **flags: Any) -> None:
    """List a project's keys by name, revoked ones included; of each secret only the beginning.

    \b
    automoderate apikey list Forum
    """
    with opened(config, flags, write=False) as database:
        found = accounts.find_project(database, project_name)
        keys = accounts.list_api_keys(database, found.id)
        _print([attrs.asdict(attrs.evolve(each, key=f"{each.key[:7]}…")) for each in keys], as_json)


@apikey.command("revoke")
@click.argument("key")
@announcing_options
def apikey_revoke(key: str, url: str, config: str | None, **flags: Any) -> None:
    """Make a key worthless at once, and keep its row.

    \b
    automoderate apikey revoke am_…
    """
    with announced(config, flags, url) as (database, to):
        project_id = accounts.revoke_api_key(database, key)
    click.echo(f"The key is revoked. {announce(to, AccessChanged(project_id=project_id), KEYS_LATER)}")


@apikey.command("remove")
@click.argument("key")
@announcing_options
def apikey_remove(key: str, url: str, config: str | None, **flags: Any) -> None:
    """Remove a key, by its id or the secret itself; it is worthless at once.

    \b
    automoderate apikey remove am_…
    """
    with announced(config, flags, url) as (database, to):
        project_id = accounts.remove_api_key(database, key)
    click.echo(f"The key is removed. {announce(to, AccessChanged(project_id=project_id), KEYS_LATER)}")


# The database -------------------------------------------------------------------------------------------------


@click.group()
def database() -> None:
    """Prepare a database.

    \b
    automoderate database create --database-url postgresql://ann@db.example.org/moderation
    """


@database.command("create")
@database_options
def database_create(config: str | None, **flags: Any) -> None:
    """Make the tables that are missing, and for SQLite the file. Existing tables and data stay as they are.

    \b
    automoderate database create --database-url sqlite:////var/lib/automoderate.sqlite3
    """
    loaded = load_settings(config, dict(flags))
    made = Database(loaded.settings.database_url or DEFAULT_DATABASE_URL, pool_size=1)
    try:
        made.create_all()
        made.check()
    except DatabaseUnavailable as error:
        raise Unavailable(str(error)) from None
    finally:
        made.close()
    click.echo(f"{made} has its tables.")


# Shared -------------------------------------------------------------------------------------------------------


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return piped_password()
    if not has_terminal():
        raise WrongUsage("there is no terminal to ask for the password: --password-stdin")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def _print(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as columns with a head; nothing for no rows."""
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        return
    table = [[name.upper() for name in rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return harmless(value)
