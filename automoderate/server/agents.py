"""What a client calls itself, short enough to count by: the browser or library and its version."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["client_name"]

_BROWSERS = (
    # Each also says that it is those that come behind it here.
    (re.compile(r"\bEdg(?:e|A|iOS)?/(\d+)"), "Edge"),
    (re.compile(r"\b(?:OPR|Opera)/(\d+)"), "Opera"),
    (re.compile(r"\bSamsungBrowser/(\d+)"), "Samsung Internet"),
    (re.compile(r"\b(?:Firefox|FxiOS)/(\d+)"), "Firefox"),
    (re.compile(r"\b(?:HeadlessChrome|Chrome|CriOS)/(\d+)"), "Chrome"),
    (re.compile(r"\bVersion/(\d+)[.\d]* (?:Mobile/\w+ )?Safari/"), "Safari"),
)
_LONGEST = 60


@lru_cache(maxsize=1024)
def client_name(agent: str) -> str:
    """The name of a ``User-Agent``: "Chrome 126", "aiohttp/3.9.1"; "unnamed" where it says nothing."""
    for pattern, name in _BROWSERS:
        if found := pattern.search(agent):
            return f"{name} {found[1]}"
    words = agent.split()
    if len(words) > 1 and words[0].startswith("Python/"):
        return words[1][:_LONGEST]  # the library says more than the language does
    return words[0][:_LONGEST] if words else "unnamed"
