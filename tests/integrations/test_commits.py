"""What an application commits with its own models is heard as it commits it, and nothing else is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import flask
import pytest
from sqlalchemy import text

from automoderate.integrations.commits import MANY, CommitListener
from kits import existing_application as existing
from kits.existing_application import Key, Membership, Person, Work, db

Pairs = set[tuple[str | None, str | None]]
EVERYONE: Pairs = {(None, None)}
UPSERT = (
    "INSERT INTO users (id, username, email, is_active) SELECT id, username, email, true FROM users WHERE true "
    "ON CONFLICT (id)"
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def application(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[flask.Flask]:
    """The application over a database of either kind, empty but for the tables."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('site')}/site.db"
    else:
        server = request.getfixturevalue("postgresql")
        url = server.url(server.create()).replace("postgresql:", "postgresql+psycopg:")
    with mock.patch.dict(os.environ), mock.patch.object(existing, "db", db):
        os.environ.pop("LOGGING", None)
        application = flask.Flask("existing", instance_path=str(Path("/nowhere")))
        application.config.update(SECRET_KEY="any", SQLALCHEMY_DATABASE_URI=url)
        db.init_app(application)
    with application.app_context():
        db.create_all()
        yield application
        db.session.remove()
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def bob(application: flask.Flask) -> str:
    """Bob's id; he is a member of the projects P and Q of alice's. Nothing else is there."""
    assert application
    for model in (Key, Membership, Work, Person):
        db.session.query(model).delete()
    alice, bob = existing.person("alice"), existing.person("bob")
    db.session.add_all((alice, bob))
    db.session.flush()
    for work in ("P", "Q"):
        db.session.add(Work(id=work, name=work, owner_id=alice.id, memberships=[Membership(person_id=bob.id)]))
    db.session.commit()
    return bob.id


@pytest.fixture
def heard(bob: str) -> Iterator[Pairs]:
    """Whose access was announced to have changed so far, and to what."""
    assert bob
    pairs: Pairs = set()
    listener = CommitListener(lambda user_id, project_id: pairs.add((user_id, project_id)))
    yield pairs
    listener.close()
    db.session.rollback()


def alice() -> str:
    return db.session.query(Person).filter_by(username="alice").one().id


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (existing.remove, lambda bob: {(bob, "P")}),
        (existing.remove_orphan, lambda bob: {(bob, "P")}),
        (existing.move, lambda bob: {(bob, "P"), (bob, "Q")}),
        (existing.hand_to_another, lambda bob: {(bob, "P"), (alice(), "P")}),
        (existing.remove_by_query, lambda bob: {(bob, "P")}),
        (existing.remove_by_statement, lambda bob: {(bob, "P")}),
        (existing.remove_by_what_is_not_said, lambda _: EVERYONE),
        (existing.remove_by_id, lambda _: EVERYONE),
        (existing.remove_by_table, lambda _: {(None, "P")}),
        (existing.remove_by_owner, lambda _: EVERYONE),
        (existing.remove_by_name_of_owner, lambda _: EVERYONE),
        (existing.remove_by_text, lambda _: EVERYONE),
        (existing.remove_on_its_own_connection, lambda _: EVERYONE),
        (existing.remove_in_a_savepoint, lambda bob: {(bob, "P")}),
        (existing.deactivate, lambda bob: {(bob, None)}),
        (existing.deactivate_by_statement, lambda _: EVERYONE),
        (existing.remove_project, lambda bob: {(bob, "P"), (None, "P")}),
        (existing.remove_person, lambda bob: {(bob, None)}),
        (existing.change_the_motto, lambda _: set()),
        (existing.promote, lambda _: set()),
        (existing.rename, lambda _: set()),
    ],
)
def test_a_commit_is_heard_and_a_rollback_is_not(
    bob: str, heard: Pairs, action: Callable[[], None], expected: Callable[[str], Pairs]
) -> None:
    commits_itself = [existing.remove_by_table, existing.remove_on_its_own_connection]
    if db.engine.dialect.name == "sqlite":  # whose driver begins no transaction for a savepoint
        commits_itself.append(existing.remove_in_a_savepoint)
    if action not in commits_itself:
        action()
        db.session.flush()
        assert heard == set(), "nothing was committed yet"
        db.session.rollback()
        assert heard == set()
    whose = expected(bob)
    action()
    db.session.commit()
    assert heard == whose
    heard.clear()
    db.session.add(Person(username="carol", email="carol@example.org"))
    db.session.commit()
    assert heard == set(), "once"


@pytest.mark.usefixtures("bob")
def test_whose_row_it_was_need_not_be_loaded(heard: Pairs) -> None:
    membership = existing.membership()
    db.session.commit()  # after which nothing of it is known until it is asked for
    membership.work_id = "Q"
    db.session.commit()
    assert heard == {(None, None), (None, "Q")} or heard == EVERYONE


def test_many_changes_are_one(bob: str, heard: Pairs) -> None:
    for number in range(MANY + 1):
        db.session.add(Membership(person_id=bob, work_id="P", id=f"m{number}"))
    db.session.commit()
    assert heard == set(), "nobody loses anything by that"
    people = [Person(username=f"p{number}", email=f"{number}@") for number in range(MANY + 1)]
    db.session.add_all(people)
    db.session.commit()
    for person in people:
        person.active = False
    db.session.commit()
    assert heard == EVERYONE


