"""What is the same on every runtime, without one."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import cast

import pytest

from automoderate.adapters._poller import EVENTS_PER_TURN
from automoderate.adapters.runtime import Options, Runtime
from automoderate.protocol.driver import Driver
from kits import PATIENCE
from kits.adapters import Script

NOW = 7.0


@pytest.fixture
def script() -> Script:
    """The driver."""
    return Script()


@pytest.fixture
def runtime(script: Script) -> Iterator[Runtime]:
    """One whose time stands still."""
    with Runtime(cast(Driver, script), Options(port=0), lambda: NOW) as runtime:
        runtime.begin()
        yield runtime


def awake(runtime: Runtime) -> bool:
    """Whether its descriptor can be read."""
    return bool(select.select([runtime], [], [], 0)[0])


def test_what_a_turn_leaves_to_the_next_makes_that_due_and_rings_no_bell(runtime: Runtime) -> None:
    second: list[Future[str]] = []
    first = runtime.handle.submit(lambda _now: second.append(runtime.handle.submit(lambda _now: "done")))
    assert awake(runtime)
    runtime.turn()
    first.result(0)
    assert not second[0].done()
    assert runtime.deadline <= NOW
    assert not awake(runtime)
    runtime.turn()
    assert second[0].result(0) == "done"
    assert runtime.deadline > NOW


def test_what_another_thread_says_during_a_turn_is_heard(runtime: Runtime) -> None:
    said: list[Future[str]] = []

    def turn(_now: float) -> None:
        other = threading.Thread(target=lambda: said.append(runtime.handle.submit(lambda _now: "done")))
        other.start()
        other.join(PATIENCE)

    runtime.handle.submit(turn)
    runtime.turn()
    assert awake(runtime)
    runtime.turn()
    assert said[0].result(0) == "done"


def test_what_is_said_between_two_turns_wakes_the_runtime_up(runtime: Runtime) -> None:
    runtime.turn()
    done = runtime.handle.submit(lambda _now: "done")
    assert awake(runtime)
    runtime.turn()
    assert done.result(0) == "done"


def test_a_watched_descriptor_does_not_stand_in_line_behind_many_connections(runtime: Runtime) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    seen: list[bytes] = []

    def ready(_now: float) -> bool:
        with contextlib.suppress(BlockingIOError):
            seen.append(os.read(reading, 100))
        return True

    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(3 * EVENTS_PER_TURN):
            clients.append(stack.enter_context(socket.create_connection(runtime.handle.addresses[0])))
            runtime.turn()  # it takes that one
        watched = runtime.handle.watch(reading, ready)
        runtime.turn()
        watched.result(0)
        for client in clients:
            client.sendall(b"echo in\n")
        os.write(writing, b"something")
        runtime.turn()
        runtime.turn()
        assert seen == [b"something"]
    os.close(reading)
    os.close(writing)


def test_what_the_driver_wants_in_a_turn_is_done_in_the_next(script: Script, runtime: Runtime) -> None:
    runtime.handle.submit(lambda now: setattr(script, "deadline", now))
    runtime.turn()
    assert script.ticks == []
    assert runtime.deadline <= NOW
    runtime.turn()
    assert script.ticks == [NOW]
    assert runtime.deadline > NOW
