"""Opening the database: SQLite or PostgreSQL, for reading only or for reading and writing.

The server opens a database that somebody else owns for reading only, and the database itself is told so: a bug here
must not be able to change an existing AutoModerate installation.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, column, create_engine, event, inspect, make_url, select, table
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from automoderate.directory.tables import REQUIRED_COLUMNS, Base

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another writer of the same SQLite file."""

POSTGRESQL_DEFAULTS: dict[str, Any] = {
    "application_name": "automoderate",
    "connect_timeout": 5,
    # A server that vanished without a word is noticed by the kernel, in seconds rather than a quarter of an hour.
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000,
}  # fmt: skip
"""How PostgreSQL is connected to, in libpq's words and units, unless the URL says otherwise."""


class InvalidDatabaseURL(ValueError):
    """The URL names no database we could open; the message is one line and names the fix."""


class DatabaseUnavailable(RuntimeError):
    """The database cannot be reached or is not an AutoModerate database; the message is one line and names the fix."""


class ReadOnlyDatabase(RuntimeError):
    """Something tried to write through a :class:`Database` that was opened for reading only."""


def storable(text: str) -> bool:
    """Whether a database could hold this text at all; what it could not hold, it need not be asked for.

    PostgreSQL refuses NUL characters, and a lone surrogate, which JSON can spell, has no encoding.
    """
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Database:
    """A pool of connections to one database; safe to use from any number of threads.

    ``url`` is an SQLAlchemy URL of SQLite or PostgreSQL (``postgres://`` and ``postgresql://`` mean psycopg).
    ``read_only`` makes the database refuse every write. ``pool_size`` is the number of connections kept, best the
    number of threads that use it. PostgreSQL ends a statement after ``statement_timeout`` seconds, so that no thread
    is held by a question whose answer nobody waits for any more (None: never). Nothing is opened before the first
    use. Raises :exc:`InvalidDatabaseURL`.
    """

    def __init__(
        self, url: str | URL, *, read_only: bool = False, pool_size: int = 16, statement_timeout: float | None = None
    ) -> None:
        self.url = _parse(url)
        self.read_only = read_only
        self.path = Path(self.url.database or "").absolute() if self._is_sqlite else None
        """The file of an SQLite database; None for PostgreSQL."""
        self._pool_size = pool_size
        self._statement_timeout = statement_timeout

    def __repr__(self) -> str:
        return f"<Database {self}{' read-only' if self.read_only else ''}>"

    def __str__(self) -> str:
        """The URL with its password hidden."""
        return self.url.render_as_string(hide_password=True)

    @property
    def _is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @cached_property
    def engine(self) -> Engine:
        """The SQLAlchemy engine. Raises :exc:`DatabaseUnavailable` where the driver is not installed."""
        options: dict[str, Any] = {
            "pool_size": self._pool_size, "max_overflow": 4, "pool_timeout": 10.0,
            "pool_use_lifo": True,  # the connection that was used last has what is asked for in its cache
            "pool_pre_ping": not self._is_sqlite,  # a file is not away
            "hide_parameters": True,  # errors go to the log, and parameters are keys and password hashes
        }  # fmt: skip
        if self.read_only:
            # One statement each: no BEGIN and no ROLLBACK around it, which are round trips of their own.
            options["isolation_level"] = "AUTOCOMMIT"
        url = self.url
        if self._is_sqlite:
            # rw, never rwc: a mistyped path must not leave an empty file behind.
            mode = "ro" if self.read_only else "rw"
            url = url.set(database=f"file:{quote(str(self.path))}", query={"mode": mode, "uri": "true"})
            options["connect_args"] = {"check_same_thread": False, "timeout": BUSY_TIMEOUT}
        else:
            options["connect_args"] = {k: v for k, v in POSTGRESQL_DEFAULTS.items() if k not in url.query}
        try:
            engine = create_engine(url, **options)
        except ImportError as error:
            hint = "the PostgreSQL driver is missing or broken; pip install 'automoderate[postgresql]'"
            raise DatabaseUnavailable(f"cannot open {self}: {hint}") from error
        event.listen(engine, "connect", self._prepare)
        return engine

    def _prepare(self, connection: Any, _record: object) -> None:
        """Set up one new DBAPI connection."""
        with contextlib.closing(connection.cursor()) as cursor:
            for statement in self._settings():
                cursor.execute(statement)
        connection.commit()

    def _settings(self) -> Iterator[str]:
        """What a new session of the database is told, for all of its statements."""
        if self._is_sqlite:
            yield "PRAGMA foreign_keys = ON"
            if self.read_only:
                yield "PRAGMA query_only = ON"
            return
        if self.read_only:
            # On the session rather than per transaction: it then also holds for single statements.
            yield "SET default_transaction_read_only = on"
        if self._statement_timeout is not None:
            yield f"SET statement_timeout = {max(1, round(self._statement_timeout * 1000))}"

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for reading; what it changed is rolled back. SQLAlchemy's errors pass through."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection in a transaction that commits at the end, or rolls back on an exception.

        Raises :exc:`ReadOnlyDatabase` where the database was opened for reading only.
        """
        if self.read_only:
            raise ReadOnlyDatabase(f"{self} was opened for reading only")
        with self.engine.begin() as connection:
            yield connection

    def create_all(self) -> None:
        """Make the tables that are missing, and the file itself for SQLite. Harmless where all is there already.

        A file made here is readable by its owner only, as it will hold password hashes, and uses write-ahead logging so
        that readers and the writer do not block each other. Raises :exc:`DatabaseUnavailable`.
        """
        if self.read_only:
            raise ReadOnlyDatabase(f"{self} was opened for reading only")
        with self._explained():
            new_file = self.path is not None and _create_file(self.path)
            with self.engine.connect() as connection:
                if new_file:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                Base.metadata.create_all(connection)
                connection.commit()

    def ping(self) -> None:
        """Ask the database for a sign of life. Raises :exc:`DatabaseUnavailable`."""
        with self._explained(), self.connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    def check(self) -> None:
        """Make sure that we can read the tables and columns we need. Raises :exc:`DatabaseUnavailable`."""
        with self._explained(), self.connect() as connection:
            inspector = inspect(connection)
            missing = sorted(name for name in REQUIRED_COLUMNS if not inspector.has_table(name))
            if missing:
                raise DatabaseUnavailable(
                    f"{self} has no table {', '.join(missing)}; to make the tables: "
                    f"automoderate database create --database-url '{self}'"
                )
            for name, required in REQUIRED_COLUMNS.items():
                absent = sorted(required - {found["name"] for found in inspector.get_columns(name)})
                if absent:
                    raise DatabaseUnavailable(
                        f"{self} is not an AutoModerate database: table {name} has no column {', '.join(absent)}"
                    )
                # Being there is not enough: we also have to be allowed to read it.
                connection.execute(select(*map(column, sorted(required))).select_from(table(name)).limit(0))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a database or file system says into one line that names the fix."""
        try:
            yield
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            raise DatabaseUnavailable(self.explain(error)) from error

    def explain(self, error: Exception) -> str:
        """What went wrong with this database, in one line that names the fix where there is one."""
        if self.path is not None and not self.path.exists():
            return (
                f"cannot open {self}: there is no file {self.path}; to make one: "
                f"automoderate database create --database-url '{self}'"
            )
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        lines = str(cause).strip().splitlines()
        return f"cannot open {self}: {lines[0] if lines else type(cause).__name__}"

    def close(self) -> None:
        """Close all pooled connections; the next use opens new ones."""
        if "engine" in self.__dict__:
            self.engine.dispose()


def _parse(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InvalidDatabaseURL(
            "this is no database URL; write sqlite:///file.sqlite3 or postgresql://user:password@host/name"
        ) from error
    if backend == "postgres" or parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "postgresql":
        return parsed
    if backend != "sqlite":
        raise InvalidDatabaseURL(f"{backend} databases are not supported; use sqlite:/// or postgresql://")
    if parsed.database in (None, "", ":memory:") or parsed.query:
        raise InvalidDatabaseURL("name a file: an SQLite URL is sqlite:///file.sqlite3 (no memory, no parameters)")
    return parsed


def _create_file(path: Path) -> bool:
    """Create the file unless it is there; True if it was created."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True
