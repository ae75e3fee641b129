"""Users, projects, members and API keys: what the dashboard reads and what administration changes.

Every function opens its own connection, so it may be called from any thread. Functions that change something raise
:exc:`~automoderate.directory.database.ReadOnlyDatabase` on a database that was opened for reading only. Ids, names and
keys are compared exactly, letter for letter.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from attrs import frozen
from sqlalchemy import Connection, Table, bindparam, delete, insert, inspect, or_, select, update
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash

from automoderate.directory.database import Database, storable
from automoderate.directory.tables import ApiKey, Base, Project, ProjectMember, User

ROLES = ("member", "admin", "owner")
"""What a member of a project can be; all of them see the same updates."""


class NotFound(LookupError):
    """There is no such user, project, member or key; the message names it."""


class Conflict(ValueError):
    """The change contradicts what is there, such as a name that is taken; the message says with what."""


_ADMINS = select(User.id, User.is_admin, User.is_active).where(User.id.in_(bindparam("users", expanding=True)))


@frozen
class UserInfo:
    """One user."""

    id: str
    username: str
    email: str
    is_active: bool


@frozen
class ProjectInfo:
    """One project; ``role`` is that of the user one asked for: owner, admin or member ("" where none was named)."""

    id: str
    name: str
    owner_id: str
    role: str = ""


@frozen
class MemberInfo:
    """One user who may see a project, the owner included."""

    user_id: str
    username: str
    email: str
    role: str


@frozen
class ApiKeyInfo:
    """One API key; ``key`` is the secret itself."""

    id: str
    key: str
    name: str
    project_id: str
    is_active: bool


# Users --------------------------------------------------------------------------------------------------------


def get_user(database: Database, user_id: str) -> UserInfo | None:
    """The user with this id, active or not; None if there is none."""
    return _user(database, User.id == user_id) if database.storable(user_id) else None


def is_admin(database: Database, user_id: str) -> bool:
    """Whether this is an active user with ``is_admin``; False where a database has no such column."""
    if not database.storable(user_id):
        return False
    with database.connect() as connection:
        return user_id in admins_among(database, connection, [user_id])


def admins_among(database: Database, connection: Connection, user_ids: Collection[str]) -> set[str]:
    """Which of the users are active and have ``is_admin``; none where the database has no such column.

    The ids are ``storable``.
    """
    if not user_ids or not database.knows_admins(connection):
        return set()
    rows = connection.execute(_ADMINS, {"users": list(user_ids)})
    return {row.id for row in rows if row.is_active and row.is_admin}


def find_user(database: Database, name: str) -> UserInfo:
    """The user whose id, username or email this is. Raises :exc:`NotFound`."""
    this_one = or_(User.id == name, User.username == name, User.email == name)
    user = _user(database, this_one) if database.storable(name) else None
    if user is None:
        raise NotFound(f"no such user: {name}")
    return user


def list_users(database: Database) -> list[UserInfo]:
    """All users by username."""
    with database.connect() as connection:
        return [_user_info(row) for row in connection.execute(_users().order_by(User.username))]


def authenticate(database: Database, name: str, password: str) -> UserInfo | None:
    """The active user with this username or email and password, or None.

    Takes as long for a user who does not exist as for a wrong password, so that it does not tell who has an account.
    """
    found: Any = None
    if database.storable(name):
        query = select(User.id, User.username, User.email, User.is_active, User.password_hash)
        with database.connect() as connection:
            rows = connection.execute(query.where(or_(User.username == name, User.email == name))).all()
        # Somebody may have taken another person's address as a username: the address is whose it is.
        found = max(rows, key=lambda row: bool(row.email == name), default=None)
    stored = found.password_hash if found is not None else None
    correct = check_password_hash(stored or _hash_of_no_user(), password)
    if not correct or not stored or not found.is_active:
        return None
    return _user_info(found)


def create_user(database: Database, *, username: str, email: str, password: str, is_admin: bool = False) -> UserInfo:
    """Add an active user. Raises :exc:`Conflict` if the name or address is taken, :exc:`ValueError` if one is unfit."""
    _fit("username", username, 80)
    _fit("email", email, 120)
    _fit("password", password, 1000)
    info = UserInfo(id=_new_id(), username=username, email=email, is_active=True)
    row = {
        "id": info.id, "username": username, "email": email, "password_hash": generate_password_hash(password),
        "is_admin": is_admin, "is_active": True, **_stamps("created_at", "updated_at"),
    }  # fmt: skip
    with database.begin() as connection:
        taken = or_(User.username.in_((username, email)), User.email.in_((username, email)))
        if connection.execute(select(User.id).where(taken)).first() is not None:
            raise Conflict(f"a user with the name {username} or the address {email} exists already")
        _insert(connection, User, row)
    return info


def set_password(database: Database, user_id: str, password: str) -> None:
    """Replace a user's password. Raises :exc:`NotFound`."""
    _fit("password", password, 1000)
    _update_user(database, user_id, {"password_hash": generate_password_hash(password)})


