"""Changes of access that an application in this process commits with SQLAlchemy, heard as it commits them.

The application's models are known by the names of their tables and columns alone (section 8 of the contract). Nothing
is asked of its database and nothing of its own is changed: what it sends is looked at as it goes by. Where a statement
does not say whose access it changes, everyone's is looked up again.
"""

from __future__ import annotations

import itertools
import logging
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from sqlalchemy import BindParameter, Column, Connection, Delete, Engine, Update, event, inspect
from sqlalchemy.orm import Mapper
from sqlalchemy.pool import Pool
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnElement, Grouping

from automoderate.directory.tables import Project, ProjectMember, User

log = logging.getLogger("automoderate.app")

Announce = Callable[[str | None, str | None], object]
"""Told of a user's id and a project's id: whose access may have changed, and to what; None for every one."""

USERS, PROJECTS, MEMBERS = User.__tablename__, Project.__tablename__, ProjectMember.__tablename__

MANY = 100
"""More changes than this in one transaction are announced as one that concerns everyone."""

_SPACE = r"(?:\s|/\*(?:[^*]|\*(?!/))*\*/|--[^\n]*\n)+"
"""What may stand between two words of a statement: white space and comments."""
_WRITES = re.compile(
    r"\b(?:delete from|update(?: or \w+)?|(?:insert or replace|replace|merge) into"
    r"|insert into(?=.*\bdo update\b)) (?:only )?(?:[\w\"`\[\]]+\s*\.\s*)?[\"`\[]?".replace(" ", _SPACE)
    + rf"({USERS}|{PROJECTS}|{MEMBERS})\b",
    re.IGNORECASE | re.DOTALL,
)
_TRUNCATES = re.compile(rf"\btruncate\b(?:{_SPACE}|[^;])*", re.IGNORECASE | re.DOTALL)
_TABLES = re.compile(rf"\b(?:{USERS}|{PROJECTS}|{MEMBERS})\b", re.IGNORECASE)
"""Several tables may be emptied by one statement."""
_READS = ("SELECT", "BEGIN", "COMMIT", "PRAGMA", "SHOW")
"""How statements begin that take no access away, if no other follows; all others are looked at."""

_DECIDING = {USERS: r"\bis_active\b", PROJECTS: r"\buser_id\b", MEMBERS: r"\b(?:user|project)_id\b"}
"""An update that contains none of these leaves everyone's access as it is: who is active, who owns, who is a member."""


@frozen
class _Change:
    user_id: str | None = None
    project_id: str | None = None


_EVERYONE = _Change()


@define
class _Transaction:
    """What one connection has changed and not committed yet."""

    changes: set[_Change] = field(factory=set)
    members: dict[str, set[_Change]] = field(factory=dict)
    """Of rows of members that the ORM is about to write: whose they are, and whose they were."""
    committed: bool = False


class CommitListener:
    """Listens to every engine of this process until it is closed; ``announce`` is called on the application's threads.

    SQLAlchemy says that a transaction is about to be committed, and not that it was. It was by the time at which its
    connection goes back to the pool, which a session does at once, or begins the next transaction.
    """

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._listening: Sequence[tuple[type, str, Callable[..., Any]]] = (
            (Mapper, "before_delete", self._on_row),
            (Mapper, "before_update", self._on_row),
            (Engine, "after_cursor_execute", self._on_statement),
            (Engine, "commit", self._on_commit),
            (Engine, "commit_twophase", self._on_commit),
            (Engine, "rollback", self._on_rollback),
            (Engine, "rollback_twophase", self._on_rollback),
            (Engine, "begin", self._on_begin),
            (Pool, "checkin", self._on_checkin),
        )
        for target, name, heard in self._listening:
            event.listen(target, name, heard)

    def close(self) -> None:
        """Hear nothing more."""
        for target, name, heard in self._listening:
            event.remove(target, name, heard)

    # What SQLAlchemy tells ------------------------------------------------------------------------------------

    def _on_row(self, mapper: Mapper[Any], connection: Connection, row: Any) -> None:
        """The ORM is about to write a row: remember whose it is, as the statement will name it by its id alone."""
        if getattr(mapper.local_table, "name", None) != MEMBERS:
            return
        try:
            row_ids, user_ids, project_ids = (
                _values(row, mapper, mapper.local_table.c[name]) for name in ("id", "user_id", "project_id")
            )
        except KeyError:  # somebody else's table of this name, or one whose columns the model leaves out
            return
        whose = {_Change(*pair) for pair in itertools.product(user_ids, project_ids)}
        for row_id in row_ids:
            self._transaction(connection).members.setdefault(str(row_id), set()).update(whose)

    def _on_statement(
        self, connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _executemany: bool
    ) -> None:
        if statement.lstrip("( \n\t").upper().startswith(_READS) and ";" not in statement:
            return
        written = {found[1].lower() for found in _WRITES.finditer(statement)}
        for truncated in _TRUNCATES.findall(statement):
            written.update(map(str.lower, _TABLES.findall(truncated)))
        if not written:
            return
        transaction = self._transaction(connection)
        for table in written:
            try:
                transaction.changes.update(_changes(table, statement.lower(), context, transaction.members))
            except Exception:  # it is the application's statement, and must not fail for us
                log.exception(
                    "a statement of the application is not understood", extra={"event": "statement_not_understood"}
                )
                transaction.changes.add(_EVERYONE)
        if _commits_by_itself(connection):
            transaction.committed = True
            if _is_idle(connection):
                self._announce_committed(connection.info)

    def _on_begin(self, connection: Connection) -> None:
        self._announce_committed(connection.info)

    def _on_commit(self, connection: Connection, *_: object) -> None:
        if transaction := connection.info.get(self):
            transaction.committed = True

    def _on_rollback(self, connection: Connection, *_: object) -> None:
        transaction = connection.info.get(self)
        if transaction is not None and not (transaction.committed and _commits_by_itself(connection)):
            del connection.info[self]

    def _on_checkin(self, _connection: Any, record: Any) -> None:
        self._announce_committed(record.info)

    # What comes of it -----------------------------------------------------------------------------------------

    def _transaction(self, connection: Connection) -> _Transaction:
        found: _Transaction = connection.info.setdefault(self, _Transaction())
        return found

    def _announce_committed(self, info: dict[Any, Any]) -> None:
        transaction: _Transaction | None = info.pop(self, None)
        if transaction is None or not transaction.committed:
            return
        changes = transaction.changes
        if _EVERYONE in changes or len(changes) > MANY:
            changes = {_EVERYONE}
        for change in changes:
            try:
                self._announce(change.user_id, change.project_id)
            except Exception:  # it is the application's transaction, and must not fail for us
                log.exception(
                    "a change of access was not announced",
                    extra={"event": "announcement_failed", "user": change.user_id, "project": change.project_id},
                )  # fmt: skip


