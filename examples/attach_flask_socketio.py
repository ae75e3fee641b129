"""AutoModerate's rooms on the server of a Flask-SocketIO application, with Flask-Login's sessions.

    pip install Flask-SocketIO simple-websocket
    PASSWORD=secret python3 examples/attach_flask_socketio.py 6217

The application has AutoModerate's tables, so its directory is one line: who is who comes from Flask's session cookie,
who may see what from the database, here a temporary one with alice and her project. ``POST /login`` with
``{"username": "alice", "password": "secret"}`` logs in, ``GET /projects`` names her projects, ``POST /updates/<id>``
publishes to one, and ``POST /logout`` ends her live sessions too.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import tempfile
from pathlib import Path

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_socketio import SocketIO
from werkzeug.serving import make_server

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Access, Hub
from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database
from automoderate.directory.sessions import SessionReader
from automoderate.integrations.socketio import attach


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def make_app(database: Database) -> Flask:
    app = Flask(__name__)
    app.secret_key = secrets.token_bytes(32)
    LoginManager(app).user_loader(User)
    extension = SocketIO(app, async_mode="threading")
    directory = SQLDirectory(database, SessionReader(app))
    attachment = attach(extension.server, Hub(random=random.random), directory=directory, backplane=MemoryBackplane())

    @app.post("/login")
    def log_in() -> ResponseReturnValue:
        user = accounts.authenticate(database, request.json["username"], request.json["password"])
        if user is None:
            return "", 401
        login_user(User(user.id))
        return "", 204

    @app.post("/logout")
    def log_out() -> ResponseReturnValue:
        attachment.logged_out(str(current_user.get_id()))
        logout_user()
        return "", 204

    @app.get("/projects")
    def projects() -> ResponseReturnValue:
        return jsonify([project.id for project in accounts.projects_for(database, str(current_user.get_id()))])

    @app.post("/updates/<project_id>")
    def publish(project_id: str) -> ResponseReturnValue:
        if directory.check_access(str(current_user.get_id()), project_id) is not Access.GRANTED:
            return "", 403
        published = attachment.publish(project_id, "moderation_update", request.json)
        return jsonify(event_id=published.result()), 202

    def echo(text: str) -> str:
        """An event of the application's own: it goes on as before."""
        return text

    extension.on_event("echo", echo)
    return app


def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'example.db'}")
        database.create_all()
        password = os.environ.get("PASSWORD", "secret")
        alice = accounts.create_user(database, username="alice", email="alice@example.org", password=password)
        accounts.create_project(database, name="Forum", owner_id=alice.id)
        server = make_server("127.0.0.1", port, make_app(database), threaded=True)
        print(f"running on http://127.0.0.1:{server.port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6217)
