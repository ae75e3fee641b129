from __future__ import annotations

import pytest

from automoderate.protocol import Peer, Request
from automoderate.protocol.origin import OriginCheck, check_origin, cors_headers, preflight_headers


def request(origin: str | None, host: str = "own.test", scheme: str = "http", **more: str) -> Request:
    headers = [(name.replace("_", "-"), value) for name, value in more.items()]
    if origin is not None:
        headers.append(("origin", origin))
    return Request("GET", "/", "/", "", tuple(headers), "1.1", Peer("192.0.2.1", 1), "192.0.2.1", scheme, host)


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "verdict"),
    [
        (None, "own.test", "http", OriginCheck.OWN),
        ("http://own.test", "own.test", "http", OriginCheck.OWN),
        ("http://OWN.test:80", "own.TEST", "http", OriginCheck.OWN),
        ("https://own.test", "own.test:443", "https", OriginCheck.OWN),
        ("http://own.test:6217", "own.test:6217", "http", OriginCheck.OWN),
        ("http://[::1]:6217", "[::1]:6217", "http", OriginCheck.OWN),
        ("ws://own.test:6217", "own.test:6217", "http", OriginCheck.OWN),
        ("wss://own.test", "own.test:443", "https", OriginCheck.OWN),
        ("ws://friend.test", "own.test", "http", OriginCheck.ALLOWED),
        ("wss://own.test", "own.test", "http", OriginCheck.REFUSED),
        ("ws://own.test", "own.test", "https", OriginCheck.REFUSED),
        ("ws://", "own.test", "http", OriginCheck.REFUSED),
        ("https://own.test", "own.test", "http", OriginCheck.REFUSED),
        ("http://own.test:81", "own.test", "http", OriginCheck.REFUSED),
        ("http://own.test.evil.test", "own.test", "http", OriginCheck.REFUSED),
        ("null", "own.test", "http", OriginCheck.REFUSED),
        ("", "", "http", OriginCheck.REFUSED),
        ("http://own.test:99999", "own.test:99999", "http", OriginCheck.REFUSED),
        ("ftp://own.test", "own.test", "ftp", OriginCheck.REFUSED),
        ("http://friend.test", "own.test", "http", OriginCheck.ALLOWED),
        ("http://friend.test:80", "own.test", "http", OriginCheck.ALLOWED),
    ],
)
def test_an_origin_is_compared_with_where_the_request_went(
    origin: str | None, host: str, scheme: str, verdict: OriginCheck
) -> None:
    assert check_origin(request(origin, host, scheme), frozenset({"http://friend.test"})) is verdict


@pytest.mark.parametrize("origin", ["http://any.test", "null"])
def test_an_asterisk_allows_any_origin(origin: str) -> None:
    assert check_origin(request(origin), frozenset({"*"})) is OriginCheck.ALLOWED


@pytest.mark.parametrize("origin", ["capacitor://localhost", "app://-", "file://", "null", "tauri://localhost"])
def test_an_application_with_a_scheme_of_its_own_is_let_in_where_it_is_named(origin: str) -> None:
    assert check_origin(request(origin), frozenset()) is OriginCheck.REFUSED
    assert check_origin(request(origin, "localhost"), frozenset({"https://localhost"})) is OriginCheck.REFUSED
    assert check_origin(request(origin), frozenset({"https://a.test", origin})) is OriginCheck.ALLOWED


def test_cors_headers_are_for_allowed_origins_only() -> None:
    assert cors_headers(request(None), OriginCheck.OWN) == []
    assert cors_headers(request("http://friend.test"), OriginCheck.REFUSED) == []
    assert dict(cors_headers(request("http://friend.test"), OriginCheck.ALLOWED)) == {
        "Access-Control-Allow-Origin": "http://friend.test",
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


def test_a_preflight_is_allowed_the_headers_it_asks_for() -> None:
    asked = dict(preflight_headers(request("http://friend.test", access_control_request_headers="x-mine")))
    assert asked["Access-Control-Allow-Headers"] == "x-mine"
    assert dict(preflight_headers(request("http://friend.test")))["Access-Control-Allow-Headers"] == "Content-Type"
