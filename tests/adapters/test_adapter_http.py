"""Requests for the WSGI application, through every adapter, over real sockets."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import io
import itertools
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from automoderate.protocol.error_pages import ErrorPage
from kits.adapters import PATIENCE, Peerside, Running, Script, Start, Web

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
View = Callable[[Environ, StartResponse], Iterable[bytes]]

OK = "200 OK"
TEXT = [("Content-Type", "text/plain")]


class Site:
    """A WSGI application made of the views of one test, which also keeps account of closed answers."""

    def __init__(self, **views: View) -> None:
        self.views = views
        self.closed = threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self.views[environ["PATH_INFO"].strip("/") or "index"](environ, start_response)

    def streaming(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """An answer whose end is noted."""
        site = self

        class Chunks:
            def __iter__(self) -> Iterator[bytes]:
                return iter(chunks)

            def close(self) -> None:
                site.closed.set()

        return Chunks()


def hello(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response(OK, TEXT)
    return [b"hello"]


def mirror(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Say how long the body was and what it hashes to."""
    body = environ["wsgi.input"].read()
    start_response(OK, TEXT)
    told = {"length": len(body), "digest": hashlib.sha256(body).hexdigest(), "said": environ.get("CONTENT_LENGTH")}
    return [json.dumps(told).encode()]


