"""What is special about PostgreSQL: roles, and a server that is slow, locked, crashed or back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy.exc import DBAPIError

from automoderate.core.hub import Access
from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database, DatabaseUnavailable
from automoderate.directory.sessions import SessionReader
from automoderate.directory.tables import REQUIRED_COLUMNS
from kits import PATIENCE, until
from kits.contract_client import Client
from kits.contract_site import Site, World
from kits.postgresql_server import PostgreSQL

Start = Callable[..., Site]
Connect = Callable[[Site, str], Client]

TABLES = "users, projects, project_members, api_keys"
TIMEOUT = {"message": "Server timeout - please try again", "code": "timeout"}
SERVER_ERROR = {"message": "Server error occurred", "code": "server_error"}


@pytest.fixture
def alice(world: World) -> str:
    return world.user()


@pytest.fixture
def project(world: World, alice: str) -> str:
    """Alice's."""
    return world.project(alice)


@pytest.fixture
def role(postgresql: PostgreSQL, name: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    with postgresql.connect(name) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        yield "reader"
        connection.execute("DROP OWNED BY reader; DROP ROLE reader")


def waiting(postgresql: PostgreSQL, name: str) -> int:
    """How many statements of the server's wait for a lock."""
    with postgresql.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        row = connection.execute(query, (name,)).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def locked(postgresql: PostgreSQL, name: str) -> Iterator[psycopg.Connection[Any]]:
    """Within it whoever asks for a project waits, as behind a migration."""
    with postgresql.connect(name) as connection, connection.transaction():
        connection.execute("LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
        yield connection


def join(client: Client, project: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("join_project", {"project_id": project})
    return answer


def error(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer.get("error", {})
    return {name: found.get(name) for name in ("message", "code")}


def test_a_role_that_may_only_read_the_four_tables_is_enough(
    postgresql: PostgreSQL, name: str, role: str, world: World, alice: str, project: str, connect: Connect
) -> None:
    database = Database(postgresql.url(name, role), read_only=True)
    with pytest.raises(DatabaseUnavailable, match=r"^cannot open [^\n]*: permission denied for table \w+$"):
        database.check()
    with postgresql.connect(name) as connection:
        connection.execute(f"GRANT SELECT ON {TABLES} TO {role}".encode())
    database.check()
    database.close()
    key = world.api_key(project)
    site = Site("asyncio", World(Database(postgresql.url(name, role)), world.sign_in), {"drain_timeout": 0.1})
    try:
        assert join(connect(site, alice), project)["project_id"] == project
        body = '{"event": "stats_update", "data": {}}'
        assert site.http("POST", f"/api/projects/{project}/events", body, X_API_Key=key).status == 202
    finally:
        site.stop()


def test_a_database_that_is_not_there_is_one_line(postgresql: PostgreSQL) -> None:
    database = Database(postgresql.url("nowhere"), read_only=True)
    with pytest.raises(DatabaseUnavailable, match=r'^cannot open [^\n]*: [^\n]*database "nowhere" does not exist$'):
        database.check()
    database.close()


def test_tables_in_a_schema_of_their_own_are_named_with_the_way_there(postgresql: PostgreSQL) -> None:
    name = postgresql.create_with_tables()
    with postgresql.connect(name) as connection:
        connection.execute('CREATE SCHEMA "The app"')
        for table in REQUIRED_COLUMNS:
            connection.execute(f'ALTER TABLE {table} SET SCHEMA "The app"'.encode())
    for url in (postgresql.url(name), f"{postgresql.url(name)}?sslmode=disable"):
        database = Database(url, read_only=True)
        with pytest.raises(
            DatabaseUnavailable, match="projects, users; in its schema The app there are some"
        ) as caught:
            database.check()
        database.close()
        option = str(caught.value).rpartition(" ")[2]
        database = Database(f"{url}{option}", read_only=True)
        database.check()
        database.close()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "WIN1252", "EUC_JP"])
def test_a_database_in_another_encoding(postgresql: PostgreSQL, encoding: str) -> None:
    """It cannot hold what some clients name, and the questions of others are in the same statement."""
    name = f"in_{encoding.lower()}"
    with postgresql.connect() as connection:
        locale = "LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' {locale}".encode())
    database = Database(postgresql.url(name))
    database.create_all()
    owner = accounts.create_user(database, username="ann", email="ann@example.org", password="a long password")
    project = accounts.create_project(database, name="Forum", owner_id=owner.id)
    key = accounts.create_api_key(database, project.id, "a key").key
    directory = SQLDirectory(database, SessionReader(Flask("nobody asks")))
    database.check()
    asked = [
        (owner.id, each) for each in (project.id, "proj\N{EURO SIGN}", "\N{CJK UNIFIED IDEOGRAPH-65E5}", "\xe9", "x")
    ]
    assert directory.check_access_many(asked) == [Access.GRANTED, *[Access.NOT_FOUND] * 4]
    assert directory.recheck_many([(owner.id, tuple(each for _, each in asked))]) == [frozenset({project.id})]
    assert directory.key_projects_many(["\xc3", "\x80", "\xe9", key]) == [None, None, None, project.id]
    assert directory.admins_many([owner.id, "\N{SNOWMAN}"]) == [False, False]
    assert accounts.authenticate(database, "\N{SNOWMAN}", "a long password") is None
    assert accounts.authenticate(database, "ann", "a long password") == owner
    for unknown in (lambda: accounts.revoke_api_key(database, "\N{SNOWMAN}"),
                    lambda: accounts.create_project(database, name="Forum", owner_id="\N{SNOWMAN}")):  # fmt: skip
        with pytest.raises(accounts.NotFound):
            unknown()
    database.close()


def test_ids_of_postgresqls_own_kind_are_no_text(postgresql: PostgreSQL) -> None:
    name = postgresql.create()
    with postgresql.connect(name) as connection:
        for table, columns in REQUIRED_COLUMNS.items():
            kinds = (f"{each} {'uuid' if each.endswith('id') else 'text'}" for each in sorted(columns))
            connection.execute(f"CREATE TABLE {table} ({', '.join(kinds)})".encode())
    database = Database(postgresql.url(name), read_only=True)
    with pytest.raises(DatabaseUnavailable, match=r"column \w*id of table \w+ is UUID, and ids have to be text$"):
        database.check()
    database.close()


@pytest.mark.usefixtures("world")
def test_a_statement_is_ended_when_nobody_waits_for_it_any_more(postgresql: PostgreSQL, name: str, alice: str) -> None:
    database = Database(postgresql.url(name), read_only=True, statement_timeout=0.01)
    with locked(postgresql, name), pytest.raises(DBAPIError, match="statement timeout"):
        accounts.projects_for(database, alice)
    assert accounts.projects_for(database, alice) == []
    database.close()


def test_a_database_that_hangs_holds_up_neither_updates_nor_itself(
    postgresql: PostgreSQL, name: str, start: Start, connect: Connect, alice: str, project: str, world: World
) -> None:
    """Joins wait for a lock, in batches; everything that asks nothing of the database goes on."""
    site = start(check_timeout=1.0, threads=2)
    witness, others = connect(site, alice), [connect(site, world.user()) for _ in range(6)]
    join(witness, project)
    with locked(postgresql, name):
        asked = [client.request("join_project", {"project_id": project}) for client in others]
        until(lambda: waiting(postgresql, name) >= 1, "what they ask waits")
        site.publish(project, 1)
        assert witness.until("moderation_update")["n"] == 1
        assert site.http("GET", "/health").status == 200
        for client, number in zip(others, asked, strict=True):
            answered, answer = client.until("ack")
            assert (answered, error(answer)) == (number, TIMEOUT)
        until(lambda: waiting(postgresql, name) == 0, "PostgreSQL ends what nobody waits for")
    for client in others:
        assert error(join(client, project))["code"] == "access_denied", "it is asked again, and answers"
    assert join(witness, project)["project_id"] == project


def test_a_pool_without_connections_left_delays_joins_and_nothing_else(
    start: Start, connect: Connect, alice: str, project: str
) -> None:
    site = start(check_timeout=0.5, threads=2)
    client = connect(site, alice)
    with ExitStack() as held:
        for _ in range(2 + 4):  # the pool's own and those it may add
            held.enter_context(site.assembly.database.connect())
        assert error(join(client, project)) == TIMEOUT
        assert site.http("GET", "/health").status == 200
    assert join(client, project)["project_id"] == project


def test_a_crash_under_load_is_an_error_for_joins_and_heals_by_itself(
    postgresql: PostgreSQL, start: Start, connect: Connect, alice: str, project: str, world: World
) -> None:
    site = start(threads=4)
    witness = connect(site, alice)
    join(witness, project)
    users = [world.user() for _ in range(6)]
    projects = [world.project(user) for user in users]
    seen: list[list[str]] = [[] for _ in users]
    enough = threading.Event()

    def join_and_leave(client: Client, own: str, codes: list[str]) -> None:
        while not enough.is_set():
            codes.append(error(join(client, own))["code"] or "joined")
            assert client.call("leave_project", {"project_id": own}) == {"project_id": own}

    with ThreadPoolExecutor(len(users)) as threads, ExitStack() as afterwards:
        afterwards.callback(enough.set)
        clients = [connect(site, user) for user in users]
        running = [threads.submit(join_and_leave, *each) for each in zip(clients, projects, seen, strict=True)]
        until(lambda: all("joined" in codes for codes in seen), "everybody joins")
        postgresql.stop(signal.SIGQUIT)
        try:
            until(lambda: all("server_error" in codes for codes in seen), "joins fail")
            assert site.http("GET", "/readyz").status == 503
            site.publish(project, 1)
            assert witness.until("moderation_update")["n"] == 1
        finally:
            postgresql.start()
        until(lambda: all(codes[-1] == "joined" for codes in seen), "everybody joins again")
        assert site.http("GET", "/readyz").status == 200
        enough.set()
        for each in running:
            each.result(PATIENCE)
    assert {code for codes in seen for code in codes} == {"joined", "server_error"}
    assert witness.events("error") == []
    assert join(witness, project)["project_id"] == project


def test_pooled_connections_that_a_restart_has_cut_are_replaced_unnoticed(
    postgresql: PostgreSQL, start: Start, connect: Connect, alice: str, project: str
) -> None:
    site = start(threads=2)
    client = connect(site, alice)
    join(client, project)
    postgresql.stop(signal.SIGINT)
    postgresql.start()
    assert join(client, project)["project_id"] == project, "no error even for the first"
