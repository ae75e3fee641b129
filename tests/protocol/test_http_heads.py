"""A head that is plain means to us what it means to h11, and whatever h11 would refuse is not plain."""

from __future__ import annotations

import random
import re

import h11
import pytest

from automoderate.protocol import Config, Peer
from automoderate.protocol.http_heads import keeps_alive, plain_head, read_head
from automoderate.protocol.model import Request
from kits.hostile import CASES, WS, get, upgrade

PEER = Peer("192.0.2.1", 50000)
CONFIG = Config()

PLAIN = {
    "a poll": get(),
    "an upgrade": upgrade(),
    "an upgrade by Firefox": get(WS, "Connection: keep-alive, Upgrade", "Upgrade: websocket"),
    "a POST": get("/api/projects/p/events", "X-API-Key: am_1", "Content-Length: 17", method="POST"),
    "two cookies": get("/", "Cookie: a=1", "Cookie: b=2"),
    "tabs and blanks around a value, Latin-1 in it": get("/", "X-Said: \t\xe9 \t l\xe0\t "),
    "a value of nothing": get("/", "X-Said:"),
    "any method": get("/", method="PURGE"),
    "an absolute target": get("http://server.test/a?b=c"),
}

OTHER = {
    "HTTP/1.0": get(version="1.0"),
    "the last request": get("/", "Connection: Keep-Alive, Close"),
    "chunks": get("/", "Transfer-Encoding: chunked", method="POST"),
    "who asks first": get("/", "Expect: 100-continue", "Content-Length: 3", method="POST"),
    "sizes": get("/", "Content-Length: 3", "Content-Length: 3", method="POST"),
    "a list of sizes": get("/", "Content-Length: 3, 3", method="POST"),
    "a size in other digits": get("/", "Content-Length: \xb2", method="POST"),
    "a tunnel": get("server.test:80", method="CONNECT"),
    "no host": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "no headers": b"GET / HTTP/1.1\r\n\r\n",
    "hosts": get("/", "Host: b.test"),
    "a value on two lines": b"GET / HTTP/1.1\r\nHost: a\r\nX-Said: b\r\n c\r\n\r\n",
    "lines that end as in Unix": b"GET / HTTP/1.1\nHost: a\n\n",
    "a control character": get("/", "X-Said: \x01"),
}


def by_us(head: bytes) -> Request | int | None:
    """The request, or the status that it is refused with; None where the head is not plain."""
    try:
        return plain_head(head, PEER, CONFIG)
    except h11.RemoteProtocolError as error:
        return error.error_status_hint


def by_h11(head: bytes) -> Request | int:
    """The request that h11 reads, with a body of the size it says and a connection that goes on, or a status."""
    parser = h11.Connection(h11.SERVER, 16 * 1024)
    parser.receive_data(head)
    try:
        event = parser.next_event()
        assert isinstance(event, h11.Request), event
        request = read_head(event, PEER, CONFIG)
        assert not parser.they_are_waiting_for_100_continue
        if 0 < request.content_length < 10_000:
            parser.receive_data(b"x" * request.content_length)
            assert isinstance(parser.next_event(), h11.Data)
    except h11.RemoteProtocolError as error:
        return error.error_status_hint
    if request.content_length < 10_000:
        assert isinstance(parser.next_event(), h11.EndOfMessage)
        assert parser.their_state not in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
    return request


def assert_that_both_agree(head: bytes) -> bool:
    """Whether it is plain."""
    plain = by_us(head)
    if plain is None:
        return False
    other = by_h11(head)
    assert plain == other
    if isinstance(plain, int) or isinstance(other, int):
        return True
    assert plain.query == other.query
    assert {name: plain.header(name) for name, _ in plain.headers} == {
        name: other.header(name) for name, _ in other.headers
    }
    assert keeps_alive(plain)
    return True


@pytest.mark.parametrize("head", PLAIN.values(), ids=PLAIN)
def test_what_nearly_all_clients_send_is_plain(head: bytes) -> None:
    assert assert_that_both_agree(head)


@pytest.mark.parametrize("head", OTHER.values(), ids=OTHER)
def test_whatever_is_unusual_is_not(head: bytes) -> None:
    assert not assert_that_both_agree(head)


def test_both_refuse_the_same() -> None:
    assert assert_that_both_agree(get("/", "Cookie: " + ";" * 500))
    assert assert_that_both_agree(get("/socket.io/?" + "&" * 100))


@pytest.mark.parametrize("query", ["a=b&c", "a=1&a=2", "&&=x&a==b=", "a+b=c%20d&%61=1", ""])
def test_both_read_a_query_as_the_standard_library_does(query: str) -> None:
    assert assert_that_both_agree(get(f"/?{query}"))


def test_what_becomes_of_heads_by_chance_means_the_same_to_both(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    heads = [re.split(rb"(?<=\r\n\r\n)", case.data)[0] for case in CASES if b"\r\n\r\n" in case.data]
    heads += [*PLAIN.values(), *OTHER.values()]
    pieces = [
        b"\r\n", b"\n", b" ", b"\t", b":", b",", b"\0", b"\x0b", b"\x7f", b"\xff", b"/", b"HTTP/1.1", b"HTTP/1.0",
        b"Host: b\r\n", b"Content-Length: 1\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n",
        b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n",
    ]  # fmt: skip
    plain = 0
    for _ in range(4000):
        head = bytearray(chance.choice(heads))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(head))
            until = at + chance.choice([0, 0, 1, 2, 8])
            head[at:until] = chance.choice([b"", *pieces, bytes(head[chance.randrange(len(head)) :][:8])])
        end = re.search(rb"\n\r?\n", head)
        if end is not None:
            plain += assert_that_both_agree(bytes(head[: end.end()]))
    assert plain > 100
