"""Servers of python-socketio in this process, of every kind that ``attach`` takes, each on a free loopback port."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import flask
import flask_socketio
import socketio
import uvicorn
from attrs import Factory, define
from starlette.applications import Starlette
from werkzeug.serving import WSGIRequestHandler, make_server

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Access, Hub, Identity, Limits
from automoderate.integrations.socketio import attach
from automoderate.testing import MemoryDirectory
from kits import PATIENCE
from kits.real_clients import Clients, RealClient

PINGS = {"ping_interval": 1.0, "ping_timeout": 20.0}
"""A poll that waits when its session ends is answered only after both."""


@define
class SlowDirectory(MemoryDirectory):
    """Questions wait while it is held, and fail while it is away."""

    free: threading.Event = Factory(threading.Event)
    away: bool = False

    def _ready(self) -> None:
        assert self.free.wait(PATIENCE)
        if self.away:
            raise OSError("the database is away")

    def identify(self, cookie: str | None) -> Identity | None:
        self._ready()
        return super().identify(cookie)

    def check_access(self, user_id: str, project_id: str) -> Access:
        self._ready()
        return super().check_access(user_id, project_id)

    def recheck(self, user_id: str, project_ids: Any) -> frozenset[str] | None:
        self._ready()
        return super().recheck(user_id, project_ids)


class World(ABC):
    """A running server with the rules attached. Users ``alice``, ``bob``, ``carol``; ``gone`` is inactive.

    Project ``p`` is alice's and bob is a member; ``q`` is alice's.
    """

    sio: Any

    def __init__(self, **limits: Any) -> None:
        self.directory = SlowDirectory()
        self.directory.free.set()
        for user_id in ("alice", "bob", "carol"):
            self.directory.add_user(user_id)
        self.directory.add_user("gone", active=False)
        self.directory.add_project("p", owner="alice", members=["bob"])
        self.directory.add_project("q", owner="alice")
        self.hub = Hub(Limits(**{"auth_grace": 0.3, "check_timeout": PATIENCE} | limits), random=random.random)
        self._clients = Clients("chat")
        self.application_saw: list[tuple[str, Any]] = []
        self.sids: list[str] = []
        """Of those whom the application let in, in their order."""
        self.gate = threading.Event()
        """What the application's ``connect`` handler waits for where the cookie says "slow"."""
        self.build()
        self.attachment = attach(self.sio, self.hub, directory=self.directory, backplane=MemoryBackplane())
        self.register_handlers()
        self.port = self.serve()

    @abstractmethod
    def build(self) -> None:
        """Make ``sio``."""

    @abstractmethod
    def register_handlers(self) -> None:
        """An application's own handlers, which ``saw`` what reached them."""

    @abstractmethod
    def serve(self) -> int:
        """Begin to serve; the port."""

    @abstractmethod
    def take_off(self) -> None:
        """Take the rules off, and wait until that is done."""

    @abstractmethod
    def stop(self) -> None:
        """Take the rules off and stop the server."""

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run it where the server runs."""
        raise TypeError(f"this server has no loop for {coroutine!r}")

    def saw(self, event: str, data: Any) -> None:
        self.application_saw.append((event, data))

    def publish(self, *numbers: int, project: str = "p") -> list[str]:
        updates = [{"project_id": project, "n": number} for number in numbers]
        futures = [self.attachment.publish(project, "moderation_update", update) for update in updates]
        return [future.result(PATIENCE) for future in futures]

    def client(self, user: str | None, transports: str = "websocket", library: str | None = None) -> RealClient:
        """A client that connects; ``user`` None: without a cookie.

        Polling is done by Node: python-socketio's server leaves the last poll of a session unanswered for a while,
        and its asynchronous client waits for it, in vain or not at all.
        """
        library = library or ("node" if transports == "polling" else "python-async")
        cookie = None if user is None else self.directory.cookie_of(user)
        client = self._clients(f"http://127.0.0.1:{self.port}", cookie, transports, library)
        client.connect()
        return client

    def welcome(self, user: str, transports: str = "websocket") -> RealClient:
        """A client that was welcomed."""
        client = self.client(user, transports)
        client.wait("connected")
        return client

    def close(self) -> None:
        self.directory.free.set()
        self.gate.set()
        self._clients.close()
        self.stop()


class AsgiWorld(World):
    """``socketio.AsyncServer`` in front of a Starlette application, under uvicorn."""

    def build(self) -> None:
        self.sio = socketio.AsyncServer(async_mode="asgi", **PINGS)

    def register_handlers(self) -> None:
        async def connect(sid: str, environ: Any) -> None:
            if "refuse" in environ.get("HTTP_COOKIE", ""):
                raise socketio.exceptions.ConnectionRefusedError("not you")
            self.saw("connect", None)
            self.sids.append(sid)
            if "slow" in environ.get("HTTP_COOKIE", ""):
                await asyncio.to_thread(self.gate.wait, PATIENCE)

        async def chat(_sid: str, data: Any) -> str:
            self.saw("chat", data)
            return "heard"

        self.sio.on("connect", connect)
        self.sio.on("chat", chat)

    def serve(self) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            socketio.ASGIApp(self.sio, Starlette()), log_level="critical", ws="wsproto", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._server.config.load()
        self._thread = threading.Thread(target=self._run, args=(listener,))
        self._thread.start()
        port: int = listener.getsockname()[1]
        return port

    def _run(self, listener: socket.socket) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve([listener])
            await self.attachment.aclose()
            await self.sio.shutdown()

        asyncio.run(serve())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def take_off(self) -> None:
        self.run(self.attachment.aclose())

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: the tests look at what clients see."""


