"""Our rules attached to python-socketio's AsyncServer under uvicorn: ``[--ws IMPLEMENTATION] CONFIG``."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import socketio

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Hub, Limits
from automoderate.integrations.socketio import attach
from benchmarks.peers import asgi, common
from benchmarks.under_test import Config, Updates

UNLIMITED = 1_000_000
"""Connections and events a minute: all of the load comes from one address."""


class CountingServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio has no types
    """A server that can be waited for: ``publish`` of the rules returns before the library's ``emit`` has run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.emitted = 0
        self.progress = asyncio.Event()

    async def emit(self, event: str, *args: Any, **kwargs: Any) -> None:
        await super().emit(event, *args, **kwargs)
        if event == common.EVENT:
            self.emitted += 1
            self.progress.set()


async def main() -> None:
    """Serve until standard input ends."""
    config = Config.load(sys.argv[-1])
    sio, updates = (
        CountingServer(async_mode="asgi", **common.server_options(config)),
        Updates(config, with_event_id=False),
    )
    limits = Limits(max_connections_per_minute=UNLIMITED, max_events_per_minute=UNLIMITED, recheck_interval=3600.0)
    database = common.open_database(config)
    directory = common.open_directory(database, common.flask_app(config))
    attachment = attach(sio, Hub(limits, random=random.random), directory=directory, backplane=MemoryBackplane())

    async def publish_batch(rooms: int, size: int) -> None:
        wanted = sio.emitted + size
        for _ in range(size):
            project_id, data = updates.next(rooms)
            attachment.publish(project_id, common.EVENT, data)
        while sio.emitted < wanted:
            sio.progress.clear()
            await sio.progress.wait()

    async def publish(project_id: str, event: str, data: dict[str, Any]) -> None:
        attachment.publish(project_id, event, data)

    await asgi.serve(sio, database, updates, publish_batch, publish)


if __name__ == "__main__":
    asgi.run(main)
