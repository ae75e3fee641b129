"""HTTP on the wire, seen through application requests, which say nothing of their own."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from automoderate.protocol import (
    AppBody,
    AppRequest,
    AppRequestAborted,
    AppRequestEnd,
    EngineIOServer,
)
from automoderate.protocol.error_pages import ErrorPage

Net = Any
PLAIN = [("Content-Type", "text/plain")]


def serve(net: Net, *, status: int = 200, headers: Any = (), body: bytes = b"hello") -> None:
    """Answer every application request as soon as it is complete."""

    def react(event: Any) -> None:
        if isinstance(event, AppRequestEnd):
            net.server.respond(event.connection, status, "Fine", [*PLAIN, *headers], net.now)
            net.server.respond_body(event.connection, body, net.now)
            net.server.respond_end(event.connection, net.now)

    net.react = react


def kinds(net: Net) -> list[type[Any]]:
    return [type(event) for event in net.events]


def test_a_request_goes_to_the_application_and_its_answer_back(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    reply = line.get("/a%20b/?q=1&q=2&empty=", ("X-Two", "1"), ("X-Two", "2"))
    assert (reply.status, reply.text, reply.headers["content-type"]) == (200, "hello", "text/plain")
    request = engine.taken(AppRequest)[0].request
    assert (request.method, request.target) == ("GET", "/a%20b/?q=1&q=2&empty=")
    assert (request.path, request.query_string) == ("/a b/", "q=1&q=2&empty=")
    assert request.query == {"q": "2", "empty": ""}
    assert request.header("x-two") == "1, 2"
    assert request.header("x-three") is None
    assert (request.http_version, request.client_address, request.scheme, request.host) == (
        "1.1", "192.0.2.1", "http", "server.test",
    )  # fmt: skip


def test_cookies_in_several_headers_are_one_list_of_cookies(engine: Net) -> None:
    engine.connect().request("GET", "/", headers=(("Cookie", "theme=dark"), ("Cookie", "session=a")))
    assert engine.taken(AppRequest)[0].request.header("cookie") == "theme=dark; session=a"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://server.test/x?y=1", "/x", "y=1"),
        ("http://server.test", "/", ""),
        ("*", "*", ""),
        ("http://[", "http://[", ""),
    ],
)
def test_unusual_targets_are_understood(engine: Net, target: str, path: str, query: str) -> None:
    serve(engine)
    engine.connect().get(target)
    request = engine.taken(AppRequest)[0].request
    assert (request.path, request.query_string) == (path, query)


def test_the_connection_serves_several_requests(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    assert [line.get("/").text, line.post("/", "x").text, line.get("/").text] == ["hello"] * 3
    assert not line.ended


def test_pipelined_requests_are_answered_in_order(engine: Net) -> None:
    line = engine.connect()
    line.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert kinds(engine) == [AppRequest, AppRequestEnd]
    engine.server.respond(line.connection, 200, "OK", [("Content-Length", "0")], engine.now)
    engine.server.respond_end(line.connection, engine.now)
    engine.settle()
    assert [event.request.path for event in engine.taken(AppRequest)] == ["/1", "/2"]


def test_empty_lines_between_requests_are_none(engine: Net) -> None:
    """They begin no request, that would be waited for, and are taken out of none that has begun (RFC 9112, 2.2)."""
    line = engine.connect()
    line.send(b"\r\nGET /1 HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\nGET /2 HTTP/1.1")
    serve(engine)
    engine.server.respond(line.connection, 200, "OK", [("Content-Length", "0")], engine.now)
    engine.server.respond_end(line.connection, engine.now)
    engine.settle()
    for piece in (b"\r\n", b"Host: x", b"\r\n", b"\r\n", b"\r", b"\n"):
        line.send(piece)
    assert [event.request.path for event in engine.taken(AppRequest)] == ["/1", "/2"]
    engine.wait(engine.server.config.header_timeout + 1)
    assert not line.ended
    line.send(b"GET /3 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert engine.taken(AppRequest)[-1].request.path == "/3"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("version", "headers", "goes_on"), [("1.1", (), True), ("1.1", ("Connection: close",), False), ("1.0", (), False)]
)
def test_a_whole_answer_is_one_write_and_the_connection_goes_on_as_with_any(
    engine: Net, method: str, version: str, headers: tuple[str, ...], goes_on: bool
) -> None:
    def react(event: Any) -> None:
        if isinstance(event, AppRequestEnd):
            engine.server.reply(event.connection, 202, b"hello", [("X-Name", "\xfc")], engine.now)

    engine.react = react
    line = engine.connect()
    lines = [f"{method} / HTTP/{version}", "Host: x", *headers]
    for _ in range(2 if goes_on else 1):
        line.received.clear()
        line.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        end = "" if goes_on else "Connection: close\r\n"
        body = "" if method == "HEAD" else "hello"
        expected = f"HTTP/1.1 202 Accepted\r\nX-Name: \xfc\r\nContent-Length: 5\r\n{end}\r\n{body}"
        assert bytes(line.received) == expected.encode("latin-1")
    assert bool(line.ended) is not goes_on


def test_a_whole_answer_to_nothing_is_ignored(engine: Net) -> None:
    line = engine.connect()
    engine.server.reply(line.connection, 202, b"hello", [], engine.now)
    engine.settle()
    assert (bytes(line.received), line.ended) == (b"", None)


def test_pipelining_is_bounded(engine: Net) -> None:
    line = engine.connect()
    line.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
    request = b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(70 * 1024 // len(request)):
        engine.server.receive_data(line.connection, request, engine.now)
    engine.settle()
    assert line.ended == "aborted"
    assert kinds(engine)[-1] is AppRequestAborted


def test_a_body_is_streamed_to_the_application(engine: Net) -> None:
    serve(engine)
    engine.connect().post("/", b"a" * 30_000)
    assert b"".join(event.data for event in engine.taken(AppBody)) == b"a" * 30_000
    assert kinds(engine)[-1] is AppRequestEnd


def test_a_chunked_body_is_streamed_too(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert line.answered().status == 200
    assert b"".join(event.data for event in engine.taken(AppBody)) == b"abcde"


def test_a_client_that_asks_is_told_to_go_on(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert bytes(line.unread).startswith(b"HTTP/1.1 100 ")
    line.send(b"ab")
    assert line.answered().status == 200


def test_head_is_answered_without_a_body(engine: Net) -> None:
    serve(engine, headers=[("Content-Length", "5")])
    line = engine.connect()
    line.request("HEAD", "/")
    assert bytes(line.unread).endswith(b"\r\n\r\n")
    assert b"ontent-Length: 5" in line.unread


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_get_none(engine: Net, status: int) -> None:
    serve(engine, status=status)
    line = engine.connect()
    assert line.get("/").body == b""
    assert line.get("/").status == status


def test_an_answer_of_unknown_length_is_chunked(engine: Net) -> None:
    line = engine.connect()
    line.request("GET", "/")
    engine.server.respond(line.connection, 200, "OK", [], engine.now)
    engine.settle()
    assert b"ransfer-Encoding: chunked" in line.unread
    for piece in (b"one", b"", b"two"):
        engine.server.respond_body(line.connection, piece, engine.now)
        engine.settle()
    assert line.reply() is None
    engine.server.respond_end(line.connection, engine.now)
    engine.settle()
    assert line.answered().body == b"onetwo"


def test_http_1_0_is_answered_and_closed(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    line.send(b"GET / HTTP/1.0\r\n\r\n")
    assert line.ended == "closed"
    assert line.answered().text == "hello"


def test_connection_close_closes(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    assert line.get("/", ("Connection", "close")).status == 200
    assert line.ended == "closed"


def test_headers_of_the_connection_are_not_the_applications(engine: Net) -> None:
    serve(engine, headers=[("Connection", "close"), ("Transfer-Encoding", "gzip"), ("Upgrade", "h2c")])
    line = engine.connect()
    reply = line.get("/")
    assert "upgrade" not in reply.headers
    assert reply.headers["transfer-encoding"] == "chunked"
    assert not line.ended


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [("Bad\nName", "x")]),
        (200, [("X", "é\u20ac")]),
        (99, []),
        (200, [("X", "a\nb")]),
        (200, [("Content-Length", "1"), ("Content-Length", "2")]),
    ],
)
def test_an_answer_that_is_no_http_becomes_an_error_answer(
    engine: Net, status: int, headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    serve(engine, status=status, headers=headers)
    line = engine.connect()
    assert line.get("/").status == 500
    assert "no valid HTTP" in caplog.text
    assert not line.ended


def test_the_log_does_not_quote_a_header_that_is_no_http(engine: Net, caplog: pytest.LogCaptureFixture) -> None:
    serve(engine, headers=[("Set-Cookie", "session=se\ncret")])
    assert engine.connect().get("/").status == 500
    (record,) = caplog.records
    assert record.getMessage() == "The application's answer is no valid HTTP: Illegal header value"


def test_an_applications_headers_are_latin_1(engine: Net) -> None:
    serve(engine, headers=[("X-Place", "caf\xe9")])
    line = engine.connect()
    line.request("GET", "/")
    assert b"\r\nX-Place: caf\xe9\r\n" in line.unread
    assert line.answered().status == 200


@pytest.mark.parametrize("length", ["3", "9"])
def test_an_answer_of_another_length_than_it_says_is_cut(
    engine: Net, length: str, caplog: pytest.LogCaptureFixture
) -> None:
    serve(engine, headers=[("Content-Length", length)])
    line = engine.connect()
    line.request("GET", "/")
    assert line.ended == "aborted"
    assert "does not fit" in caplog.text


def test_answers_nobody_waits_for_are_ignored(engine: Net) -> None:
    line = engine.connect()
    for _ in range(2):
        engine.server.respond(line.connection, 200, "OK", [], engine.now)
        engine.server.respond_body(line.connection, b"x", engine.now)
        engine.server.respond_end(line.connection, engine.now)
        engine.settle()
        assert line.received == b""
        line.lose()


def test_an_answer_is_started_once(engine: Net) -> None:
    line = engine.connect()
    line.request("GET", "/")
    engine.server.respond(line.connection, 200, "OK", [("Content-Length", "0")], engine.now)
    engine.server.respond(line.connection, 500, "Oops", [], engine.now)
    engine.server.respond_end(line.connection, engine.now)
    engine.settle()
    assert line.answered().status == 200


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_an_early_answer_ends_the_connection_after_the_rest_of_the_body(engine: Net, more: bytes) -> None:
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + more + b"Content-Length: 10\r\n\r\nabc")
    engine.server.respond(line.connection, 403, "No", [("Content-Length", "0")], engine.now)
    engine.server.respond_end(line.connection, engine.now)
    engine.settle()
    assert line.answered().headers["connection"] == "close"
    line.send(b"defghij")
    assert not line.ended
    line.eof()
    assert line.ended == "closed"
    assert AppRequestAborted not in kinds(engine)


# What peers do wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),
    ],
)
def test_broken_requests_are_answered_and_the_connection_ends(engine: Net, data: bytes, status: int) -> None:
    line = engine.connect()
    line.send(data + b"trailing")
    reply = line.answered()
    assert reply.status == status
    line.eof()
    assert line.ended == "closed"


def test_a_request_of_two_lengths_is_refused_with_all_that_follows(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    line.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    reply = line.answered()
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    line.eof()
    assert line.ended == "closed"
    assert engine.taken(AppRequest) == []


def test_a_broken_body_aborts_the_request(engine: Net) -> None:
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert kinds(engine) == [AppRequest, AppRequestAborted]


def test_a_body_that_breaks_under_the_answer_cuts_it(engine: Net) -> None:
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    engine.server.respond(line.connection, 200, "OK", [], engine.now)
    line.send(b"zz\r\n")
    assert line.ended == "aborted"


def test_a_body_announced_too_large_is_refused(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    net = make(EngineIOServer, max_request_body=100)
    line = net.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n")
    assert line.answered().status == 413
    assert "Refused POST '/' from 192.0.2.1: its body is larger than 100 bytes" in caplog.text
    assert net.events == []
    line.send(b"x" * 101)
    assert not line.ended
    net.wait(5)
    assert line.ended == "closed"


def test_a_body_that_becomes_too_large_is_refused(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    net = make(EngineIOServer, max_request_body=100)
    line = net.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    line.send(b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n")
    assert line.answered().status == 413
    assert caplog.text.count("Refused POST '/' from 192.0.2.1: its body is larger than 100 bytes") == 1
    assert sum(len(event.data) for event in net.taken(AppBody)) <= 100
    assert kinds(net)[-1] is AppRequestAborted


PAGE = ErrorPage(b"<a href=''>Try again</a>", b"<p>Go back", (("Content-Type", "text/html"), ("X-Own", "1")))
BROWSER = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")


def test_a_person_is_refused_with_a_page(make: Any) -> None:
    """A browser that goes to an address asks for HTML; what a page loads, and programs, are told as ever."""
    net = make(EngineIOServer, max_request_body=100, error_pages={413: PAGE, 408: PAGE, 500: PAGE})

    def announced(method: str, *accepted: tuple[str, str]) -> Any:
        line = net.connect()
        line.request(method, "/", headers=(*accepted, ("Content-Length", "101")))
        return line.answered()

    answer = announced("POST", BROWSER)
    assert (answer.status, answer.text, answer.headers["x-own"]) == (413, "<p>Go back", "1")
    assert announced("GET", BROWSER).text == "<a href=''>Try again</a>"
    for accepted in ((), (("Accept", "*/*"),), (("Accept", "image/avif,*/*;q=0.8"),)):
        answer = announced("POST", *accepted)
        assert answer.headers["content-type"] == "text/plain"
        assert answer.text.endswith(" Too Large\n")
    slow = net.connect()
    slow.send(b"POST / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nContent-Length: 5\r\n\r\n")
    net.wait(60)
    answer = slow.answered()
    assert (answer.status, answer.text) == (408, "<p>Go back")
    serve(net, headers=[("no header", "")])
    assert net.connect().get("/", BROWSER).headers["content-type"] == "text/html"


def test_a_small_unwanted_body_does_not_cost_the_connection(engine: Net) -> None:
    line = engine.connect()
    reply = line.post("/engine.io/?EIO=4&transport=polling", "")
    assert reply.status == 400
    assert not line.ended


# Time ---------------------------------------------------------------------------------------------------------


def test_a_silent_connection_is_closed(engine: Net) -> None:
    line = engine.connect()
    engine.wait(19)
    assert not line.ended
    engine.wait(1)
    assert line.ended == "closed"
    assert line.received == b""


def test_a_slow_request_head_is_answered_with_408(engine: Net) -> None:
    line = engine.connect()
    for _ in range(30):
        engine.server.receive_data(line.connection, b"G", engine.now)
        engine.wait(0.9)
    assert line.answered().status == 408


def test_a_slow_upload_is_answered_with_408(engine: Net) -> None:
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(30):
        engine.server.receive_data(line.connection, b"x", engine.now)
        engine.wait(0.9)
    assert line.answered().status == 408
    assert engine.taken(AppRequestAborted)


def test_a_steady_upload_may_take_its_time(engine: Net) -> None:
    serve(engine)
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 204800\r\n\r\n")
    for _ in range(100):
        engine.server.receive_data(line.connection, b"x" * 2048, engine.now)
        engine.settle()
        engine.wait(1)
    assert line.answered().status == 200


def test_an_application_may_take_its_time(engine: Net) -> None:
    line = engine.connect()
    line.request("GET", "/")
    engine.wait(1000)
    assert not line.ended


@pytest.mark.parametrize(("settings", "idle"), [({}, 75), ({"keep_alive": 600}, 600)])
def test_an_idle_connection_is_closed_after_a_while(make: Any, settings: dict[str, Any], idle: float) -> None:
    net = make(EngineIOServer, **settings)
    serve(net)
    line = net.connect()
    line.get("/")
    net.wait(idle - 1)
    assert line.get("/").status == 200
    net.wait(idle - 1)
    assert not line.ended
    net.wait(1)
    assert line.ended == "closed"


# Ends ---------------------------------------------------------------------------------------------------------


def test_the_application_hears_of_a_lost_connection(engine: Net) -> None:
    line = engine.connect()
    line.request("GET", "/")
    line.lose()
    line.lose()
    assert kinds(engine) == [AppRequest, AppRequestEnd, AppRequestAborted]


def test_a_client_that_closes_between_requests_is_let_go(engine: Net) -> None:
    line = engine.connect()
    line.eof()
    assert line.ended == "closed"


def test_a_client_that_closes_in_a_request_head_is_let_go(engine: Net) -> None:
    line = engine.connect()
    line.send(b"GET / HTTP/1.1\r\n")
    line.eof()
    assert line.ended == "closed"


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_a_client_that_closes_in_its_body_aborts_the_request(engine: Net, more: bytes) -> None:
    line = engine.connect()
    line.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + more + b"Content-Length: 10\r\n\r\nabc")
    line.eof()
    assert kinds(engine)[-1] is AppRequestAborted
    assert line.ended == "closed"


@pytest.mark.parametrize("headers", [(), (("Connection", "close"),)])
def test_a_client_that_half_closes_is_still_answered(engine: Net, headers: tuple[tuple[str, str], ...]) -> None:
    line = engine.connect()
    line.request("GET", "/", headers=headers)
    line.eof()
    assert not line.ended
    serve(engine)
    for event in list(engine.events):
        engine.react(event)
    engine.settle()
    assert line.answered().text == "hello"
    assert line.ended == "closed"


def test_what_comes_after_the_end_is_ignored(engine: Net) -> None:
    line = engine.connect()
    line.send(b"nonsense\r\n\r\n")
    line.send(b"more")
    line.lose()
    line.send(b"more")
    engine.wait(100)
    assert engine.server.next_deadline() is None
    assert line.writes == 1


# Behind a proxy -----------------------------------------------------------------------------------------------


def test_a_trusted_proxys_word_is_taken(make: Any) -> None:
    net = make(EngineIOServer, trusted_proxies=(ip_network("10.0.0.0/8"),))
    names = ("X-Forwarded-For", "X-Forwarded-For", "X-Forwarded-Proto")
    headers = tuple(zip(names, ("6.6.6.6", "1.1.1.1", "https"), strict=True))
    net.connect("10.0.0.1").request("GET", "/", headers=headers)
    request = net.taken(AppRequest)[0].request
    assert (request.client_address, request.scheme) == ("1.1.1.1", "https")
    assert request.peer.address == "10.0.0.1"


# Draining -----------------------------------------------------------------------------------------------------


def test_draining_waits_for_answers_but_not_for_idle_connections(engine: Net) -> None:
    idle, busy = engine.connect(), engine.connect()
    busy.request("GET", "/")
    assert not engine.server.drained()
    engine.server.drain(engine.now)
    engine.settle()
    assert not idle.ended
    assert not engine.server.drained()
    engine.server.respond(busy.connection, 200, "OK", [("Content-Length", "0")], engine.now)
    engine.server.respond_end(busy.connection, engine.now)
    engine.settle()
    assert busy.answered().headers["connection"] == "close"
    assert busy.ended == "closed"
    assert engine.server.drained()


def test_the_application_is_still_served_while_draining(engine: Net) -> None:
    engine.server.drain(engine.now)
    serve(engine)
    line = engine.connect()
    assert line.get("/readyz").status == 200
    assert line.ended == "closed"
