"""The server as an adapter drives it, where no client of the simulation goes: application requests, half an end."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Access, AccessChanged, Identity, LoggedOut
from automoderate.protocol.model import Peer
from automoderate.protocol.outputs import Close, Fanout, Job, Output, RequestAborted, RequestStarted, Write
from automoderate.server import Server, outbound
from automoderate.server.jobs import AT_ONCE
from automoderate.testing import MemoryDirectory

HOST = b" HTTP/1.1\r\nHost: x\r\n"
POLL = b"/socket.io/?EIO=4&transport=polling"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
HANDSHAKE = b"GET /socket.io/?EIO=4&transport=websocket" + HOST + b"Cookie: session=ann\r\n" + UPGRADE
JOIN = b'42["join_project",{"project_id":"p"}]'
ANN, BOB = Identity("ann", "ann"), Identity("bob", "bob")


class Wire:
    """A transport nobody reads: outputs are looked at instead."""

    waiting = 0

    def write(self, data: bytes, /) -> int:
        return len(data)

    def keep(self, rest: memoryview, /) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def send_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


@pytest.fixture
def server() -> Server:
    ids = itertools.count(1)
    return Server(
        MemoryDirectory({"ann": True, "bob": True}),
        MemoryBackplane(),
        new_id=lambda: f"id{next(ids)}",
        random=lambda: 0.5,
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
    server.receive_data(socket, b"GET /socket.io/?EIO=4&transport=websocket&sid=id1" + HOST + UPGRADE, 0.0)
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


def jobs(server: Server, now: float = 0.0) -> list[Job]:
    """What is asked at the next turn of the loop."""
    server.tick(now)
    return [output for output in server.outputs() if isinstance(output, Job)]


def log_in(server: Server, now: float, user_id: str = "ann") -> Any:
    """A WebSocket of somebody's that has sent its CONNECT."""
    socket = connect(server)
    handshake = HANDSHAKE.replace(b"session=ann", b"session=" + user_id.encode())
    server.receive_data(socket, handshake + Frame(Opcode.TEXT, b"40").serialize(mask=True), now)
    return socket


def test_a_handshake_is_answered_while_a_room_waits_for_its_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "WRITES_PER_TURN", 1)
    members = [log_in(server, 0.0), log_in(server, 0.0)]
    [job] = jobs(server)
    server.job_done(job.ticket, [ANN], 0.0)
    for member in members:
        server.receive_data(member, Frame(Opcode.TEXT, JOIN).serialize(mask=True), 0.0)
    [job] = jobs(server)
    server.job_done(job.ticket, [Access.GRANTED], 0.0)
    assert written(server.outputs()).count(b"joined_project") == 2
    server.publish("p", "moderation_update", "{}", 0.0)
    assert [type(output) for output in server.outputs()] == [Fanout]
    server.receive_data(connect(server), HANDSHAKE, 0.0)
    assert b"pingInterval" in written(server.outputs())
    server.tick(0.0)
    assert [type(output) for output in server.outputs()] == [Fanout]


class TestQuestions:
    """Questions that wait for the same turn of the loop are one job."""

    def test_equal_ones_are_asked_once(self, server: Server) -> None:
        first, second = log_in(server, 0.0), log_in(server, 0.0)
        [job] = jobs(server)
        assert job.call() == [ANN]
        server.job_done(job.ticket, [ANN], 0.1)
        welcomed = [output.connection for output in server.outputs() if isinstance(output, Write)]
        assert welcomed == [first, second]
        for socket in (first, second):
            server.receive_data(socket, Frame(Opcode.TEXT, JOIN).serialize(mask=True), 0.2)
        [job] = jobs(server, 0.2)
        assert job.call() == [Access.NOT_FOUND]

    def test_the_server_wants_to_be_called_at_once_while_one_waits(self, server: Server) -> None:
        log_in(server, 5.0)
        assert server.next_deadline() == AT_ONCE
        jobs(server, 5.0)
        assert server.next_deadline() != AT_ONCE

    def test_a_failure_is_everybodys(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        log_in(server, 0.0)
        log_in(server, 0.0)
        [job] = jobs(server)
        server.job_done(job.ticket, OSError("away"), 0.1)
        assert written(server.outputs()).count(b'"server_error"') == 2
        assert caplog.messages == ["checks of who may see what fail: OSError: away"]
        assert server.stats()["job_failures_total"] == 1

    def test_an_exception_in_the_place_of_an_answer_is_one_questions(self, server: Server) -> None:
        sockets = [log_in(server, 0.0, user) for user in ("ann", "bob")]
        [job] = jobs(server)
        server.job_done(job.ticket, [OSError("away"), BOB], 0.1)
        said = {output.connection: output.data for output in server.outputs() if isinstance(output, Write)}
        assert b"server_error" in said[sockets[0]]
        assert b'"connected"' in said[sockets[1]]

    @pytest.mark.parametrize("announced", [AccessChanged(user_id="ann"), LoggedOut("ann")])
    def test_an_answer_from_before_an_announcement_is_not_for_those_that_ask_after_it(
        self, server: Server, announced: AccessChanged | LoggedOut
    ) -> None:
        log_in(server, 0.0)
        [before] = jobs(server)
        server.announce(announced, 0.1)
        late = log_in(server, 0.2)
        [after] = jobs(server, 0.2)
        server.job_done(before.ticket, [ANN], 0.3)
        assert late not in [output.connection for output in server.outputs() if isinstance(output, Write)]
        server.job_done(after.ticket, [ANN], 0.4)
        assert late in [output.connection for output in server.outputs() if isinstance(output, Write)]