def set_active(database: Database, user_id: str, active: bool) -> None:
    """Let a user in again, or lock the user out without removing anything. Raises :exc:`NotFound`."""
    _update_user(database, user_id, {"is_active": active})


def remove_user(database: Database, user_id: str) -> None:
    """Remove a user and the user's memberships.

    Raises :exc:`NotFound`, and :exc:`Conflict` while the user owns a project or other records refer to the user.
    """
    with database.begin() as connection:
        owned = connection.execute(select(Project.name).where(Project.user_id == user_id)).scalars().all()
        if owned:
            raise Conflict(f"the user owns {len(owned)} project(s), remove them first: {', '.join(owned)}")
        connection.execute(delete(ProjectMember).where(ProjectMember.user_id == user_id))
        _delete(connection, User, user_id, "user")


# Projects and members -----------------------------------------------------------------------------------------


def get_project(database: Database, project_id: str) -> ProjectInfo | None:
    """The project with this id, or None."""
    if not database.storable(project_id):
        return None
    with database.connect() as connection:
        row = connection.execute(_projects().where(Project.id == project_id)).first()
    return None if row is None else ProjectInfo(row.id, row.name, row.user_id)


def find_project(database: Database, name: str) -> ProjectInfo:
    """The project whose id this is, or whose name if only one has it. Raises :exc:`NotFound` and :exc:`Conflict`."""
    rows: Sequence[Any] = ()
    if database.storable(name):
        with database.connect() as connection:
            rows = connection.execute(_projects().where(or_(Project.id == name, Project.name == name))).all()
    found = [row for row in rows if row.id == name] or rows
    if not found:
        raise NotFound(f"no such project: {name}")
    if len(found) > 1:
        raise Conflict(f"{len(found)} projects have the name {name}; give the id: {', '.join(row.id for row in found)}")
    return ProjectInfo(found[0].id, found[0].name, found[0].user_id)


def list_projects(database: Database) -> list[ProjectInfo]:
    """All projects by name."""
    with database.connect() as connection:
        rows = connection.execute(_projects().order_by(Project.name, Project.id))
        return [ProjectInfo(row.id, row.name, row.user_id) for row in rows]


def projects_for(database: Database, user_id: str) -> list[ProjectInfo]:
    """The projects that the user may see, as owner or member, by name. Says nothing of whether the user is active."""
    if not database.storable(user_id):
        return []
    mine = (ProjectMember.project_id == Project.id) & (ProjectMember.user_id == user_id)
    query = (
        select(Project.id, Project.name, Project.user_id, ProjectMember.role)
        .outerjoin(ProjectMember, mine)
        .where(or_(Project.user_id == user_id, ProjectMember.user_id == user_id))
        .order_by(Project.name, Project.id)
    )
    projects: dict[str, ProjectInfo] = {}  # a member who was added twice has two rows
    with database.connect() as connection:
        for row in connection.execute(query):
            role = "owner" if row.user_id == user_id else row.role or "member"
            projects.setdefault(row.id, ProjectInfo(row.id, row.name, row.user_id, role))
    return list(projects.values())


def create_project(database: Database, *, name: str, owner_id: str, description: str = "") -> ProjectInfo:
    """Add a project owned by that user. Raises :exc:`NotFound` for an unknown owner."""
    _fit("project name", name, 100)
    info = ProjectInfo(id=_new_id(), name=name, owner_id=owner_id, role="owner")
    row = {
        "id": info.id, "name": name, "description": description, "user_id": owner_id, "is_active": True,
        **_stamps("created_at", "updated_at"),
    }  # fmt: skip
    with database.begin() as connection:
        _require(database, connection, User, owner_id, "user")
        _insert(connection, Project, row)
    return info


