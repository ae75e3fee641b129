"""A real Redis of a test's own, which it may kill, stop and start again, and nodes in this process that use it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import redis
import socketio

from automoderate.adapters import asyncio
from automoderate.adapters.runtime import Handle, Options
from automoderate.backplane.redis import RedisBackplane
from automoderate.core.hub import History, HistoryLost, Published
from automoderate.protocol.config import Config
from automoderate.protocol.socketio import SocketIOServer
from automoderate.server.interfaces import Hear, Heard
from kits import PATIENCE, until
from kits.cables import Cable
from kits.processes import steady_port, stop_process


class RedisServer:
    """``redis-server`` on a free loopback port; what was written survives a kill."""

    def __init__(self, folder: Path, *, cluster: bool = False) -> None:
        self._folder = folder
        self._cluster = "yes" if cluster else "no"
        self.port = _port(cluster)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def through(self, cable: Cable) -> str:
        """Its URL for somebody at the other end of a cable."""
        return self.url.replace(f":{self.port}/", f":{cable.port}/")

    def start(self) -> None:
        """Start it, with what it remembers, and wait until it answers."""
        command = shutil.which("redis-server")
        assert command is not None, "no redis-server: run scripts/install-services"
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": str(self._folder), "save": "", "appendonly": "yes",
            "appendfsync": "no", "logfile": str(self._folder / "redis.log"), "cluster-enabled": self._cluster,
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([command, *words])
        until(self._answers, "Redis answers")

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def forget(self) -> None:
        """Forget everything while it is not running."""
        shutil.rmtree(self._folder / "appendonlydir")

    def pause(self) -> None:
        """It answers nobody, and its connections stay."""
        assert self._process is not None
        stop_process(self._process.pid)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self.kill()

    # What it may refuse; each until the block ends

    @contextlib.contextmanager
    def set(self, **options: str) -> Iterator[None]:
        """Configured in another way."""
        names = {name.replace("_", "-"): value for name, value in options.items()}
        with self.client() as client:
            before = {name: client.config_get(name)[name] for name in names}
            for name, value in names.items():
                client.config_set(name, value)
            try:
                yield
            finally:
                for name, value in before.items():
                    client.config_set(name, value)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """All its memory is used."""
        with self.set(maxmemory="1"):
            yield

    @contextlib.contextmanager
    def without_disk(self) -> Iterator[None]:
        """Its last snapshot could not be written, as of one whose disk is full."""
        snapshot = self._folder / "dump.rdb"
        snapshot.mkdir()
        with self.client() as client, self.set(appendonly="no", save="3600 1000000"):
            client.bgsave()
            until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            try:
                yield
            finally:
                snapshot.rmdir()
                client.bgsave()
                until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")

    @contextlib.contextmanager
    def a_replica(self) -> Iterator[None]:
        """A replica, whose master is not there."""
        with self.client() as client, socket.create_server(("127.0.0.1", 0)) as nobody:
            client.replicaof("127.0.0.1", nobody.getsockname()[1])
            try:
                yield
            finally:
                client.replicaof("NO", "ONE")

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A client of its own, for a test to look or to meddle."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            yield client

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "redis.log").read_text("utf-8")
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


def _port(cluster: bool) -> int:
    """A free port to come back to; a node of a cluster takes the one 10,000 above it, too."""
    while True:
        port = steady_port()
        if not cluster:
            return port
        if port + 10_000 > 65_535:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 10_000)):
            return port


@contextlib.contextmanager
def emitting(server: RedisServer, channel: str = "socketio") -> Iterator[Callable[[str, int], None]]:
    """Emits numbered updates to projects' rooms as a process does that knows python-socketio and nothing of ours."""
    manager = socketio.RedisManager(server.url, channel=channel, write_only=True)

    def emit(project_id: str, number: int) -> None:
        data = {"project_id": project_id, "number": number}
        manager.emit("moderation_update", data, room=f"project_{project_id}")

    try:
        yield emit
    finally:
        disconnect(manager)


def disconnect(manager: Any) -> None:
    """Leave none of a RedisManager's connections behind."""
    if manager.redis is not None:
        manager.pubsub.close()
        manager.redis.close()


class Loop:
    """A running loop without anything to serve."""

    def __init__(self) -> None:
        ready: Future[Handle] = Future()
        driver = SocketIOServer(Config(), new_id=lambda: secrets.token_hex(8))
        run = partial(asyncio.run, driver, Options(port=0), on_ready=ready.set_result, handle_signals=False)
        self._thread = threading.Thread(target=run, name="loop", daemon=True)
        self._thread.start()
        self.handle = ready.result(PATIENCE)

    def stop(self) -> None:
        """End it, and wait for that."""
        self.handle.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the loop did not end"


class Node:
    """A backplane, and in place of a server a list of what it was told: by its thread, or on a ``loop`` as servers are.

    ``heard_on_loop`` are those that the loop has heard by itself.
    """

    def __init__(self, url: str, loop: Loop | None = None, **options: Any) -> None:
        self.backplane = RedisBackplane(url, **options)
        self.heard_on_loop: list[Heard] = []
        self.told: list[Heard] = []
        self.acted: Future[None] | None = None
        """When the server will have acted on what it is told next; None: at once."""
        if loop is None:
            self.backplane.start(self._receive)
            return
        handle = loop.handle

        def listen(fileno: int, hear: Hear) -> Future[None]:
            return handle.watch(fileno, lambda _now: hear(self._hear))

        self.backplane.start(lambda items: handle.submit(lambda _now: self._receive(items)), listen)

    def _hear(self, items: Sequence[Heard]) -> None:
        self.heard_on_loop.extend(items)
        self._receive(items).result(PATIENCE)

    def _receive(self, items: Sequence[Heard]) -> Future[None]:
        self.told.extend(items)
        if self.acted is not None:
            return self.acted
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def follow(self, project_id: str = "p") -> str:
        """Follow a project from now on; returns where it is."""
        self.backplane.follow(project_id)
        return self.read(project_id, None).last_event_id

    def read(self, project_id: str, after: str | None, newest: int = 0, before: str | None = None) -> History:
        """The history, read on this thread."""
        return self.backplane.read(project_id, after, newest, before)()

    def publish(self, *numbers: int, project_id: str = "p") -> list[str]:
        """Publish and wait until each is accepted; returns the event ids."""
        futures = [self.backplane.publish(project_id, "stats_update", f'{{"n":{number}}}') for number in numbers]
        return [future.result(PATIENCE) for future in futures]

    @property
    def numbers(self) -> list[int]:
        """The updates it was told of."""
        return [item.update.data["n"] for item in list(self.told) if isinstance(item, Published)]

    @property
    def lost(self) -> list[str]:
        return [item.project_id for item in list(self.told) if isinstance(item, HistoryLost)]

    def hears(self) -> bool:
        return self.backplane.hearing
