"""An application such as people mount: Flask-Login, Flask-SocketIO, and nothing that knows of this server.

Tests run it by ``automoderate serve --wsgi kits.flask_socketio_app:create_app()``; it reads the users of
``DATABASE_URL``.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable
from typing import Any

import flask
import flask_login
import flask_socketio
from werkzeug.security import check_password_hash

socketio = flask_socketio.SocketIO()
login_manager = flask_login.LoginManager()
pages = flask.Blueprint("pages", __name__)
handled: list[str] = []
"""What reached this application's own Socket.IO handlers."""


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


def create_app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], SESSION_COOKIE_NAME="existing")
    login_manager.init_app(app)
    login_manager.user_loader(User)
    # What Flask-SocketIO chooses by itself wherever eventlet is installed.
    queue = os.environ.get("MESSAGE_QUEUE")
    socketio.init_app(app, cors_allowed_origins="*", json=flask.json, async_mode="eventlet", message_queue=queue)
    app.register_blueprint(pages)
    return app


def connected(_auth: object = None) -> None:
    handled.append("connect")


def join_project(data: dict[str, Any]) -> None:
    handled.append("join_project")
    flask_socketio.join_room(f"project_{data['project_id']}")


socketio.on_event("connect", connected)
socketio.on_event("join_project", join_project)


@pages.route("/auth/login", methods=["GET", "POST"])
def login() -> Any:
    if flask.request.method == "GET":
        return '<form method="post"><input name="username"><input name="password" type="password"></form>'
    database = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"))
    try:
        query = "SELECT id, password_hash FROM users WHERE username = ?"
        row = database.execute(query, [flask.request.form["username"]]).fetchone()
    finally:
        database.close()
    if row is None or not check_password_hash(row[1], flask.request.form["password"]):
        return "wrong", 401
    flask_login.login_user(User(row[0]))
    return "welcome"


@pages.post("/auth/logout")
def logout() -> str:
    flask_login.logout_user()
    return "bye"


def moderate(project: str, source: str, count: int) -> None:
    for number in range(count):
        data = {"project_id": project, "source": source, "number": number, "status": "approved"}
        socketio.emit("moderation_update", data, room=f"project_{project}")
        data["number"] = -1  # what was emitted is emitted


@pages.post("/moderate/<project>/<source>")
def moderate_now(project: str, source: str) -> str:
    moderate(project, source, int(flask.request.args["count"]))
    return "done"


@pages.post("/moderate-later/<project>/<source>")
def moderate_later(project: str, source: str) -> str:
    def work() -> None:
        socketio.sleep(0.01)
        moderate(project, source, int(count))

    count = flask.request.args["count"]
    socketio.start_background_task(work)
    return "begun"


@pages.post("/emit-oddly/<project>")
def emit_oddly(project: str) -> str:
    """Everything that does not fit, and then an update that does."""
    room, server = f"project_{project}", socketio.server
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    attempts: list[Callable[[], object]] = [
        lambda: socketio.emit("stats_update", {"odd": 1}),
        lambda: socketio.emit("stats_update", {"odd": 2}, room="another room"),
        lambda: socketio.emit("stats_update", {"odd": 3}, room="project_"),
        lambda: socketio.emit("stats_update", {"odd": 4}, room=room, namespace="/admin"),
        lambda: socketio.emit("stats_update", "odd", room=room),
        lambda: socketio.emit("stats_update", ("two", "arguments"), room=room),
        lambda: socketio.emit("stats_update", room=room),
        lambda: socketio.emit("stats_update", circle, room=room),
        lambda: socketio.emit("stats_update", {"odd": object()}, room=room),
        lambda: socketio.emit("stats_update", {"odd": b"binary"}, room=room),
        lambda: socketio.emit("stats_update", {"odd": float("nan")}, room=room),
        lambda: server.disconnect("some-sid"),
        lambda: server.close_room("another room"),
    ]
    for attempt in attempts:
        attempt()
    socketio.emit(
        "stats_update", {"id": uuid.UUID(int=1)}, to=[room, "another room"], callback=lambda: handled.append("callback")
    )
    return "survived"


@pages.post("/close/<project>")
def close(project: str) -> str:
    socketio.close_room(f"project_{project}")
    return "closed"


@pages.get("/handled")
def show_handled() -> Any:
    return flask.jsonify(handled)
