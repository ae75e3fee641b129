"""What signals do to a server with its workers or without, and what the log says of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from kits import PATIENCE, until
from kits.processes import Process
from kits.redis_server import RedisServer

Serve = Callable[..., Process]

each_way = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture
def serve(new_process: Callable[..., Process], redis_server: RedisServer) -> Serve:
    """Start a server with so many workers, perhaps by another command."""

    def start(workers: int, *started_by: str) -> Process:
        server = new_process(started_by, port="0", redis_url=redis_server.url, workers=str(workers))
        server.start(workers)
        return server

    return start


@each_way
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_says_what_it_does(serve: Serve, workers: int, number: signal.Signals) -> None:
    """SIGHUP, too: without a certificate there is nothing to read again, and a terminal that closes sends it."""
    server = serve(workers)
    assert server.stop(number) == 0
    said = "clients are told to come back elsewhere, running requests have 10 s"
    if workers == 1:
        assert f"Leaving on {number.name}: {said}" in server.log
    else:
        assert f"{number.name}: the workers leave" in server.log
        assert server.log.count(f"Leaving on SIGTERM: {said}") == workers


@each_way
def test_who_is_to_outlive_the_terminal_does(serve: Serve, workers: int) -> None:
    server = serve(workers, "nohup")
    os.kill(server.pid, signal.SIGHUP)
    assert requests.get(f"http://127.0.0.1:{server.port}/health", timeout=PATIENCE).status_code == 200
    assert server.stop() == 0
    assert "SIGHUP" not in server.log
    assert "SIGTERM" in server.log


def test_a_second_signal_says_so(serve: Serve) -> None:
    server = serve(1)
    with requests.get(f"http://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=polling", timeout=PATIENCE) as answer:
        assert answer.status_code == 200
    os.kill(server.pid, signal.SIGTERM)
    until(lambda: "Leaving on SIGTERM" in server.log)
    assert server.stop(signal.SIGINT) == 0
    assert "Leaving at once on SIGINT; " in server.log


SIGNALLED = """
import signal, weakref

class Thing: ...

thing = Thing()
gone = weakref.ref(thing, lambda _: signal.raise_signal(signal.{}))
del thing
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_that_is_starting_wherever_it_comes(tmp_path: Path, number: signal.Signals) -> None:
    """Python loses an exception of a callback of its memory management, KeyboardInterrupt too."""
    (tmp_path / "signalled.py").write_text(SIGNALLED.format(number.name))
    starting = Process(tmp_path / "log", wsgi="signalled:app")
    starting.folder = tmp_path
    starting.launch()
    assert starting.wait() == -number
    assert starting.log == ""
