"""Opening databases: URLs, files, read-only, and what is said when it does not work."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from automoderate.directory import accounts
from automoderate.directory.database import (
    Database,
    DatabaseUnavailable,
    InvalidDatabaseURL,
    ReadOnlyDatabase,
    storable,
)


def test_makes_its_file_private_and_lets_readers_and_a_writer_in_at_once(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new.sqlite3")
    assert not (tmp_path / "new.sqlite3").exists()
    database.create_all()
    database.create_all()
    database.check()
    assert stat.S_IMODE((tmp_path / "new.sqlite3").stat().st_mode) == 0o600
    with closing(sqlite3.connect(tmp_path / "new.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader = Database(f"sqlite:///{tmp_path}/new.sqlite3", read_only=True)
    with database.begin() as writing:
        writing.exec_driver_sql("INSERT INTO users (id, username, email) VALUES ('u', 'n', 'e')")
        assert accounts.list_users(reader) == []
    assert [user.id for user in accounts.list_users(reader)] == ["u"]
    database.close()
    reader.close()


def test_adding_tables_to_an_existing_file_leaves_its_journal_mode_and_its_data(tmp_path: Path) -> None:
    path = tmp_path / "existing.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("INSERT INTO notes VALUES ('keep me')")
    database = Database(f"sqlite:///{path}")
    database.create_all()
    database.check()
    database.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("SELECT text FROM notes").fetchall() == [("keep me",)]


def test_what_goes_wrong_is_told_without_the_secrets_in_the_question(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    database = Database(f"sqlite:///{tmp_path}/empty.db", read_only=True)
    with pytest.raises(SQLAlchemyError, match="no such table") as raised:
        accounts.api_key(database, "am_secret")
    database.close()
    assert "am_secret" not in str(raised.value)


def test_a_relative_path_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite:///automoderate.sqlite3")
    database.create_all()
    assert database.path == tmp_path / "automoderate.sqlite3"
    monkeypatch.chdir("/")
    database.close()
    database.ping()
    database.close()


@pytest.mark.parametrize("name", ["a b.db", "50%.db", "what?.db", "#1.db", "ümlaut.db", "a&mode=rwc.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    from sqlalchemy import URL

    database = Database(URL.create("sqlite", database=str(tmp_path / name)))
    database.create_all()
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = Database(URL.create("sqlite", database=str(tmp_path / name)), read_only=True)
    again.check()
    again.close()


def test_read_only_is_enforced_by_the_database_itself(database: Database) -> None:
    reader = Database(database.url, read_only=True)
    with pytest.raises(ReadOnlyDatabase), reader.begin():
        pass
    with pytest.raises(ReadOnlyDatabase):
        reader.create_all()
    with pytest.raises(ReadOnlyDatabase):
        accounts.create_user(reader, username="a", email="b", password="c")
    for statement in ("INSERT INTO users (id, username, email) VALUES ('u', 'n', 'e')", "DROP TABLE users"):
        with reader.connect() as connection, pytest.raises(SQLAlchemyError, match=r"readonly|read-only"):
            connection.exec_driver_sql(statement)
    reader.close()


def test_many_threads_share_a_database(database: Database) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(24)

    def work(number: int) -> None:
        try:
            barrier.wait(60)
            accounts.create_user(database, username=f"user-{number}", email=f"{number}@example.org", password="x")
            accounts.list_users(database)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(accounts.list_users(database)) == 24


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://root@localhost/x", "nodriver://x/y", "://",
     "sqlite:///x.db?mode=rwc", "postgresql://host:port/x", "/var/lib/file.db"],
)  # fmt: skip
def test_a_url_of_no_use_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(InvalidDatabaseURL) as caught:
        Database(url)
    assert "\n" not in str(caught.value)
    assert "sqlite:///" in str(caught.value)


@pytest.mark.parametrize("url", ["postgres://ann:hidden@db/x", "postgresql://ann:hidden@db/x"])
def test_postgresql_is_spoken_through_psycopg_and_its_password_is_never_shown(url: str) -> None:
    database = Database(url, read_only=True)
    assert database.url.drivername == "postgresql+psycopg"
    assert database.url.password == "hidden"
    assert "hidden" not in f"{database} {database!r}"
    assert database.path is None


def test_a_missing_file_is_named_together_with_the_fix_and_not_made(tmp_path: Path) -> None:
    for read_only in (True, False):
        database = Database(f"sqlite:///{tmp_path}/missing.db", read_only=read_only)
        for ask in (database.ping, database.check):
            with pytest.raises(DatabaseUnavailable) as caught:
                ask()
            assert str(caught.value).startswith(f"cannot open sqlite:///{tmp_path}/missing.db: there is no file")
            assert "automoderate database create --database-url" in str(caught.value)
            assert "\n" not in str(caught.value)
        database.close()
    assert list(tmp_path.iterdir()) == []


def test_missing_tables_are_named_together_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (id TEXT)")
    database = Database(f"sqlite:///{path}", read_only=True)
    with pytest.raises(DatabaseUnavailable, match=r"no table api_keys, project_members, projects; .* database create"):
        database.check()
    database.close()


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (id TEXT, username TEXT)")
        connection.execute("CREATE TABLE projects (id TEXT, name TEXT, user_id TEXT)")
        connection.execute("CREATE TABLE project_members (id TEXT, project_id TEXT, user_id TEXT, role TEXT)")
        connection.execute("CREATE TABLE api_keys (id, key, name, project_id, is_active)")
    database = Database(f"sqlite:///{path}", read_only=True)
    with pytest.raises(DatabaseUnavailable, match="table users has no column email, is_active, password_hash"):
        database.check()
    database.close()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database at all\n" * 100)
    database = Database(f"sqlite:///{tmp_path}/text.db", read_only=True)
    with pytest.raises(DatabaseUnavailable, match=r"^cannot open [^\n]*: file is not a database$"):
        database.check()
    database.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    with pytest.raises(DatabaseUnavailable) as caught:
        database.create_all()
    assert "\n" not in str(caught.value)
    assert "no/such/folder" in str(caught.value)


def test_postgresql_that_is_away_is_one_line() -> None:
    import socket

    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        database = Database(f"postgresql://ann:hidden@127.0.0.1:{unused.getsockname()[1]}/x", read_only=True)
        with pytest.raises(DatabaseUnavailable) as caught:
            database.check()
    database.close()
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_missing_driver_is_one_line_with_the_fix() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from automoderate.directory.database import Database, DatabaseUnavailable
try:
    Database("postgresql://h/x").ping()
except DatabaseUnavailable as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.count("\n") == 1
    assert "pip install 'automoderate[postgresql]'" in result.stdout


def test_storable() -> None:
    assert storable("😀 'quoted' \n")
    assert not storable("a\0b")
    assert not storable("\ud800")
