"""Where a request comes from, when a trusted reverse proxy passes it on."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import evolve, frozen

from automoderate.protocol.model import Peer

Networks = tuple[IPv4Network | IPv6Network, ...]


_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PREFIX = re.compile(r"(?:/[\w.~!$&'()*+,;=:@%-]+)+", re.ASCII)
_PAIR = re.compile(r"""\s*(?:([\w!#$%&'*+.^`|~-]+)=(?:([^\s",;=]+)|"((?:[^"\\]|\\.)*)"))?\s*([,;]|$)""", re.ASCII)
"""One parameter of ``Forwarded``, or none, and what ends it: name, token, quoted string (RFC 7239, section 4)."""


@frozen
class ForwardedRequest:
    """A request as its sender made it, before any trusted proxy: from which address, by which scheme, to which host."""

    client_address: str
    scheme: str
    host: str
    prefix: str = ""
    """The path, such as ``/moderation``, below which the proxy shows us and which it has taken off."""


def forwarded_request(peer: Peer, headers: dict[str, str], trusted: Networks) -> ForwardedRequest:
    """Read ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix``, or ``Forwarded``, as trusted proxies wrote them.

    A program that calls through a Unix socket is trusted: the permissions of its file say which can.

    ``Forwarded`` (RFC 7239) counts where there is none of the first three: a proxy that writes those may pass on a
    ``Forwarded`` of the client's own.
    """
    own = ForwardedRequest(peer.address, peer.scheme, headers.get("host", ""))
    address = _parse(peer.address)
    if peer.address and (address is None or not _trusted(address, trusted)):
        return own
    own = evolve(own, client_address="" if address is None else _text(address), prefix=_prefix(headers))
    if not headers.keys().isdisjoint(("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")):
        return _by_x_forwarded(own, headers, trusted)
    return _by_forwarded(own, _elements(headers.get("forwarded", "")), trusted)


@lru_cache(maxsize=1024)  # asked several times of each connection
def visitor(address: str) -> str:
    """Whom a limit for each address counts: an IPv4 address, or an IPv6 /64, of which one host has every address."""
    parsed = _parse(address)
    if not isinstance(parsed, IPv6Address):
        return address if parsed is None else _text(parsed)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def counted(peer: Peer, trusted: Networks) -> bool:
    """Whether a limit for each address counts connections of this peer: not where they are passed on for others."""
    address = _parse(peer.address)
    return address is not None and not _trusted(address, trusted)


def _by_x_forwarded(own: ForwardedRequest, headers: dict[str, str], trusted: Networks) -> ForwardedRequest:
    """Every proxy appends the address that called it.

    So the list is read from the right: the first address that is no trusted proxy is the client's, and the client may
    have invented everything to the left of it. Of ``-Proto`` and ``-Host`` the last value counts, which the nearest
    proxy wrote.
    """
    client = own.client_address
    for entry in reversed(headers.get("x-forwarded-for", "").split(",")):
        hop = _parse(entry)
        if hop is None:
            break
        client = _text(hop)
        if not _trusted(hop, trusted):
            break
    proto = _last(headers.get("x-forwarded-proto", "")).lower()
    host = _last(headers.get("x-forwarded-host", ""))
    return evolve(own, client_address=client, scheme=_SCHEMES.get(proto, own.scheme), host=host or own.host)


def _by_forwarded(own: ForwardedRequest, elements: list[dict[str, str]], trusted: Networks) -> ForwardedRequest:
    """Every proxy appends an element of its own: who called it, and by which scheme and host.

    The outermost trusted proxy knows best what the client wrote; what it leaves out, the next one may say.
    """
    for element in reversed(elements):
        scheme = _SCHEMES.get(element.get("proto", "").lower(), own.scheme)
        own = evolve(own, scheme=scheme, host=element.get("host") or own.host)
        hop = _parse(element.get("for", ""))
        if hop is None:
            break
        own = evolve(own, client_address=_text(hop))
        if not _trusted(hop, trusted):
            break
    return own


def _elements(header: str) -> list[dict[str, str]]:
    """The elements of ``Forwarded``, each with its parameters in lower case; none where it breaks the syntax."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(header):
        pair = _PAIR.match(header, position)
        if pair is None:
            return []
        name, token, quoted, end = pair.groups()
        if name is not None:
            elements[-1][name.lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if end == ",":
            elements.append({})
        position = pair.end()
    return elements


def _prefix(headers: dict[str, str]) -> str:
    prefix = _last(headers.get("x-forwarded-prefix", "")).rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip()


def _trusted(address: IPv4Address | IPv6Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def _text(address: IPv4Address | IPv6Address) -> str:
    """The address in its usual spelling. Thousands of sessions may come from one, and share the text."""
    return sys.intern(str(address))


@lru_cache(maxsize=1024)  # behind a proxy the peer is always the same
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with a port or without (``192.0.2.1:80``, ``[::1]:80``); an IPv4-mapped one counts as IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