def remove_project(database: Database, project_id: str) -> None:
    """Remove a project, its members and its API keys.

    Raises :exc:`NotFound`, and :exc:`Conflict` while other records, such as moderated content, refer to it.
    """
    with database.begin() as connection:
        connection.execute(delete(ProjectMember).where(ProjectMember.project_id == project_id))
        connection.execute(delete(ApiKey).where(ApiKey.project_id == project_id))
        _delete(connection, Project, project_id, "project")


def list_members(database: Database, project_id: str) -> list[MemberInfo]:
    """Who may see a project: the owner first, then its members by username. Raises :exc:`NotFound`."""
    columns = (User.id, User.username, User.email)
    with database.connect() as connection:
        _require(database, connection, Project, project_id, "project")
        owners = select(*columns).join(Project, Project.user_id == User.id).where(Project.id == project_id)
        members = (
            select(*columns, ProjectMember.role)
            .join(ProjectMember, ProjectMember.user_id == User.id)
            .where(ProjectMember.project_id == project_id)
            .order_by(User.username)
        )
        found = [MemberInfo(row.id, row.username, row.email, "owner") for row in connection.execute(owners)]
        for row in connection.execute(members):
            if row.id not in {member.user_id for member in found}:
                found.append(MemberInfo(row.id, row.username, row.email, row.role or "member"))
        return found


def add_member(database: Database, project_id: str, user_id: str, role: str = "member") -> None:
    """Let a user see a project; a member already there gets the role.

    Raises :exc:`NotFound`, :exc:`ValueError` for a role that is none of :data:`ROLES`.
    """
    if role not in ROLES:
        raise ValueError(f"no such role: {role}; it is one of {', '.join(ROLES)}")
    membership = (ProjectMember.project_id == project_id) & (ProjectMember.user_id == user_id)
    row = {
        "id": _new_id(), "project_id": project_id, "user_id": user_id, "role": role, **_stamps("joined_at")
    }  # fmt: skip
    with database.begin() as connection:
        _require(database, connection, Project, project_id, "project")
        _require(database, connection, User, user_id, "user")
        if connection.execute(update(ProjectMember).where(membership).values(role=role)).rowcount == 0:
            _insert(connection, ProjectMember, row)


def remove_member(database: Database, project_id: str, user_id: str) -> None:
    """Take a member's access to a project away.

    Raises :exc:`NotFound` for somebody who is no member, :exc:`Conflict` for the owner, who would still see it.
    """
    membership = (ProjectMember.project_id == project_id) & (ProjectMember.user_id == user_id)
    with database.begin() as connection:
        owner = connection.execute(select(Project.user_id).where(Project.id == project_id)).scalar()
        if owner is None:
            raise NotFound(f"no such project: {project_id}")
        if owner == user_id:
            raise Conflict("the user owns the project and cannot be removed from it")
        if connection.execute(delete(ProjectMember).where(membership)).rowcount == 0:
            raise NotFound(f"the user is no member of project {project_id}")


# API keys -----------------------------------------------------------------------------------------------------


def list_api_keys(database: Database, project_id: str) -> list[ApiKeyInfo]:
    """A project's API keys by name, revoked ones included. Raises :exc:`NotFound`."""
    query = _api_keys().where(ApiKey.project_id == project_id).order_by(ApiKey.name, ApiKey.id)
    with database.connect() as connection:
        _require(database, connection, Project, project_id, "project")
        return [_api_key_info(row) for row in connection.execute(query)]


def create_api_key(database: Database, project_id: str, name: str) -> ApiKeyInfo:
    """Add an active API key, ``am_`` and 43 random characters, to a project. Raises :exc:`NotFound`."""
    _fit("key name", name, 100)
    info = ApiKeyInfo(
        id=_new_id(), key=f"am_{secrets.token_urlsafe(32)}", name=name, project_id=project_id, is_active=True
    )
    row = {
        "id": info.id, "key": info.key, "name": name, "project_id": project_id, "is_active": True,
        "usage_count": 0, **_stamps("created_at", "updated_at"),
    }  # fmt: skip
    with database.begin() as connection:
        _require(database, connection, Project, project_id, "project")
        _insert(connection, ApiKey, row)
    return info


