"""Files that are served below the protocol's path, beside it: the client for browsers."""

from __future__ import annotations

import hashlib

from attrs import field, frozen

from automoderate.protocol.model import Request

__all__ = ["StaticFile"]


@frozen
class StaticFile:
    """A file in memory."""

    body: bytes = field(repr=False)
    content_type: str
    etag: str = field(init=False)
    """What tells this content from another (RFC 9110, section 8.8.3)."""

    @etag.default
    def _digest(self) -> str:
        return f'"{hashlib.blake2b(self.body, digest_size=12).hexdigest()}"'

    def answer(self, request: Request) -> tuple[int, bytes, list[tuple[str, str]]]:
        """Status, body and headers that answer a request for the file.

        Browsers ask again each time, and get the bytes where they have others (section 13.1.2), as from the reference
        server.
        """
        if request.method not in ("GET", "HEAD"):
            return 405, b"", [("Allow", "GET, HEAD")]
        headers = [("ETag", self.etag), ("Cache-Control", "public, max-age=0")]
        known = [tag.strip().removeprefix("W/") for tag in (request.header("if-none-match") or "").split(",")]
        if self.etag in known or known == ["*"]:
            return 304, b"", headers
        return 200, self.body, [("Content-Type", self.content_type), *headers]
