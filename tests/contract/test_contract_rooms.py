"""Section 3 of the contract: rooms, and every "but" of theirs."""

from __future__ import annotations

from typing import Any

import pytest

from kits import until
from kits.contract_client import Client, TransportName
from kits.contract_site import Site


@pytest.fixture
def client(site: Site, connect: Any, alice: str, transport: TransportName) -> Client:
    client: Client = connect(site, alice, transport)
    assert client.expect("connected") == {"message": "Connected to AutoModerate"}
    return client


def joined(project: str) -> dict[str, str]:
    return {"project_id": project, "room": f"project_{project}"}


@pytest.mark.every_runtime
def test_join_answers_the_event_and_the_acknowledgement(client: Client, project: str) -> None:
    answer = client.call("join_project", {"project_id": project})
    assert answer.items() >= joined(project).items()
    assert client.items[1:] == [("joined_project", answer), ("ack", (1, answer))]


def test_join_without_an_acknowledgement_answers_the_event_alone(client: Client, project: str) -> None:
    client.emit("join_project", {"project_id": project})
    assert client.expect("joined_project").items() >= joined(project).items()
    assert client.settle() == []


@pytest.mark.every_runtime
def test_leave_answers_both_ways(client: Client, project: str) -> None:
    client.call("join_project", {"project_id": project})
    del client.items[:]
    assert client.call("leave_project", {"project_id": project}) == {"project_id": project}
    assert client.items == [("left_project", {"project_id": project}), ("ack", (2, {"project_id": project}))]
    client.emit("leave_project", {"project_id": project})
    assert client.expect("left_project") == {"project_id": project}


def test_unknown_keys_are_ignored(client: Client, project: str) -> None:
    answer = client.call("join_project", {"project_id": project, "room": "other", "extra": {"deep": [1]}})
    assert answer.items() >= joined(project).items()
    assert client.call("leave_project", {"project_id": project, "x": None}) == {"project_id": project}


def test_joining_twice_is_no_error_and_delivers_once(site: Site, client: Client, project: str) -> None:
    for _ in range(2):
        assert client.call("join_project", {"project_id": project}).items() >= joined(project).items()
    assert len(client.events("joined_project")) == 2
    site.publish(project, 1)
    assert [data["n"] for _, data in client.settle()] == [1]


def test_joining_twice_while_the_first_is_checked(site: Site, client: Client, project: str) -> None:
    with site.directory.held() as gate:
        client.request("join_project", {"project_id": project})
        client.request("join_project", {"project_id": project})
        gate.wait()
        assert client.settle() == []
        gate.opened.set()
        for _ in range(2):
            assert client.until("ack")[1].items() >= joined(project).items()
    assert len(client.events("joined_project")) == 2


def test_leaving_a_room_one_is_not_in(client: Client, project: str) -> None:
    assert client.call("leave_project", {"project_id": project}) == {"project_id": project}
    assert client.events("left_project") == [{"project_id": project}]
    assert client.events("error") == []


@pytest.mark.every_runtime
def test_after_leaving_nothing_comes(site: Site, client: Client, project: str) -> None:
    client.call("join_project", {"project_id": project})
    client.call("leave_project", {"project_id": project})
    site.publish(project, 1)
    assert client.settle() == []


@pytest.mark.every_runtime
def test_a_leave_that_overtakes_the_check_wins(site: Site, client: Client, project: str) -> None:
    with site.directory.held() as gate:
        join = client.request("join_project", {"project_id": project})
        gate.wait()
        leave = client.request("leave_project", {"project_id": project})
        assert client.until("left_project") == {"project_id": project}
        gate.opened.set()
    site.publish(project, 1)
    client.settle()
    until(lambda: site.stats()["jobs"] == 0, "the check is answered")
    site.publish(project, 2)
    client.settle()
    assert client.events("joined_project") == []
    assert client.events("moderation_update") == []
    # Whoever waits for the join's acknowledgement is told what became of it.
    acks = dict(client.events("ack"))
    assert acks[join] == acks[leave] == {"project_id": project}
    assert site.stats()["memberships"] == 0


def test_a_join_after_the_leave_that_overtook_joins(site: Site, client: Client, project: str) -> None:
    with site.directory.held() as gate:
        client.emit("join_project", {"project_id": project})
        gate.wait()
        client.emit("leave_project", {"project_id": project})
        assert client.expect("left_project") == {"project_id": project}
        client.emit("join_project", {"project_id": project})
        until(lambda: site.stats()["memberships"] == 1, "the second join is being checked")
        gate.opened.set()
        assert client.expect("joined_project").items() >= joined(project).items()
    site.publish(project, 1)
    assert [data["n"] for _, data in client.settle()] == [1]
    assert len(client.events("joined_project")) == 1


@pytest.mark.every_runtime
@pytest.mark.parametrize("end", ["cut", "disconnect", "close"])
def test_a_session_that_ends_during_its_check_leaves_nothing_behind(
    site: Site, client: Client, project: str, end: str
) -> None:
    with site.directory.held() as gate:
        client.emit("join_project", {"project_id": project})
        gate.wait()
        assert site.stats()["memberships"] == 1
        if end == "cut":
            client.wire.cut()
        else:
            client.wire.send("41" if end == "disconnect" else "1")
        until(lambda: site.stats()["sessions"] == 0, "the session ends")
        assert {name: site.stats()[name] for name in ("users", "rooms", "memberships")} == {
            "users": 0, "rooms": 0, "memberships": 0,
        }  # fmt: skip
        gate.opened.set()
        until(lambda: site.stats()["jobs"] == 0, "the check is answered")
    site.publish(project, 1)
    assert {name: site.stats()[name] for name in ("sessions", "users", "rooms", "memberships")} == {
        "sessions": 0, "users": 0, "rooms": 0, "memberships": 0,
    }  # fmt: skip


@pytest.mark.every_runtime
def test_live_begins_with_joined_project(site: Site, client: Client, project: str) -> None:
    with site.directory.held() as gate:
        client.emit("join_project", {"project_id": project})
        gate.wait()
        site.publish(project, 1)
        gate.opened.set()
        client.expect("joined_project")
    site.publish(project, 2)
    assert client.expect("moderation_update")["n"] == 2
    assert client.settle() == []


def test_a_session_is_in_several_rooms(site: Site, client: Client, project: str, fresh: str) -> None:
    for room in (project, fresh):
        client.call("join_project", {"project_id": room})
    client.call("leave_project", {"project_id": project})
    site.publish(project, 1)
    site.publish(fresh, 2)
    assert [data["n"] for _, data in client.settle()] == [2]


def test_owner_and_member_may_be_in_the_room(site: Site, connect: Any, alice: str, bob: str, project: str) -> None:
    for user in (alice, bob):
        answer = connect(site, user, "websocket").call("join_project", {"project_id": project})
        assert answer.items() >= joined(project).items()
