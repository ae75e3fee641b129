"""Prints a project's updates, oldest first: those after an event id, or the newest.

URL=… API_KEY=… PROJECT=… python3 examples/read_history.py [EVENT_ID]
"""

from __future__ import annotations

import os
import sys
from typing import Any

import requests

LIMIT = 500


def page(after: str | None) -> Any:
    answer = requests.get(
        f"{os.environ['URL']}/api/projects/{os.environ['PROJECT']}/events",
        params={"limit": str(LIMIT), **({"after": after} if after else {})},
        headers={"X-API-Key": os.environ["API_KEY"]},
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()


after = sys.argv[1] if len(sys.argv) > 1 else None
while True:
    found = page(after)
    if not found["complete"]:
        print(f"(what came right after {after} is no longer kept)")
        found = page(None)
    for update in found["events"]:
        print(update["data"]["event_id"], update["event"], update["data"].get("status", ""))
    if len(found["events"]) < LIMIT:
        break
    after = found["last_event_id"]