def request(server: Running, method: str, path: str, **options: Any) -> tuple[http.client.HTTPResponse, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        client.request(method, path, **options)
        response = client.getresponse()
        return response, response.read()
    finally:
        client.close()


def test_get(start: Start) -> None:
    server = start(Web(), app=Site(index=hello))
    response, body = request(server, "GET", "/")
    assert (response.status, response.reason, body) == (200, "OK", b"hello")
    assert response.getheader("Content-Length") == "5"
    assert (response.getheader("Date") or "").endswith(" GMT")


def test_connections_are_kept_alive(start: Start) -> None:
    server = start(Web(), app=Site(index=hello))
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    ports = set()
    for _ in range(5):
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"
        ports.add(client.sock.getsockname()[1])
    client.close()
    assert len(ports) == 1


def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    def number(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        return [b"<%s>" % environ["QUERY_STRING"].encode()]

    server = start(Web(), app=Site(index=number))
    with server.connect() as client:
        client.send(b"".join(b"GET /?%d HTTP/1.1\r\nHost: x\r\n\r\n" % each for each in range(20)))
        for each in range(20):
            assert client.until(b">").endswith(b"<%d>" % each)


def test_head_has_the_headers_and_no_body(start: Start) -> None:
    server = start(Web(), app=Site(index=hello))
    with server.connect() as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")
    assert b"hello" not in answer


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body_keep_the_connection_usable(start: Start, status: str) -> None:
    def empty(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return [b"not allowed here"]

    server = start(Web(), app=Site(empty=empty, index=hello))
    with server.connect() as client:
        client.send(
            b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answers = client.rest()
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.endswith(b"hello")
    assert b"not allowed" not in answers


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_post(start: Start, size: int) -> None:
    server = start(Web(), app=Site(mirror=mirror))
    sent = bytes(size)
    told = json.loads(request(server, "POST", "/mirror", body=sent)[1])
    assert told == {"length": size, "digest": hashlib.sha256(sent).hexdigest(), "said": str(size)}


def test_post_in_chunks(start: Start) -> None:
    server = start(Web(), app=Site(mirror=mirror))
    chunks = [b"one", b"two" * 1000, b"three"]
    told = json.loads(request(server, "POST", "/mirror", body=iter(chunks), encode_chunked=True)[1])
    assert told["length"] == 3008
    assert told["said"] == "3008"  # the chunks are gone, so their length is known


def test_a_client_that_asks_may_go_on(start: Start) -> None:
    server = start(Web(), app=Site(mirror=mirror))
    with server.connect() as client:
        client.send(b"POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.send(b"12345")
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_body_byte_by_byte(start: Start) -> None:
    server = start(Web(), app=Site(mirror=mirror))
    with server.connect() as client:
        for byte in b"POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12345":
            client.send(bytes([byte]))
        assert b'"length": 5' in client.rest()


def test_too_large_a_body_is_refused(start: Start) -> None:
    server = start(Web(max_request_body=1000), app=Site(mirror=mirror))
    with server.connect() as client:
        client.send(b"POST /mirror HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + bytes(512))
        client.send(b"\r\n200\r\n" + bytes(512) + b"\r\n")
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert request(server, "POST", "/mirror", body=b"small")[0].status == 200


def test_a_large_answer_to_a_slow_reader_is_held_back_at_its_source(start: Start) -> None:
    produced = 0
    chunk = b"0123456789abcdef" * 1024

    def large(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def chunks() -> Iterator[bytes]:
            nonlocal produced
            for _ in range(500):
                produced += 1
                yield chunk

        start_response(OK, TEXT)
        return site.streaming(chunks())

    site = Site(large=large, index=hello)
    server = start(Web(), app=site)
    with server.connect_slow() as slow:
        slow.send(b"GET /large HTTP/1.0\r\n\r\n")
        slow.until(b"\r\n\r\n")
        received = len(slow.exactly(len(chunk)))
        # Nothing of its own ever wakes the producer again; what others do meanwhile shows that it stands still.
        for _ in range(5):
            assert request(server, "GET", "/")[1] == b"hello"
        assert produced < 500
        received += len(slow.rest())
    assert received == 500 * len(chunk)
    assert site.closed.wait(PATIENCE)


def test_an_answer_of_one_huge_piece_needs_no_huge_buffer(start: Start) -> None:
    def huge(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        return [b"x" * 4_000_000]

    server = start(Web(), app=Site(huge=huge), max_write_buffer=256 * 1024)
    with server.connect_slow() as slow:
        slow.send(b"GET /huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"content-length: 4000000" in slow.until(b"\r\n\r\n").lower()
        assert len(slow.rest()) == 4_000_000


def test_pieces_are_sent_as_they_are_produced(start: Start) -> None:
    go_on = threading.Event()

    def live(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        yield b"first"
        go_on.wait(PATIENCE)
        yield b"second"

    server = start(Web(), app=Site(live=live))
    with server.connect() as client:
        client.send(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.until(b"first")
        go_on.set()
        assert b"second" in client.rest()


def test_the_write_callable(start: Start) -> None:
    def imperative(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # Middleware that was written for Werkzeug or gunicorn names the arguments as these do.
        write = start_response(status=OK, headers=TEXT, exc_info=None)
        write(b"written, ")
        return [b"then returned"]

    server = start(Web(), app=Site(imperative=imperative))
    assert request(server, "GET", "/imperative")[1] == b"written, then returned"


def test_an_application_that_fails_early_is_an_error_page(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        raise ValueError("a secret detail")

    server = start(Web(), app=Site(fail=fail, index=hello))
    response, body = request(server, "GET", "/fail")
    assert (response.status, body) == (500, b"500 Internal Server Error\n")
    assert "a secret detail" in caplog.text
    assert request(server, "GET", "/")[0].status == 200


def test_a_browser_is_told_of_a_failure_with_a_page(start: Start) -> None:
    def fail(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError

    def bad(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "x")])
        return [b""]

    page = ErrorPage(
        b"<p>again", b"<p>back", (("Content-Type", "text/html"), ("Content-Security-Policy", "default-src"))
    )
    server = start(Web(), app=Site(fail=fail, bad=bad), error_pages={500: page})
    browser = {"Accept": "text/html"}
    for path in ("/fail", "/bad"):
        response, body = request(server, "GET", path, headers=browser)
        assert (response.status, body) == (500, b"<p>again")
        assert (response.getheader("Content-Type"), response.getheader("Content-Length")) == ("text/html", "8")
        assert response.getheader("Content-Security-Policy") == "default-src"
        assert request(server, "POST", path, headers=browser)[1] == b"<p>back"
        assert request(server, "GET", path)[1] == b"500 Internal Server Error\n"


def test_a_path_cannot_add_lines_to_the_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError

    server = start(Web(), app=Site(**{"x\nERROR all is lost": fail}))
    assert request(server, "GET", "/x%0AERROR%20all%20is%20lost")[0].status == 500
    assert r"Error in GET '/x\nERROR all is lost'" in caplog.messages


def test_as_many_requests_wait_at_once_as_there_are_threads(start: Start) -> None:
    """An application that waits inside its requests is served by more threads."""
    together = threading.Barrier(64, timeout=PATIENCE)

    def wait(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        together.wait()
        start_response(OK, TEXT)
        return [b"all are here"]

    server = start(Web(), app=Site(wait=wait), threads=64)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(64)]
        for client in clients:
            client.send(b"GET /wait HTTP/1.0\r\n\r\n")
        assert all(client.rest().endswith(b"all are here") for client in clients)


def test_leaving_the_interpreter_in_a_view_ends_the_request_alone(start: Start) -> None:
    def leave(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        raise SystemExit(1)

    server = start(Web(), app=Site(leave=leave, index=hello), threads=1)
    assert request(server, "GET", "/leave")[0].status == 500
    assert request(server, "GET", "/")[0].status == 200


@pytest.mark.parametrize("headers", [TEXT, [*TEXT, ("Content-Length", "1000")]])
def test_an_application_that_fails_late_cuts_the_connection(start: Start, headers: list[tuple[str, str]]) -> None:
    def fail(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def chunks() -> Iterator[bytes]:
            yield b"half an answer"
            raise ValueError("broken")

        start_response(OK, headers)
        return site.streaming(chunks())

    site = Site(fail=fail, index=hello)
    server = start(Web(), app=site)
    with server.connect() as client:
        client.send(b"GET /fail HTTP/1.0\r\n\r\n")
        assert client.ended(), "half an answer looks like a whole one"
    assert site.closed.wait(PATIENCE)
    assert request(server, "GET", "/")[0].status == 200


def test_an_error_page_of_the_applications_own(start: Start) -> None:
    def recover(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        import sys

        start_response(OK, TEXT)
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("503 Sorry", TEXT, sys.exc_info())
        return [b"sorry"]

    response, body = request(start(Web(), app=Site(recover=recover)), "GET", "/recover")
    assert (response.status, response.reason, body) == (503, "Sorry", b"sorry")


def test_an_error_after_the_headers_comes_back_to_the_application(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def recover(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        import sys

        write = start_response(OK, TEXT)
        write(b"half")
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 Sorry", TEXT, sys.exc_info())
        raise AssertionError("start_response should have raised")

    with start(Web(), app=Site(recover=recover)).connect() as client:
        client.send(b"GET /recover HTTP/1.0\r\n\r\n")
        assert client.ended()
    assert "LookupError: too late" in caplog.text
    assert "should have raised" not in caplog.text


@pytest.mark.parametrize(
    ("status", "headers", "chunks"),
    [
        ("OK", TEXT, [b"x"]),
        ("100 Continue", TEXT, [b"x"]),
        (OK, [("X-Split", "a\r\nSet-Cookie: stolen=1")], [b"x"]),
        (OK, [("Bad Name", "x")], [b"x"]),
        (OK, [("X-Price", "10 €")], [b"x"]),
        (OK, [("Content-Length", "many")], [b"x"]),
        (OK, TEXT, ["text"]),
        (None, None, [b"x"]),
    ],
)
def test_a_broken_application_is_an_error_page(start: Start, status: str, headers: Any, chunks: Any) -> None:
    def broken(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if status is not None:
            start_response(status, headers)
        made: Iterable[bytes] = chunks
        return made

    response, body = request(start(Web(), app=Site(broken=broken)), "GET", "/broken")
    assert (response.status, body) == (500, b"500 Internal Server Error\n")
    assert response.getheader("Set-Cookie") is None


def test_starting_twice_is_an_error_page(start: Start) -> None:
    def twice(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        start_response(OK, TEXT)
        return [b"x"]

    assert request(start(Web(), app=Site(twice=twice)), "GET", "/twice")[0].status == 500


def test_more_than_the_declared_length_is_not_sent(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def excessive(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "5")])
        return site.streaming([b"123", b"456", b"789"])

    site = Site(excessive=excessive, index=hello)
    server = start(Web(), app=site)
    with server.connect() as client:
        client.send(b"GET /excessive HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = client.rest()
    assert b"\r\n\r\n12345HTTP/1.1 200" in answers
    assert site.closed.wait(PATIENCE)
    server.stop()  # waits for the thread, which reports last
    assert "more than its Content-Length" in caplog.text


def test_less_than_the_declared_length_cuts_the_connection(start: Start) -> None:
    def short(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "500")])
        return [b"123"]

    with start(Web(), app=Site(short=short)).connect() as client:
        client.send(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.ended()


def test_how_the_hop_is_framed_is_not_the_applications_business(start: Start) -> None:
    def meddling(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Transfer-Encoding", "gzip"), ("Connection", "upgrade"), ("X-Kept", "yes")])
        return [b"hello"]

    response, body = request(start(Web(), app=Site(meddling=meddling)), "GET", "/meddling")
    assert body == b"hello"
    assert response.getheader("Transfer-Encoding") is None
    assert response.getheader("X-Kept") == "yes"


def test_a_client_that_goes_stops_the_answer(start: Start) -> None:
    def endless(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def chunks() -> Iterator[bytes]:
            while True:
                yield b"and on and on " * 1000

        start_response(OK, TEXT)
        return site.streaming(chunks())

    site = Site(endless=endless, index=hello)
    server = start(Web(), app=site, threads=1)
    client = server.connect()
    client.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    client.until(b"and on")
    client.reset()
    assert site.closed.wait(PATIENCE)
    assert request(server, "GET", "/")[0].status == 200, "the only thread is still busy"


def test_a_client_that_goes_while_its_answer_is_held_back_frees_the_thread(start: Start) -> None:
    def endless(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def chunks() -> Iterator[bytes]:
            while True:
                produced.set()
                yield b"x" * 1_000_000

        start_response(OK, TEXT)
        return site.streaming(chunks())

    produced = threading.Event()
    site = Site(endless=endless)
    server = start(Web(), app=site, threads=1)
    client = server.connect_slow()
    client.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    assert produced.wait(PATIENCE)
    client.until(b"\r\n\r\n")
    client.reset()
    assert site.closed.wait(PATIENCE)


def test_a_client_that_goes_before_its_body_is_complete_never_reaches_the_application(start: Start) -> None:
    seen: list[str] = []

    def note(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["REQUEST_METHOD"])
        return hello(environ, start_response)

    server = start(Web(), app=Site(index=note))
    client = server.connect()
    # Enough that the first half is in a file, which has to be closed too.
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + bytes(1_000_000))
    client.reset()
    assert request(server, "GET", "/")[0].status == 200
    assert seen == ["GET"]


def test_a_half_closed_client_gets_its_answer(start: Start) -> None:
    server = start(Web(), app=Site(index=hello))
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest().endswith(b"hello")


def test_a_slow_application_delays_no_other_request(start: Start) -> None:
    go_on = threading.Event()

    def slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        go_on.wait(PATIENCE)
        return hello(environ, start_response)

    server = start(Web(), app=Site(slow=slow, index=hello), threads=2)
    with server.connect() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _ in range(5):
            assert request(server, "GET", "/")[1] == b"hello"
        go_on.set()
        assert client.rest().endswith(b"hello")


def test_a_slow_application_delays_no_job(start: Start) -> None:
    driver = Script()
    go_on = threading.Event()
    server = start(driver, threads=1)
    with server.connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        server.call(lambda _: driver.job(driver.lines[0], lambda: go_on.wait(PATIENCE)))
        client.send(b"echo still here\n")
        assert client.line() == b"still here"
        go_on.set()
        assert client.line() == b"True"


def test_more_requests_than_can_wait_are_refused_and_the_log_says_so_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from automoderate.adapters import _wsgi

    monkeypatch.setattr(_wsgi, "WAITING", 2)
    go_on = threading.Event()
    busy = threading.Semaphore(0)

    def slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        busy.release()
        go_on.wait(PATIENCE)
        return hello(environ, start_response)

    server = start(Web(), app=Site(slow=slow), threads=1)
    clients: list[Peerside] = []
    for number in range(6):
        clients.append(server.connect())
        clients[-1].send(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if number == 0:
            assert busy.acquire(timeout=PATIENCE)
    # Which one is up to the loop: requests of several connections have no order.
    for _ in range(3):
        (answered, *_), _, _ = select.select([client.sock for client in clients], [], [], PATIENCE)
        with next(client for client in clients if client.sock is answered) as client:
            clients.remove(client)
            refused = client.rest()
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in refused.lower()
    assert caplog.text.count("Too many requests waiting") == 1
    go_on.set()
    for client in clients:
        assert client.rest().endswith(b"hello")
        client.sock.close()


def test_a_peer_that_takes_nothing_does_not_keep_a_thread_for_ever(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from automoderate.adapters import _wsgi

    monkeypatch.setattr(_wsgi, "STALL_TIMEOUT", 0.05)

    def large(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        return site.streaming(b"x" * 1_000_000 for _ in range(50))

    site = Site(large=large, index=hello)
    server = start(Web(), app=site, threads=1)
    with server.connect_slow() as deaf:
        deaf.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert site.closed.wait(PATIENCE)
        assert request(server, "GET", "/")[0].status == 200
        assert deaf.ended()


def test_without_an_application_there_is_nothing_to_find(start: Start) -> None:
    server = start(Web())
    assert request(server, "GET", "/")[0].status == 404
    assert request(server, "HEAD", "/")[0].status == 404
    assert request(server, "POST", "/x", body=b"something")[0].status == 404


def test_a_request_under_way_is_finished_before_leaving(start: Start) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        inside.set()
        go_on.wait(PATIENCE)
        return hello(environ, start_response)

    server = start(Web(), app=Site(slow=slow), drain_timeout=PATIENCE)
    with server.connect() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert inside.wait(PATIENCE)
        server.handle.stop()
        server.call(lambda _: None)
        go_on.set()
        assert client.rest().endswith(b"hello")
    server.stop()


def test_a_request_that_never_ends_does_not_keep_the_server(start: Start) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def stuck(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        inside.set()
        go_on.wait(PATIENCE)
        return hello(environ, start_response)

    server = start(Web(), app=Site(stuck=stuck), drain_timeout=0.05)
    with server.connect() as client:
        client.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
        assert inside.wait(PATIENCE)
        server.stop()
        assert client.ended()
    go_on.set()


def test_what_the_application_reports_goes_to_the_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def report(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        print("something is odd", file=environ["wsgi.errors"])
        return hello(environ, start_response)

    server = start(Web(), app=Site(report=report))
    request(server, "GET", "/report")
    assert ("automoderate.wsgi", 40, "something is odd") in caplog.record_tuples


def test_answers_in_a_row_to_a_slow_reader_are_held_back_one_after_the_other(start: Start) -> None:
    def large(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "3000000")])
        return [environ["QUERY_STRING"].encode() * 3_000_000]

    server = start(Web(), app=Site(large=large), max_write_buffer=256 * 1024)
    with server.connect_slow() as slow:
        slow.send(b"".join(b"GET /large?%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(4)))
        for number in range(4):
            slow.until(b"\r\n\r\n")
            assert slow.exactly(3_000_000) == b"%d" % number * 3_000_000


def test_who_asks_on_and_takes_no_answer_keeps_no_thread(start: Start) -> None:
    pages = itertools.count()

    def page(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        next(pages)
        start_response(OK, TEXT)
        return [b"x" * 5_000] * 10

    server = start(Web(), app=Site(page=page, index=hello), threads=1)
    with server.connect_slow() as deaf:
        deaf.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        seen, unchanged = "", 0
        while unchanged < 10:  # the one thread answers here as well, and goes on after the kernel takes no more there
            assert request(server, "GET", "/")[0].status == 200
            unchanged = unchanged + 1 if repr(pages) == seen else 0
            seen = repr(pages)
        assert seen != "count(100)"
        for _ in range(100):
            assert deaf.until(b"\r\n0\r\n\r\n").count(b"x" * 5_000) == 10


def test_who_asks_on_and_never_takes_an_answer_is_dropped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from automoderate.adapters import _wsgi

    monkeypatch.setattr(_wsgi, "STALL_TIMEOUT", 0.0)

    def page(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, TEXT)
        return [b"x" * 50_000]

    server = start(Web(), app=Site(page=page, index=hello), threads=1)
    with server.connect_slow() as deaf:
        deaf.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
        deadline = time.monotonic() + PATIENCE
        while not deaf.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            assert time.monotonic() < deadline
            assert request(server, "GET", "/")[0].status == 200


def test_an_answer_of_nothing(start: Start) -> None:
    def nothing(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("404 Not Found", TEXT)
        return []

    response, body = request(start(Web(), app=Site(nothing=nothing)), "GET", "/nothing")
    assert (response.status, body, response.getheader("Content-Length")) == (404, b"", "0")


def test_a_full_disk_refuses_the_body_and_nothing_else_and_is_said_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(io.BytesIO):
        def __init__(self, _size: int) -> None:
            super().__init__()

        def write(self, _data: object, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", Full)
    server = start(Web(), app=Site(mirror=mirror, index=hello))
    for _ in range(3):
        with server.connect() as client:
            client.send(b"POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345")
            assert client.until(b"\r\n").startswith(b"HTTP/1.1 507")
    assert request(server, "GET", "/")[1] == b"hello"
    assert caplog.text.count("Cannot store the body of POST '/mirror'") == 1
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("method", ["respond", "respond_body", "respond_end"])
def test_a_mistake_of_the_driver_in_an_answer_ends_that_connection_alone(
    start: Start, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    driver = Web()
    server = start(driver, app=Site(index=hello))

    def fail(*_arguments: object) -> None:
        delattr(driver, method)
        raise RuntimeError("a mistake in the driver")

    setattr(driver, method, fail)
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.ended()
    assert request(server, "GET", "/")[1] == b"hello"
    server.stop()
    assert "a mistake in the driver" in caplog.text
