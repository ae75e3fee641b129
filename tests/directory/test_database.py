"""Opening databases: URLs, files, read-only, and what is said when it does not work."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from automoderate.directory import accounts
from automoderate.directory.database import (
    MANY_MEMBERSHIPS,
    Database,
    DatabaseUnavailable,
    ReadOnlyDatabase,
    storable,
)
from automoderate.directory.tables import REQUIRED_COLUMNS


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
        accounts.get_user(database, "am_secret")
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


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [
        ("users", "id", "INTEGER"),
        ("projects", "id", "BIGINT"),
        ("projects", "user_id", "SMALLINT"),
        ("project_members", "user_id", "NUMERIC"),
        ("project_members", "project_id", "INTEGER"),
        ("api_keys", "project_id", "INTEGER"),
    ],
)
def test_ids_that_are_no_text_are_named(tmp_path: Path, table: str, column: str, kind: str) -> None:
    """What a session or a client names is text, and equals no number: every visitor would be unknown."""
    database = other_database(tmp_path, {(table, column): kind})
    said = f"is not an AutoModerate database: column {column} of table {table} is {kind}, and ids have to be text"
    with pytest.raises(DatabaseUnavailable, match=said):
        database.check()
    database.close()


def test_a_membership_may_be_numbered(tmp_path: Path) -> None:
    """Nobody asks for one, or for a key, by its own id."""
    database = other_database(tmp_path, {("project_members", "id"): "INTEGER", ("api_keys", "id"): "INTEGER"})
    database.check()
    database.close()


def other_database(folder: Path, kinds: Mapping[tuple[str, str], str]) -> Database:
    """One that another application has made: its columns are text, but for these, each by its table and its name."""
    path = folder / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, columns in REQUIRED_COLUMNS.items():
            made = (f"{column} {kinds.get((table, column), 'VARCHAR(36)')}" for column in sorted(columns))
            connection.execute(f"CREATE TABLE {table} ({', '.join(made)})")
    return Database(f"sqlite:///{path}", read_only=True)


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


@pytest.mark.parametrize(
    ("more", "statement", "missed"),
    [
        ("", "", True),
        ("", "CREATE INDEX i ON project_members (project_id)", True),
        ("", "CREATE INDEX i ON project_members (role, user_id, project_id)", True),
        ("", "CREATE INDEX i ON project_members (user_id)", False),
        ("", "CREATE INDEX i ON project_members (project_id, user_id, role)", False),
        (", UNIQUE (project_id, user_id)", "", False),
        (", PRIMARY KEY (user_id, project_id)", "", False),
    ],
)
def test_an_index_is_asked_for_only_where_none_helps(more: str, statement: str, missed: bool, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE project_members (id TEXT, project_id TEXT, user_id TEXT, role TEXT{more})")
        connection.execute(statement)
        members = [("p", str(number)) for number in range(MANY_MEMBERSHIPS - 1)]
        insert = "INSERT INTO project_members (project_id, user_id) VALUES (?, ?)"
        connection.executemany(insert, members)
    database = Database(f"sqlite:///{path}", read_only=True)
    assert database.missing_index() is None, "so few are looked through in no time"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(insert, ("p", "another"))
    wanted = "CREATE INDEX ix_project_members_user_id_project_id ON project_members (user_id, project_id)"
    assert database.missing_index() == (wanted if missed else None)
    database.close()
    if missed:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(wanted)
        assert database.missing_index() is None
        database.close()


def test_our_own_database_has_the_index(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/own.db")
    database.create_all()
    assert database.missing_index() is None
    database.close()


def test_a_connection_that_is_in_use_at_the_end_is_closed_when_it_comes_back(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/own.db")
    database.create_all()
    with database.connect() as connection:
        driver = connection.connection.driver_connection
        database.close()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert driver is not None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        driver.execute("SELECT 1")
    with database.connect() as connection:
        kept = connection.connection.driver_connection
    with database.connect() as connection:
        assert connection.connection.driver_connection is kept
    database.close()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database at all\n" * 100)
    database = Database(f"sqlite:///{tmp_path}/text.db", read_only=True)
    with pytest.raises(DatabaseUnavailable, match=r"^cannot open [^\n]*: file is not a database$"):
        database.check()
    database.close()


OPENING = """
import contextlib, os, sys
from automoderate.directory.database import Database, DatabaseUnavailable

