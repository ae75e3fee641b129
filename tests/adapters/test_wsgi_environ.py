"""The environ an application sees."""

from __future__ import annotations

import io
from typing import Any
from wsgiref import validate

import pytest

from automoderate.adapters._environ import ErrorLog, build
from automoderate.protocol.model import Peer, Request

PEER = Peer("192.0.2.7", 5000, local_address="198.51.100.1", local_port=6217)


def environ(target: str = "/", *headers: tuple[str, str], body: bytes = b"", **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "http_version": "1.1",
        "client_address": PEER.address,
        "scheme": "http",
        "host": "example.org",
    } | options
    _, _, query = target.partition("?")
    request = Request(target=target, query_string=query, headers=tuple(headers), peer=PEER, **settings)
    return build(request, io.BytesIO(body), len(body))


def test_it_is_what_the_specification_asks_for(recwarn: pytest.WarningsRecorder) -> None:
    validate.check_environ(environ("/a?b=c", ("host", "example.org"), ("x-one", "1")) | {"wsgi.errors": ErrorLog()})  # type: ignore[attr-defined]
    assert not recwarn.list


def test_the_request_line() -> None:
    told = environ("/a%20b/%C3%A9?x=%20y", method="PUT")
    assert told["REQUEST_METHOD"] == "PUT"
    assert told["SCRIPT_NAME"] == ""
    assert told["PATH_INFO"].encode("latin-1").decode() == "/a b/é"
    assert told["QUERY_STRING"] == "x=%20y"
    assert told["RAW_URI"] == told["REQUEST_URI"] == "/a%20b/%C3%A9?x=%20y"
    assert told["SERVER_PROTOCOL"] == "HTTP/1.1"


def test_the_path_below_which_a_proxy_shows_us() -> None:
    told = environ("/a", prefix="/caf%C3%A9/x")
    assert told["SCRIPT_NAME"].encode("latin-1").decode() == "/café/x"
    assert told["PATH_INFO"] == "/a"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("*", "*"),
        ("//elsewhere/x", "//elsewhere/x"),
        ("http://example.org/x/y?z", "/x/y"),
        ("http://example.org", "/"),
        ("/x://y", "/x://y"),
        ("/raw-\xe9", "/raw-\xe9"),
        ("/%", "/%"),
    ],
)
def test_unusual_targets(target: str, path: str) -> None:
    assert environ(target)["PATH_INFO"] == path


@pytest.mark.parametrize(
    ("scheme", "host", "name", "port"),
    [
        ("http", "example.org", "example.org", "80"),
        ("https", "example.org", "example.org", "443"),
        ("http", "example.org:8080", "example.org", "8080"),
        ("http", "[2001:db8::1]", "[2001:db8::1]", "80"),
        ("http", "[2001:db8::1]:8080", "[2001:db8::1]", "8080"),
        ("http", "", "198.51.100.1", "6217"),
    ],
)
def test_the_server_is_the_one_the_client_asked_for(scheme: str, host: str, name: str, port: str) -> None:
    told = environ(scheme=scheme, host=host)
    assert (told["SERVER_NAME"], told["SERVER_PORT"], told["wsgi.url_scheme"]) == (name, port, scheme)
    assert told.get("HTTP_HOST", "") == host


def test_the_client_is_the_one_a_trusted_proxy_reported() -> None:
    told = environ("/", ("host", "internal"), client_address="203.0.113.9", scheme="https", host="public.example")
    assert told["REMOTE_ADDR"] == "203.0.113.9"
    assert "REMOTE_PORT" not in told  # that one is the proxy's
    assert told["HTTP_HOST"] == "public.example"
    assert told["wsgi.url_scheme"] == "https"
    assert environ()["REMOTE_PORT"] == "5000"


def test_headers() -> None:
    told = environ(
        "/", ("x-list", "one"), ("x-list", "two"), ("cookie", "a=1"), ("cookie", "b=2"), ("content-type", "text/plain")
    )
    assert told["HTTP_X_LIST"] == "one, two"
    assert told["HTTP_COOKIE"] == "a=1; b=2"
    assert told["CONTENT_TYPE"] == "text/plain"
    assert "HTTP_CONTENT_TYPE" not in told


def test_headers_that_could_pose_as_others_are_dropped() -> None:
    told = environ("/", ("x_forwarded_for", "127.0.0.1"), ("content_length", "5"), ("proxy", "http://evil.example"))
    assert not any(name in told for name in ("HTTP_X_FORWARDED_FOR", "HTTP_CONTENT_LENGTH", "HTTP_PROXY"))


def test_the_body_and_its_length() -> None:
    assert "CONTENT_LENGTH" not in environ()
    assert environ("/", ("content-length", "0"))["CONTENT_LENGTH"] == "0"
    told = environ("/", ("transfer-encoding", "chunked"), body=b"12345")
    assert told["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in told
    assert told["wsgi.input_terminated"] is True
    assert told["wsgi.input"].read() == b"12345"


def test_the_error_log_gets_whole_lines(caplog: pytest.LogCaptureFixture) -> None:
    errors = ErrorLog()
    assert errors.writable()
    errors.write("one\ntw")
    errors.writelines(["o\n", "three"])
    assert caplog.messages == ["one", "two"]
    errors.flush()
    errors.flush()
    assert caplog.messages == ["one", "two", "three"]
