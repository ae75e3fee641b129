"""Behind PgBouncer in transaction mode, whose few sessions the server shares with the application that writes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from automoderate.directory import accounts
from automoderate.directory.database import Database
from kits import until
from kits.contract_client import Client
from kits.contract_site import Site, World
from kits.pgbouncer import PgBouncer
from kits.postgresql_server import PostgreSQL

CLIENTS = 80
CHECKS = 12
"""Enough for psycopg to prepare what it is asked (5)."""

Start = Callable[..., Site]
Connect = Callable[[Site, str], Client]


@pytest.fixture
def pgbouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    pooler = PgBouncer(postgresql)
    yield pooler
    pooler.close()


@pytest.fixture
def pooled(pgbouncer: PgBouncer, name: str) -> Iterator[Callable[..., Database]]:
    """Open the test's database through the pooler."""
    opened: list[Database] = []

    def begin(**options: Any) -> Database:
        opened.append(Database(pgbouncer.url(name), **options))
        return opened[-1]

    yield begin
    for database in opened:
        database.close()


class Application:
    """Somebody else's program behind the same pooler: it writes, and has its own opinion of prepared statements."""

    def __init__(self, url: str) -> None:
        arguments = {"prepare_threshold": None}
        self.engine: Engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), connect_args=arguments)
        self.failures: list[str] = []
        self.written = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def write(self) -> None:
        """One row, in a transaction."""
        with self.engine.begin() as connection:
            name = str(uuid.uuid4())
            row = {"id": name, "name": name, "mail": f"{name}@application"}
            connection.execute(text("INSERT INTO users (id, username, email) VALUES (:id, :name, :mail)"), row)
            self.written += 1

    def settings(self) -> set[tuple[str, ...]]:
        """What the sessions that it is given say of themselves."""
        found = set()
        for _ in range(8):
            with self.engine.connect() as first, self.engine.connect() as second:  # both of the pooler's
                for connection in (first, second):
                    shown = [
                        connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                        for name in ("default_transaction_read_only", "statement_timeout", "transaction_read_only")
                    ]
                    prepared = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
                    found.add((*shown, str(prepared)))
        return found

    def _run(self) -> None:
        while not self._enough.is_set():
            try:
                self.write()
            except DBAPIError as error:
                self.failures.append(str(error.orig))

    def __enter__(self) -> Application:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(60)
        self.engine.dispose()


def test_an_application_writes_beside_a_server_under_load_and_after_it(
    pgbouncer: PgBouncer, name: str, start: Start, world: World
) -> None:
    def come(user: str) -> Client:
        client = site.connect(user, "websocket")
        client.expect("connected")
        return client

    def join(client: Client) -> dict[str, Any]:
        answer: dict[str, Any] = client.call("join_project", {"project_id": project})
        return answer

    user = world.user()
    project = world.project(user)
    users = [world.user() for _ in range(CLIENTS)]
    for each in users:
        accounts.add_member(world.database, project, each)
    site = start(database_url=pgbouncer.url(name), threads=8, recheck_interval=0.5)
    with Application(pgbouncer.url(name)) as application:
        until(lambda: application.written > 3 or bool(application.failures), "the application writes")
        with ThreadPoolExecutor(8) as threads:
            clients = list(threads.map(come, users))
            assert [answer.get("error") for answer in threads.map(join, clients)] == [None] * CLIENTS
        assert site.http("GET", "/readyz").status == 200
        before = application.written
        site.publish(project, 1)
        for client in clients:
            assert client.until("moderation_update")["n"] == 1
        until(lambda: application.written > before + 3, "the application goes on writing")
        site.stop()
        application.write()
        assert application.failures == []
        assert application.settings() == {("off", "0", "off", "0")}
    for client in clients:
        assert client.events("error") == []
        client.wire.close()


@pytest.mark.usefixtures("pgbouncer")
def test_nothing_of_a_read_is_left_in_the_session(pooled: Callable[..., Database]) -> None:
    reader, writer = pooled(read_only=True, statement_timeout=2.0), pooled(statement_timeout=3.0)
    reader.check()
    for _ in range(CHECKS):
        with reader.connect() as connection:
            assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "2s"
        with writer.begin() as connection:
            assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "off"
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "3s"
    accounts.create_user(writer, username="ann", email="ann@example.org", password="x")
    assert [user.username for user in accounts.list_users(reader)] == ["ann"]
    with pytest.raises(DBAPIError, match="read-only"), reader.connect() as connection:
        connection.exec_driver_sql("DELETE FROM users")
    with Application(str(reader)) as application:
        assert application.settings() == {("off", "0", "off", "0")}


def test_statements_are_prepared_where_no_pooler_is_and_nowhere_else(
    postgresql: PostgreSQL, name: str, pgbouncer: PgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    def prepared(url: str) -> int:
        database = Database(url, read_only=True, statement_timeout=5.0)
        for _ in range(CHECKS):
            assert accounts.get_user(database, "nobody") is None
        with database.connect() as connection:
            count: int = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
        database.close()
        return count

    caplog.set_level("INFO", "automoderate")
    assert prepared(postgresql.url(name)) > 0
    assert prepared(f"{postgresql.url(name)}?prepare_threshold=0") > 0
    assert prepared(f"{postgresql.url(name)}?prepare_threshold=none") == 0
    assert caplog.messages == []
    assert prepared(pgbouncer.url(name)) == 0
    assert prepared(f"{pgbouncer.url(name)}?prepare_threshold=0") == 0
    assert [message for message in caplog.messages if "pooler" in message] == [
        f"there is a pooler in front of {Database(url)}: no statements are prepared"
        for url in (pgbouncer.url(name), f"{pgbouncer.url(name)}?prepare_threshold=0")
    ]


def test_a_pooler_that_drops_its_clients_is_not_noticed(
    pgbouncer: PgBouncer, name: str, start: Start, connect: Connect, world: World
) -> None:
    user = world.user()
    project = world.project(user)
    site = start(database_url=pgbouncer.url(name), threads=2)
    client = connect(site, user)
    assert client.call("join_project", {"project_id": project})["project_id"] == project
    pgbouncer.cut(name)
    assert client.call("join_project", {"project_id": project})["project_id"] == project, "no error even for the first"


def test_a_pooler_of_single_statements_is_refused_in_one_line(postgresql: PostgreSQL, name: str) -> None:
    from automoderate.directory.database import DatabaseUnavailable

    pooler = PgBouncer(postgresql, mode="statement")
    database = Database(pooler.url(name), read_only=True)
    try:
        with pytest.raises(DatabaseUnavailable, match=r"^cannot open [^\n]*transaction blocks not allowed[^\n]*$"):
            database.check()
    finally:
        database.close()
        pooler.close()
