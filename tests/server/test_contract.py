"""The contract through the whole server in memory: real bytes, virtual time, every transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from automoderate.core.hub import Access, Limits
from automoderate.server.interfaces import NotRunning
from automoderate.testing import Faults, MemoryDirectory, SimulatedClient, Simulation, TransportName

TRANSPORTS: tuple[TransportName, ...] = ("websocket", "polling", "upgrade")

AUTHENTICATION_REQUIRED = {"message": "Authentication required", "code": "authentication_required"}
ACCESS_DENIED = {"message": "Access denied - you are not a member of this project", "code": "access_denied"}
SLOW_DOWN = {"message": "Too many requests - please slow down", "code": "rate_limited"}


def populate(simulation: Simulation) -> Simulation:
    for user_id in ("alice", "bob", "carol"):
        simulation.directory.add_user(user_id)
    simulation.directory.add_user("gone", active=False)
    simulation.directory.add_project("p", owner="alice", members=["bob"])
    simulation.directory.add_project("q", owner="alice")
    return simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A populated simulation; after the test its clients go, and the server has to forget them."""
    simulation = populate(Simulation())
    yield simulation
    simulation.faults = Faults()
    for link in simulation.connections():
        link.cut()
    simulation.advance(120)
    assert simulation.server.stats()["sessions"] == 0
    assert simulation.server.stats()["rooms"] == 0


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    name: TransportName = request.param
    return name


@pytest.fixture
def alice(simulation: Simulation, transport: TransportName) -> SimulatedClient:
    return simulation.connect("alice", transport=transport)


def numbers(client: SimulatedClient) -> list[int]:
    return [data["n"] for data in client.events("moderation_update")]


def publish(simulation: Simulation, *values: int, project: str = "p") -> list[str]:
    return [simulation.publish(project, "moderation_update", {"n": value}) for value in values]


