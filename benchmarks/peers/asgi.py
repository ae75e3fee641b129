"""A ``socketio.AsyncServer`` under uvicorn, and the harness's commands to it: what both peers on uvicorn share."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import socketio
import uvicorn
import uvloop

from benchmarks.peers import common
from benchmarks.under_test import Publish, Updates, ready, serve_commands

FASTEST = "websockets-sansio"
"""uvicorn's implementation of WebSocket where none is named. ``python -m benchmarks.peers.compare_uvicorn`` says which
it is; wsproto is within the noise of it, and the older ``websockets`` takes a quarter more."""

PublishBatch = Callable[[int, int], Awaitable[None]]
"""Publish ``size`` updates to the first ``rooms`` rooms; returns when they have left as far as the server can tell."""


async def serve(app: socketio.ASGIApp, updates: Updates, publish_batch: PublishBatch) -> None:
    """Serve until standard input ends."""
    listener = common.listen()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws=websocket_implementation(),
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            http="httptools",
            lifespan="off",
            access_log=False,
            log_level="warning",
            backlog=common.BACKLOG,
        )
    )

    async def carry_out(command: Publish) -> None:
        updates.begin()
        for when, size in common.schedule(command):
            await asyncio.sleep(max(0.0, when - time.monotonic()))
            await publish_batch(command.rooms, size)

    loop = asyncio.get_running_loop()

    def commands() -> None:
        serve_commands(lambda command: asyncio.run_coroutine_threadsafe(carry_out(command), loop).result())
        os._exit(0)  # nobody is left to say goodbye to

    threading.Thread(target=commands, daemon=True).start()
    ready(listener.getsockname()[1])  # the kernel holds who comes before uvicorn accepts
    await server.serve(sockets=[listener])


def websocket_implementation() -> str:
    """The one of uvicorn's that the arguments name."""
    words = sys.argv[1:-1]
    return words[1] if words[:1] == ["--ws"] else FASTEST


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a peer on uvloop."""
    uvloop.run(main())
