"""A ``socketio.AsyncServer`` under uvicorn, and the harness's commands to it: what both peers on uvicorn share."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any

import socketio
import uvicorn
import uvloop
from attrs import frozen

from automoderate.directory.database import Database
from benchmarks.peers import common
from benchmarks.under_test import Publish, Statements, Updates, ready, serve_commands

FASTEST = "websockets-sansio"
"""uvicorn's implementation of WebSocket where none is named. ``python -m benchmarks.peers.compare_uvicorn`` says which
it is; wsproto is within the noise of it, and the older ``websockets`` takes a quarter more."""

PublishBatch = Callable[[int, int], Awaitable[None]]
"""Publish ``size`` updates to the first ``rooms`` rooms; returns when they have left as far as the server can tell."""


PublishOne = Callable[[str, str, dict[str, Any]], Awaitable[object]]
"""Publish an event, with its data, to a project's room."""


async def serve(
    sio: socketio.AsyncServer, database: Database, updates: Updates, publish_batch: PublishBatch, publish: PublishOne
) -> None:
    """Serve until standard input ends."""
    statements = Statements.counted() if updates.config.counting else None
    app = socketio.ASGIApp(sio, PublishingApp(common.Publishing(database), publish))
    listener = common.listen(updates.config)
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
        serve_commands(lambda command: asyncio.run_coroutine_threadsafe(carry_out(command), loop).result(), statements)
        os._exit(0)  # nobody is left to say goodbye to

    threading.Thread(target=commands, daemon=True).start()
    ready(listener.getsockname()[1])  # the kernel holds who comes before uvicorn accepts
    await server.serve(sockets=[listener])


@frozen
class PublishingApp:
    """The publishing API as an ASGI application; the key is looked up in a worker thread."""

    publishing: common.Publishing
    publish: PublishOne

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        key = headers.get(b"x-api-key", b"").decode()
        status, project_id = await asyncio.to_thread(self.publishing.check, scope["method"], scope["path"], key)
        said: dict[str, Any] = {}
        if status is HTTPStatus.ACCEPTED:
            event, data = self.publishing.event(bytes(body))
            await self.publish(project_id, event, data)
            said = {"event_id": data["event_id"]}
        answer = json.dumps(said).encode()
        length = (b"content-length", str(len(answer)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})


def websocket_implementation() -> str:
    """The one of uvicorn's that the arguments name."""
    words = sys.argv[1:-1]
    return words[1] if words[:1] == ["--ws"] else FASTEST


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a peer on uvloop."""
    uvloop.run(main())
