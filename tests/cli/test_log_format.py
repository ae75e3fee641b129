"""What servers in processes of their own write to their log, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import socketio

from kits import PATIENCE, until
from kits.live_server import LiveServer, running_server
from kits.processes import SECRET_KEY

CONTENT = "what nobody but the moderators may read"


def trouble(server: LiveServer, secrets: dict[str, str]) -> None:
    """Everything that is logged while a server runs, with secrets wherever a client can put them."""
    with socketio.SimpleClient() as watching:
        watching.connect(server.url, headers={"Cookie": secrets["cookie"]}, transports=["websocket"])
        watching.call("join_project", {"project_id": server.project})
        headers = {"X-API-Key": secrets["key"]}
        body = {"event": "moderation_update", "data": {"content_preview": CONTENT}}
        events = f"{server.url}/api/projects/{server.project}/events"
        assert requests.post(events, json=body, headers=headers, timeout=PATIENCE).status_code == 202
        assert requests.post(events, json=body, headers={"X-API-Key": "am_no"}, timeout=PATIENCE).status_code == 401
        while watching.receive(PATIENCE)[0] != "moderation_update":
            pass
        another_site = {"Cookie": secrets["cookie"], "Origin": "https://elsewhere.example"}
        polling = f"{server.url}/socket.io/?EIO=4&transport=polling"
        assert requests.get(polling, headers=another_site, timeout=PATIENCE).status_code == 403
        requests.post(
            f"{server.url}/login", headers={"Cookie": secrets["cookie"]}, data=CONTENT * 500_000, timeout=PATIENCE
        )
        forged = {"Cookie": f"{secrets['cookie']}x"}
        sid = json.loads(requests.get(polling, headers=forged, timeout=PATIENCE).text[1:])["sid"]
        requests.post(f"{polling}&sid={sid}", data="40", headers=forged, timeout=PATIENCE)
        until(lambda: "visitor is anonymous" in server.log)
        requests.post(f"{polling}&sid={sid}", data="1", headers=forged, timeout=PATIENCE)
        with server.database.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO away")
            connection.exec_driver_sql("ALTER TABLE project_members RENAME TO away_as_well")
        with pytest.raises(socketio.exceptions.TimeoutError):
            watching.call("join_project", {"project_id": server.other}, timeout=0)
        until(lambda: "checks of who may see what fail" in server.log)
        assert (
            requests.post(events, json=body, headers={"X-API-Key": secrets["key"] + "2"}, timeout=PATIENCE).status_code
            == 503
        )


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_says_what_happened_and_no_cookie_key_or_content(tmp_path: Path, form: str) -> None:
    with running_server(tmp_path, log_format=form, log_level="debug", max_request_body="100000") as server:
        secrets = {"cookie": server.cookie("alice"), "key": server.api_key, "secret": SECRET_KEY, "content": CONTENT}
        trouble(server, secrets)
        server.stop()
        for what, secret in secrets.items():
            for part in (secret, secret.removeprefix("session=")[:20]):
                assert part not in server.log, f"the log holds the {what}"
        if form == "json":
            lines = [json.loads(line) for line in server.log.splitlines()]
            found = {line["event"]: line for line in lines}
            wanted = {"listening", "origin_refused", "request_refused", "anonymous", "outage", "draining"}
            assert wanted <= found.keys()
            assert found["anonymous"]["reason"] == "bad signature"
            assert found["origin_refused"]["address"] == "127.0.0.1"
            assert found["draining"]["reason"] == "SIGTERM"
            assert all(line["time"].endswith("+00:00") for line in lines)
