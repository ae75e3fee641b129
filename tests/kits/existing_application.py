"""An AutoModerate as people run it: Flask-SQLAlchemy, Flask-Login, settings in ``.env``, pages that change things.

It knows nothing of this server. A test copies this file as the package ``app`` beside a ``run.py``
(:mod:`kits.existing_site`), and ``automoderate serve --wsgi run:app`` imports it there.
"""

from __future__ import annotations

import logging
import logging.config
import os
import uuid
from collections.abc import Callable
from typing import Any

import flask
import flask_login
from dotenv import load_dotenv
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, String, delete, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from werkzeug.security import check_password_hash, generate_password_hash

load_dotenv()

PASSWORD = "correct horse"


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
pages = flask.Blueprint("pages", __name__)
log = logging.getLogger("app")


def new_id() -> str:
    return str(uuid.uuid4())


class Person(flask_login.UserMixin, Base):  # type: ignore[misc]
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(80), unique=True)
    email: Mapped[str] = mapped_column(String(120), unique=True)
    password_hash: Mapped[str | None] = mapped_column(String(255))
    active: Mapped[bool] = mapped_column("is_active", default=True)
    motto: Mapped[str | None] = mapped_column(String(80))


class Work(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100))
    owner_id: Mapped[str] = mapped_column("user_id", ForeignKey("users.id"))
    memberships: Mapped[list[Membership]] = relationship(cascade="all, delete-orphan", back_populates="work")


class Membership(Base):
    __tablename__ = "project_members"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    work_id: Mapped[str] = mapped_column("project_id", ForeignKey("projects.id"))
    person_id: Mapped[str] = mapped_column("user_id", ForeignKey("users.id"))
    role: Mapped[str | None] = mapped_column(String(20), default="member")
    work: Mapped[Work] = relationship(back_populates="memberships")


