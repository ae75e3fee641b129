"""Which database a Flask application uses, whichever way it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, MetaData, String, Table, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from automoderate.directory.database import Database
from automoderate.integrations.flask_database import database_url


@pytest.fixture
def application(tmp_path: Path) -> flask.Flask:
    return flask.Flask("somebody elses", instance_path=str(tmp_path / "instance"))


def extended(application: flask.Flask, *, users: str | None = None) -> SQLAlchemy:
    """Give the application Flask-SQLAlchemy, with the table of users in the database with that key."""
    db = SQLAlchemy()
    metadata = db.metadatas.setdefault(users, MetaData())
    if users is None:
        metadata = db.metadata
    Table("users", metadata, Column("id", String, primary_key=True))
    db.init_app(application)
    return db


@pytest.mark.parametrize("with_extension", [True, False])
def test_a_relative_path_is_below_the_instance_folder(
    application: flask.Flask, tmp_path: Path, with_extension: bool
) -> None:
    application.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///site.db"
    if with_extension:
        extended(application)
    assert database_url(application) == make_url(f"sqlite:///{tmp_path}/instance/site.db")


@pytest.mark.parametrize("with_extension", [True, False])
def test_an_absolute_path_stays(application: flask.Flask, tmp_path: Path, with_extension: bool) -> None:
    application.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/site.db"
    if with_extension:
        extended(application)
    assert database_url(application) == make_url(f"sqlite:///{tmp_path}/site.db")


def test_an_application_may_say_nothing_of_a_database(application: flask.Flask) -> None:
    assert database_url(application) is None
    application.config["SQLALCHEMY_DATABASE_URI"] = ""
    assert database_url(application) is None


def test_of_several_databases_it_is_that_with_the_users(application: flask.Flask, tmp_path: Path) -> None:
    application.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/other.db", SQLALCHEMY_BINDS={"people": "sqlite:///people.db"}
    )
    extended(application, users="people")
    assert database_url(application) == make_url(f"sqlite:///{tmp_path}/instance/people.db")


def test_each_database_is_connected_to_with_arguments_of_its_own(application: flask.Flask, tmp_path: Path) -> None:
    application.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/other.db",
        SQLALCHEMY_ENGINE_OPTIONS={"connect_args": {"timeout": 30}},
        SQLALCHEMY_BINDS={"people": {"url": "sqlite:///people.db", "connect_args": {"timeout": 7}}},
    )
    extended(application, users="people")
    assert database_url(application) == make_url(f"sqlite:///{tmp_path}/instance/people.db?timeout=7")


class Lite:
    """What Flask-SQLAlchemy-Lite puts where Flask-SQLAlchemy puts itself: engines, of which one is called default."""

    def __init__(self, app: flask.Flask) -> None:
        app.extensions["sqlalchemy"] = self
        self.engines = {
            name: create_engine(engine["url"] if isinstance(engine, dict) else engine)
            for name, engine in app.config["SQLALCHEMY_ENGINES"].items()
        }


def test_so_it_is_with_flask_sqlalchemy_lite(application: flask.Flask) -> None:
    application.config["SQLALCHEMY_ENGINES"] = {"other": "sqlite:///other.db", "default": "sqlite:////srv/site.db"}
    Lite(application)
    assert database_url(application) == make_url("sqlite:////srv/site.db")
    application.config["SQLALCHEMY_ENGINES"]["default"] = {
        "url": "sqlite:////srv/site.db", "connect_args": {"timeout": 7},
    }  # fmt: skip
    Lite(application)
    assert database_url(application) == make_url("sqlite:////srv/site.db?timeout=7")


def test_what_is_configured_as_an_uri_of_sqlite_is_left_alone(application: flask.Flask) -> None:
    application.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///file:/srv/site.db?uri=true"
    assert Database(database_url(application) or "").path == Path("/srv/site.db")


@pytest.mark.parametrize("with_extension", [True, False])
def test_postgresql_is_connected_to_with_the_arguments_of_the_application(
    application: flask.Flask, with_extension: bool
) -> None:
    arguments: dict[str, Any] = {
        "sslmode": "verify-full", "connect_timeout": 3, "prepare_threshold": None, "application_name": None,
        "cursor_factory": object, "sslrootcert": "theirs.pem",
    }  # fmt: skip
    application.config.update(
        SQLALCHEMY_DATABASE_URI="postgresql+psycopg://ann:secret@db/x?sslrootcert=url.pem",
        SQLALCHEMY_ENGINE_OPTIONS={"connect_args": arguments, "pool_size": 5},
    )
    if with_extension:
        extended(application)
    url = database_url(application)
    assert url is not None
    assert url.password == "secret"
    assert url.query == {
        "sslmode": "verify-full", "connect_timeout": "3", "prepare_threshold": "none", "sslrootcert": "url.pem",
    }  # fmt: skip
    Database(url)


def test_sqlite_waits_for_writers_as_the_application_does(application: flask.Flask) -> None:
    application.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite:///site.db",
        SQLALCHEMY_ENGINE_OPTIONS={"connect_args": {"timeout": 30, "check_same_thread": False}},
    )
    url = database_url(application)
    assert url is not None
    assert url.query == {"timeout": "30"}


def test_what_is_no_url_is_an_error(application: flask.Flask) -> None:
    application.config["SQLALCHEMY_DATABASE_URI"] = "nonsense"
    with pytest.raises(ArgumentError):
        database_url(application)
