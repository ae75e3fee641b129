"""Who is really asking, when a reverse proxy that we trust stands in between."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import frozen

from automoderate.protocol.outputs import Peer

Networks = tuple[IPv4Network | IPv6Network, ...]


@frozen
class Viewpoint:
    """A request as its sender made it: address, scheme and host before any trusted proxy."""

    client_address: str
    scheme: str
    host: str


def viewpoint(peer: Peer, headers: dict[str, str], trusted: Networks) -> Viewpoint:
    """Believe ``X-Forwarded-For``, ``-Proto`` and ``-Host`` as far as trusted proxies vouch for them.

    Every proxy appends the address it was called from, so the list is read from the right and the first address
    that is no trusted proxy is the client; anything to the left of it may be invented. Of ``-Proto`` and ``-Host``
    the last value counts: it is the word of the proxy next to us.
    """
    scheme, host = peer.scheme, headers.get("host", "")
    address = _parse(peer.address)
    if address is None or not _trusted(address, trusted):
        return Viewpoint(peer.address, scheme, host)
    for entry in reversed(headers.get("x-forwarded-for", "").split(",")):
        hop = _parse(entry)
        if hop is None:
            break
        address = hop
        if not _trusted(hop, trusted):
            break
    proto = _last(headers.get("x-forwarded-proto", "")).lower()
    return Viewpoint(
        str(address),
        {"http": "http", "https": "https", "ws": "http", "wss": "https"}.get(proto, scheme),
        _last(headers.get("x-forwarded-host", "")) or host,
    )


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip()


def _trusted(address: IPv4Address | IPv6Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=1024)  # behind a proxy the peer is always the same
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address, perhaps with a port (``192.0.2.1:80``, ``[::1]:80``); an IPv4-mapped one counts as IPv4."""
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
