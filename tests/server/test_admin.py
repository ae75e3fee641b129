"""What administrators ask and do over HTTP, in the simulated network: on one node and on several."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core import hub
from automoderate.core.hub import Limits
from automoderate.server import Server, gathering, slices
from automoderate.server.admin import MAX_PAGE, AdminOptions
from automoderate.server.api import ApiOptions
from automoderate.server.inspection import MAX_CLIENTS, MAX_ROOMS, MAX_ROWS, SLICE
from automoderate.server.interfaces import Asked, BackplaneUnavailable, NodeAnswer
from automoderate.testing import MemoryDirectory, Nodes, SimulatedClient, Simulation
from kits.simulated_http import Program

STATUS, ROOMS, SESSIONS = "/api/admin/status", "/api/admin/rooms", "/api/admin/sessions"
READING = [STATUS, ROOMS, SESSIONS, "/api/admin/rooms/p"]
CHANGING = ["/api/admin/sessions/x/end", "/api/admin/users/alice/end", "/api/admin/rooms/p/test-update"]
TOKEN = "the session's token"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"


def is_genuine(cookie: str | None, token: str) -> bool:
    return cookie == "session=root" and token == TOKEN


OPTIONS = ApiOptions(
    about={"node": "a", "version": "1"},
    admin=AdminOptions(genuine=is_genuine),
    refusal=lambda token: None if token == "command" else ("invalid_token", "It is not valid"),
)


def people(directory: MemoryDirectory) -> None:
    for user in ("alice", "bob", "root"):
        directory.add_user(user, username=user.title())
    directory.admins.add("root")
    directory.add_project("p", owner="alice", members=["bob"])
    directory.add_project("q", owner="bob")


@pytest.fixture
def simulation() -> Simulation:
    simulation = Simulation(api=OPTIONS, limits=Limits(auth_grace=0.0))
    people(simulation.directory)
    return simulation


@pytest.fixture
def admin(simulation: Simulation) -> Program:
    """An administrator's page."""
    return program(simulation)


def program(simulation: Simulation, user: str = "root", **headers: str) -> Program:
    return Program(simulation, Cookie=f"session={user}", X_CSRFToken=TOKEN, Origin="http://localhost", **headers)


def member(simulation: Simulation, user: str = "alice", project: str = "p", **options: Any) -> SimulatedClient:
    client = simulation.connect(user, **options)
    client.call("join_project", {"project_id": project})
    return client


class TestWhoMay:
    @pytest.mark.parametrize("path", [*READING, *CHANGING])
    def test_only_administrators_get_in(self, simulation: Simulation, path: str) -> None:
        alice = member(simulation)
        method = "GET" if path in READING else "POST"
        for cookies in ({}, {"Cookie": "session=nobody"}, {"Cookie": "other=root"}):
            reply = Program(simulation, X_CSRFToken=TOKEN, **cookies).request(method, path)
            assert reply.error == (401, "authentication_required")
        assert program(simulation, "alice").request(method, path).error == (403, "admin_required")
        simulation.directory.add_user("root", active=False)
        assert program(simulation).request(method, path).error == (401, "authentication_required")
        assert alice.connected
        assert alice.events("moderation_update") == []

    def test_who_is_no_administrator_any_more_is_out_at_once(self, simulation: Simulation, admin: Program) -> None:
        assert admin.request("GET", STATUS).status == 200
        simulation.directory.admins.clear()
        assert admin.request("GET", STATUS).error == (403, "admin_required")

    @pytest.mark.parametrize("path", CHANGING)
    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({"X_CSRFToken": ""}, "invalid_csrf_token"),
            ({"X_CSRFToken": TOKEN + "x"}, "invalid_csrf_token"),
            ({"Origin": "https://evil.example"}, "other_origin"),
            ({"Origin": "null"}, "other_origin"),
        ],
    )
    def test_a_change_has_to_come_from_a_page_of_ours(
        self, simulation: Simulation, path: str, headers: dict[str, str], code: str
    ) -> None:
        alice = member(simulation)
        path = path.replace("/x/", f"/{alice.sid}/")
        assert program(simulation).request("POST", path, **headers).error == (403, code)
        assert alice.connected
        assert alice.events("moderation_update") == []

    def test_the_other_name_of_the_header(self, simulation: Simulation, admin: Program) -> None:
        reply = admin.request("POST", CHANGING[2], X_CSRFToken="", X_CSRF_Token=TOKEN)
        assert reply.status == 202

    def test_the_command_line_sees_the_status_and_nothing_else(self, simulation: Simulation) -> None:
        command = Program(simulation, Authorization="Bearer command")
        assert command.request("GET", STATUS).status == 200
        for method, paths in (("GET", READING[1:]), ("POST", CHANGING)):
            for path in paths:
                assert command.request(method, path).error == (401, "authentication_required")
        stranger = Program(simulation, Authorization="Bearer x")
        assert stranger.request("GET", STATUS).error == (401, "invalid_token")

    @pytest.mark.parametrize(
        "path",
        ["/api/admin/", "/api/admin/x", "/api/admin/sessions/", "/api/admin/sessions//end", "/api/admin/users/u",
         "/api/admin/status/x", "/api/admin/rooms/"],
    )  # fmt: skip
    def test_there_is_nothing_else(self, admin: Program, path: str) -> None:
        assert admin.request("GET", path).error == (404, "not_found")

    def test_methods(self, admin: Program) -> None:
        assert admin.request("POST", STATUS).error == (405, "method_not_allowed")
        assert admin.request("GET", CHANGING[0]).error == (405, "method_not_allowed")

    def test_below_a_prefix_where_an_application_is_mounted(self) -> None:
        simulation = Simulation(api=ApiOptions(prefix="/realtime", about={"node": "a"}))
        people(simulation.directory)
        admin = program(simulation, prefix="/realtime")
        assert admin.request("GET", "/realtime" + STATUS).status == 200
        assert admin.request("GET", STATUS).status == 404, "the application's"


