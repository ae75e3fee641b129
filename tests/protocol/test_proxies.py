from __future__ import annotations

from ipaddress import ip_network

import pytest

from automoderate.protocol import Peer
from automoderate.protocol.proxies import ForwardedRequest, forwarded_request, visitor

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def seen(address: str, **headers: str) -> ForwardedRequest:
    named = {"host": "own.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return forwarded_request(Peer(address, 1, "http"), named, TRUSTED)


def test_without_a_trusted_proxy_nothing_is_believed() -> None:
    view = seen(
        "192.0.2.9", x_forwarded_for="1.1.1.1", x_forwarded_proto="https", x_forwarded_host="evil.test",
        x_forwarded_prefix="/evil",
    )  # fmt: skip
    assert view == ForwardedRequest("192.0.2.9", "http", "own.test")
    view = seen("192.0.2.9", forwarded="for=1.1.1.1;proto=https;host=evil.test")
    assert view == ForwardedRequest("192.0.2.9", "http", "own.test")


def test_who_calls_through_a_unix_socket_is_trusted() -> None:
    assert seen("", x_forwarded_for="1.1.1.1", x_forwarded_proto="https") == ForwardedRequest(
        "1.1.1.1", "https", "own.test"
    )
    assert seen("") == ForwardedRequest("", "http", "own.test")


def test_a_trusted_proxy_reports_the_client() -> None:
    view = seen("10.0.0.1", x_forwarded_for="1.1.1.1", x_forwarded_proto="https", x_forwarded_host="front.test")
    assert view == ForwardedRequest("1.1.1.1", "https", "front.test")


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, 1.1.1.1", "1.1.1.1"),  # what stands further left may be invented
        ("6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("1.1.1.1:4711", "1.1.1.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:1.1.1.1", "1.1.1.1"),
        ("nonsense", "10.0.0.1"),
        ("1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("", "10.0.0.1"),
    ],
)
def test_the_rightmost_address_that_is_no_trusted_proxy_counts(chain: str, client: str) -> None:
    assert seen("10.0.0.1", x_forwarded_for=chain).client_address == client


def test_an_ipv4_proxy_seen_on_an_ipv6_socket_is_the_same_proxy() -> None:
    assert seen("::ffff:10.0.0.1", x_forwarded_for="1.1.1.1").client_address == "1.1.1.1"


@pytest.mark.parametrize(
    ("proto", "scheme"), [("wss", "https"), ("ws", "http"), ("http, HTTPS", "https"), ("gopher", "http"), ("", "http")]
)
def test_the_nearest_proxys_word_on_the_scheme_counts(proto: str, scheme: str) -> None:
    assert seen("10.0.0.1", x_forwarded_proto=proto).scheme == scheme


def test_the_nearest_proxys_word_on_the_host_counts() -> None:
    assert seen("10.0.0.1", x_forwarded_host="evil.test, front.test").host == "front.test"


@pytest.mark.parametrize(
    ("prefix", "taken"),
    [
        ("/moderation", "/moderation"),
        ("/moderation/", "/moderation"),
        ("/a/b-c_d.e~f", "/a/b-c_d.e~f"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/evil, /ours", "/ours"),
        ("/", ""),
        ("", ""),
        ("moderation", ""),
        ("//evil.test", ""),
        ("/a//b", ""),
        ("/\\\\evil.test", ""),
        ("/a b", ""),
        ("/a?b", ""),
        ("/\u00e9", ""),
        ("https://evil.test/x", ""),
    ],
)
def test_the_path_that_a_proxy_has_taken_off(prefix: str, taken: str) -> None:
    assert seen("10.0.0.1", x_forwarded_prefix=prefix).prefix == taken
    assert seen("10.0.0.1", x_forwarded_prefix=prefix, forwarded="for=1.1.1.1").prefix == taken


@pytest.mark.parametrize(
    ("header", "view"),
    [
        ("for=1.1.1.1", ("1.1.1.1", "http", "own.test")),
        ("for=1.1.1.1;proto=https;host=front.test;by=10.0.0.1", ("1.1.1.1", "https", "front.test")),
        ('For="[2001:db8::1]:4711" ; Proto=HTTPS ; Host="front:8443"', ("2001:db8::1", "https", "front:8443")),
        ('for="1.1.1.1:80"', ("1.1.1.1", "http", "own.test")),
        ('host="front\\.test"', ("10.0.0.1", "http", "front.test")),
        # The client has invented what stands to the left of the first address that is no trusted proxy.
        ("for=6.6.6.6;host=evil.test, for=1.1.1.1;host=front.test", ("1.1.1.1", "http", "front.test")),
        # The outermost trusted proxy knows what the client wrote; those behind it only what that one wrote.
        ("for=1.1.1.1;proto=https;host=front.test, for=10.0.0.2;proto=http;host=inner.test",
         ("1.1.1.1", "https", "front.test")),
        ("for=1.1.1.1, for=10.0.0.2;proto=https;host=inner.test", ("1.1.1.1", "https", "inner.test")),
        ("for=unknown;proto=https", ("10.0.0.1", "https", "own.test")),
        ('for="_gazonk", for=10.0.0.2', ("10.0.0.2", "http", "own.test")),
        ("; for=1.1.1.1;;proto=https;,", ("10.0.0.1", "http", "own.test")),
        (",for=1.1.1.1;;proto=https;", ("1.1.1.1", "https", "own.test")),
        ("proto=gopher", ("10.0.0.1", "http", "own.test")),
        ('for="a,b;c=d";proto=https', ("10.0.0.1", "https", "own.test")),
        ("", ("10.0.0.1", "http", "own.test")),
        # No syntax of RFC 7239: nothing is believed.
        ("for=1.1.1.1 proto=https", ("10.0.0.1", "http", "own.test")),
        ("nonsense", ("10.0.0.1", "http", "own.test")),
        ('host="front.test', ("10.0.0.1", "http", "own.test")),
        ("for=1.1.1.1;proto=https;=x", ("10.0.0.1", "http", "own.test")),
    ],
)  # fmt: skip
def test_the_standard_header_is_read_as_well(header: str, view: tuple[str, str, str]) -> None:
    assert seen("10.0.0.1", forwarded=header) == ForwardedRequest(*view)


@pytest.mark.parametrize("name", ["x_forwarded_for", "x_forwarded_proto", "x_forwarded_host"])
def test_a_proxy_that_writes_the_other_headers_passes_on_what_a_client_invents_in_the_standard_one(name: str) -> None:
    view = seen("10.0.0.1", forwarded="for=6.6.6.6;proto=https;host=evil.test", **{name: ""})
    assert view == ForwardedRequest("10.0.0.1", "http", "own.test")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_of_ipv6_a_visitor_is_a_network(address: str, counted: str) -> None:
    assert visitor(address) == counted
