"""python-socketio's Server on eventlet, monkey-patched: ``CONFIG``."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it calls itself deprecated
    import eventlet

    # Before anything else imports what it patches.
    eventlet.monkey_patch()

import json
import os
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import eventlet.wsgi
import socketio
from eventlet.greenio import GreenPipe

from automoderate.core.hub import Access, Error, room_name
from automoderate.directory.database import Database
from benchmarks.peers import common
from benchmarks.under_test import Config, Publish, Statements, Updates, ready, serve_commands, stand_by

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

MAX_CLIENTS = 100_000
"""eventlet's WSGI server stops at 1,024 connections unless told otherwise."""


def make_server(config: Config, database: Database) -> socketio.Server:
    """The server with its rooms. The directory is asked where the question arises: SQLite does not wait."""
    sio = socketio.Server(async_mode="eventlet", **common.server_options(config))
    directory = common.open_directory(database, common.flask_app(config))
    users: dict[str, str] = {}

    def connect(sid: str, environ: dict[str, Any]) -> None:
        user = directory.identify(environ.get("HTTP_COOKIE"))
        if user is None:
            sio.emit("error", Error.AUTHENTICATION_REQUIRED.payload, to=sid)
            sio.start_background_task(end, sid)
            return
        users[sid] = user.user_id
        sio.emit("connected", common.WELCOME, to=sid)

    def end(sid: str) -> None:
        sio.sleep(common.AUTH_GRACE)
        sio.disconnect(sid)

    def join_project(sid: str, data: dict[str, Any]) -> None:
        project_id = data["project_id"]
        user_id = users.get(sid)
        access = Access.NO_USER if user_id is None else directory.check_access(user_id, project_id)
        if access is not Access.GRANTED:
            sio.emit("error", common.refusal(access, project_id), to=sid)
            return
        sio.enter_room(sid, room_name(project_id))
        sio.emit("joined_project", {"project_id": project_id, "room": room_name(project_id)}, to=sid)

    def disconnect(sid: str) -> None:
        users.pop(sid, None)

    for handler in (connect, join_project, disconnect):
        sio.on(handler.__name__, handler)
    return sio


def publishing_app(sio: socketio.Server, database: Database) -> WSGIApplication:
    """The publishing API; the database is asked where the question arises."""
    publishing = common.Publishing(database)

    def answer(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read()
        key = environ.get("HTTP_X_API_KEY", "")
        status, project_id = publishing.check(environ["REQUEST_METHOD"], environ["PATH_INFO"], key)
        said = {}
        if status is HTTPStatus.ACCEPTED:
            event, data = publishing.event(body)
            sio.emit(event, data, room=room_name(project_id))
            said = {"event_id": data["event_id"]}
        start_response(f"{status.value} {status.phrase}", [])
        return [json.dumps(said).encode()]

    return answer


def commands(sio: socketio.Server, updates: Updates, statements: Statements | None) -> None:
    """Carry out the harness's commands until standard input ends; then leave."""
    sys.stdin = GreenPipe(0)

    def carry_out(command: Publish) -> None:
        updates.begin()
        for when, size in common.schedule(command):
            eventlet.sleep(max(0.0, when - time.monotonic()))  # also where it is 0: the writers write meanwhile
            for _ in range(size):
                project_id, data = updates.next(command.rooms)
                sio.emit(common.EVENT, data, room=room_name(project_id))

    serve_commands(carry_out, statements)
    os._exit(0)  # nobody is left to say goodbye to


def main() -> None:
    """Serve until standard input ends."""
    config = Config.load(sys.argv[-1])
    statements = Statements.counted() if config.counting else None
    database = common.open_database(config)
    sio = make_server(config, database)
    app = socketio.WSGIApp(sio, publishing_app(sio, database))
    stand_by(config)
    listener = eventlet.listen(("127.0.0.1", config.port), backlog=common.BACKLOG)
    eventlet.spawn(commands, sio, Updates(config), statements)
    ready(listener.getsockname()[1])
    eventlet.wsgi.server(listener, app, max_size=MAX_CLIENTS, log_output=False)


if __name__ == "__main__":
    main()
