"""Who may see what, asked of the database: the checks behind every connection, join and re-check.

The calls block and are meant for worker threads; any number of them may run at once. Questions that were waiting
together are one statement. An exception means that the question could not be answered, never that the answer is no:
DatabaseUnavailable where that is because of the database.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Select,
    String,
    TableValuedAlias,
    bindparam,
    cast,
    exists,
    func,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from automoderate._logs import Sparingly
from automoderate.core.hub import Access, Identity
from automoderate.directory.accounts import admins_among
from automoderate.directory.database import Database, DatabaseUnavailable
from automoderate.directory.sessions import SessionReader, SessionUser
from automoderate.directory.tables import ApiKey, Project, ProjectMember, User

T = TypeVar("T")

logger = logging.getLogger("automoderate.directory")

CHUNK = 2000
"""Pairs asked about in one statement."""

_Pair: TypeAlias = tuple[str, str | None]
"""A user's id and a project's; None where only the user is asked about."""

_KEYS = (
    select(ApiKey.key, ApiKey.project_id, ApiKey.is_active)
    .join(Project, Project.id == ApiKey.project_id)
    .where(ApiKey.key.in_(bindparam("keys", expanding=True)))
)

_USERS = select(User.id, User.username, User.is_active).where(User.id.in_(bindparam("users", expanding=True)))


def _access_query(
    asked: TableValuedAlias, user: ColumnElement[str], project: ColumnElement[str], number: ColumnElement[Any]
) -> Select[Any]:
    """What is to be known of each pair in ``asked``, looked up pair by pair in the indexes of the tables.

    A project that is gone leaves its columns empty, and its left-over member rows are not looked at.
    """
    is_member = exists().where(ProjectMember.project_id == Project.id, ProjectMember.user_id == User.id)
    columns = number, User.id, User.is_active, Project.id, Project.user_id, is_member
    query = select(*columns).select_from(asked)
    return query.outerjoin(User, User.id == user).outerjoin(Project, Project.id == project)


def _sqlite_query() -> Select[Any]:
    asked = func.json_each(bindparam("pairs")).table_valued("value").alias("asked")
    return _access_query(asked, *(func.json_extract(asked.c.value, f"$[{place}]") for place in range(3)))


def _postgresql_query() -> Select[Any]:
    pairs = cast(bindparam("pairs", type_=String), JSON)
    asked = func.json_array_elements(pairs).table_valued("value").alias("asked")
    return _access_query(asked, *(asked.c.value.op("->>")(place) for place in range(3)))


# The pairs are one parameter, in JSON: one statement for any number of them. For pairs in the statement itself SQLite
# would look through the whole table.
_ACCESS: Mapping[str, Select[Any]] = {"sqlite": _sqlite_query(), "postgresql": _postgresql_query()}


class SQLDirectory:
    """Answers from the tables of ``database`` about the visitors whose sessions ``reader`` reads."""

    def __init__(self, database: Database, reader: SessionReader) -> None:
        self._database = database
        self._reader = reader
        self._log = Sparingly(logger)

    def session_cookie(self, cookie: str | None) -> str | None:
        """The session cookie's value in a whole Cookie header; None where it is absent. Asks no database."""
        return self._reader.session_cookie(cookie)

    def session_user(self, cookie: str | None) -> str | None:
        """The id of the user whom a Cookie header names; None where it names no user.

        The signature is checked; whether the user exists or is active is not.
        """
        return self._reader.read(cookie).user_id

    def identify(self, cookie: str | None) -> Identity | None:
        """The active user whom a Cookie header names; None where it names none."""
        return _raised(self.identify_many((cookie,))[0])

    def identify_many(self, cookies: Sequence[str | None]) -> list[Identity | Exception | None]:
        """``identify`` of many, in one statement; an exception where a session cannot be read, with a store away, say.

        The log says why a visitor counts as anonymous, though not of each in a flood. It never gets the cookie.
        """
        visitors = self._reader.read_many(cookies)
        named = {visitor.user_id for visitor in visitors if isinstance(visitor, SessionUser) and visitor.user_id}
        found: dict[str, Identity | None] = {}
        if named:
            with self._asking() as connection:
                rows = connection.execute(_USERS, {"users": _padded(named)})
                found = {row.id: Identity(row.id, row.username or row.id) if row.is_active else None for row in rows}
        return [visitor if isinstance(visitor, Exception) else self._known(visitor, found) for visitor in visitors]

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether the user may see the project."""
        return self.check_access_many(((user_id, project_id),))[0]

    def check_access_many(self, pairs: Sequence[tuple[str, str]]) -> list[Access]:
        """``check_access`` of many, in one statement for each ``CHUNK`` of them."""
        return list(self._look_up(pairs))

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """Which of the projects the user may see; None for an unknown or inactive user."""
        return self.recheck_many(((user_id, tuple(project_ids)),))[0]

    def recheck_many(self, questions: Sequence[tuple[str, tuple[str, ...]]]) -> list[frozenset[str] | None]:
        """``recheck`` of many, in one statement for each ``CHUNK`` of projects."""
        pairs = [(user_id, project_id) for user_id, project_ids in questions for project_id in (None, *project_ids)]
        answers = self._look_up(pairs)
        allowed: list[frozenset[str] | None] = []
        for _, project_ids in questions:
            known = next(answers) is not Access.NO_USER
            granted = [project_id for project_id in project_ids if next(answers) is Access.GRANTED]
            allowed.append(frozenset(granted) if known else None)
        return allowed

    def key_projects_many(self, keys: Sequence[str]) -> list[str | None]:
        """The project that each API key may publish to, in one statement; None for a key that is not active.

        Keys are compared exactly, letter for letter. The project exists.
        """
        found: dict[str, str] = {}
        with self._asking() as connection:
            wanted = [key for key in keys if self._database.storable(key)]
            if wanted:
                rows = connection.execute(_KEYS, {"keys": _padded(wanted)})
                found = {row.key: row.project_id for row in rows if row.is_active}
        return [found.get(key) for key in keys]

    def admins_many(self, user_ids: Sequence[str]) -> list[bool]:
        """Whether each is an active user with ``is_admin``, in one statement; none where there is no such column."""
        wanted = [user_id for user_id in user_ids if self._database.storable(user_id)]
        with self._asking() as connection:
            found = admins_among(self._database, connection, _padded(wanted))
        return [user_id in found for user_id in user_ids]

    def ping(self) -> None:
        """Ask the database for a sign of life. Raises DatabaseUnavailable."""
        self._database.ping()

    def _known(self, visitor: SessionUser, found: Mapping[str, Identity | None]) -> Identity | None:
        """Who the visitor is, where that is an active user; else the log says why not."""
        user_id, problem = visitor.user_id, visitor.problem
        if user_id is None:
            self._log.log(
                logging.INFO, "visitor is anonymous: %s", problem, extra={"event": "anonymous", "reason": problem}
            )
            return None
        identity = found.get(user_id)
        if identity is None:
            problem = "inactive user" if user_id in found else "unknown user"
            self._log.log(
                logging.INFO, "visitor is anonymous: %s %r", problem, user_id,
                extra={"event": "anonymous", "user": user_id, "reason": problem},
            )  # fmt: skip
        return identity

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Connection]:
        try:
            with self._database.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(self._database.explain(error)) from error

    def _look_up(self, pairs: Sequence[_Pair]) -> Iterator[Access]:
        """The access of each pair, in their order."""
        found: dict[int, Access] = {}
        with self._asking() as connection:
            query = _ACCESS[connection.dialect.name]
            for start in range(0, len(pairs), CHUNK):
                asked = [
                    # NULL equals nothing: of a project that no database can hold, the user is looked up all the same.
                    (self._storable(user_id), self._storable(project_id), number)
                    for number, (user_id, project_id) in enumerate(pairs[start : start + CHUNK], start)
                ]
                for number, *row in connection.execute(query, {"pairs": json.dumps(asked, ensure_ascii=False)}):
                    found[int(number)] = _access(pairs[int(number)], *row)
        return (found[number] for number in range(len(pairs)))

    def _storable(self, text: str | None) -> str | None:
        """The text, None where the database could not hold it: what it could not hold, it need not be asked for."""
        return text if text is not None and self._database.storable(text) else None


def _access(
    pair: _Pair, user_id: str | None, is_active: bool | None, project_id: str | None, owner: str | None, is_member: bool
) -> Access:
    # A column may compare without case, the ids do not: what was found is compared once more.
    if user_id != pair[0] or not is_active:
        return Access.NO_USER
    if project_id != pair[1]:
        return Access.NOT_FOUND
    return Access.GRANTED if owner == user_id or is_member else Access.DENIED


def _padded(values: Collection[T]) -> list[T]:
    """The values, some of them repeated: so that there are few different statements for a database to prepare."""
    padded = list(values)
    wanted = 1 << max(0, len(padded) - 1).bit_length()
    return padded + padded[:1] * (wanted - len(padded)) if padded else []


def _raised(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer
