"""Users, projects, members and keys, as the dashboard and the command line change and read them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import insert, text
from werkzeug.security import check_password_hash, generate_password_hash

from automoderate.directory import accounts
from automoderate.directory.accounts import Conflict, NotFound, UserInfo
from automoderate.directory.database import Database
from automoderate.directory.tables import User


@pytest.fixture
def ann(database: Database) -> UserInfo:
    return accounts.create_user(database, username="ann", email="ann@example.org", password="correct horse")


@pytest.fixture
def bob(database: Database) -> UserInfo:
    return accounts.create_user(database, username="bob", email="bob@example.org", password="battery staple")


def rows(database: Database, query: str) -> list[Sequence[object]]:
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_new_user_is_a_complete_row_of_the_existing_application(database: Database, ann: UserInfo) -> None:
    (row,) = rows(
        database, "SELECT id, username, email, password_hash, is_admin, is_active, created_at = updated_at FROM users"
    )
    assert row[:3] == (ann.id, "ann", "ann@example.org")
    assert check_password_hash(str(row[3]), "correct horse")
    assert row[4:] == (0, 1, 1)
    assert len(ann.id) == 36
    admin = accounts.create_user(database, username="root", email="root@example.org", password="x", is_admin=True)
    assert rows(database, f"SELECT is_admin FROM users WHERE id = '{admin.id}'") == [(1,)]


def test_users_are_found_by_id_name_or_address(database: Database, ann: UserInfo, bob: UserInfo) -> None:
    for name in (ann.id, "ann", "ann@example.org"):
        assert accounts.find_user(database, name) == ann
    assert accounts.get_user(database, ann.id) == ann
    assert accounts.get_user(database, "ann") is None
    assert accounts.get_user(database, "\0") is None
    assert accounts.list_users(database) == [ann, bob]
    for name in ("Ann", "", "\0", "nobody", "\ud800"):
        with pytest.raises(NotFound, match=r"^no such user: "):
            accounts.find_user(database, name)


@pytest.mark.parametrize(
    ("username", "email"),
    [("ann", "new@example.org"), ("new", "ann@example.org"), ("ann@example.org", "new@example.org"), ("new", "ann")],
)
def test_a_name_or_address_is_taken_once(database: Database, ann: UserInfo, username: str, email: str) -> None:
    with pytest.raises(Conflict, match="exists already"):
        accounts.create_user(database, username=username, email=email, password="x")
    assert accounts.list_users(database) == [ann]


@pytest.mark.parametrize(
    ("field", "value"),
    [("username", ""), ("username", "  "), ("username", "x" * 81), ("email", "x" * 121), ("username", "a\0b"),
     ("password", ""), ("password", "x" * 1001)],
)  # fmt: skip
def test_unfit_values_are_refused(database: Database, field: str, value: str) -> None:
    fields = {"username": "ann", "email": "ann@example.org", "password": "x"} | {field: value}
    with pytest.raises(ValueError, match=field):
        accounts.create_user(database, **fields)  # type: ignore[arg-type]
    assert accounts.list_users(database) == []


def test_authenticate_takes_name_or_address_and_the_right_password(database: Database, ann: UserInfo) -> None:
    assert accounts.authenticate(database, "ann", "correct horse") == ann
    assert accounts.authenticate(database, "ann@example.org", "correct horse") == ann
    for name, password in (
        ("ann", "Correct horse"), ("ann", ""), ("Ann", "correct horse"), ("bob", "correct horse"),
        ("", ""), ("\0", "x"), ("ann\0", "correct horse"), (ann.id, "correct horse"), ("' OR 1=1 --", "x"),
    ):  # fmt: skip
        assert accounts.authenticate(database, name, password) is None
    accounts.set_active(database, ann.id, False)
    assert accounts.authenticate(database, "ann", "correct horse") is None


@pytest.mark.usefixtures("ann")
def test_authenticate_spends_a_check_on_unknown_users_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def check(stored: str, password: str) -> bool:
        checked.append(stored)
        return check_password_hash(stored, password)

    monkeypatch.setattr(accounts, "check_password_hash", check)
    accounts.authenticate(database, "ann", "wrong")
    accounts.authenticate(database, "nobody", "wrong")
    accounts.authenticate(database, "\0", "wrong")
    assert len(checked) == 3
    assert len({stored.partition("$")[0] for stored in checked}) == 1, "as expensive as a real one"


@pytest.mark.usefixtures("ann")
def test_a_user_without_a_password_cannot_log_in_with_one(database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET password_hash = NULL")
    for password in ("", "None", "correct horse"):
        assert accounts.authenticate(database, "ann", password) is None


def test_an_address_belongs_to_whose_it_is_not_to_who_is_called_so(database: Database, ann: UserInfo) -> None:
    with database.begin() as connection:
        connection.execute(
            insert(User).values(
                id="0", username="ann@example.org", email="mallory@example.org", is_active=True,
                password_hash=generate_password_hash("mallory"),
            )
        )  # fmt: skip
    assert accounts.authenticate(database, "ann@example.org", "correct horse") == ann
    assert accounts.authenticate(database, "ann@example.org", "mallory") is None


def test_set_password_and_set_active(database: Database, ann: UserInfo) -> None:
    accounts.set_password(database, ann.id, "new password")
    assert accounts.authenticate(database, "ann", "correct horse") is None
    assert accounts.authenticate(database, "ann", "new password") == ann
    accounts.set_active(database, ann.id, False)
    assert accounts.find_user(database, "ann").is_active is False
    with pytest.raises(NotFound):
        accounts.set_password(database, "nobody", "x")
    with pytest.raises(NotFound):
        accounts.set_active(database, "nobody", True)
    with pytest.raises(ValueError, match="password"):
        accounts.set_password(database, ann.id, "")


def test_a_user_is_removed_together_with_memberships_but_not_with_projects(
    database: Database, ann: UserInfo, bob: UserInfo
) -> None:
    project = accounts.create_project(database, name="Forum", owner_id=ann.id)
    accounts.add_member(database, project.id, bob.id)
    with pytest.raises(Conflict, match=r"owns 1 project\(s\), remove them first: Forum"):
        accounts.remove_user(database, ann.id)
    accounts.remove_user(database, bob.id)
    assert [member.user_id for member in accounts.list_members(database, project.id)] == [ann.id]
    assert rows(database, "SELECT count(*) FROM project_members") == [(0,)]
    with pytest.raises(NotFound):
        accounts.remove_user(database, bob.id)


def test_what_other_records_refer_to_is_not_removed(database: Database, ann: UserInfo, bob: UserInfo) -> None:
    project = accounts.create_project(database, name="Forum", owner_id=ann.id)
    accounts.add_member(database, project.id, bob.id)
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE content (project_id VARCHAR(36) REFERENCES projects (id), "
            "by VARCHAR(36) REFERENCES users (id))"
        )
        connection.exec_driver_sql(f"INSERT INTO content VALUES ('{project.id}', '{bob.id}')")
    with pytest.raises(Conflict, match="refer to the project"):
        accounts.remove_project(database, project.id)
    with pytest.raises(Conflict, match="refer to the user"):
        accounts.remove_user(database, bob.id)
    assert [project.name for project in accounts.projects_for(database, bob.id)] == ["Forum"], (
        "nothing was half removed"
    )


def test_projects_for_a_user_are_those_owned_or_joined(database: Database, ann: UserInfo, bob: UserInfo) -> None:
    second = accounts.create_project(database, name="Second", owner_id=ann.id, description="later")
    first = accounts.create_project(database, name="First", owner_id=bob.id)
    assert accounts.get_project(database, first.id) == accounts.ProjectInfo(first.id, "First", bob.id)
    assert accounts.get_project(database, "none") is None
    assert accounts.get_project(database, "\0") is None
    accounts.add_member(database, first.id, ann.id, "admin")
    accounts.add_member(database, second.id, ann.id)
    assert [(project.id, project.role) for project in accounts.projects_for(database, ann.id)] == [
        (first.id, "admin"), (second.id, "owner"),
    ]  # fmt: skip
    assert [project.id for project in accounts.projects_for(database, bob.id)] == [first.id]
    assert accounts.projects_for(database, "nobody") == []
    assert accounts.projects_for(database, "\0") == []
    assert [project.id for project in accounts.list_projects(database)] == [first.id, second.id]


def test_a_project_belongs_to_somebody_and_has_a_name(database: Database, ann: UserInfo) -> None:
    with pytest.raises(NotFound, match="no such user"):
        accounts.create_project(database, name="Forum", owner_id="nobody")
    with pytest.raises(ValueError, match="project name"):
        accounts.create_project(database, name="", owner_id=ann.id)


def test_a_project_is_removed_together_with_members_and_keys(database: Database, ann: UserInfo, bob: UserInfo) -> None:
    project = accounts.create_project(database, name="Forum", owner_id=ann.id)
    accounts.add_member(database, project.id, bob.id)
    accounts.create_api_key(database, project.id, "ci")
    accounts.remove_project(database, project.id)
    assert accounts.list_projects(database) == []
    assert rows(database, "SELECT count(*) FROM api_keys") == [(0,)]
    assert rows(database, "SELECT count(*) FROM project_members") == [(0,)]
    with pytest.raises(NotFound):
        accounts.remove_project(database, project.id)


def test_members_are_added_changed_listed_and_removed(database: Database, ann: UserInfo, bob: UserInfo) -> None:
    project = accounts.create_project(database, name="Forum", owner_id=ann.id)
    accounts.add_member(database, project.id, bob.id)
    accounts.add_member(database, project.id, bob.id, "admin")
    assert rows(database, "SELECT role FROM project_members") == [("admin",)]
    assert [(member.username, member.role) for member in accounts.list_members(database, project.id)] == [
        ("ann", "owner"), ("bob", "admin"),
    ]  # fmt: skip
    accounts.remove_member(database, project.id, bob.id)
    assert accounts.projects_for(database, bob.id) == []


def test_what_cannot_be_done_to_members_is_said(database: Database, ann: UserInfo, bob: UserInfo) -> None:
    project = accounts.create_project(database, name="Forum", owner_id=ann.id)
    with pytest.raises(NotFound, match="no such project"):
        accounts.add_member(database, "none", bob.id)
    with pytest.raises(NotFound, match="no such user"):
        accounts.add_member(database, project.id, "nobody")
    with pytest.raises(ValueError, match="no such role: boss; it is one of member, admin, owner"):
        accounts.add_member(database, project.id, bob.id, "boss")
    with pytest.raises(Conflict, match="owns the project"):
        accounts.remove_member(database, project.id, ann.id)
    with pytest.raises(NotFound, match="no member"):
        accounts.remove_member(database, project.id, bob.id)
    with pytest.raises(NotFound, match="no such project"):
        accounts.remove_member(database, "none", bob.id)
    with pytest.raises(NotFound, match="no such project"):
        accounts.list_members(database, "none")


def test_api_keys_are_added_listed_revoked_and_removed(database: Database, ann: UserInfo) -> None:
    project = accounts.create_project(database, name="Forum", owner_id=ann.id)
    key = accounts.create_api_key(database, project.id, "ci")
    other = accounts.create_api_key(database, project.id, "backup")
    assert key.key.startswith("am_")
    assert len(key.key) == 46
    assert key.key != other.key
    assert accounts.list_api_keys(database, project.id) == [other, key]
    assert accounts.revoke_api_key(database, key.key) == project.id
    assert [listed.is_active for listed in accounts.list_api_keys(database, project.id)] == [True, False]
    assert accounts.remove_api_key(database, key.id) == project.id
    assert accounts.list_api_keys(database, project.id) == [other]
    for change in (accounts.revoke_api_key, accounts.remove_api_key):
        with pytest.raises(NotFound, match="no such API key"):
            change(database, key.id)
        with pytest.raises(NotFound, match="no such API key"):
            change(database, "\0")
    with pytest.raises(NotFound, match="no such project"):
        accounts.create_api_key(database, "none", "ci")
    with pytest.raises(NotFound, match="no such project"):
        accounts.list_api_keys(database, "none")
