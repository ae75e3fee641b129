"""Unmodified clients over TLS, on every adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from automoderate import adapters
from kits.authority import Authority
from kits.live_server import running_server
from kits.real_clients import LIBRARIES, TRANSPORTS, RealClient

Make = Callable[[str, str, str, str | None], RealClient]


@pytest.mark.parametrize("adapter", adapters.names())
def test_every_library_on_every_transport(
    adapter: str, client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.make(tmp_path)
    authority.trust(monkeypatch)
    files = {"ssl_certfile": str(authority.certfile), "ssl_keyfile": str(authority.keyfile)}
    with running_server(tmp_path, adapter=adapter, **files) as server:
        assert server.url.startswith("https://")
        assert f"listening on {server.url}" in server.log
        for library in LIBRARIES:
            for transports in TRANSPORTS:
                one = client(server.url, server.cookie("alice"), transports, library)
                one.welcomed()
                one.call("join_project", {"project_id": server.project})
                server.publish(7)
                assert one.wait("moderation_update")["number"] == 7
                one.disconnect()
