"""Spans of publications, joins, questions, replays and deliveries, as somebody who takes them sees them."""

from __future__ import annotations

import pytest
from attrs import define, field

from automoderate.server.interfaces import NotRunning
from automoderate.server.tracing import Attributes, is_traceparent
from automoderate.testing import Faults, SimulatedClient, Simulation
from automoderate.testing.directory import MemoryDirectory
from automoderate.testing.nodes import Nodes
from kits.simulated_http import Program

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


@define
class Taken:
    """A span that somebody has taken."""

    name: str
    parent: str | None
    attributes: Attributes
    seconds: float = 0.0
    error: BaseException | None = None
    ended: bool = True
    number: int = 0

    @property
    def traceparent(self) -> str:
        return f"00-{'a' * 32}-{self.number:016x}-01"

    def end(self, error: BaseException | None) -> None:
        assert not self.ended
        self.error, self.ended = error, True


@define
class Taker:
    spans: list[Taken] = field(factory=list)

    def start(self, name: str, parent: str | None, attributes: Attributes) -> Taken:
        span = Taken(name, parent, attributes, ended=False, number=len(self.spans) + 1)
        self.spans.append(span)
        return span

    def record(
        self, name: str, seconds: float, attributes: Attributes, parent: str | None = None,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        self.spans.append(Taken(name, parent, attributes, seconds, error))

    def named(self, name: str) -> list[Taken]:
        found = [span for span in self.spans if span.name == name]
        assert all(span.ended for span in found)
        return found


def people(directory: MemoryDirectory) -> None:
    directory.add_user("alice")
    directory.add_project("p", owner="alice")
    directory.keys["am_key"] = "p"


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def simulation(taker: Taker) -> Simulation:
    simulation = Simulation(tracer=taker)
    people(simulation.directory)
    return simulation


def member(simulation: Simulation, **wanted: object) -> SimulatedClient:
    client = simulation.connect("alice")
    client.emit("join_project", {"project_id": "p", **wanted})
    simulation.run()
    return client


def test_what_is_a_traceparent() -> None:
    assert is_traceparent(PARENT)
    assert not any(map(is_traceparent, ("", PARENT.upper(), f"{PARENT}-00", PARENT[:-1], f" {PARENT}")))


def test_an_update_is_one_publication_and_a_delivery_to_each_room_that_it_goes_to(
    simulation: Simulation, taker: Taker
) -> None:
    for _ in range(3):
        member(simulation)
    member(simulation, statuses=["approved"])
    event_id = simulation.server.publish(
        "p", "moderation_update", simulation.server.encode({"status": "approved"}), simulation.now, PARENT
    )
    simulation.run()
    (publication,) = taker.named("publish")
    assert (publication.parent, publication.error) == (PARENT, None)
    assert publication.attributes == {"project": "p", "event": "moderation_update", "updates": 1}
    deliveries = taker.named("delivery")
    assert {delivery.parent for delivery in deliveries} == {publication.traceparent}
    assert len({delivery.attributes["room"] for delivery in deliveries}) == len(deliveries) == 2
    assert {delivery.attributes["event_id"] for delivery in deliveries} == {event_id}
    assert simulation.server.telemetry.delivery.count == 2


def test_each_update_of_a_request_belongs_to_the_trace_that_it_names(simulation: Simulation, taker: Taker) -> None:
    member(simulation)
    events: list[dict[str, object]] = [{"event": "stats_update", "data": {}} for _ in range(4)]
    events[1]["traceparent"], events[2]["traceparent"], events[3]["traceparent"] = OTHER, "nonsense", 5
    program = Program(simulation, X_API_Key="am_key")
    reply = program.request("POST", "/api/projects/p/events", {"events": events}, traceparent=PARENT)
    assert reply.status == 202
    first, second = taker.named("publish")
    assert (first.parent, first.attributes["updates"]) == (PARENT, 3)
    assert (second.parent, second.attributes["updates"]) == (OTHER, 1)
    parents = {delivery.attributes["event_id"]: delivery.parent for delivery in taker.named("delivery")}
    wanted = [first, second, first, first]
    assert [parents[each] for each in reply.json["event_ids"]] == [span.traceparent for span in wanted]


def test_an_update_without_a_parent_begins_a_trace(simulation: Simulation, taker: Taker) -> None:
    member(simulation)
    simulation.publish("p", "stats_update", {})
    simulation.run()
    (publication,), (delivery,) = taker.named("publish"), taker.named("delivery")
    assert (publication.parent, delivery.parent) == (None, publication.traceparent)
    assert simulation.server.publish_all("p", [("stats_update", "{}")] * 2, simulation.now)
    assert taker.named("publish")[1].attributes["updates"] == 2


def test_an_update_that_waits_is_a_delivery_of_its_own(taker: Taker) -> None:
    simulation = Simulation(tracer=taker, window=0.25)
    people(simulation.directory)
    member(simulation)
    for number in range(4):
        simulation.publish("p", "stats_update", {"n": number})
    simulation.advance(1)
    assert [delivery.seconds for delivery in taker.named("delivery")] == pytest.approx([0.0, 0.25, 0.25, 0.25])


def test_a_publication_that_fails_is_one_with_an_error(simulation: Simulation, taker: Taker) -> None:
    simulation.drain()
    with pytest.raises(NotRunning):
        simulation.publish("p", "stats_update", {})
    assert isinstance(taker.named("publish")[0].error, NotRunning)


def test_joins_questions_and_replays(taker: Taker) -> None:
    simulation = Simulation(tracer=taker, seed=3, faults=Faults(max_job_time=0.4))
    people(simulation.directory)
    first = simulation.publish("p", "stats_update", {"n": 0})
    for number in (1, 2):
        simulation.publish("p", "stats_update", {"n": number})
    member(simulation)
    assert not taker.named("replay"), "nothing was asked for"
    member(simulation, last_event_id=first)
    (replay,), joins, questions = taker.named("replay"), taker.named("join"), taker.named("question")
    assert replay.attributes == {"project": "p", "updates": 2}
    assert [join.attributes["replayed"] for join in joins] == [0, 2]
    assert [question.attributes for question in questions[:2]] == [
        {"what": "who", "questions": 1}, {"what": "access", "questions": 1},
    ]  # fmt: skip
    assert all(span.seconds > 0 and span.error is None for span in (*joins, *questions))


def test_a_question_that_fails_is_one_with_an_error(taker: Taker) -> None:
    simulation = Simulation(tracer=taker, faults=Faults(job_failure=1.0))
    people(simulation.directory)
    member(simulation)
    assert [type(question.error) for question in taker.named("question")] == [ConnectionError]


def test_a_trace_goes_on_at_another_node(taker: Taker) -> None:
    nodes = Nodes(2, tracer=taker)
    people(nodes.directory)
    client = member(nodes[1])
    publish = nodes[0].server.publish
    publish("p", "stats_update", '{"n": 1}', nodes.now, PARENT)
    nodes[0].server.publish_all("p", [("stats_update", '{"n": 2}')], nodes.now, [OTHER])
    nodes.run()
    assert [update["n"] for update in client.events("stats_update")] == [1, 2]
    publications, deliveries = taker.named("publish"), taker.named("delivery")
    assert [publication.parent for publication in publications] == [PARENT, OTHER]
    assert [delivery.parent for delivery in deliveries] == [span.traceparent for span in publications]
    newest = client.events("joined_project")[0]["last_event_id"]
    member(nodes[1], last_event_id=newest)
    (replay,) = taker.named("replay")
    assert replay.attributes["updates"] == 2
    nodes.forget()


def test_a_history_that_cannot_be_read_is_a_replay_with_an_error(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("away")

    nodes = Nodes(1, tracer=taker)
    people(nodes.directory)
    monkeypatch.setattr(nodes, "read", fail)
    member(nodes[0], recent=5)
    (replay,) = taker.named("replay")
    assert (replay.attributes["updates"], type(replay.error)) == (0, OSError)


def test_nothing_is_carried_where_nobody_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker()
    traced = Nodes(2, tracer=taker)
    people(traced.directory)
    monkeypatch.setattr(traced[1].server.telemetry, "tracer", None)
    client = member(traced[1])
    traced[0].server.publish("p", "stats_update", "{}", traced.now, PARENT)
    traced.run()
    assert len(client.events("stats_update")) == 1
    assert len(taker.named("publish")) == 1
    assert not taker.named("delivery"), "that node takes no spans"
    simulation = Simulation()
    people(simulation.directory)
    member(simulation)
    simulation.server.publish("p", "stats_update", "{}", simulation.now, PARENT)
    simulation.run()
    assert simulation.server.telemetry.delivery.count == 1