class Key(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    is_active: Mapped[bool | None] = mapped_column(default=True)


class Config:
    SECRET_KEY = os.environ.get("SECRET_KEY") or "a development key that everybody knows"
    SQLALCHEMY_DATABASE_URI = os.environ.get("DATABASE_URL") or "sqlite:///automoderate.db"


LOGGING = {
    "version": 1,
    "formatters": {"theirs": {"format": "THEIRS %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "theirs"}},
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {"app": {"level": "INFO"}},
}


def create_app(config_name: str = "default", *, database: str | None = None) -> flask.Flask:
    configured = os.environ.get("LOGGING")
    if configured == "dict":
        logging.config.dictConfig(LOGGING)
    elif configured == "off":
        logging.disable()
    elif configured:
        logging.config.fileConfig(configured)
    app = flask.Flask(__name__)
    app.config.from_object(Config)
    app.config["NAME"] = config_name
    if database is not None:
        app.config["SQLALCHEMY_DATABASE_URI"] = database
    if arguments := os.environ.get("CONNECT_ARGUMENTS"):
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": flask.json.loads(arguments)}
    db.init_app(app)
    manager = flask_login.LoginManager(app)
    manager.user_loader(lambda user_id: db.session.get(Person, user_id))
    app.register_blueprint(pages)
    with app.app_context():
        db.create_all()
        if db.session.query(Person).count() == 0:
            alice, bob = person("alice"), person("bob")
            db.session.add_all((alice, bob))
            db.session.flush()
            db.session.add(Work(id="P", name="Project", owner_id=alice.id, memberships=[Membership(person_id=bob.id)]))
            db.session.add(Work(id="Q", name="Other", owner_id=alice.id, memberships=[Membership(person_id=bob.id)]))
            db.session.add(Key(key="am_key", name="tests", project_id="P"))
            db.session.commit()
    log.warning("the application is configured")
    return app


def person(name: str) -> Person:
    return Person(
        username=name, email=f"{name}@example.org", password_hash=generate_password_hash(PASSWORD, "pbkdf2:sha256:1")
    )


@pages.get("/configuration")
def configuration() -> str:
    return str(flask.current_app.config["NAME"])


@pages.post("/auth/login")
def login() -> Any:
    person = db.session.query(Person).filter_by(username=flask.request.form["username"]).one()
    if not check_password_hash(person.password_hash or "", flask.request.form["password"]):
        return "wrong", 401
    flask_login.login_user(person)
    log.info("somebody logged in")
    return "welcome"


@pages.post("/crash")
def crash() -> str:
    raise RuntimeError("a page of the application fails")


# What its pages do to users, projects and members -------------------------------------------------------------


def bob() -> Person:
    return db.session.query(Person).filter_by(username="bob").one()


def membership() -> Membership:
    return db.session.query(Membership).filter_by(person_id=bob().id, work_id="P").one()


def project() -> Work:
    work = db.session.get(Work, "P")
    assert work is not None
    return work


def remove() -> None:
    db.session.delete(membership())


def remove_orphan() -> None:
    work = project()
    work.memberships.remove(membership())


def move() -> None:
    membership().work_id = "Q"


def hand_to_another() -> None:
    membership().person_id = project().owner_id


def remove_by_query() -> None:
    db.session.query(Membership).filter_by(person_id=bob().id, work_id="P").delete()


def remove_by_statement() -> None:
    db.session.execute(delete(Membership).where(Membership.work_id == "P", Membership.person_id.in_([bob().id])))


def remove_by_what_is_not_said() -> None:
    db.session.execute(delete(Membership).where(Membership.role.like("mem%")))


def remove_by_id() -> None:
    db.session.execute(delete(Membership).where(Membership.id == membership().id))


def remove_by_table() -> None:
    table = Membership.__table__
    with db.engine.begin() as connection:
        connection.execute(table.delete().where(table.c.project_id == "P"))  # type: ignore[attr-defined]


def remove_by_owner() -> None:
    owners = (Membership.work_id == Work.id, Work.owner_id == project().owner_id)
    statement = update(Membership).where(*owners).values(person_id=Work.owner_id)
    db.session.execute(statement, execution_options={"synchronize_session": False})


def remove_by_name_of_owner() -> None:
    owners = (Work.owner_id == Person.id, Person.id == project().owner_id)
    db.session.execute(
        update(Work).where(*owners).values(owner_id=bob().id), execution_options={"synchronize_session": False}
    )


def remove_by_text() -> None:
    db.session.execute(text("DELETE FROM project_members WHERE project_id = :work"), {"work": "P"})


def remove_on_its_own_connection() -> None:
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DELETE FROM project_members")


def remove_in_a_savepoint() -> None:
    with db.session.begin_nested():
        remove()
    db.session.flush()


def deactivate() -> None:
    bob().active = False


def deactivate_by_statement() -> None:
    db.session.execute(update(Person).where(Person.username == "bob").values(active=False))


def remove_project() -> None:
    db.session.query(Key).delete()
    db.session.delete(project())


def remove_person() -> None:
    person = bob()
    db.session.query(Membership).filter_by(person_id=person.id).delete()
    db.session.delete(person)


def change_the_motto() -> None:
    bob().motto = new_id()


def promote() -> None:
    membership().role = "admin"


def rename() -> None:
    project().name = "Renamed"


ACTIONS: dict[str, Callable[[], None]] = {
    action.__name__: action
    for action in (
        remove, remove_orphan, move, hand_to_another, remove_by_query, remove_by_statement, remove_by_what_is_not_said,
        remove_by_id, remove_by_table, remove_by_text, remove_on_its_own_connection, remove_in_a_savepoint,
        deactivate, deactivate_by_statement, remove_project, remove_person, change_the_motto, promote, rename,
    )
}  # fmt: skip


@pages.post("/do/<action>/<end>")
def do(action: str, end: str) -> str:
    ACTIONS[action]()
    db.session.flush()
    if end == "rollback":
        db.session.rollback()
    else:
        db.session.commit()
    return "done"
