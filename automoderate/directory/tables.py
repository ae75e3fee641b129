"""The tables of an AutoModerate database, as far as the real-time tier knows them.

Names, types and constraints are those of the existing application, so that either side can open a database that the
other one made, which may lack our index. A database in use may hold more columns than these and may lack some: a
query names the columns it needs and never selects whole rows. For the same reason no column has a default here, which
SQLAlchemy would write whether the column exists or not: :mod:`automoderate.directory.accounts` fills them in.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MAX_ID_LENGTH = 36
"""Width of every id column, in characters: that of a UUID's text."""


class Base(DeclarativeBase):
    """Holds the metadata of all tables."""


class User(Base):
    """A person who can log in."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)
    username: Mapped[str] = mapped_column(String(80), unique=True)
    email: Mapped[str] = mapped_column(String(120), unique=True)
    password_hash: Mapped[str | None] = mapped_column(String(255))
    google_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    is_admin: Mapped[bool | None]
    is_active: Mapped[bool | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]


class Project(Base):
    """What is moderated; ``user_id`` is its owner."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    is_active: Mapped[bool | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]


class ProjectMember(Base):
    """Who besides the owner may see a project; ``role`` is owner, admin or member."""

    __tablename__ = "project_members"
    # Every join asks for one row of all these.
    __table_args__ = (Index("ix_project_members_user_id_project_id", "user_id", "project_id"),)

    id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    role: Mapped[str | None] = mapped_column(String(20))
    joined_at: Mapped[datetime | None]


class ApiKey(Base):
    """What a program presents to publish into one project."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    is_active: Mapped[bool | None]
    last_used: Mapped[datetime | None]
    usage_count: Mapped[int | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]


REQUIRED_COLUMNS: dict[str, frozenset[str]] = {
    "users": frozenset({"id", "username", "email", "password_hash", "is_active"}),
    "projects": frozenset({"id", "name", "user_id"}),
    "project_members": frozenset({"id", "project_id", "user_id", "role"}),
    "api_keys": frozenset({"id", "key", "name", "project_id", "is_active"}),
}
"""Without these columns a database is not one we can serve from; every other column is optional."""

COMPARED_IDS: dict[str, frozenset[str]] = {
    "users": frozenset({"id"}),
    "projects": frozenset({"id", "user_id"}),
    "project_members": frozenset({"project_id", "user_id"}),
    "api_keys": frozenset({"project_id"}),
}
"""The columns that are compared with what sessions, clients and keys name, which is text. So they have to be text."""
