"""Nodes in processes of their own that hear a channel, while one of them is killed or stopped."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from automoderate.core.hub import Published
from kits import PATIENCE, until
from kits.live_server import LiveServer
from kits.processes import Process, stop_process
from kits.redis_server import Node, RedisServer, emitting

SOURCES = 3


class Burst:
    """Several processes' worth of emits, until it has gone on for long enough."""

    def __init__(self, server: RedisServer, project: str) -> None:
        self._server = server
        self._project = project
        self._enough = threading.Event()
        self.sent = [0] * SOURCES

    def run(self, meanwhile: Callable[[], object]) -> list[list[int]]:
        """Emit while something happens; what each source has emitted."""
        with ThreadPoolExecutor(SOURCES) as threads:
            sources = [threads.submit(self._emit, source) for source in range(SOURCES)]
            try:
                self.go_on()
                meanwhile()
                self.go_on()
            finally:
                self._enough.set()
            for source in sources:
                source.result(PATIENCE)
        return [[source * 1_000_000 + number for number in range(self.sent[source])] for source in range(SOURCES)]

    def go_on(self) -> None:
        """Wait until each source has emitted some more."""
        before = list(self.sent)
        until(lambda: all(now >= then + 50 for now, then in zip(self.sent, before, strict=True)), "more is emitted")

    def _emit(self, source: int) -> None:
        with emitting(self._server) as emit:
            while not self._enough.is_set():
                emit(self._project, source * 1_000_000 + self.sent[source])
                self.sent[source] += 1
                self._enough.wait(0.002)  # a burst, not as much as this machine can do


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LiveServer]:
    world = LiveServer(tmp_path)
    yield world
    world.close()


@pytest.fixture
def nodes(tmp_path: Path, server: RedisServer, world: LiveServer) -> Iterator[tuple[Process, Process]]:
    options = {
        "redis_url": server.url, "redis_channel": "socketio", "database_url": str(world.database), "port": "0",
        "history_entries": "1000000",
    }  # fmt: skip
    a, b = (Process(tmp_path / f"{name}.log", **options) for name in "ab")
    try:
        for node in (a, b):
            node.start()
            until(lambda node=node: ready(node))  # type: ignore[misc]
        yield a, b
    finally:
        a.close()
        b.close()


@pytest.fixture
def watcher(new_node: Callable[..., Node], world: LiveServer) -> Node:
    """A node that hears no channel, and sees all that the others publish."""
    watcher = new_node()
    watcher.follow(world.project)
    return watcher


def ready(node: Process) -> bool:
    return requests.get(f"http://127.0.0.1:{node.port}/readyz", timeout=PATIENCE).status_code == 200


def messages(node: Process) -> int:
    """How many updates the node has heard on the channel."""
    text = requests.get(f"http://127.0.0.1:{node.port}/metrics", timeout=PATIENCE).text
    (found,) = re.findall(r"^automoderate_backplane_channel_messages_total (\S+)$", text, re.MULTILINE)
    return int(float(found))


def seen(watcher: Node, server: RedisServer, project: str) -> list[list[int]]:
    """What was published of each source, up to an update that is the last."""
    with emitting(server) as emit:
        emit(project, -1)

    def published() -> list[int]:
        return [item.update.data["number"] for item in list(watcher.told) if isinstance(item, Published)]

    until(lambda: published()[-1:] == [-1], "the last is published")
    assert watcher.lost == []
    return [[number for number in published() if number // 1_000_000 == source] for source in range(SOURCES)]


def test_nothing_is_lost_or_doubled_when_a_node_is_killed_and_comes_back(
    nodes: tuple[Process, Process], watcher: Node, server: RedisServer, world: LiveServer
) -> None:
    def kill_and_start() -> None:
        assert nodes[0].stop(signal.SIGKILL) == -signal.SIGKILL
        burst.go_on()
        nodes[0].start()
        until(lambda: ready(nodes[0]))

    burst = Burst(server, world.project)
    emitted = burst.run(kill_and_start)
    assert seen(watcher, server, world.project) == emitted


def test_a_node_that_was_stopped_publishes_nothing_again_of_what_it_finds(
    nodes: tuple[Process, Process], watcher: Node, server: RedisServer, world: LiveServer
) -> None:
    def stop_and_go_on() -> None:
        stop_process(nodes[0].pid)
        burst.go_on()
        os.kill(nodes[0].pid, signal.SIGCONT)

    burst = Burst(server, world.project)
    emitted = burst.run(stop_and_go_on)
    until(lambda: messages(nodes[0]) == sum(burst.sent), "it has come to the end of what it found")
    assert seen(watcher, server, world.project) == emitted


def test_a_node_that_runs_alone_hears_the_channel_at_once(
    nodes: tuple[Process, Process], watcher: Node, server: RedisServer, world: LiveServer
) -> None:
    assert nodes[0].stop() == 0
    with emitting(server) as emit:
        emit(world.project, 7)
    until(lambda: [item.update.data["number"] for item in watcher.told if isinstance(item, Published)] == [7])
    assert nodes[1].log.count("Listening to the channel socketio of Redis") == 1
