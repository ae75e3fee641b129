"""The contract over servers of python-socketio, with real clients."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from kits import PATIENCE
from kits.attached_servers import World, running_world
from kits.real_clients import RealClient

AUTHENTICATION_REQUIRED = {"message": "Authentication required", "code": "authentication_required"}
ACCESS_DENIED = {"message": "Access denied - you are not a member of this project", "code": "access_denied"}
SERVER_ERROR = {"message": "Server error occurred", "code": "server_error"}
SLOW_DOWN = {"message": "Too many requests - please slow down", "code": "rate_limited"}

BOTH = pytest.mark.parametrize("transports", ["websocket", "polling"])


def names(client: RealClient) -> list[str]:
    """The contract's events the client saw, without those of its library."""
    return [name for name, _ in client.events if name not in ("connect", "ready") and not name.startswith("ack ")]


def numbers(client: RealClient) -> list[int]:
    return [data["n"] for data in client.all("moderation_update")]


def counted(client: RealClient, count: int) -> list[int]:
    return [data["n"] for data in client.wait_all("moderation_update", count)]


def settled(client: RealClient) -> None:
    """Everything sent to the client so far has come: this answer comes after it."""
    client.call("leave_project", {"project_id": "elsewhere"})


class TestWhoIsConnecting:
    @pytest.mark.parametrize("transports", ["websocket", "polling", "upgrade"])
    def test_a_user_is_welcomed_after_the_connect(self, world: World, transports: str) -> None:
        alice = world.client("alice", transports)
        assert alice.wait("connected") == {"message": "Connected to AutoModerate"}
        assert [name for name, _ in alice.events if name != "ready"] == ["connect", "connected"]

    @pytest.mark.parametrize("user", [None, "nobody", "gone"])
    def test_nobody_is_told_so_and_within_the_grace_once_more(self, kind: str, user: str | None) -> None:
        with running_world(kind, auth_grace=PATIENCE) as world:
            client = world.client(user)
            assert client.wait("error") == AUTHENTICATION_REQUIRED
            assert client.call("join_project", {"project_id": "p"}) == {"error": AUTHENTICATION_REQUIRED}
            assert client.wait("error", 2) == {**AUTHENTICATION_REQUIRED, "project_id": "p"}

    def test_nobody_is_ended_after_the_grace(self, world: World) -> None:
        client = world.client(None)
        assert client.wait("error") == AUTHENTICATION_REQUIRED
        assert client.wait("disconnect") == "server disconnect"

    @pytest.mark.parametrize(
        ("library", "transports", "reason"),
        [
            ("node", "websocket", "transport close"),
            ("node", "polling", "transport "),
            ("python-async", "websocket", "transport "),
            ("python", "polling", "transport "),
        ],
    )
    def test_a_lookup_that_fails_drops_the_transport_so_that_the_client_returns(
        self, world: World, library: str, transports: str, reason: str
    ) -> None:
        world.directory.away = True
        client = world.client("alice", transports, library)
        assert client.wait("error") == SERVER_ERROR
        world.directory.away = False
        assert reason in client.wait("disconnect")
        client.wait("connected")

    def test_events_sent_before_the_lookup_is_answered_are_served(self, world: World) -> None:
        world.directory.free.clear()
        alice = world.client("alice")
        alice.wait("connect")
        alice.emit("join_project", {"project_id": "p"})
        world.directory.free.set()
        alice.wait("joined_project")
        assert names(alice) == ["connected", "joined_project"]


