"""An empty database, SQLite's and PostgreSQL's, and a plain Flask application that signs cookies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_login
import pytest

from automoderate.directory.database import Database
from kits.postgresql_server import PostgreSQL

SECRET = "a secret that both applications know"


@pytest.fixture(scope="session")
def template(postgresql: PostgreSQL) -> str:
    """A database with tables and nothing in them, to copy: quicker than making them."""
    return postgresql.create_with_tables()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database; every test that has one runs with either kind."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/made here.sqlite3")
        database.create_all()
        yield database
        database.close()
        return
    postgresql, template = request.getfixturevalue("postgresql"), request.getfixturevalue("template")
    name = postgresql.create(template=template)
    database = Database(postgresql.url(name))
    yield database
    database.close()
    postgresql.drop(name)


Tamper = Callable[..., None]


@pytest.fixture
def tamper(database: Database) -> Tamper:
    """Executes statements as an application would that minds no constraint."""
    switch = "PRAGMA foreign_keys = OFF" if database.path is not None else "SET session_replication_role = replica"

    def execute(*statements: str) -> None:
        with database.begin() as connection:
            for statement in (switch, *statements):
                connection.exec_driver_sql(statement)
            connection.commit()
            connection.invalidate()  # the switch is not for others

    return execute


MakeApp = Callable[..., flask.Flask]
Login = Callable[[flask.Flask, str], str]


@pytest.fixture
def make_app() -> MakeApp:
    """Builds an application as a stranger would write it: Flask and Flask-Login, a route that logs anybody in."""

    def make(secret: str | None = SECRET, **config: Any) -> flask.Flask:
        app = flask.Flask("somebody elses")
        app.secret_key = secret
        app.config.update(config)
        manager = flask_login.LoginManager(app)
        manager.user_loader(lambda _: None)

        def login(user_id: str) -> str:
            user = flask_login.UserMixin()
            user.id = user_id
            flask_login.login_user(user)
            return "welcome"

        def visit() -> str:
            flask.session["seen"] = True
            return "hello"

        app.add_url_rule("/login/<user_id>", view_func=login)
        app.add_url_rule("/visit", view_func=visit)
        return app

    return make


@pytest.fixture
def login() -> Login:
    """Logs a user in over HTTP and returns the whole Cookie header a browser would then send."""

    def visit(app: flask.Flask, user_id: str) -> str:
        path = f"/login/{user_id}" if user_id else "/visit"
        client = app.test_client()
        response = client.get(path)
        assert response.status_code == 200
        cookies = [header.partition(";")[0] for header in response.headers.getlist("Set-Cookie")]
        return "; ".join(["theme=dark", *cookies])

    return visit