class TestStatus:
    def test_a_node_and_who_is_there(self, simulation: Simulation, admin: Program) -> None:
        member(simulation, headers={"User-Agent": CHROME})
        member(simulation, "bob", transport="polling", headers={"User-Agent": "python-requests/2.32"})
        member(simulation, "bob", "q", headers={"User-Agent": CHROME})
        simulation.publish("p", "stats_update", {})
        (node,) = admin.request("GET", STATUS).json.pop("nodes")
        assert (node["node"], node["version"]) == ("a", "1")
        counts = {name: node[name] for name in ("sessions", "users", "rooms", "memberships")}
        assert counts == {"sessions": 3, "users": 2, "rooms": 2, "memberships": 3}
        assert node["transports"] == {"polling": 1, "websocket": 2}
        assert node["clients"] == [
            {"client": "Chrome 126", "sessions": 2}, {"client": "python-requests/2.32", "sessions": 1}
        ]  # fmt: skip
        assert (node["other_clients"], node["updates_total"], node["deliveries_total"]) == (0, 1, 2)
        assert node["backplane"] == {}, "a node by itself has none"

    def test_only_some_kinds_of_clients_are_named(self, simulation: Simulation, admin: Program) -> None:
        for number in range(MAX_CLIENTS + 5):
            simulation.connect("alice", headers={"User-Agent": f"client/{number:03}"})
        (node,) = admin.request("GET", STATUS).json["nodes"]
        assert (len(node["clients"]), node["other_clients"]) == (MAX_CLIENTS, 5)

    def test_what_was_refused(self, simulation: Simulation, admin: Program) -> None:
        alice = member(simulation)
        alice.call("join_project", {"project_id": "q"})
        simulation.advance(2.0)
        alice.call("join_project", {"project_id": "x" * 200})
        alice.call("join_project", 7)
        simulation.connect(None)
        (node,) = admin.request("GET", STATUS).json["nodes"]
        refusals = node["refusals"]
        assert refusals["codes"] == {
            "access_denied": 1, "authentication_required": 1, "invalid_project_id": 1, "project_id_required": 1
        }  # fmt: skip
        newest = [(each["code"], each["user_id"], each["project_id"]) for each in refusals["newest"]]
        assert newest == [
            ("authentication_required", None, None), ("project_id_required", "alice", None),
            ("invalid_project_id", "alice", "x" * 100), ("access_denied", "alice", "q"),
        ]  # fmt: skip
        assert refusals["newest"][-1]["seconds_ago"] >= 2.0
        assert refusals["newest"][-1]["address"] == "10.0.0.1"

    def test_what_waits_for_slow_clients(self, simulation: Simulation, admin: Program) -> None:
        alice = member(simulation)
        alice.stall()
        polling = member(simulation, "bob", transport="polling")
        polling.stall()
        for _ in range(3):
            simulation.publish("p", "stats_update", {"text": "x" * 1000})
        rows = admin.request("GET", SESSIONS).json["sessions"]
        assert [row["username"] for row in rows] == ["Alice", "Bob"]
        assert all(row["waiting_bytes"] > 1000 for row in rows), rows
        (node,) = admin.request("GET", STATUS).json["nodes"]
        assert node["waiting_bytes"] == sum(row["waiting_bytes"] for row in rows)


