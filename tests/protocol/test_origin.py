from __future__ import annotations

import pytest

from automoderate.protocol import Peer, Request
from automoderate.protocol.origin import Verdict, cors_headers, judge, preflight_headers


def request(origin: str | None, host: str = "own.test", scheme: str = "http", **more: str) -> Request:
    headers = [(name.replace("_", "-"), value) for name, value in more.items()]
    if origin is not None:
        headers.append(("origin", origin))
    return Request("GET", "/", "/", "", tuple(headers), "1.1", Peer("192.0.2.1", 1), "192.0.2.1", scheme, host)


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "verdict"),
    [
        (None, "own.test", "http", Verdict.OWN),
        ("http://own.test", "own.test", "http", Verdict.OWN),
        ("http://OWN.test:80", "own.TEST", "http", Verdict.OWN),
        ("https://own.test", "own.test:443", "https", Verdict.OWN),
        ("http://own.test:6217", "own.test:6217", "http", Verdict.OWN),
        ("http://[::1]:6217", "[::1]:6217", "http", Verdict.OWN),
        ("https://own.test", "own.test", "http", Verdict.REFUSED),
        ("http://own.test:81", "own.test", "http", Verdict.REFUSED),
        ("http://own.test.evil.test", "own.test", "http", Verdict.REFUSED),
        ("null", "own.test", "http", Verdict.REFUSED),
        ("", "", "http", Verdict.REFUSED),
        ("http://own.test:99999", "own.test:99999", "http", Verdict.REFUSED),
        ("ftp://own.test", "own.test", "ftp", Verdict.REFUSED),
        ("http://friend.test", "own.test", "http", Verdict.ALLOWED),
        ("http://friend.test:80", "own.test", "http", Verdict.ALLOWED),
    ],
)
def test_an_origin_is_compared_with_where_the_request_went(
    origin: str | None, host: str, scheme: str, verdict: Verdict
) -> None:
    assert judge(request(origin, host, scheme), frozenset({"http://friend.test"})) is verdict


@pytest.mark.parametrize("origin", ["http://any.test", "null"])
def test_an_asterisk_allows_any_origin(origin: str) -> None:
    assert judge(request(origin), frozenset({"*"})) is Verdict.ALLOWED


def test_cors_headers_are_for_allowed_origins_only() -> None:
    assert cors_headers(request(None), Verdict.OWN) == []
    assert cors_headers(request("http://friend.test"), Verdict.REFUSED) == []
    assert dict(cors_headers(request("http://friend.test"), Verdict.ALLOWED)) == {
        "Access-Control-Allow-Origin": "http://friend.test",
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


def test_a_preflight_is_allowed_the_headers_it_asks_for() -> None:
    asked = dict(preflight_headers(request("http://friend.test", access_control_request_headers="x-mine")))
    assert asked["Access-Control-Allow-Headers"] == "x-mine"
    assert dict(preflight_headers(request("http://friend.test")))["Access-Control-Allow-Headers"] == "Content-Type"
