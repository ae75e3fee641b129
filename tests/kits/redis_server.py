"""A real Redis of a test's own, which it may kill, stop and start again, and nodes in this process that use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import redis
import socketio
from live_server import PATIENCE, steady_port, until

from automoderate.backplane.redis import RedisBackplane
from automoderate.core.hub import Input, Lost, Published


class RedisServer:
    """``redis-server`` on a free loopback port; what was written survives a kill."""

    def __init__(self, folder: Path, *, cluster: bool = False) -> None:
        self._folder = folder
        self._cluster = "yes" if cluster else "no"
        self.port = _port(cluster)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

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
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self.kill()

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
        manager.emit("moderation_update", {"number": number}, room=f"project_{project_id}")

    try:
        yield emit
    finally:
        disconnect(manager)


def disconnect(manager: Any) -> None:
    """Leave none of a RedisManager's connections behind."""
    if manager.redis is not None:
        manager.pubsub.close()
        manager.redis.close()


class Node:
    """A backplane, and in place of a server a list of what it was told."""

    def __init__(self, url: str, **options: Any) -> None:
        self.backplane = RedisBackplane(url, **options)
        self.told: list[Input] = []
        self.backplane.start(self._receive)

    def _receive(self, items: list[Input]) -> Future[None]:
        self.told.extend(items)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def follow(self, project_id: str = "p") -> str:
        """Follow a project from now on; returns where it is."""
        self.backplane.follow(project_id)
        return self.backplane.read(project_id, None).last_event_id

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
        return [item.project_id for item in list(self.told) if isinstance(item, Lost)]

    def hears(self) -> bool:
        return not self.backplane.deaf
