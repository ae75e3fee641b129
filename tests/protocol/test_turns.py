"""No client holds up another: what is sent at once is worked through in turns, and in order."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

import pytest

from automoderate.protocol import (
    AppRequest,
    AppRequestEnd,
    ClientConnecting,
    CloseReason,
    EngineIOServer,
    EventReceived,
    Farewell,
    MessageReceived,
    PauseReading,
    ResumeReading,
    SessionClosed,
    SocketIOServer,
)
from automoderate.protocol.model import ConnectionState
from automoderate.protocol.outbox import Outbox
from automoderate.protocol.turns import BITE, PER_TURN, WORD, InputTurns
from benchmarks.hostile.inputs import INPUTS, Input

HOST = b"Host: server.test\r\n"
PATH = "/socket.io/?EIO=4&transport="
READ = 65536
WHOLE = 13 * 7 * 11 * 6 * 16
"""So many bytes end where a frame ends, of each kind of them."""
CALLS = 60_000
"""Calls of functions within one input or turn: some milliseconds, and the others have their turn."""


@pytest.fixture
def feed() -> Any:
    """What is sent arrives as it is sent: cutting it is what this is about."""
    return lambda data: [data]


@pytest.fixture
def net(make: Any) -> Any:
    """A server that lets everybody in, and answers each event."""
    net = make(SocketIOServer, path="/socket.io/", max_payload=1_000_000)

    def react(event: Any) -> None:
        if isinstance(event, ClientConnecting):
            net.server.accept(event.client, net.now)
        elif isinstance(event, EventReceived):
            net.server.emit(event.client, event.event, *event.args, now=net.now)

    net.react = react
    return net


def joined(net: Any) -> Any:
    """A client with a WebSocket, in the namespace."""
    line = net.connect()
    line.upgrade(f"{PATH}websocket")
    line.say("40")
    net.settle()
    assert [str(message)[:2] for message in line.messages()] == ["0{", "40"]
    return line


class Work:
    """Counts what each call costs."""

    def __init__(self) -> None:
        self.calls = 0
        self.most = 0

    def __enter__(self) -> None:
        self.calls = 0
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.most = max(self.most, self.calls)

    def _count(self, _frame: FrameType, event: str, _arg: Any) -> None:
        self.calls += event in ("call", "c_call")


def hostile(net: Any, kind: Input) -> tuple[Any, bytes]:
    """Somebody who is about to send what the benchmark has, and the bytes."""
    data = kind.make()
    if not kind.name.startswith("event"):
        data = data[:WHOLE]
    if kind.how == "websocket":
        return joined(net), data
    line = net.connect()
    if kind.how in ("post", "chunks"):
        found = re.search(r'"sid":"([^"]+)"', line.get(f"{PATH}polling").text)
        assert found is not None
        polls = f"{PATH}polling&sid={found[1]}"
        assert line.post(polls, "40").text == "ok"
        head = f"POST {polls} HTTP/1.1\r\n".encode() + HOST
        if kind.how == "post":
            data = head + f"Content-Length: {len(data)}\r\n\r\n".encode() + data
        else:
            data = head + b"Transfer-Encoding: chunked\r\n\r\n" + data + b"0\r\n\r\n"
    return line, data


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.name)
def test_others_are_answered_between_two_bites(net: Any, helpers: Any, kind: Input) -> None:
    work = Work()
    control = joined(net)
    line, data = hostile(net, kind)
    asked = 0
    while not line.ended and (data or line.paused):
        if not line.paused:
            with work:
                net.server.receive_data(line.connection, data[:READ], net.now)
                net.perform()
            data = data[READ:]
        asked += 1
        with work:
            net.server.receive_data(control.connection, helpers.client_frame(f'42["x",{asked}]'), net.now)
            net.perform()
        with work:
            net.server.tick(net.now)
            net.perform()
        assert control.messages() == [f'42["x",{asked}]']
        assert len(line.connection.unread) <= 2 * READ
        net.now += 0.001
    net.settle()
    assert work.most < CALLS
    if kind.how == "raw":
        assert line.reply() is not None
    elif kind.how in ("post", "chunks"):
        assert line.answered().status in (200, 400)
    elif line.close_code() is None:
        line.say('42["x","alive"]')
        assert line.messages()[-1:] == ['42["x","alive"]']


def test_requests_that_are_refused_by_their_heads_have_turns_as_well(net: Any) -> None:
    (cookies,) = (kind.make() for kind in INPUTS if kind.name == "cookie")
    lines = [net.connect() for _ in range(20)]
    for line in lines:
        net.server.receive_data(line.connection, cookies[:READ], net.now)
        net.perform()
    assert 0 < sum(bool(line.unread) for line in lines) < 5
    net.settle()
    assert [line.answered().status for line in lines] == [431] * 20


# Order ---------------------------------------------------------------------------------------------------------

MANY = 500


@pytest.fixture
def engine(make: Any) -> Any:
    return make(EngineIOServer, path="/socket.io/", max_payload=100_000)


def numbers(net: Any) -> list[str]:
    return [event.data for event in net.taken(MessageReceived)]


COUNTED = [str(number) for number in range(MANY)]


def polled(net: Any) -> tuple[Any, str]:
    """A session that polls: a connection of its client, and where it polls."""
    line = net.connect()
    return line, f"{PATH}polling&sid={line.get(f'{PATH}polling').text[9:].partition(chr(34))[0]}"


def post(polls: str, body: str) -> bytes:
    return f"POST {polls} HTTP/1.1\r\n".encode() + HOST + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()


def test_frames_behind_the_upgrade_and_before_a_close_frame_are_acted_on_in_order(engine: Any, helpers: Any) -> None:
    line = engine.connect()
    frames = b"".join(helpers.client_frame(f"4{number}") for number in COUNTED)
    late = helpers.client_frame("4late")
    data = helpers.upgrade_request(f"{PATH}websocket") + frames + helpers.close_frame(1000) + late
    engine.server.receive_data(line.connection, data, engine.now)
    engine.perform()
    assert line.paused
    assert 0 < len(numbers(engine)) < MANY
    engine.settle()
    assert numbers(engine) == COUNTED
    assert line.unread.endswith(b"\x88\x02\x03\xe8")
    assert line.ended == "closed"


def test_a_post_is_answered_when_all_its_packets_have_been_acted_on(engine: Any) -> None:
    line, polls = polled(engine)
    body = "\x1e".join(f"4{number}" for number in COUNTED)
    engine.server.receive_data(line.connection, post(polls, body) + post(polls, "4last"), engine.now)
    engine.perform()
    assert 0 < len(numbers(engine)) < MANY
    assert not line.unread
    engine.settle()
    assert numbers(engine) == [*COUNTED, "last"]
    assert [line.answered().text for _ in range(2)] == ["ok", "ok"]
    assert not line.paused


def test_a_post_that_breaks_the_protocol_late_is_refused(engine: Any) -> None:
    line, polls = polled(engine)
    body = "\x1e".join([*(f"4{number}" for number in COUNTED), "x", "4late"])
    line.send(post(polls, body))
    assert numbers(engine) == COUNTED
    assert line.answered().status == 400
    assert [event.reason for event in engine.taken(SessionClosed)] == [CloseReason.PARSE_ERROR]


def test_of_a_session_that_ended_meanwhile_no_packet_is_acted_on(engine: Any) -> None:
    line, polls = polled(engine)
    engine.server.receive_data(line.connection, post(polls, "\x1e".join(["4x"] * MANY)), engine.now)
    engine.perform()
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    acted_on = len(numbers(engine))
    engine.settle()
    assert len(numbers(engine)) == acted_on < MANY
    assert line.answered().text == "ok"


def test_a_connection_that_is_lost_ends_the_session_whose_packets_wait(engine: Any) -> None:
    line, polls = polled(engine)
    engine.server.receive_data(line.connection, post(polls, "\x1e".join(["4x"] * MANY)), engine.now)
    engine.perform()
    line.lose()
    assert len(numbers(engine)) < MANY
    assert [event.reason for event in engine.taken(SessionClosed)] == [CloseReason.TRANSPORT_ERROR]
    assert engine.server.next_deadline() is None or engine.server.next_deadline() > engine.now


def test_the_end_of_the_stream_comes_behind_what_was_sent(engine: Any, helpers: Any) -> None:
    line = engine.connect()
    line.upgrade(f"{PATH}websocket")
    frames = b"".join(helpers.client_frame(f"4{number}") for number in COUNTED)
    engine.server.receive_data(line.connection, frames, engine.now)
    engine.server.receive_eof(line.connection, engine.now)
    engine.settle()
    assert numbers(engine) == COUNTED
    assert line.ended == "closed"
    assert [event.reason for event in engine.taken(SessionClosed)] == [CloseReason.TRANSPORT_CLOSE]


def test_all_pipelined_requests_are_answered_before_the_end_of_the_stream(engine: Any) -> None:
    line = engine.connect()
    engine.server.receive_data(line.connection, (b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n") * 20 + b"GET", engine.now)
    engine.server.receive_eof(line.connection, engine.now)
    for _ in range(20):
        engine.settle()
        assert line.ended is None
        engine.server.respond(line.connection, 204, "No Content", [], engine.now)
        engine.server.respond_end(line.connection, engine.now)
    engine.settle()
    assert [line.answered().status for _ in range(21)] == [204] * 20 + [400]
    assert len(engine.taken(AppRequest)) == len(engine.taken(AppRequestEnd)) == 20


def test_while_draining_everybody_is_told_although_their_input_waits(engine: Any) -> None:
    line, polls = polled(engine)
    poll = engine.connect()
    poll.request("GET", polls)
    engine.server.receive_data(line.connection, post(polls, "\x1e".join(["4x"] * MANY)), engine.now)
    engine.server.drain(engine.now)
    engine.settle()
    assert poll.answered().text == Farewell.COME_BACK.payload.decode()
    assert line.answered().text == "ok"
    assert engine.server.drained()


def test_a_body_in_chunks_ends_where_the_next_request_begins(engine: Any) -> None:
    line, polls = polled(engine)
    head = f"POST {polls} HTTP/1.1\r\n".encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    line.send((head + b"1\r\n4\r\n1\r\nx\r\n0\r\n\r\n") * 3 + post(polls, "4y"))
    assert [line.answered().text for _ in range(4)] == ["ok"] * 4
    assert numbers(engine) == ["x", "x", "x", "y"]


def test_a_long_body_that_nobody_wants_is_not_worked_through(engine: Any) -> None:
    line = engine.connect()
    head = f"POST {PATH}polling HTTP/1.1\r\n".encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    line.send(head + b"1\r\nx\r\n" * 1000)
    assert line.answered().status == 400
    line.send(b"1\r\nx\r\n" * 1000)
    engine.wait(5)
    assert line.ended == "closed"


# Whose turn it is ------------------------------------------------------------------------------------------------


MUCH = b"x" * (WORD + 1)


class Diner:
    """A connection that has sent something."""

    def __init__(self, name: str, units: int, unread: bytes, websocket: object = None) -> None:
        self.name = name
        self.units = units
        self.unread = unread
        self.websocket = websocket


class Diners:
    """What some connections have sent: how much work it is, and whether it is a word."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.outbox = Outbox()
        self.turns = InputTurns(self.outbox, self._work)

    def _work(self, connection: Any, _now: float) -> bool:
        size = min(connection.units, self.turns.left)
        connection.units -= size
        self.turns.spend(size)
        self.served.append(connection.name)
        return self.turns.left == 0

    def offer(self, *diners: Any) -> list[str]:
        """Let them come; who was served."""
        for diner in diners:
            self.turns.offer(diner, 0.0)
        return self._taken()

    def take(self) -> list[str]:
        """One turn; who was served."""
        self.turns.take(0.0)
        return self._taken()

    def paused(self) -> list[str]:
        """Who is not read from since this was asked last."""
        return [output.connection.name for output in self.outbox.drain() if isinstance(output, PauseReading)]  # type: ignore[attr-defined]

    def _taken(self) -> list[str]:
        served, self.served = self.served, []
        return served


