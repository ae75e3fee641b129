"""Section 9 of the contract: who is in a room, and what they look at."""

from __future__ import annotations

from typing import Any

import pytest

from kits.contract_client import Client, TransportName
from kits.contract_site import Site, World


def person(world: World, user_id: str) -> dict[str, str]:
    """As a user is named where they come."""
    return {"user_id": user_id, "username": world.usernames[user_id]}


@pytest.fixture
def alices(site: Site, connect: Any, alice: str, fresh: str) -> Client:
    """Alice, who asked and was told."""
    client: Client = connect(site, alice, "websocket")
    client.call("join_project", {"project_id": fresh, "presence": True})
    client.until("presence_state")
    return client


@pytest.fixture
def client(site: Site, connect: Any, bob: str, transport: TransportName) -> Client:
    """Bob, in no room yet."""
    client: Client = connect(site, bob, transport)
    client.expect("connected")
    return client


def ask(client: Client, project: str) -> Any:
    """Join and ask; the state, which comes after the answer."""
    client.request("join_project", {"project_id": project, "presence": True})
    assert client.expect("joined_project")["room"] == f"project_{project}"
    assert client.expect("ack")
    return client.expect("presence_state")


@pytest.mark.every_runtime
def test_who_asks_is_told_who_is_there_and_the_others_are_told_of_them(
    world: World, client: Client, alices: Client, alice: str, bob: str, fresh: str
) -> None:
    here, there = person(world, alice), person(world, bob)
    assert ask(client, fresh) == {"project_id": fresh, "users": [here, there]}
    assert alices.expect("presence_change") == {"project_id": fresh, "joined": [there], "left": []}
    assert client.settle() == []


@pytest.mark.every_runtime
def test_what_somebody_looks_at_the_others_are_told(
    client: Client, alices: Client, bob: str, fresh: str, connect: Any, site: Site
) -> None:
    second = connect(site, bob, "websocket")
    for each in (client, second):
        each.call("join_project", {"project_id": fresh, "presence": True})
        each.until("presence_state")
    alices.until("presence_change")
    for content_id in ("c1", None):
        answer = client.call("looking_at", {"project_id": fresh, "content_id": content_id})
        assert answer == {"project_id": fresh, "content_id": content_id}
        assert alices.expect("presence_looking") == {
            "project_id": fresh, "user_id": bob, "content_id": content_id,
        }  # fmt: skip
    for each in (client, second):
        each.settle()
        assert each.events("presence_looking") == [], "it is told to others, and users are not their sessions"


def test_somebody_who_left_is_gone_after_a_while_and_not_while_a_session_of_theirs_is_there(
    site: Site, connect: Any, alices: Client, bob: str, fresh: str, world: World
) -> None:
    first, second = (connect(site, bob, "websocket") for _ in range(2))
    for client in (first, second):
        client.call("join_project", {"project_id": fresh})
    assert alices.expect("presence_change")["joined"] == [person(world, bob)]
    for client in (first, second):
        assert alices.settle() == []
        client.call("leave_project", {"project_id": fresh})
    assert alices.expect("presence_change") == {"project_id": fresh, "joined": [], "left": [{"user_id": bob}]}


def test_who_does_not_ask_is_told_nothing(client: Client, alices: Client, fresh: str, world: World, bob: str) -> None:
    client.call("join_project", {"project_id": fresh})
    assert alices.expect("presence_change")["joined"] == [person(world, bob)], "but counts"
    client.settle()
    assert not [name for name, _ in client.items if name.startswith("presence_")]


def test_nobody_outside_the_room_learns_anything(
    site: Site, connect: Any, alices: Client, carol: str, fresh: str
) -> None:
    client = connect(site, carol, "websocket")
    client.expect("connected")
    answer = client.call("join_project", {"project_id": fresh, "presence": True})
    assert answer["error"]["code"] == "access_denied"
    assert [name for name, _ in client.settle()] == []
    assert alices.settle() == []


@pytest.mark.parametrize(
    ("payload", "message", "code"),
    [
        ({}, "Project ID required", "project_id_required"),
        ({"project_id": 7}, "Invalid project ID format", "invalid_project_id"),
        ({"content_id": 7}, "Invalid content ID format", "invalid_content_id"),
        ({"content_id": "x" * 101}, "Invalid content ID format", "invalid_content_id"),
        ({"content_id": "c1"}, "Join the project with presence first", "presence_required"),
    ],
)
def test_looking_at_what_cannot_be(
    client: Client, fresh: str, payload: dict[str, Any], message: str, code: str
) -> None:
    client.call("join_project", {"project_id": fresh})
    if "content_id" in payload:
        payload = {"project_id": fresh, **payload}
    assert client.call("looking_at", payload) == {"error": {"message": message, "code": code}}
    named = {"project_id": fresh} if payload.get("project_id") == fresh else {}
    assert client.events("error") == [{"message": message, "code": code, **named}]
