"""python-socketio's AsyncServer under uvicorn, on uvloop and httptools: ``[--ws NAME] [REDIS_URL] CONFIG``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import socketio

from automoderate.core.hub import Access, Error, room_name
from automoderate.directory.database import Database
from benchmarks.peers import asgi, common
from benchmarks.under_test import Config, Updates


def make_server(config: Config, database: Database) -> socketio.AsyncServer:
    """The server with its rooms; who is who is asked in worker threads, as the loop must not block."""
    redis_url = next((word for word in sys.argv[1:-1] if word.startswith("redis://")), None)
    manager = None if redis_url is None else socketio.AsyncRedisManager(redis_url)
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager, **common.server_options(config))
    directory = common.open_directory(database, common.flask_app(config))
    users: dict[str, str] = {}

    async def connect(sid: str, environ: dict[str, Any]) -> None:
        user = await asyncio.to_thread(directory.identify, environ.get("HTTP_COOKIE"))
        if user is None:
            await sio.emit("error", Error.AUTHENTICATION_REQUIRED.payload, to=sid)
            sio.start_background_task(end, sid)
            return
        users[sid] = user.user_id
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
    database = common.open_database(config)
    sio, updates = make_server(config, database), Updates(config)

    async def publish(project_id: str, event: str, data: dict[str, Any]) -> None:
        await sio.emit(event, data, room=room_name(project_id))

    async def publish_batch(rooms: int, size: int) -> None:
        for _ in range(size):
            project_id, data = updates.next(rooms)
            await publish(project_id, common.EVENT, data)

    await asgi.serve(sio, database, updates, publish_batch, publish)


if __name__ == "__main__":
    asgi.run(main)
