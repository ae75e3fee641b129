"""The shipped nginx in front of two nodes: real clients on every transport, and a node that goes away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from kits import PATIENCE, until
from kits.cluster import Cluster
from kits.real_clients import TRANSPORTS, Clients, RealClient


@pytest.fixture
def connect(client: Clients, cluster: Cluster) -> Callable[..., RealClient]:
    """Connect through nginx as alice, and wait until the client is where it is going to stay."""

    def begin(transports: str, library: str = "python-async") -> RealClient:
        return client(cluster.nginx.url, cluster.world.cookie("alice"), transports, library).welcomed()

    return begin


def numbers(client: RealClient) -> list[int]:
    return [data["n"] for data in client.all("stats_update")]


def newest(client: RealClient) -> str:
    """The position of a client: its last update's, or where it joined."""
    found: list[str] = [
        data["event_id"] if event == "stats_update" else data["last_event_id"]
        for event, data in list(client.events)
        if event in ("stats_update", "joined_project")
    ]
    return found[-1]


@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest.mark.parametrize("library", ["python-async", "node"])
def test_every_transport_works_through_nginx(
    cluster: Cluster, connect: Callable[..., RealClient], transports: str, library: str
) -> None:
    watching = connect(transports, library)
    assert watching.call("join_project", {"project_id": cluster.world.project})["project_id"] == cluster.world.project
    for number, through in enumerate(("a", "b", ""), 1):
        cluster.publish(number, through)
    assert [data["n"] for data in watching.wait_all("stats_update", 3)] == [1, 2, 3]
    assert not any(cluster.metrics(name)["misrouted_requests_total"] for name in "ab"), "everything found its node"


def handshake(cluster: Cluster, address: str) -> list[Any]:
    """Connect by polling from an address that is behind a proxy of its own; what the server says."""
    url = f"{cluster.nginx.url}/socket.io/?EIO=4&transport=polling"
    with requests.Session() as http:
        http.headers.update({"X-Forwarded-For": address, "Cookie": cluster.world.cookie("alice")})
        sid = json.loads(http.get(url, timeout=PATIENCE).text[1:])["sid"]
        assert http.post(f"{url}&sid={sid}", "40", timeout=PATIENCE).text == "ok"
        said: list[Any] = []
        while not said:
            packets = http.get(f"{url}&sid={sid}", timeout=PATIENCE).text.split("\x1e")
            said = [json.loads(packet[2:]) for packet in packets if packet.startswith("42")]
        http.post(f"{url}&sid={sid}", "1", timeout=PATIENCE)
    return said[0]  # type: ignore[no-any-return]


def test_clients_are_counted_by_their_own_address(cluster: Cluster) -> None:
    """nginx is the one peer of all of them."""
    allowed = 2 * int(cluster.nodes["a"].environment["AUTOMODERATE_MAX_CONNECTIONS_PER_MINUTE"])
    answers = [handshake(cluster, "203.0.113.1")]
    while answers[-1][0] == "connected" and len(answers) <= allowed:
        answers.append(handshake(cluster, "203.0.113.1"))
    assert answers[-1][1]["code"] == "rate_limited"
    assert {handshake(cluster, "203.0.113.2")[0] for _ in range(4)} == {"connected"}, "others are not"


def test_a_request_without_nginx_in_between_is_told_where_it_belongs(cluster: Cluster) -> None:
    path = "/socket.io/?EIO=4&transport=polling"
    at = {name: f"http://127.0.0.1:{node.port}{path}" for name, node in cluster.nodes.items()}
    sid = json.loads(requests.get(at["a"], timeout=PATIENCE).text[1:])["sid"]
    before = cluster.metrics("b")["misrouted_requests_total"]
    answer = requests.get(f"{at['b']}&sid={sid}", timeout=PATIENCE)
    assert answer.status_code == 400
    detail = "this is a session of node a, and this is node b"
    assert answer.json() == {"code": 1, "message": "Session ID unknown", "detail": detail}
    assert cluster.metrics("b")["misrouted_requests_total"] == before + 1
    assert "the proxy does not route by session id" in cluster.nodes["b"].log


def test_a_node_that_stops_hands_its_clients_over_and_they_miss_nothing(
    cluster: Cluster, connect: Callable[..., RealClient]
) -> None:
    watching = [connect(transports) for transports in (*TRANSPORTS, *TRANSPORTS)]
    project = cluster.world.project
    for client in watching:
        client.call("join_project", {"project_id": project})
        client.wait("joined_project")
    for number in range(1, 6):
        cluster.publish(number)
    for client in watching:
        client.wait("stats_update", 5)
    leaving, staying = sorted("ab", key=lambda name: -cluster.metrics(name)["sessions"])
    moving = cluster.metrics(leaving)["sessions"]
    assert moving > 0
    assert cluster.nodes[leaving].stop() == 0
    try:
        for number in range(6, 11):
            cluster.publish(number)
        moved = [client for client in watching if any(event == "disconnect" for event, _ in client.events)]
        assert len(moved) >= moving
        for client in moved:
            client.wait("connected", 2)
            client.call("join_project", {"project_id": project, "last_event_id": newest(client)})
        for number in range(11, 16):
            cluster.publish(number)
        for client in watching:
            client.wait("stats_update", 15)
            assert numbers(client) == list(range(1, 16))
        assert all(client.wait_all("joined_project", 2)[1]["recovered"] for client in moved)
        until(lambda: cluster.metrics(staying)["sessions"] == len(watching), "all are on the other node")
    finally:
        cluster.nodes[leaving].start()
