"""Database URLs: every option works, or is refused in one line that shows no secret."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from automoderate.directory.database import Database, DatabaseUnavailable
from automoderate.directory.urls import InvalidDatabaseURL


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://root@localhost/x", "nodriver://x/y", "://",
     "postgresql://host:port/x", "/var/lib/file.db", "sqlite:///file::memory:?uri=true",
     "sqlite:///file:x.db?mode=memory&uri=true"],
)  # fmt: skip
def test_a_url_of_no_use_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(InvalidDatabaseURL) as caught:
        Database(url)
    assert "\n" not in str(caught.value)
    assert "sqlite:///" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://automoderate.db", "three slashes"),
        ("sqlite://folder/automoderate.db", "three slashes"),
        ("sqlite+pysqlcipher://:hush@/x.db", "three slashes"),
        ("sqlite:///x%00.db", "NUL"),
        ("postgresql://ann:hush%00@h:1/x", "NUL"),
        ("postgresql://h:1/x%00y", "NUL"),
        ("postgresql://h/x?application_name=a%00b", "NUL"),
        ("postgresql://ann:pass@hush@h/x", "an @ within a user's name or password is written %40"),
        ("postgresql://ann@example.org:pass@hush@h:5432/x", "is written %40"),
        ("postgresql://ann:hush@h..b/x", "h..b is no name of a host"),
        ("postgresql://ann:hush@/x?host=h&host=h..b:1", "h..b is no name of a host"),
        (f"postgresql://ann:hush@h/x?host=h,{'h' * 64}", "is no name of a host"),
        ("postgresql://ann:hush@a:5432,b:5433/x?sslmode=require", "name?host=a:5432&host=b:5432"),
        ("sqlite:///x.db?mode=rwc", "mode is no option of an SQLite URL"),
        ("sqlite:///x.db?timeout=soon", "timeout must be a number of seconds"),
        ("sqlite:///x.db?timeout=-1", "timeout must be a number of seconds"),
        ("sqlite:///x.db?password=hush", "password is no option"),
        ("postgresql://h/x?autocommit=true", "autocommit is no option of a PostgreSQL URL"),
        ("postgresql://h/x?cursor_factory=hush", "cursor_factory is no option"),
        ("postgresql://h/x?plugin=hush", "plugin is no option"),
        ("postgresql+asyncpg://h/x?ssl=require", "ssl is no option of a PostgreSQL URL; it may have libpq's, such as"),
        ("postgresql://h/x?pgbouncer=true", "pgbouncer is no option"),
        ("postgresql://h/x?sslmode=hush&sslmode=require", "sslmode may be given once"),
        ("postgresql://h/x?password=hush&password=hush", "password may be given once"),
        ("postgresql://h/x?prepare_threshold=often", "prepare_threshold must be a whole number, or none"),
        ("postgresql://h/x?prepare_threshold=-1", "prepare_threshold must be a whole number, or none"),
        ("postgresql://h/x?prepare_threshold=1&prepare_threshold=2", "prepare_threshold must be a whole number"),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_its_name(url: str, said: str) -> None:
    with pytest.raises(InvalidDatabaseURL) as caught:
        Database(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgres://ann:hidden@db/x", "postgresql://ann:hidden@db/x", "postgresql+psycopg2://ann:hidden@db/x",
     "postgresql+asyncpg://ann:hidden@db/x", "postgresql+pg8000://ann:hidden@db/x", "PostgreSQL://ann:hidden@db/x"],
)  # fmt: skip
def test_postgresql_is_spoken_through_psycopg_and_its_password_is_never_shown(url: str) -> None:
    database = Database(url, read_only=True)
    assert database.url.drivername == "postgresql+psycopg"
    assert database.url.password == "hidden"
    assert "hidden" not in f"{database} {database!r}"
    assert database.path is None


@pytest.mark.parametrize(
    "option", ["password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"]
)
def test_a_secret_among_the_options_is_never_shown(option: str) -> None:
    database = Database(f"postgresql://ann@db/x?{option}=hidden&sslmode=require")
    assert database.url.query[option] == "hidden"
    assert "hidden" not in f"{database} {database!r}"
    assert f"{option}=***" in str(database)
    assert "sslmode=require" in str(database)


@pytest.mark.parametrize(
    ("query", "asked", "answer"),
    [
        ("sslmode=disable&connect_timeout=3&keepalives=0", "SELECT 1", 1),
        ("application_name=theirs", "SHOW application_name", "theirs"),
        ("client_encoding=latin1", "SHOW client_encoding", "LATIN1"),
        ("options=-c%20work_mem%3D7MB", "SHOW work_mem", "7MB"),
        ("options=-c%20statement_timeout%3D7s", "SHOW statement_timeout", "7s"),
        ("target_session_attrs=read-write", "SELECT 1", 1),
        ("prepare_threshold=3", "SELECT 1", 1),
        ("prepare_threshold=none", "SELECT 1", 1),
    ],
)
def test_libpqs_and_psycopgs_options_work(postgresql: Any, template: str, query: str, asked: str, answer: Any) -> None:
    url = f"postgresql://127.0.0.1:{postgresql.port}/{template}?user=automoderate&{query}"
    database = Database(url, read_only=True)
    try:
        for _ in range(3):
            with database.connect() as connection:
                assert connection.exec_driver_sql(asked).scalar() == answer
    finally:
        database.close()


def test_a_folder_of_a_unix_socket_may_stand_where_a_host_does() -> None:
    database = Database("postgresql://ann@%2Frun%2Fpg/x")
    with pytest.raises(DatabaseUnavailable, match="/run/pg/"):
        database.check()
    database.close()
    assert str(database) == "postgresql+psycopg://ann@/x?host=%2Frun%2Fpg"


def test_several_hosts_are_tried_in_their_order(postgresql: Any, template: str, closed_port: int) -> None:
    hosts = f"host=127.0.0.1:{closed_port}&host=127.0.0.1:{postgresql.port}"
    database = Database(f"postgresql://automoderate@/{template}?{hosts}")
    database.check()
    database.close()


@pytest.mark.parametrize(
    "query",
    ["sslmode=perhaps", "connect_timeout=soon", "keepalives_idle=x", "options=-c%20nonsense%3D1", "sslrootcert=/none",
     "client_encoding=klingon", "host=", "port=x", "sslmode=verify-full", "service=nobody", "target_session_attrs=all",
     "channel_binding=perhaps", "hostaddr=nowhere"],
)  # fmt: skip
def test_a_value_that_cannot_work_is_one_line_when_it_is_used(
    postgresql: Any, template: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "/nowhere")
    host = "" if query.startswith("host=") else "127.0.0.1"
    port = "" if query.startswith("port=") else f":{postgresql.port}"
    database = Database(f"postgresql://automoderate:hush@{host}{port}/{template}?{query}")
    if query == "sslrootcert=/none":
        database = Database(database.url.update_query_dict({"sslmode": "verify-ca"}))
    with pytest.raises(DatabaseUnavailable) as caught:
        database.check()
    database.close()
    assert str(caught.value).startswith("cannot open postgresql")
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["sqlite:///x.db?timeout=0.01&check_same_thread=false&cached_statements=10", "sqlite+pysqlite:///x.db",
     "sqlite+aiosqlite:///x.db", "sqlite:///file:x.db?uri=true", "sqlite:///file:x.db?mode=rwc&uri=true&cache=private",
     "sqlite:///file:./x.db?uri=true", "sqlite:///{folder}/x.db", "sqlite:///file:{folder}/x.db?uri=true",
     "sqlite:///file://{folder}/x.db?uri=true&immutable=0"],
)  # fmt: skip
def test_sqlites_options_work(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database(url.format(folder=tmp_path))
    assert database.path == tmp_path / "x.db"
    database.create_all()
    database.check()
    assert [path.name for path in tmp_path.glob("*.db")] == ["x.db"]
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        if "timeout" in url:
            with pytest.raises(Exception, match="database is locked"), database.begin() as connection:
                connection.exec_driver_sql("DELETE FROM users")
    database.close()


def test_a_file_that_its_url_opens_for_reading_is_not_written(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as made:
        made.create_all()
    database = Database(f"sqlite:///file:{tmp_path}/x.db?mode=ro&uri=true")
    database.check()
    with pytest.raises(Exception, match="readonly"), database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM users")
    database.close()
