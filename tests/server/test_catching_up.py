"""Catching up with several projects at once, of which more was missed than may wait for one client."""

from __future__ import annotations

from typing import Any

from automoderate.protocol import Config
from automoderate.testing import Client, Simulation

PROJECTS = ("p", "q", "r")
UPDATES = 8


def numbers(client: Client, project_id: str) -> list[int]:
    data: list[dict[str, Any]] = client.events("stats_update")
    return [update["n"] for update in data if update["project_id"] == project_id]


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
