"""Pages that stand alone: nothing of the server is asked for to show them."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest

from automoderate.dashboard import error_pages


@pytest.mark.parametrize("status", [408, 413, 500, 503, 507])
def test_a_page_needs_nothing_but_itself(status: int) -> None:
    page = error_pages()[status]
    for body, again in ((page.again.decode(), True), (page.sent.decode(), False)):
        assert f"Error {status}" in body
        assert ('<a class="button button--primary" href="">Try again</a>' in body) == again
        assert ("Go back" in body) != again
        assert re.findall(r'(?:src|href|action)="([^"]+)"|url\(|@import|<link|<script| style=', body) == []
        (style,) = re.findall("<style>(.*)</style>", body, re.DOTALL)
        digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = dict(page.headers)["Content-Security-Policy"]
        assert f"style-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'; ")
