"""What costs little to send and gets no answer is counted, and is far from what clients send by themselves."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from typing import Any

import pytest

from automoderate.protocol import (
    AppRequest,
    ClientConnecting,
    CloseReason,
    EngineIOServer,
    EventReceived,
    Farewell,
    MessageReceived,
    SessionClosed,
    SessionOpened,
    SocketIOServer,
    unfinished,
)
from automoderate.protocol.complaints import LONGEST, MOST_REMEMBERED, SILENCE, Complaints
from automoderate.protocol.engineio_packets import BURST, FRAMES_A_PACKET, RATE
from automoderate.protocol.engineio_payload import MAX_PACKETS
from automoderate.protocol.http import LINGER, MAX_PIPELINED_REQUESTS
from automoderate.protocol.http_reading import MAX_CHUNKS, MIN_CHUNK
from automoderate.protocol.socketio import CONNECT_PACKETS, MAX_NAMESPACE, MAX_NAMESPACES, NAMESPACE_PACKET
from automoderate.protocol.socketio_packets import MAX_VALUES, BrokenPacket, parse_packet
from automoderate.protocol.unfinished import LARGE, Unfinished
from kits.memory import allocated

PATH = "/socket.io/?EIO=4&transport="
HEAD = b"HTTP/1.1\r\nHost: server.test\r\n"


@pytest.fixture
def feed() -> Any:
    return lambda data: [data]


@pytest.fixture
def engine(make: Any) -> Any:
    return make(EngineIOServer, path="/socket.io/", max_payload=100_000, max_pending=5)


@pytest.fixture
def sio(make: Any) -> Any:
    net = make(SocketIOServer, path="/socket.io/", max_payload=100_000, max_pending=5)

    def react(event: Any) -> None:
        if isinstance(event, ClientConnecting):
            net.server.accept(event.client, net.now)

    net.react = react
    return net


def opened(net: Any) -> Any:
    """A session with a WebSocket."""
    line = net.connect()
    line.upgrade(f"{PATH}websocket")
    return line


def polled(net: Any) -> tuple[Any, str]:
    line = net.connect()
    return line, f"{PATH}polling&sid={line.get(f'{PATH}polling').text[9:].partition(chr(34))[0]}"


def reasons(net: Any) -> list[CloseReason]:
    return [event.reason for event in net.taken(SessionClosed)]


# Packets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", ["6", "3", "4x", "5"])
def test_a_session_that_sends_too_many_packets_is_ended_and_the_log_says_why(
    engine: Any, packet: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = opened(engine)
    with caplog.at_level(logging.INFO):
        line.say(*[packet] * BURST)
        assert reasons(engine) == []
        line.say(*[packet] * 20)
    assert reasons(engine) == [CloseReason.FLOOD]
    assert line.close_code() is not None
    assert caplog.text.count(f"more than {BURST} packets at once") == 1
    assert len(engine.taken(MessageReceived)) <= BURST + 1


def test_a_session_may_go_on_at_the_rate_that_is_allowed(engine: Any) -> None:
    line = opened(engine)
    line.say(*["6"] * (BURST - int(RATE)))
    for _ in range(100):
        engine.now += 0.5
        line.say(*["6"] * int(RATE / 2))
        if engine.session().pinged:
            line.say("3")
            engine.now += 0.02
    assert reasons(engine) == []


def test_packets_of_posts_count_together(engine: Any) -> None:
    line, polls = polled(engine)
    for _ in range(BURST // MAX_PACKETS):
        assert line.post(polls, "\x1e".join(["6"] * MAX_PACKETS)).text == "ok"
    assert reasons(engine) == []
    assert line.post(polls, "\x1e".join(["4x"] * MAX_PACKETS)).text == "ok"
    assert reasons(engine) == [CloseReason.FLOOD]
    assert len(engine.taken(MessageReceived)) < 10


def test_a_post_has_so_many_packets_at_most(engine: Any) -> None:
    line, polls = polled(engine)
    assert line.post(polls, "\x1e".join(["4x"] * (MAX_PACKETS + 1))).status == 400
    assert engine.taken(MessageReceived) == []
    assert reasons(engine) == [CloseReason.PARSE_ERROR]


@pytest.mark.parametrize("opcode", [9, 10])
def test_frames_without_a_packet_count_less(engine: Any, opcode: int) -> None:
    line = opened(engine)
    frame = bytes([0x80 | opcode]) + b"\x80\0\0\0\0"
    line.send(frame * ((BURST - 1) * FRAMES_A_PACKET))
    assert reasons(engine) == []
    line.send(frame * (20 * FRAMES_A_PACKET))
    assert reasons(engine) == [CloseReason.FLOOD]


def test_a_client_that_comes_and_goes_within_its_session_is_ended(sio: Any) -> None:
    line = opened(sio)
    times = BURST // (CONNECT_PACKETS + 2)
    line.say(*["40", "41"] * times)
    assert reasons(sio) == []
    line.say(*["40", "41"] * 20)
    assert reasons(sio) == [CloseReason.FLOOD]
    assert len(sio.taken(ClientConnecting)) <= times + 20


def test_a_long_namespace_counts_more(sio: Any) -> None:
    line = opened(sio)
    names = [f"{number:04}{'x' * (MAX_NAMESPACE - 5)}" for number in range(MAX_NAMESPACES)]
    times = BURST // (CONNECT_PACKETS + MAX_NAMESPACE // NAMESPACE_PACKET + 1)
    line.say(*[f"40/{name}," for name in names[:times]])
    assert reasons(sio) == []
    line.say(*[f"40/{name}," for name in names[times : times + 2]])
    assert reasons(sio) == [CloseReason.FLOOD]


def test_what_clients_send_when_they_come_back_is_far_from_the_bound(sio: Any) -> None:
    """Every namespace, every room, a hundred events: more than any client sends at once, in one payload."""
    line, polls = polled(sio)
    namespaces = ["40", *(f"40/{number}," for number in range(MAX_NAMESPACES - 1))]
    events = [f'42{number}["join_project",{{"project_id":"p"}}]' for number in range(100)]
    assert line.post(polls, "\x1e".join(namespaces + events)).text == "ok"
    assert reasons(sio) == []
    assert len(sio.taken(EventReceived)) == 100
    assert sio.session().paced_until - sio.now < BURST / RATE / 2


# Requests ----------------------------------------------------------------------------------------------------------


def test_requests_that_wait_for_no_answer_are_served_so_many_at_a_time(engine: Any) -> None:
    line = engine.connect()
    line.send((b"GET /socket.io/?EIO=9&transport=polling " + HEAD + b"\r\n") * 2 * MAX_PIPELINED_REQUESTS)
    replies = [line.answered() for _ in range(MAX_PIPELINED_REQUESTS + 1)]
    assert line.reply() is None
    assert {reply.status for reply in replies} == {400}
    assert ["connection" in reply.headers for reply in replies] == [False] * MAX_PIPELINED_REQUESTS + [True]
    engine.wait(LINGER)
    assert line.ended == "closed"


def test_applications_requests_count_too(engine: Any) -> None:
    line = engine.connect()
    line.send((b"GET /page " + HEAD + b"\r\n") * 2 * MAX_PIPELINED_REQUESTS)
    for _ in range(2 * MAX_PIPELINED_REQUESTS):
        engine.server.respond(line.connection, 204, "No Content", [], engine.now)
        engine.server.respond_end(line.connection, engine.now)
        engine.settle()
    assert len(engine.taken(AppRequest)) == MAX_PIPELINED_REQUESTS + 1
    engine.wait(LINGER)
    assert line.ended == "closed"


def test_a_client_that_waits_for_its_answers_keeps_its_connection(engine: Any) -> None:
    line = engine.connect()
    for _ in range(2 * MAX_PIPELINED_REQUESTS):
        assert "connection" not in line.get("/socket.io/?EIO=9&transport=polling").headers


def test_a_body_in_tiny_chunks_is_refused(engine: Any) -> None:
    line, polls = polled(engine)
    head = f"POST {polls} ".encode() + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    line.send(head + b"1\r\n4\r\n" + b"1\r\nx\r\n" * (2 * MAX_CHUNKS) + b"0\r\n\r\n")
    assert line.answered().status == 400
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


@pytest.mark.parametrize(("size", "chunks"), [(1, MAX_CHUNKS), (MIN_CHUNK, MAX_CHUNKS + 500)])
def test_small_chunks_may_be_many_and_many_chunks_not_small(engine: Any, size: int, chunks: int) -> None:
    line, polls = polled(engine)
    head = f"POST {polls} ".encode() + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    line.send(head + b"%x\r\n%s\r\n" % (size, b"4" * size) * chunks + b"0\r\n\r\n")
    assert line.answered().text == "ok"
    assert len(engine.taken(MessageReceived)[0].data) == size * chunks - 1


@pytest.mark.parametrize(
    ("target", "cookies", "status"),
    [
        (f"{PATH}polling" + "&a=b" * 98, 500, 200),
        (f"{PATH}polling" + "&a=b" * 99, 1, 400),
        (f"{PATH}polling", 501, 431),
        ("/page?" + "&a=b" * 1000, 500, None),
    ],
)
def test_parameters_and_cookies_are_so_many_at_most(engine: Any, target: str, cookies: int, status: int | None) -> None:
    line = engine.connect()
    line.request("GET", target, headers=(("Cookie", "; ".join(["a=b"] * cookies)),))
    reply = line.reply()
    assert (reply and reply.status) == status


# Addresses ---------------------------------------------------------------------------------------------------------


def test_of_connections_without_a_request_the_oldest_makes_room(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    lines = [engine.connect(f"2001:db8::{number}") for number in range(1, 6)]
    other = engine.connect("192.0.2.7")
    assert not any(line.ended for line in lines)
    lines[0].get("/socket.io/")  # it is no longer without one
    with caplog.at_level(logging.INFO):
        engine.connect("2001:db8::ffff")
        engine.settle()
        assert not any(line.ended for line in lines)
        engine.connect("2001:db8::fffe")
        engine.connect("2001:db8::fffd")
        engine.settle()
    assert [line.ended for line in lines] == [None, "closed", "closed", None, None]
    assert other.ended is None
    assert caplog.text.count("has too many without a request") == 1
    assert "2001:db8::fffe, which has too many without a request" in caplog.text


def test_connections_of_a_trusted_proxy_are_not_counted(make: Any) -> None:
    net = make(EngineIOServer, path="/socket.io/", max_pending=2, trusted_proxies=(ip_network("192.0.2.0/24"),))
    lines = [net.connect() for _ in range(10)] + [net.connect("") for _ in range(10)]
    assert not any(line.ended for line in lines)


def test_of_sessions_that_were_not_let_in_the_oldest_makes_room(sio: Any, caplog: pytest.LogCaptureFixture) -> None:
    lines = [opened(sio) for _ in range(5)]
    lines[0].say("40")
    opened(sio)
    assert reasons(sio) == []
    with caplog.at_level(logging.INFO):
        polled(sio)
        polled(sio)
    assert reasons(sio) == [CloseReason.CONNECT_TIMEOUT] * 2
    assert [line.close_code() is not None for line in lines] == [False, True, True, False, False]
    assert caplog.text.count("has too many without a CONNECT") == 1
    assert "192.0.2.1, which has too many without a CONNECT" in caplog.text
    assert len(sio.taken(SessionOpened)) == 8


def test_who_is_behind_a_proxy_is_counted_by_the_own_address(make: Any) -> None:
    net = make(SocketIOServer, path="/socket.io/", max_pending=2, trusted_proxies=(ip_network("192.0.2.0/24"),))
    for number in range(10):
        line = net.connect()
        line.get(f"{PATH}polling", ("X-Forwarded-For", f"198.51.100.{number}"))
    assert reasons(net) == []
    for _ in range(3):
        net.connect().get(f"{PATH}polling", ("X-Forwarded-For", "198.51.100.1"))
    assert reasons(net) == [CloseReason.CONNECT_TIMEOUT] * 2


def test_nothing_is_remembered_of_what_is_finished() -> None:
    said: list[str] = []
    pending: Unfinished[str] = Unfinished(2, said.append)
    assert [pending.add(name, "192.0.2.1") for name in "ab"] == [None, None]
    pending.discard("a", "192.0.2.1")
    assert [pending.add(name, "192.0.2.1") for name in "cd"] == [None, "b"]
    for name in "abcd":
        pending.discard(name, "192.0.2.1")
        pending.discard(name, "192.0.2.2")
    assert not pending
    assert said == ["192.0.2.1"]


SENT = LARGE + 1000


def begin_body(net: Any, address: str = "192.0.2.1") -> Any:
    """Much of a POST, and not all."""
    line = net.connect(address)
    sid = line.get(f"{PATH}polling").text[9:].partition(chr(34))[0]
    head = f"POST {PATH}polling&sid={sid} ".encode() + HEAD + b"Content-Length: %d\r\n\r\n" % (SENT + 1)
    line.send(head + b"4" * SENT)
    return line


def begin_page(net: Any) -> Any:
    """Much of a request to the application."""
    line = net.connect()
    line.send(b"POST /x " + HEAD + b"Content-Length: %d\r\n\r\n" % (SENT + 1) + b"4" * SENT)
    return line


def begin_frame(net: Any) -> Any:
    """Much of a frame."""
    line = opened(net)
    line.send(b"\x81\xff" + (SENT + 1).to_bytes(8, "big") + bytes(4) + b"4" * SENT)
    return line


def begin_fragments(net: Any) -> Any:
    """Much of a message, in two fragments."""
    line = opened(net)
    for opcode in (b"\x01", b"\0"):
        line.send(opcode + b"\xfe" + (SENT // 2).to_bytes(2, "big") + bytes(4) + b"4" * (SENT // 2))
    return line


def begin_probe(net: Any) -> Any:
    """Much of a frame on a WebSocket to which nobody has upgraded."""
    _, polls = polled(net)
    line = net.connect()
    line.upgrade(polls.replace("polling", "websocket"))
    line.send(b"\x81\xff" + (SENT + 1).to_bytes(8, "big") + bytes(4) + b"4" * SENT)
    return line


def was_ended(line: Any) -> bool:
    """Whether the server has said that it hears no more."""
    return line.ended is not None or b"\x88" in line.received or b"HTTP/1.1 408" in line.received


BEGINNINGS = [begin_body, begin_page, begin_frame, begin_fragments, begin_probe]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, make: Any) -> Any:
    """A server where a visitor may have three large ones under way."""
    monkeypatch.setattr(unfinished, "MAX_LARGE", 3)
    return make(EngineIOServer, path="/socket.io/", max_payload=1_000_000)


@pytest.mark.parametrize("begin", BEGINNINGS, ids=lambda begin: begin.__name__)
def test_of_what_is_large_and_not_complete_the_oldest_makes_room(
    few: Any, caplog: pytest.LogCaptureFixture, begin: Any
) -> None:
    other = begin_body(few, "192.0.2.2")
    with caplog.at_level(logging.INFO):
        lines = [begin(few) for _ in range(3)]
        assert not any(map(was_ended, lines))
        lines += [begin(few) for _ in range(3)]
        assert list(map(was_ended, lines)) == [True] * 3 + [False] * 3
        assert not any(line.connection.websocket or line.connection.body for line in lines[:3])
        few.wait(LINGER)
    assert all(line.ended for line in lines[:3])
    assert not was_ended(other)
    assert caplog.text.count("192.0.2.1, which has too many large bodies or messages under way") == 1


def test_a_websocket_that_closes_counts_until_it_is_over(few: Any) -> None:
    lines = [begin_frame(few) for _ in range(3)]
    few.server.end(few.taken(SessionOpened)[0].session, CloseReason.SERVER_CLOSE, Farewell.STAY_AWAY, few.now)
    few.settle()
    lines.append(begin_frame(few))
    assert [line.connection.websocket is None for line in lines] == [True, False, False, False]
    assert lines[0].close_code() == 1000


def test_what_was_large_and_is_complete_or_over_does_not_count(few: Any) -> None:
    body, page, frame, fragments = begin_body(few), begin_page(few), begin_frame(few), begin_fragments(few)
    assert was_ended(body)  # it was the oldest
    frame.send(b"4")
    begin_body(few).send(b"4")
    fragments.send(b"\x80\x80" + bytes(4))
    begin_frame(few).lose()
    begin_body(few).lose()
    lines = [begin_frame(few) for _ in range(2)]
    page.send(b"4")
    lines.append(begin_frame(few))
    assert not any(map(was_ended, [page, frame, fragments, *lines]))
    assert len(few.taken(MessageReceived)) == 3


@pytest.mark.parametrize("end", ["client", "server"])
def test_half_a_message_is_let_go_of_with_its_connection(make: Any, end: str) -> None:
    net = make(EngineIOServer, path="/socket.io/", max_payload=1_000_000)
    line = opened(net)
    session = net.session()
    with allocated(collecting=False) as held:
        line.send(b"\x81\xff" + (900_000).to_bytes(8, "big") + bytes(500_004))
        assert held() > 500_000
        if end == "client":
            line.lose()
        else:
            net.server.drop(session, CloseReason.SERVER_CLOSE, net.now)
        net.settle()
        assert held() < 50_000


# What is said of it ----------------------------------------------------------------------------------------------


def tiny_chunks(polls: str) -> bytes:
    return f"POST {polls} ".encode() + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n6\r\n" * 2 * MAX_CHUNKS


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda _: b"GET /x HTTP/9\r\n\r\n", "illegal request line"),
        (lambda _: b"GET /x " + HEAD + b"x: y\r\n" * 101 + b"\r\n", "the head is too large"),
        (lambda _: b"GET /x " + HEAD + b"Cookie: " + b"a=b;" * 501 + b"\r\n\r\n", "too many cookies"),
        (lambda _: f"GET {PATH}polling{'&a=b' * 100} ".encode() + HEAD + b"\r\n", "too many parameters"),
        (tiny_chunks, "the chunks are too small"),
        (lambda polls: (f"GET {polls}x ".encode() + HEAD + b"\r\n") * 102, "100 requests without waiting"),
        (lambda polls: posted(polls, "\x1e".join(["6"] * (MAX_PACKETS + 1))), "too many packets"),
        (lambda polls: posted(polls, "x"), "unknown packet type"),
        (lambda polls: posted(polls, "\x1e".join(["6"] * MAX_PACKETS)) * 3, f"more than {BURST} packets at once"),
    ],
)
def test_the_log_says_once_what_was_refused_of_whom(
    engine: Any, caplog: pytest.LogCaptureFixture, data: Any, why: str
) -> None:
    with caplog.at_level(logging.INFO, "automoderate.protocol"):
        for _ in range(2):
            _, polls = polled(engine)
            engine.connect().send(data(polls))
            engine.settle()
    (said,) = caplog.messages
    assert said.startswith("Refused what 192.0.2.1 sent: ")
    assert why in said


def posted(polls: str, body: str) -> bytes:
    return f"POST {polls} ".encode() + HEAD + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x81\x00", "a frame that is broken"),
        (b"\x81\x81\0\0\0\0x", "unknown packet type"),
        (b"\x81\x84\0\0\0\x0042[1", "no JSON"),
        (b"\x81\xfe\x1f\x50\0\0\0\x0042" + b"[" + b"0," * 4006 + b"0]", "too many values"),
    ],
)
def test_the_log_says_once_why_a_websocket_was_ended(
    sio: Any, caplog: pytest.LogCaptureFixture, data: bytes, why: str
) -> None:
    with caplog.at_level(logging.INFO, "automoderate.protocol"):
        for _ in range(2):
            line = opened(sio)
            line.say("40")
            line.send(data)
            assert line.close_code() is not None
    (said,) = caplog.messages
    assert said.startswith("Refused what 192.0.2.1 sent: ")
    assert why in said


def test_of_each_visitor_a_line_a_minute_is_said_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    with caplog.at_level(logging.INFO, "automoderate.protocol"):
        for address in ("192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2", "192.0.2.1"):
            for kind in ("packet", "request"):
                complaints.say(address, kind, "something", 0.0)
        assert len(caplog.messages) == 2 * 3
        complaints.say("192.0.2.1", "packet", "something else" * 1000, SILENCE)
        assert caplog.messages[-1].startswith("Refused what 192.0.2.1 sent: something else")
        assert len(caplog.messages[-1]) < 2 * LONGEST


def test_a_thousand_networks_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()

    def complain(visitors: int, now: float) -> int:
        """How many lines there are of so many visitors, who are refused in turn."""
        caplog.clear()
        for number in range(visitors):
            complaints.say(f"2001:db8:{number % visitors:x}::1", "packet", "something", now)
        return len(caplog.messages)

    with caplog.at_level(logging.INFO, "automoderate.protocol"):
        assert complain(MOST_REMEMBERED, 0.0) == MOST_REMEMBERED
        assert complain(5 * MOST_REMEMBERED, 1.0) == 1
        assert caplog.messages[0].startswith(f"Refused more than {MOST_REMEMBERED} times")
        assert complain(5 * MOST_REMEMBERED, SILENCE - 1) == 0
        assert complain(5 * MOST_REMEMBERED, SILENCE) == MOST_REMEMBERED
        assert complain(5 * MOST_REMEMBERED, SILENCE + 1) == 1
        caplog.clear()
        complaints.say("192.0.2.1", "packet", "something", 2 * SILENCE)
        assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET /socket.io/?EIO=4&transport=polling " + HEAD + b"Origin: http://evil.test\r\n\r\n", "Refused a page of"),
        (b"POST /x " + HEAD + b"Content-Length: 100000000\r\n\r\n", "Refused POST '/x' from 192.0.2.1"),
    ],
)
def test_pages_and_bodies_that_are_refused_do_not_fill_the_log(
    engine: Any, caplog: pytest.LogCaptureFixture, data: bytes, said: str
) -> None:
    with caplog.at_level(logging.INFO, "automoderate.protocol"):
        for _ in range(20):
            engine.connect().send(data * 3)
        assert [said in message for message in caplog.messages] == [True]
        engine.wait(SILENCE)
        engine.connect().send(data)
    assert len(caplog.messages) == 2


# Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["{}"] * MAX_VALUES) + "]",
        "[" + ",".join(["1"] * (MAX_VALUES + 1)) + "]",
        "[" + ",".join(['""'] * (2 * MAX_VALUES + 1)) + "]",
        "[" + ",".join(['"\\\\"'] * (2 * MAX_VALUES + 1)) + "]",
        "{" + ",".join(f'"{number}":0' for number in range(MAX_VALUES // 2 + 1)) + "}",
        '["' + ",\\\\" * 50_000 + '",' + ",".join(["1"] * MAX_VALUES) + "]",
    ],
    ids=["objects", "numbers", "strings", "backslashes", "keys", "behind a long text"],
)
def test_values_of_one_event_are_bounded(text: str) -> None:
    with pytest.raises(BrokenPacket, match="too many values"):
        parse_packet(f'2["x",{text}]')


def test_what_looks_like_values_in_a_text_counts_nothing() -> None:
    text = ',:[{\\"\\\\' * MAX_VALUES
    assert parse_packet(f'2["x","{text}"]').data == ["x", ',:[{"\\' * MAX_VALUES]


def test_as_many_values_as_are_allowed() -> None:
    numbers = list(range(MAX_VALUES - 2))
    assert parse_packet(f'2["x",{",".join(map(str, numbers))}]').data == ["x", *numbers]
