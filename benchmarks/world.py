"""Who takes part: a throw-away AutoModerate database, and cookies as its dashboard would have signed them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from sqlalchemy import insert

from automoderate.directory.database import Database
from automoderate.directory.tables import ApiKey, Project, ProjectMember, User

USERS = 1000
"""Sessions beyond that many are further sessions of the same users."""

SECRET_KEY = "signs the cookies of the benchmarks"  # of a database that holds nothing and lives for minutes
PING_INTERVAL = 600.0

TEMPLATE: dict[str, Any] = {
    "content_id": "7d3f1f0a-4c53-4f0e-9a55-0b8f6f0e2c11",
    "status": "rejected",
    "content_type": "text",
    "content_preview": (
        "Earn 5,000 a week from home!!! Write to me now and I will show you how it is done, step by step. Sen..."
    ),
    "meta_data": {"author": "user-4711", "source": "comments"},
    "results_count": 1,
    "processing_time": 0.012,
    "moderator_type": "rule",
    "moderator_name": "Rule",
    "rule_name": "Spam Detection",
    "timestamp": "2026-01-15T10:30:00+00:00",
}


def user_id(number: int) -> str:
    return f"00000000-0000-4000-a000-{number:012d}"


def project_id(number: int) -> str:
    """The id of project ``number``, which its last twelve digits say."""
    return f"00000000-0000-4000-8000-{number:012d}"


def api_key(number: int) -> str:
    """The key with which one publishes into project ``number``."""
    return f"am_benchmarks-{number:032d}"


@frozen
class Member:
    """One session to be: the number of its room, its project and its Cookie header."""

    room: int
    project_id: str
    cookie: str


@frozen
class World:
    """A database with a project for each room, and the files in ``folder`` that servers under test are started with."""

    folder: Path
    cookies: Sequence[str]
    """One for each user."""
    projects: int

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @classmethod
    def make(cls, folder: Path, layouts: Sequence[tuple[int, int]], database_url: str | None = None) -> World:
        """Make a world in which every layout, members and rooms, finds its members allowed.

        Its database is new: an SQLite file in ``folder``, unless a URL names another one that is empty.
        """
        projects = max((rooms for _, rooms in layouts), default=1) + 1
        world = cls(folder, [_cookie(user_id(number)) for number in range(USERS)], projects)
        database = Database(database_url or f"sqlite:///{folder}/world.sqlite3")
        try:
            world._fill(database, layouts)
        finally:
            database.close()
        config = {
            "database_url": database_url or str(database.url),
            "secret_key": SECRET_KEY,
            "projects": [project_id(number) for number in range(projects)],
            "template": TEMPLATE,
            "ping_interval": PING_INTERVAL,
            "port": 0,
            "recovery": False,
            "limits": "raised",
            "counting": False,
            "standby": False,
            "window": 0,
        }
        world.config.write_text(json.dumps(config))
        return world

    def members(self, members: int, rooms: int) -> list[Member]:
        """The sessions of a layout: neighbours in one room belong to different users and did not come together."""
        return [
            Member(number % rooms, project_id(number % rooms), self.cookies[number % USERS])
            for number in range(members)
        ]

    def probe(self) -> Member:
        """A session in a project of its own."""
        return Member(-1, project_id(self.projects - 1), self.cookies[0])

    def _fill(self, database: Database, layouts: Sequence[tuple[int, int]]) -> None:
        owner = user_id(USERS)
        users = [
            {"id": user_id(n), "username": f"user-{n}", "email": f"user-{n}@example.org", "is_active": True}
            for n in range(USERS + 1)
        ]
        projects = [{"id": project_id(n), "name": f"project {n}", "user_id": owner} for n in range(self.projects)]
        pairs = {(number % rooms, number % USERS) for members, rooms in layouts for number in range(members)}
        pairs.add((self.projects - 1, 0))
        memberships = [
            {"id": f"{room}-{user}", "project_id": project_id(room), "user_id": user_id(user), "role": "member"}
            for room, user in sorted(pairs)
        ]
        keys = [
            {"id": f"key-{n}", "key": api_key(n), "name": "benchmarks", "project_id": project_id(n), "is_active": True}
            for n in range(self.projects)
        ]
        database.create_all()
        with database.begin() as connection:
            connection.execute(insert(User), users)
            connection.execute(insert(Project), projects)
            connection.execute(insert(ProjectMember), memberships)
            connection.execute(insert(ApiKey), keys)


def _cookie(user: str) -> str:
    """The Cookie header of somebody logged in, signed by Flask's own session interface."""
    app = Flask("benchmarks", static_folder=None)
    app.secret_key = SECRET_KEY
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None, "there is a secret key"
    return f"session={serializer.dumps({'_user_id': user, '_fresh': True})}"


def changed(config: Path, **values: Any) -> Path:
    """The file for a server for which some things are to be different."""
    text = json.dumps(json.loads(config.read_text()) | values)
    path = config.with_name(f"config-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json")
    path.write_text(text)
    return path