def open_it(path):
    Database(f"sqlite:///{path}", read_only=True).check()

with contextlib.suppress(DatabaseUnavailable):
    open_it(sys.argv[1] + ".missing")  # what is imported late may be out of the other user's reach
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    open_it(sys.argv[1])
except DatabaseUnavailable as error:
    print(error)
else:
    print("nothing")
"""


def what_another_user_is_told(path: Path) -> str:
    """What comes of opening the file as somebody who may read it, and owns nothing."""
    run = subprocess.run([sys.executable, "-c", OPENING, str(path)], capture_output=True, text=True, check=True)
    return run.stdout.rstrip("\n")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, and only its owner may write to."""
    with tempfile.TemporaryDirectory(prefix="automoderate-test-") as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_file_in_wal_mode_that_may_only_be_read_needs_its_owner(open_folder: Path) -> None:
    """Its index is in a file of its own, which goes with the last program that has the database open."""
    path = open_folder / "application.db"
    open_folder.chmod(0o755)
    owner = Database(f"sqlite:///{path}")
    owner.create_all()
    owner.close()
    path.chmod(0o644)
    with owner.begin() as connection:
        connection.exec_driver_sql("INSERT INTO users (id, username, email) VALUES ('u', 'n', 'e')")
        assert what_another_user_is_told(path) == "nothing", "it could be opened"
    open_folder.chmod(0o755)
    owner.close()
    open_folder.chmod(0o555)
    assert sorted(file.name for file in open_folder.iterdir()) == ["application.db"]
    assert what_another_user_is_told(path) == (
        f"cannot open sqlite:///{path}: it uses write-ahead logging, and no program has it open. To be the first, this "
        f"user has to write to the folder {open_folder}: allow that, or start the application that owns the file first"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that others may not read, and be another")
def test_a_file_that_may_not_be_read_is_named(open_folder: Path) -> None:
    path = open_folder / "application.db"
    owner = Database(f"sqlite:///{path}")
    owner.create_all()
    assert what_another_user_is_told(path) == (
        f"cannot open sqlite:///{path}: this user may not read {path}: Permission denied"
    )
    owner.close()
    path.chmod(0o644)
    with owner.connect() as connection:
        connection.exec_driver_sql("SELECT 1 FROM users")
        Path(f"{path}-wal").chmod(0o600)
        assert what_another_user_is_told(path) == (
            f"cannot open sqlite:///{path}: it uses write-ahead logging, and this user may not read {path}-wal"
        )
    owner.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders that others may not enter, and be another")
def test_a_folder_that_may_not_be_entered_is_named(open_folder: Path) -> None:
    """What is in it cannot even be asked."""
    inner = open_folder / "private" / "data"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    for path in (inner / "application.db", inner.parent / "application.db"):
        assert what_another_user_is_told(path) == (
            f"cannot open sqlite:///{path}: this user may not enter {path.parent}: Permission denied"
        )


def test_a_path_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    for path, said in {
        tmp_path: f"{tmp_path} is a folder; name a file in it",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / ("x" * 300) / "y": "File name too long",
        Path(__file__) / "x": f"there is no folder {__file__}; make it, or name another",
    }.items():
        database = Database(f"sqlite:///{path}", read_only=True)
        with pytest.raises(DatabaseUnavailable) as caught:
            database.check()
        assert str(caught.value) == f"cannot open {database}: {said}"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    with pytest.raises(DatabaseUnavailable) as caught:
        database.create_all()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"there is no folder {tmp_path}/no/such/folder; make it, or name another")


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