def revoke_api_key(database: Database, key: str) -> str:
    """Make an API key, named by its id or by itself, worthless without removing it; returns its project's id.

    Raises :exc:`NotFound`.
    """
    with database.begin() as connection:
        project_id = _project_of_key(database, connection, key)
        values = _present(connection, ApiKey, {"is_active": False, **_stamps("updated_at")})
        connection.execute(update(ApiKey).where(_named_key(key)).values(values))
    return project_id


def remove_api_key(database: Database, key: str) -> str:
    """Remove an API key, named by its id or by itself; returns its project's id. Raises :exc:`NotFound`."""
    with database.begin() as connection:
        project_id = _project_of_key(database, connection, key)
        connection.execute(delete(ApiKey).where(_named_key(key)))
    return project_id


# Shared -------------------------------------------------------------------------------------------------------


def _users() -> Any:
    return select(User.id, User.username, User.email, User.is_active)


def _projects() -> Any:
    return select(Project.id, Project.name, Project.user_id)


def _api_keys() -> Any:
    return select(ApiKey.id, ApiKey.key, ApiKey.name, ApiKey.project_id, ApiKey.is_active)


def _user(database: Database, condition: Any) -> UserInfo | None:
    with database.connect() as connection:
        row = connection.execute(_users().where(condition)).first()
    return None if row is None else _user_info(row)


def _user_info(row: Any) -> UserInfo:
    return UserInfo(row.id, row.username, row.email, bool(row.is_active))


def _api_key_info(row: Any) -> ApiKeyInfo:
    return ApiKeyInfo(row.id, row.key, row.name, row.project_id, bool(row.is_active))


def _project_of_key(database: Database, connection: Connection, key: str) -> str:
    query = select(ApiKey.project_id).where(_named_key(key))
    project_id: str | None = connection.execute(query).scalar() if database.storable(key) else None
    if project_id is None:
        raise NotFound("no such API key")
    return project_id


def _named_key(key: str) -> Any:
    return or_(ApiKey.id == key, ApiKey.key == key)


def _require(database: Database, connection: Connection, table: type[User | Project], row_id: str, what: str) -> None:
    if not database.storable(row_id) or connection.execute(select(table.id).where(table.id == row_id)).first() is None:
        raise NotFound(f"no such {what}: {row_id}")


def _delete(connection: Connection, table: type[User | Project], row_id: str, what: str) -> None:
    try:
        removed = connection.execute(delete(table).where(table.id == row_id)).rowcount
    except IntegrityError as error:
        raise Conflict(f"other records still refer to the {what}; remove it where they belong") from error
    if removed == 0:
        raise NotFound(f"no such {what}: {row_id}")


def _update_user(database: Database, user_id: str, values: Mapping[str, Any]) -> None:
    with database.begin() as connection:
        values = _present(connection, User, {**values, **_stamps("updated_at")})
        if connection.execute(update(User).where(User.id == user_id).values(values)).rowcount == 0:
            raise NotFound(f"no such user: {user_id}")


def _insert(connection: Connection, table: type[Base], row: Mapping[str, Any]) -> None:
    connection.execute(insert(_table(table)).values(_present(connection, table, row)))


def _present(connection: Connection, table: type[Base], row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a row for which this database, perhaps made by another version, has columns."""
    names = {column["name"] for column in inspect(connection).get_columns(_table(table).name)}
    return {name: value for name, value in row.items() if name in names}


def _table(table: type[Base]) -> Table:
    found = table.__table__
    assert isinstance(found, Table)
    return found


def _stamps(*columns: str) -> dict[str, datetime]:
    """The current time for each column, as the tables store it: UTC without a time zone."""
    return dict.fromkeys(columns, datetime.now(UTC).replace(tzinfo=None))


def _new_id() -> str:
    return str(uuid.uuid4())


def _fit(what: str, value: str, limit: int) -> None:
    if not value.strip():
        raise ValueError(f"the {what} must not be empty")
    if len(value) > limit:
        raise ValueError(f"the {what} must not be longer than {limit} characters")
    if not storable(value):
        raise ValueError(f"the {what} contains a character that no database can store")


@cache
def _hash_of_no_user() -> str:
    """A hash that no password matches in practice, to spend the time of a check on unknown users."""
    return generate_password_hash(secrets.token_hex(16))
