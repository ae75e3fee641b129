"""Large rooms are served in turns; what each client sees is as if every broadcast took no time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import pytest

from automoderate.core.hub import Limits
from automoderate.protocol.outputs import Fanout
from automoderate.server import Server, outbound
from automoderate.server.jobs import AT_ONCE
from automoderate.server.rooms import MAX_QUEUED
from automoderate.testing import SimulatedClient, Simulation, TransportName

MEMBERS = 10
TURN = 3


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    monkeypatch.setattr(outbound, "WRITES_PER_TURN", TURN)
    simulation = Simulation(limits=Limits(max_connections_per_minute=10_000))
    simulation.directory.add_user("alice")
    simulation.directory.add_project("p", owner="alice")
    return simulation


@pytest.fixture
def members(simulation: Simulation) -> list[SimulatedClient]:
    clients = [simulation.connect("alice") for _ in range(MEMBERS)]
    for client in clients:
        client.emit("join_project", {"project_id": "p"})
    simulation.run()
    return clients


def publish(simulation: Simulation, number: int) -> None:
    """Publish without the turn of the loop that comes after it."""
    simulation.server.publish("p", "moderation_update", Server.encode({"n": number}), simulation.now)


def turn(simulation: Simulation) -> int:
    """Perform what the server wants done, but let no time pass; the number of broadcast writes."""
    written = 0
    while outputs := simulation.server.outputs():
        for output in outputs:
            if isinstance(output, Fanout):
                written += sum(len(connections) for connections, _ in output.writes)
            simulation._perform(output)
    return written


def before_the_next_turn(simulation: Simulation) -> None:
    """Let arrive what is under way."""
    while simulation._queue and simulation._queue[0][0] <= simulation.now:
        heapq.heappop(simulation._queue)[2]()


def seen(client: SimulatedClient) -> list[Any]:
    return [item.data.get("n", item.event) for item in client.received if item.event != "connected"]


def test_the_server_asks_to_be_called_again_until_everybody_is_served(
    simulation: Simulation, members: list[SimulatedClient]
) -> None:
    publish(simulation, 1)
    written = [turn(simulation)]
    while (deadline := simulation.server.next_deadline()) is not None and deadline <= simulation.now:
        simulation.server.tick(simulation.now)
        written.append(turn(simulation))
    assert written == [3, 3, 3, 1]
    simulation.run()
    assert all(seen(client) == ["joined_project", 1] for client in members)
    assert simulation.server.stats()["deliveries_total"] == MEMBERS


def test_a_backlog_is_no_more_writes_than_one_update(simulation: Simulation, members: list[SimulatedClient]) -> None:
    for number in range(5):
        publish(simulation, number)
    simulation.run()
    assert all(seen(client) == ["joined_project", 0, 1, 2, 3, 4] for client in members)
    assert simulation.server.stats()["deliveries_total"] == 5 * MEMBERS


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (lambda client: client.emit("join_project", {"project_id": "p"}), ["joined_project", 2]),
        (lambda client: client.emit("leave_project", {"project_id": "p"}), ["left_project"]),
        (lambda client: client.emit("join_project", {}), ["error", 2]),
    ],
    ids=["join", "leave", "error"],
)
def test_an_answer_comes_after_what_was_published_before_it(
    simulation: Simulation, members: list[SimulatedClient], act: Callable[[SimulatedClient], None], answer: list[Any]
) -> None:
    publish(simulation, 1)
    turn(simulation)
    for client in members:
        act(client)
    before_the_next_turn(simulation)
    while any(len(seen(client)) < 3 for client in members):
        simulation.server.tick(simulation.now)  # a join is checked at the next turn
        turn(simulation)
        before_the_next_turn(simulation)
    assert [seen(client)[1:] for client in members] == [[1, answer[0]]] * MEMBERS
    publish(simulation, 2)
    simulation.run()
    assert [seen(client) for client in members] == [["joined_project", 1, *answer]] * MEMBERS


def test_a_client_that_closes_its_websocket_gets_what_was_published_before_and_nothing_behind_the_close_frame(
    simulation: Simulation, members: list[SimulatedClient]
) -> None:
    publish(simulation, 1)
    turn(simulation)
    sent = {client: bytearray() for client in members}
    for client in members:
        connection = client.connections()[0]
        connection.on_data = sent[client].extend
        connection.send(b"\x88\x82\0\0\0\0\x03\xe8")
    publish(simulation, 2)
    before_the_next_turn(simulation)
    simulation.run()
    assert all(bytes(data).endswith(b"\x88\x02\x03\xe8") for data in sent.values())
    assert [data.count(b"moderation_update") for data in sent.values()] == [2] * MEMBERS
    assert simulation.server.stats()["sessions"] == 0


def test_an_answer_comes_before_what_is_published_after_it(
    simulation: Simulation, members: list[SimulatedClient]
) -> None:
    members[0].emit("join_project", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_flush", lambda: None)  # both happen before the adapter gets to write
        before_the_next_turn(simulation)
        publish(simulation, 1)
    simulation.run()
    assert seen(members[0]) == ["joined_project", "error", 1]


def test_who_enters_another_room_misses_nothing_of_the_one_it_is_in(
    simulation: Simulation, members: list[SimulatedClient]
) -> None:
    simulation.directory.add_project("q", owner="alice")
    publish(simulation, 1)
    turn(simulation)
    for client in members:
        client.emit("join_project", {"project_id": "q"})
    publish(simulation, 2)
    before_the_next_turn(simulation)
    publish(simulation, 3)
    simulation.run()
    updates = [[number for number in seen(client) if number != "joined_project"] for client in members]
    assert updates == [[1, 2, 3]] * MEMBERS


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_other_connections_are_answered_meanwhile(
    simulation: Simulation, members: list[SimulatedClient], transport: TransportName
) -> None:
    publish(simulation, 1)
    turn(simulation)
    stranger = simulation.connect(None, transport=transport, run=False)
    before_the_next_turn(simulation)
    simulation.server.tick(simulation.now)  # it is looked up at the next turn, which is not yet the room's last
    turn(simulation)
    before_the_next_turn(simulation)
    assert simulation.server.next_deadline() == AT_ONCE
    assert stranger.events("error") == [{"message": "Authentication required", "code": "authentication_required"}]
    simulation.run()
    assert all(seen(client) == ["joined_project", 1] for client in members)


def test_more_than_may_wait_is_written_at_once(simulation: Simulation, members: list[SimulatedClient]) -> None:
    publish(simulation, 1)
    turn(simulation)
    text = Server.encode({"n": 2, "text": "x" * MAX_QUEUED})
    simulation.server.publish("p", "moderation_update", text, simulation.now)
    assert turn(simulation) == (MEMBERS - TURN) + MEMBERS
    simulation.run()
    assert all(seen(client) == ["joined_project", 1, 2] for client in members)


def test_what_a_session_that_upgrades_was_given_by_polling_does_not_come_again(simulation: Simulation) -> None:
    watching = [simulation.connect("alice") for _ in range(MEMBERS)]
    moving = simulation.connect("alice", transport="upgrade", run=False)
    for client in watching:
        client.emit("join_project", {"project_id": "p"})
    sent = 0
    while not moving.connected or sent < 200:
        publish(simulation, sent)
        sent += 1
        simulation.advance(0.003)
        if sent == 5:
            moving.emit("join_project", {"project_id": "p"})
    simulation.run()
    arrived = moving.events("moderation_update")
    assert [data["n"] for data in arrived] == list(range(arrived[0]["n"], sent))