class TestRooms:
    @BOTH
    def test_join_and_leave_answer_both_ways_and_the_event_first(self, world: World, transports: str) -> None:
        alice = world.welcome("alice", transports)
        answer = alice.call("join_project", {"project_id": "p", "unknown": 1})
        assert {key: answer[key] for key in ("project_id", "room")} == {"project_id": "p", "room": "project_p"}
        assert alice.wait("joined_project") == answer
        assert alice.call("leave_project", {"project_id": "p"}) == {"project_id": "p"}
        assert alice.wait("left_project") == {"project_id": "p"}
        assert names(alice) == ["connected", "joined_project", "left_project"]

    def test_an_acknowledgement_comes_between_its_event_and_the_updates(self, world: World) -> None:
        """With catch-up, which the hub hands over before; seen by a client that tells acknowledgements in order."""
        alice = world.client("alice", library="node")
        (first, *_) = world.publish(1, 2)
        alice.wait("connected")
        alice.call("join_project", {"project_id": "p", "last_event_id": first})
        world.publish(3)
        alice.wait("moderation_update", 2)
        seen = [name for name, _ in alice.events if name not in ("connect", "ready")]
        assert seen == ["connected", "moderation_update", "joined_project", "ack 0", "moderation_update"]

    def test_joining_twice_is_answered_twice_and_delivers_once(self, world: World) -> None:
        alice = world.welcome("alice")
        for _ in range(2):
            alice.call("join_project", {"project_id": "p"})
        world.publish(1)
        settled(alice)
        assert names(alice).count("joined_project") == 2
        assert numbers(alice) == [1]

    def test_a_leave_that_overtakes_the_check_wins(self, world: World) -> None:
        alice = world.welcome("alice")
        world.directory.free.clear()
        alice.emit("join_project", {"project_id": "p"})
        assert alice.call("leave_project", {"project_id": "p"}) == {"project_id": "p"}
        world.directory.free.set()
        world.publish(1)
        settled(alice)
        assert names(alice) == ["connected", "left_project", "left_project"]

    def test_a_session_that_ends_leaves_nothing_behind(self, world: World) -> None:
        alice = world.welcome("alice")
        bob = world.welcome("bob")
        for client in (alice, bob):
            client.call("join_project", {"project_id": "p"})
        world.directory.free.clear()
        alice.emit("join_project", {"project_id": "q"})
        alice.disconnect()
        bob.disconnect()
        world.directory.free.set()
        carol = world.welcome("carol")
        settled(carol)
        counts = world.hub.counts()
        assert {name: counts[name] for name in ("sessions", "rooms", "memberships", "tickets")} == {
            "sessions": 1, "rooms": 0, "memberships": 0, "tickets": 0,
        }  # fmt: skip
        assert list(world.sio.manager.get_participants("/", "project_p")) == []

    def test_live_begins_at_the_join_and_ends_with_the_leave(self, world: World) -> None:
        alice = world.welcome("alice")
        world.publish(1)
        alice.call("join_project", {"project_id": "p"})
        world.publish(2)
        alice.call("leave_project", {"project_id": "p"})
        world.publish(3)
        settled(alice)
        assert numbers(alice) == [2]