class TestWhoIsConnecting:
    def test_a_user_is_welcomed_first_of_all(self, alice: SimulatedClient) -> None:
        assert alice.connected
        assert [(item.event, item.data) for item in alice.received] == [
            ("connected", {"message": "Connected to AutoModerate"})
        ]

    @pytest.mark.parametrize("user", [None, "nobody", "gone"])
    def test_nobody_is_told_and_ended_after_the_grace(
        self, simulation: Simulation, transport: TransportName, user: str | None
    ) -> None:
        client = simulation.connect(user, transport=transport)
        assert client.events("error") == [AUTHENTICATION_REQUIRED]
        assert client.call("join_project", {"project_id": "p"}) == {"error": AUTHENTICATION_REQUIRED}
        assert client.events("error")[1:] == [{**AUTHENTICATION_REQUIRED, "project_id": "p"}]
        assert client.ended is None
        simulation.advance(1.0)
        simulation.run()
        assert client.ended == "io server disconnect"

    def test_nothing_but_the_cookie_authenticates(self, simulation: Simulation) -> None:
        client = simulation.connect(headers={"X-API-Key": "am_1", "Authorization": "Bearer alice"})
        assert client.events("error") == [AUTHENTICATION_REQUIRED]

    def test_a_lookup_that_fails_drops_the_transport_so_that_the_client_returns(self, simulation: Simulation) -> None:
        simulation.faults = Faults(job_failure=1.0)
        client = simulation.connect("alice")
        assert client.events("error") == [{"message": "Server error occurred", "code": "server_error"}]
        simulation.advance(1.1)
        assert client.ended == "transport close"

    def test_events_sent_before_the_lookup_is_answered_are_served(self, simulation: Simulation) -> None:
        simulation.faults = Faults(max_job_time=3.0)
        client = simulation.connect("alice", run=False)
        while not client.connected:
            simulation.advance(0.01)
        client.emit("join_project", {"project_id": "p"})
        simulation.advance(15)
        assert [item.event for item in client.received] == ["connected", "joined_project"]

    @pytest.mark.parametrize("cookie", ["session=bob", "session=", "other=1", None])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_sid_belongs_to_whoever_opened_it(self, simulation: Simulation, method: str, cookie: str | None) -> None:
        alice = simulation.connect("alice", transport="polling")
        thief = Thief(simulation, cookie)
        assert thief.request(method, alice, b"41") == 403
        assert alice.call("join_project", {"project_id": "p"})["room"] == "project_p"
        assert alice.ended is None

    def test_an_upgrade_with_another_users_cookie_changes_nothing(self, simulation: Simulation) -> None:
        alice = simulation.connect("alice", transport="polling")
        thief = Thief(simulation, "session=bob")
        assert thief.request("GET", alice, b"", upgrade=True) == 403
        assert alice.call("join_project", {"project_id": "p"})["room"] == "project_p"

    def test_a_renewed_cookie_of_the_same_user_may_go_on(self, simulation: Simulation) -> None:
        alice = simulation.connect("alice", transport="polling")
        alice.headers["Cookie"] = "session=alice#renewed"
        assert alice.call("join_project", {"project_id": "p"})["room"] == "project_p"

    @pytest.mark.parametrize(("cookie", "status"), [(None, 403), ("session=bob", 403), ("session=alice#new", 200)])
    def test_a_sid_belongs_to_its_user_after_the_cookie_expired(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch, cookie: str | None, status: int
    ) -> None:
        alice = simulation.connect("alice", transport="polling")
        thief = Thief(simulation, cookie)
        monkeypatch.setattr(MemoryDirectory, "session_user", {"session=bob": "bob", "session=alice#new": "alice"}.get)
        assert thief.request("POST", alice, b"41") == status

    def test_a_cookie_that_cannot_be_looked_up_is_not_believed(self, simulation: Simulation) -> None:
        alice = simulation.connect("alice", transport="polling")
        thief = Thief(simulation, "session=bob")
        simulation.faults = Faults(job_failure=1.0)
        assert thief.request("POST", alice, b"41") == 403

    def test_who_comes_and_goes_in_one_breath_costs_no_lookup(self, simulation: Simulation) -> None:
        client = simulation.connect("alice", transport="polling")
        simulation.faults = Faults(job_failure=1.0)
        body = b"\x1e".join([b"41", *[b"40", b"41"] * 5])
        client._poster.request("POST", client._target("polling"), body, lambda _status, _body: None)
        simulation.run()
        stats = simulation.server.stats()
        assert (stats["connections_total"], stats["sessions"], stats.get("job_failures_total", 0)) == (1, 0, 0)

    def test_a_page_of_another_origin_may_not_connect(self, simulation: Simulation, transport: TransportName) -> None:
        client = simulation.connect("alice", transport=transport, headers={"Origin": "http://evil.example"})
        assert (client.refused, client.connected) == (403, False)

    def test_the_pages_own_origin_may_connect(self, simulation: Simulation, transport: TransportName) -> None:
        client = simulation.connect("alice", transport=transport, headers={"Origin": "http://localhost:6217"})
        assert client.connected


class Thief:
    """Somebody who knows another's sid."""

    def __init__(self, simulation: Simulation, cookie: str | None) -> None:
        headers = {} if cookie is None else {"Cookie": cookie}
        self.simulation = simulation
        self.client = simulation.connect(transport="polling", headers={**headers, "Origin": "http://evil.example"})
        del self.client.headers["Origin"]

    def request(self, method: str, victim: SimulatedClient, body: bytes, *, upgrade: bool = False) -> int:
        answers: list[int] = []
        if upgrade:
            self.client.headers |= {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            }
        transport = "websocket" if upgrade else "polling"
        target = f"/socket.io/?EIO=4&transport={transport}&sid={victim._engine_sid}"
        self.client._poster.request(method, target, body, lambda status, _body: answers.append(status))
        self.simulation.run()
        return answers[0]


