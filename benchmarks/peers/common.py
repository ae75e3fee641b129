"""What the Python peers share: how they find out who may see what, and what python-socketio's servers are told."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask

from automoderate.core.hub import Access, Error
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database
from automoderate.directory.sessions import SessionReader
from benchmarks.under_test import Config, Publish

EVENT = "moderation_update"
BACKLOG = 4096
"""Connections the kernel holds for a server that is not accepting yet."""
AUTH_GRACE = 1.0
"""Seconds between telling a visitor that they have to log in and ending their session."""
WELCOME = {"message": "Connected to AutoModerate"}


def flask_app(config: Config) -> Flask:
    """An application that reads session cookies as the dashboard writes them."""
    app = Flask("benchmarks.peers", static_folder=None)
    app.secret_key = config.secret_key
    return app


def open_directory(config: Config, app: Flask) -> SQLDirectory:
    """Who is who and who may see what; its calls block."""
    return SQLDirectory(Database(config.database_url, read_only=True), SessionReader(app))


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
        "transports": ["websocket"], "ping_interval": config.ping_interval, "http_compression": False,
        "always_connect": True,  # so that ``connected``, sent by the connect handler, follows the answer to CONNECT
    }  # fmt: skip


def schedule(command: Publish) -> Iterator[tuple[float, int]]:
    """When each batch leaves on the monotonic clock, and its number of updates; without a rate, at once."""
    if command.rate is None:
        return ((0.0, size) for size in command.batches())
    return command.due(time.monotonic())


def listen() -> socket.socket:
    """A listening socket on a free loopback port."""
    return socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
