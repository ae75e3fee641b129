"""The server as an adapter drives it, where no client of the simulation goes: application requests, half an end."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from automoderate.backplane.memory import MemoryBackplane
from automoderate.protocol.outputs import Close, Output, Peer, RequestAborted, RequestStarted, Write
from automoderate.server import Server
from automoderate.testing import MemoryDirectory

HOST = b" HTTP/1.1\r\nHost: x\r\n"
POLL = b"/socket.io/?EIO=4&transport=polling"


class Wire:
    """A transport nobody reads: outputs are looked at instead."""

    def write(self, data: bytes, /) -> int:
        return len(data)

    def keep(self, rest: memoryview, /) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


@pytest.fixture
def server() -> Server:
    ids = itertools.count(1)
    return Server(
        MemoryDirectory({"ann": True}), MemoryBackplane(), new_id=lambda: f"id{next(ids)}", random=lambda: 0.5
    )


def connect(server: Server) -> Any:
    return server.connect(Wire(), Peer("192.0.2.1", 1), 0.0)


def written(outputs: list[Output]) -> bytes:
    return b"".join(output.data for output in outputs if isinstance(output, Write))


def test_the_application_answers_a_client_that_sends_no_more(server: Server) -> None:
    connection = connect(server)
    server.receive_data(connection, b"GET /" + HOST + b"\r\n", 0.0)
    assert isinstance(server.outputs()[0], RequestStarted)
    server.receive_eof(connection, 0.0)
    assert server.outputs() == []
    server.respond(connection, 200, "OK", [("Content-Length", "5")], 0.0)
    server.respond_body(connection, b"hello", 0.0)
    server.respond_end(connection, 0.0)
    outputs = server.outputs()
    assert written(outputs).endswith(b"\r\n\r\nhello")
    assert isinstance(outputs[-1], Close)


def test_the_application_hears_of_a_client_that_is_gone(server: Server) -> None:
    connection = connect(server)
    server.receive_data(connection, b"GET /" + HOST + b"\r\n", 0.0)
    server.outputs()
    server.connection_lost(connection, 0.0)
    assert server.outputs() == [RequestAborted(connection)]


def test_a_session_may_upgrade_before_it_connects_to_the_namespace(server: Server) -> None:
    server.receive_data(connect(server), b"GET " + POLL + HOST + b"\r\n", 0.0)
    assert b'"sid":"id1"' in written(server.outputs())
    socket = connect(server)
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    server.receive_data(socket, b"GET /socket.io/?EIO=4&transport=websocket&sid=id1" + HOST + upgrade, 0.0)
    for text in ("2probe", "5", "40"):
        server.receive_data(socket, Frame(Opcode.TEXT, text.encode()).serialize(mask=True), 0.0)
    assert b'40{"sid":"id2"}' in written(server.outputs())


@pytest.mark.parametrize("data", [{"n": float("nan")}, {"n": b"bytes"}])
def test_data_that_cannot_be_sent_is_found_out_beforehand(data: Mapping[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Server.encode(data)


def test_an_event_id_of_the_datas_own_is_left_out() -> None:
    data = {"event_id": "forged", "total": 1}
    assert Server.encode(data) == '{"total":1}'
    assert data == {"event_id": "forged", "total": 1}
