"""Publishes as a process that emits with python-socketio's ``RedisManager``: started by :mod:`benchmarks.cluster`."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import socketio

from automoderate.core.hub import room_name
from benchmarks.publisher import run


class Emitting:
    """Emits to rooms of the servers that listen to the Redis at ``url``."""

    def __init__(self, url: str) -> None:
        self._manager = socketio.RedisManager(url, write_only=True)

    def publish(self, project_id: str, event: str, data: dict[str, Any]) -> Future[str]:
        """Emit one; Redis has taken it when this returns."""
        self._manager.emit(event, data, room=room_name(project_id))
        done: Future[str] = Future()
        done.set_result(data["event_id"])
        return done


if __name__ == "__main__":
    run(Emitting, with_event_id=True)
