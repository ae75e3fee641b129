"""What administrators see of clients as a runtime serves them: the rest is decided above it, and tested there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kits import until
from kits.contract_client import Client
from kits.contract_site import Site

Connect = Callable[..., Client]


@pytest.mark.every_runtime
def test_what_waits_for_a_client_that_does_not_read_is_seen(
    site: Site, connect: Connect, alice: str, fresh: str
) -> None:
    admin = site.world.user()
    with site.world.database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE users SET is_admin = 1 WHERE id = '{admin}'")
        connection.commit()

    def sessions(user: str = admin) -> Any:
        path = f"/api/admin/sessions?user_id={alice}"
        return site.http("GET", path, Cookie=site.world.cookie(user)).json

    assert sessions(alice)["error"]["code"] == "admin_required"
    client = connect(site, alice, "websocket", headers={"User-Agent": "a slow client"})
    client.expect("connected")
    client.request("join_project", {"project_id": fresh})
    client.until("ack")

    def waits() -> bool:
        (row,) = sessions()["sessions"]
        assert (row["user_id"], row["client"], row["transport"]) == (alice, "a", "websocket")
        site.assembly.realtime.publish(fresh, "stats_update", {"text": "x" * 200_000})
        return bool(row["waiting_bytes"] > 0)

    until(waits, "the kernel takes no more for it")
    client.wire.cut()  # to leave in order it would have to read all that first