class ThreadsWorld(World):
    """``socketio.Server`` with threads, under Werkzeug's server."""

    def build(self) -> None:
        self.sio = socketio.Server(async_mode="threading", **PINGS)
        self.application: Any = socketio.WSGIApp(self.sio)

    def register_handlers(self) -> None:
        def connect(sid: str, environ: Any) -> None:
            if "refuse" in environ.get("HTTP_COOKIE", ""):
                raise socketio.exceptions.ConnectionRefusedError("not you")
            self.saw("connect", None)
            self.sids.append(sid)
            if "slow" in environ.get("HTTP_COOKIE", ""):
                self.gate.wait(PATIENCE)

        def chat(_sid: str, data: Any) -> str:
            self.saw("chat", data)
            return "heard"

        self.sio.on("connect", connect)
        self.sio.on("chat", chat)

    def serve(self) -> int:
        self._server = make_server("127.0.0.1", 0, self.application, threaded=True, request_handler=QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self._server.port

    def take_off(self) -> None:
        self.attachment.close()

    def stop(self) -> None:
        self.attachment.close()
        self.sio.shutdown()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._server.server_close()


class FlaskWorld(ThreadsWorld):
    """The ``.server`` of Flask-SocketIO."""

    def build(self) -> None:
        self.application = flask.Flask("attached")
        self._extension = flask_socketio.SocketIO(self.application, async_mode="threading", **PINGS)
        self.sio = self._extension.server

    def register_handlers(self) -> None:
        def connect(_auth: object = None) -> None:
            if "refuse" in flask.request.headers.get("Cookie", ""):
                raise flask_socketio.ConnectionRefusedError("not you")
            self.saw("connect", None)
            self.sids.append(flask.request.sid)  # type: ignore[attr-defined]
            if "slow" in flask.request.headers.get("Cookie", ""):
                self.gate.wait(PATIENCE)

        def chat(data: Any) -> str:
            self.saw("chat", data)
            return "heard"

        self._extension.on_event("connect", connect)
        self._extension.on_event("chat", chat)


KINDS: dict[str, Callable[..., World]] = {"asgi": AsgiWorld, "threads": ThreadsWorld, "flask": FlaskWorld}


@contextmanager
def running_world(kind: str, **limits: Any) -> Iterator[World]:
    world = KINDS[kind](**limits)
    try:
        yield world
    finally:
        world.close()
