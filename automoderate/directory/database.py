"""Opening the database: SQLite or PostgreSQL, for reading only or for reading and writing.

The server opens a database that somebody else owns for reading only, and the database itself is told so: a bug here
must not be able to change an existing AutoModerate installation.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Integer,
    Numeric,
    Uuid,
    column,
    create_engine,
    event,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from automoderate.directory.tables import COMPARED_IDS, REQUIRED_COLUMNS, Base, ProjectMember
from automoderate.directory.urls import parse, shown

log = logging.getLogger(__name__)

_MEMBERSHIPS = ProjectMember.__tablename__

_PAIR = {"user_id", "project_id"}

MANY_MEMBERSHIPS = 1000
"""From so many rows on an index of memberships is worth its name; fewer are looked through in no time."""

POSTGRESQL_DEFAULTS: dict[str, Any] = {
    "application_name": "automoderate",
    "client_encoding": "utf8",  # without it text of a database in SQL_ASCII comes as bytes
    "connect_timeout": 5,
    # A server that vanished without a word is noticed by the kernel, in seconds rather than a quarter of an hour.
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000,
}  # fmt: skip
"""How PostgreSQL is connected to, in libpq's words and units, unless the URL says otherwise."""


class DatabaseUnavailable(RuntimeError):
    """The database cannot be reached or is not an AutoModerate database; the message is one line and names the fix."""


class ReadOnlyDatabase(RuntimeError):
    """Something tried to write through a :class:`Database` that was opened for reading only."""


def storable(text: str, codec: str = "utf-8") -> bool:
    """Whether a database could hold this text in that encoding; what it could not hold, it need not be asked for.

    PostgreSQL refuses NUL characters, and a lone surrogate, which JSON can spell, has no encoding.
    """
    if "\0" in text:
        return False
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


