"""The pages that tell of a problem where nothing of ours can be asked any more: each is complete in itself."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from automoderate.dashboard.problems import SERVER_ERROR
from automoderate.protocol.error_pages import ErrorPage

_FOLDER = Path(__file__).parent

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_TOLD = {
    408: ("This took too long", "The server has stopped waiting for the rest of what was sent."),
    413: ("This is too large", "What was sent is larger than this server takes."),
    500: SERVER_ERROR,
    503: ("The server is busy", "More is asked of it than it can answer. This is usually over in a moment."),
    507: ("The server has no space left", "What was sent could not be kept. Tell whoever runs this site."),
}
"""Title and text for each status that a person may be answered without any application."""


@cache
def error_pages() -> Mapping[int, ErrorPage]:
    """A page for each status, of the same kind as all others."""
    loader = FileSystemLoader(_FOLDER / "templates")
    template = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "alone.html"
    )
    style = (_FOLDER / "static" / "dashboard.css").read_text("utf-8")
    icon = (_FOLDER / "static" / "favicon.svg").read_text("utf-8")
    icon = icon.replace("<svg ", '<svg width="28" height="28" aria-hidden="true" ', 1)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headers = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", f"{_NOTHING}; style-src 'sha256-{digest}'"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    )

    def page(status: int, *, again: bool) -> bytes:
        title, text = _TOLD[status]
        return template.render(status=status, title=title, text=text, again=again, style=style, icon=icon).encode()

    return {status: ErrorPage(page(status, again=True), page(status, again=False), headers) for status in _TOLD}
