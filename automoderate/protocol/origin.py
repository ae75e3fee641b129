"""Which web pages may talk to the server: the same-origin rule, the list of exceptions, and their CORS headers."""

from __future__ import annotations

import enum
from functools import lru_cache
from urllib.parse import urlsplit

from automoderate.protocol.events import Request

_DEFAULT_PORTS = {"http": 80, "https": 443}
Headers = list[tuple[str, str]]


class Verdict(enum.Enum):
    """What a request's ``Origin`` header means for it."""

    OWN = "own"
    """Absent (not a browser's cross-site request) or the server's own origin."""
    ALLOWED = "allowed"
    """Another origin that is on the list."""
    REFUSED = "refused"
    """Another origin."""


def judge(request: Request, allowed: frozenset[str]) -> Verdict:
    """Compare ``Origin`` (RFC 6454) with the scheme, host and port the request was made to, then with the list."""
    origin = request.header("origin")
    if origin is None:
        return Verdict.OWN
    own = _origin(f"{request.scheme}://{request.host}")
    theirs = _origin(origin)
    if own is not None and theirs == own:
        return Verdict.OWN
    if "*" in allowed or origin in allowed:
        return Verdict.ALLOWED
    if theirs is not None and any(theirs == _origin(entry) for entry in allowed):
        return Verdict.ALLOWED
    return Verdict.REFUSED


def cors_headers(request: Request, verdict: Verdict) -> Headers:
    """What lets an allowed page of another origin read the answer, cookies included (Fetch standard, CORS)."""
    if verdict is not Verdict.ALLOWED:
        return []
    return [
        ("Access-Control-Allow-Origin", request.header("origin") or ""),
        ("Access-Control-Allow-Credentials", "true"),
        ("Vary", "Origin"),
    ]


def preflight_headers(request: Request) -> Headers:
    """The answer to an allowed page's preflight request, besides ``cors_headers``."""
    return [
        ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
        ("Access-Control-Allow-Headers", request.header("access-control-request-headers") or "Content-Type"),
        ("Access-Control-Max-Age", "600"),
    ]


@lru_cache(maxsize=256)  # nearly every page is one of ours
def _origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin, the port spelt out; None where it is none (``null``, nonsense)."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, default if port is None else port
