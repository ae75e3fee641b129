"""A window in which updates of a room wait for one another: whom it delays, and by how much."""

from __future__ import annotations

import pytest

from automoderate.testing import SimulatedClient, Simulation

WINDOW = 0.25


@pytest.fixture
def simulation() -> Simulation:
    simulation = Simulation(window=WINDOW)
    simulation.directory.add_user("alice")
    for project in ("p", "q"):
        simulation.directory.add_project(project, owner="alice")
    return simulation


def member(simulation: Simulation, *projects: str) -> SimulatedClient:
    client = simulation.connect("alice")
    for project in projects:
        client.emit("join_project", {"project_id": project})
    simulation.run()
    client.received.clear()
    return client


def seen(client: SimulatedClient, since: float) -> list[tuple[object, float]]:
    return [(item.data.get("n", item.event), item.at - since) for item in client.received]


def test_the_first_after_a_pause_waits_for_nothing_and_the_next_for_the_end_of_the_window(
    simulation: Simulation,
) -> None:
    client = member(simulation, "p")
    begin = simulation.now
    for number in range(10):
        simulation.publish("p", "stats_update", {"n": number})
        simulation.advance(0.0625)
    simulation.advance(1)
    assert seen(client, begin) == [
        (0, 0.0), (1, WINDOW), (2, WINDOW), (3, WINDOW), (4, 2 * WINDOW), (5, 2 * WINDOW), (6, 2 * WINDOW),
        (7, 2 * WINDOW), (8, 3 * WINDOW), (9, 3 * WINDOW),
    ]  # fmt: skip
    client.received.clear()
    begin = simulation.now
    simulation.publish("p", "stats_update", {"n": 10})
    simulation.run()
    assert seen(client, begin) == [(10, 0.0)]


def test_each_room_has_its_own(simulation: Simulation) -> None:
    client = member(simulation, "p", "q")
    begin = simulation.now
    for number, project in enumerate("pqpq"):
        simulation.publish(project, "stats_update", {"n": number})
    simulation.advance(1)
    assert seen(client, begin) == [(0, 0.0), (1, 0.0), (2, WINDOW), (3, WINDOW)]


def test_an_answer_brings_along_what_was_published_before_it(simulation: Simulation) -> None:
    asking, other = member(simulation, "p"), member(simulation, "p")
    begin = simulation.now
    for number in range(3):
        simulation.publish("p", "stats_update", {"n": number})
    asking.emit("leave_project", {"project_id": "p"})
    simulation.advance(1)
    assert seen(asking, begin) == [(0, 0.0), (1, 0.0), (2, 0.0), ("left_project", 0.0)]
    assert seen(other, begin) == [(0, 0.0), (1, WINDOW), (2, WINDOW)]


def test_a_server_that_stops_owes_nobody_anything(simulation: Simulation) -> None:
    client = member(simulation, "p")
    for number in range(3):
        simulation.publish("p", "stats_update", {"n": number})
    simulation.drain()
    simulation.run()
    assert [data["n"] for data in client.events("stats_update")] == [0, 1, 2]


def test_without_one_nothing_waits() -> None:
    simulation = Simulation()
    simulation.directory.add_user("alice")
    simulation.directory.add_project("p", owner="alice")
    client = member(simulation, "p")
    begin = simulation.now
    for number in range(3):
        simulation.publish("p", "stats_update", {"n": number})
    simulation.run()
    assert seen(client, begin) == [(0, 0.0), (1, 0.0), (2, 0.0)]
