"""Section 2 of the contract: who is connecting, whose a session id is, and which pages may connect."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from flask import Flask
from itsdangerous import TimestampSigner

from automoderate.directory import accounts
from kits.contract_client import TRANSPORTS, Http, Refused, TransportName, target, websocket
from kits.contract_site import Site, World, cookie, signing_application

AUTHENTICATION_REQUIRED = {"message": "Authentication required", "code": "authentication_required"}
LIFETIME = 31 * 86_400
"""Seconds for which Flask believes a session cookie unless it is told otherwise."""


@pytest.fixture
def hasty(sites: Any) -> Site:
    """Ends the sessions of visitors almost at once."""
    site: Site = sites(auth_grace=0.05)
    return site


@pytest.fixture
def patient(sites: Any) -> Site:
    """Leaves visitors who are not logged in a grace that no test outlives."""
    site: Site = sites(auth_grace=300)
    return site


def signed(world: World, age: int = 0, **session: Any) -> str:
    """A Cookie header with any session, signed some seconds ago."""
    serializer = world.sign_in.session_interface.get_signing_serializer(world.sign_in)  # type: ignore[attr-defined]
    now = int(time.time())
    with mock.patch.object(TimestampSigner, "get_timestamp", return_value=now - age):
        return f"session={serializer.dumps(session)}"


def make_cookie(case: str, world: World, alice: str, inactive: str) -> tuple[str | None, str]:
    """The Cookie header of such a visitor, and what the log says about them."""
    good = world.cookie(alice)
    letter = "A" if good[15] != "A" else "B"
    return {
        "none": (None, "no cookie"),
        "empty": ("session=", "no cookie"),
        "of another name": (good.replace("session=", "other="), "no cookie"),
        "of another secret": (cookie(signing_application("another secret"), alice), "bad signature"),
        "tampered": (good[:15] + letter + good[16:], "bad signature"),
        "no cookie of Flask": ("session=" + alice, "bad signature"),
        "expired": (signed(world, age=LIFETIME + 60, _user_id=alice), "expired"),
        "of nobody": (signed(world, theme="dark"), "no user in the session"),
        "of an unknown user": (world.cookie("nobody-at-all"), "unknown user 'nobody-at-all'"),
        "of an inactive user": (world.cookie(inactive), f"inactive user '{inactive}'"),
    }[case]


CASES = (
    "none", "empty", "of another name", "of another secret", "tampered", "no cookie of Flask", "expired", "of nobody",
    "of an unknown user", "of an inactive user",
)  # fmt: skip


class TestCookies:
    @pytest.mark.every_runtime
    def test_a_good_one_is_welcomed(self, site: Site, connect: Any, alice: str, transport: TransportName) -> None:
        client = connect(site, alice, transport)
        assert client.settle() == [("connected", {"message": "Connected to AutoModerate"})]

    def test_one_that_is_almost_too_old_is_good(self, site: Site, connect: Any, world: World, alice: str) -> None:
        header = signed(world, age=LIFETIME - 3600, _user_id=alice)
        connect(site, None, "websocket", headers={"Cookie": header}).expect("connected")

    @pytest.mark.parametrize("case", CASES)
    def test_any_other_is_told_the_same_and_ended(
        self, hasty: Site, connect: Any, world: World, alice: str, inactive: str, case: str,
        first_transport: TransportName, caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        header, reason = make_cookie(case, world, alice, inactive)
        caplog.clear()
        client = connect(hasty, None, first_transport, headers={} if header is None else {"Cookie": header})
        assert client.rest() == [("error", AUTHENTICATION_REQUIRED), ("disconnect", None)]
        assert f"visitor is anonymous: {reason}" in [record.getMessage() for record in caplog.records]
        assert header is None or len(header) < 20 or header.removeprefix("session=") not in caplog.text

    def test_the_grace_is_long_enough_to_move_to_a_websocket(
        self, patient: Site, connect: Any, transport: TransportName
    ) -> None:
        client = connect(patient, None, transport)
        assert client.expect("error") == AUTHENTICATION_REQUIRED

    def test_events_within_the_grace_get_the_same_error(
        self, patient: Site, connect: Any, project: str, transport: TransportName
    ) -> None:
        client = connect(patient, None, transport)
        client.expect("error")
        for event in ("join_project", "leave_project", "anything"):
            client.request(event, {"project_id": project})
            assert client.expect("error") == {**AUTHENTICATION_REQUIRED, "project_id": project}
            assert client.expect("ack")[1] == {"error": AUTHENTICATION_REQUIRED}
        client.emit("join_project")
        assert client.expect("error") == AUTHENTICATION_REQUIRED
        patient.publish(project, 1)
        client.request("leave_project")
        assert [name for name, _ in (client.read(), client.read())] == ["error", "ack"]

    def test_a_session_that_came_as_nobody_is_never_in_a_room(self, patient: Site, connect: Any, project: str) -> None:
        client = connect(patient, None, "websocket")
        client.expect("error")
        client.request("join_project", {"project_id": project})
        client.until("ack")
        assert patient.stats()["memberships"] == 0

    @pytest.mark.every_runtime
    def test_events_sent_before_the_visitor_is_known_are_served_afterwards(
        self, site: Site, connect: Any, alice: str, project: str, transport: TransportName
    ) -> None:
        with site.directory.held("identify") as gate:
            client = connect(site, alice, transport)
            gate.wait()
            client.emit("join_project", {"project_id": project})
            gate.opened.set()
            client.expect("connected")
            assert client.expect("joined_project")["project_id"] == project


class TestNothingElseAuthenticates:
    @pytest.fixture
    def secrets(self, world: World, alice: str, project: str) -> dict[str, str]:
        return {"api_key": world.api_key(project), "session": world.cookie(alice).partition("=")[2], "user": alice}

    def test_no_api_key(self, patient: Site, connect: Any, secrets: dict[str, str], transport: TransportName) -> None:
        headers = {"X-API-Key": secrets["api_key"], "Authorization": f"Bearer {secrets['api_key']}"}
        assert connect(patient, None, transport, headers=headers).expect("error") == AUTHENTICATION_REQUIRED

    def test_no_bearer_of_the_session(
        self, patient: Site, connect: Any, secrets: dict[str, str], first_transport: TransportName
    ) -> None:
        headers = {"Authorization": f"Bearer {secrets['session']}", "X-User-Id": secrets["user"]}
        assert connect(patient, None, first_transport, headers=headers).expect("error") == AUTHENTICATION_REQUIRED

    def test_no_query_string(
        self, patient: Site, connect: Any, secrets: dict[str, str], transport: TransportName
    ) -> None:
        query = f"&session={secrets['session']}&token={secrets['session']}&api_key={secrets['api_key']}"
        query += f"&user_id={secrets['user']}&_user_id={secrets['user']}"
        assert connect(patient, None, transport, query=query).expect("error") == AUTHENTICATION_REQUIRED

    @pytest.mark.parametrize("name", ["session", "token", "api_key", "_user_id"])
    def test_no_auth_payload(
        self, patient: Site, connect: Any, secrets: dict[str, str], transport: TransportName, name: str
    ) -> None:
        value = secrets.get(name, secrets["user" if name == "_user_id" else "session"])
        client = connect(patient, None, transport, auth=f'{{"{name}": "{value}", "cookie": "session={value}"}}')
        assert client.expect("error") == AUTHENTICATION_REQUIRED

    def test_not_joining_with_an_api_key(
        self, patient: Site, connect: Any, secrets: dict[str, str], project: str
    ) -> None:
        client = connect(patient, None, "websocket")
        client.expect("error")
        request = {"project_id": project, "api_key": secrets["api_key"], "token": secrets["session"]}
        assert client.call("join_project", request) == {"error": AUTHENTICATION_REQUIRED}


class TestWhoTheyAreNow:
    def test_the_user_is_looked_up_again_at_every_join(
        self, hasty: Site, connect: Any, world: World, project: str, transport: TransportName
    ) -> None:
        user = world.user()
        accounts.add_member(world.database, project, user)
        client = connect(hasty, user, transport)
        client.expect("connected")
        assert "error" not in client.call("join_project", {"project_id": project})
        accounts.set_active(world.database, user, False)
        client.request("join_project", {"project_id": project})
        error = {**AUTHENTICATION_REQUIRED, "project_id": project}
        assert ("error", error) in client.rest()
        assert client.ended() == "io server disconnect"

    @pytest.mark.every_runtime
    def test_a_lookup_that_fails_drops_the_transport_so_that_the_client_returns(
        self, hasty: Site, connect: Any, alice: str, first_transport: TransportName
    ) -> None:
        with hasty.directory.failing("identify", "secret details"):
            client = connect(hasty, alice, first_transport)
            assert client.rest() == [("error", {"message": "Server error occurred", "code": "server_error"})]

    @pytest.mark.every_runtime
    def test_a_lookup_that_takes_too_long(
        self, sites: Any, connect: Any, alice: str, first_transport: TransportName
    ) -> None:
        site = sites(auth_grace=0.05, check_timeout=0.05)
        with site.directory.held("identify"):
            client = connect(site, alice, first_transport)
            assert client.rest() == [("error", {"message": "Server timeout - please try again", "code": "timeout"})]


class TestWhoseSession:
    @pytest.fixture
    def thieves(self, world: World, alice: str, bob: str) -> list[dict[str, str]]:
        """The headers of people who know the sid, and are not its owner."""
        return [
            {},
            {"Cookie": world.cookie(bob)},
            {"Cookie": cookie(signing_application("another secret"), alice)},
            {"Cookie": signed(world, age=LIFETIME + 60, _user_id=alice)},
            {"Cookie": world.cookie("nobody-at-all")},
        ]

    @pytest.mark.every_runtime
    @pytest.mark.parametrize("way", ["poll", "post", "upgrade"])
    def test_anybody_else_gets_403_and_changes_nothing(
        self, site: Site, connect: Any, alice: str, project: str, thieves: list[dict[str, str]], way: str
    ) -> None:
        victim = connect(site, alice, "polling")
        victim.expect("connected")
        victim.call("join_project", {"project_id": project})
        site.publish(project, 1)  # waits for the owner's next poll
        for thief in thieves:
            assert self.attempt(site, victim.wire.sid, thief, way) == 403
        site.publish(project, 2)
        assert [data["n"] for name, data in victim.settle() if name == "moderation_update"] == [1, 2]
        assert site.stats()["memberships"] == 1

    def test_what_is_posted_is_not_even_read(
        self, site: Site, connect: Any, alice: str, bob: str, world: World
    ) -> None:
        victim = connect(site, alice, "polling")
        victim.expect("connected")
        stolen = Http(site.address, {"Cookie": world.cookie(bob)})
        for body in ("1", "41", '42["leave_project",{}]', "nonsense"):
            assert stolen.request("POST", target("polling", victim.wire.sid), body).status == 403
        stolen.close()
        assert victim.settle() == []

    def test_a_session_on_a_websocket_is_no_one_elses_either(
        self, site: Site, connect: Any, alice: str, thieves: list[dict[str, str]]
    ) -> None:
        owner = connect(site, alice, "websocket")
        owner.expect("connected")
        for thief in thieves:
            assert self.attempt(site, owner.wire.sid, thief, "upgrade") == 403
            for way in ("poll", "post"):  # The session does not poll, whoever asks.
                assert self.attempt(site, owner.wire.sid, thief, way) in (400, 403)
        assert owner.settle() == []

    @pytest.mark.every_runtime
    @pytest.mark.parametrize("way", ["poll", "post", "upgrade"])
    def test_the_owner_with_a_renewed_cookie_goes_on(
        self, site: Site, connect: Any, world: World, alice: str, project: str, way: str
    ) -> None:
        owner = connect(site, alice, "polling")
        owner.expect("connected")
        owner.request("leave_project", {"project_id": project})
        renewed = {"Cookie": signed(world, _user_id=alice, theme="dark")}
        assert self.attempt(site, owner.wire.sid, renewed, way) in (101, 200)

    @pytest.mark.parametrize("way", ["poll", "post", "upgrade"])
    def test_it_stays_the_owners_after_the_cookie_has_expired(
        self, site: Site, connect: Any, alice: str, bob: str, world: World, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = connect(site, alice, "polling")
        owner.expect("connected")
        application = site.assembly.application
        assert isinstance(application, Flask)
        monkeypatch.setitem(application.config, "PERMANENT_SESSION_LIFETIME", timedelta(seconds=-1))
        for headers in ({}, {"Cookie": world.cookie(bob)}, {"Cookie": signed(world, _user_id=alice, theme="dark")}):
            assert self.attempt(site, owner.wire.sid, headers, way) == 403
        assert owner.settle() == []

    @staticmethod
    def attempt(site: Site, sid: str, headers: dict[str, str], way: str) -> int:
        if way == "upgrade":
            try:
                websocket(site.address, headers, sid=sid).close()
            except Refused as refused:
                return refused.status
            return 101
        visitor = Http(site.address, headers)
        method, body = ("GET", None) if way == "poll" else ("POST", "3")
        status = visitor.request(method, target("polling", sid), body).status
        visitor.close()
        return status


class TestOrigin:
    OTHERS = ("http://evil.example", "null", "https://{host}", "http://127.0.0.1:1", "http://{host}.evil.example", "")

    @pytest.fixture
    def others(self, site: Site) -> list[dict[str, str]]:
        """The Origin headers of pages of other sites."""
        return [{"Origin": origin.format(host=site.url.removeprefix("http://"))} for origin in self.OTHERS]

    def test_another_site_may_not_connect(
        self, site: Site, alice: str, others: list[dict[str, str]], transport: TransportName
    ) -> None:
        for other in others:
            with pytest.raises(Refused) as refused:
                site.connect(alice, transport, headers=other)
            assert refused.value.status == 403
        assert site.stats()["sessions"] == 0

    @pytest.mark.parametrize("way", ["poll", "post", "upgrade"])
    def test_another_site_may_not_use_a_session(
        self, site: Site, connect: Any, alice: str, others: list[dict[str, str]], way: str
    ) -> None:
        owner = connect(site, alice, "polling")
        owner.expect("connected")
        for other in others:
            headers = {"Cookie": owner.wire.poster.headers["Cookie"], **other}
            assert TestWhoseSession.attempt(site, owner.wire.sid, headers, way) == 403
        assert owner.settle() == []

    def test_a_refusal_lets_no_page_read_it(self, site: Site) -> None:
        for method in ("GET", "OPTIONS"):
            answer = site.http(method, target("polling"), Origin="http://evil.example")
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("access-control-")]

    def test_its_own_pages_may_connect(self, site: Site, connect: Any, alice: str, transport: TransportName) -> None:
        connect(site, alice, transport, headers={"Origin": site.url}).expect("connected")

    def test_allowed_sites_may_connect(self, sites: Any, connect: Any, alice: str, transport: TransportName) -> None:
        site = sites(cors_origin=("https://dashboard.example",))
        connect(site, alice, transport, headers={"Origin": "https://dashboard.example"}).expect("connected")
        with pytest.raises(Refused) as refused:
            site.connect(alice, transport, headers={"Origin": "https://evil.example"})
        assert refused.value.status == 403

    def test_allowed_sites_may_read_the_answers(self, sites: Any, world: World, alice: str) -> None:
        site, origin = sites(cors_origin=("https://dashboard.example",)), "https://dashboard.example"
        browser = Http(site.address, {"Cookie": world.cookie(alice), "Origin": origin})
        preflight = browser.request("OPTIONS", target("polling"), Access_Control_Request_Method="POST")
        opened = browser.request("GET", target("polling"))
        sid = opened.text.split('"')[3]
        posted = browser.request("POST", target("polling", sid), "1")
        browser.close()
        assert [answer.status for answer in (preflight, opened, posted)] == [204, 200, 200]
        for answer in (preflight, opened, posted):
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"

    def test_every_site_may_be_allowed(self, sites: Any, connect: Any, alice: str) -> None:
        site = sites(cors_origin=("*",))
        for kind in TRANSPORTS:
            connect(site, alice, kind, headers={"Origin": "https://any.example"}).expect("connected")
