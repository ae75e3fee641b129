"""Section 5 of the contract: updates reach the room of their project, once and in order, and catch-up."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from automoderate.notifier import WebSocketNotifier
from kits import PATIENCE
from kits.contract_client import TRANSPORTS, Client, TransportName
from kits.contract_site import Site


@pytest.fixture
def client(site: Site, connect: Any, alice: str, transport: TransportName) -> Client:
    client: Client = connect(site, alice, transport)
    client.expect("connected")
    return client


@pytest.fixture
def notifier(site: Site) -> WebSocketNotifier:
    """In the process of the server."""
    return WebSocketNotifier(realtime=site.assembly.realtime)


def numbers(client: Client) -> list[int]:
    return [data["n"] for data in client.events("moderation_update")]


class TestDelivery:
    @pytest.mark.every_runtime
    def test_everyone_in_the_room_once_and_in_order(
        self, site: Site, connect: Any, alice: str, bob: str, project: str, fresh: str
    ) -> None:
        inside = [connect(site, user, kind) for user in (alice, bob) for kind in TRANSPORTS]
        for client in inside:
            client.call("join_project", {"project_id": project})
        outside, elsewhere = connect(site, alice, "websocket"), connect(site, alice, "websocket")
        elsewhere.call("join_project", {"project_id": fresh})
        for number in range(30):
            site.publish(project, number)
        for client in (*inside, outside, elsewhere):
            client.settle()
        assert [numbers(client) for client in inside] == [list(range(30))] * 6
        assert numbers(outside) == numbers(elsewhere) == []

    @pytest.mark.every_runtime
    def test_one_burst_arrives_whole(self, site: Site, client: Client, project: str) -> None:
        client.call("join_project", {"project_id": project})
        long = {"project_id": project, "text": "x" * 1000}
        futures = [
            site.assembly.realtime.publish(project, "moderation_update", {**long, "n": number}) for number in range(300)
        ]
        event_ids = [future.result(PATIENCE) for future in futures]
        client.settle()
        assert numbers(client) == list(range(300))
        assert [data["event_id"] for data in client.events("moderation_update")] == event_ids

    def test_event_ids_order_the_events_of_a_project(self, site: Site, client: Client, project: str) -> None:
        client.call("join_project", {"project_id": project})
        given = [site.publish(project, number) for number in range(10)]
        client.settle()
        order = [tuple(map(int, event_id.split("-"))) for event_id in given]
        assert order == sorted(set(order))

    @pytest.mark.every_runtime
    def test_data_arrives_as_it_was_published(self, site: Site, client: Client, project: str) -> None:
        client.call("join_project", {"project_id": project})
        data: dict[str, Any] = {
            "text": "<b>ü\u2028\x1e\x00😀</b>",
            "deep": [1, None, 2.5, True, {"": []}],
            "project_id": project,
        }
        event_id = site.assembly.realtime.publish(project, "moderation_update", data).result(PATIENCE)
        assert client.expect("moderation_update") == {**data, "event_id": event_id}

    @pytest.mark.parametrize("event", ["content_received", "stats_update", "rule_update"])
    def test_the_other_events_travel_the_same_way(self, site: Site, client: Client, project: str, event: str) -> None:
        client.call("join_project", {"project_id": project})
        event_id = site.publish(project, 7, event)
        assert client.expect(event) == {"project_id": project, "n": 7, "event_id": event_id}


class TestShape:
    """What AutoModerate's own pipeline hands over, as a dashboard sees it."""

    @pytest.fixture
    def content(self, project: str) -> SimpleNamespace:
        return SimpleNamespace(
            id="content-1", project_id=project, content_type="text", content_data="x" * 101, meta_data={"any": "json"}
        )

    @pytest.fixture
    def watcher(self, site: Site, connect: Any, alice: str, project: str) -> Client:
        client: Client = connect(site, alice, "websocket")
        client.call("join_project", {"project_id": project})
        return client

    @pytest.mark.parametrize(
        ("result", "moderator"),
        [
            ({"moderator_type": "rule", "rule_name": "Spam Detection"}, ("rule", "Rule", "Spam Detection")),
            ({"moderator_type": "ai"}, ("ai", "AI", None)),
            ({"moderator_type": "manual"}, ("manual", "Manual", None)),
            ({"moderator_type": "second opinion"}, ("second opinion", "Second Opinion", None)),
            (None, ("unknown", "Unknown", None)),
        ],
    )
    def test_moderation_update(
        self, watcher: Client, notifier: WebSocketNotifier, content: SimpleNamespace, project: str,
        result: dict[str, str] | None, moderator: tuple[str, str, str | None],
    ) -> None:  # fmt: skip
        results = [] if result is None else [result, {"moderator_type": "another"}]
        notifier.send_update_async(content, "approved", results, 1.23)
        data = watcher.expect("moderation_update")
        assert datetime.fromisoformat(data.pop("timestamp")).utcoffset() is not None
        assert data.pop("event_id")
        moderator_type, moderator_name, rule_name = moderator
        assert data == {
            "content_id": "content-1", "project_id": project, "status": "approved", "content_type": "text",
            "content_preview": "x" * 100 + "...", "meta_data": {"any": "json"}, "results_count": len(results),
            "processing_time": 1.23, "moderator_type": moderator_type, "moderator_name": moderator_name,
            "rule_name": rule_name,
        }  # fmt: skip

    @pytest.mark.parametrize("status", ["approved", "rejected", "flagged", "pending"])
    def test_status(self, watcher: Client, notifier: WebSocketNotifier, content: SimpleNamespace, status: str) -> None:
        notifier.send_update_async(content, status, [], 0)
        assert watcher.expect("moderation_update")["status"] == status

    @pytest.mark.parametrize("length", [0, 99, 100])
    def test_a_short_preview_is_the_whole(
        self, watcher: Client, notifier: WebSocketNotifier, content: SimpleNamespace, length: int
    ) -> None:
        content.content_data = "é" * length
        notifier.send_update_async(content, "approved", [], 0)
        assert watcher.expect("moderation_update")["content_preview"] == "é" * length

    def test_content_received(
        self, watcher: Client, notifier: WebSocketNotifier, content: SimpleNamespace, project: str
    ) -> None:
        notifier.send_content_created(content)
        data = watcher.expect("content_received")
        assert datetime.fromisoformat(data.pop("timestamp"))
        assert data.pop("event_id")
        assert data == {
            "content_id": "content-1", "project_id": project, "status": "pending", "content_type": "text",
            "content_preview": "x" * 100 + "...", "meta_data": {"any": "json"}, "results_count": 0,
            "processing_time": 0.0, "moderator_type": "pending", "moderator_name": "Processing…", "rule_name": None,
        }  # fmt: skip

    def test_stats_update(self, watcher: Client, notifier: WebSocketNotifier, project: str) -> None:
        notifier.send_stats_update(project, {"total": 5, "by_status": {"approved": 3}})
        data = watcher.expect("stats_update")
        assert data.pop("event_id")
        assert data == {"total": 5, "by_status": {"approved": 3}}

    def test_rule_update(self, watcher: Client, notifier: WebSocketNotifier, project: str) -> None:
        notifier.send_rule_update(project, {"id": 5, "name": "Spam"})
        notifier.send_rule_update(project, {"id": 5}, action="deleted")
        updated, deleted = watcher.expect("rule_update"), watcher.expect("rule_update")
        assert updated.keys() == {"action", "rule", "timestamp", "event_id"}
        assert (updated["action"], updated["rule"]) == ("updated", {"id": 5, "name": "Spam"})
        assert (deleted["action"], deleted["rule"]) == ("deleted", {"id": 5})