class TestErrors:
    @pytest.mark.parametrize(
        ("payload", "message", "code", "named"),
        [
            (None, "Project ID required", "project_id_required", {}),
            ("p", "Project ID required", "project_id_required", {}),
            ({}, "Project ID required", "project_id_required", {}),
            ({"project_id": ""}, "Project ID required", "project_id_required", {"project_id": ""}),
            ({"project_id": 5}, "Invalid project ID format", "invalid_project_id", {}),
            ({"project_id": "x" * 101}, "Invalid project ID format", "invalid_project_id", {"project_id": "x" * 101}),
            ({"project_id": "none"}, "Project not found", "project_not_found", {"project_id": "none"}),
        ],
    )
    def test_bad_requests(self, world: World, payload: Any, message: str, code: str, named: dict[str, str]) -> None:
        alice = world.welcome("alice")
        error = {"message": message, "code": code}
        assert alice.call("join_project", payload) == {"error": error}
        assert alice.wait("error") == error | named
        settled(alice)

    def test_no_member(self, world: World) -> None:
        carol = world.welcome("carol")
        assert carol.call("join_project", {"project_id": "p"}) == {"error": ACCESS_DENIED}
        world.publish(1)
        settled(carol)
        assert numbers(carol) == []

    def test_a_check_that_fails_says_so_and_the_log_says_why(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        alice = world.welcome("alice")
        world.directory.away = True
        assert alice.call("join_project", {"project_id": "p"}) == {"error": SERVER_ERROR}
        assert "the database is away" in caplog.text
        assert "database" not in repr(alice.events)

    def test_a_check_that_takes_too_long(self, world: World) -> None:
        alice = world.welcome("alice")
        world.hub.limits = attrs.evolve(world.hub.limits, check_timeout=0.05)
        world.directory.free.clear()
        answer = alice.call("join_project", {"project_id": "p"})
        assert answer == {"error": {"message": "Server timeout - please try again", "code": "timeout"}}

    def test_too_many_rooms(self, kind: str) -> None:
        with running_world(kind, max_rooms=1) as world:
            alice = world.welcome("alice")
            alice.call("join_project", {"project_id": "p"})
            error = {"message": "Too many projects joined", "code": "room_limit"}
            assert alice.call("join_project", {"project_id": "q"}) == {"error": error}

    def test_too_many_events_and_then_the_end(self, kind: str) -> None:
        with running_world(kind, max_events_per_minute=8) as world:
            alice = world.welcome("alice")
            for _ in range(8):
                settled(alice)
            assert alice.call("join_project", {"project_id": "p"}) == {"error": SLOW_DOWN}
            for _ in range(2):
                alice.emit("join_project", {"project_id": "p"})
            assert alice.wait("disconnect") == "server disconnect"

    def test_too_many_connections_from_one_address(self, kind: str) -> None:
        with running_world(kind, max_connections_per_minute=1) as world:
            world.welcome("alice")
            second = world.client("alice")
            message = "Too many connection attempts. Please try again later."
            assert second.wait("error") == {"message": message, "code": "rate_limited"}
            assert "transport " in second.wait("disconnect"), "it comes back by itself"


class TestJoining:
    def test_recent_updates_and_chosen_statuses(self, world: World) -> None:
        world.publish(1, 2, 3)
        everything, flagged = world.welcome("alice"), world.welcome("bob")
        answer = everything.call("join_project", {"project_id": "p", "recent": 2})
        assert counted(everything, 2) == [2, 3]
        assert answer["last_event_id"]
        flagged.call("join_project", {"project_id": "p", "recent": 2, "statuses": ["flagged"]})
        for number, status in ((4, "approved"), (5, "flagged")):
            data = {"project_id": "p", "n": number, "status": status}
            world.attachment.publish("p", "moderation_update", data).result(PATIENCE)
        assert counted(everything, 4) == [2, 3, 4, 5]
        assert counted(flagged, 1) == [5]
        answer = flagged.call("join_project", {"project_id": "p", "statuses": []})
        assert answer == {"error": {"message": "Invalid statuses", "code": "invalid_statuses"}}

    def test_who_is_there_and_what_they_look_at(self, world: World) -> None:
        alice, bob = world.welcome("alice"), world.welcome("bob")
        alice.call("join_project", {"project_id": "p", "presence": True})
        assert [user["user_id"] for user in alice.wait("presence_state")["users"]] == ["alice"]
        bob.call("join_project", {"project_id": "p", "presence": True})
        assert [user["user_id"] for user in bob.wait("presence_state")["users"]] == ["alice", "bob"]
        joined = [{"user_id": "bob", "username": "bob"}]
        assert alice.wait("presence_change") == {"project_id": "p", "joined": joined, "left": []}
        assert bob.call("looking_at", {"project_id": "p", "content_id": "c1"})["content_id"] == "c1"
        looks = {"project_id": "p", "user_id": "bob", "content_id": "c1"}
        assert alice.wait("presence_looking") == looks
        settled(bob)
        assert "presence_looking" not in names(bob)
        bob.call("leave_project", {"project_id": "p"})
        assert alice.wait("presence_change", 2)["left"] == [{"user_id": "bob"}]


class TestUpdates:
    def test_everyone_in_the_room_once_in_order_and_nobody_else(self, world: World) -> None:
        inside = [world.welcome(user, kind) for user in ("alice", "bob") for kind in ("websocket", "polling")]
        for client in inside:
            client.call("join_project", {"project_id": "p"})
        outside = [world.welcome("alice"), world.welcome("alice")]
        outside[1].call("join_project", {"project_id": "q"})
        world.publish(*range(12))
        assert [counted(client, 12) for client in inside] == [list(range(12))] * 4
        for client in outside:
            settled(client)
            assert numbers(client) == []

    def test_an_update_arrives_as_it_was_when_it_was_published(self, world: World) -> None:
        alice = world.welcome("alice")
        alice.call("join_project", {"project_id": "p"})
        data = {"content_preview": "<b>ü\u2028\x1e</b>", "meta_data": {"deep": [1, None, 2.5, True]}}
        expected = {"content_preview": "<b>ü\u2028\x1e</b>", "meta_data": {"deep": [1, None, 2.5, True]}}
        event_id = world.attachment.publish("p", "rule_update", data).result()
        data["meta_data"]["deep"].clear()  # type: ignore[index]
        assert alice.wait("rule_update") == {**expected, "event_id": event_id}

    @pytest.mark.parametrize("data", [{"x": object()}, {"x": float("nan")}])
    def test_what_cannot_be_sent_is_refused(self, world: World, data: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="the data of 'stats_update' cannot be sent"):
            world.attachment.publish("p", "stats_update", data)


class TestCatchUp:
    @pytest.mark.parametrize("transports", ["websocket", "upgrade"])
    def test_what_was_missed_comes_once_and_before_anything_newer(self, world: World, transports: str) -> None:
        alice = world.welcome("alice", transports)
        alice.call("join_project", {"project_id": "p"})
        (last,) = world.publish(1)
        alice.wait("moderation_update")
        alice.disconnect()
        newest = world.publish(2, 3)[-1]
        alice = world.welcome("alice", transports)
        answer = alice.call("join_project", {"project_id": "p", "last_event_id": last})
        world.publish(4)
        assert answer == {"project_id": "p", "room": "project_p", "recovered": True, "last_event_id": newest}
        assert counted(alice, 3) == [2, 3, 4]
        assert names(alice)[1:] == ["moderation_update", "moderation_update", "joined_project", "moderation_update"]

    def test_a_gap_is_owned_up_to(self, world: World) -> None:
        alice = world.welcome("alice")
        world.publish(1)
        assert alice.call("join_project", {"project_id": "p", "last_event_id": "1-0"})["recovered"] is False
        settled(alice)
        assert numbers(alice) == []


class TestRevocation:
    def joined(self, world: World, user: str = "bob") -> RealClient:
        client = world.welcome(user)
        client.call("join_project", {"project_id": "p"})
        return client

    def test_removal_from_a_project_that_is_announced(self, world: World) -> None:
        bob = self.joined(world)
        world.directory.projects["p"].discard("bob")
        world.attachment.access_changed(user_id="bob", project_id="p").result()
        assert bob.wait("error") == {**ACCESS_DENIED, "project_id": "p"}
        world.publish(1)
        settled(bob)
        assert numbers(bob) == []

    def test_deactivation_that_is_not_announced_takes_effect_at_the_next_check(self, kind: str) -> None:
        with running_world(kind, recheck_interval=0.5) as world:
            bob = self.joined(world)
            world.directory.users["bob"] = False
            assert bob.wait("error") == AUTHENTICATION_REQUIRED
            world.publish(1)
            assert bob.wait("disconnect") == "server disconnect"
            assert numbers(bob) == []

    def test_logout(self, world: World) -> None:
        alice, bob = self.joined(world, "alice"), self.joined(world)
        world.attachment.logged_out("bob").result()
        world.publish(1)
        assert bob.wait("error") == AUTHENTICATION_REQUIRED
        assert bob.wait("disconnect") == "server disconnect"
        assert counted(alice, 1) == [1]
        assert numbers(bob) == []