class Database:
    """A pool of connections to one database; safe to use from any number of threads.

    ``url`` is an SQLAlchemy URL of SQLite or PostgreSQL (``postgres://`` and ``postgresql://`` mean psycopg).
    ``read_only`` makes the database refuse every write. ``pool_size`` is the number of connections kept, best the
    number of threads that use it. PostgreSQL ends a statement after ``statement_timeout`` seconds, so that no thread
    is held by a question whose asker has given up (None: never). ``theirs`` is the database of an application, which
    makes it: no command of ours is advised for what is missing. Nothing is opened before the first use. Raises
    :exc:`~automoderate.directory.urls.InvalidDatabaseURL`.
    """

    def __init__(
        self, url: str | URL, *, read_only: bool = False, pool_size: int = 16, statement_timeout: float | None = None,
        theirs: bool = False,
    ) -> None:  # fmt: skip
        self._address = parse(url)
        self.url = self._address.url
        self.read_only = read_only
        self.path = None if self._address.file is None else Path(self._address.file).absolute()
        """The file of an SQLite database; None for PostgreSQL."""
        self._pool_size = pool_size
        self._statement_timeout = statement_timeout
        self._theirs = theirs
        self._pooled = False  # a pooler was noticed, and said so
        self._knows_admins: bool | None = None  # nobody has looked yet
        self._codec = "utf-8"  # how text is stored, as Python names it; PostgreSQL says with each connection

    def __repr__(self) -> str:
        return f"<Database {self}{' read-only' if self.read_only else ''}>"

    def __str__(self) -> str:
        """The URL with its secrets hidden."""
        return shown(self.url)

    @cached_property
    def engine(self) -> Engine:
        """The SQLAlchemy engine. Raises :exc:`DatabaseUnavailable` where the driver is not installed."""
        options: dict[str, Any] = {
            "pool_size": self._pool_size, "max_overflow": 4, "pool_timeout": 10.0,
            "pool_use_lifo": True,  # the connection that was used last has what is asked for in its cache
            "hide_parameters": True,  # errors go to the log, and parameters are keys and password hashes
        }  # fmt: skip
        try:
            return self._postgresql(options) if self.path is None else self._sqlite(self.path, options)
        except ImportError as error:
            hint = "the PostgreSQL driver is missing or broken; pip install 'automoderate[postgresql]'"
            raise DatabaseUnavailable(f"cannot open {self}: {hint}") from error

    def _sqlite(self, path: Path, options: dict[str, Any]) -> Engine:
        file_options = dict(self._address.file_options)
        # rw, never rwc: a mistyped path must not leave an empty file behind.
        file_options["mode"] = "ro" if self.read_only or file_options.get("mode") == "ro" else "rw"
        url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={**file_options, "uri": "true"})
        if self.read_only:
            # One statement each: no BEGIN and no ROLLBACK around it.
            options["isolation_level"] = "AUTOCOMMIT"
        engine = create_engine(url, connect_args={"check_same_thread": False, **self._address.options}, **options)
        event.listen(engine, "connect", self._prepare_sqlite)
        return engine

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        """Set up one new connection to a file, which is ours alone."""
        connection.execute("PRAGMA foreign_keys = ON")
        if self.read_only:
            connection.execute("PRAGMA query_only = ON")

    def _postgresql(self, options: dict[str, Any]) -> Engine:
        url = self.url.difference_update_query(["prepare_threshold"])
        arguments = {name: value for name, value in POSTGRESQL_DEFAULTS.items() if name not in url.query}
        # Transactions are begun by _begin: psycopg would send a BEGIN by itself, and wait for it.
        engine = create_engine(url, connect_args={**arguments, **self._address.options, "autocommit": True}, **options)
        event.listen(engine, "connect", self._learn_encoding)
        event.listen(engine, "connect", self._look_for_a_pooler)
        event.listen(engine, "begin", self._begin)
        return engine

    def _begin(self, connection: Connection) -> None:
        """Begin a transaction with all that is to hold for it.

        A pooler may give the session behind this connection to another program after every transaction, with whatever
        was SET in it: nothing is set for longer than the transaction, and all of it is one message to the server.
        """
        statements = ["BEGIN READ ONLY" if self.read_only else "BEGIN"]
        if self._statement_timeout is not None:
            statements.append(f"SET LOCAL statement_timeout = {max(1, round(self._statement_timeout * 1000))}")
        connection.exec_driver_sql("; ".join(statements))

    def _learn_encoding(self, connection: Any, _record: object) -> None:
        """Learn what the database could hold: PostgreSQL refuses a whole statement for one character that it cannot."""
        name = connection.info.parameter_status("server_encoding") or "UTF8"
        with contextlib.suppress(LookupError):  # Python does not know all; SQL_ASCII is none, and takes what comes
            self._codec = codecs.lookup(name.replace("WIN", "cp")).name

    def _look_for_a_pooler(self, connection: Any, _record: object) -> None:
        """Prepare no statements where a pooler stands in between: the next session may not have them, or others.

        A pooler makes up the process id that PostgreSQL tells its clients at the start.
        """
        (process,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
        if process != connection.info.backend_pid:
            connection.prepare_threshold = None
            if not self._pooled:
                self._pooled = True
                log.info(
                    "there is a pooler in front of %s: no statements are prepared", self, extra={"event": "pooler"}
                )

    def storable(self, text: str) -> bool:
        """Whether this database could hold the text; one in another encoding than UTF-8 holds less than others."""
        return storable(text, self._codec)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for reading; what it changed is rolled back. SQLAlchemy's errors pass through."""
        with self._begun() as connection:
            yield connection
            if self.read_only:
                # Nothing was changed, and after a ROLLBACK psycopg forgets the statements that it has prepared.
                connection.commit()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection in a transaction that commits at the end, or rolls back on an exception.

        Raises :exc:`ReadOnlyDatabase` where the database was opened for reading only.
        """
        if self.read_only:
            raise ReadOnlyDatabase(f"{self} was opened for reading only")
        with self._begun() as connection:
            yield connection
            connection.commit()

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A connection in a transaction, which is rolled back unless it was committed.

        The BEGIN shows whether a pooled connection is still alive: where it is not, all of them are made anew.
        """
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self.engine.connect())
            try:
                connection.begin()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                stack.close()
                connection = stack.enter_context(self.engine.connect())
                connection.begin()
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
                advice = self._way_to_schema(inspector, missing[-1]) or self._advice("the tables")
                raise DatabaseUnavailable(f"{self} has no table {', '.join(missing)}; {advice}")
            for name, required in REQUIRED_COLUMNS.items():
                kinds = {found["name"]: found["type"] for found in inspector.get_columns(name)}
                if absent := sorted(required - kinds.keys()):
                    raise self._not_ours(f"table {name} has no column {', '.join(absent)}")
                for each in sorted(COMPARED_IDS[name]):
                    if isinstance(kinds[each], Integer | Numeric | Uuid):
                        raise self._not_ours(f"column {each} of table {name} is {kinds[each]}, and ids have to be text")
                # Being there is not enough: we also have to be allowed to read it.
                connection.execute(select(*map(column, sorted(required))).select_from(table(name)).limit(0))

    def _not_ours(self, why: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"{self} is not an AutoModerate database: {why}")

    def knows_admins(self, connection: Connection) -> bool:
        """Whether it has the column that says who is an administrator; an older one may not."""
        if self._knows_admins is None:
            self._knows_admins = any(found["name"] == "is_admin" for found in inspect(connection).get_columns("users"))
        return self._knows_admins

    def missing_index(self) -> str | None:
        """The statement that would make the index by which joins find a membership; None where it would not help.

        That is where there is one, or there are few memberships. Raises :exc:`DatabaseUnavailable`.
        """
        with self._explained(), self.connect() as connection:
            inspector = inspect(connection)
            found: list[Any] = [
                *(index["column_names"] for index in inspector.get_indexes(_MEMBERSHIPS)),
                *(constraint["column_names"] for constraint in inspector.get_unique_constraints(_MEMBERSHIPS)),
                inspector.get_pk_constraint(_MEMBERSHIPS)["constrained_columns"],
            ]
            # A user is in few projects, so that the user alone will do; a project may have many members.
            some = select(ProjectMember.user_id).limit(MANY_MEMBERSHIPS).subquery()
            many = connection.execute(select(func.count()).select_from(some)).scalar_one() == MANY_MEMBERSHIPS
        if not many or any(columns[:1] == ["user_id"] or set(columns[:2]) == _PAIR for columns in found):
            return None
        concurrently = "CONCURRENTLY " if self.path is None else ""
        return (
            f"CREATE INDEX {concurrently}ix_{_MEMBERSHIPS}_user_id_project_id ON {_MEMBERSHIPS} (user_id, project_id)"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a database or file system says into one line that names the fix."""
        try:
            yield
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            raise DatabaseUnavailable(self.explain(error)) from error

    def explain(self, error: Exception) -> str:
        """What went wrong with this database, in one line that names the fix where there is one."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        if self.path is not None:
            try:
                reason = self._why_no_file(self.path) or _why_not_open(self.path, cause)
            except PermissionError as refused:
                reason = f"this user may not enter {self.path.parent}: {refused.strerror}"
            except OSError as failure:
                reason = failure.strerror
            if reason is not None:
                return f"cannot open {self}: {reason}"
        lines = str(cause).strip().splitlines()
        return f"cannot open {self}: {lines[0] if lines else type(cause).__name__}"

    def _why_no_file(self, path: Path) -> str | None:
        """What is wrong with an SQLite file's path. Raises ``OSError`` where not even that can be looked at."""
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}; make it, or name another"
        if not path.exists():
            return f"there is no file {path}; {self._advice('one')}"
        return f"{path} is a folder; name a file in it" if path.is_dir() else None

    def _advice(self, what: str) -> str:
        if self._theirs:
            return "the application has to make its database, or --database-url to name the right one"
        return f"to make {what}: automoderate database create --database-url '{self}'"

    def _way_to_schema(self, inspector: Inspector, name: str) -> str | None:
        """How to name the schema of PostgreSQL in which a table is; None where it is in none."""
        schemas = inspector.get_schema_names() if self.path is None else ()
        found = next((schema for schema in schemas if inspector.has_table(name, schema=schema)), None)
        if found is None:
            return None
        quoted = inspector.dialect.identifier_preparer.quote(found).replace(" ", "\\ ")
        option = f"{'&' if self.url.query else '?'}options={quote(f'-csearch_path={quoted}', safe='')}"
        return f"in its schema {found} there are some: add to the URL {option}"

    def close(self) -> None:
        """Close all pooled connections, those in use when they come back; the next use opens new ones."""
        if "engine" in self.__dict__:
            pool = self.engine.pool
            self.engine.dispose()
            # The pool that is given up would keep what a thread brings back to it later, open.
            event.listen(pool, "checkin", _close_connection)
            pool.dispose()


def _close_connection(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def _why_not_open(path: Path, error: Exception) -> str | None:
    """What keeps us from an SQLite file that is there, where SQLite itself only says that it cannot open it.

    With write-ahead logging a reader takes part in an index that stands in a file of its own (``-shm``). It goes when
    the last program closes the database, and only who may write to the folder can make it again
    (https://www.sqlite.org/wal.html#readonly).
    """
    if getattr(error, "sqlite_errorname", "") not in ("SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY"):
        return None
    try:
        with path.open("rb") as file:
            write_ahead = file.read(20)[18:20] == b"\2\2"
    except OSError as failure:
        return f"this user may not read {path}: {failure.strerror}"
    for beside in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        if beside.exists() and not os.access(beside, os.R_OK):
            return f"it uses write-ahead logging, and this user may not read {beside}"
    if write_ahead and not os.access(path.parent, os.W_OK):
        return (
            f"it uses write-ahead logging, and no program has it open. To be the first, this user has to write to the "
            f"folder {path.parent}: allow that, or start the application that owns the file first"
        )
    return None


def _create_file(path: Path) -> bool:
    """Create the file unless it is there; True if it was created."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True
