from __future__ import annotations

from ipaddress import ip_network

import pytest

from automoderate.protocol import Peer
from automoderate.protocol.proxies import Viewpoint, viewpoint

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def seen(address: str, **headers: str) -> Viewpoint:
    named = {"host": "own.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return viewpoint(Peer(address, 1, "http"), named, TRUSTED)


def test_without_a_trusted_proxy_nothing_is_believed() -> None:
    view = seen("192.0.2.9", x_forwarded_for="1.1.1.1", x_forwarded_proto="https", x_forwarded_host="evil.test")
    assert view == Viewpoint("192.0.2.9", "http", "own.test")


def test_a_unix_socket_has_no_address() -> None:
    assert seen("", x_forwarded_for="1.1.1.1") == Viewpoint("", "http", "own.test")


def test_a_trusted_proxy_reports_the_client() -> None:
    view = seen("10.0.0.1", x_forwarded_for="1.1.1.1", x_forwarded_proto="https", x_forwarded_host="front.test")
    assert view == Viewpoint("1.1.1.1", "https", "front.test")


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
