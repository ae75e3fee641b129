"""Who may see what: over a real database, also one that another application made."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import flask
import pytest
from attrs import frozen
from sqlalchemy import event, insert
from sqlalchemy.exc import SQLAlchemyError

from automoderate.core.hub import Access
from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.accounts import ProjectInfo, UserInfo
from automoderate.directory.database import Database
from automoderate.directory.sessions import SessionReader
from automoderate.directory.tables import Project

MakeApp = Callable[..., flask.Flask]
Login = Callable[[flask.Flask, str], str]
Tamper = Callable[..., None]


@frozen
class World:
    """What the database of a test holds."""

    database: Database
    owner: UserInfo
    member: UserInfo
    stranger: UserInfo
    project: ProjectInfo


@pytest.fixture
def world(database: Database) -> World:
    owner, member, stranger = (
        accounts.create_user(database, username=name, email=f"{name}@example.org", password=f"{name}'s password")
        for name in ("owner", "member", "stranger")
    )
    project = accounts.create_project(database, name="Forum", owner_id=owner.id)
    accounts.add_member(database, project.id, member.id)
    return World(database, owner, member, stranger, project)


@pytest.fixture
def directory(world: World, make_app: MakeApp) -> SQLDirectory:
    return SQLDirectory(world.database, SessionReader(make_app()))


@pytest.fixture
def asked(world: World) -> Iterator[list[tuple[str, Any]]]:
    """The statements sent to the database, as they are sent, with their parameters."""
    sent: list[tuple[str, Any]] = []

    def record(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        sent.append((statement, parameters))

    event.listen(world.database.engine, "before_cursor_execute", record)
    yield sent
    event.remove(world.database.engine, "before_cursor_execute", record)


def test_owner_and_member_may_see_a_project_and_nobody_else(
    world: World, directory: SQLDirectory, asked: list[tuple[str, Any]]
) -> None:
    project = world.project.id
    assert directory.check_access(world.owner.id, project) is Access.GRANTED
    assert directory.check_access(world.member.id, project) is Access.GRANTED
    assert directory.check_access(world.stranger.id, project) is Access.DENIED
    assert directory.check_access(world.owner.id, "no such project") is Access.NOT_FOUND
    assert directory.check_access("no such user", project) is Access.NO_USER
    assert directory.check_access("no such user", "no such project") is Access.NO_USER
    assert len(asked) == 6, "one query per check"


def test_the_members_of_all_projects_are_not_looked_through(
    world: World, directory: SQLDirectory, asked: list[tuple[str, Any]]
) -> None:
    directory.check_access(world.stranger.id, world.project.id)
    directory.recheck(world.stranger.id, [world.project.id])
    questions = tuple(asked)
    explain = "EXPLAIN QUERY PLAN" if world.database.path is not None else "EXPLAIN"
    with world.database.connect() as connection:
        if world.database.path is None:
            connection.exec_driver_sql("SET enable_seqscan = off")  # what PostgreSQL does with so few rows
        plans = [str(connection.exec_driver_sql(f"{explain} {text}", values).all()) for text, values in questions]
    about_members = [plan for plan in plans if "project_members" in plan]
    assert len(about_members) == 2
    for plan in about_members:
        assert "ix_project_members_user_id_project_id" in plan


@pytest.mark.parametrize("role", accounts.ROLES)
def test_every_role_may_see_the_project(world: World, directory: SQLDirectory, role: str) -> None:
    accounts.add_member(world.database, world.project.id, world.stranger.id, role)
    assert directory.check_access(world.stranger.id, world.project.id) is Access.GRANTED


def test_an_inactive_user_sees_nothing(world: World, directory: SQLDirectory) -> None:
    for user in (world.owner, world.member, world.stranger):
        accounts.set_active(world.database, user.id, False)
        assert directory.check_access(user.id, world.project.id) is Access.NO_USER
        assert directory.check_access(user.id, "no such project") is Access.NO_USER
        assert directory.recheck(user.id, [world.project.id]) is None
    accounts.set_active(world.database, world.member.id, True)
    assert directory.check_access(world.member.id, world.project.id) is Access.GRANTED


def test_left_over_members_of_a_removed_project_see_nothing(
    world: World, directory: SQLDirectory, tamper: Tamper
) -> None:
    tamper("DELETE FROM projects")
    with world.database.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM project_members").scalar() == 1
    assert directory.check_access(world.member.id, world.project.id) is Access.NOT_FOUND
    assert directory.recheck(world.member.id, [world.project.id]) == frozenset()


def strange_ids(project_id: str) -> list[str]:
    return [
        "", " ", "\0", f"{project_id}\0", f"\0{project_id}", project_id.upper(), f" {project_id}", f"{project_id} ",
        f"{project_id}\n", "' OR '1'='1", '"; DROP TABLE users; --', "%", "_" * 36, "😀" * 50, "x" * 100, "\ud83d",
        "é", "1", "NULL", "\u202e" + project_id,
    ]  # fmt: skip


def test_strange_ids_are_unknown_never_an_error(world: World, directory: SQLDirectory) -> None:
    assert world.project.id.upper() != world.project.id
    for strange in strange_ids(world.project.id):
        assert directory.check_access(world.owner.id, strange) is Access.NOT_FOUND, repr(strange)
        assert directory.recheck(world.owner.id, [strange, world.project.id]) == frozenset({world.project.id}), repr(
            strange
        )
    for strange in strange_ids(world.owner.id):
        assert directory.check_access(strange, world.project.id) is Access.NO_USER, repr(strange)
        assert directory.recheck(strange, [world.project.id]) is None, repr(strange)


def test_ids_are_compared_exactly_even_where_the_column_is_not(world: World, make_app: MakeApp, tamper: Tamper) -> None:
    if world.database.path is None:
        tamper("CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    tamper(
        "CREATE TABLE loose (id TEXT COLLATE NOCASE, name TEXT, user_id TEXT)",
        "INSERT INTO loose SELECT id, name, user_id FROM projects",
        "DROP TABLE projects" if world.database.path is not None else "DROP TABLE projects CASCADE",
        "ALTER TABLE loose RENAME TO projects",
    )
    with world.database.connect() as connection:
        upper = connection.exec_driver_sql(f"SELECT count(*) FROM projects WHERE id = '{world.project.id.upper()}'")
        assert upper.scalar() == 1, "the column finds it"
    directory = SQLDirectory(world.database, SessionReader(make_app()))
    assert directory.check_access(world.owner.id, world.project.id) is Access.GRANTED
    assert directory.check_access(world.owner.id, world.project.id.upper()) is Access.NOT_FOUND
    assert directory.recheck(world.owner.id, [world.project.id.upper()]) == frozenset()


def test_recheck_keeps_what_is_still_allowed(world: World, directory: SQLDirectory) -> None:
    other = accounts.create_project(world.database, name="Other", owner_id=world.stranger.id)
    both = [world.project.id, other.id, "gone", world.project.id]
    assert directory.recheck(world.owner.id, both) == frozenset({world.project.id})
    assert directory.recheck(world.member.id, both) == frozenset({world.project.id})
    assert directory.recheck(world.stranger.id, both) == frozenset({other.id})
    assert directory.recheck(world.stranger.id, []) == frozenset()
    assert directory.recheck("nobody", both) is None
    accounts.remove_member(world.database, world.project.id, world.member.id)
    assert directory.recheck(world.member.id, both) == frozenset()


@pytest.mark.parametrize("count", [50, 499, 500, 501, 3000])
def test_recheck_of_many_projects(
    world: World, directory: SQLDirectory, asked: list[tuple[str, Any]], count: int
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    rows = [(f"project-{number}", chance.choice([world.owner.id, world.stranger.id])) for number in range(count)]
    with world.database.begin() as connection:
        connection.execute(
            insert(Project), [{"id": project, "name": "many", "user_id": owner} for project, owner in rows]
        )
    asked.clear()
    expected = frozenset(project for project, owner in rows if owner == world.owner.id)
    assert directory.recheck(world.owner.id, [project for project, _ in rows]) == expected
    assert len(asked) == 1 + -(-count // 500)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_database_that_is_away_is_an_error_not_an_answer(world: World, directory: SQLDirectory) -> None:
    assert world.database.path is not None
    world.database.close()
    world.database.path.rename(world.database.path.with_suffix(".away"))
    with pytest.raises(SQLAlchemyError):
        directory.check_access(world.owner.id, world.project.id)
    with pytest.raises(SQLAlchemyError):
        directory.recheck(world.owner.id, [world.project.id])
    world.database.path.with_suffix(".away").rename(world.database.path)
    assert directory.check_access(world.owner.id, world.project.id) is Access.GRANTED


def test_identify_names_the_active_user_of_the_session(world: World, make_app: MakeApp, login: Login) -> None:
    directory = SQLDirectory(world.database, SessionReader(make_app()))
    cookie = login(make_app(), world.member.id)
    assert directory.identify(cookie) == world.member.id
    assert directory.session_user(cookie) == world.member.id
    assert directory.session_cookie(cookie) == cookie.partition("session=")[2]


def test_identify_logs_why_a_visitor_is_nobody_and_never_the_cookie(
    world: World, make_app: MakeApp, login: Login, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    accounts.set_active(world.database, world.stranger.id, False)
    directory = SQLDirectory(world.database, SessionReader(app))
    expired = SQLDirectory(world.database, SessionReader(make_app(PERMANENT_SESSION_LIFETIME=-1)))
    with caplog.at_level(logging.INFO, logger="automoderate.directory"):
        for asked, cookie, reason in (
            (directory, None, "no cookie"),
            (directory, login(make_app("another secret"), world.owner.id), "bad signature"),
            (directory, "session=nonsense", "bad signature"),
            (expired, login(app, world.owner.id), "expired"),
            (directory, login(app, ""), "no user in the session"),
            (directory, login(app, "nobody"), "unknown user 'nobody'"),
            (directory, login(app, world.owner.id.upper()), f"unknown user '{world.owner.id.upper()}'"),
            (directory, login(app, world.stranger.id), f"inactive user '{world.stranger.id}'"),
        ):
            caplog.clear()
            assert asked.identify(cookie) is None
            (record,) = caplog.records
            assert record.name == "automoderate.directory"
            assert record.levelname == "INFO"
            assert record.getMessage() == f"visitor is anonymous: {reason}"
            assert cookie is None or cookie.partition("session=")[2] not in caplog.text
    assert directory.session_user(login(app, world.stranger.id)) == world.stranger.id, "asks no database"


def test_a_user_without_a_word_on_being_active_is_not(world: World, directory: SQLDirectory, tamper: Tamper) -> None:
    tamper(f"UPDATE users SET is_active = NULL WHERE id = '{world.owner.id}'")
    assert directory.check_access(world.owner.id, world.project.id) is Access.NO_USER


SMALLEST = """
CREATE TABLE users (id TEXT, username TEXT, email TEXT, password_hash TEXT, is_active BOOLEAN, badge BLOB NOT NULL);
CREATE TABLE projects (id TEXT, name TEXT, user_id TEXT, colour TEXT);
CREATE TABLE project_members (id TEXT, project_id TEXT, user_id TEXT, role TEXT);
CREATE TABLE api_keys (id TEXT, key TEXT, name TEXT, project_id TEXT, is_active BOOLEAN, secret INTEGER);
INSERT INTO users VALUES ('u1', 'ann', 'ann@example.org', NULL, 1, x'00'), ('u2', 'bob', 'b@example.org', NULL, 1, '');
INSERT INTO projects VALUES ('p1', 'Forum', 'u1', 'red');
INSERT INTO api_keys VALUES ('k1', 'am_1', 'ci', 'p1', 1, 5), ('k2', 'am_2', 'old', 'p1', 0, 5);
"""


def test_serves_from_a_database_with_other_columns_than_ours(tmp_path: object, make_app: MakeApp, login: Login) -> None:
    path = f"{tmp_path}/existing.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SMALLEST)
    serving = Database(f"sqlite:///{path}", read_only=True)
    serving.check()
    directory = SQLDirectory(serving, SessionReader(make_app()))
    assert directory.identify(login(make_app(), "u1")) == "u1"
    assert directory.check_access("u1", "p1") is Access.GRANTED
    assert directory.check_access("u2", "p1") is Access.DENIED
    assert directory.recheck("u1", ["p1", "p2"]) == frozenset({"p1"})
    assert [project.name for project in accounts.projects_for(serving, "u1")] == ["Forum"]
    assert [key.name for key in accounts.list_api_keys(serving, "p1")] == ["ci", "old"]
    assert accounts.api_key(serving, "am_1") is not None
    assert accounts.api_key(serving, "am_2") is None

    administered = Database(f"sqlite:///{path}")
    accounts.add_member(administered, "p1", "u2")
    assert directory.check_access("u2", "p1") is Access.GRANTED
    assert [member.role for member in accounts.list_members(serving, "p1")] == ["owner", "member"]
    accounts.set_password(administered, "u1", "correct horse")
    assert accounts.authenticate(serving, "ann", "correct horse") is not None
    accounts.revoke_api_key(administered, "k1")
    assert accounts.api_key(serving, "am_1") is None
    key = accounts.create_api_key(administered, "p1", "new")
    assert accounts.api_key(serving, key.key) == key
    project = accounts.create_project(administered, name="Second", owner_id="u2", description="no column for this")
    assert directory.check_access("u2", project.id) is Access.GRANTED
    serving.close()
    administered.close()
