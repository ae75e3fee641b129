"""Pages for people whose request is refused before any application has seen it, or when that has failed."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from automoderate.protocol.model import Request

__all__ = ["ErrorPage", "error_page"]


@frozen
class ErrorPage:
    """A page in memory, that needs nothing else of the server."""

    again: bytes = field(repr=False)
    """For a request that can be made again."""
    sent: bytes = field(repr=False)
    """For one that has sent something, which only the browser has."""
    headers: tuple[tuple[str, str], ...]
    """Its content type among them."""


def error_page(
    pages: Mapping[int, ErrorPage], status: int, request: Request | None
) -> tuple[list[tuple[str, str]], bytes] | None:
    """Headers and body of the page about a status, where there is one and a browser asks for a page; else None.

    Browsers name HTML where a person goes to an address, and there only.
    """
    page = pages.get(status)
    if page is None or request is None or "text/html" not in (request.header("accept") or ""):
        return None
    return list(page.headers), page.again if request.method in ("GET", "HEAD") else page.sent
