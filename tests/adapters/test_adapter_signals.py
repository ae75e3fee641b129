"""Leaving on signals: every adapter in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import adapter_kit
import pytest
from adapter_kit import PATIENCE, Peerside

import automoderate

ROOT = Path(automoderate.__file__).parents[1]


@contextmanager
def process(kind: str, drain_timeout: float) -> Iterator[tuple[subprocess.Popen[str], Callable[[], Peerside]]]:
    """A server in a process of its own, and a way to connect to it."""
    command = [sys.executable, "-W", "error", adapter_kit.__file__, kind, str(drain_timeout)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            yield server, lambda: Peerside.connect(("127.0.0.1", port))
        finally:
            server.kill()


def left_cleanly(server: subprocess.Popen[str]) -> bool:
    _, complaints = server.communicate(timeout=PATIENCE)
    assert "Traceback" not in complaints
    return server.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves(kind: str, number: signal.Signals) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.send_signal(number)
        assert client.line() == b"draining"
        client.send(b"echo still served\nrelease\n")
        assert client.rest() == b"still served\nreleased\n"
        assert left_cleanly(server)


def test_a_signal_in_the_middle_of_a_broadcast_cuts_nothing_short(kind: str) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as client, connect() as other:
        other.send(b"echo in\n")
        assert other.line() == b"in"
        client.send(b"broadcast 500\n")
        # Half a megabyte for each: more than their kernels take while they do not read.
        assert client.line().startswith(b"0 ")
        server.send_signal(signal.SIGTERM)
        expected = [b"%d" % number for number in range(500)]
        assert [line.partition(b" ")[0] for line in client.rest().splitlines()] == [*expected[1:], b"draining"]
        assert [line.partition(b" ")[0] for line in other.rest().splitlines()] == [*expected, b"draining"]
        assert left_cleanly(server)


def test_a_second_signal_leaves_at_once(kind: str) -> None:
    with process(kind, 3600) as (server, connect), connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.send_signal(signal.SIGTERM)
        assert client.line() == b"draining"
        server.send_signal(signal.SIGINT)
        assert client.ended()
        assert left_cleanly(server)


def test_leaving_takes_no_longer_than_it_may(kind: str) -> None:
    with process(kind, 0.05) as (server, connect), connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.send_signal(signal.SIGTERM)
        assert client.ended()
        assert left_cleanly(server)


def test_a_job_that_never_ends_does_not_keep_the_process(kind: str) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as client:
        client.send(b"stuck\n")
        assert client.line() == b"at it"
        server.send_signal(signal.SIGTERM)
        client.ended()
        assert left_cleanly(server)
