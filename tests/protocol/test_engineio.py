"""Engine.IO sessions: handshake, polling, WebSocket, upgrade, heartbeat, ownership, limits and ends."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from engineio.payload import Payload

from automoderate.protocol import (
    CloseReason,
    CredentialChanged,
    Encoded,
    EngineIOServer,
    Farewell,
    MessageReceived,
    SessionClosed,
    SessionOpened,
    SessionUpgraded,
    StaticFile,
)
from automoderate.protocol.engineio_closing import DRAIN_PATIENCE
from automoderate.protocol.engineio_payload import Kind
from automoderate.protocol.engineio_polling import NOOP_INTERVAL

Net = Any
Line = Any
PATH = "/engine.io/"
POLL = f"{PATH}?EIO=4&transport=polling"
WS = f"{PATH}?EIO=4&transport=websocket"
COME_BACK = "1\x1ex"


def opened(net: Net, *headers: tuple[str, str]) -> tuple[Line, str]:
    """A polling session: the connection it was opened on, and the address of its polls."""
    line = net.connect()
    reply = line.get(POLL, *headers)
    assert reply.status == 200, reply
    return line, f"{POLL}&sid={json.loads(reply.text[1:])['sid']}"


def websocket(net: Net, target: str = WS, *headers: tuple[str, str]) -> Line:
    line = net.connect()
    line.upgrade(target, *headers)
    return line


def session(net: Net) -> Line:
    line = websocket(net)
    assert len(line.messages()) == 1
    return line


def upgraded(net: Net) -> tuple[Line, str]:
    _, polls = opened(net)
    line = websocket(net, polls.replace("polling", "websocket"))
    line.say("2probe", "5")
    assert line.messages() == ["3probe"]
    return line, polls


def echo(net: Net) -> None:
    def react(event: Any) -> None:
        if isinstance(event, MessageReceived):
            net.server.send(event.session, event.data, net.now)

    net.react = react


def reasons(net: Net) -> list[CloseReason]:
    return [event.reason for event in net.taken(SessionClosed)]


def error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


# Handshake ----------------------------------------------------------------------------------------------------


def test_a_polling_handshake_opens_a_session(engine: Net) -> None:
    reply = engine.connect().get(POLL)
    assert reply.headers["content-type"] == "text/plain; charset=UTF-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.text.startswith("0")
    assert json.loads(reply.text[1:]) == {
        "sid": "id1", "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 10000,
    }  # fmt: skip
    opened = engine.taken(SessionOpened)[-1]
    assert (opened.session.transport, opened.request.path) == ("polling", PATH)
    assert engine.server.wire_connection(engine.session()) is None


def test_a_websocket_handshake_opens_a_session_in_one_write(engine: Net) -> None:
    line = websocket(engine)
    assert line.writes == 1
    (packet,) = line.messages()
    assert json.loads(packet[1:])["upgrades"] == []
    assert engine.session().transport == "websocket"
    assert engine.server.wire_connection(engine.session()) is line.connection


@pytest.mark.parametrize(
    ("method", "query", "answer"),
    [
        ("GET", "?EIO=4", error(0, "Transport unknown")),
        ("GET", "?EIO=4&transport=abc", error(0, "Transport unknown")),
        ("GET", "?EIO=4&transport=polling&sid=none", error(1, "Session ID unknown")),
        ("POST", "?EIO=4&transport=polling", error(2, "Bad handshake method")),
        ("PUT", "?EIO=4&transport=polling", error(2, "Bad handshake method")),
        ("OPTIONS", "?EIO=4&transport=polling", error(2, "Bad handshake method")),
        ("GET", "?EIO=4&transport=websocket", error(3, "Bad request")),
        ("GET", "?transport=polling", error(5, "Unsupported protocol version")),
        ("GET", "?EIO=3&transport=polling", error(5, "Unsupported protocol version")),
    ],
)
def test_a_handshake_that_cannot_be_is_answered_as_the_reference_server_does(
    engine: Net, method: str, query: str, answer: dict[str, Any]
) -> None:
    line = engine.connect()
    line.request(method, PATH + query)
    reply = line.answered()
    assert (reply.status, reply.json) == (400, answer)
    assert engine.events == []
    assert line.ended is None


def test_an_upgrade_to_polling_is_a_bad_request(engine: Net) -> None:
    line = engine.connect()
    line.request("GET", POLL, headers=(("Connection", "Upgrade"), ("Upgrade", "websocket")))
    assert line.answered().json == error(3, "Bad request")


@pytest.mark.parametrize(("version", "key", "status"), [("8", "dGhlIHNhbXBsZSBub25jZQ==", 426), ("13", "short", 400)])
def test_a_websocket_handshake_has_to_follow_the_specification(
    engine: Net, version: str, key: str, status: int
) -> None:
    headers = (
        ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", version),
        ("Sec-WebSocket-Key", key),
    )  # fmt: skip
    line = engine.connect()
    line.request("GET", WS, headers=headers)
    reply = line.answered()
    assert reply.status == status
    assert reply.headers.get("sec-websocket-version") == ("13" if status == 426 else None)


def test_frames_right_behind_the_handshake_are_read(engine: Net, helpers: Any) -> None:
    echo(engine)
    line = engine.connect()
    line.send(helpers.upgrade_request(WS) + helpers.client_frame("4a") + helpers.client_frame(b"b"))
    line.unread = bytearray(line.unread.partition(b"\r\n\r\n")[2])
    assert line.messages()[1:] == ["4a", b"b"]


# Messages -----------------------------------------------------------------------------------------------------


def test_several_packets_travel_in_one_post_and_one_poll(engine: Net) -> None:
    echo(engine)
    line, polls = opened(engine)
    packets = "\x1e".join([f"4{number}" for number in range(13)] + ["bAQIDBA==", "4é", '4{"a": 1}'])
    reply = line.post(polls, packets)
    assert (reply.status, reply.text, reply.headers["content-type"]) == (200, "ok", "text/html")
    assert line.get(polls).text == packets


def test_no_poll_brings_more_packets_than_a_python_client_takes(engine: Net) -> None:
    echo(engine)
    line, polls = opened(engine)
    packets = [f"4{number}" for number in range(40)]
    line.post(polls, "\x1e".join(packets))
    answers = [Payload(encoded_payload=line.get(polls).text).packets for _ in range(3)]
    assert [packet.encode() for answer in answers for packet in answer] == packets


def test_a_poll_waits_for_a_message(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    assert line.reply() is None
    engine.server.send(engine.session(), "one", engine.now)
    engine.server.send(engine.session(), b"\x01", engine.now)
    engine.settle()
    assert line.answered().text == "4one\x1ebAQ=="


def test_what_is_sent_between_two_drains_leaves_in_one_write(engine: Net) -> None:
    line = session(engine)
    before = line.writes
    for number in range(5):
        engine.server.send(engine.session(), str(number), engine.now)
    engine.settle()
    assert line.writes == before + 1
    assert line.messages() == ["40", "41", "42", "43", "44"]


def test_a_message_is_encoded_once_for_every_transport(engine: Net) -> None:
    encoded = Encoded.message("hello é")
    line = session(engine)
    engine.server.send_encoded(engine.session(), encoded, engine.now)
    poller, polls = opened(engine)
    engine.server.send_encoded(engine.session(), encoded, engine.now)
    engine.settle()
    assert line.messages() == ["4hello é"]
    assert poller.get(polls).text == encoded.packet == "4hello é"


def test_poll_answers_respect_the_maximum_but_never_split_a_packet(engine: Net) -> None:
    line, polls = opened(engine)
    for text in ("a" * 6000, "b" * 3997, "c", "d" * 9900, "f" * 97):
        engine.server.send(engine.session(), text, engine.now)
    sizes = [len(line.get(polls).body) for _ in range(3)]
    assert sizes == [6001 + 1 + 3998, 2 + 1 + 9901, 98]


def test_a_packet_larger_than_the_maximum_goes_alone(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.send(engine.session(), "a", engine.now)
    engine.server.send(engine.session(), "b" * 15_000, engine.now)
    assert line.get(polls).text == "4a"
    assert len(line.get(polls).body) == 15_001


def test_what_only_servers_send_is_ignored(engine: Net) -> None:
    echo(engine)
    line = session(engine)
    line.say("0", "6", "5", "3", "4still")
    assert line.messages() == ["4still"]


@pytest.mark.parametrize("packet", ["abc", "", "7"])
def test_what_is_no_packet_ends_the_session(engine: Net, packet: str) -> None:
    line, polls = opened(engine)
    assert line.post(polls, f"4good\x1e{packet}\x1e4bad").status == 400
    assert [event.data for event in engine.taken(MessageReceived)] == ["good"]
    assert line.get(polls).json == error(1, "Session ID unknown")
    wire = session(engine)
    wire.say("4good", packet, "4bad")
    assert wire.close_code() == 1005
    assert [event.data for event in engine.taken(MessageReceived)] == ["good", "good"]
    assert reasons(engine) == [CloseReason.PARSE_ERROR] * 2


def test_a_body_that_is_no_utf8_ends_the_session(engine: Net) -> None:
    line, polls = opened(engine)
    assert line.post(polls, b"4\xff").status == 400
    assert reasons(engine) == [CloseReason.PARSE_ERROR]


def test_a_ping_from_the_client_ends_the_session(engine: Net) -> None:
    line = session(engine)
    line.say("2")
    assert line.close_code() == 1005
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


@pytest.mark.parametrize("sent", ["\u00e9", "x" * 5000])
def test_any_text_and_any_bytes_come_back(engine: Net, sent: str) -> None:
    echo(engine)
    line = session(engine)
    line.say(f"4{sent}", sent.encode())
    assert line.messages() == [f"4{sent}", sent.encode()]


def test_polls_and_posts_may_share_a_connection(engine: Net) -> None:
    echo(engine)
    line, polls = opened(engine)
    line.request("GET", polls)
    other = engine.connect()
    other.post(polls, "4a")
    assert line.answered().text == "4a"
    assert line.post(polls, "4b").text == "ok"
    assert line.get(polls).text == "4b"


def test_a_request_behind_a_waiting_poll_is_served_after_it(engine: Net) -> None:
    line, polls = opened(engine)
    post = f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n4x".encode()
    line.send(f"GET {polls} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + post)
    assert engine.taken(MessageReceived) == []
    engine.server.send(engine.session(), "a", engine.now)
    engine.settle()
    assert line.answered().text == "4a"
    assert line.answered().text == "ok"
    assert len(engine.taken(MessageReceived)) == 1


# What the reference server punishes ---------------------------------------------------------------------------


def test_two_polls_at_once_end_the_session(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    assert engine.connect().get(polls).json == error(3, "Bad request")
    assert line.answered().text == COME_BACK
    assert line.get(polls).json == error(1, "Session ID unknown")
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


def test_posts_at_once_are_all_taken(engine: Net) -> None:
    _, polls = opened(engine)
    slow = engine.connect()
    slow.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4abc".encode())
    assert engine.connect().post(polls, "4x").text == "ok"
    slow.send(b"defgh")
    assert slow.answered().text == "ok"
    assert [event.data for event in engine.taken(MessageReceived)] == ["x", "abcdefgh"]
    assert engine.session().posts == ()


def test_a_session_may_end_while_another_post_arrives(engine: Net) -> None:
    _, polls = opened(engine)
    slow = engine.connect()
    slow.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4abc".encode())
    engine.connect().post(polls, "nonsense")
    slow.send(b"defgh")
    assert slow.answered().json == error(1, "Session ID unknown")
    assert reasons(engine) == [CloseReason.PARSE_ERROR]


def test_a_poll_whose_connection_goes_ends_the_session(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    line.eof()
    assert line.ended == "closed"
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


def test_a_post_whose_connection_goes_ends_the_session(engine: Net) -> None:
    _, polls = opened(engine)
    line = engine.connect()
    line.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4abc".encode())
    line.lose()
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


def test_a_connection_that_goes_between_polls_is_nothing(engine: Net) -> None:
    line, polls = opened(engine)
    line.lose()
    assert engine.connect().post(polls, "4x").status == 200
    assert reasons(engine) == []


def test_a_post_announced_too_large_ends_the_session(engine: Net) -> None:
    line, polls = opened(engine)
    line.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n4".encode())
    assert line.answered().status == 413
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


def test_a_post_that_becomes_too_large_ends_the_session(engine: Net) -> None:
    line, polls = opened(engine)
    line.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(3):
        line.send(b"ff0\r\n" + b"4" * 0xFF0 + b"\r\n")
    assert line.answered().status == 413
    assert engine.taken(MessageReceived) == []
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


def test_a_handshake_with_a_large_body_is_refused(engine: Net) -> None:
    line = engine.connect()
    line.send(f"GET {POLL} HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n".encode())
    assert line.answered().status == 413


def test_an_unwanted_body_that_is_broken_too_is_refused(engine: Net) -> None:
    line = engine.connect()
    request = f"POST {POLL}&sid=none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    engine.server.receive_data(line.connection, request.encode(), engine.now)
    engine.settle()
    assert line.answered().json == error(1, "Session ID unknown")
    line.eof()
    assert line.ended == "closed"


def test_a_body_is_text_whatever_its_type_says(engine: Net) -> None:
    line, polls = opened(engine)
    assert line.post(polls, "4x", ("Content-Type", "application/octet-stream")).text == "ok"
    assert [event.data for event in engine.taken(MessageReceived)] == ["x"]


@pytest.mark.parametrize("method", ["PUT", "HEAD", "DELETE", "OPTIONS"])
def test_other_methods_are_refused_and_change_nothing(engine: Net, method: str) -> None:
    line, polls = opened(engine)
    line.request(method, polls)
    assert b" 400 " in line.unread
    assert engine.connect().post(polls, "4x").status == 200


def test_a_websocket_message_that_is_too_large_ends_the_session(engine: Net) -> None:
    line = session(engine)
    line.say("4" + "x" * 10_000)
    assert line.close_code() == 1009
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]
    assert line.ended is None
    line.eof()
    assert line.ended == "closed"


def test_a_frame_that_breaks_the_protocol_ends_the_session(engine: Net) -> None:
    line = session(engine)
    line.send(b"\x81\x01x")
    assert line.close_code() == 1002
    assert reasons(engine) == [CloseReason.TRANSPORT_ERROR]


# Upgrade ------------------------------------------------------------------------------------------------------


def test_an_upgrade_takes_what_was_queued_along_once_and_in_order(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    wire.say("2probe")
    assert wire.messages() == ["3probe"]
    assert line.answered().text == "6"
    assert engine.session().transport == "polling"
    assert engine.server.wire_connection(engine.session()) is None
    engine.server.send(engine.session(), "a", engine.now)
    engine.server.send(engine.session(), b"\x01", engine.now)
    wire.say("5")
    assert wire.messages() == ["4a", b"\x01"]
    assert engine.taken(SessionUpgraded) == [SessionUpgraded(engine.session())]
    assert engine.server.wire_connection(engine.session()) is wire.connection
    assert line.get(polls).json == error(3, "Bad request")


def test_a_poll_during_the_probe_gets_what_there_is(engine: Net) -> None:
    line, polls = opened(engine)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    assert engine.taken(SessionUpgraded) == []
    wire.say("2probe")
    assert line.get(polls).text == "6"
    engine.server.send(engine.session(), "a", engine.now)
    assert line.get(polls).text == "4a"
    wire.say("5")
    assert wire.messages() == ["3probe"]


def test_a_client_that_polls_on_while_its_upgrade_is_pending_does_not_spin(engine: Net) -> None:
    line, polls = opened(engine)
    websocket(engine, polls.replace("polling", "websocket")).say("2probe")
    started = engine.now
    assert line.get(polls).text == "6"
    for number in (1, 2, 3):
        line.request("GET", polls)
        assert line.reply() is None
        engine.wait(NOOP_INTERVAL)
        assert line.answered().text == "6"
        assert engine.now == pytest.approx(started + number * NOOP_INTERVAL)
    line.request("GET", polls)
    engine.server.send(engine.session(), "a", engine.now)
    engine.settle()
    assert line.answered().text == "4a"
    engine.wait(NOOP_INTERVAL)


def test_a_poll_that_waits_when_the_upgrade_completes_is_released(engine: Net, helpers: Any) -> None:
    line, polls = opened(engine)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    wire.say("2probe")
    # The outputs are not drained in between.
    engine.server.receive_data(line.connection, f"GET {polls} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), engine.now)
    engine.server.receive_data(wire.connection, helpers.client_frame("5"), engine.now)
    engine.settle()
    assert line.answered().text == "6"


def test_a_probe_that_never_completes_leaves_polling_alone(engine: Net) -> None:
    echo(engine)
    line, polls = opened(engine)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    wire.say("2probe")
    engine.wait(10)
    assert wire.close_code() == 1005
    line.post(polls, "4a")
    assert line.get(polls).text == "4a"
    second = websocket(engine, polls.replace("polling", "websocket"))
    second.say("2probe", "5", "4b")
    assert second.messages() == ["3probe", "4b"]
    engine.wait(5)
    assert wire.ended == "closed"


def test_a_client_may_upgrade_without_a_probe(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.send(engine.session(), "queued", engine.now)
    assert line.get(polls).text == "4queued"
    line.request("GET", polls)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    wire.say("5", "4x")
    assert line.answered().text == "6"
    assert engine.taken(SessionUpgraded) == [SessionUpgraded(engine.session())]
    assert [event.data for event in engine.taken(MessageReceived)] == ["x"]
    engine.server.send(engine.session(), "y", engine.now)
    engine.settle()
    assert wire.messages() == ["4y"]


@pytest.mark.parametrize(
    ("query", "sent"), [("", b"\x01"), ("&b64=", b"\x01"), ("&b64=1", "bAQ=="), ("&b64=0", "bAQ==")]
)
def test_a_client_may_ask_for_text_alone(engine: Net, query: str, sent: str | bytes) -> None:
    direct = websocket(engine, WS + query)
    assert len(direct.messages()) == 1
    engine.server.send(engine.session(), b"\x01", engine.now)
    engine.settle()
    assert direct.messages() == [sent]
    _, polls = opened(engine)
    upgraded = websocket(engine, polls.replace("polling", "websocket") + query)
    engine.server.send(engine.session(), b"\x01", engine.now)
    upgraded.say("2probe", "5")
    assert upgraded.messages() == ["3probe", sent]


def test_what_came_before_a_close_frame_is_answered_before_it(engine: Net, helpers: Any) -> None:
    echo(engine)
    line = session(engine)
    line.send(helpers.client_frame("4a") + helpers.client_frame("4b") + helpers.close_frame(1001))
    assert line.messages() == ["4a", "4b"]
    assert line.close_code() == 1001
    assert line.ended == "closed"
    assert reasons(engine) == [CloseReason.TRANSPORT_CLOSE]


@pytest.mark.parametrize("how", ["lose", "eof", "nonsense", "bad frame"])
def test_a_probe_that_fails_leaves_polling_alone(engine: Net, how: str) -> None:
    line, polls = opened(engine)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    if how == "nonsense":
        wire.say("2probe", "4message")
    elif how == "bad frame":
        wire.send(b"\x81\x01x")
    else:
        getattr(wire, how)()
    assert line.post(polls, "4a").status == 200
    line.request("GET", polls)
    assert line.reply() is None
    assert reasons(engine) == []
    websocket(engine, polls.replace("polling", "websocket")).say("2probe", "5")
    assert len(engine.taken(SessionUpgraded)) == 1


def test_a_second_websocket_for_a_session_is_closed(engine: Net) -> None:
    echo(engine)
    wire, polls = upgraded(engine)
    second = websocket(engine, polls.replace("polling", "websocket"))
    assert second.close_code() == 1005
    second.say("4ignored")
    wire.say("4a")
    assert wire.messages() == ["4a"]


def test_a_second_probe_at_the_same_time_is_closed(engine: Net) -> None:
    _, polls = opened(engine)
    first = websocket(engine, polls.replace("polling", "websocket"))
    second = websocket(engine, polls.replace("polling", "websocket"))
    assert second.close_code() == 1005
    first.say("2probe", "5")
    assert len(engine.taken(SessionUpgraded)) == 1


def test_a_websocket_request_cannot_be_a_post(engine: Net) -> None:
    line, polls = opened(engine)
    headers = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
    line.request("POST", polls.replace("polling", "websocket"), b"4x", headers)
    assert line.answered().json == error(3, "Bad request")


def test_a_post_under_way_during_the_upgrade_still_counts(engine: Net) -> None:
    _, polls = opened(engine)
    slow = engine.connect()
    slow.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n4a".encode())
    websocket(engine, polls.replace("polling", "websocket")).say("2probe", "5")
    slow.send(b"bcd")
    assert slow.answered().text == "ok"
    assert [event.data for event in engine.taken(MessageReceived)] == ["abcd"]


# Heartbeat ----------------------------------------------------------------------------------------------------


def test_a_websocket_is_pinged_and_goes_on_while_it_answers(engine: Net) -> None:
    line = session(engine)
    for _ in range(4):
        engine.wait(25)
        assert line.messages() == ["2"]
        line.say("3")
    engine.wait(24)
    assert line.messages() == []
    assert reasons(engine) == []


def test_a_client_that_does_not_answer_is_closed(engine: Net) -> None:
    line = session(engine)
    engine.wait(44.9)
    assert reasons(engine) == []
    engine.wait(0.1)
    assert reasons(engine) == [CloseReason.PING_TIMEOUT]
    assert (line.close_code(), line.ended) == (None, "eof")
    line.say("4late")
    assert engine.taken(MessageReceived) == []
    engine.wait(5)
    assert line.ended == "closed"


def test_a_waiting_poll_gets_the_ping(engine: Net) -> None:
    line, polls = opened(engine)
    for _ in range(3):
        line.request("GET", polls)
        engine.wait(25)
        assert line.answered().text == "2"
        assert line.post(polls, "3").text == "ok"
    assert reasons(engine) == []


def test_a_polling_client_that_went_away_is_forgotten(engine: Net) -> None:
    line, polls = opened(engine)
    engine.now += 45.0  # no tick in between: the next input finds the deadlines passed
    engine.server.tick(engine.now)
    engine.now += 20.0
    assert line.get(polls).json == error(1, "Session ID unknown")
    assert reasons(engine) == [CloseReason.PING_TIMEOUT]


def test_a_polling_client_that_polls_but_never_pongs_is_closed(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    engine.wait(25)
    assert line.answered().text == "2"
    line.request("GET", polls)
    engine.wait(20)
    assert line.answered().text == COME_BACK


def test_spurious_ticks_are_harmless(engine: Net) -> None:
    line = session(engine)
    for _ in range(50):
        engine.server.tick(engine.now)
        engine.settle()
    assert line.messages() == []


# Ends ---------------------------------------------------------------------------------------------------------


def test_a_client_closes_by_packet(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    assert engine.connect().post(polls, "4bye\x1e1\x1e4late").text == "ok"
    assert line.answered().text == "6"
    assert line.get(polls).status == 400
    wire = session(engine)
    wire.say("1")
    assert wire.close_code() == 1000
    assert reasons(engine) == [CloseReason.TRANSPORT_CLOSE] * 2
    assert [event.data for event in engine.taken(MessageReceived)] == ["bye"]


def test_a_poll_that_a_close_packet_overtook_is_answered(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.send(engine.session(), "too late", engine.now)
    line.post(polls, "1")
    assert reasons(engine) == [CloseReason.TRANSPORT_CLOSE]
    assert line.get(polls).text == "6"
    assert line.get(polls).json == error(1, "Session ID unknown")
    line, polls = opened(engine)
    line.post(polls, "1")
    engine.wait(5)
    assert line.get(polls).json == error(1, "Session ID unknown")


def test_a_client_closes_by_frame(engine: Net, helpers: Any) -> None:
    line = session(engine)
    line.send(helpers.close_frame(1001))
    assert line.close_code() == 1001
    assert line.ended == "closed"
    assert reasons(engine) == [CloseReason.TRANSPORT_CLOSE]


@pytest.mark.parametrize("how", ["lose", "eof"])
def test_a_client_closes_by_going_away(engine: Net, how: str) -> None:
    line = session(engine)
    getattr(line, how)()
    assert reasons(engine) == [CloseReason.TRANSPORT_CLOSE]


def test_the_server_closes_a_websocket(engine: Net, helpers: Any) -> None:
    line = session(engine)
    engine.server.send(engine.session(), "last", engine.now)
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    engine.server.send(engine.session(), "late", engine.now)
    engine.server.send_encoded(engine.session(), Encoded.message("late"), engine.now)
    engine.settle()
    assert line.messages() == ["4last"]
    assert (line.close_code(), line.ended) == (None, "eof")
    assert engine.server.wire_connection(engine.session()) is None
    assert reasons(engine) == [CloseReason.SERVER_CLOSE]
    line.say("4late")
    line.send(helpers.close_frame(1000))
    assert engine.taken(MessageReceived) == []
    line.eof()
    assert line.ended == "closed"


def test_a_client_that_does_not_take_the_end_of_its_websocket_is_not_waited_for(engine: Net) -> None:
    line = session(engine)
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    engine.settle()
    engine.wait(4.9)
    assert line.ended == "eof"
    engine.wait(0.1)
    assert line.ended == "closed"


@pytest.mark.parametrize(("farewell", "code"), [(Farewell.STAY_AWAY, 1000), (Farewell.BROKEN, 1005)])
def test_a_client_that_is_not_to_come_back_gets_a_close_frame(
    engine: Net, helpers: Any, farewell: Farewell, code: int
) -> None:
    line = session(engine)
    engine.server.send(engine.session(), "last", engine.now)
    engine.server.end(engine.session(), CloseReason.SERVER_DISCONNECT, farewell, engine.now)
    engine.settle()
    assert line.messages() == ["4last"]
    assert (line.close_code(), line.ended) == (code, None)
    line.send(helpers.close_frame(1000))
    assert line.ended == "closed"


def test_a_client_that_is_dropped_while_it_closes_gets_no_second_word(engine: Net, helpers: Any) -> None:
    line = session(engine)
    engine.react = lambda event: (
        engine.server.drop(event.session, CloseReason.OVERFLOW, engine.now)
        if isinstance(event, MessageReceived) else None
    )  # fmt: skip
    line.send(helpers.client_frame("4x") + helpers.close_frame(1000))
    assert (line.close_code(), line.ended) == (None, "eof")
    assert reasons(engine) == [CloseReason.OVERFLOW]


def test_the_server_closes_a_polling_session_by_its_waiting_poll(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    engine.settle()
    assert line.answered().text == COME_BACK
    assert line.get(polls).json == error(1, "Session ID unknown")


def test_a_polling_client_gets_what_was_queued_and_then_the_end(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.send(engine.session(), "last", engine.now)
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    assert reasons(engine) == []
    engine.settle()
    assert reasons(engine) == [CloseReason.SERVER_CLOSE]
    assert line.get(polls).text == "4last"
    assert line.post(polls, "4ignored").text == "ok"
    assert engine.taken(MessageReceived) == []
    assert line.get(polls).text == COME_BACK
    assert line.get(polls).status == 400


def test_two_polls_for_a_closed_session_are_one_too_many(engine: Net) -> None:
    line, polls = opened(engine)
    slow = engine.connect()
    slow.send(f"POST {polls} HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n".encode())
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    slow.send(b"\r\n")
    assert slow.answered().status == 413
    assert reasons(engine) == [CloseReason.SERVER_CLOSE]
    assert line.get(polls).status == 400


def test_a_polling_client_that_is_to_stay_away_gets_a_lone_close_packet(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.send(engine.session(), "last", engine.now)
    engine.server.end(engine.session(), CloseReason.SERVER_DISCONNECT, Farewell.STAY_AWAY, engine.now)
    engine.settle()
    assert [line.get(polls).text for _ in range(2)] == ["4last", "1"]
    assert line.get(polls).json == error(1, "Session ID unknown")


@pytest.mark.parametrize("farewell", [Farewell.COME_BACK, Farewell.BROKEN])
def test_python_engineio_finds_what_brings_it_back_broken_before_it_acts_on_any_of_it(farewell: Farewell) -> None:
    """Every version reads the first character of a packet as a number, and survives a ValueError alone."""
    _, behind = farewell.payload.decode().split("\x1e")
    with pytest.raises(ValueError, match="invalid literal"):
        int(behind[0])
    with pytest.raises(ValueError, match="invalid literal"):
        Payload(encoded_payload=farewell.payload.decode())
    (packet,) = Payload(encoded_payload=Farewell.STAY_AWAY.payload.decode()).packets
    assert packet.packet_type == Kind.CLOSE


def test_a_polling_client_that_does_not_ask_is_forgotten(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    engine.settle()
    engine.wait(30)
    assert line.get(polls).status == 400


def test_closing_ends_a_probe_too(engine: Net) -> None:
    _, polls = opened(engine)
    wire = websocket(engine, polls.replace("polling", "websocket"))
    wire.say("2probe")
    engine.server.drop(engine.session(), CloseReason.SERVER_CLOSE, engine.now)
    engine.settle()
    assert wire.close_code() == 1005
    late = websocket(engine, polls.replace("polling", "websocket"))
    assert late.close_code() == 1005


def test_draining_tells_everyone_and_refuses_newcomers(engine: Net) -> None:
    wire = session(engine)
    poller, polls = opened(engine)
    poller.request("GET", polls)
    engine.server.drain(engine.now)
    engine.settle()
    assert (wire.close_code(), wire.ended) == (None, "eof")
    reply = poller.answered()
    assert (reply.text, reply.headers["connection"]) == (COME_BACK, "close")
    assert poller.ended == "closed"
    assert engine.connect().get(POLL).status == 503
    assert not engine.server.drained()
    wire.eof()
    assert engine.server.drained()
    assert reasons(engine) == [CloseReason.SERVER_CLOSE] * 2


def test_a_client_between_two_polls_is_told_on_the_connection_it_has(engine: Net) -> None:
    line, polls = opened(engine)
    engine.server.drain(engine.now)
    engine.settle()
    assert not engine.server.drained()
    assert line.get(polls).text == COME_BACK
    assert line.ended == "closed"
    assert engine.server.drained()


def test_a_client_that_has_more_to_hear_keeps_its_connection_while_draining(engine: Net) -> None:
    """By then there may be no listener any more that would take a new connection."""
    line, polls = opened(engine)
    engine.server.send(engine.session(), "news", engine.now)
    engine.server.drain(engine.now)
    assert line.post(polls, b"3").text == "ok"
    assert line.get(polls).text == "4news"
    assert line.get(polls).text == COME_BACK
    assert line.ended == "closed"
    assert engine.server.drained()


def test_a_client_between_two_polls_is_told_on_a_new_connection(engine: Net) -> None:
    line, polls = opened(engine)
    line.lose()
    engine.server.drain(engine.now)
    assert not engine.server.drained()
    assert engine.connect().get(polls).text == COME_BACK
    assert engine.server.drained()


def test_draining_does_not_wait_for_a_client_that_said_goodbye(engine: Net) -> None:
    line, polls = opened(engine)
    line.post(polls, "1")
    assert not engine.server.drained()
    engine.server.drain(engine.now)
    engine.settle()
    assert engine.server.drained()


def test_draining_waits_no_longer_for_a_client_that_vanished(engine: Net) -> None:
    line, _ = opened(engine)
    line.lose()
    engine.server.drop(engine.session(), CloseReason.SERVER_DISCONNECT, engine.now)
    engine.server.drain(engine.now)
    engine.wait(DRAIN_PATIENCE / 2)
    assert not engine.server.drained()
    engine.wait(DRAIN_PATIENCE / 2)
    assert engine.server.drained()


@pytest.mark.parametrize("before", [DRAIN_PATIENCE - 1, DRAIN_PATIENCE, 2 * DRAIN_PATIENCE])
def test_its_patience_counts_from_when_the_session_ended(engine: Net, before: float) -> None:
    line, _ = opened(engine)
    line.lose()
    engine.server.drop(engine.session(), CloseReason.SERVER_DISCONNECT, engine.now)
    engine.wait(before)
    engine.server.drain(engine.now)
    engine.wait(max(0.0, DRAIN_PATIENCE - before))
    assert engine.server.drained()


# Bounds -------------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_fetch_its_messages_is_closed_and_still_gets_the_first_of_them(engine: Net) -> None:
    line, polls = opened(engine)
    for number in range(4):
        engine.server.send(engine.session(), f"{number} {'x' * 9_000}", engine.now)
    engine.settle()
    assert reasons(engine) == [CloseReason.OVERFLOW]
    assert [line.get(polls).text[1:2] for _ in range(3)] == ["0", "1", "2"]
    assert line.get(polls).text == COME_BACK


def test_a_waiting_poll_makes_room(engine: Net) -> None:
    line, polls = opened(engine)
    line.request("GET", polls)
    for _ in range(3):
        engine.server.send(engine.session(), "x" * 9_000, engine.now)
    engine.settle()
    assert reasons(engine) == []
    assert [len(line.answered().body), len(line.get(polls).body), len(line.get(polls).body)] == [9001] * 3


# Whose session it is ------------------------------------------------------------------------------------------


def cookies(make: Any, **changes: Any) -> Net:
    return make(EngineIOServer, credential=lambda request: request.header("cookie"), **changes)


A, B = ("Cookie", "session=a"), ("Cookie", "session=b")


def test_the_same_credential_passes(make: Any) -> None:
    net = cookies(make)
    line, polls = opened(net, A)
    assert line.post(polls, "4x", A).text == "ok"
    assert net.taken(CredentialChanged) == []
    assert net.session().credential == "session=a"


def test_another_credential_waits_and_is_refused_without_a_trace(make: Any) -> None:
    net = cookies(make)
    line, polls = opened(net, A)
    line.request("GET", polls, headers=(A,))
    thief = net.connect()
    thief.request("POST", polls, b"4stolen", headers=(B,))
    (event,) = net.taken(CredentialChanged)
    assert (event.connection, event.session, event.request.header("cookie")) == (
        thief.connection, net.session(), "session=b",
    )  # fmt: skip
    assert thief.reply() is None
    net.server.settle(thief.connection, False, net.now)
    net.settle()
    reply = thief.answered()
    assert (reply.status, reply.json) == (403, error(4, "Forbidden"))
    assert net.taken(MessageReceived) == []
    assert line.reply() is None
    assert reasons(net) == []
    net.server.settle(thief.connection, True, net.now)
    net.settle()
    assert thief.reply() is None


@pytest.mark.parametrize("kind", ["poll", "post", "upgrade"])
def test_a_new_cookie_of_the_same_user_is_let_pass(make: Any, helpers: Any, kind: str) -> None:
    net = cookies(make)
    _, polls = opened(net, A)
    line = net.connect()
    if kind == "poll":
        line.request("GET", polls, headers=(B,))
    elif kind == "post":
        line.request("POST", polls, b"4mine", headers=(B, ("Expect", "100-continue")))
    else:
        line.send(helpers.upgrade_request(polls.replace("polling", "websocket"), B))
    assert line.received == b""
    net.server.settle(line.connection, True, net.now)
    net.settle()
    assert net.session().credential == "session=b"
    if kind == "poll":
        net.server.send(net.session(), "x", net.now)
        net.settle()
        assert line.answered().text == "4x"
    elif kind == "post":
        assert b"ok" in line.unread
        assert len(net.taken(MessageReceived)) == 1
    else:
        assert b" 101 " in line.unread


def test_a_request_may_be_lost_while_it_waits(make: Any) -> None:
    net = cookies(make)
    _, polls = opened(net, A)
    line = net.connect()
    line.request("GET", polls)
    line.eof()
    net.server.settle(line.connection, True, net.now)
    net.settle()
    assert line.ended == "closed"
    assert reasons(net) == []


def test_a_session_may_end_while_a_request_for_it_waits(make: Any) -> None:
    net = cookies(make)
    opener, polls = opened(net, A)
    poll, post = net.connect(), net.connect()
    poll.request("GET", polls)
    post.request("POST", polls, b"4x")
    opener.post(polls, "nonsense", A)
    for line in (poll, post):
        net.server.settle(line.connection, True, net.now)
        net.settle()
        assert line.answered().json == error(1, "Session ID unknown")


def test_a_request_that_waits_for_a_decision_is_not_read_from_without_end(make: Any) -> None:
    net = cookies(make, max_payload=1_000_000)
    _, polls = opened(net, A)
    line = net.connect()
    chunk = b"1000\r\n" + b"4" * 4096 + b"\r\n"
    net.server.receive_data(
        line.connection, f"POST {polls} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode(), net.now
    )
    for number in range(20):
        net.server.receive_data(line.connection, chunk, net.now)
        net.settle()
        assert line.paused == (len(chunk) * (number + 1) > 65536)
    (changed,) = net.taken(CredentialChanged)
    net.server.settle(changed.connection, True, net.now)
    net.settle()
    assert not line.paused
    line.send(b"0\r\n\r\n")
    assert line.answered().text == "ok"
    assert [len(message.data) for message in net.taken(MessageReceived)] == [20 * 4096 - 1]


# Origin -------------------------------------------------------------------------------------------------------

OWN, FRIEND, EVIL = (("Origin", f"http://{name}.test") for name in ("server", "friend", "evil"))


def test_another_origin_is_refused_on_every_transport_and_request(
    engine: Net, helpers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert engine.connect().get(POLL, EVIL).json == error(4, "Forbidden")
    assert caplog.messages == [f"Refused a page of '{EVIL[1]}', as this is 'http://server.test'"]
    line = engine.connect()
    line.send(helpers.upgrade_request(WS, EVIL))
    assert line.answered().status == 403
    _, polls = opened(engine, OWN)
    assert engine.connect().get(polls, EVIL).status == 403
    assert engine.connect().post(polls, "4x", EVIL).status == 403
    line = engine.connect()
    line.send(helpers.upgrade_request(polls.replace("polling", "websocket"), EVIL))
    assert line.answered().status == 403
    line.request("OPTIONS", POLL, headers=(EVIL,))
    assert line.answered().status == 403
    assert len(engine.taken(SessionOpened)) == 1
    assert engine.connect().post(polls, "4x", OWN).status == 200


def test_an_allowed_origin_gets_cors_headers(make: Any) -> None:
    net = make(EngineIOServer, allowed_origins=["http://friend.test"])
    for reply in (net.connect().get(POLL, FRIEND), net.connect().get(f"{PATH}?EIO=4", FRIEND)):
        assert reply.headers["access-control-allow-origin"] == "http://friend.test"
        assert reply.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in net.connect().get(POLL, OWN).headers


def test_a_preflight_of_an_allowed_origin_is_answered(make: Any) -> None:
    net = make(EngineIOServer, allowed_origins=["*"])
    line = net.connect()
    line.request("OPTIONS", POLL, headers=(FRIEND, ("Access-Control-Request-Headers", "content-type")))
    reply = line.answered()
    assert reply.status == 204
    assert "content-length" not in reply.headers
    assert reply.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
    assert reply.headers["access-control-allow-headers"] == "content-type"
    assert line.get(POLL, FRIEND).status == 200


def test_a_preflight_needs_no_credential_of_the_session_it_names(make: Any) -> None:
    net = cookies(make, allowed_origins=["http://friend.test"])
    line, polls = opened(net, A, FRIEND)
    line.request("OPTIONS", polls, headers=(FRIEND, ("Access-Control-Request-Headers", "x-mine")))
    assert line.answered().status == 204
    assert net.taken(CredentialChanged) == []


def test_what_is_echoed_of_an_allowed_origin_need_not_be_ascii(make: Any) -> None:
    net = make(EngineIOServer, allowed_origins=["*"])
    line = net.connect()
    assert line.get(POLL, ("Origin", "http://\xe9")).status == 200
    line.request("OPTIONS", POLL, headers=(FRIEND, ("Access-Control-Request-Headers", "\xe9")))
    assert line.answered().status == 204


# Files --------------------------------------------------------------------------------------------------------


def test_a_file_is_served_beside_the_protocol(make: Any) -> None:
    script = StaticFile(b"io()", "application/javascript")
    net = make(EngineIOServer, files={f"{PATH}io.js": script}, allowed_origins=["http://friend.test"])
    line = net.connect()
    reply = line.get(f"{PATH}io.js?v=1", FRIEND)
    assert (reply.status, reply.body) == (200, b"io()")
    assert {name: reply.headers[name] for name in ("content-type", "cache-control", "content-length")} == {
        "content-type": "application/javascript", "cache-control": "public, max-age=0", "content-length": "4",
    }  # fmt: skip
    assert reply.headers["access-control-allow-origin"] == "http://friend.test"
    assert line.get(f"{PATH}io.js", EVIL).status == 200
    line.request("POST", f"{PATH}io.js", b"")
    refused = line.answered()
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert line.get(f"{PATH}other.js").json == error(0, "Transport unknown")
    line.request("HEAD", f"{PATH}io.js")
    assert line.unread.endswith(b"\r\nContent-Length: 4\r\n\r\n")
    assert net.events == []


@pytest.mark.parametrize(
    ("tags", "status"),
    [("{}", 304), ("W/{}", 304), ('"a", {} ,"b"', 304), ("*", 304), ('"a"', 200), ("", 200), ('"a", *', 200)],
)
def test_a_file_that_the_browser_has_is_not_sent_again(make: Any, tags: str, status: int) -> None:
    script = StaticFile(b"io()", "application/javascript")
    line = make(EngineIOServer, files={f"{PATH}io.js": script}).connect()
    reply = line.get(f"{PATH}io.js", ("If-None-Match", tags.format(script.etag)))
    assert (reply.status, reply.headers["etag"]) == (status, script.etag)
    assert reply.body == (b"" if status == 304 else b"io()")
    assert "content-length" in reply.headers or status == 304
    assert script.etag != StaticFile(b"io(1)", "application/javascript").etag
    assert line.get(POLL).status == 200


# Anything -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(30))
def test_whatever_peers_send_nothing_is_raised(make: Any, helpers: Any, start: int) -> None:
    print("seed", start)
    chance = random.Random(start)
    net = make(EngineIOServer, max_payload=300, send_buffer=600)
    echo(net)
    snippets = [
        b"GET ", b"POST ", POLL.encode(), WS.encode(), b"&sid=id1", b"&sid=id2", b" HTTP/1.1\r\n", b"Host: x\r\n",
        b"\r\n", b"Content-Length: 5\r\n", b"4ab\x1e1", b"Transfer-Encoding: chunked\r\n", b"5\r\n4abcd\r\n",
        b"0\r\n\r\n", b"\x81\x01x", helpers.client_frame("2probe"), helpers.client_frame("5"),
        helpers.client_frame("4x"), helpers.client_frame("b!"), helpers.close_frame(1000), b"\xff" * 20,
        f"GET {POLL} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), helpers.upgrade_request(WS),
        f"GET {POLL}&sid=id1 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"POST {POLL}&sid=id1 HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n4ab\x1ebAQ=".encode(),
        helpers.upgrade_request(WS + "&sid=id1"), helpers.upgrade_request(WS + "&sid=id2"),
    ]  # fmt: skip
    lines = [net.connect() for _ in range(4)]
    for _ in range(120):
        line = chance.choice(lines)
        action = chance.random()
        if action < 0.85:
            line.send(chance.choice(snippets))
        elif action < 0.9:
            net.wait(chance.choice([0.1, 6, 21]))
        elif action < 0.95 and line.ended is None:
            line.eof()
        if line.ended is not None or action > 0.97:
            line.lose()
            lines[lines.index(line)] = net.connect()
    for line in lines:
        line.lose()
    net.wait(200)
    assert not net.server._sessions
    assert net.server.next_deadline() is None
    assert len(net.taken(SessionOpened)) == len(net.taken(SessionClosed))
