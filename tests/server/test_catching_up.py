"""Catching up with several projects at once, of which more was missed than may wait for one client."""

from __future__ import annotations

from typing import Any

from automoderate.protocol import Config
from automoderate.testing import SimulatedClient, Simulation

PROJECTS = ("p", "q", "r")
UPDATES = 8


def numbers(client: SimulatedClient, project_id: str) -> list[int]:
    data: list[dict[str, Any]] = client.events("stats_update")
    return [update["n"] for update in data if update["project_id"] == project_id]


def test_a_room_that_is_silent_while_others_are_forgotten_is_joined_all_the_same() -> None:
    simulation = Simulation(history=10)
    for user in ("alice", "bob"):
        simulation.directory.add_user(user)
    for project_id in PROJECTS:
        simulation.directory.add_project(project_id, owner="alice", members=["bob"])
    alice = simulation.connect("alice")
    assert alice.call("join_project", {"project_id": "p"})["project_id"] == "p"
    simulation.publish("q", "stats_update", {})
    simulation.advance(90_000)  # longer than anything is remembered
    simulation.publish("r", "stats_update", {})  # and q is forgotten
    bob = simulation.connect("bob")
    assert bob.call("join_project", {"project_id": "p"})["project_id"] == "p"
    simulation.publish("p", "stats_update", {"n": 1, "project_id": "p"})
    simulation.run()
    assert numbers(alice, "p") == numbers(bob, "p") == [1]


def test_a_polling_client_that_missed_more_than_may_wait_for_it_gets_it_in_several_goes() -> None:
    simulation = Simulation(config=Config(max_payload=10_000, send_buffer=20_000))
    simulation.directory.add_user("alice")
    newest: dict[str, str] = {}
    for project_id in PROJECTS:
        simulation.directory.add_project(project_id, owner="alice")
        newest[project_id] = simulation.publish(project_id, "stats_update", {"n": -1, "project_id": project_id})
        for number in range(UPDATES):
            data = {"n": number, "project_id": project_id, "text": "x" * 1_500}
            simulation.publish(project_id, "stats_update", data)
    seen: dict[str, list[int]] = {project_id: [] for project_id in PROJECTS}
    goes = 0
    while goes < 10 and any(len(found) < UPDATES for found in seen.values()):
        goes += 1
        client = simulation.connect("alice", transport="polling")
        for project_id in PROJECTS:
            client.emit("join_project", {"project_id": project_id, "last_event_id": newest[project_id]})
        simulation.run()
        assert all(answer["recovered"] for answer in client.events("joined_project"))
        for update in client.events("stats_update"):
            newest[update["project_id"]] = update["event_id"]
        for project_id, found in seen.items():
            found.extend(numbers(client, project_id))
        client.cut()
    assert seen == {project_id: list(range(UPDATES)) for project_id in PROJECTS}
    assert goes > 1, "all of it was allowed to wait"
