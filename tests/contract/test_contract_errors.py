"""Section 4 of the contract: every row of its table, and the order of its checks."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from kits import until
from kits.contract_client import TRANSPORTS, Client, TransportName, target
from kits.contract_site import Site

AUTHENTICATION_REQUIRED = {"message": "Authentication required", "code": "authentication_required"}
ID_REQUIRED = {"message": "Project ID required", "code": "project_id_required"}
INVALID_ID = {"message": "Invalid project ID format", "code": "invalid_project_id"}
NOT_FOUND = {"message": "Project not found", "code": "project_not_found"}
ACCESS_DENIED = {"message": "Access denied - you are not a member of this project", "code": "access_denied"}
TIMEOUT = {"message": "Server timeout - please try again", "code": "timeout"}
SERVER_ERROR = {"message": "Server error occurred", "code": "server_error"}
ROOM_LIMIT = {"message": "Too many projects joined", "code": "room_limit"}
SLOW_DOWN = {"message": "Too many requests - please slow down", "code": "rate_limited"}
TOO_MANY = {"message": "Too many connection attempts. Please try again later.", "code": "rate_limited"}

NO_ID: list[tuple[Any, ...]] = [(), (None,), ("text",), (5,), (True,), ([],), ([{"project_id": "p"}],), ({},)]
NO_ID += [({"project_id": None},), ({"project_id": ""},), ({"projectId": "p"},)]
WRONG_ID: list[Any] = [5, 0, 1.5, True, False, [], ["p"], {}, {"id": "p"}, "x" * 101, "ü" * 101]


def refused(client: Client, event: str, *args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The error as event and as acknowledgement; nothing else may have come."""
    client.request(event, *args)
    error = client.expect("error")
    return error, client.expect("ack")[1]


