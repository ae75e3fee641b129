"""python-socketio's AsyncServer under uvicorn, on uvloop and httptools: ``[--ws IMPLEMENTATION] CONFIG``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import socketio

from automoderate.core.hub import Access, Error, room_name
from benchmarks.peers import asgi, common
from benchmarks.under_test import Config, Updates


def make_server(config: Config) -> socketio.AsyncServer:
    """The server with its rooms; who is who is asked in worker threads, as the loop must not block."""
    sio = socketio.AsyncServer(async_mode="asgi", **common.server_options(config))
    directory = common.open_directory(config, common.flask_app(config))
    users: dict[str, str] = {}

    async def connect(sid: str, environ: dict[str, Any]) -> None:
        user_id = await asyncio.to_thread(directory.identify, environ.get("HTTP_COOKIE"))
        if user_id is None:
            await sio.emit("error", Error.AUTHENTICATION_REQUIRED.payload, to=sid)
            sio.start_background_task(end, sid)
            return
        users[sid] = user_id
        await sio.emit("connected", common.WELCOME, to=sid)

    async def end(sid: str) -> None:
        await sio.sleep(common.AUTH_GRACE)
        await sio.disconnect(sid)

    async def join_project(sid: str, data: dict[str, Any]) -> None:
        project_id = data["project_id"]
        user_id = users.get(sid)
        access = Access.NO_USER if user_id is None else await asyncio.to_thread(
            directory.check_access, user_id, project_id
        )  # fmt: skip
        if access is not Access.GRANTED:
            await sio.emit("error", common.refusal(access, project_id), to=sid)
            return
        await sio.enter_room(sid, room_name(project_id))
        await sio.emit("joined_project", {"project_id": project_id, "room": room_name(project_id)}, to=sid)

    def disconnect(sid: str) -> None:
        users.pop(sid, None)

    for handler in (connect, join_project, disconnect):
        sio.on(handler.__name__, handler)
    return sio


async def main() -> None:
    """Serve until standard input ends."""
    config = Config.load(sys.argv[-1])
    sio, updates = make_server(config), Updates(config)

    async def publish_batch(rooms: int, size: int) -> None:
        for _ in range(size):
            project_id, data = updates.next(rooms)
            await sio.emit(common.EVENT, data, room=room_name(project_id))

    await asgi.serve(socketio.ASGIApp(sio), updates, publish_batch)


if __name__ == "__main__":
    asgi.run(main)
