"""Nodes that share a Redis, and a process that publishes through it: measured as if they were one server."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from benchmarks.child import Child, ChildFailed, cpu_seconds
from benchmarks.servers import STARTING, Contender, Server, needs, publish_command

PUBLISHER = (sys.executable, "-m", "benchmarks.publisher")
PORTS = range(10_000, 32_768)  # those above are handed out to clients, and one of them may be quicker


class Redis:
    """A ``redis-server`` that is empty and nobody else's, and keeps what it is told as one in production does.

    That is ``appendonly yes``, written to disk every second, and no snapshots. Raises :exc:`ChildFailed`.
    """

    def __init__(self, core: int | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="automoderate-redis-")
        self._log = Path(self._folder.name) / "redis.log"
        self.port = free_port()
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": self._folder.name, "logfile": str(self._log),
            "save": "", "appendonly": "yes", "appendfsync": "everysec",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *words], stdin=subprocess.DEVNULL)
        try:
            if core is not None:
                os.sched_setaffinity(self._process.pid, {core})
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cpu(self) -> float:
        """CPU seconds it has used."""
        return cpu_seconds(self._process.pid)

    def close(self) -> None:
        """End it, and forget what it has kept."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + STARTING
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text().split("\n")[-2:] if self._log.exists() else []
                raise ChildFailed(f"redis-server does not start: {' '.join(said).strip()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), STARTING) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")
        return False


def missing() -> str | None:
    """Why there can be no nodes that share a Redis here, in one line that names the fix; None where there can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed; scripts/install-services"
    return needs(redis="redis")()


def redis_version() -> dict[str, str]:
    """The version of ``redis-server``, by its name."""
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    words = dict(word.partition("=")[::2] for word in said.split())
    return {"redis-server": words["v"]}


class Cluster:
    """Several servers that share a Redis, and who publishes to them. Raises :exc:`ChildFailed`.

    ``cores`` are the nodes', ``others`` is that of Redis and the publisher.
    """

    def __init__(self, contender: Contender, config: Path, cores: Sequence[int | None], others: int | None) -> None:
        with contextlib.ExitStack() as running:
            self._redis = Redis(others)
            running.callback(self._redis.close)
            node = evolve(contender, argv=(*contender.argv, self._redis.url))
            self._nodes: list[Server] = []
            for core in cores[: contender.nodes]:
                self._nodes.append(Server(node, config, core))
                running.callback(self._nodes[-1].close)
            reading, self.receipts = os.pipe()
            running.callback(os.close, self.receipts)  # before the publisher ends, which otherwise waits for more
            os.set_blocking(self.receipts, False)
            try:
                argv = [*(contender.publisher or PUBLISHER), str(config), self._redis.url, str(reading)]
                self._publisher = Child(argv, others, [reading])
            finally:
                os.close(reading)
            running.callback(self._publisher.close)
            self._publisher.hear(STARTING)
            self._running = running.pop_all()

    @property
    def ports(self) -> Sequence[int]:
        """One for each node."""
        return [port for node in self._nodes for port in node.ports]

    def publish(self, *, rooms: int, updates: int, batch: int, rate: float | None) -> None:
        """Begin to publish; ``hear`` has the answer."""
        self._publisher.say(publish_command(rooms=rooms, updates=updates, batch=batch, rate=rate))

    def hear(self, seconds: float) -> dict[str, Any]:
        """What the publisher answers."""
        return self._publisher.hear(seconds)

    def cpu(self) -> float:
        """CPU seconds all nodes have used."""
        return sum(node.cpu() for node in self._nodes)

    def resident(self) -> int:
        """Bytes of all nodes that are in memory."""
        return sum(node.resident() for node in self._nodes)

    def spent(self) -> dict[str, float]:
        """CPU seconds used so far, by who has used them."""
        return {"server": self.cpu(), "redis": self._redis.cpu(), "publisher": self._publisher.cpu()}

    def close(self) -> None:
        self._running.close()


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens at present."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