class TestRequests:
    @pytest.fixture
    def client(self, site: Site, connect: Any, alice: str, transport: TransportName) -> Client:
        client: Client = connect(site, alice, transport)
        client.expect("connected")
        return client

    @pytest.mark.parametrize("event", ["join_project", "leave_project"])
    def test_project_id_required(self, client: Client, event: str) -> None:
        for args in NO_ID:
            named = {"project_id": ""} if args == ({"project_id": ""},) else {}
            assert refused(client, event, *args) == ({**ID_REQUIRED, **named}, {"error": ID_REQUIRED}), args
        assert client.settle() == []

    @pytest.mark.parametrize("event", ["join_project", "leave_project"])
    def test_invalid_project_id(self, client: Client, event: str) -> None:
        for project_id in WRONG_ID:
            named = {"project_id": project_id} if isinstance(project_id, str) else {}
            answer = refused(client, event, {"project_id": project_id})
            assert answer == ({**INVALID_ID, **named}, {"error": INVALID_ID}), project_id
        assert client.settle() == []

    def test_a_number_that_only_javascript_reads_is_no_project_id(self, client: Client) -> None:
        for number in ("1e999", "-1e400", "9" * 400, "9" * 5000, "1.0", "-0"):
            client.wire.send(f'42["join_project",{{"project_id":{number}}}]')
            assert client.expect("error") == INVALID_ID, number
        assert client.settle() == []

    @pytest.mark.parametrize(
        "project_id", ["none", "x" * 100, "ü" * 100, "a\u0000b", "\ud800", " ", "%", "' OR 1=1 --"]
    )
    def test_project_not_found(self, client: Client, project_id: str) -> None:
        answer = refused(client, "join_project", {"project_id": project_id})
        assert answer == ({**NOT_FOUND, "project_id": project_id}, {"error": NOT_FOUND})
        assert client.settle() == []

    def test_an_error_without_an_acknowledgement_is_the_event_alone(self, client: Client) -> None:
        client.emit("join_project", {"project_id": "none"})
        assert client.expect("error") == {**NOT_FOUND, "project_id": "none"}
        assert client.settle() == []

    @pytest.mark.every_runtime
    def test_access_denied(self, site: Site, connect: Any, carol: str, project: str, transport: TransportName) -> None:
        client = connect(site, carol, transport)
        client.expect("connected")
        answer = refused(client, "join_project", {"project_id": project})
        assert answer == ({**ACCESS_DENIED, "project_id": project}, {"error": ACCESS_DENIED})
        site.publish(project, 1)
        assert client.settle() == []

    @pytest.mark.every_runtime
    def test_server_error(self, site: Site, client: Client, project: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.clear()
        secret = f"SELECT secret FROM {uuid.uuid4()}"
        with site.directory.failing(message=secret):
            answer = refused(client, "join_project", {"project_id": project})
        assert answer == ({**SERVER_ERROR, "project_id": project}, {"error": SERVER_ERROR})
        assert secret in caplog.text
        assert "Traceback" in caplog.text
        # The session stays open, and the next try may succeed.
        assert "error" not in client.call("join_project", {"project_id": project})

    def test_server_error_of_a_second_join_leaves_the_first(self, site: Site, client: Client, project: str) -> None:
        client.call("join_project", {"project_id": project})
        del client.items[:]
        with site.directory.failing():
            assert refused(client, "join_project", {"project_id": project})[1] == {"error": SERVER_ERROR}
        site.publish(project, 1)
        assert [data["n"] for _, data in client.settle()] == [1]

    @pytest.mark.every_runtime
    def test_timeout(self, sites: Any, connect: Any, alice: str, project: str) -> None:
        site = sites(check_timeout=0.5)
        client = connect(site, alice, "websocket")
        while client.read()[0] != "connected":  # the question who it is took too long: it comes back, as clients do
            client = connect(site, alice, "websocket")
        with site.directory.held():
            answer = refused(client, "join_project", {"project_id": project})
            assert answer == ({**TIMEOUT, "project_id": project}, {"error": TIMEOUT})
        until(lambda: site.stats()["jobs"] == 0, "the late answer")
        site.publish(project, 1)
        assert client.settle() == []
        until(lambda: "error" not in client.call("join_project", {"project_id": project}), "a check in time")

    @pytest.mark.parametrize("event", ["anything", "message", "error", "moderation_update"])
    def test_an_event_nobody_handles_is_ignored(self, client: Client, project: str, event: str) -> None:
        client.call("join_project", {"project_id": project})
        client.emit(event, {"project_id": project, "n": 1})
        client.emit(event)
        client.request(event, {"project_id": "none"})
        assert client.settle() == []


class TestRoomLimit:
    @pytest.fixture
    def client(self, sites: Any, connect: Any, alice: str, transport: TransportName, project: str) -> Client:
        """Is in as many rooms as it may be."""
        client: Client = connect(sites(max_rooms=1), alice, transport)
        client.call("join_project", {"project_id": project})
        return client

    @pytest.mark.every_runtime
    def test_one_more_is_too_many(self, client: Client, fresh: str) -> None:
        answer = refused(client, "join_project", {"project_id": fresh})
        assert answer == ({**ROOM_LIMIT, "project_id": fresh}, {"error": ROOM_LIMIT})
        assert client.settle() == []

    def test_joining_the_same_again_is_not_one_more(self, client: Client, project: str) -> None:
        assert client.call("join_project", {"project_id": project})["room"] == f"project_{project}"

    def test_leaving_makes_room(self, client: Client, project: str, fresh: str) -> None:
        client.call("leave_project", {"project_id": project})
        assert client.call("join_project", {"project_id": fresh})["room"] == f"project_{fresh}"

    def test_payload_and_format_come_before_and_the_project_after(self, client: Client) -> None:
        assert refused(client, "join_project")[0] == ID_REQUIRED
        assert refused(client, "join_project", {"project_id": 5})[0] == INVALID_ID
        assert refused(client, "join_project", {"project_id": "none"})[0] == {**ROOM_LIMIT, "project_id": "none"}

    def test_joins_that_are_still_checked_count(
        self, sites: Any, connect: Any, alice: str, project: str, fresh: str
    ) -> None:
        site = sites(max_rooms=1)
        client = connect(site, alice, "websocket")
        client.expect("connected")
        with site.directory.held() as gate:
            client.emit("join_project", {"project_id": project})
            gate.wait()
            assert refused(client, "join_project", {"project_id": fresh})[1] == {"error": ROOM_LIMIT}
            gate.opened.set()
            client.expect("joined_project")

    @pytest.mark.usefixtures("client")
    def test_the_limit_is_each_sessions_own(self, sites: Any, connect: Any, alice: str, fresh: str) -> None:
        other = connect(sites(max_rooms=1), alice, "websocket")
        assert "error" not in other.call("join_project", {"project_id": fresh})


def test_fifty_rooms_by_default(site: Site, connect: Any, alice: str) -> None:
    client = connect(site, alice, "websocket")
    client.expect("connected")
    with site.directory.held():  # a join that is being checked counts; 50 projects are not needed
        for number in range(50):
            client.emit("join_project", {"project_id": f"project {number}"})
        error, _ = refused(client, "join_project", {"project_id": "one more"})
    assert error["code"] == "room_limit"


class TestRateLimit:
    LIMIT = 4
    """Events in a minute; a quarter as many refusals are tolerated."""

    @pytest.fixture
    def limited(self, sites: Any) -> Site:
        site: Site = sites(max_events_per_minute=self.LIMIT, auth_grace=300)
        return site

    @pytest.fixture
    def client(self, limited: Site, connect: Any, alice: str, transport: TransportName) -> Client:
        client: Client = connect(limited, alice, transport)
        client.expect("connected")
        return client

    @pytest.mark.every_runtime
    def test_too_many_and_then_the_end(self, client: Client, project: str) -> None:
        for _ in range(self.LIMIT):
            assert "error" not in client.call("join_project", {"project_id": project})
        del client.items[:]
        answer = refused(client, "leave_project", {"project_id": project})
        assert answer == ({**SLOW_DOWN, "project_id": project}, {"error": SLOW_DOWN})
        client.emit("leave_project", {"project_id": project})
        assert client.rest() == [("error", {**SLOW_DOWN, "project_id": project}), ("disconnect", None)]

    def test_after_the_end_nothing_is_left(self, limited: Site, client: Client, project: str) -> None:
        client.call("join_project", {"project_id": project})
        for _ in range(self.LIMIT + 1):
            client.emit("anything")
        assert client.ended() == "io server disconnect"
        until(lambda: limited.stats()["sessions"] == 0, "the session is forgotten")
        assert limited.stats()["memberships"] == limited.stats()["rooms"] == 0

    def test_events_nobody_handles_count_too(self, client: Client) -> None:
        for _ in range(self.LIMIT):
            client.emit("anything")
        client.emit("anything")
        assert client.expect("error") == SLOW_DOWN

    def test_rate_comes_before_payload(self, client: Client) -> None:
        for _ in range(self.LIMIT):
            client.emit("join_project")
            assert client.expect("error") == ID_REQUIRED
        assert refused(client, "join_project") == (SLOW_DOWN, {"error": SLOW_DOWN})

    def test_authentication_comes_before_rate(self, limited: Site, connect: Any, transport: TransportName) -> None:
        client = connect(limited, None, transport)
        client.expect("error")
        for _ in range(self.LIMIT):
            assert refused(client, "join_project") == (AUTHENTICATION_REQUIRED, {"error": AUTHENTICATION_REQUIRED})
        for _ in range(10):
            client.emit("join_project")
        # A visitor who is not logged in is told so at most that often, and never anything about a rate.
        client.wire.send("40/elsewhere,")
        client.expect("connect_error")

    def test_the_rate_is_each_sessions_own(self, limited: Site, client: Client, connect: Any, alice: str) -> None:
        for _ in range(self.LIMIT + 1):
            client.emit("anything")
        assert client.expect("error") == SLOW_DOWN
        other = connect(limited, alice, "websocket")
        other.expect("connected")
        assert other.settle() == []


def test_a_hundred_events_by_default(site: Site, connect: Any, alice: str) -> None:
    client = connect(site, alice, "websocket")
    client.expect("connected")
    for _ in range(99):
        client.emit("anything")
    assert client.settle() == []
    client.emit("anything")
    assert client.expect("error") == SLOW_DOWN


class TestConnectionLimit:
    @pytest.fixture
    def behind_a_proxy(self, sites: Any) -> Site:
        site: Site = sites(max_connections_per_minute=2, auth_grace=0.05, trusted_proxy=("127.0.0.1",))
        return site

    @pytest.mark.every_runtime
    def test_too_many_from_one_address(
        self, behind_a_proxy: Site, connect: Any, alice: str, first_transport: TransportName
    ) -> None:
        number = ("polling", "websocket").index(first_transport)
        here, there = ({"X-Forwarded-For": f"10.{net}.{number}.1"} for net in (1, 2))
        for _ in range(2):
            connect(behind_a_proxy, alice, first_transport, headers=here).expect("connected")
        third = connect(behind_a_proxy, alice, first_transport, headers=here)
        assert third.rest() == [("error", TOO_MANY)], "dropped, so that it comes back by itself"
        connect(behind_a_proxy, alice, first_transport, headers=there).expect("connected")

    def test_the_addresses_of_one_ipv6_network_are_one_visitor(
        self, behind_a_proxy: Site, connect: Any, alice: str
    ) -> None:
        for client in ('for="[2001:db8::1]"', 'for="[2001:db8::2]:4711"'):
            connect(behind_a_proxy, alice, "websocket", headers={"Forwarded": client}).expect("connected")
        third = connect(behind_a_proxy, alice, "websocket", headers={"X-Forwarded-For": "2001:db8::3"})
        assert third.rest() == [("error", TOO_MANY)]

    def test_in_the_grace_events_get_the_same_error(
        self, sites: Any, connect: Any, alice: str, project: str, transport: TransportName
    ) -> None:
        site = sites(max_connections_per_minute=1, auth_grace=300, trusted_proxy=("127.0.0.1",))
        address = {"X-Forwarded-For": f"10.3.0.{TRANSPORTS.index(transport)}"}
        connect(site, alice, transport, headers=address).expect("connected")
        client = connect(site, alice, transport, headers=address)
        assert client.expect("error") == TOO_MANY
        answer = refused(client, "join_project", {"project_id": project})
        assert answer == ({**TOO_MANY, "project_id": project}, {"error": TOO_MANY})

    def test_the_word_of_a_proxy_that_is_not_trusted_does_not_count(
        self, own_site: Any, connect: Any, alice: str
    ) -> None:
        site = own_site(max_connections_per_minute=2, auth_grace=0.05)
        for number in range(2):
            headers = {"X-Forwarded-For": f"10.4.0.{number}"}
            connect(site, alice, "websocket", headers=headers).expect("connected")
        third = connect(site, alice, "websocket", headers={"X-Forwarded-For": "10.4.0.9"})
        assert third.rest() == [("error", TOO_MANY)], "dropped, so that it comes back by itself"


class TestTheWire:
    """Bad packets end a session, never the server; they are Socket.IO's business rather than the table's."""

    @pytest.mark.parametrize("event", ["connect", "connect_error", "disconnect", "disconnecting"])
    def test_names_that_socket_io_reserves_are_a_bad_packet(
        self, site: Site, connect: Any, alice: str, event: str
    ) -> None:
        client = connect(site, alice, "websocket")
        client.expect("connected")
        client.emit(event, {"project_id": "none"})
        assert client.ended() == "transport close"

    @pytest.mark.parametrize("packet", ["9", "4", "42{", '42"x"', "42[]", "42[5]", "4nonsense", "45", "461-[]"])
    def test_nonsense_harms_nobody_else(
        self, site: Site, connect: Any, alice: str, packet: str, first_transport: TransportName
    ) -> None:
        other, client = connect(site, alice, "websocket"), connect(site, alice, first_transport)
        client.expect("connected")
        if first_transport == "polling":
            client.wire.poster.request("POST", target("polling", client.wire.sid), packet)
        else:
            client.wire.send(packet)
        other.expect("connected")
        assert other.settle() == []