def with_much(letter: str, number: int) -> list[Diner]:
    return [Diner(f"{letter}{each}", 50 * BITE, MUCH) for each in range(number)]


def names(diners: list[Diner]) -> list[str]:
    return [diner.name for diner in diners]


EACH = PER_TURN // BITE
"""So many bites are a turn."""


def test_all_together_cost_no_more_than_a_turn_allows() -> None:
    diners, much = Diners(), with_much("a", 20)
    assert diners.offer(*much) == ["a0"]
    served: list[str] = []
    while diners.turns.busy:
        left = sum(diner.units for diner in much)
        bites = diners.take()
        assert left - sum(diner.units for diner in much) <= PER_TURN
        served += bites
    assert set(served[:20]) == set(names(much))
    assert {diner.units for diner in much} == {0}


def test_a_word_is_heard_at_once_also_while_others_have_much_to_say() -> None:
    diners = Diners()
    diners.offer(*with_much("a", 50))
    assert len(diners.paused()) == 50
    words = [Diner(f"w{number}", 1, b"x" * WORD) for number in range(100)]
    assert diners.offer(*words) == names(words)
    assert diners.paused() == []


def test_words_that_are_too_many_wait_in_lines_of_their_own_and_each_line_has_its_part() -> None:
    diners = Diners()
    diners.offer(*with_much("a", 50))
    diners.take()
    requests = [Diner(f"r{number}", 16, b"x") for number in range(100)]
    words = [Diner(f"w{number}", 1, b"x", websocket=True) for number in range(150)]
    assert diners.offer(*requests, *words) == names(requests)[: PER_TURN // 16]
    taken = diners.take()
    assert taken[:132] == names(words)[: PER_TURN // 2] + names(requests)[PER_TURN // 16 :][: PER_TURN // 4 // 16]
    assert len(taken[132:]) == PER_TURN // 4 // BITE
    assert all(name.startswith("a") for name in taken[132:])


def test_what_a_line_does_not_need_is_for_the_others() -> None:
    diners = Diners()
    requests = [Diner(f"r{number}", 16, b"x") for number in range(50)]
    diners.offer(*requests)
    assert [len(diners.take()) for _ in range(3)] == [16, 16, 2]
    assert not diners.turns.busy


def test_who_waits_with_a_word_is_read_from_until_it_is_more() -> None:
    diners = Diners()
    wordy = Diner("w", 1, b"x")
    diners.offer(*[Diner(f"v{number}", BITE, b"x") for number in range(EACH)], wordy)
    assert diners.paused() == []
    wordy.unread += MUCH
    diners.offer(wordy, wordy)
    assert diners.paused() == ["w"]
    assert "w" in diners.take()
    assert diners.outbox.drain() == [ResumeReading(wordy)]  # type: ignore[arg-type]


def test_who_is_gone_has_no_turn() -> None:
    diners, (a, b) = Diners(), [Diner(name, 2 * BITE, MUCH) for name in "ab"]
    diners.offer(a, b, b)
    diners.turns.forget(a)  # type: ignore[arg-type]
    assert diners.take() == ["b", "b", "b"]
    assert not diners.turns.busy
    assert diners.outbox.drain() == [PauseReading(a), PauseReading(b), ResumeReading(b)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query", ["&".join(f"a{number}=%41" for number in range(1500)), "%41" * 5000], ids=["parameters", "escapes"]
)
def test_what_is_long_to_read_in_a_target_counts(engine: Any, query: str) -> None:
    lines = [engine.connect() for _ in range(5)]
    for line in lines:
        head = b"GET /x?" + query.encode() + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        engine.server.receive_data(line.connection, head, engine.now)
    for served in range(1, 6):
        states = [line.connection.state for line in lines]
        assert states.count(ConnectionState.APPLICATION) == served
        engine.server.tick(engine.now)


def test_who_comes_later_is_served_at_once_where_nobody_waits(make: Any) -> None:
    engine = make(EngineIOServer, path="/socket.io/")
    request = f"GET {PATH}polling HTTP/1.1\r\n".encode() + HOST + b"\r\n"
    for line in [engine.connect() for _ in range(3 * PER_TURN // BITE)]:
        engine.now += 0.001
        engine.server.receive_data(line.connection, request, engine.now)
        assert engine.server.next_deadline() > engine.now, "nobody stands in a line"
