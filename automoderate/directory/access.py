"""Who may see what, asked of the database: the checks behind every connection, join and re-check.

The calls block and are meant for worker threads; any number of them may run at once. An exception means that the
question could not be answered (database away, ...), never that the answer is no.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from sqlalchemy import and_, bindparam, exists, or_, select

from automoderate.core.hub import Access
from automoderate.directory.database import Database, storable
from automoderate.directory.sessions import SessionReader
from automoderate.directory.tables import Project, ProjectMember, User

logger = logging.getLogger("automoderate.directory")

CHUNK = 500
"""Ids named in one query; databases bound the number of parameters."""

_USER = select(User.id, User.is_active).where(User.id == bindparam("user"))

_IS_MEMBER = exists().where(ProjectMember.project_id == Project.id, ProjectMember.user_id == bindparam("user"))

# Starting from the user, a project that is gone leaves its columns empty, and its left-over member rows are not asked.
_ACCESS = (
    select(User.id, User.is_active, Project.id.label("project_id"), Project.user_id, _IS_MEMBER.label("is_member"))
    .select_from(User)
    .outerjoin(Project, Project.id == bindparam("project"))
    .where(User.id == bindparam("user"))
)

_ALLOWED = select(Project.id).where(
    and_(
        Project.id.in_(bindparam("projects", expanding=True)),
        or_(Project.user_id == bindparam("user"), _IS_MEMBER),
    )
)


class SQLDirectory:
    """Answers from the tables of ``database`` about the visitors whose sessions ``reader`` reads."""

    def __init__(self, database: Database, reader: SessionReader) -> None:
        self._database = database
        self._reader = reader

    def session_cookie(self, cookie: str | None) -> str | None:
        """The session cookie's value in a whole Cookie header; None where it is absent. Asks nobody."""
        return self._reader.session_cookie(cookie)

    def session_user(self, cookie: str | None) -> str | None:
        """The id of the user whom a Cookie header names; None where it names nobody.

        The signature is checked; whether the user exists or is active is not.
        """
        return self._reader.read(cookie).user_id

    def identify(self, cookie: str | None) -> str | None:
        """The id of the active user whom a Cookie header names, or None for everybody else.

        The log says why a visitor is nobody. It never gets the cookie.
        """
        visitor = self._reader.read(cookie)
        if visitor.user_id is None:
            logger.info("visitor is anonymous: %s", visitor.problem)
            return None
        with self._database.connect() as connection:
            user = connection.execute(_USER, {"user": visitor.user_id}).first()
        if user is None or user.id != visitor.user_id:
            logger.info("visitor is anonymous: unknown user %r", visitor.user_id)
            return None
        if not user.is_active:
            logger.info("visitor is anonymous: inactive user %r", visitor.user_id)
            return None
        return visitor.user_id

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether the user may see the project, in one query. Ids are compared exactly, whatever they contain."""
        if not storable(user_id):
            return Access.NO_USER
        # NULL equals nothing: the user is looked up all the same.
        parameters = {"user": user_id, "project": project_id if storable(project_id) else None}
        with self._database.connect() as connection:
            row = connection.execute(_ACCESS, parameters).first()
        # A column may compare without case, the ids do not: what was found is compared once more.
        if row is None or row.id != user_id or not row.is_active:
            return Access.NO_USER
        if row.project_id != project_id:
            return Access.NOT_FOUND
        return Access.GRANTED if row.user_id == user_id or row.is_member else Access.DENIED

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """Those of the projects, however many, that the user may see; None for an unknown or inactive user."""
        if not storable(user_id):
            return None
        asked = {project_id for project_id in project_ids if storable(project_id)}
        allowed: set[str] = set()
        with self._database.connect() as connection:
            user = connection.execute(_USER, {"user": user_id}).first()
            if user is None or user.id != user_id or not user.is_active:
                return None
            for chunk in _chunks(sorted(asked)):
                parameters = {"user": user_id, "projects": chunk}
                allowed.update(connection.execute(_ALLOWED, parameters).scalars())
        return frozenset(allowed & asked)


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]
