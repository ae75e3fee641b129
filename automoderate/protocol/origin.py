"""Which web pages may talk to the server: those of its own origin, those on a list, and the CORS headers for these."""

from __future__ import annotations

import enum
from functools import lru_cache
from urllib.parse import urlsplit

from automoderate.protocol.model import Request

# Clients other than browsers may name the scheme of their WebSocket.
_WEB_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
Headers = list[tuple[str, str]]


class OriginCheck(enum.Enum):
    """What a request's ``Origin`` header means for it."""

    OWN = "own"
    """The server's own origin, or none: browsers name the origin of every request across origins."""
    ALLOWED = "allowed"
    """Another origin, which is on the list."""
    REFUSED = "refused"
    """Another origin, which is not."""


def check_origin(request: Request, allowed: frozenset[str]) -> OriginCheck:
    """Compare ``Origin`` (RFC 6454) with the scheme, host and port the request was made to, then with the list."""
    origin = request.header("origin")
    if origin is None:
        return OriginCheck.OWN
    own = _origin(f"{request.scheme}://{request.host}")
    theirs = _origin(origin)
    if own is not None and theirs == own:
        return OriginCheck.OWN
    if "*" in allowed or origin in allowed:
        return OriginCheck.ALLOWED
    if theirs is not None and any(theirs == _origin(entry) for entry in allowed):
        return OriginCheck.ALLOWED
    return OriginCheck.REFUSED


def cors_headers(request: Request, verdict: OriginCheck) -> Headers:
    """The headers that let an allowed page of another origin send cookies and read answers (Fetch standard, CORS)."""
    if verdict is not OriginCheck.ALLOWED:
        return []
    return [
        ("Access-Control-Allow-Origin", request.header("origin") or ""),
        ("Access-Control-Allow-Credentials", "true"),
        ("Vary", "Origin"),
    ]


def preflight_headers(request: Request) -> Headers:
    """The headers that answer an allowed page's preflight request, besides ``cors_headers``."""
    return [
        ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
        ("Access-Control-Allow-Headers", request.header("access-control-request-headers") or "Content-Type"),
        ("Access-Control-Max-Age", "600"),
    ]


@lru_cache(maxsize=256)  # nearly all requests come from pages of one origin
def _origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin, the default port filled in; None for ``null`` and what is no web origin."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    scheme = _WEB_SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        return None
    return scheme, parts.hostname, _DEFAULT_PORTS[scheme] if port is None else port
