"""Several nodes behind one address: whose a session is, and what a request at the wrong node is told."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from automoderate.protocol import EngineIOServer, SocketIOServer
from automoderate.protocol.complaints import SILENCE
from automoderate.protocol.routing import Routing

PATH = "/engine.io/"
POLL = f"{PATH}?EIO=4&transport=polling"
WS = f"{PATH}?EIO=4&transport=websocket"
UNKNOWN = {"code": 1, "message": "Session ID unknown"}

Net = Any


def sid_of(net: Net) -> str:
    sid: str = json.loads(net.connect().get(POLL).text[1:])["sid"]
    return sid


def test_the_name_of_the_node_is_in_front_of_every_session_id(make: Any) -> None:
    assert sid_of(make(EngineIOServer, node="a")) == "a.id1"
    assert sid_of(make(EngineIOServer)) == "id1"


@pytest.mark.parametrize("target", [POLL, WS])
def test_a_request_at_the_wrong_node_is_told_so(
    make: Any, helpers: Any, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    net = make(SocketIOServer, node="a")
    line = net.connect()
    with caplog.at_level(logging.WARNING):
        if target is WS:
            line.send(helpers.upgrade_request(f"{WS}&sid=b.id1"))
            reply = line.answered()
        else:
            reply = line.get(f"{POLL}&sid=b.id1")
    assert reply.status == 400
    assert reply.json == {**UNKNOWN, "detail": "this is a session of node b, and this is node a"}
    assert net.server.misrouted == 1
    (record,) = caplog.records
    assert record.name == "automoderate.protocol.routing"
    assert "b is down, or the proxy does not route by session id" in record.getMessage()


@pytest.mark.parametrize("sid", ["a.gone", "gone", ".gone", "b", "b c.gone", f"{'b' * 33}.gone", "<b>.gone"])
def test_other_unknown_sessions_are_only_unknown(make: Any, sid: str, caplog: pytest.LogCaptureFixture) -> None:
    net = make(SocketIOServer, node="a")
    reply = net.connect().get(f"{POLL}&sid={sid.replace(' ', '%20')}")
    assert (reply.status, reply.json) == (400, UNKNOWN)
    assert (net.server.misrouted, caplog.records) == (0, [])


def test_a_node_without_a_name_cannot_tell(make: Any) -> None:
    reply = make(EngineIOServer).connect().get(f"{POLL}&sid=b.id1")
    assert (reply.status, reply.json) == (400, UNKNOWN)


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    routing = Routing("a")
    for now in (0.0, 1.0, SILENCE - 0.1, SILENCE, SILENCE + 1):
        assert routing.stray("b.id", now) is not None
    assert [record.args for record in caplog.records] == [("b", "a", "b", 1), ("b", "a", "b", 4)]
    assert routing.misrouted == 5


def test_polling_can_be_refused_and_the_refusal_names_the_way_out(make: Any) -> None:
    net = make(EngineIOServer, transports=frozenset({"websocket"}))
    reply = net.connect().get(POLL)
    assert reply.status == 400
    detail = "only WebSocket is served here: set transports to websocket in the client"
    assert reply.json == {"code": 0, "message": "Transport unknown", "detail": detail}
    line = net.connect()
    line.upgrade(WS)
    (opened,) = line.messages()
    assert json.loads(opened[1:])["upgrades"] == []