class TestRates:
    def test_deliveries_a_second_once_somebody_has_asked(self, simulation: Simulation, admin: Program) -> None:
        member(simulation)
        member(simulation, "bob", transport="polling")
        simulation.publish("p", "stats_update", {})
        (room,) = admin.request("GET", ROOMS).json["rooms"]
        assert room == {"project_id": "p", "members": 2, "deliveries_per_second": None}
        for _ in range(8):
            simulation.publish("p", "stats_update", {})
        simulation.advance(4.0)
        (room,) = admin.request("GET", ROOMS + "?sort=deliveries").json["rooms"]
        assert 3.5 <= room["deliveries_per_second"] <= 4.0
        (node,) = admin.request("GET", STATUS).json["nodes"]
        assert node["deliveries_per_second"] == pytest.approx(room["deliveries_per_second"], abs=0.2)
        simulation.advance(30.0)
        (room,) = admin.request("GET", ROOMS).json["rooms"]
        assert room["deliveries_per_second"] == 0.0
        simulation.advance(60.0)
        assert admin.request("GET", ROOMS).json["rooms"][0]["deliveries_per_second"] is None, "it has begun anew"

    def test_what_is_told_of_who_is_there_is_counted_too(self, simulation: Simulation, admin: Program) -> None:
        watching, looking = simulation.connect("alice"), simulation.connect("bob")
        for client in (watching, looking):
            client.call("join_project", {"project_id": "p", "presence": True})
        simulation.advance(5.0)
        admin.request("GET", ROOMS)
        looking.emit("looking_at", {"project_id": "p", "content_id": "c"})
        simulation.advance(2.0)
        assert watching.events("presence_looking") != []
        (node,) = admin.request("GET", STATUS).json["nodes"]
        assert node["deliveries_per_second"] > 0


class TestRooms:
    def test_rooms_by_members_and_by_their_names(self, simulation: Simulation, admin: Program) -> None:
        for user, project in (("alice", "p"), ("bob", "p"), ("bob", "q")):
            member(simulation, user, project)
        answer = admin.request("GET", ROOMS).json
        assert [(room["project_id"], room["members"]) for room in answer["rooms"]] == [("p", 2), ("q", 1)]
        assert (answer["total"], answer["silent"], answer["problem"]) == (2, [], None)
        assert [room["project_id"] for room in admin.request("GET", ROOMS + "?search=Q").json["rooms"]] == ["q"]
        page = admin.request("GET", ROOMS + "?offset=1&limit=1").json
        assert ([room["project_id"] for room in page["rooms"]], page["total"]) == (["q"], 2)

    def test_a_room_with_its_members_and_its_last_updates(self, simulation: Simulation, admin: Program) -> None:
        member(simulation)
        ids = [simulation.publish("p", "stats_update", {"n": number}) for number in range(3)]
        room = admin.request("GET", "/api/admin/rooms/p?updates=2").json
        assert room == {
            "project_id": "p", "nodes": [{"node": "a", "sessions": 1}], "last_event_id": ids[-1],
            "updates": [{"event": "stats_update", "data": {"n": n, "event_id": ids[n]}} for n in (1, 2)],
            "silent": [], "problem": None,
        }  # fmt: skip
        assert admin.request("GET", "/api/admin/rooms/p?updates=0").json["updates"] == []
        assert admin.request("GET", "/api/admin/rooms/q").json["nodes"] == [{"node": "a", "sessions": 0}]

    def test_there_is_no_such_project(self, admin: Program) -> None:
        for project in ("x", "x" * 101, "p/q"):
            assert admin.request("GET", f"/api/admin/rooms/{project}").error == (404, "project_not_found")
            path = f"/api/admin/rooms/{project}/test-update"
            assert admin.request("POST", path).error == (404, "project_not_found")

    @pytest.mark.parametrize(
        "query",
        ["limit=0", f"limit={MAX_PAGE + 1}", "limit=x", "limit=-1", "limit=", "limit=%C2%B2", "offset=-1",
         f"offset={MAX_ROWS}", "offset=99999999999999999999", "offset=0000000009999999999", "sort=name",
         "search=" + "x" * 201],
    )  # fmt: skip
    def test_a_bad_query(self, admin: Program, query: str) -> None:
        assert admin.request("GET", f"{ROOMS}?{query}").error == (400, "invalid_request")

    def test_a_bad_number_of_updates(self, admin: Program) -> None:
        assert admin.request("GET", "/api/admin/rooms/p?updates=201").error == (400, "invalid_request")