class TestCatchUp:
    @pytest.mark.every_runtime
    def test_what_was_missed_comes_once_in_order_and_before_anything_newer(
        self, site: Site, connect: Any, alice: str, fresh: str, transport: TransportName
    ) -> None:
        client = connect(site, alice, transport)
        client.call("join_project", {"project_id": fresh})
        site.publish(fresh, 1)
        client.settle()
        last = client.events("moderation_update")[-1]["event_id"]
        client.wire.cut()
        newest = [site.publish(fresh, number) for number in (2, 3)][-1]
        client = connect(site, alice, transport)
        client.expect("connected")
        answer = client.call("join_project", {"project_id": fresh, "last_event_id": last})
        site.publish(fresh, 4)
        client.settle()
        assert answer == {
            "project_id": fresh, "room": f"project_{fresh}", "recovered": True, "last_event_id": newest,
        }  # fmt: skip
        assert client.events("joined_project") == [answer]
        names = [name for name, _ in client.items if name in ("moderation_update", "joined_project")]
        assert names == ["moderation_update", "moderation_update", "joined_project", "moderation_update"]
        assert numbers(client) == [2, 3, 4]

    @pytest.mark.every_runtime
    def test_published_while_the_check_is_under_way(self, site: Site, client: Client, fresh: str) -> None:
        first = site.publish(fresh, 1)
        with site.directory.held() as gate:
            client.request("join_project", {"project_id": fresh, "last_event_id": first})
            gate.wait()
            newest = site.publish(fresh, 2)
            gate.opened.set()
            answer = client.until("ack")[1]
        site.publish(fresh, 3)
        client.settle()
        assert (answer["recovered"], answer["last_event_id"]) == (True, newest)
        assert numbers(client) == [2, 3]

    def test_nothing_missed_is_recovered_too(self, site: Site, client: Client, fresh: str) -> None:
        last = site.publish(fresh, 1)
        answer = client.call("join_project", {"project_id": fresh, "last_event_id": last})
        assert (answer["recovered"], answer["last_event_id"]) == (True, last)
        assert numbers(client) == []

    def test_all_events_of_the_project_are_caught_up(self, site: Site, client: Client, fresh: str) -> None:
        last = site.publish(fresh, 0)
        for event in ("content_received", "moderation_update", "stats_update", "rule_update"):
            site.publish(fresh, 1, event)
        client.call("join_project", {"project_id": fresh, "last_event_id": last})
        assert [name for name, _ in client.items[1:]] == [
            "content_received", "moderation_update", "stats_update", "rule_update", "joined_project", "ack",
        ]  # fmt: skip

    def test_without_last_event_id_nothing_is_replayed(self, site: Site, client: Client, fresh: str) -> None:
        newest = site.publish(fresh, 1)
        for request in ({"project_id": fresh}, {"project_id": fresh, "last_event_id": None}):
            answer = client.call("join_project", request)
            assert "recovered" not in answer
            assert answer["last_event_id"] == newest
        assert numbers(client) == []

    @pytest.mark.parametrize("last", ["1-0", "99999999999999-0", "nonsense", "", 12, {}, True])
    def test_a_history_that_does_not_reach_back_says_so(
        self, site: Site, client: Client, fresh: str, last: object
    ) -> None:
        newest = site.publish(fresh, 1)
        answer = client.call("join_project", {"project_id": fresh, "last_event_id": last})
        assert (answer["recovered"], answer["last_event_id"]) == (False, newest)
        site.publish(fresh, 2)
        client.settle()
        assert numbers(client) == [2]

    def test_history_ends_where_the_oldest_kept_update_is(
        self, sites: Any, connect: Any, alice: str, fresh: str, transport: TransportName
    ) -> None:
        site = sites(history_entries=3)
        given = [site.publish(fresh, number) for number in range(6)]
        for last, recovered, expected in ((given[1], False, []), (given[2], True, [3, 4, 5])):
            client = connect(site, alice, transport)
            answer = client.call("join_project", {"project_id": fresh, "last_event_id": last})
            assert answer["recovered"] is recovered
            assert numbers(client) == expected

    def test_after_a_restart_the_history_is_gone_and_it_says_so(
        self, own_site: Any, site: Site, connect: Any, alice: str, fresh: str
    ) -> None:
        last = own_site().publish(fresh, 1)
        client = connect(site, alice, "websocket")
        assert client.call("join_project", {"project_id": fresh, "last_event_id": last})["recovered"] is False

    def test_who_may_not_see_the_project_catches_up_on_nothing(
        self, site: Site, connect: Any, carol: str, fresh: str, transport: TransportName
    ) -> None:
        last = site.publish(fresh, 1)
        site.publish(fresh, 2)
        client = connect(site, carol, transport)
        answer = client.call("join_project", {"project_id": fresh, "last_event_id": last})
        assert answer["error"]["code"] == "access_denied"
        client.settle()
        assert numbers(client) == []