def test_a_savepoint_that_is_rolled_back_keeps_the_rest(bob: str, heard: Pairs) -> None:
    existing.remove()
    db.session.flush()
    savepoint = db.session.begin_nested()
    existing.deactivate()
    db.session.flush()
    savepoint.rollback()
    assert heard == set()
    db.session.commit()
    assert (bob, "P") in heard


@pytest.mark.usefixtures("bob")
def test_a_connection_that_goes_on_after_its_commit_announces_with_the_next_transaction(heard: Pairs) -> None:
    with db.engine.connect() as connection:
        connection.execute(text("DELETE FROM project_members"))
        connection.commit()
        connection.execute(text("SELECT 1"))
        assert heard == EVERYONE


@pytest.mark.usefixtures("bob")
def test_a_connection_that_commits_each_statement_by_itself_need_not_be_closed_for_that(heard: Pairs) -> None:
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(text("DELETE FROM project_members WHERE project_id = 'P'"))
        assert heard == set(), "it has begun a transaction of its own"
        connection.exec_driver_sql("ROLLBACK")
        connection.execute(text("DELETE FROM project_members"))
        assert heard == EVERYONE


@pytest.mark.usefixtures("application", "bob")
@pytest.mark.parametrize(
    "statement",
    [
        'delete from "project_members" where 1 = 1',
        "UPDATE users SET IS_ACTIVE = false",
        'UPDATE "users" SET "is_active" = false',
        "/* a hint */ UPDATE users SET is_active = false",
        "WITH old AS (SELECT 1) UPDATE projects SET user_id = user_id",
        "DELETE /* all * of */ FROM -- them\n project_members",
        f"{UPSERT} DO UPDATE SET is_active = false",
    ],
)
def test_text_is_read_as_far_as_its_table(heard: Pairs, statement: str) -> None:
    db.session.execute(text(statement))
    db.session.commit()
    assert heard == EVERYONE


@pytest.mark.parametrize("application", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("DELETE FROM ONLY project_members", EVERYONE),
        ("DELETE FROM public.project_members", EVERYONE),
        ("TRUNCATE project_members", EVERYONE),
        ("TRUNCATE TABLE api_keys", set()),
        ("TRUNCATE TABLE api_keys, ONLY project_members", EVERYONE),
        ("TRUNCATE api_keys,project_members", EVERYONE),
        ("TRUNCATE /* ; */ api_keys, /* again; */ project_members", EVERYONE),
        ("TRUNCATE api_keys -- ;\n, project_members", EVERYONE),
        ("TRUNCATE api_keys; SELECT * FROM project_members", set()),
        ("SELECT 1; DELETE FROM project_members", EVERYONE),
        ("SELECT 1; DELETE FROM api_keys;", set()),
        ("EXPLAIN ANALYZE DELETE FROM project_members", EVERYONE),
        ("DO $$ BEGIN DELETE FROM project_members; END $$", EVERYONE),
        ("MERGE INTO project_members m USING users u ON m.user_id = u.id WHEN MATCHED THEN DELETE", EVERYONE),
        ("MERGE INTO users a USING users b ON a.id = b.id WHEN MATCHED THEN UPDATE SET motto = 'x'", set()),
    ],
)
def test_so_is_what_only_postgresql_knows(heard: Pairs, statement: str, changed: Pairs) -> None:
    db.session.execute(text(statement))
    db.session.commit()
    assert heard == changed


@pytest.mark.parametrize("application", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "REPLACE INTO project_members SELECT * FROM project_members",
        "INSERT OR REPLACE INTO project_members SELECT * FROM project_members",
        "UPDATE OR IGNORE projects SET user_id = user_id",
    ],
)
def test_so_is_what_only_sqlite_knows(heard: Pairs, statement: str) -> None:
    db.session.execute(text(statement))
    db.session.commit()
    assert heard == EVERYONE


@pytest.mark.usefixtures("bob")
@pytest.mark.parametrize(
    "statement",
    [f"{UPSERT} DO NOTHING", f"{UPSERT} DO UPDATE SET motto = 'x'", "DELETE FROM api_keys",
     "UPDATE users SET motto = 'DELETE FROM users'", "UPDATE projects SET name = 'x'",
     "SELECT 'DELETE FROM users'", "INSERT INTO users (id, username, email, is_active) VALUES ('x', 'y', 'z', true)"],
)  # fmt: skip
def test_what_takes_no_access_away_is_not_announced(heard: Pairs, statement: str) -> None:
    db.session.execute(text(statement))
    db.session.commit()
    assert heard - EVERYONE == set()
    if "DELETE FROM users" not in statement:
        assert heard == set()


@pytest.mark.usefixtures("bob")
def test_what_goes_wrong_here_does_not_harm_the_application(heard: Pairs, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_whose: Any) -> None:
        raise RuntimeError("the server is away")

    listener = CommitListener(fail)
    with mock.patch("automoderate.integrations.commits._named_rows", side_effect=RuntimeError("not understood")):
        existing.remove()
        db.session.commit()
    listener.close()
    assert db.session.query(Membership).count() == 1
    assert heard == EVERYONE, "where a statement is not understood"
    assert "the server is away" in caplog.text
    assert "not understood" in caplog.text


def test_nothing_is_heard_after_it_was_closed(bob: str, heard: Pairs) -> None:
    CommitListener(lambda *_: heard.add(("closed", None))).close()
    existing.remove()
    db.session.commit()
    assert heard == {(bob, "P")}