class TestSessions:
    def test_what_is_said_of_a_session(self, simulation: Simulation, admin: Program) -> None:
        alice = member(simulation, headers={"User-Agent": CHROME}, address="10.0.0.7")
        answer = admin.request("GET", SESSIONS).json
        assert answer.pop("sessions") == [
            {
                "sid": alice.sid, "node": "a", "user_id": "alice", "username": "Alice", "address": "10.0.0.7",
                "transport": "websocket", "client": "Chrome 126", "user_agent": CHROME, "state": "active",
                "rooms": [{"project_id": "p", "state": "joined"}], "rooms_total": 1, "waiting_bytes": 0,
            }
        ]  # fmt: skip
        assert answer == {"total": 1, "silent": [], "problem": None}

    def test_those_of_a_user_of_a_room_and_those_that_are_searched_for(
        self, simulation: Simulation, admin: Program
    ) -> None:
        alice = member(simulation, headers={"User-Agent": "Lynx/2"})
        bob = member(simulation, "bob", "q", address="10.0.0.7")

        def found(query: str) -> list[str]:
            return [row["sid"] for row in admin.request("GET", f"{SESSIONS}?{query}").json["sessions"]]

        assert (found("user_id=alice"), found("user_id=x")) == ([alice.sid], [])
        assert (found("project_id=q"), found("project_id=x")) == ([bob.sid], [])
        assert (found("search=lynx"), found("search=ALICE"), found("search=10.0.0.7")) == (
            [alice.sid], [alice.sid], [bob.sid]
        )  # fmt: skip
        assert (found(f"search={alice.sid}"), found("search=zzz")) == ([alice.sid], [])
        assert found("project_id=q&search=alice") == []

    def test_only_some_rooms_of_a_session_are_named(self, simulation: Simulation, admin: Program) -> None:
        alice = simulation.connect("alice")
        for number in range(MAX_ROOMS + 2):
            simulation.directory.add_project(f"p{number}", owner="alice")
            alice.call("join_project", {"project_id": f"p{number}"})
        (row,) = admin.request("GET", SESSIONS).json["sessions"]
        assert (len(row["rooms"]), row["rooms_total"]) == (MAX_ROOMS, MAX_ROOMS + 2)

    def test_a_session_of_nobody_yet(self, simulation: Simulation, admin: Program) -> None:
        slow = Simulation(api=OPTIONS, limits=Limits(auth_grace=5.0))
        people(slow.directory)
        slow.connect(None)
        (row,) = program(slow).request("GET", SESSIONS + "?search=websocket").json["sessions"]
        assert (row["state"], row["user_id"], row["username"]) == ("ending", None, None)


