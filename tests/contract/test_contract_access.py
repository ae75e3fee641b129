"""Section 6 of the contract: who stops seeing what, at once when it is announced and else at the next re-check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from automoderate import control
from automoderate.directory import accounts
from automoderate.notifier import WebSocketNotifier
from kits import PATIENCE, until
from kits.contract_client import Client, TransportName
from kits.contract_site import SECRET, Site, World

AUTHENTICATION_REQUIRED = {"message": "Authentication required", "code": "authentication_required"}
ACCESS_DENIED = {"message": "Access denied - you are not a member of this project", "code": "access_denied"}

Announce = Callable[[Site, str | None, str | None], None]


def in_process(site: Site, user: str | None, project: str | None) -> None:
    site.assembly.realtime.access_changed(user_id=user, project_id=project).result(PATIENCE)


def over_http(site: Site, user: str | None, project: str | None) -> None:
    """As the command line does."""
    token = control.sign(SECRET)
    change = {name: value for name, value in (("user_id", user), ("project_id", project)) if value is not None}
    answer = site.http("POST", "/api/access-changes", json.dumps(change), Authorization=f"Bearer {token}")
    assert answer.status == 202, answer


def nobody_says_so(site: Site, user: str | None, project: str | None) -> None:
    """The next re-check finds out."""


@pytest.fixture(params=[in_process, over_http, nobody_says_so])
def announce(request: pytest.FixtureRequest) -> Announce:
    found: Announce = request.param
    return found


@pytest.fixture
def site(sites: Any, announce: Announce) -> Site:
    """Re-checks by itself only where nobody announces anything."""
    site: Site = sites(auth_grace=0.05, recheck_interval=0.1 if announce is nobody_says_so else 3600)
    return site


@pytest.fixture
def member(world: World) -> str:
    """Somebody whose access the test may take away."""
    return world.user()


@pytest.fixture
def shared(world: World, alice: str, member: str) -> str:
    return world.project(alice, member)


@pytest.fixture
def client(site: Site, connect: Any, member: str, shared: str, transport: TransportName) -> Client:
    """The member, in the room."""
    client: Client = connect(site, member, transport)
    client.expect("connected")
    assert "error" not in client.call("join_project", {"project_id": shared})
    del client.items[:]
    return client


@pytest.fixture
def witness(site: Site, connect: Any, alice: str, shared: str) -> Client:
    """The owner, who goes on watching."""
    witness: Client = connect(site, alice, "websocket")
    witness.call("join_project", {"project_id": shared})
    del witness.items[:]
    return witness


@pytest.mark.every_runtime
def test_removal_from_a_project(
    site: Site, client: Client, witness: Client, world: World, member: str, shared: str, announce: Announce
) -> None:
    accounts.remove_member(world.database, shared, member)
    announce(site, member, shared)
    assert client.expect("error") == {**ACCESS_DENIED, "project_id": shared}
    site.publish(shared, 1)
    assert client.settle() == []
    assert [data["n"] for _, data in witness.settle()] == [1]
    # The session stays open, and may go where it still belongs.
    assert client.call("join_project", {"project_id": shared})["error"]["code"] == "access_denied"
    own = world.project(member)
    assert "error" not in client.call("join_project", {"project_id": own})


def test_deletion_of_a_project(
    site: Site, client: Client, witness: Client, world: World, shared: str, announce: Announce
) -> None:
    accounts.remove_project(world.database, shared)
    announce(site, None, shared)
    for either in (client, witness):
        assert either.expect("error") == {**ACCESS_DENIED, "project_id": shared}
    site.publish(shared, 1)
    assert client.settle() == witness.settle() == []
    assert client.call("join_project", {"project_id": shared})["error"]["code"] == "project_not_found"


def test_deactivation_of_a_user(
    site: Site, client: Client, witness: Client, world: World, member: str, shared: str, announce: Announce
) -> None:
    accounts.set_active(world.database, member, False)
    announce(site, member, None)
    assert client.expect("error") == AUTHENTICATION_REQUIRED
    site.publish(shared, 1)
    assert client.rest() == [("disconnect", None)]
    assert [data["n"] for _, data in witness.settle()] == [1]


def test_removal_of_a_user(site: Site, client: Client, world: World, member: str, announce: Announce) -> None:
    accounts.remove_user(world.database, member)
    announce(site, member, None)
    assert client.rest() == [("error", AUTHENTICATION_REQUIRED), ("disconnect", None)]


def test_every_session_of_the_user(
    site: Site, client: Client, connect: Any, world: World, member: str, shared: str, announce: Announce
) -> None:
    other, idle = connect(site, member, "websocket"), connect(site, member, "websocket")
    other.call("join_project", {"project_id": shared})
    idle.expect("connected")
    accounts.remove_member(world.database, shared, member)
    announce(site, member, shared)
    for one in (client, other):
        assert one.until("error") == {**ACCESS_DENIED, "project_id": shared}
    assert idle.settle() == []


class TestAnnounced:
    """What is not found in the database takes effect where it is announced."""

    @pytest.fixture
    def announce(self) -> Announce:
        return in_process

    @pytest.mark.every_runtime
    def test_logout(self, site: Site, client: Client, witness: Client, member: str, shared: str) -> None:
        site.assembly.realtime.logged_out(member).result(PATIENCE)
        site.publish(shared, 1)
        assert client.rest() == [("error", AUTHENTICATION_REQUIRED), ("disconnect", None)]
        assert [data["n"] for _, data in witness.settle()] == [1]

    def test_logout_over_http(self, site: Site, client: Client, member: str) -> None:
        token = control.sign(SECRET)
        body = json.dumps({"user_id": member, "logged_out": True})
        assert site.http("POST", "/api/access-changes", body, Authorization=f"Bearer {token}").status == 202
        assert client.rest() == [("error", AUTHENTICATION_REQUIRED), ("disconnect", None)]

    @pytest.mark.every_runtime
    def test_logging_out_of_the_dashboard(self, site: Site, world: World, connect: Any, shared: str) -> None:
        """From the form to the end of the live session, with the cookie that the dashboard itself has set."""
        user = world.user()
        accounts.add_member(world.database, shared, user)
        named = accounts.get_user(world.database, user)
        assert named is not None
        with requests.Session() as browser:

            def submit(path: str, page: str, **form: str) -> None:
                token = re.search(
                    'name="csrf_token" value="([^"]+)"', browser.get(site.url + page, timeout=PATIENCE).text
                )
                assert token is not None
                form["csrf_token"] = token[1]
                assert browser.post(site.url + path, form, timeout=PATIENCE).status_code == 200

            submit("/auth/login", "/auth/login", username=named.username, password=world.password(user))
            header = f"session={browser.cookies['session']}"
            client = connect(site, None, "websocket", headers={"Cookie": header})
            client.expect("connected")
            assert "error" not in client.call("join_project", {"project_id": shared})
            submit("/auth/logout", "/")
        assert client.until("error") == AUTHENTICATION_REQUIRED
        assert client.rest() == [("disconnect", None)]

    def test_the_notifier_announces(self, site: Site, client: Client, world: World, member: str, shared: str) -> None:
        notifier = WebSocketNotifier(realtime=site.assembly.realtime)
        accounts.remove_member(world.database, shared, member)
        notifier.access_changed(shared, user_id=member)
        assert client.expect("error") == {**ACCESS_DENIED, "project_id": shared}

    def test_the_notifier_announces_a_logout(self, site: Site, client: Client, member: str) -> None:
        WebSocketNotifier(realtime=site.assembly.realtime).logged_out(member)
        assert client.rest() == [("error", AUTHENTICATION_REQUIRED), ("disconnect", None)]

    def test_a_key_announces_for_its_project(
        self, site: Site, client: Client, world: World, member: str, shared: str, project: str
    ) -> None:
        accounts.remove_member(world.database, shared, member)
        key, body = world.api_key(shared), json.dumps({"project_id": shared, "user_id": member})
        assert site.http("POST", "/api/access-changes", body, X_API_Key=world.api_key(project)).status == 403
        assert client.settle() == []
        assert site.http("POST", "/api/access-changes", body, X_API_Key=key).status == 202
        assert client.expect("error") == {**ACCESS_DENIED, "project_id": shared}

    def test_without_a_change_an_announcement_changes_nothing(
        self, site: Site, client: Client, member: str, shared: str
    ) -> None:
        in_process(site, member, shared)
        site.publish(shared, 1)
        assert client.expect("moderation_update")["n"] == 1, "as soon as the directory was asked again"
        assert client.settle() == []

    def test_a_change_while_the_join_is_checked(
        self, site: Site, connect: Any, world: World, member: str, shared: str, transport: TransportName
    ) -> None:
        """An answer that was read before the change is not believed."""
        client = connect(site, member, transport)
        client.expect("connected")
        with site.directory.held("check_access") as gate:
            client.emit("join_project", {"project_id": shared})
            gate.wait()
            accounts.remove_member(world.database, shared, member)
            in_process(site, member, shared)
            gate.wait()  # asked again
            gate.opened.set()
            assert client.expect("error") == {**ACCESS_DENIED, "project_id": shared}
        assert client.settle() == []

    def test_a_database_that_is_away_throws_nobody_out_and_lets_nobody_see_more(
        self, site: Site, connect: Any, member: str, shared: str
    ) -> None:
        client = connect(site, member, "websocket")
        client.call("join_project", {"project_id": shared})
        with site.directory.held("recheck", RuntimeError("away")) as gate:
            in_process(site, member, shared)
            gate.wait()
            gate.opened.set()
            until(lambda: site.stats()["jobs"] == 0, "the re-check fails")
        del client.items[:]
        site.publish(shared, 1)
        assert client.settle() == []
        assert client.expect("moderation_update")["n"] == 1, "it is tried again after some seconds"


class TestFromTheAnnouncementOn:
    """Nothing that is published after an announcement goes to a session before the directory has answered."""

    @pytest.fixture
    def site(self, sites: Any) -> Site:
        site: Site = sites(auth_grace=0.05, recheck_interval=3600)
        return site

    @pytest.mark.parametrize("stays", [True, False])
    def test_a_member(
        self, site: Site, client: Client, witness: Client, world: World, member: str, shared: str, stays: bool
    ) -> None:
        site.publish(shared, 1)
        if not stays:
            accounts.remove_member(world.database, shared, member)
        with site.directory.held("recheck") as gate:
            in_process(site, member, shared)
            gate.wait()
            site.publish(shared, 2)
            assert [data["n"] for _, data in client.settle()] == [1]
            assert [data["n"] for _, data in witness.settle()] == [1, 2]
        if stays:
            assert client.expect("moderation_update")["n"] == 2
        else:
            assert client.expect("error") == {**ACCESS_DENIED, "project_id": shared}
        site.publish(shared, 3)
        assert [data["n"] for _, data in client.settle()] == ([3] if stays else [])

    @pytest.mark.parametrize("stays", [True, False])
    def test_in_mid_catch_up(
        self, site: Site, connect: Any, world: World, member: str, shared: str, transport: TransportName, stays: bool
    ) -> None:
        first = site.publish(shared, 1)
        site.publish(shared, 2)
        client = connect(site, member, transport)
        client.expect("connected")
        with site.directory.held() as gate:
            client.request("join_project", {"project_id": shared, "last_event_id": first})
            gate.wait()
            if not stays:
                accounts.remove_member(world.database, shared, member)
            in_process(site, member, shared)
            gate.wait()
        if stays:
            assert client.expect("moderation_update")["n"] == 2
            assert client.expect("joined_project")["recovered"] is True
        else:
            assert client.expect("error") == {**ACCESS_DENIED, "project_id": shared}
        assert [name for name, _ in client.settle()] == ["ack"]

    def test_with_a_full_queue_that_the_member_does_not_read(
        self, site: Site, client: Client, world: World, member: str, shared: str
    ) -> None:
        for number in range(100):
            site.assembly.realtime.publish(
                shared, "moderation_update", {"project_id": shared, "n": number, "text": "x" * 5000}
            )
        accounts.remove_member(world.database, shared, member)
        in_process(site, member, shared)
        for number in range(100, 110):
            site.publish(shared, number)
        client.until("error")
        assert [data["n"] for data in client.events("moderation_update")] == list(range(100))
        assert client.settle() == []
