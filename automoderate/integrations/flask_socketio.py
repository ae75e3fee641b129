"""The Flask-SocketIO of a mounted application: what it emits to a project's room reaches ours.

Such an application goes on calling ``socketio.emit("moderation_update", data, room=f"project_{id}")`` from request
handlers and background threads. Its own Engine.IO is out of reach, as ``/socket.io/`` is ours; so a manager of ours
sits in its ``socketio.Server`` and publishes what is meant for a project.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future
from functools import partial
from typing import Any

import engineio
import socketio
from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from automoderate.core.hub import projects_in
from automoderate.realtime import Realtime

__all__ = ["RoomManager", "take_over"]

log = logging.getLogger("automoderate.integrations.flask_socketio")

NAMESPACE = "/"
PATH = "/socket.io"


def take_over(app: Flask, realtime: Realtime, channel: str | None = None) -> None:
    """Let the application's Flask-SocketIO, where it has one, emit to our rooms.

    ``channel`` is the Redis channel that is read. What the application itself emits does not go there any more, but
    straight to the rooms, so that it arrives once.
    """
    server = getattr(app.extensions.get("socketio"), "server", None)
    if not isinstance(server, socketio.Server):
        return
    if isinstance(server.manager, socketio.PubSubManager):
        _check_queue(server.manager, channel)
    server.manager = RoomManager(realtime)
    server.manager.set_server(server)
    # Requests run in real threads here. Greenlets, which Flask-SocketIO chooses where eventlet or gevent is merely
    # installed, would wait in such a thread for a hub that does not run.
    threads = engineio.Server(async_mode="threading", monitor_clients=False)
    server.start_background_task, server.sleep = threads.start_background_task, threads.sleep
    # Its Engine.IO answers everything below its path, and ours just the path itself.
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PATH: NotFound()})  # type: ignore[method-assign]


class RoomManager(socketio.Manager):  # type: ignore[misc]
    """Publishes what is emitted to a project's room.

    ``emit`` may be called from any thread, never waits and, for our rooms, never raises: why something was not
    published is logged, the first time. Updates of one thread keep their order. An application whose Flask-SocketIO
    has another path than ours keeps the clients that come there; they are what the base class looks after.
    """

    def __init__(self, realtime: Realtime) -> None:
        super().__init__()
        self._realtime = realtime
        self._told: set[str] = set()

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **kwargs: Any,
    ) -> None:
        """Publish to every project named by ``room``: one room, or a list of them."""
        projects = projects_in(to or room) if namespace == NAMESPACE else []
        if not projects:
            self._tell_once(event, "only rooms of projects, on the namespace /, have clients here")
        elif not isinstance(data, dict):
            self._tell_once(event, "an update is one object (a dict)")
        else:
            if callback is not None:
                self._tell_once(
                    f"the callback for {event}", "the clients in a room are not asked for an acknowledgement"
                )
            self._publish(projects, event, data)
        super().emit(event, data, namespace, room=room, skip_sid=skip_sid, callback=callback, to=to, **kwargs)

    def can_disconnect(self, sid: str, namespace: str) -> bool:
        """Whether it is a client of its own; sessions of ours end by what the user may do, not by their id."""
        own: bool = super().can_disconnect(sid, namespace)
        if not own:
            self._tell_once("disconnect()", "sessions are not ended by their id, but by logging the user out")
        return own

    def close_room(self, room: str, namespace: str) -> None:
        """Look up again, at once, who may be in the project's room: users who may, stay."""
        super().close_room(room, namespace)
        for project_id in projects_in(room) if namespace == NAMESPACE else ():
            future = self._realtime.access_changed(project_id=project_id)
            future.add_done_callback(partial(self._done, "close_room()"))

    def _publish(self, projects: list[str], event: str, data: dict[str, Any]) -> None:
        try:
            # As the application's own encoder says it, and as it is now: the caller may go on changing it.
            copy = json.loads(self.json.dumps(data))
            for project_id in projects:
                future = self._realtime.publish(project_id, event, copy)
                future.add_done_callback(partial(self._done, event))
        except Exception:
            log.exception("%r was not published", event, extra={"event": "emit_failed"})

    def _done(self, what: str, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self._tell_once(what, str(error))

    def _tell_once(self, what: str, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.warning(
                "%r of the mounted application has no effect: %s; this is not said again", what, reason,
                extra={"event": "emit_without_effect", "reason": reason},
            )  # fmt: skip


def _check_queue(queue: socketio.PubSubManager, channel: str | None) -> None:
    """Say why what other processes emit through the application's message queue does not reach our clients."""
    if not isinstance(queue, socketio.RedisManager):
        log.warning(
            "the application's message queue is not read, as it is no Redis: what other processes emit through it "
            "reaches no client; let them publish with WebSocketNotifier",
            extra={"event": "queue_not_read", "reason": "no Redis"},
        )
    elif queue.channel != channel:
        log.warning(
            "the application's message queue is not read: what other processes emit through it reaches no client; "
            "start with --redis-channel %s, and that Redis as --redis-url",
            queue.channel,
            extra={"event": "queue_not_read", "reason": "another channel"},
        )