class TestRooms:
    def test_join_and_leave_answer_both_ways(self, alice: SimulatedClient) -> None:
        answer = alice.call("join_project", {"project_id": "p", "unknown": {"key": 1}})
        assert {key: answer[key] for key in ("project_id", "room")} == {"project_id": "p", "room": "project_p"}
        assert alice.events("joined_project") == [answer]
        assert alice.call("leave_project", {"project_id": "p"}) == {"project_id": "p"}
        assert alice.events("left_project") == [{"project_id": "p"}]

    def test_joining_twice_is_answered_twice_and_delivers_once(
        self, simulation: Simulation, alice: SimulatedClient
    ) -> None:
        alice.call("join_project", {"project_id": "p"})
        alice.call("join_project", {"project_id": "p"})
        publish(simulation, 1)
        simulation.run()
        assert len(alice.events("joined_project")) == 2
        assert numbers(alice) == [1]

    def test_leaving_a_room_one_is_not_in(self, alice: SimulatedClient) -> None:
        assert alice.call("leave_project", {"project_id": "p"}) == {"project_id": "p"}

    def test_a_leave_that_overtakes_the_check_wins(self, simulation: Simulation, alice: SimulatedClient) -> None:
        simulation.faults = Faults(max_job_time=2.0)
        alice.emit("join_project", {"project_id": "p"})
        alice.emit("leave_project", {"project_id": "p"})
        simulation.advance(5)
        publish(simulation, 1)
        simulation.run()
        assert [item.event for item in alice.received] == ["connected", "left_project"]

    def test_a_session_that_ends_during_its_check_leaves_nothing_behind(
        self, simulation: Simulation, alice: SimulatedClient
    ) -> None:
        simulation.faults = Faults(max_job_time=2.0)
        alice.emit("join_project", {"project_id": "p"})
        alice.cut()
        simulation.advance(60)
        assert simulation.server.stats()["sessions"] == 0
        assert simulation.server.stats()["rooms"] == 0
        publish(simulation, 1)

    def test_live_begins_at_the_join(self, simulation: Simulation, alice: SimulatedClient) -> None:
        publish(simulation, 1)
        alice.call("join_project", {"project_id": "p"})
        publish(simulation, 2)
        alice.call("leave_project", {"project_id": "p"})
        publish(simulation, 3)
        simulation.run()
        assert numbers(alice) == [2]

    def test_leaving_one_of_two_rooms(self, simulation: Simulation, alice: SimulatedClient) -> None:
        for project in ("p", "q"):
            alice.call("join_project", {"project_id": project})
        alice.call("leave_project", {"project_id": "p"})
        publish(simulation, 1, project="p")
        publish(simulation, 2, project="q")
        simulation.run()
        assert numbers(alice) == [2]

    def test_another_namespace_is_refused(self, simulation: Simulation, alice: SimulatedClient) -> None:
        alice._send_message("0/admin,")
        simulation.run()
        alice.call("leave_project", {"project_id": "p"})
        assert alice.connected