class TestActing:
    @pytest.fixture(autouse=True)
    def _log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "automoderate.admin")

    @pytest.mark.parametrize("transport", ["websocket", "polling"])
    def test_ending_a_session(
        self, simulation: Simulation, admin: Program, caplog: pytest.LogCaptureFixture, transport: Any
    ) -> None:
        alice, other = member(simulation, transport=transport), member(simulation)
        reply = admin.request("POST", f"/api/admin/sessions/{alice.sid}/end")
        assert (reply.status, reply.json) == (202, {"status": "accepted", "user_id": "alice", "username": "Alice"})
        assert alice.ended == "io server disconnect"
        assert other.connected
        simulation.publish("p", "stats_update", {})
        simulation.run()
        assert (alice.events("stats_update"), len(other.events("stats_update"))) == ([], 1)
        assert simulation.server.stats()["memberships"] == 1
        assert caplog.messages == [f"The admin 'Root' ('root') ended the session {alice.sid} of 'Alice' ('alice')"]
        assert admin.request("POST", f"/api/admin/sessions/{alice.sid}/end").error == (404, "session_not_found")
        assert len(caplog.messages) == 1, "where nothing was done nothing is said"

    def test_ending_a_session_of_nobody(
        self, simulation: Simulation, admin: Program, caplog: pytest.LogCaptureFixture
    ) -> None:
        slow = Simulation(api=OPTIONS, limits=Limits(auth_grace=5.0))
        people(slow.directory)
        visitor = slow.connect(None)
        reply = program(slow).request("POST", f"/api/admin/sessions/{visitor.sid}/end")
        assert reply.json == {"status": "accepted", "user_id": None, "username": None}
        assert caplog.messages == [f"The admin 'Root' ('root') ended the session {visitor.sid} of nobody"]

    def test_ending_a_user(self, simulation: Simulation, admin: Program, caplog: pytest.LogCaptureFixture) -> None:
        alice = [member(simulation), member(simulation)]
        bob = member(simulation, "bob")
        reply = admin.request("POST", "/api/admin/users/alice/end")
        assert (reply.status, reply.json) == (202, {"status": "accepted", "sessions": 2})
        assert [client.ended for client in alice] == ["io server disconnect"] * 2
        assert bob.connected
        assert caplog.messages == ["The admin 'Root' ('root') ended all sessions of the user 'alice', 2 at the time"]
        assert admin.request("POST", "/api/admin/users/alice/end").json["sessions"] == 0, "but there is such a user"
        assert admin.request("POST", "/api/admin/users/x/end").error == (404, "user_not_found")
        assert len(caplog.messages) == 2

    def test_publishing_a_test_update(
        self, simulation: Simulation, admin: Program, caplog: pytest.LogCaptureFixture
    ) -> None:
        alice = member(simulation)
        reply = admin.request("POST", "/api/admin/rooms/p/test-update")
        event_id = reply.json["event_id"]
        text = "A test update by Root"
        sent = {"project_id": "p", "status": "approved", "content_preview": text, "event_id": event_id}
        assert (reply.status, alice.events("moderation_update")) == (202, [sent])
        assert caplog.messages == [f"The admin 'Root' ('root') published the test update {event_id} to the project 'p'"]
        admin.request("POST", "/api/admin/rooms/p/test-update", {"status": "flagged"})
        assert alice.events("moderation_update")[-1]["status"] == "flagged"

    @pytest.mark.parametrize(
        ("path", "part", "intent"),
        [
            ("sessions/x%0Ay/end", "ask", "to end the session 'x\\ny'"),
            ("users/bob/end", "announce", "to end all sessions of the user 'bob'"),
            ("rooms/p/test-update", "publish_all", "to publish a test update to the project 'p'"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("leaves", [True, False])
    def test_what_was_begun_is_logged_where_nobody_hears_what_came_of_it(
        self, simulation: Simulation, admin: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
        path: str, part: str, intent: str, leaves: bool,
    ) -> None:  # fmt: skip
        """Else who drops the connection, or acts while Redis is away, leaves no trace."""
        monkeypatch.setattr(simulation.server.backplane, part, lambda *_: Future())
        admin.send("POST", f"/api/admin/{path}")
        simulation.advance(1.0)
        if leaves:
            admin.connection.cut()
        simulation.advance(20.0)
        assert caplog.messages == [f"The admin 'Root' ('root') asked {intent}; whether it was done is not known"]

    @pytest.mark.parametrize(
        ("body", "code"),
        [(b"{", "invalid_json"), ([], "invalid_json"), ({"status": "great"}, "invalid_request"),
         ({"status": ["approved"]}, "invalid_request")],
    )  # fmt: skip
    def test_a_bad_test_update(self, simulation: Simulation, admin: Program, body: Any, code: str) -> None:
        alice = member(simulation)
        assert admin.request("POST", "/api/admin/rooms/p/test-update", body).error == (400, code)
        assert alice.events("moderation_update") == []

    def test_a_line_break_in_a_name_begins_no_line_of_the_log(
        self, simulation: Simulation, admin: Program, caplog: pytest.LogCaptureFixture
    ) -> None:
        simulation.directory.add_user("eve", username="Eve\n2026 root did it")
        eve = simulation.connect("eve")
        assert admin.request("POST", f"/api/admin/sessions/{eve.sid}/end").status == 202
        assert "\n" not in caplog.messages[0]


class TestBounds:
    def test_however_many_there_are_each_turn_does_a_slice(
        self, simulation: Simulation, admin: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("automoderate.server.inspection.SLICE", 3)
        clients = [member(simulation) for _ in range(10)]
        admin.request("GET", STATUS)
        turns: list[int] = []
        tick = simulation.server.tick

        def counted(now: float) -> None:
            turns.append(len(turns))
            tick(now)

        monkeypatch.setattr(simulation.server, "tick", counted)
        admin.request("GET", SESSIONS)
        assert len(turns) >= 10 // 3 + 10 // 3, "so many slices to sort them, and to say what they are"
        turns.clear()
        admin.send("GET", SESSIONS)
        clients[0].cut()  # between two slices
        simulation.run()
        assert admin.replies[-1].json["total"] in (9, 10)
        assert SLICE >= 100

    def test_too_many_questions_are_not_begun(
        self, simulation: Simulation, admin: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slices, "MOST", 0)
        assert admin.request("GET", STATUS).error == (429, "busy")
        monkeypatch.setattr(slices, "MOST", 1)
        monkeypatch.setattr(gathering, "MOST_ASKING", 0)
        assert admin.request("GET", STATUS).error == (429, "busy")


class TestSeveralNodes:
    @pytest.fixture
    def nodes(self) -> Nodes:
        nodes = Nodes(api=OPTIONS, limits=Limits(auth_grace=0.0), max_delay=0.1)
        people(nodes.directory)
        return nodes

    @pytest.fixture
    def admin(self, nodes: Nodes) -> Program:
        return program(nodes[0])

    def test_all_nodes_are_seen_from_each(self, nodes: Nodes, admin: Program) -> None:
        clients = [member(nodes[number]) for number in (0, 1, 1)]
        for page in (admin, program(nodes[1])):
            answer = page.request("GET", STATUS).json
            assert [(node["node"], node["sessions"]) for node in answer["nodes"]] == [("node 1", 1), ("node 2", 2)]
            assert (answer["silent"], answer["problem"]) == ([], None)
        rooms = admin.request("GET", ROOMS).json["rooms"]
        assert [(room["project_id"], room["members"]) for room in rooms] == [("p", 3)]
        sessions = admin.request("GET", SESSIONS).json["sessions"]
        assert {(row["sid"], row["node"]) for row in sessions} == {
            (clients[0].sid, "node 1"), (clients[1].sid, "node 2"), (clients[2].sid, "node 2")
        }  # fmt: skip
        room = admin.request("GET", "/api/admin/rooms/p").json
        assert room["nodes"] == [{"node": "node 1", "sessions": 1}, {"node": "node 2", "sessions": 2}]

    def test_a_session_and_a_user_are_ended_wherever_they_are(self, nodes: Nodes, admin: Program) -> None:
        first, second, bob = member(nodes[1]), member(nodes[1]), member(nodes[1], "bob")
        assert admin.request("POST", f"/api/admin/sessions/{first.sid}/end").status == 202
        assert (first.ended, second.ended) == ("io server disconnect", None)
        assert admin.request("POST", "/api/admin/users/alice/end").json["sessions"] == 1
        assert second.ended == "io server disconnect"
        assert bob.connected
        assert admin.request("POST", "/api/admin/sessions/x/end").error == (404, "session_not_found")

    def test_a_test_update_reaches_the_other_node(self, nodes: Nodes, admin: Program) -> None:
        alice = member(nodes[1])
        assert admin.request("POST", "/api/admin/rooms/p/test-update").status == 202
        assert len(alice.events("moderation_update")) == 1

    def test_a_node_that_says_nothing_is_named_and_not_waited_for(
        self, nodes: Nodes, admin: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(nodes[1].server, "receive", lambda _items, _now: None)
        began = nodes.now
        answer = admin.request("GET", STATUS).json
        assert nodes.now - began < 3.0
        assert [node["node"] for node in answer["nodes"]] == ["node 1"]
        assert answer["silent"] == [{"node": "node 2", "seconds": None}]
        reply = admin.request("POST", "/api/admin/sessions/x/end")
        assert reply.error == (503, "unavailable"), "it may be there"
        assert "asked to end the session 'x'; whether it was done is not known" in caplog.text

    @pytest.mark.parametrize(
        "said",
        [
            "", "{", "[]", "7", '{"node": "b"}', '{"node": "b", "answer": []}', '{"node": "b", "answer": {}}',
            '{"node": "b", "answer": {"total": "1", "sessions": []}}', "[" * 100_000,
            '{"node": "b", "answer": {"total": 1, "sessions": [{"sid": "1"}]}}',
            '{"node": "b", "answer": {"total": 1, "sessions": [{"sid": 1, "waiting_bytes": 0}]}}',
        ],
    )  # fmt: skip
    def test_what_is_no_answer_is_none(
        self, nodes: Nodes, admin: Program, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        answered(monkeypatch, nodes, lambda: [NodeAnswer("b", said, 1.5)])
        answer = admin.request("GET", SESSIONS).json
        assert (answer["sessions"], answer["silent"]) == ([], [{"node": "b", "seconds": 1.5}])

    def test_where_nobody_can_be_asked_this_node_answers_for_itself(
        self, nodes: Nodes, admin: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> Sequence[NodeAnswer]:
            raise BackplaneUnavailable("Redis is away")

        answered(monkeypatch, nodes, fail)
        answer = admin.request("GET", STATUS).json
        assert [node["node"] for node in answer["nodes"]] == ["node 1"]
        assert answer["problem"] == "Redis is away"
        assert admin.request("POST", "/api/admin/sessions/x/end").error == (503, "unavailable")

    @pytest.mark.parametrize(
        "question", ["", "{", "[" * 100_000, "7", '{"what": "secrets"}', '{"what": "end"}', '{"what": "end", "sid": 7}']
    )
    def test_what_is_no_question_is_not_answered(
        self, nodes: Nodes, question: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = heard(monkeypatch, nodes)
        nodes[0].hear([Asked(question, "x")], 0.0)
        nodes[0].hear([Asked('{"what": "end", "sid": "none"}', "y")], 0.0)
        nodes.run()
        assert answers == [("y", {"node": "node 1", "answer": {"ended": None}})]

    def test_what_fails_and_what_is_too_much_is_not_answered(
        self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = heard(monkeypatch, nodes)

        def fail(**_: object) -> list[str]:
            raise RuntimeError("it broke")

        monkeypatch.setattr(hub.Hub, "sids", fail)
        nodes[0].hear([Asked('{"what": "status"}', "x")], 0.0)
        nodes.run()
        monkeypatch.setattr(slices, "MOST", 0)
        nodes[0].hear([Asked('{"what": "rooms"}', "y")], 0.0)
        nodes.run()
        assert answers == []

    def test_a_server_without_an_api_answers_nothing(self, nodes: Nodes) -> None:
        server = Server(nodes.directory, MemoryBackplane(), new_id=lambda: "x", random=lambda: 0.5)
        server.receive([Asked('{"what": "status"}', "x")], 0.0)
        assert server.next_deadline() is None


def answered(monkeypatch: pytest.MonkeyPatch, nodes: Nodes, job: Callable[[], Sequence[NodeAnswer]]) -> None:
    """Have a worker thread say what other nodes answer."""
    monkeypatch.setattr(nodes[0].server.backplane, "ask", lambda _question: job)


def heard(monkeypatch: pytest.MonkeyPatch, nodes: Nodes) -> list[tuple[str, Any]]:
    """What the first node answers, and where."""
    answers: list[tuple[str, Any]] = []

    def answer(reply_to: str, text: str) -> None:
        answers.append((reply_to, json.loads(text)))

    monkeypatch.setattr(nodes[0].server.backplane, "answer", answer)
    return answers
