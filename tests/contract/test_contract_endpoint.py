"""Section 1 of the contract: the endpoint, its transports, and how sessions end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from automoderate.settings import Settings
from kits import PATIENCE, until
from kits.contract_client import TRANSPORTS, Http, Polling, Refused, TransportName, WebSocket, target, websocket
from kits.contract_site import Site

pytestmark = pytest.mark.every_runtime


def test_the_defaults() -> None:
    """The numbers that the contract names; what each of them does is tested with smaller ones."""
    settings = Settings()
    assert (settings.host, settings.port) == (("127.0.0.1",), 6217)
    assert (settings.auth_grace, settings.check_timeout, settings.recheck_interval) == (1, 10, 60)
    assert (settings.max_rooms, settings.max_events_per_minute) == (50, 100)
    assert settings.max_connections_per_minute == 300


class TestHandshake:
    def test_over_polling(self, site: Site) -> None:
        answer = site.http("GET", target("polling"))
        assert (answer.status, answer.text[0]) == (200, "0")
        assert answer.headers["cache-control"] == "no-store"
        opened = json.loads(answer.text[1:])
        assert opened.pop("sid")
        assert opened == {
            "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1_000_000,
        }  # fmt: skip

    def test_over_a_websocket(self, site: Site) -> None:
        socket = websocket(site.address, {})
        opened = json.loads(str(socket.recv(PATIENCE))[1:])
        assert (opened["upgrades"], opened["pingInterval"]) == ([], 25000)
        socket.close()

    def test_sids_differ(self, site: Site) -> None:
        answers = [site.http("GET", target("polling")) for _ in range(10)]
        assert len({json.loads(answer.text[1:])["sid"] for answer in answers}) == 10

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("EIO=3&transport=polling", 5), ("transport=polling", 5), ("EIO=4", 0), ("EIO=4&transport=carrier", 0),
            ("EIO=4&transport=polling&sid=unknown", 1), ("EIO=4&transport=websocket", 3),
        ],
    )  # fmt: skip
    def test_what_is_no_handshake(self, site: Site, query: str, code: int) -> None:
        answer = site.http("GET", f"/socket.io/?{query}")
        assert (answer.status, answer.json["code"]) == (400, code)

    def test_a_handshake_is_a_get(self, site: Site) -> None:
        answer = site.http("POST", target("polling"), "40")
        assert (answer.status, answer.json["code"]) == (400, 2)

    def test_an_upgrade_of_no_session(self, site: Site) -> None:
        with pytest.raises(Refused) as refused:
            websocket(site.address, {}, sid="unknown")
        assert refused.value.status == 400


class TestNamespaces:
    def test_there_is_only_the_default_one(
        self, site: Site, connect: Any, alice: str, transport: TransportName
    ) -> None:
        client = connect(site, alice, transport)
        client.expect("connected")
        client.wire.send("40/admin,")
        assert client.expect("connect_error") == {"message": "Invalid namespace"}
        assert client.settle() == []


class TestUpgrade:
    def test_nothing_is_lost_on_the_way(self, site: Site, connect: Any, alice: str, project: str) -> None:
        """What was said while the client polled, and what is said while it moves."""
        client = connect(site, alice, "polling")
        client.call("join_project", {"project_id": project})
        del client.items[:]
        site.publish(project, 1)
        moving = websocket(site.address, client.wire.poster.headers, sid=client.wire.sid)
        moving.send("2probe")
        assert moving.recv(PATIENCE) == "3probe"
        site.publish(project, 2)
        moving.send("5")
        arrived = [json.loads(str(moving.recv(PATIENCE))[2:])[1]["n"] for _ in range(2)]
        site.publish(project, 3)
        arrived.append(json.loads(str(moving.recv(PATIENCE))[2:])[1]["n"])
        assert arrived == [1, 2, 3]
        moving.close()

    def test_a_probe_that_is_given_up_leaves_polling_as_it_was(
        self, site: Site, connect: Any, alice: str, project: str
    ) -> None:
        client = connect(site, alice, "polling")
        client.call("join_project", {"project_id": project})
        del client.items[:]
        moving = websocket(site.address, client.wire.poster.headers, sid=client.wire.sid)
        moving.send("2probe")
        assert moving.recv(PATIENCE) == "3probe"
        moving.close()
        site.publish(project, 1)
        assert client.expect("moderation_update")["n"] == 1
        assert client.settle() == []


class TestHeartbeat:
    def test_it_keeps_a_session(self, sites: Any, connect: Any, alice: str, transport: TransportName) -> None:
        client = connect(sites(ping_interval=0.1), alice, transport)
        client.expect("connected")
        for _ in range(2):
            assert client.wire.receive() == "2"
            client.wire.send("3")
        assert client.settle() == []

    @pytest.mark.parametrize("wire", [Polling, WebSocket])
    def test_silence_ends_it(self, sites: Any, wire: type[Polling | WebSocket]) -> None:
        silent = wire(sites(ping_interval=0.1, ping_timeout=0.1).address, {})
        # A poll that comes too late for the heartbeat meets the end at once.
        assert list(iter(silent.receive, None)) in (["2"], [] if wire is Polling else ["2"])
        silent.close()


class TestEnds:
    def test_on_purpose(self, sites: Any, connect: Any, first_transport: TransportName) -> None:
        """``io server disconnect``: the packet that says so comes before the end of the transport."""
        client = connect(sites(auth_grace=0.05), None, first_transport)
        assert [name for name, _ in client.rest()] == ["error", "disconnect"]
        assert client.ended() == "io server disconnect"

    def test_a_server_that_leaves(self, own_site: Any, alice: str, project: str, transport: TransportName) -> None:
        """``transport close``, without that packet, so that clients come back; what was said before still arrives."""
        site = own_site()
        client = site.connect(alice, transport)
        client.call("join_project", {"project_id": project})
        site.publish(project, 1)
        site.handle.stop()
        assert [(name, data["n"]) for name, data in client.rest()] == [("moderation_update", 1)]
        assert client.ended() == "transport close"
        client.wire.close()
        site.stop()
        with pytest.raises(OSError, match="refused"):
            site.connect(alice, "polling")

    def test_a_server_that_leaves_answers_the_poll_that_waits(self, own_site: Any, alice: str) -> None:
        site = own_site()
        client = site.connect(alice, "polling")
        client.expect("connected")
        client.wire.getter.start("GET", target("polling", client.wire.sid))
        site.handle.stop()
        assert client.wire.getter.finish().text == "1\x1ex"
        client.wire.close()

    def test_a_server_that_leaves_says_no_farewell_on_websockets(self, own_site: Any, world: Any, alice: str) -> None:
        """A close frame keeps the C++ client away for good; without one the connection still ends properly."""
        site = own_site()
        socket = websocket(site.address, {"Cookie": world.cookie(alice)})
        socket.recv(PATIENCE)
        site.handle.stop()
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert closed.value.rcvd is None
        assert isinstance(closed.value.__cause__, EOFError), "and not by a reset"
        socket.close()

    def test_what_ends_on_purpose_ends_with_a_close_frame(self, sites: Any) -> None:
        socket = websocket(sites(auth_grace=0.05).address, {})
        socket.send("40")
        assert [str(message)[:2] for message in socket] == ["0{", "40", "42", "41"]
        assert socket.close_code == 1000

    def test_by_long_polling_a_lone_close_packet_says_so(self, sites: Any) -> None:
        """python-engineio's clients take it as an order not to come back, and ``1``, U+001E, ``x`` as a failure."""
        wire = Polling(sites(auth_grace=0.05).address, {})
        wire.send("40")
        said = []
        while (answer := wire.getter.request("GET", target("polling", wire.sid))).status == 200:
            said += answer.text.split("\x1e")
        assert [packet[:2] for packet in said] == ["40", "42", "41", "1"]
        wire.close()

    def test_a_server_that_leaves_takes_nobody_new(self, own_site: Any) -> None:
        site = own_site()
        early, slow = Http(site.address), Http(site.address)
        slow.start("POST", "/auth/login", Content_Length="10")  # which the server waits for
        assert early.request("GET", "/health").status == 200
        site.handle.stop()
        until(lambda: site.assembly.realtime.draining, "the server leaves")
        assert early.request("GET", target("polling")).status == 503
        early.close()
        slow.close()

    def test_a_client_that_leaves_is_forgotten_at_once(
        self, site: Site, connect: Any, alice: str, project: str, transport: TransportName
    ) -> None:
        client = connect(site, alice, transport)
        client.call("join_project", {"project_id": project})
        client.wire.send("41")
        until(lambda: not site.stats()["sessions"], "the session is forgotten")
        assert site.stats()["rooms"] == 0

    def test_both_ends_may_come_back(self, site: Site, connect: Any, alice: str, project: str) -> None:
        for kind in TRANSPORTS:
            client = connect(site, alice, kind)
            assert "error" not in client.call("join_project", {"project_id": project})
            client.wire.cut()