def _changes(table: str, statement: str, context: Any, members: Mapping[str, set[_Change]]) -> Iterator[_Change]:
    """Whose access a statement, in lower case, changes that writes to this table."""
    # What is inserted takes no access away, but what it finds there in its place may.
    changed = statement.partition("do update")[2] if statement.lstrip().startswith("insert into") else statement
    if not re.search(rf"{_DECIDING[table]}|\b(?:delete|truncate|replace{_SPACE}into|or{_SPACE}replace)\b", changed):
        return
    for named in _named_rows(table, context):
        if table == USERS:
            yield from (_Change(user_id=user_id) for user_id in named.get("id", (None,)))
        elif table == PROJECTS:
            yield from (_Change(project_id=project_id) for project_id in named.get("id", (None,)))
        elif "id" in named and named["id"] <= members.keys():
            yield from (change for row_id in named["id"] for change in members[str(row_id)])
        else:
            none = frozenset([None])
            pairs = itertools.product(named.get("user_id", none), named.get("project_id", none))
            yield from (_Change(user_id, project_id) for user_id, project_id in pairs)


def _named_rows(table: str, context: Any) -> Iterator[Mapping[str, frozenset[Any]]]:
    """Which rows a statement is limited to: the columns that it compares with values, once for each set of parameters.

    Nothing is known of text, and of conditions that are no comparison with ``=`` or ``IN``.
    """
    compiled = getattr(context, "compiled", None)
    statement = getattr(compiled, "statement", None)
    if not isinstance(statement, Update | Delete) or getattr(statement.table, "name", None) != table:
        yield {}
        return
    for parameters in context.compiled_parameters or [{}]:
        named: dict[str, frozenset[Any]] = {}
        for condition in _conjuncts(statement.whereclause):
            column, values = _compared(condition, table, compiled, parameters)
            if column is not None and column not in named:
                named[column] = values
        yield named


def _conjuncts(condition: Any) -> Iterator[ColumnElement[Any]]:
    """The conditions all of which have to be true."""
    if isinstance(condition, Grouping):
        yield from _conjuncts(condition.element)
    elif isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for each in condition.clauses:
            yield from _conjuncts(each)
    elif condition is not None:
        yield condition


def _compared(
    condition: ColumnElement[Any], table: str, compiled: Any, parameters: Mapping[str, Any]
) -> tuple[str | None, frozenset[Any]]:
    """The column of the table that a condition compares with values, and the values; None where it does something else.

    A statement may name other tables too, whose columns have the same names.
    """
    if not isinstance(condition, BinaryExpression) or condition.operator not in (operators.eq, operators.in_op):
        return None, frozenset()
    column, value = condition.left, condition.right
    if not isinstance(column, Column) or not isinstance(value, BindParameter) or column.table.name != table:
        return None, frozenset()
    given = parameters.get(compiled.bind_names.get(value, value.key), value.value)
    values = given if condition.operator is operators.in_op else (given,)
    return column.name, frozenset(map(str, values))


def _values(row: Any, mapper: Mapper[Any], column: Any) -> Iterable[Any]:
    """What a column of a row is and what it was before the ORM writes it; with None where not all of that is known."""
    history = inspect(row).attrs[mapper.get_property_by_column(column).key].history
    known = {*history.unchanged, *history.deleted} or {None}
    return known | {*history.added}


def _commits_by_itself(connection: Connection) -> bool:
    """Whether every statement is a transaction of its own, as with ``AUTOCOMMIT``."""
    driver: Any = connection.connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection):
        return driver.isolation_level is None
    return getattr(driver, "autocommit", False) is True


def _is_idle(connection: Connection) -> bool:
    """Whether no transaction is under way, as far as the driver says: also one that was begun by a statement."""
    driver: Any = connection.connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection):
        return not driver.in_transaction
    return getattr(getattr(driver, "info", None), "transaction_status", None) == 0  # psycopg's, and libpq's
