"""An application over a real database, with a real-time server that only notes what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from automoderate.dashboard import create_app
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.realtime import Realtime
from kits.dashboard_world import PASSWORD, SECRET_KEY, StubHandle, StubServer, World


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with people and projects, made once: hashing passwords is slow on purpose."""
    path = tmp_path_factory.mktemp("dashboard") / "template.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.create_all()
    users = [
        accounts.create_user(database, username=name, email=f"{name}@example.org", password=PASSWORD)
        for name in ("olga", "mia", "sam")
    ]
    project = accounts.create_project(database, name="Forum <b>&</b>", owner_id=users[0].id)
    accounts.create_project(database, name="Reviews", owner_id=users[0].id)
    accounts.add_member(database, project.id, users[1].id, "admin")
    accounts.create_api_key(database, project.id, "pipeline")
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture
def world(database_template: Path, tmp_path: Path) -> Iterator[World]:
    """The application over its own copy of that database, which it may only read."""
    path = tmp_path / "automoderate.sqlite3"
    path.write_bytes(database_template.read_bytes())
    writable = Database(f"sqlite:///{path}")
    reading = Database(f"sqlite:///{path}", read_only=True)
    realtime = Realtime()
    app = create_app(reading, realtime, secret_key=SECRET_KEY, content_url="/content/{content_id}?a=1&b=2")
    app.testing = True
    app.config["PROPAGATE_EXCEPTIONS"] = False
    projects = {project.name: project for project in accounts.list_projects(writable)}
    project = projects["Forum <b>&</b>"]
    world = World(
        app=app,
        database=writable,
        realtime=realtime,
        server=StubServer(),
        handle=StubHandle(),
        owner=accounts.find_user(writable, "olga"),
        member=accounts.find_user(writable, "mia"),
        stranger=accounts.find_user(writable, "sam"),
        project=project,
        other_project=projects["Reviews"],
        key=accounts.list_api_keys(writable, project.id)[0].key,
    )
    world.bind()
    yield world
    reading.close()
    writable.close()


@pytest.fixture
def client(world: World) -> FlaskClient:
    """A browser in which nobody has logged in."""
    return world.app.test_client()
