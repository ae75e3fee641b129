"""AutoModerate's rooms on a ``socketio.Server`` with threads, under Werkzeug's server.

    pip install simple-websocket
    PASSWORD=secret python3 examples/attach_threads.py 6217

``POST /login`` with ``{"username": "alice", "password": "secret"}`` sets the session cookie; a user who is logged in
joins ``forum`` over Socket.IO and sees what ``POST /updates/forum`` publishes. With eventlet or gevent it is the same
``attach``: only the server below, and ``async_mode``, are theirs.
"""

from __future__ import annotations

import os
import random
import sys

import socketio
from attach_people import People
from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Access, Hub
from automoderate.integrations.socketio import attach

people = People(os.environ.get("PASSWORD", "secret"))
sio = socketio.Server(async_mode="threading")
attachment = attach(sio, Hub(random=random.random), directory=people, backplane=MemoryBackplane())
app = Flask(__name__)


@app.post("/login")
def log_in() -> ResponseReturnValue:
    session = people.log_in(request.json["username"], request.json["password"])
    if session is None:
        return "", 401
    response = Response(status=204)
    response.set_cookie("session", session, httponly=True, samesite="Lax")
    return response


@app.post("/updates/<project_id>")
def publish(project_id: str) -> ResponseReturnValue:
    user = people.identify(request.headers.get("Cookie"))
    if user is None or people.check_access(user.user_id, project_id) is not Access.GRANTED:
        return "", 403
    published = attachment.publish(project_id, "moderation_update", request.json)
    return jsonify(event_id=published.result()), 202


def echo(sid: str, text: str) -> str:
    """An event of the application's own: it goes on as before."""
    return text


sio.on("echo", echo)

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6217
    server = make_server("127.0.0.1", port, socketio.WSGIApp(sio, app), threaded=True)
    print(f"running on http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
