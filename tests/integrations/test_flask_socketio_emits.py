"""An application with Flask-SocketIO, mounted unchanged: what it emits arrives, through every adapter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from automoderate.directory import accounts
from kits.flask_socketio_site import Site

COUNT = 50


def numbers(updates: list[dict[str, Any]], source: str) -> list[int]:
    return [update["number"] for update in updates if update["source"] == source]


@pytest.mark.parametrize("transports", ["websocket", "polling"])
@pytest.mark.parametrize("path", ["moderate", "moderate-later"])
def test_what_it_emits_to_a_project_arrives_in_order_at_members_only(site: Site, path: str, transports: str) -> None:
    alice = site.watch(site.login("alice"), transports)
    stranger = site.login("bob")
    site.post(f"/{path}/{site.project}/x?count={COUNT}", stranger)
    site.post(f"/{path}/elsewhere/x?count=1", stranger)
    updates = alice.wait_all("moderation_update", COUNT)
    assert numbers(updates, "x") == list(range(COUNT))
    ids = [tuple(map(int, update["event_id"].split("-"))) for update in updates]
    assert ids == sorted(set(ids))


def test_the_order_of_each_thread_holds_among_many(site: Site) -> None:
    alice, bob = (site.watch(site.login(name)) for name in ("alice", "bob"))
    sources = [f"{path}-{n}" for path in ("moderate", "moderate-later") for n in range(4)]

    def ask(source: str) -> None:
        path = source.rpartition("-")[0]
        site.post(f"/{path}/{site.project}/{source}?count={COUNT}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, sources))
    seen = [client.wait_all("moderation_update", COUNT * len(sources)) for client in (alice, bob)]
    assert seen[0] == seen[1]
    for source in sources:
        assert numbers(seen[0], source) == list(range(COUNT))


def test_what_does_not_fit_is_logged_and_harms_nobody(site: Site) -> None:
    alice = site.watch(site.login("alice"))
    for _ in range(2):
        assert site.post(f"/emit-oddly/{site.project}") == "survived"
    updates = alice.wait_all("stats_update", 2)
    assert [update["id"] for update in updates] == ["00000000-0000-0000-0000-000000000001"] * 2
    assert site.log.count("only rooms of projects") == 1
    assert site.log.count("an update is one object") == 1
    assert site.log.count("logging the user out") == 1
    assert site.log.count("asked for an acknowledgement") == 1
    assert site.log.count("'stats_update' was not published") == 8
    assert requests.get(f"{site.url}/handled", timeout=60).json() == []


@pytest.mark.parametrize("path", ["/socket.io/", "/socket%2eio/", "/socket.io"])
def test_its_own_engine_is_out_of_reach(site: Site, path: str) -> None:
    url = f"{site.url}{path}?EIO=4&transport=polling"
    response = requests.get(url, timeout=60)
    assert response.status_code == (200 if path.endswith("/") else 404)
    if response.ok:  # by ours, which the application's handlers hear nothing of
        sid = response.text.split('"')[3]
        assert requests.post(f"{url}&sid={sid}", data="40", timeout=60).status_code == 200
    assert requests.get(f"{site.url}/handled", timeout=60).json() == []


def test_closing_a_room_looks_again_who_may_be_in_it(site: Site) -> None:
    alice, bob = (site.watch(site.login(name)) for name in ("alice", "bob"))
    accounts.remove_member(site.database, site.project, site.users["bob"])
    assert site.post(f"/close/{site.project}") == "closed"
    assert bob.wait("error")["code"] == "access_denied"
    site.post(f"/moderate/{site.project}/after?count=1")
    alice.wait("moderation_update")
    assert bob.call("leave_project", {"project_id": site.project}) == {"project_id": site.project}
    assert not [name for name, _ in bob.events if name == "moderation_update"]


def test_a_logout_from_its_page_ends_live_sessions(site: Site) -> None:
    browser = site.login("bob")
    bob = site.watch(browser)
    assert site.post("/auth/logout", browser) == "bye"
    assert bob.wait("error")["code"] == "authentication_required"
