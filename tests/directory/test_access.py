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
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from sqlalchemy import event, insert

from automoderate._logs import LINES
from automoderate.core.hub import Access, Identity
from automoderate.directory import access, accounts
from automoderate.directory.access import CHUNK, SQLDirectory
from automoderate.directory.accounts import ProjectInfo, UserInfo
from automoderate.directory.database import Database, DatabaseUnavailable
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
        if not statement.startswith("BEGIN"):
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
    assert len(asked) == -(-(count + 1) // CHUNK)


def test_questions_that_wait_together_are_one_statement_and_answered_one_by_one(
    world: World, directory: SQLDirectory, asked: list[tuple[str, Any]], make_app: MakeApp, login: Login
) -> None:
    owner, member, stranger, project = world.owner.id, world.member.id, world.stranger.id, world.project.id
    strange = ["no such", "", "nul\0", "\ud800", "'\"\\", "\u00e9\U0001f600", "x" * 5000]
    pairs = [(owner, project), (stranger, project), (member, project), (owner, project.upper()), ("no such", project)]
    pairs += [(user_id, project) for user_id in strange] + [(owner, each) for each in strange]
    assert directory.check_access_many(pairs) == [
        Access.GRANTED, Access.DENIED, Access.GRANTED, Access.NOT_FOUND, Access.NO_USER,
        *[Access.NO_USER] * len(strange), *[Access.NOT_FOUND] * len(strange),
    ]  # fmt: skip
    assert directory.recheck_many(
        [(owner, (project, *strange)), (stranger, (project,)), (member, ()), ("no such", (project,)), ("nul\0", ())]
    ) == [{project}, set(), set(), None, None]
    assert len(asked) == 2
    cookies = [login(make_app(), user_id) for user_id in (owner, "no such", member)]
    asked.clear()
    found = directory.identify_many([None, *cookies, "session=forged", cookies[0]])
    users = [Identity(user.id, user.username) for user in (world.owner, world.member)]
    assert found == [None, users[0], None, users[1], None, users[0]]
    assert len(asked) == 1
    assert directory.identify_many([None]) == [None]
    assert len(asked) == 1, "no user is named"


def test_keys_are_looked_up_together_and_exactly_while_active(
    world: World, directory: SQLDirectory, asked: list[tuple[str, Any]], tamper: Tamper
) -> None:
    second = accounts.create_project(world.database, name="Second", owner_id=world.owner.id)
    keys = [
        accounts.create_api_key(world.database, project_id, "ci").key
        for project_id in (world.project.id, second.id, world.project.id)
    ]
    accounts.revoke_api_key(world.database, keys[2])
    asked.clear()
    wrong = [keys[0].upper(), keys[0] + " ", "", "am_", "\0", "\u00fc", "\ud800", "' OR 1=1 --"]
    expected = [world.project.id, second.id, None, *[None] * len(wrong), world.project.id]
    assert directory.key_projects_many([*keys, *wrong, keys[0]]) == expected
    assert len(asked) == 1
    assert directory.key_projects_many(["\0"]) == [None]
    tamper("DELETE FROM projects")
    assert directory.key_projects_many(keys) == [None, None, None]


def test_the_directory_gives_a_sign_of_life(directory: SQLDirectory) -> None:
    directory.ping()


def test_a_session_that_cannot_be_read_is_an_error_of_its_own(world: World, make_app: MakeApp, login: Login) -> None:
    class Store(SecureCookieSessionInterface):
        def open_session(self, app: flask.Flask, request: flask.Request) -> SecureCookieSession | None:
            if "broken" in request.headers["Cookie"]:
                raise OSError("the store is away")
            return super().open_session(app, request)

    app = make_app()
    cookie = login(app, world.owner.id)
    app.session_interface = Store()
    directory = SQLDirectory(world.database, SessionReader(app))
    broken, good = directory.identify_many([f"{cookie}; broken=1", cookie])
    assert isinstance(broken, OSError)
    assert good == Identity(world.owner.id, world.owner.username)
    with pytest.raises(OSError, match="the store is away"):
        directory.identify(f"{cookie}; broken=1")


def test_pairs_beyond_what_is_asked_at_a_time_keep_their_places(
    world: World, directory: SQLDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "CHUNK", 3)
    pairs = [(world.owner.id, world.project.id), (world.stranger.id, world.project.id), ("nobody", "nothing")] * 4
    answers = [Access.GRANTED, Access.DENIED, Access.NO_USER] * 4
    assert directory.check_access_many(pairs[1:]) == answers[1:]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_database_that_is_away_is_an_error_not_an_answer(world: World, directory: SQLDirectory) -> None:
    assert world.database.path is not None
    world.database.close()
    world.database.path.rename(world.database.path.with_suffix(".away"))
    with pytest.raises(DatabaseUnavailable):
        directory.check_access(world.owner.id, world.project.id)
    with pytest.raises(DatabaseUnavailable):
        directory.recheck(world.owner.id, [world.project.id])
    with pytest.raises(DatabaseUnavailable):
        directory.identify_many([None, "session=x"]) and directory.key_projects_many(["am_key"])
    with pytest.raises(DatabaseUnavailable):
        directory.ping()
    world.database.path.with_suffix(".away").rename(world.database.path)
    assert directory.check_access(world.owner.id, world.project.id) is Access.GRANTED


def test_identify_names_the_active_user_of_the_session(world: World, make_app: MakeApp, login: Login) -> None:
    directory = SQLDirectory(world.database, SessionReader(make_app()))
    cookie = login(make_app(), world.member.id)
    assert directory.identify(cookie) == Identity(world.member.id, world.member.username)
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


def test_visitors_who_are_nobody_do_not_fill_the_log(directory: SQLDirectory, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="automoderate.directory"):
        for number in range(3 * LINES):
            directory.identify_many([None, f"session=x{number}"])
    for reason in ("no cookie", "bad signature"):
        assert caplog.messages.count(f"visitor is anonymous: {reason}") == LINES


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
    assert directory.identify(login(make_app(), "u1")) == Identity("u1", "ann")
    assert directory.check_access("u1", "p1") is Access.GRANTED
    assert directory.check_access("u2", "p1") is Access.DENIED
    assert directory.recheck("u1", ["p1", "p2"]) == frozenset({"p1"})
    assert [project.name for project in accounts.projects_for(serving, "u1")] == ["Forum"]
    assert [key.name for key in accounts.list_api_keys(serving, "p1")] == ["ci", "old"]
    assert directory.key_projects_many(["am_1", "am_2"]) == ["p1", None]

    administered = Database(f"sqlite:///{path}")
    accounts.add_member(administered, "p1", "u2")
    assert directory.check_access("u2", "p1") is Access.GRANTED
    assert [member.role for member in accounts.list_members(serving, "p1")] == ["owner", "member"]
    accounts.set_password(administered, "u1", "correct horse")
    assert accounts.authenticate(serving, "ann", "correct horse") is not None
    assert accounts.revoke_api_key(administered, "k1") == "p1"
    assert directory.key_projects_many(["am_1"]) == [None]
    key = accounts.create_api_key(administered, "p1", "new")
    assert directory.key_projects_many([key.key]) == ["p1"]
    project = accounts.create_project(administered, name="Second", owner_id="u2", description="no column for this")
    assert directory.check_access("u2", project.id) is Access.GRANTED
    serving.close()
    administered.close()


def test_administrators_are_active_users_with_is_admin(world: World, directory: SQLDirectory, tamper: Tamper) -> None:
    admin = accounts.create_user(world.database, username="root", email="root@example.org", password="x", is_admin=True)
    asked = [admin.id, world.owner.id, "nobody", "\ud800", admin.id.upper(), admin.id]
    assert directory.admins_many(asked) == [True, False, False, False, False, True]
    assert [accounts.is_admin(world.database, user_id) for user_id in asked] == directory.admins_many(asked)
    tamper(f"UPDATE users SET is_admin = NULL WHERE id = '{admin.id}'")
    assert directory.admins_many([admin.id]) == [accounts.is_admin(world.database, admin.id)] == [False]
    tamper(f"UPDATE users SET is_admin = true WHERE id = '{admin.id}'")
    accounts.set_active(world.database, admin.id, False)
    assert directory.admins_many([admin.id]) == [accounts.is_admin(world.database, admin.id)] == [False]
    assert directory.admins_many([]) == []


def test_a_database_without_the_column_has_no_administrators(
    world: World, directory: SQLDirectory, tamper: Tamper
) -> None:
    tamper("ALTER TABLE users DROP COLUMN is_admin")
    assert directory.admins_many([world.owner.id]) == [False]
    assert not accounts.is_admin(world.database, world.owner.id)
