"""Socket.IO: namespaces, events, acknowledgements, attachments, limits and ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automoderate.protocol import (
    AckReceived,
    AppRequest,
    Client,
    ClientConnecting,
    ClientDisconnected,
    CloseReason,
    CredentialChanged,
    EventReceived,
    SessionClosed,
    SocketIOServer,
)

Net = Any
Line = Any
POLL = "/engine.io/?EIO=4&transport=polling"
WS = "/engine.io/?EIO=4&transport=websocket"


def websocket(net: Net) -> Line:
    line = net.connect()
    line.upgrade(WS)
    line.messages()
    return line


def accepting(net: Net) -> None:
    def react(event: Any) -> None:
        if isinstance(event, ClientConnecting):
            net.server.accept(event.client, net.now)

    net.react = react


def joined(net: Net) -> tuple[Line, Client]:
    accepting(net)
    line = websocket(net)
    line.say("40")
    assert len(line.messages()) == 1
    client = net.taken(ClientConnecting)[-1].client
    assert isinstance(client, Client)
    return line, client


def reasons(net: Net) -> list[CloseReason]:
    return [event.reason for event in net.taken(SessionClosed)]


# Namespaces ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "namespace", "auth", "prefix"),
    [
        ("40", "/", {}, "40"),
        ('40{"token":"1"}', "/", {"token": "1"}, "40"),
        ("40/custom,", "/custom", {}, "40/custom,"),
        ("40/custom", "/custom", {}, "40/custom,"),
        ('40/custom,{"token":"1"}', "/custom", {"token": "1"}, "40/custom,"),
        ("40/custom?a=b,", "/custom?a=b", {}, "40/custom?a=b,"),
    ],
)
def test_a_client_connects_to_a_namespace(sio: Net, packet: str, namespace: str, auth: Any, prefix: str) -> None:
    line = websocket(sio)
    line.say(packet)
    (event,) = sio.taken(ClientConnecting)
    assert (event.client.namespace, event.auth) == (namespace, auth)
    assert line.messages() == []
    for _ in range(2):
        sio.server.accept(event.client, sio.now)
    sio.settle()
    assert line.messages() == [prefix + json.dumps({"sid": event.client.sid}, separators=(",", ":"))]
    assert event.client.sid != event.client.session.sid


def test_a_client_is_refused_and_may_try_again(sio: Net) -> None:
    line = websocket(sio)
    line.say("40/random")
    client = sio.taken(ClientConnecting)[0].client
    sio.server.refuse(client, "Invalid namespace", None, sio.now)
    sio.server.refuse(client, "Invalid namespace", None, sio.now)
    sio.settle()
    assert line.messages() == ['44/random,{"message":"Invalid namespace"}']
    line.say("40/random,")
    sio.server.refuse(sio.taken(ClientConnecting)[1].client, "No", {"code": 1}, sio.now)
    sio.settle()
    assert line.messages() == ['44/random,{"message":"No","data":{"code":1}}']
    assert sio.taken(ClientDisconnected) == []


def test_a_session_that_connects_to_no_namespace_is_closed(sio: Net) -> None:
    line = websocket(sio)
    sio.wait(25)
    line.say("3")
    sio.wait(19.9)
    assert reasons(sio) == []
    sio.wait(0.1)
    assert reasons(sio) == [CloseReason.CONNECT_TIMEOUT]
    assert (line.close_code(), line.ended) == (None, "eof")


def test_a_connected_session_stays(sio: Net) -> None:
    line, _ = joined(sio)
    for _ in range(4):
        sio.wait(25)
        line.say("3")
    assert reasons(sio) == []


def test_a_client_leaves_one_namespace_and_stays_in_another(sio: Net) -> None:
    line, _ = joined(sio)
    line.say("40/custom,", "41/custom,", '42["message"]')
    (event,) = sio.taken(ClientDisconnected)
    assert (event.client.namespace, event.reason) == ("/custom", CloseReason.CLIENT_DISCONNECT)
    assert [event.event for event in sio.taken(EventReceived)] == ["message"]
    line.say("41")
    assert reasons(sio) == []


def test_a_client_may_leave_before_it_was_accepted(sio: Net) -> None:
    line = websocket(sio)
    line.say("40", "41")
    client = sio.taken(ClientConnecting)[0].client
    assert sio.taken(ClientDisconnected)[0].client is client
    sio.server.accept(client, sio.now)
    sio.server.refuse(client, "No", None, sio.now)
    sio.server.disconnect(client, sio.now)
    sio.settle()
    assert line.messages() == []


def test_the_server_disconnects_the_last_client_and_the_session_ends(sio: Net) -> None:
    line, client = joined(sio)
    line.say("40/custom,")
    line.messages()
    custom = sio.taken(ClientConnecting)[-1].client
    sio.server.disconnect(custom, sio.now)
    sio.settle()
    assert line.messages() == ["41/custom,"]
    assert reasons(sio) == []
    sio.server.disconnect(client, sio.now)
    sio.settle()
    assert line.messages() == ["41"]
    assert line.close_code() == 1000
    assert reasons(sio) == [CloseReason.SERVER_DISCONNECT]
    assert [event.reason for event in sio.taken(ClientDisconnected)] == [CloseReason.SERVER_DISCONNECT] * 2


def test_the_server_disconnects_a_client_it_has_not_accepted(sio: Net) -> None:
    line = websocket(sio)
    line.say("40")
    sio.server.disconnect(sio.taken(ClientConnecting)[0].client, sio.now)
    sio.settle()
    assert line.messages() == []
    assert line.close_code() == 1000


def test_a_polling_client_reads_that_it_was_disconnected_before_the_end(sio: Net) -> None:
    accepting(sio)
    line = sio.connect()
    polls = f"{POLL}&sid={json.loads(line.get(POLL).text[1:])['sid']}"
    line.post(polls, "40")
    assert line.get(polls).text.startswith("40{")
    sio.server.disconnect(sio.taken(ClientConnecting)[0].client, sio.now)
    sio.settle()
    assert line.get(polls).text == "41"
    assert line.get(polls).text == "1"


def test_a_lost_connection_disconnects_every_client(sio: Net) -> None:
    line, client = joined(sio)
    line.say("40/custom,")
    line.lose()
    assert [type(event) for event in sio.events[-3:]] == [ClientDisconnected, ClientDisconnected, SessionClosed]
    assert {event.reason for event in sio.taken(ClientDisconnected)} == {CloseReason.TRANSPORT_CLOSE}
    calls: list[Callable[[], object]] = [
        lambda: sio.server.emit(client, "x", now=sio.now, ack_id=1),
        lambda: sio.server.acknowledge(client, 1, [], sio.now),
        lambda: sio.server.send_encoded(client, sio.server.encode("x", []), sio.now),
        lambda: sio.server.disconnect(client, sio.now),
        lambda: sio.server.drop(client.session, CloseReason.SERVER_CLOSE, sio.now),
    ]
    for call in calls:
        call()
    sio.settle()
    assert sio.server.wire_connection(client.session) is None
    assert reasons(sio) == [CloseReason.TRANSPORT_CLOSE]


def test_the_server_closes_a_session(sio: Net) -> None:
    line, client = joined(sio)
    assert sio.server.wire_connection(client.session) is line.connection
    sio.server.drop(client.session, CloseReason.SERVER_CLOSE, sio.now)
    sio.settle()
    assert line.messages() == []
    assert (line.close_code(), line.ended) == (None, "eof")
    assert reasons(sio) == [CloseReason.SERVER_CLOSE]


# Events -------------------------------------------------------------------------------------------------------


def test_events_travel_both_ways(sio: Net) -> None:
    line, client = joined(sio)
    line.say('42["message",1,"2",{"3":[true,null,1.5]}]', '42456["é"]', "42[7]")
    first, second, third = sio.taken(EventReceived)
    assert (first.event, first.args, first.ack_id) == ("message", (1, "2", {"3": [True, None, 1.5]}), None)
    assert (second.event, second.args, second.ack_id, second.client) == ("é", (), 456, client)
    assert third.event == "7"
    sio.server.emit(client, "back", 1, "ü", {"a": None}, now=sio.now)
    sio.settle()
    assert line.messages() == ['42["back",1,"ü",{"a":null}]']


def test_an_event_is_acknowledged(sio: Net) -> None:
    line, client = joined(sio)
    line.say('42456["message-with-ack",1]')
    sio.server.acknowledge(client, 456, [1, "2"], sio.now)
    sio.settle()
    assert line.messages() == ['43456[1,"2"]']


def test_the_client_acknowledges_what_it_was_asked_to_and_once(sio: Net) -> None:
    line, client = joined(sio)
    sio.server.emit(client, "question", now=sio.now, ack_id=7)
    sio.settle()
    assert line.messages() == ['427["question"]']
    line.say('438["unknown"]', '437["answer"]', '437["again"]')
    assert sio.taken(AckReceived) == [AckReceived(client, 7, ("answer",))]
    assert reasons(sio) == []


def test_binary_travels_both_ways(sio: Net) -> None:
    line, client = joined(sio)
    line.say(
        '452-9["m",{"_placeholder":true,"num":1},[{"_placeholder":true,"num":0}]]', b"\x01", b"\x02", '42["after"]'
    )
    assert [(event.event, event.args) for event in sio.taken(EventReceived)] == [
        ("m", (b"\x02", [b"\x01"])), ("after", ()),
    ]  # fmt: skip
    sio.server.emit(client, "m", {"a": b"\x01"}, now=sio.now)
    sio.server.acknowledge(client, 9, [b"\x02"], sio.now)
    sio.settle()
    assert line.messages() == [
        '451-["m",{"a":{"_placeholder":true,"num":0}}]', b"\x01", '461-9[{"_placeholder":true,"num":0}]', b"\x02",
    ]  # fmt: skip
    sio.server.emit(client, "q", now=sio.now, ack_id=3)
    line.say('461-3[{"_placeholder":true,"num":0}]', b"\x05")
    assert sio.taken(AckReceived)[0].args == (b"\x05",)


def test_binary_travels_over_polling(sio: Net) -> None:
    accepting(sio)
    line = sio.connect()
    polls = f"{POLL}&sid={json.loads(line.get(POLL).text[1:])['sid']}"
    line.post(polls, "40")
    line.post(polls, '451-["m",{"_placeholder":true,"num":0}]\x1ebAQI=')
    assert sio.taken(EventReceived)[0].args == (b"\x01\x02",)


def test_an_event_is_encoded_once_for_many(sio: Net) -> None:
    line, client = joined(sio)
    encoded = sio.server.encode("update", [{"a": 1}])
    assert encoded.packet == '42["update",{"a":1}]'
    assert encoded.frame.endswith(encoded.packet.encode())
    assert sio.server.encode("x", [], "/custom").packet == '42/custom,["x"]'
    before = line.writes
    for _ in range(3):
        sio.server.send_encoded(client, encoded, sio.now)
    sio.settle()
    assert line.writes == before + 1
    assert line.messages() == [encoded.packet] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_an_error_of_the_caller(sio: Net, value: float) -> None:
    line, client = joined(sio)
    endless: list[Any] = []
    endless.append(endless)
    calls: list[Callable[[], object]] = [
        lambda: sio.server.emit(client, "x", value, now=sio.now),
        lambda: sio.server.encode("x", [value]),
        lambda: sio.server.encode("x", [endless]),
        lambda: sio.server.emit(client, "x", endless, now=sio.now),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"JSON|float|Circular|nested"):
            call()
    with pytest.raises(TypeError):
        sio.server.encode("x", [object()])
    sio.settle()
    assert line.messages() == []


def test_half_a_surrogate_pair_survives(sio: Net) -> None:
    line, client = joined(sio)
    line.say('42["x","\\ud800"]')
    (event,) = sio.taken(EventReceived)
    sio.server.emit(client, "x", *event.args, now=sio.now)
    sio.settle()
    assert line.messages() == ['42["x","\\ud800"]']


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e999", float("inf")), ("-1e400", float("-inf")), ("9" * 5000, float("inf")), ("1.0", 1), ("-0", 0),
        ("1e2", 100), ("9007199254740993", 2**53), ("1.5", 1.5), ("1e21", 1e21), ("123456789012345", 123456789012345),
    ],
)  # fmt: skip
def test_numbers_are_read_as_javascript_does(sio: Net, text: str, value: float) -> None:
    line, _ = joined(sio)
    line.say(f'42["x",{text}]')
    (number,) = sio.taken(EventReceived)[0].args
    assert (number, type(number)) == (value, type(value))


def test_what_came_before_a_close_frame_is_answered_before_it(sio: Net, helpers: Any) -> None:
    line, client = joined(sio)
    inner = sio.react

    def react(event: Any) -> None:
        inner(event)
        if isinstance(event, EventReceived):
            sio.server.emit(client, "back", now=sio.now)

    sio.react = react
    line.send(helpers.client_frame('42["x"]') + helpers.client_frame('42["y"]') + helpers.close_frame(1000))
    assert line.messages() == ['42["back"]'] * 2
    assert line.close_code() == 1000
    assert line.ended == "closed"
    assert reasons(sio) == [CloseReason.TRANSPORT_CLOSE]


# What breaks the protocol -------------------------------------------------------------------------------------


BROKEN: dict[str, list[str | bytes]] = {
    "unknown type": ["4abc"],
    "no type": ["4"],
    "type of another alphabet": ["4\u0662[]"],
    "no json": ['42["x"'],
    "object for an event": ["42{}"],
    "no event name": ["42[]"],
    "boolean event name": ["42[true]"],
    "reserved event name": ['42["disconnect"]'],
    "ack id no number": ['42abc["x"]'],
    "ack id too large": [f'42{2**53}["x"]'],
    "ack id absurd": ["42" + "9" * 5000 + '["x"]'],
    "nan": ['42["x",NaN]'],
    "infinity": ['42["x",-Infinity]'],
    "too deep": ['42["x",' + "[" * 65 + "]" * 65 + "]"],
    "far too deep": ["42" + "[" * 4900 + "]" * 4900],
    "ack without array": ["431{}"],
    "connect twice": ["40"],
    "connect with a list": ["40/other,[1]"],
    "connect error": ['44{"message":"x"}'],
    "disconnect with a payload": ["41{}"],
    "namespace not connected": ['42/other,["x"]'],
    "attachment out of the blue": [b"x"],
    "attachments to a plain event": ['421-["x"]'],
    "text where an attachment belongs": ['451-["x",{"_placeholder":true,"num":0}]', '42["y"]'],
    "too many attachments": ['4565-["x"]', '4565-["x"]', b"", b""],
    "very many attachments": ['45999999999-["x"]', b"", b""],
    "absurdly many attachments": ['4599999999999-["x"]'],
    "placeholder out of range": ['451-["x",{"_placeholder":true,"num":5}]', b"x"],
    "placeholder no number": ['451-["x",{"_placeholder":true,"num":"0"}]', b"x"],
    "attachments too large": ['452-["x",{"_placeholder":true,"num":0}]', b"x" * 6000, b"x" * 6000],
    "not accepted yet": ["40/slow,", '42/slow,["x"]'],
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_client_that_breaks_the_protocol_is_closed(sio: Net, case: str) -> None:
    line, _ = joined(sio)
    sio.react = None
    line.say('42["before"]', *BROKEN[case], '42["after"]')
    assert [event.event for event in sio.taken(EventReceived)] == ["before"]
    assert reasons(sio) == [CloseReason.PARSE_ERROR]
    assert line.close_code() == 1005


def test_nesting_within_the_limit_is_fine(sio: Net) -> None:
    line, client = joined(sio)
    nested = "[" * 63 + "]" * 63
    line.say(f'42["x",{nested}]', '42["y",' + "[]," * 100 + "{}]")
    assert len(sio.taken(EventReceived)) == 2
    for event in sio.taken(EventReceived):
        sio.server.emit(client, event.event, *event.args, now=sio.now)
    sio.settle()
    assert line.messages()[0] == f'42["x",{nested}]'


def test_namespaces_are_bounded(sio: Net) -> None:
    line, _ = joined(sio)
    line.say(*(f"40/{number}," for number in range(64)))
    assert len(sio.taken(ClientConnecting)) == 64
    assert reasons(sio) == [CloseReason.PARSE_ERROR]


def test_nothing_is_read_behind_a_broken_packet_in_one_post(sio: Net) -> None:
    accepting(sio)
    line = sio.connect()
    polls = f"{POLL}&sid={json.loads(line.get(POLL).text[1:])['sid']}"
    line.post(polls, "40")
    line.post(polls, '42["before"]\x1e42{}\x1e42["after"]\x1e40/other,')
    assert [event.event for event in sio.taken(EventReceived)] == ["before"]
    assert len(sio.taken(ClientConnecting)) == 1


def test_a_client_that_does_not_fetch_is_closed_while_it_is_told(sio: Net) -> None:
    accepting(sio)
    line = sio.connect()
    polls = f"{POLL}&sid={json.loads(line.get(POLL).text[1:])['sid']}"
    line.post(polls, "40")
    client = sio.taken(ClientConnecting)[0].client
    sio.server.emit(client, "x", *[b"x" * 9000] * 4, now=sio.now)
    sio.settle()
    assert reasons(sio) == [CloseReason.OVERFLOW]
    assert len(sio.taken(ClientDisconnected)) == 1


# The rest of the driver ---------------------------------------------------------------------------------------


def test_the_application_is_served(sio: Net) -> None:
    line = sio.connect()
    line.request("GET", "/page")
    assert sio.taken(AppRequest)
    sio.server.respond(line.connection, 200, "OK", [("Content-Length", "2")], sio.now)
    sio.server.respond_body(line.connection, b"hi", sio.now)
    sio.server.respond_end(line.connection, sio.now)
    sio.settle()
    assert line.answered().text == "hi"
    line.eof()
    assert line.ended == "closed"


def test_ownership_is_asked_for(make: Any) -> None:
    net = make(SocketIOServer, credential=lambda request: request.header("cookie"))
    line = net.connect()
    polls = f"{POLL}&sid={json.loads(line.get(POLL).text[1:])['sid']}"
    line.request("POST", polls, b"40", headers=(("Cookie", "x"),))
    assert net.taken(ClientConnecting) == []
    net.server.settle(net.taken(CredentialChanged)[0].connection, True, net.now)
    net.settle()
    assert len(net.taken(ClientConnecting)) == 1


def test_draining_ends_every_session(sio: Net) -> None:
    line, _ = joined(sio)
    assert not sio.server.drained()
    sio.server.drain(sio.now)
    sio.settle()
    assert reasons(sio) == [CloseReason.SERVER_CLOSE]
    assert not sio.server.drained()
    line.eof()
    assert sio.server.drained()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def placeholder_free(value: Any) -> bool:
    if isinstance(value, dict):
        return "_placeholder" not in value and all(map(placeholder_free, value.values()))
    return not isinstance(value, list) or all(map(placeholder_free, value))


@settings(
    print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
@given(st.lists(JSON.filter(placeholder_free), max_size=3))
def test_what_one_side_says_the_other_can_say_back(make: Any, args: list[Any]) -> None:
    net = make(SocketIOServer, max_payload=1_000_000)
    line, client = joined(net)
    net.server.emit(client, "x", *args, now=net.now)
    net.settle()
    said = line.messages()
    line.say(*said)
    (event,) = net.taken(EventReceived)
    assert list(event.args) == args
    net.server.emit(client, "x", *event.args, now=net.now)
    net.settle()
    assert line.messages() == said


@settings(
    print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)
@given(st.lists(st.text(st.characters(codec="utf-8")) | st.binary(max_size=20), max_size=5))
def test_no_message_raises(make: Any, messages: list[str | bytes]) -> None:
    net = make(SocketIOServer)
    line, _ = joined(net)
    line.say(*(f"4{message}" if isinstance(message, str) else message for message in messages))
    line.lose()
    assert len(net.taken(SessionClosed)) == 1
    assert len(net.taken(ClientDisconnected)) >= 1
