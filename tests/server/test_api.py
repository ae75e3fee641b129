"""The HTTP API in the simulated network: what programs are answered, and that success is never claimed without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from automoderate.core.hub import History, Update
from automoderate.metrics import exposition
from automoderate.protocol.config import Config
from automoderate.server import keys, requests
from automoderate.server.api import ApiOptions
from automoderate.server.interfaces import BackplaneBusy, BackplaneRefused, BackplaneUnavailable, ProjectUnusable
from automoderate.server.jobs import UNDER_WAY
from automoderate.server.keys import BELIEVED
from automoderate.server.publications import MAX_BODY, MAX_DATA, MAX_EVENTS, MAX_LINES
from automoderate.server.rooms import MAX_QUEUED
from automoderate.testing import Faults, MemoryDirectory, Nodes, SimulatedClient, Simulation
from kits.simulated_http import Program, Reply

KEY, PATH = "am_key", "/api/projects/p/events"
UPDATE = {"event": "moderation_update", "data": {"content_id": "c1", "status": "approved"}}


def people(directory: MemoryDirectory) -> None:
    directory.add_user("alice")
    directory.add_user("bob")
    directory.add_user("gone", active=False)
    directory.add_project("p", owner="alice")
    directory.add_project("q", owner="alice")
    directory.keys.update({KEY: "p", "am_other": "q"})


@pytest.fixture
def simulation() -> Simulation:
    def refusal(token: str) -> tuple[str, str] | None:
        return None if token == "command" else ("invalid_token", "It is not valid")

    simulation = Simulation(api=ApiOptions(refusal=refusal, exposition=exposition))
    people(simulation.directory)
    return simulation


@pytest.fixture
def program(simulation: Simulation) -> Program:
    return Program(simulation, X_API_Key=KEY)


@pytest.fixture
def alice(simulation: Simulation) -> SimulatedClient:
    """In the room."""
    alice = simulation.connect("alice")
    alice.call("join_project", {"project_id": "p"})
    return alice


class TestPublishing:
    def test_the_answer_has_the_event_id_and_the_room_has_the_update(
        self, program: Program, alice: SimulatedClient
    ) -> None:
        reply = program.request("POST", PATH, UPDATE)
        assert reply.status == 202
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"
        expected = {"content_id": "c1", "status": "approved", "project_id": "p", **reply.json}
        assert alice.events("moderation_update") == [expected]

    @pytest.mark.parametrize("event", ["content_received", "stats_update", "rule_update"])
    def test_the_other_events(self, program: Program, alice: SimulatedClient, event: str) -> None:
        assert program.request("POST", PATH, {"event": event, "data": {"any": ["thing", 1]}}).status == 202
        assert alice.events(event)[0]["any"] == ["thing", 1]

    def test_the_content_type_does_not_matter(self, program: Program) -> None:
        assert program.request("POST", PATH, UPDATE, Content_Type="text/plain").status == 202

    def test_one_connection_keeps_the_order(self, program: Program, alice: SimulatedClient) -> None:
        for number in range(50):
            program.request("POST", PATH, {"event": "stats_update", "data": {"n": number}})
        assert [data["n"] for data in alice.events("stats_update")] == list(range(50))
        assert len(program.simulation.connections()) == 2, "one of the program's, one of the client's"

    @pytest.mark.parametrize("key", ["", "am_wrong", KEY + "x", KEY.upper(), "\xe4", "x" * 300, "' OR 1=1 --"])
    def test_without_a_valid_key_nothing_is_published(
        self, simulation: Simulation, alice: SimulatedClient, key: str
    ) -> None:
        reply = Program(simulation, X_API_Key=key).request("POST", PATH, UPDATE)
        assert reply.error == (401, "invalid_api_key")
        assert "www-authenticate" in reply.headers
        assert Program(simulation).request("POST", PATH, UPDATE).error == (401, "invalid_api_key")
        assert alice.events("moderation_update") == []

    def test_a_session_is_no_key(self, simulation: Simulation) -> None:
        browser = Program(simulation, Cookie="session=alice")
        assert browser.request("POST", PATH, UPDATE).error == (401, "invalid_api_key")

    def test_a_key_is_for_its_own_project(self, program: Program) -> None:
        for project_id in ("q", "none", "p/q", ""):
            reply = program.request("POST", f"/api/projects/{project_id}/events", UPDATE)
            assert reply.error == (403, "access_denied")

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "invalid_json"),
            (b"{", "invalid_json"),
            (b"\xff\xfe", "invalid_json"),
            (b"[" * 100_000, "invalid_json"),
            (b"1" * 5000, "invalid_json"),
            (b'{"event": "stats_update", "data": {"x": NaN}}', "invalid_json"),
            ([], "invalid_json"),
            ("text", "invalid_json"),
            ({}, "invalid_event"),
            ({"event": "moderation_update"}, "invalid_event"),
            ({"event": "connected", "data": {}}, "invalid_event"),
            ({"event": ["moderation_update"], "data": {}}, "invalid_event"),
            ({"event": "moderation_update", "data": []}, "invalid_event"),
            ({"event": "moderation_update", "data": {"status": "great"}}, "invalid_event"),
            ({"event": "moderation_update", "data": {"status": ["approved"]}}, "invalid_event"),
            ({"event": "moderation_update", "data": {"project_id": "another"}}, "invalid_event"),
            (b'{"event": "stats_update", "data": {"x": 1e999}}', "invalid_event"),
            (b'{"event": "stats_update", "data": {"x": "\\ud800"}}', "invalid_event"),
            (b'{"event": "stats_update", "data": {"x": "\\uDFFF"}}', "invalid_event"),
            ('{"event": "stats_update", "data": {"x": "\\ud800"}}'.encode("utf-16"), "invalid_event"),
            ('{"event": "stats_update", "data": {"x": "\\uDFFF"}}'.encode("utf-32-be"), "invalid_event"),
            (b'{"event": "stats_update", "data": {"x": "\xed\xa0\x80"}}', "invalid_json"),
            (b'{"event": "stats_update", "data": {"x": 12345678901234567890, "\xed\xbf\xbf": 1}}', "invalid_json"),
            (b'{"event": "stats_update", "data": {"x": %b}}' % (b"[" * 254 + b"]" * 254), "invalid_event"),
            ({"events": []}, "invalid_request"),
            ({"events": {}}, "invalid_request"),
            ({"events": [UPDATE] * (MAX_EVENTS + 1)}, "invalid_request"),
            ({"events": [UPDATE, 7]}, "invalid_event"),
            ({"events": [UPDATE, {"event": "stats_update", "data": {"x": 1}}, {}]}, "invalid_event"),
        ],
    )
    def test_a_bad_body_is_explained_and_publishes_nothing(
        self, program: Program, alice: SimulatedClient, body: Any, code: str
    ) -> None:
        assert program.request("POST", PATH, body).error == (400, code)
        assert [event.event for event in alice.received[1:]] == ["joined_project"]
        assert program.request("POST", PATH, UPDATE).status == 202, "the connection goes on"

    def test_the_data_travels_as_it_is(self, program: Program, alice: SimulatedClient) -> None:
        data = {"deep": {"list": [1, 2.5, None, True, "\U0001f600 \u00e9", {}]}, "large": 2**70, "event_id": "forged"}
        assert program.request("POST", PATH, {"event": "stats_update", "data": data}).status == 202
        (received,) = alice.events("stats_update")
        assert {name: received[name] for name in ("deep", "large")} == {"deep": data["deep"], "large": 2**70}
        assert received["event_id"] != "forged"

    def test_however_deep_it_is_nested_it_is_published_or_refused(
        self, simulation: Simulation, program: Program, alice: SimulatedClient
    ) -> None:
        other = simulation.connect("alice")
        other.call("join_project", {"project_id": "p", "statuses": ["flagged"]})
        statuses = []
        for depth in (253, *range(254, 1000, 2)):
            data = b'{"status": "flagged", "x": %b}' % (b"[" * depth + b"]" * depth)
            statuses.append(program.request("POST", PATH, b'{"event": "moderation_update", "data": %b}' % data).status)
        assert statuses == [202, *[400] * (len(statuses) - 1)]
        assert len(alice.events("moderation_update")) == len(other.events("moderation_update")) == 1

    def test_a_server_that_is_shutting_down_publishes_nothing(self, simulation: Simulation, program: Program) -> None:
        assert program.request("POST", PATH, UPDATE).status == 202
        simulation.drain()
        reply = program.request("POST", PATH, UPDATE)
        assert reply.error == (503, "unavailable")
        assert reply.headers["retry-after"] == "5"
        assert reply.headers["connection"] == "close"


class TestLeaving:
    """A client that goes before it was answered."""

    @pytest.mark.parametrize("path", [PATH, "/page"], ids=["in the middle of its body", "from a page"])
    def test_nothing_is_published_and_others_are_served(
        self, simulation: Simulation, program: Program, alice: SimulatedClient, path: str
    ) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 100\r\n\r\n"
        program.connection.send(head.encode() + b'{"event": ')
        simulation.call(program.connection.cut)  # as soon as that has come, and before anything is answered
        simulation.run()
        assert Program(simulation, X_API_Key=KEY).request("POST", PATH, UPDATE).status == 202
        assert len(alice.events("moderation_update")) == 1

    def test_while_its_key_is_asked_about(self) -> None:
        simulation = Simulation(faults=Faults(max_job_time=5.0), api=ApiOptions())
        people(simulation.directory)
        program = Program(simulation, X_API_Key=KEY)
        program.send("POST", PATH, UPDATE)
        while not simulation.server.stats()["jobs"]:
            simulation.advance(0.001)
        program.connection.cut()
        simulation.advance(60)
        assert program.replies == []
        assert simulation.server.stats()["jobs"] == 0
        assert simulation.server.stats()["updates_total"] == 0


class TestMany:
    def test_all_are_published_in_order(self, program: Program, alice: SimulatedClient) -> None:
        events = [{"event": "stats_update", "data": {"n": number}} for number in range(MAX_EVENTS)]
        reply = program.request("POST", PATH, {"events": events})
        assert reply.status == 202
        received = alice.events("stats_update")
        assert [data["n"] for data in received] == list(range(MAX_EVENTS))
        assert reply.json == {"event_ids": [data["event_id"] for data in received]}

    def test_a_list_of_one_is_answered_as_a_list(self, program: Program) -> None:
        assert len(program.request("POST", PATH, {"events": [UPDATE]}).json["event_ids"]) == 1

    def test_lines_beyond_those_that_may_be_are_not_read(self, program: Program, alice: SimulatedClient) -> None:
        line = json.dumps(UPDATE).encode() + b"\n"
        for body in (b"{}\n" * MAX_EVENTS + line + b"no JSON", b"\n" * MAX_LINES + line):
            reply = program.request("POST", PATH, body, Content_Type="application/x-ndjson")
            assert reply.error == (400, "invalid_request")
        assert alice.events("moderation_update") == []
        reply = program.request("POST", PATH, (line + b"\n" * 9) * 20, Content_Type="application/x-ndjson")
        assert (reply.status, len(reply.json["event_ids"])) == (202, 20)

    @pytest.mark.parametrize("content_type", ["application/x-ndjson", "Application/X-NDJSON; charset=utf-8"])
    def test_a_line_each(self, program: Program, alice: SimulatedClient, content_type: str) -> None:
        lines = "\n\n".join(json.dumps({"event": "stats_update", "data": {"n": number}}) for number in range(3))
        reply = program.request("POST", PATH, f"{lines}\r\n".encode(), Content_Type=content_type)
        assert (reply.status, len(reply.json["event_ids"])) == (202, 3)
        assert [data["n"] for data in alice.events("stats_update")] == [0, 1, 2]

    @pytest.mark.parametrize(
        ("body", "message", "event"),
        [
            (b"", "There may be 1 to 1000 events", None),
            (b'{"event": "stats_update", "data": {}}\n{', "Line 2 is not JSON", None),
            (b'{"event": "stats_update", "data": {}}\n\n[]', "event 2: it must be a JSON object", 2),
            (b'{"event": "stats_update", "data": []}', "event 1: data must be an object", 1),
        ],
    )
    def test_the_error_says_which(
        self, program: Program, alice: SimulatedClient, body: bytes, message: str, event: int | None
    ) -> None:
        reply = program.request("POST", PATH, body, Content_Type="application/x-ndjson")
        error = reply.json["error"]
        assert (reply.status, error["message"], error.get("event")) == (400, message, event)
        assert alice.events("stats_update") == []


def of_size(size: int) -> bytes:
    """An update whose data has so many bytes."""
    frame = len('{"x":""}')
    return b'{"event":"stats_update","data":{"x":"' + b"y" * (size - frame) + b'"}}'


class TestSizes:
    def test_the_largest_data_is_taken_and_larger_is_not(self, program: Program) -> None:
        assert program.request("POST", PATH, of_size(MAX_DATA)).status == 202
        assert program.request("POST", PATH, of_size(MAX_DATA + 1)).error == (413, "too_large")
        euros = {"event": "stats_update", "data": {"x": "\u20ac" * (MAX_DATA // 3)}}
        assert program.request("POST", PATH, euros).error == (413, "too_large"), "bytes, not characters"

    def test_a_body_that_is_announced_as_too_large_is_not_waited_for(self, simulation: Simulation) -> None:
        program = Program(simulation, X_API_Key=KEY)
        program.begin("POST", PATH, MAX_BODY + 1)
        simulation.run()
        assert program.replies[0].error == (413, "too_large")
        assert program.replies[0].headers["connection"] == "close"

    def test_a_body_that_turns_out_too_large_is_refused(self, program: Program) -> None:
        reply = program.request("POST", PATH, b" " * (MAX_BODY + 1), Transfer_Encoding="chunked")
        assert reply.error == (413, "too_large")
        assert program.request("POST", PATH, UPDATE, Transfer_Encoding="chunked").status == 202

    def test_bodies_of_all_requests_together_are_bounded(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requests, "MAX_HELD", 1000)
        for kind in ("Content-Length", "Transfer-Encoding"):
            program = Program(simulation, X_API_Key=KEY)
            more = {"Transfer_Encoding": "chunked"} if kind == "Transfer-Encoding" else {}
            reply = program.request("POST", PATH, of_size(1100), **more)
            assert reply.error == (429, "busy")
            assert reply.headers["retry-after"] == "1"
            assert program.request("POST", PATH, of_size(500)).status == 202


class TestBehind:
    def test_more_requests_than_may_wait_are_put_off(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requests, "MAX_OPEN", 2)
        programs = [Program(simulation, X_API_Key=KEY) for _ in range(4)]
        for program in programs:
            program.send("POST", PATH, UPDATE)
        probe = Program(simulation)
        probe.send("GET", "/health")
        simulation.run()
        assert sorted(program.replies[0].status for program in programs) == [202, 202, 429, 429]
        assert probe.replies[0].status == 200
        assert all(program.request("POST", PATH, UPDATE).status == 202 for program in programs)

    @pytest.mark.parametrize("choice", [{}, {"statuses": ["flagged"]}])
    def test_a_room_that_is_behind_takes_no_more(
        self, simulation: Simulation, alice: SimulatedClient, choice: dict[str, Any]
    ) -> None:
        """What waits for its members is not written while the loop looks at other sockets."""
        alice.call("join_project", {"project_id": "p", **choice})
        server, program = simulation.server, Program(simulation, X_API_Key=KEY)
        assert program.request("POST", PATH, UPDATE).status == 202
        server.publish("p", "stats_update", '{"x":"' + "x" * (MAX_QUEUED // 2) + '"}', simulation.now)
        program.send("POST", PATH, UPDATE)
        while simulation._queue:
            simulation._queue.pop(0)[2]()
        assert [reply.status for reply in program.replies] == [202, 429]
        simulation.run()
        assert program.request("POST", PATH, UPDATE).status == 202


class TestKeys:
    def test_a_key_that_is_used_all_the_time_is_asked_about_now_and_then(
        self, simulation: Simulation, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Sequence[str]] = []
        answer = MemoryDirectory.key_projects_many

        def counted(directory: MemoryDirectory, keys: Sequence[str]) -> list[str | None]:
            asked.append(keys)
            return answer(directory, keys)

        monkeypatch.setattr(MemoryDirectory, "key_projects_many", counted)
        simulation.restart()
        program = Program(simulation, X_API_Key=KEY)
        for _ in range(200):
            assert program.request("POST", PATH, UPDATE).status == 202
            simulation.advance(0.1)
        assert 5 <= len(asked) <= 10
        assert set(asked) == {(KEY,)}

    def test_one_that_was_revoked_unannounced_stops_within_seconds(
        self, simulation: Simulation, program: Program
    ) -> None:
        assert program.request("POST", PATH, UPDATE).status == 202
        del simulation.directory.keys[KEY]
        published = 0
        while program.request("POST", PATH, UPDATE).status == 202:
            published += 1
            simulation.advance(0.2)
        assert published * 0.2 <= BELIEVED

    @pytest.mark.parametrize("user_id", [None, "bob"])
    def test_one_that_was_revoked_stops_with_the_announcement(
        self, simulation: Simulation, program: Program, user_id: str | None
    ) -> None:
        other = Program(simulation, X_API_Key="am_other")
        assert program.request("POST", PATH, UPDATE).status == 202
        assert other.request("POST", "/api/projects/q/events", UPDATE).status == 202
        simulation.directory.keys.clear()
        simulation.access_changed(project_id="p", user_id=user_id)
        assert program.request("POST", PATH, UPDATE).error == (401, "invalid_api_key")
        assert other.request("POST", "/api/projects/q/events", UPDATE).status == 202, "nothing was said of this one"

    def test_what_is_announced_of_everybody_and_everything_concerns_keys_and_of_one_user_does_not(
        self, simulation: Simulation, program: Program
    ) -> None:
        assert program.request("POST", PATH, UPDATE).status == 202
        simulation.directory.keys.clear()
        simulation.access_changed(user_id="bob")
        assert program.request("POST", PATH, UPDATE).status == 202
        simulation.access_changed()
        assert program.request("POST", PATH, UPDATE).error == (401, "invalid_api_key")

    def test_an_answer_from_before_the_announcement_is_not_remembered(self) -> None:
        simulation = Simulation(faults=Faults(max_job_time=0.5))
        people(simulation.directory)
        program = Program(simulation, X_API_Key=KEY)
        program.send("POST", PATH, UPDATE)
        while not len(simulation.server._jobs):
            simulation.advance(0.001)
        simulation.advance(0.4)
        simulation.directory.keys.clear()
        simulation.access_changed(project_id="p")
        simulation.run()
        assert program.request("POST", PATH, UPDATE).error == (401, "invalid_api_key")

    def test_no_more_keys_are_remembered_than_may(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "MOST", 1)
        for _ in range(2):
            for key, project_id in ((KEY, "p"), ("am_other", "q")):
                program = Program(simulation, X_API_Key=key)
                assert program.request("POST", f"/api/projects/{project_id}/events", UPDATE).status == 202


class Away(MemoryDirectory):
    """A directory that may be away."""

    away = True

    def key_projects_many(self, keys: Sequence[str]) -> list[str | None]:
        if self.away:
            raise OSError("the database is away")
        return super().key_projects_many(keys)

    def ping(self) -> None:
        raise OSError("the database is away")


class TestFailures:
    def test_a_directory_that_is_away_is_never_success(self, caplog: pytest.LogCaptureFixture) -> None:
        simulation = Simulation(directory=Away())
        for _ in range(10):
            reply = Program(simulation, X_API_Key=KEY).request("POST", PATH, UPDATE)
            assert reply.error == (503, "unavailable")
            assert b"database is away" not in reply.body
        assert caplog.messages == ["checks of who may see what fail: OSError: the database is away"]

    def test_a_key_that_is_known_goes_on_while_the_directory_is_away(self) -> None:
        directory = Away()
        people(directory)
        directory.away = False
        simulation = Simulation(directory=directory)
        program = Program(simulation, X_API_Key=KEY)
        assert program.request("POST", PATH, UPDATE).status == 202
        directory.away = True
        statuses = []
        for _ in range(30):
            statuses.append(program.request("POST", PATH, UPDATE).status)
            simulation.advance(0.2)
        assert set(statuses) == {202, 503}
        assert statuses == sorted(statuses)
        assert statuses.count(202) * 0.2 > BELIEVED / 2

    def test_a_directory_that_never_answers_is_no_success_either(self) -> None:
        simulation = Simulation(faults=Faults(max_job_time=1e9))
        people(simulation.directory)
        program = Program(simulation, X_API_Key=KEY)
        program.send("POST", PATH, UPDATE)
        simulation.advance(11.0)
        assert program.replies[0].error == (503, "unavailable")

    def test_a_mistake_of_ours_is_a_plain_500(
        self,
        simulation: Simulation,
        program: Program,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(simulation.server.backplane, "publish_all", fail)
        reply = program.request("POST", PATH, UPDATE)
        assert reply.error == (500, "internal_server_error")
        assert b"secret" not in reply.body
        assert "secret detail" in caplog.text

    def test_a_path_cannot_add_lines_to_the_log(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("automoderate.server.api.event_batch", lambda *_: 1 / 0)
        simulation.directory.keys["am_strange"] = "x\nERROR all is lost"
        program = Program(simulation, X_API_Key="am_strange")
        assert program.request("POST", "/api/projects/x%0AERROR%20all%20is%20lost/events", UPDATE).status == 500
        assert "\nERROR all" not in caplog.text
        assert "x\\nERROR" in caplog.text

    def test_a_client_that_goes_away_is_forgotten(self, simulation: Simulation, alice: SimulatedClient) -> None:
        for body in (b"", json.dumps(UPDATE).encode()):
            program = Program(simulation, X_API_Key=KEY)
            program.send("POST", PATH, body)
            program.connection.cut()
            simulation.run()
            assert program.replies == []
        half = Program(simulation, X_API_Key=KEY)
        half.begin("POST", PATH, 10)
        simulation.run()
        half.connection.cut()
        simulation.run()
        assert not simulation.server._api._pending._open  # type: ignore[union-attr]


class Slow:
    """What a backplane of several nodes answers: futures."""

    def __init__(self) -> None:
        self.futures: list[Future[Sequence[str]]] = []

    def publish_all(self, project_id: str, events: object) -> Future[Sequence[str]]:
        self.futures.append(Future())
        return self.futures[-1]


class TestSeveralNodes:
    def test_what_is_posted_to_one_node_comes_to_the_clients_of_both(self) -> None:
        nodes = Nodes(max_delay=0.5)
        people(nodes.directory)
        clients = [nodes[index].connect("alice") for index in (0, 1)]
        for client in clients:
            client.call("join_project", {"project_id": "p"})
        program = Program(nodes[0], X_API_Key=KEY)
        assert program.request("POST", PATH, UPDATE).status == 202
        reply = program.request("POST", PATH, {"events": [UPDATE, UPDATE]})
        nodes.run()
        received = [[data["event_id"] for data in client.events("moderation_update")] for client in clients]
        assert received[0] == received[1]
        assert received[0][1:] == reply.json["event_ids"]

    @pytest.fixture
    def slow(self, simulation: Simulation, program: Program, monkeypatch: pytest.MonkeyPatch) -> Slow:
        slow = Slow()
        monkeypatch.setattr(simulation.server.backplane, "publish_all", slow.publish_all)
        program.send("POST", PATH, UPDATE)
        simulation.run()
        assert program.replies == []
        return slow

    def test_the_answer_waits_for_what_the_nodes_share(
        self, simulation: Simulation, program: Program, slow: Slow
    ) -> None:
        slow.futures[0].set_result(["7-0"])
        simulation.run()
        assert program.replies[0].json == {"event_id": "7-0"}

    @pytest.mark.parametrize(
        ("error", "answer"),
        [(BackplaneUnavailable("away"), (503, "unavailable")), (BackplaneBusy("much waits"), (429, "busy"))],
    )
    def test_what_was_not_accepted_is_no_success(
        self, simulation: Simulation, program: Program, slow: Slow, error: Exception, answer: tuple[int, str]
    ) -> None:
        slow.futures[0].set_exception(error)
        simulation.run()
        assert program.replies[0].error == answer
        assert "retry-after" in program.replies[0].headers

    @pytest.mark.parametrize(
        ("error", "lines"),
        [
            (BackplaneRefused("OOM", "Redis is full"), ["publications fail: OOM"]),
            (ProjectUnusable("WRONGTYPE", "Redis has something else under the key"), []),
        ],
    )
    def test_what_was_refused_is_answered_with_the_reason(
        self, simulation: Simulation, program: Program, slow: Slow, caplog: pytest.LogCaptureFixture,
        error: BackplaneRefused, lines: list[str],
    ) -> None:  # fmt: skip
        slow.futures[0].set_exception(error)
        simulation.run()
        assert program.replies[0].status == 503
        assert program.replies[0].json["error"]["message"] == f"The update was not accepted: {error.reason}"
        assert caplog.messages == lines, "of one project the backplane has said it"

    def test_what_is_not_known_in_time_is_said_to_be_unknown(
        self, simulation: Simulation, program: Program, slow: Slow
    ) -> None:
        simulation.advance(11.0)
        assert program.replies[0].error == (504, "timeout")
        slow.futures[0].set_result(["7-0"])
        simulation.run()
        assert len(program.replies) == 1, "a late answer is ignored"


class TestHistory:
    @pytest.fixture
    def ids(self, program: Program) -> list[str]:
        events = [{"event": "stats_update", "data": {"n": number}} for number in range(5)]
        ids: list[str] = program.request("POST", PATH, {"events": events}).json["event_ids"]
        return ids

    def test_what_came_after_an_id(self, program: Program, ids: list[str]) -> None:
        reply = program.request("GET", f"{PATH}?after={ids[2]}")
        expected = [{"event": "stats_update", "data": {"n": n, "event_id": ids[n]}} for n in (3, 4)]
        assert (reply.status, reply.json) == (200, {"events": expected, "complete": True, "last_event_id": ids[4]})

    def test_page_by_page(self, program: Program, ids: list[str]) -> None:
        first = program.request("GET", f"{PATH}?after={ids[0]}&limit=2").json
        assert [event["data"]["n"] for event in first["events"]] == [1, 2]
        assert first["last_event_id"] == ids[2]
        second = program.request("GET", f"{PATH}?after={first['last_event_id']}&limit=2").json
        assert [event["data"]["n"] for event in second["events"]] == [3, 4]
        assert program.request("GET", f"{PATH}?after={second['last_event_id']}&limit=2").json["events"] == []

    def test_the_newest(self, program: Program, ids: list[str]) -> None:
        assert [event["data"]["n"] for event in program.request("GET", PATH).json["events"]] == [0, 1, 2, 3, 4]
        newest = program.request("GET", f"{PATH}?limit=2").json
        assert [event["data"]["n"] for event in newest["events"]] == [3, 4]
        assert newest["last_event_id"] == ids[4]

    def test_an_event_of_any_name(self, simulation: Simulation, program: Program) -> None:
        event_id = simulation.publish("p", 'a "name"\\', {})
        reply = program.request("GET", PATH)
        assert reply.json["events"] == [{"event": 'a "name"\\', "data": {"event_id": event_id}}]

    def test_the_newest_before_an_id(self, program: Program, ids: list[str]) -> None:
        page = program.request("GET", f"{PATH}?before={ids[4]}&limit=3").json
        assert [event["data"]["n"] for event in page["events"]] == [1, 2, 3], "oldest first, as everywhere"
        assert (page["complete"], page["last_event_id"]) == (True, ids[4])
        rest = program.request("GET", f"{PATH}?before={page['events'][0]['data']['event_id']}&limit=3").json
        assert [event["data"]["n"] for event in rest["events"]] == [0]
        assert program.request("GET", f"{PATH}?before={ids[0]}").json["events"] == []

    @pytest.mark.parametrize(
        ("path", "user", "status"),
        [(PATH, "alice", 200), (PATH, "bob", 403), (PATH, "nobody", 401), (f"{PATH}?limit=x", "alice", 400)],
    )
    def test_pages_of_other_origins_that_may_connect_may_read_it(self, path: str, user: str, status: int) -> None:
        simulation = Simulation(api=ApiOptions(), config=Config(allowed_origins=frozenset({"https://desk.example"})))
        people(simulation.directory)
        browser = Program(simulation, Cookie=f"session={user}")
        allowed = browser.request("GET", path, Origin="https://desk.example")
        assert allowed.status == status
        assert allowed.headers["access-control-allow-origin"] == "https://desk.example"
        assert allowed.headers["access-control-allow-credentials"] == "true"
        assert allowed.headers["vary"] == "Origin"
        for other in ("https://elsewhere.example", "null"):
            reply = browser.request("GET", path, Origin=other)
            assert reply.status == status
            assert "access-control-allow-origin" not in reply.headers, "the browser keeps it from the page"
        reply = browser.request("POST", path, UPDATE, Origin="https://desk.example")
        assert "access-control-allow-origin" not in reply.headers, "pages do not publish"

    def test_a_history_that_does_not_reach_back_says_so(self, program: Program, ids: list[str]) -> None:
        reply = program.request("GET", f"{PATH}?after=1-1")
        assert reply.json == {"events": [], "complete": False, "last_event_id": ids[4]}

    @pytest.mark.parametrize(
        "query",
        [
            "after=",
            "after=x",
            "after=99999999999999999999-0",
            "before=",
            "before=x",
            "after=1-1&before=2-2",
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=1e2",
            "limit=",
            "limit=00001999999",
        ],
    )
    def test_a_wrong_question_is_explained(self, program: Program, query: str) -> None:
        assert program.request("GET", f"{PATH}?{query}").error == (400, "invalid_request")

    def test_whoever_may_see_the_project_may_read_it(self, simulation: Simulation, ids: list[str]) -> None:
        browser = Program(simulation, Cookie="session=alice")
        assert len(browser.request("GET", PATH).json["events"]) == len(ids)

    @pytest.mark.parametrize(
        ("headers", "path", "answer"),
        [
            ({}, PATH, (401, "authentication_required")),
            ({"Cookie": "session=nobody"}, PATH, (401, "authentication_required")),
            ({"Cookie": "session=gone"}, PATH, (401, "authentication_required")),
            ({"Cookie": "session=bob"}, PATH, (403, "access_denied")),
            ({"Cookie": "session=alice"}, "/api/projects/none/events", (404, "project_not_found")),
            ({"X_API_Key": "am_other"}, PATH, (403, "access_denied")),
            ({"X_API_Key": "wrong", "Cookie": "session=alice"}, PATH, (401, "invalid_api_key")),
        ],
    )
    def test_nobody_else_may(
        self, simulation: Simulation, ids: list[str], headers: dict[str, str], path: str, answer: tuple[int, str]
    ) -> None:
        assert Program(simulation, **headers).request("GET", path).error == answer

    def test_on_several_nodes(self) -> None:
        nodes = Nodes()
        people(nodes.directory)
        program = Program(nodes[1], X_API_Key=KEY)
        event_id = nodes.publish("p", "stats_update", {"n": 1})
        assert program.request("GET", PATH).json["last_event_id"] == event_id

    @pytest.mark.parametrize(
        ("error", "lines"),
        [
            (BackplaneUnavailable("away"), ["readings of the history fail: away"]),
            (ProjectUnusable("WRONGTYPE", "Redis has something else under the key"), []),
        ],
    )
    def test_one_that_cannot_be_read(
        self, simulation: Simulation, program: Program, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture, error: Exception, lines: list[str],
    ) -> None:  # fmt: skip
        def away() -> History:
            raise error

        monkeypatch.setattr(simulation.server.backplane, "read", lambda *_: away)
        assert program.request("GET", PATH).error == (503, "unavailable")
        assert caplog.messages == lines, "of one project the backplane has said it"


def test_one_update_is_text_that_was_encoded_once(program: Program) -> None:
    program.request("POST", PATH, UPDATE)
    (event,) = program.request("GET", PATH).json["events"]
    assert Update("p", event["event"], json.dumps(event["data"]), event["data"]["event_id"]).data == event["data"]


class TestAnnouncements:
    @pytest.fixture
    def bob(self, simulation: Simulation) -> SimulatedClient:
        simulation.directory.projects["p"].add("bob")
        bob = simulation.connect("bob")
        bob.call("join_project", {"project_id": "p"})
        simulation.directory.projects["p"].remove("bob")
        return bob

    PATH = "/api/access-changes"

    @pytest.mark.parametrize("body", [{"project_id": "p"}, {"project_id": "p", "user_id": "bob"}])
    def test_a_key_announces_changes_of_its_project(
        self, program: Program, bob: SimulatedClient, body: dict[str, str]
    ) -> None:
        assert program.request("POST", self.PATH, body).status == 202
        assert [error["code"] for error in bob.events("error")] == ["access_denied"]

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"user_id": "bob"}, {"project_id": "q"}, {"user_id": "bob", "logged_out": True},
            {"user_id": "bob", "project_id": "p", "logged_out": True},
        ],
    )  # fmt: skip
    def test_a_key_announces_nothing_else(self, program: Program, bob: SimulatedClient, body: dict[str, Any]) -> None:
        assert program.request("POST", self.PATH, body).error == (403, "access_denied")
        assert bob.events("error") == []

    def test_without_a_key_or_a_token_nothing(self, simulation: Simulation) -> None:
        for headers in ({}, {"X_API_Key": "am_no"}, {"Authorization": "Basic command"}):
            reply = Program(simulation, **headers).request("POST", self.PATH, {"project_id": "p"})
            assert reply.error == (401, "invalid_api_key")

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
    def test_the_holder_of_the_secret_announces_anything(
        self, simulation: Simulation, bob: SimulatedClient, scheme: str
    ) -> None:
        command = Program(simulation, Authorization=f"{scheme} command ")
        assert command.request("POST", self.PATH, {"user_id": "bob"}).status == 202
        assert [error["code"] for error in bob.events("error")] == ["access_denied"]
        assert command.request("POST", self.PATH, {"user_id": "bob", "logged_out": True}).status == 202
        simulation.advance(2.0)
        assert bob.ended == "io server disconnect"

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"logged_out": True}, {"logged_out": 1, "user_id": "u1"}, {"user_id": 7}, {"user_id": ""},
            {"project_id": "x" * 101}, [], b"{",
        ],
    )  # fmt: skip
    def test_what_is_announced_must_make_sense(self, simulation: Simulation, body: Any) -> None:
        command = Program(simulation, Authorization="Bearer command")
        assert command.request("POST", self.PATH, body).error[0] == 400

    @pytest.mark.parametrize("token", ["", "nonsense", "command x"])
    def test_a_bad_token_is_refused_even_beside_a_key(self, program: Program, token: str) -> None:
        reply = program.request("POST", self.PATH, {"project_id": "p"}, Authorization=f"Bearer {token}")
        assert reply.error == (401, "invalid_token")

    def test_where_there_are_no_tokens_none_is_good(self) -> None:
        command = Program(Simulation(), Authorization="Bearer command")
        assert command.request("POST", self.PATH, {"user_id": "bob"}).error == (401, "invalid_token")

    def test_on_several_nodes_it_is_done_when_all_will_know(self) -> None:
        nodes = Nodes()
        people(nodes.directory)
        assert Program(nodes[0], X_API_Key=KEY).request("POST", self.PATH, {"project_id": "p"}).status == 202

    @pytest.mark.parametrize(
        ("settle", "answer"),
        [
            (lambda future: future.set_exception(BackplaneUnavailable("away")), (503, "unavailable")),
            (lambda future: None, (504, "timeout")),
        ],
    )
    def test_a_node_that_cannot_tell_the_others_claims_no_success(
        self, simulation: Simulation, program: Program, monkeypatch: pytest.MonkeyPatch,
        settle: Callable[[Future[None]], None], answer: tuple[int, str],
    ) -> None:  # fmt: skip
        told: Future[None] = Future()
        monkeypatch.setattr(simulation.server.backplane, "announce", lambda item: told)
        program.send("POST", self.PATH, {"project_id": "p"})
        simulation.run()
        settle(told)
        simulation.advance(11.0)
        assert program.replies[0].error == answer


def metrics(reply: Reply) -> dict[str, tuple[str, float]]:
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return {
        sample.name: (family.type, sample.value)
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


class TestOperators:
    @pytest.fixture
    def probe(self, simulation: Simulation) -> Program:
        return Program(simulation)

    def test_health(self, probe: Program) -> None:
        reply = probe.request("GET", "/health")
        assert (reply.status, reply.json) == (200, {"status": "healthy", "service": "AutoModerate"})
        head = probe.request("HEAD", "/health")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == reply.headers["content-length"]

    def test_ready(self, simulation: Simulation, probe: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        reply = probe.request("GET", "/readyz")
        checks = {"database": "ok", "realtime": "ok", "publishing": "ok"}
        assert (reply.status, reply.json) == (200, {"status": "ready", "checks": checks})
        monkeypatch.setattr(type(simulation.server.backplane), "hearing", False)
        reply = probe.request("GET", "/readyz")
        assert reply.status == 503
        assert reply.json["checks"] == {**checks, "realtime": "cut off from the other nodes"}
        simulation.drain()
        reply = Program(simulation).request("GET", "/readyz")
        assert reply.status == 503
        assert reply.json["checks"] == {**checks, "realtime": "draining"}

    def test_where_nothing_can_be_published_clients_are_still_sent(
        self, simulation: Simulation, probe: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(simulation.server.backplane), "writable", False)
        reply = probe.request("GET", "/readyz")
        assert (reply.status, reply.json["status"]) == (200, "ready")
        assert reply.json["checks"] == {"database": "ok", "realtime": "ok", "publishing": "unavailable"}

    def test_not_ready_without_the_database(self) -> None:
        reply = Program(Simulation(directory=Away())).request("GET", "/readyz")
        assert reply.status == 503
        checks = {"database": "unavailable", "realtime": "ok", "publishing": "ok"}
        assert reply.json == {"status": "unavailable", "checks": checks}

    def test_a_database_that_does_not_answer_is_waited_for_two_seconds(self) -> None:
        simulation = Simulation(faults=Faults(max_job_time=1e9))
        probes = [Program(simulation) for _ in range(20)]
        for probe in probes:
            probe.send("GET", "/readyz")
        simulation.advance(1.9)
        assert not any(probe.replies for probe in probes)
        assert Program(simulation).request("GET", "/health").status == 200
        simulation.advance(0.2)
        assert all(probe.replies[0].json["checks"]["database"] == "unavailable" for probe in probes)
        simulation.advance(60.0)
        assert simulation.server.stats()["jobs"] <= UNDER_WAY, "they hold no more threads than that"

    def test_metrics_are_the_servers_numbers(self, program: Program, probe: Program) -> None:
        program.request("POST", PATH, UPDATE)
        expected = {"up": ("gauge", 1), "sessions": ("gauge", 0), "updates_total": ("counter", 1)}
        numbers = metrics(probe.request("GET", "/metrics"))
        assert {name: numbers[f"automoderate_{name}"] for name in expected} == expected

    def test_who_asks_for_metrics_again_and_again_has_them_written_once_a_turn(self) -> None:
        written: list[object] = []

        def numbers(stats: object, _histograms: object) -> tuple[bytes, str]:
            written.append(stats)
            return b"# none\n", "text/plain"

        simulation = Simulation(api=ApiOptions(exposition=numbers))
        probes = [Program(simulation) for _ in range(20)]
        for probe in probes:
            probe.send("GET", "/metrics")
        simulation.run()
        assert [len(probe.replies) for probe in probes] == [1] * 20
        assert len(written) == 1
        simulation.advance(1.0)
        probes[0].request("GET", "/metrics")
        assert len(written) == 2


class TestPaths:
    def test_wrong_paths_and_methods(self, program: Program) -> None:
        for path in ("/api/nope", "/api/projects/events"):
            assert program.request("GET", path).error == (404, "not_found")
        reply = program.request("DELETE", PATH)
        assert reply.error == (405, "method_not_allowed")
        assert reply.headers["allow"] == "GET, HEAD, POST"
        assert program.request("GET", "/api/access-changes").headers["allow"] == "POST"

    def test_everything_else_is_the_applications(self, program: Program) -> None:
        for path in ("/", "/healthy", "/apis", "/metrics/", "/realtime/health"):
            reply = program.request("GET", path)
            assert (reply.status, reply.body) == (404, b"")

    def test_documents_that_are_the_same_for_everybody(self) -> None:
        for prefix in ("", "/realtime"):
            documents = {"/api/openapi.json": (b'{"a": 1}', "application/json")}
            program = Program(Simulation(api=ApiOptions(prefix=prefix, documents=documents)), prefix)
            reply = program.request("GET", f"{prefix}/api/openapi.json")
            assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/json", b'{"a": 1}')
            assert program.request("HEAD", f"{prefix}/api/openapi.json").body == b""
            assert program.request("POST", f"{prefix}/api/openapi.json").error == (405, "method_not_allowed")
            assert program.request("GET", f"{prefix}/api/other.json").error == (404, "not_found")

    def test_below_a_prefix_beside_another_application(self) -> None:
        simulation = Simulation(api=ApiOptions(prefix="/realtime"))
        people(simulation.directory)
        program = Program(simulation, "/realtime", X_API_Key=KEY)
        assert program.request("POST", f"/realtime{PATH}", UPDATE).status == 202
        for path in ("/health", "/readyz", "/metrics"):
            assert program.request("GET", f"/realtime{path}").status == 200
            assert program.request("GET", path).body == b"", "the application's"
        assert program.request("POST", PATH, UPDATE).body == b""
        for path in ("/realtime/", "/realtime/static/live.js", "/realtime/socket.io"):
            assert program.request("GET", path).body == b"", "a page's, if there is one"
        assert program.request("GET", "/realtime/api/nope").error == (404, "not_found")
        assert program.request("GET", "/realtime").body == b""


def test_whatever_the_network_does_each_request_is_answered_once() -> None:
    for seed in range(20):
        simulation = Simulation(seed=seed, faults=Faults(max_delay=0.2, cut=0.5, max_job_time=0.3, job_failure=0.1))
        people(simulation.directory)
        alice = simulation.connect("alice", run=False)
        alice.on_event = lambda item, alice=alice: (  # type: ignore[misc]
            alice.emit("join_project", {"project_id": "p", "last_event_id": "0-0"})
            if item.event == "connected"
            else None
        )
        programs = [Program(simulation, X_API_Key=KEY) for _ in range(5)]
        for number in range(10):
            for program in programs:
                program.send("POST", PATH, {"event": "stats_update", "data": {"n": number}})
            simulation.advance(3.0)
            assert all(len(program.replies) == number + 1 for program in programs), f"seed {seed}"
        accepted = {reply.json["event_id"] for program in programs for reply in program.replies if reply.status == 202}
        assert {reply.status for program in programs for reply in program.replies} <= {202, 503}
        assert accepted
