"""What the server measures of itself, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from automoderate.core.hub import Limits
from automoderate.metrics import exposition
from automoderate.server import outbound
from automoderate.server.telemetry import Histogram
from automoderate.testing import Faults, SimulatedClient, Simulation, TransportName

WINDOW = 0.25

Make = Callable[..., Simulation]


@pytest.fixture
def make() -> Make:
    def make(**options: object) -> Simulation:
        simulation = Simulation(limits=Limits(max_connections_per_minute=10_000), **options)  # type: ignore[arg-type]
        for user in ("alice", "bob"):
            simulation.directory.add_user(user)
        simulation.directory.add_project("p", owner="alice", members=["bob"])
        return simulation

    return make


def member(simulation: Simulation, user: str = "alice", transport: TransportName = "websocket") -> SimulatedClient:
    client = simulation.connect(user, transport=transport)
    client.emit("join_project", {"project_id": "p"})
    simulation.run()
    return client


def publish(simulation: Simulation, *numbers: int) -> None:
    for number in numbers:
        simulation.publish("p", "stats_update", {"n": number})


def test_a_histogram_counts_what_is_not_beyond_each_bound() -> None:
    histogram = Histogram("Sizes", (1, 10))
    for value in (0, 1, 2, 10, 11):
        histogram.observe(value)
    histogram.observe(3, 5)
    assert histogram.cumulated() == [2, 9, 10]
    assert (histogram.count, histogram.total) == (10, 39)


def test_a_delay_ends_with_the_rooms_last_member_and_counts_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "WRITES_PER_TURN", 3)
    simulation = make()
    for _ in range(10):
        member(simulation)
    delays = simulation.server.telemetry.delivery
    begin = simulation.now
    publish(simulation, 1)
    assert delays.count == 0, "seven members have not been written to"
    simulation.run()
    assert delays.count == 1
    assert delays.total == pytest.approx(simulation.now - begin, abs=0.01)
    assert delays.total > 0


def test_each_update_that_waits_has_its_own_delay(make: Make) -> None:
    simulation = make(window=WINDOW)
    member(simulation)
    delays = simulation.server.telemetry.delivery
    publish(simulation, 1)
    assert (delays.count, delays.total) == (1, 0.0), "the first waits for nothing"
    for number in (2, 3, 4):
        simulation.advance(WINDOW / 5)
        publish(simulation, number)
    simulation.advance(WINDOW)
    assert delays.count == 4
    assert delays.total == pytest.approx(WINDOW * (4 + 3 + 2) / 5)


def test_updates_count_also_where_members_were_given_them_on_other_occasions(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their next answer, as they leave, or because they came in between."""
    monkeypatch.setattr(outbound, "WRITES_PER_TURN", 1)
    simulation = make()
    clients = [member(simulation) for _ in range(4)]
    delays = simulation.server.telemetry.delivery
    publish(simulation, 1, 2)
    for client in clients:
        client.emit("leave_project", {"project_id": "p"})
    simulation.run()
    assert delays.count == 2
    member(simulation)
    publish(simulation, 3)
    late = member(simulation, "bob")
    publish(simulation, 4)
    simulation.run()
    assert delays.count == 4
    assert [update["n"] for update in late.events("stats_update")] == [4]


def test_what_was_left_for_a_member_ends_with_it_and_who_polls_has_no_turn(make: Make) -> None:
    simulation = make(window=WINDOW)
    client = member(simulation)
    publish(simulation, 1, 2, 3)
    client.cut()
    simulation.run()
    assert simulation.server.telemetry.delivery.count == 3
    member(simulation, transport="polling")
    publish(simulation, 4)
    simulation.run()
    assert simulation.server.telemetry.delivery.count == 3


def test_joins_questions_and_replays(make: Make) -> None:
    simulation = make(seed=1, faults=Faults(max_job_time=0.4))
    telemetry = simulation.server.telemetry
    client = member(simulation)
    assert telemetry.join.count == 1
    assert telemetry.question.count == 2, "who it is, and what it may see"
    assert 0 < telemetry.join.total < 2
    assert 0 < telemetry.question.total < 2
    assert telemetry.replay.count == 0
    first = simulation.publish("p", "stats_update", {"n": 0})
    publish(simulation, 1, 2, 3)
    bob = simulation.connect("bob")
    bob.emit("join_project", {"project_id": "p", "last_event_id": first})
    bob.emit("join_project", {"project_id": "none"})
    simulation.run()
    assert (telemetry.replay.count, telemetry.replay.total) == (1, 3)
    assert telemetry.join.count == 2, "one that is refused is none"
    simulation.access_changed(user_id="alice")
    publish(simulation, 4, 5)
    simulation.run()
    assert [update["n"] for update in client.events("stats_update")] == [0, 1, 2, 3, 4, 5]
    member(simulation, "bob")
    assert telemetry.replay.count == 1, "what was kept while access was looked up again is no replay"


def test_turns_and_what_waits_are_told_by_the_adapter(make: Make) -> None:
    simulation = make()
    telemetry = simulation.server.telemetry
    simulation.server.turned(simulation.now, 0.3)
    simulation.server.kept(70_000)
    assert telemetry.turn.total == pytest.approx(0.3)
    assert (telemetry.waiting.count, telemetry.waiting.total) == (1, 70_000)


def test_endings_and_errors_are_counted_by_kind_and_from_the_start(make: Make) -> None:
    simulation = make()
    client = member(simulation)
    client.emit("join_project", {"project_id": "none"})
    simulation.run()
    client.cut()
    simulation.run()
    simulation.connect(None)
    simulation.advance(5)
    text = exposition(simulation.server.stats(), simulation.server.telemetry.histograms())[0].decode()
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert numbers['automoderate_errors_total{code="project_not_found"}'] == "1.0"
    assert numbers['automoderate_errors_total{code="authentication_required"}'] == "1.0"
    assert numbers['automoderate_errors_total{code="server_error"}'] == "0.0"
    assert numbers['automoderate_endings_total{reason="transport_close"}'] == "1.0"
    assert numbers['automoderate_endings_total{reason="server_disconnect"}'] == "1.0"
    assert numbers['automoderate_endings_total{reason="ping_timeout"}'] == "0.0"
    assert numbers['automoderate_join_seconds_bucket{le="+Inf"}'] == "1.0"
    assert numbers["automoderate_join_seconds_count"] == "1.0"
