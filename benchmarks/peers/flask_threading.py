"""Flask-SocketIO with threads and simple-websocket, on Werkzeug's server: what AutoModerate runs today. ``CONFIG``."""

from __future__ import annotations

import os
import sys
import threading
import time
from http import HTTPStatus
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO, emit, join_room
from werkzeug.serving import WSGIRequestHandler, make_server

from automoderate.core.hub import Access, Error, room_name
from automoderate.directory.database import Database
from benchmarks.peers import common
from benchmarks.under_test import Config, Publish, Statements, Updates, ready, serve_commands


class QuietHandler(WSGIRequestHandler):
    """Without the access log."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def make_extension(app: Flask, config: Config, database: Database) -> SocketIO:
    """The extension with its rooms; a thread that asks the directory waits for the answer."""
    extension = SocketIO(app, async_mode="threading", **common.server_options(config))
    directory = common.open_directory(database, app)
    users: dict[str, str] = {}

    @extension.on("connect")  # type: ignore[untyped-decorator]
    def connect() -> None:
        user = directory.identify(request.headers.get("Cookie"))
        if user is None:
            emit("error", Error.AUTHENTICATION_REQUIRED.payload)
            extension.start_background_task(end, request.sid)  # type: ignore[attr-defined]
            return
        users[request.sid] = user.user_id  # type: ignore[attr-defined]
        emit("connected", common.WELCOME)

    def end(sid: str) -> None:
        time.sleep(common.AUTH_GRACE)
        extension.server.disconnect(sid)

    @extension.on("join_project")  # type: ignore[untyped-decorator]
    def join_project(data: dict[str, Any]) -> None:
        project_id = data["project_id"]
        user_id = users.get(request.sid)  # type: ignore[attr-defined]
        access = Access.NO_USER if user_id is None else directory.check_access(user_id, project_id)
        if access is not Access.GRANTED:
            emit("error", common.refusal(access, project_id))
            return
        join_room(room_name(project_id))
        emit("joined_project", {"project_id": project_id, "room": room_name(project_id)})

    @extension.on("disconnect")  # type: ignore[untyped-decorator]
    def forget(*_reason: str) -> None:
        users.pop(request.sid, None)  # type: ignore[attr-defined]

    return extension


def take_publications(app: Flask, extension: SocketIO, database: Database) -> None:
    """Add the publishing API."""
    publishing = common.Publishing(database)

    @app.post("/api/projects/<_project_id>/events")
    def publish(_project_id: str) -> tuple[dict[str, Any], HTTPStatus]:
        status, project_id = publishing.check(request.method, request.path, request.headers.get("X-API-Key", ""))
        if status is not HTTPStatus.ACCEPTED:
            return {}, status
        event, data = publishing.event(request.get_data())
        extension.emit(event, data, to=room_name(project_id))
        return {"event_id": data["event_id"]}, status


def main() -> None:
    """Serve until standard input ends."""
    config = Config.load(sys.argv[-1])
    app = common.flask_app(config)
    statements = Statements.counted() if config.counting else None
    database = common.open_database(config)
    extension, updates = make_extension(app, config, database), Updates(config)
    take_publications(app, extension, database)

    def carry_out(command: Publish) -> None:
        updates.begin()
        for when, size in common.schedule(command):
            time.sleep(max(0.0, when - time.monotonic()))  # also where it is 0: the writers write meanwhile
            for _ in range(size):
                project_id, data = updates.next(command.rooms)
                extension.emit(common.EVENT, data, to=room_name(project_id))

    listener = common.listen(config)
    port = listener.getsockname()[1]
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=QuietHandler, fd=listener.fileno())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ready(port)
    serve_commands(carry_out, statements)
    os._exit(0)  # nobody is left to say goodbye to


if __name__ == "__main__":
    main()
