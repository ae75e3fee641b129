"""What the Python peers share: how they find out who may see what, and what python-socketio's servers are told."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from attrs import frozen
from flask import Flask
from sqlalchemy import bindparam, select

from automoderate.core.hub import Access, Error
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database
from automoderate.directory.sessions import SessionReader
from automoderate.directory.tables import ApiKey
from benchmarks.under_test import Config, Publish, stand_by

EVENT = "moderation_update"
BACKLOG = 4096
"""Connections the kernel holds for a server that is not accepting yet."""
AUTH_GRACE = 1.0
"""Seconds between telling a visitor that they have to log in and ending their session."""
PUBLISHING = re.compile(r"/api/projects/([^/]+)/events")
KEY = select(ApiKey.project_id, ApiKey.is_active).where(ApiKey.key == bindparam("key"))
WELCOME = {"message": "Connected to AutoModerate"}


def flask_app(config: Config) -> Flask:
    """An application that reads session cookies as the dashboard writes them."""
    app = Flask("benchmarks.peers", static_folder=None)
    app.secret_key = config.secret_key
    return app


def open_database(config: Config) -> Database:
    """The database, for reading."""
    return Database(config.database_url, read_only=True)


def open_directory(database: Database, app: Flask) -> SQLDirectory:
    """Who is who and who may see what; its calls block."""
    return SQLDirectory(database, SessionReader(app))


def refusal(access: Access, project_id: str) -> dict[str, Any]:
    """The data of the ``error`` that keeps a user out of a project's room."""
    errors = {
        Access.NO_USER: Error.AUTHENTICATION_REQUIRED,
        Access.NOT_FOUND: Error.PROJECT_NOT_FOUND,
        Access.DENIED: Error.ACCESS_DENIED,
    }
    return errors[access].payload | {"project_id": project_id}


def server_options(config: Config) -> dict[str, Any]:
    """What python-socketio's servers are told, whatever they run on."""
    return {
        "ping_interval": config.ping_interval, "http_compression": False,
        "always_connect": True,  # so that ``connected``, sent by the connect handler, follows the answer to CONNECT
    }  # fmt: skip


def schedule(command: Publish) -> Iterator[tuple[float, int]]:
    """When each batch leaves on the monotonic clock, and its number of updates; without a rate, at once."""
    if command.rate is None:
        return ((0.0, size) for size in command.batches())
    return command.due(time.monotonic())


def listen(config: Config) -> socket.socket:
    """A listening socket, as soon as it is wanted."""
    stand_by(config)
    return socket.create_server(("127.0.0.1", config.port), backlog=BACKLOG)


@frozen
class Publishing:
    """The publishing API, for a server that says how it emits."""

    database: Database

    def check(self, method: str, path: str, key: str) -> tuple[HTTPStatus, str]:
        """What to answer, and the project to publish to where that is 202. It asks the database, and blocks."""
        found = PUBLISHING.fullmatch(path)
        if method != "POST" or found is None:
            return HTTPStatus.NOT_FOUND, ""
        with self.database.connect() as connection:
            row = connection.execute(KEY, {"key": key}).first()
        if row is None or not row.is_active:
            return HTTPStatus.UNAUTHORIZED, ""
        project_id = found[1]
        return (HTTPStatus.ACCEPTED if row.project_id == project_id else HTTPStatus.FORBIDDEN), project_id

    @staticmethod
    def event(body: bytes) -> tuple[str, dict[str, Any]]:
        """The event and its data, with a new ``event_id``."""
        said = json.loads(body)
        data = said["data"] | {"event_id": f"{time.time_ns() // 1_000_000}-0"}
        return said["event"], data
