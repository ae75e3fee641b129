"""The inspector's page: who sees it, and that its token is the one that the session's forms have."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from automoderate.dashboard import is_genuine
from automoderate.directory import accounts
from kits.dashboard_world import World, csrf_token


@pytest.fixture
def admin(world: World) -> FlaskClient:
    """The member, made an administrator."""
    with world.database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE users SET is_admin = 1 WHERE id = '{world.member.id}'")
        connection.commit()
    return world.logged_in(world.member)


def test_only_administrators_see_the_page_and_the_way_to_it(world: World, admin: FlaskClient) -> None:
    visitor = world.app.test_client().get("/inspector")
    assert (visitor.status_code, visitor.location) == (302, "/auth/login?next=/inspector")
    stranger = world.logged_in(world.owner)
    refused = stranger.get("/inspector")
    assert refused.status_code == 403
    assert 'data-code="admin_required"' in refused.text
    assert "/inspector" not in stranger.get("/").text
    page = admin.get("/inspector")
    assert page.status_code == 200
    assert 'data-api="/api/admin"' in page.text
    assert 'href="/inspector"' in admin.get("/").text


def test_below_the_path_of_a_proxy(admin: FlaskClient) -> None:
    page = admin.get("/inspector", environ_overrides={"SCRIPT_NAME": "/moderation"})
    assert 'data-api="/moderation/api/admin"' in page.text
    assert 'data-login-url="/moderation/auth/login?next=/moderation/inspector"' in page.text


def test_who_is_deactivated_is_no_administrator(world: World, admin: FlaskClient) -> None:
    accounts.set_active(world.database, world.member.id, False)
    assert admin.get("/inspector").status_code == 302


def test_the_token_is_that_of_the_sessions_own_forms(world: World, admin: FlaskClient) -> None:
    page = admin.get("/inspector")
    found = re.search(r'data-token="([^"]+)"', page.text)
    assert found is not None
    cookie = f"session={admin.get_cookie('session').value}"  # type: ignore[union-attr]
    assert is_genuine(world.app, cookie, found[1])
    assert is_genuine(world.app, cookie, csrf_token(page))
    other = world.logged_in(world.owner)
    others = csrf_token(other.get("/"))
    for token in ("", "x", others, found[1][:-1]):
        assert not is_genuine(world.app, cookie, token)
    for another in (None, "", "session=x", f"session={other.get_cookie('session').value}"):  # type: ignore[union-attr]
        assert not is_genuine(world.app, another, found[1])