class TestErrors:
    @pytest.mark.parametrize(
        ("payload", "message", "code", "named"),
        [
            (None, "Project ID required", "project_id_required", None),
            ("p", "Project ID required", "project_id_required", None),
            ({}, "Project ID required", "project_id_required", None),
            ({"project_id": None}, "Project ID required", "project_id_required", None),
            ({"project_id": ""}, "Project ID required", "project_id_required", ""),
            ({"project_id": 5}, "Invalid project ID format", "invalid_project_id", None),
            ({"project_id": "x" * 101}, "Invalid project ID format", "invalid_project_id", "x" * 101),
            ({"project_id": "none"}, "Project not found", "project_not_found", "none"),
        ],
    )
    def test_bad_requests(
        self, alice: SimulatedClient, payload: Any, message: str, code: str, named: str | None
    ) -> None:
        error = {"message": message, "code": code}
        assert alice.call("join_project", payload) == {"error": error}
        assert alice.events("error") == [error if named is None else {**error, "project_id": named}]
        assert alice.ended is None

    def test_no_member(self, simulation: Simulation, transport: TransportName) -> None:
        carol = simulation.connect("carol", transport=transport)
        assert carol.call("join_project", {"project_id": "p"}) == {"error": ACCESS_DENIED}
        publish(simulation, 1)
        simulation.run()
        assert numbers(carol) == []

    def test_a_check_that_fails(self, simulation: Simulation, alice: SimulatedClient) -> None:
        simulation.faults = Faults(job_failure=1.0)
        answer = alice.call("join_project", {"project_id": "p"})
        assert answer == {"error": {"message": "Server error occurred", "code": "server_error"}}

    def test_details_of_a_failure_go_to_the_log(
        self, simulation: Simulation, alice: SimulatedClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        simulation.faults = Faults(job_failure=1.0)
        alice.call("join_project", {"project_id": "p"})
        assert "the database is away" in caplog.text
        assert "database" not in repr(alice.received)

    def test_a_check_that_takes_too_long(self, simulation: Simulation, alice: SimulatedClient) -> None:
        simulation.faults = Faults(max_job_time=1e9)
        alice.emit("join_project", {"project_id": "p"})
        simulation.advance(10.5)
        error = {"message": "Server timeout - please try again", "code": "timeout", "project_id": "p"}
        assert alice.events("error") == [error]

    def test_too_many_rooms(self, transport: TransportName) -> None:
        simulation = populate(Simulation(limits=Limits(max_rooms=1)))
        alice = simulation.connect("alice", transport=transport)
        alice.call("join_project", {"project_id": "p"})
        error = {"message": "Too many projects joined", "code": "room_limit"}
        assert alice.call("join_project", {"project_id": "q"}) == {"error": error}

    def test_too_many_events_and_then_the_end(self, simulation: Simulation, alice: SimulatedClient) -> None:
        for _ in range(101):
            alice.emit("anything")
        simulation.run()
        assert alice.events("error") == [SLOW_DOWN]
        assert alice.ended is None
        for _ in range(50):
            alice.emit("anything")
        simulation.run()
        assert alice.ended == "io server disconnect"

    def test_too_many_connections_from_one_address(self, transport: TransportName) -> None:
        simulation = populate(Simulation(limits=Limits(max_connections_per_minute=2)))
        for _ in range(2):
            assert simulation.connect("alice", transport=transport).events("connected")
        third = simulation.connect("alice", transport=transport)
        assert third.events("error") == [
            {"message": "Too many connection attempts. Please try again later.", "code": "rate_limited"}
        ]
        assert simulation.connect("alice", transport=transport, address="10.9.9.9").events("connected")
        simulation.advance(1.1)
        assert third.ended == "transport close"
        simulation.advance(60)
        assert simulation.connect("alice", transport=transport).events("connected")

    def test_everybody_behind_one_address_comes_back_after_a_restart(self) -> None:
        """Those beyond the limit come again by themselves, at the pace of their own back-off, until they are let in."""
        simulation = populate(Simulation(limits=Limits()))
        crowd = [Returning(simulation) for _ in range(450)]
        simulation.run()
        assert sum(bool(one.client.events("connected")) for one in crowd) == Limits().max_connections_per_minute
        simulation.restart()
        while not all(one.joined for one in crowd):
            assert simulation.now < 1000 + 90, "somebody stays out"
            simulation.advance(0.1)
            for one in crowd:
                one.look()
        publish(simulation, 1)
        simulation.run()
        assert [numbers(one.client) for one in crowd] == [[1]] * len(crowd)
        refused = sum(one.tries for one in crowd) - 2 * len(crowd)
        assert refused < 150 * 60 / 1.5, "a try lasts for the grace, and half a second passes before the next"

    def test_the_addresses_of_one_ipv6_network_are_one_visitor(self, transport: TransportName) -> None:
        simulation = populate(Simulation(limits=Limits(max_connections_per_minute=2)))
        for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2"):
            assert simulation.connect("alice", transport=transport, address=address).events("connected")
        third = simulation.connect("alice", transport=transport, address="2001:db8:1:2::3")
        assert [error["code"] for error in third.events("error")] == ["rate_limited"]
        elsewhere = simulation.connect("alice", transport=transport, address="2001:db8:1:3::1")
        assert elsewhere.events("connected")

    def test_an_event_nobody_handles_is_ignored(self, simulation: Simulation, alice: SimulatedClient) -> None:
        alice.emit("unheard_of", {"project_id": "p"})
        simulation.run()
        assert len(alice.received) == 1


class Returning:
    """A client that connects again by itself, as the libraries' do, and joins as soon as it may."""

    def __init__(self, simulation: Simulation) -> None:
        self.tries = 0
        self._simulation = simulation
        self._again: float | None = None
        self._connect()

    @property
    def joined(self) -> bool:
        return bool(self.client.events("joined_project"))

    def _connect(self) -> None:
        self.tries += 1
        self._again = None
        self.client = self._simulation.connect("alice", run=False)
        self.client.on_event = lambda event: self._join() if event.event == "connected" else None

    def _join(self) -> None:
        self.client.emit("join_project", {"project_id": "p"})

    def look(self) -> None:
        """See whether the session has ended, and come back when it is time."""
        if self.client.ended is None:
            return
        assert self.client.ended == "transport close", "it is told to stay away"
        if self._again is None:  # socket.io-client's first delay: those after it are for tries that fail
            self._again = self._simulation.now + self._simulation.random.uniform(0.5, 1.5)
        elif self._again <= self._simulation.now:
            self._connect()


class TestUpdates:
    def test_everyone_in_the_room_once_in_order_and_nobody_else(self, simulation: Simulation) -> None:
        inside = [simulation.connect(user, transport=kind) for user in ("alice", "bob") for kind in TRANSPORTS]
        for client in inside:
            client.call("join_project", {"project_id": "p"})
        outside = [simulation.connect("alice"), simulation.connect("alice")]
        outside[1].call("join_project", {"project_id": "q"})
        publish(simulation, *range(20))
        simulation.run()
        assert [numbers(client) for client in inside] == [list(range(20))] * 6
        assert [numbers(client) for client in outside] == [[], []]

    def test_an_update_arrives_as_it_was_published(self, simulation: Simulation, alice: SimulatedClient) -> None:
        alice.call("join_project", {"project_id": "p"})
        data = {"content_preview": "<b>ü\u2028\x1e</b>", "meta_data": {"deep": [1, None, 2.5, True]}}
        event_id = simulation.publish("p", "moderation_update", data)
        simulation.run()
        assert alice.events("moderation_update") == [{**data, "event_id": event_id}]

    def test_the_other_events_travel_the_same_way(self, simulation: Simulation, alice: SimulatedClient) -> None:
        alice.call("join_project", {"project_id": "p"})
        for event in ("content_received", "stats_update", "rule_update"):
            simulation.publish("p", event, {"x": event})
        simulation.run()
        names = [item.event for item in alice.received[-3:]]
        assert names == ["content_received", "stats_update", "rule_update"]

    def test_the_move_to_websocket_loses_and_repeats_nothing(self, simulation: Simulation) -> None:
        simulation.faults = Faults(max_delay=0.2, cut=0.5)
        alice = simulation.connect("alice", transport="upgrade", run=False)
        published = 0
        while not alice.connected:
            simulation.advance(0.01)
        alice.emit("join_project", {"project_id": "p"})
        for _ in range(100):
            if alice.events("joined_project"):
                publish(simulation, published)
                published += 1
            simulation.advance(0.02)
        simulation.run()
        assert alice.upgraded
        assert published > 10
        assert numbers(alice) == list(range(published))

    def test_a_member_that_does_not_read_costs_nobody_else(self, simulation: Simulation) -> None:
        simulation.max_write_buffer = 10_000
        alice, bob = simulation.connect("alice"), simulation.connect("bob")
        for client in (alice, bob):
            client.call("join_project", {"project_id": "p"})
        bob.stall()
        for value in range(200):
            simulation.publish("p", "moderation_update", {"n": value, "text": "x" * 100})
            simulation.run()
        assert numbers(alice) == list(range(200))
        assert bob.ended == "transport close"

    def test_a_polling_member_that_does_not_poll_is_bounded(self, simulation: Simulation) -> None:
        alice = simulation.connect("alice", transport="polling")
        alice.call("join_project", {"project_id": "p"})
        alice.stall()
        for value in range(80):
            simulation.publish("p", "moderation_update", {"n": value, "text": "x" * 100_000})
        simulation.run()
        assert simulation.server.stats()["sessions"] == 0


class TestCatchUp:
    def test_what_was_missed_comes_once_and_before_anything_newer(
        self, simulation: Simulation, transport: TransportName
    ) -> None:
        alice = simulation.connect("alice", transport=transport)
        alice.call("join_project", {"project_id": "p"})
        publish(simulation, 1, 2)
        simulation.run()
        last = alice.events("moderation_update")[-1]["event_id"]
        alice.cut()
        newest = publish(simulation, 3, 4)[-1]
        alice = simulation.connect("alice", transport=transport)
        answer = alice.call("join_project", {"project_id": "p", "last_event_id": last})
        publish(simulation, 5)
        simulation.run()
        assert answer == {"project_id": "p", "room": "project_p", "recovered": True, "last_event_id": newest}
        assert [item.event for item in alice.received] == [
            "connected", "moderation_update", "moderation_update", "joined_project", "moderation_update",
        ]  # fmt: skip
        assert numbers(alice) == [3, 4, 5]

    def test_a_first_join_says_where_it_stands(self, simulation: Simulation) -> None:
        """A client that is cut off before its first update has something to come back with."""
        alice = simulation.connect("alice")
        position = alice.call("join_project", {"project_id": "p"})["last_event_id"]
        alice.cut()
        publish(simulation, 1)
        alice = simulation.connect("alice")
        assert alice.call("join_project", {"project_id": "p", "last_event_id": position})["recovered"] is True
        assert numbers(alice) == [1]

    def test_without_a_last_event_id_nothing_is_replayed(self, simulation: Simulation, alice: SimulatedClient) -> None:
        publish(simulation, 1, 2)
        answer = alice.call("join_project", {"project_id": "p"})
        assert "recovered" not in answer
        assert numbers(alice) == []

    @pytest.mark.parametrize("last", ["1-0", "9999999999999-0", "nonsense", 12, {}])
    def test_a_gap_is_owned_up_to(self, simulation: Simulation, alice: SimulatedClient, last: object) -> None:
        publish(simulation, 1)
        answer = alice.call("join_project", {"project_id": "p", "last_event_id": last})
        assert answer["recovered"] is False
        assert numbers(alice) == []
        publish(simulation, 2)
        simulation.run()
        assert numbers(alice) == [2]

    def test_history_is_bounded(self) -> None:
        simulation = populate(Simulation(history=5))
        first = publish(simulation, *range(10))
        alice = simulation.connect("alice")
        answer = alice.call("join_project", {"project_id": "p", "last_event_id": first[3]})
        assert answer["recovered"] is False
        alice.call("leave_project", {"project_id": "p"})
        answer = alice.call("join_project", {"project_id": "p", "last_event_id": first[4]})
        assert answer["recovered"] is True
        assert numbers(alice) == [5, 6, 7, 8, 9]

    def test_a_restart_forgets_and_says_so(self, simulation: Simulation) -> None:
        alice = simulation.connect("alice")
        alice.call("join_project", {"project_id": "p"})
        (last,) = publish(simulation, 1)
        simulation.advance(1)
        simulation.restart()
        assert alice.ended == "transport close"
        alice = simulation.connect("alice")
        assert alice.call("join_project", {"project_id": "p", "last_event_id": last})["recovered"] is False


class TestRevocation:
    @pytest.fixture
    def bob(self, simulation: Simulation, transport: TransportName) -> SimulatedClient:
        bob = simulation.connect("bob", transport=transport)
        bob.call("join_project", {"project_id": "p"})
        return bob

    @pytest.mark.parametrize("announced", [True, False])
    def test_removal_from_a_project(self, simulation: Simulation, bob: SimulatedClient, announced: bool) -> None:
        simulation.directory.projects["p"].discard("bob")
        if announced:
            simulation.access_changed(user_id="bob", project_id="p")
            simulation.run()
        else:
            simulation.advance(60)
        assert bob.events("error") == [{**ACCESS_DENIED, "project_id": "p"}]
        publish(simulation, 1)
        simulation.run()
        assert numbers(bob) == []
        assert bob.connected

    @pytest.mark.parametrize("announced", [True, False])
    def test_deletion_of_a_project(self, simulation: Simulation, bob: SimulatedClient, announced: bool) -> None:
        del simulation.directory.projects["p"]
        if announced:
            simulation.access_changed(project_id="p")
            simulation.run()
        else:
            simulation.advance(60)
        assert bob.events("error") == [{**ACCESS_DENIED, "project_id": "p"}]
        assert simulation.server.stats()["rooms"] == 0

    @pytest.mark.parametrize("announced", [True, False])
    def test_deactivation_of_a_user(self, simulation: Simulation, bob: SimulatedClient, announced: bool) -> None:
        simulation.directory.users["bob"] = False
        if announced:
            simulation.access_changed(user_id="bob")
            simulation.run()
        else:
            simulation.advance(60)
        assert bob.events("error") == [AUTHENTICATION_REQUIRED]
        publish(simulation, 1)
        simulation.advance(1.1)
        assert bob.ended == "io server disconnect"
        assert numbers(bob) == []

    def test_logout(self, simulation: Simulation, bob: SimulatedClient) -> None:
        alice = simulation.connect("alice")
        alice.call("join_project", {"project_id": "p"})
        simulation.logged_out("bob")
        publish(simulation, 1)
        simulation.advance(1.1)
        assert bob.events("error") == [AUTHENTICATION_REQUIRED]
        assert bob.ended == "io server disconnect"
        assert (numbers(bob), numbers(alice)) == ([], [1])

    def test_a_database_that_is_away_throws_nobody_out(self, simulation: Simulation, bob: SimulatedClient) -> None:
        simulation.faults = Faults(job_failure=1.0)
        simulation.advance(300)
        publish(simulation, 1)
        simulation.run()
        assert (numbers(bob), bob.ended) == ([1], None)


class TestLife:
    def test_heartbeats_keep_a_session_and_silence_ends_it(
        self, simulation: Simulation, alice: SimulatedClient
    ) -> None:
        simulation.advance(300)
        assert alice.ended is None
        alice.stall()
        simulation.advance(60)
        assert simulation.server.stats()["sessions"] == 0

    def test_a_client_that_leaves_is_gone_at_once(self, simulation: Simulation, alice: SimulatedClient) -> None:
        alice.call("join_project", {"project_id": "p"})
        alice.disconnect()
        simulation.run()
        assert simulation.server.stats() | {"sessions": 0, "users": 0, "rooms": 0, "memberships": 0} == (
            simulation.server.stats()
        )

    def test_draining_ends_every_session_so_that_clients_return(
        self, simulation: Simulation, alice: SimulatedClient
    ) -> None:
        alice.call("join_project", {"project_id": "p"})
        simulation.drain()
        simulation.run()
        assert alice.ended == "transport close"
        assert simulation.server.drained()
        with pytest.raises(NotRunning):
            publish(simulation, 1)

    def test_counters(self, simulation: Simulation, alice: SimulatedClient) -> None:
        alice.call("join_project", {"project_id": "p"})
        alice.call("join_project", {"project_id": "none"})
        publish(simulation, 1, 2)
        kinds = {name: value for name, value in simulation.server.stats().items() if value or "errors_" not in name}
        stats = {name: value for name, value in kinds.items() if value or "endings_" not in name}
        expected = {
            "sessions": 1, "users": 1, "rooms": 1, "memberships": 1, "jobs": 0, "connections_total": 1,
            "updates_total": 2, "deliveries_total": 2, "errors_project_not_found_total": 1,
            "misrouted_requests_total": 0,
            "job_failures_total": 0,
        }  # fmt: skip
        assert stats == expected

    def test_other_paths_are_the_applications(self, simulation: Simulation) -> None:
        client = simulation.connect("alice", transport="polling")
        answers: list[int] = []
        client._poster.request("POST", "/elsewhere", b"body", lambda status, _body: answers.append(status))
        simulation.run()
        assert answers == [404]


def test_the_directory_answers_as_a_database_would(simulation: Simulation) -> None:
    directory = simulation.directory
    assert directory.check_access("alice", "p") is Access.GRANTED
    assert directory.check_access("gone", "p") is Access.NO_USER
    assert directory.recheck("bob", ["p", "q", "none"]) == frozenset({"p"})
    assert directory.recheck("gone", ["p"]) is None
