"""The live page over TLS, on every adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from automoderate import adapters
from kits.authority import Authority
from kits.browser_site import Site, ThreadServer, Visitors, expect_state, update


@pytest.mark.parametrize("adapter", adapters.names())
def test_the_page_is_live_over_wss(
    adapter: str, site: Site, visitors: Visitors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.make(tmp_path)
    authority.trust(monkeypatch)
    files = {"ssl_certfile": str(authority.certfile), "ssl_keyfile": str(authority.keyfile)}
    server = ThreadServer(site, adapter=adapter, **files)
    try:
        # The browser is told not to look who issued the certificate: its list of authorities is the system's.
        page = visitors.page(ignore_https_errors=True)
        sockets: list[str] = []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        visitors.log_in(page)
        page.goto(site.live_url)
        expect_state(page, "live")
        site.publish(update("c1"))
        expect(page.locator('#feed [data-content-id="c1"]')).to_be_visible()
        assert sockets
        assert all(url.startswith("wss://") for url in sockets)
    finally:
        server.stop()
