"""Section 10 of the contract: recent updates with a join, and some statuses only."""

from __future__ import annotations

from typing import Any

import pytest

from kits import PATIENCE
from kits.contract_client import Client, TransportName
from kits.contract_site import Site

INVALID_STATUSES = {"message": "Invalid statuses", "code": "invalid_statuses"}


@pytest.fixture
def client(site: Site, connect: Any, alice: str, transport: TransportName) -> Client:
    client: Client = connect(site, alice, transport)
    client.expect("connected")
    return client


def numbers(client: Client) -> list[int]:
    """Those of all updates, whatever their event."""
    return [
        data["n"] for name, data in client.items if name in ("moderation_update", "content_received", "rule_update")
    ]


def decide(site: Site, project: str, number: int, status: str, event: str = "moderation_update") -> str:
    """Publish a decision; its event id."""
    data = {"project_id": project, "n": number, "status": status}
    return site.assembly.realtime.publish(project, event, data).result(PATIENCE)


class TestRecent:
    def test_the_newest_come_oldest_first_and_before_the_answer(self, site: Site, client: Client, fresh: str) -> None:
        given = [site.publish(fresh, number) for number in range(10)]
        answer = client.call("join_project", {"project_id": fresh, "recent": 3})
        assert answer == {"project_id": fresh, "room": f"project_{fresh}", "last_event_id": given[-1]}
        assert [name for name, _ in client.items[1:]] == [*["moderation_update"] * 3, "joined_project", "ack"]
        assert numbers(client) == [7, 8, 9]
        assert [data["event_id"] for data in client.events("moderation_update")] == given[-3:]
        site.publish(fresh, 10)
        client.settle()
        assert numbers(client) == [7, 8, 9, 10]

    def test_fewer_are_kept_than_asked_for(self, sites: Any, connect: Any, alice: str, fresh: str) -> None:
        site = sites(history_entries=3)
        client = connect(site, alice, "websocket")
        assert "error" not in client.call("join_project", {"project_id": fresh, "recent": 200})
        for number in range(5):
            site.publish(fresh, number)
        later = connect(site, alice, "websocket")
        later.call("join_project", {"project_id": fresh, "recent": 200})
        assert numbers(later) == [2, 3, 4]

    def test_it_is_ignored_beside_last_event_id(self, site: Site, client: Client, fresh: str) -> None:
        given = [site.publish(fresh, number) for number in range(3)]
        answer = client.call("join_project", {"project_id": fresh, "recent": 3, "last_event_id": given[1]})
        assert answer["recovered"] is True
        assert numbers(client) == [2]

    @pytest.mark.parametrize("recent", [0, 201, -1, 2.5, "2", True, None, [2], {}])
    def test_what_is_no_such_number_is_ignored(
        self, site: Site, connect: Any, alice: str, fresh: str, recent: object
    ) -> None:
        newest = site.publish(fresh, 1)
        client = connect(site, alice, "websocket")
        answer = client.call("join_project", {"project_id": fresh, "recent": recent})
        assert answer == {"project_id": fresh, "room": f"project_{fresh}", "last_event_id": newest}
        assert numbers(client) == []

    def test_a_member_may_ask_again(self, site: Site, client: Client, fresh: str) -> None:
        for number in range(3):
            site.publish(fresh, number)
        client.call("join_project", {"project_id": fresh})
        client.call("join_project", {"project_id": fresh, "recent": 2})
        site.publish(fresh, 3)
        client.settle()
        assert numbers(client) == [1, 2, 3]

    def test_who_may_not_see_the_project_gets_none(self, site: Site, connect: Any, carol: str, fresh: str) -> None:
        site.publish(fresh, 1)
        client = connect(site, carol, "websocket")
        answer = client.call("join_project", {"project_id": fresh, "recent": 5})
        assert answer["error"]["code"] == "access_denied"
        client.settle()
        assert numbers(client) == []


class TestStatuses:
    def test_live(self, site: Site, connect: Any, alice: str, client: Client, fresh: str) -> None:
        everything = connect(site, alice, "websocket")
        everything.call("join_project", {"project_id": fresh})
        answer = client.call("join_project", {"project_id": fresh, "statuses": ["flagged", "pending"]})
        assert answer["room"] == f"project_{fresh}"
        for number, status in enumerate(("approved", "flagged", "rejected", "pending")):
            decide(site, fresh, number, status)
            decide(site, fresh, 10 + number, status, "content_received")
            decide(site, fresh, 20 + number, status, "rule_update")
        for each in (client, everything):
            each.settle()
        assert numbers(client) == [20, 1, 11, 21, 22, 3, 13, 23]
        assert numbers(everything) == [ten + number for number in range(4) for ten in (0, 10, 20)]

    def test_caught_up_and_recent(self, site: Site, connect: Any, alice: str, fresh: str) -> None:
        first = decide(site, fresh, 0, "flagged")
        for number, status in enumerate(("approved", "flagged", "rejected"), 1):
            newest = decide(site, fresh, number, status)
        for more in ({"last_event_id": first, "statuses": ["flagged"]}, {"recent": 3, "statuses": ["flagged"]}):
            client = connect(site, alice, "websocket")
            answer = client.call("join_project", {"project_id": fresh, **more})
            assert numbers(client) == [2]
            assert answer["last_event_id"] == newest, "which is past what was not sent"
            back = connect(site, alice, "websocket")
            answer = back.call("join_project", {"project_id": fresh, "last_event_id": newest})
            assert answer["recovered"] is True

    @pytest.mark.parametrize("statuses", [None, [], "flagged", ["unknown"], ["flagged", 1], {}, 7, True])
    def test_a_list_that_is_none(self, site: Site, connect: Any, alice: str, fresh: str, statuses: object) -> None:
        client = connect(site, alice, "websocket")
        answer = client.call("join_project", {"project_id": fresh, "statuses": statuses})
        assert answer == {"error": INVALID_STATUSES}
        assert client.events("error") == [{**INVALID_STATUSES, "project_id": fresh}]
        site.publish(fresh, 1)
        client.settle()
        assert numbers(client) == []

    def test_a_member_chooses_anew_with_its_next_join(self, site: Site, client: Client, fresh: str) -> None:
        client.call("join_project", {"project_id": fresh})
        client.call("join_project", {"project_id": fresh, "statuses": ["flagged"]})
        decide(site, fresh, 1, "approved")
        client.settle()
        client.call("join_project", {"project_id": fresh})
        decide(site, fresh, 2, "approved")
        client.settle()
        assert numbers(client) == [2]

    def test_leaving_ends_it(self, site: Site, client: Client, fresh: str) -> None:
        client.call("join_project", {"project_id": fresh, "statuses": ["flagged"]})
        client.call("leave_project", {"project_id": fresh})
        decide(site, fresh, 1, "flagged")
        client.settle()
        assert numbers(client) == []
