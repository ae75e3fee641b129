"""What is eventlet's own: its hub, its greenlets, and a standard library that may be patched."""

from __future__ import annotations

import gc
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import eventlet_server
import pytest
from adapter_kit import PATIENCE, Peerside, Running, Script, Start

import automoderate
from automoderate import adapters
from automoderate.protocol.outputs import Driver, Write

ROOT = Path(automoderate.__file__).parents[1]


@pytest.fixture
def kind() -> str:
    """These tests are for this one."""
    return "eventlet"


def hub_of(server: Running) -> Any:
    """The hub a server runs on."""
    from eventlet import hubs

    return server.call(lambda now: hubs.get_hub())


def greenlets() -> int:
    """How many there are that have begun and not ended."""
    from eventlet.support.greenlets import greenlet

    gc.collect()
    return sum(isinstance(each, greenlet) and bool(each) for each in gc.get_objects())


def test_connections_need_no_greenlets_and_leave_nothing_on_the_hub(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=16 * 1024 * 1024)
    hub = hub_of(server)

    def counted(now: float) -> tuple[int, int, int]:
        return greenlets(), len(hub.get_readers()), len(hub.get_writers())

    nobody, readers, writers = server.call(counted)
    clients = [server.connect() for _ in range(300)]
    for client in clients:
        client.send(b"echo in\n")
        assert client.line() == b"in"
    for client in clients[:5]:
        client.narrow()
    stalled = [line.itself for line in driver.lines[:5]]
    server.call(lambda now: driver.queue(*(Write(connection, b"x" * 4_000_000) for connection in stalled)))
    assert server.call(counted) == (nobody, readers + 300, writers + 5)
    for number, client in enumerate(clients):
        if number % 2:
            client.reset()
        else:
            client.sock.close()
    driver.wait_for(lambda: len(driver.lost) == 300)
    assert server.call(counted) == (nobody, readers, writers)
    assert server.call(lambda now: hub.get_timers_count()) == 0


def test_a_peer_that_stalls_again_and_again_loses_nothing_and_then_is_written_to_directly(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=16 * 1024 * 1024)
    hub = hub_of(server)
    with server.connect_slow() as client, server.connect() as other:
        for each in (client, other):
            each.send(b"echo in\n")
            assert each.line() == b"in"
        number = 0
        for _ in range(3):
            began = number
            while not server.call(lambda now: hub.get_writers()):
                text = b"%d %s\n" % (number, b"x" * 100_000)
                server.call(lambda now, text=text: driver.shout(text))  # type: ignore[misc]
                assert other.line() == text.rstrip()
                number += 1
            server.call(lambda now: driver.shout(b"behind them\n"))  # waits behind what waits already
            assert other.line() == b"behind them"
            assert [client.line().partition(b" ")[0] for _ in range(began, number)] == [
                b"%d" % each for each in range(began, number)
            ]
            assert client.line() == b"behind them"
            assert not server.call(lambda now: hub.get_writers())


def test_the_hub_has_nothing_to_complain_about(
    start: Start, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"boom\n")
        assert client.ended()
    assert "a mistake in the driver" in caplog.text
    caplog.clear()
    clients = [server.connect() for _ in range(50)]
    for client in clients:
        client.send(b"shout all at once\n")
        client.reset()
    driver.wait_for(lambda: len(driver.lost) == 51)
    server.stop()
    assert "Traceback" not in capfd.readouterr().err


def test_it_may_be_one_greenlet_among_others() -> None:
    adapter = adapters.load("eventlet")
    driver = Script()
    said: list[bytes] = []

    def client(handle: adapters.Handle) -> None:
        sock = eventlet.connect(handle.addresses[0])
        sock.sendall(b"echo from the same thread\n")
        said.append(sock.recv(1000))
        sock.close()
        handle.stop()

    import eventlet

    adapter.run(
        cast(Driver, driver),
        host="127.0.0.1",
        port=0,
        on_ready=lambda handle: eventlet.spawn_n(client, handle),
        handle_signals=False,
    )
    assert said == [b"from the same thread\n"]


def test_other_greenlets_survive_the_server() -> None:
    adapter = adapters.load("eventlet")
    import eventlet

    go_on = eventlet.event.Event()

    def other() -> str:
        eventlet.sleep(0.01)
        go_on.wait()
        return "still here"

    waiting = eventlet.spawn(other)
    adapter.run(
        cast(Driver, Script()), host="127.0.0.1", port=0, on_ready=lambda handle: handle.stop(), handle_signals=False
    )
    go_on.send()
    assert waiting.wait() == "still here"


def test_a_thread_that_has_served_leaves_no_hub_behind() -> None:
    def files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = files()
    for _ in range(3):
        server = Running("eventlet", Script(), {})
        with server.connect() as client:
            client.send(b"alarm 3600\nalarm 0.01\n")
            assert client.line() == b"ring"
        server.stop()
        del server
    assert files() == before


def test_signals_are_somebody_elses_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    adapters.load("eventlet").run(
        cast(Driver, Script()), host="127.0.0.1", port=0, on_ready=lambda handle: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert signal.getsignal(signal.SIGTERM) == before


@contextmanager
def process(patched: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """The program of ``eventlet_server`` and its two ports; SIGTERM ends it."""
    command = [sys.executable, "-W", "error", eventlet_server.__file__, patched]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline().split()
            if len(said) == 2:
                yield server, int(said[0]), int(said[1])
            else:
                server.kill()
                pytest.fail(f"it did not start:\n{server.communicate()[1]}")
            server.terminate()
            _, complaints = server.communicate(timeout=PATIENCE)
            assert complaints.count("Traceback") == complaints.count("RuntimeError: a mistake in the driver")
            assert ("Threads are monkey-patched" in complaints) == (
                patched in ("before the imports", "after the imports")
            )
            assert server.returncode == 0
        finally:
            server.kill()


@pytest.fixture(params=[*eventlet_server.PATCHED, "on asyncio"])
def patched(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process for each way of patching, and one with eventlet's hub that runs on asyncio."""
    if request.param == "on asyncio":
        with process("before the imports", EVENTLET_HUB="asyncio") as running:
            yield running
    else:
        with process(request.param) as running:
            yield running


def get(port: int, path: str) -> bytes:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request("GET", path)
        return client.getresponse().read()
    finally:
        client.close()


def test_patched_or_not_it_works(patched: tuple[subprocess.Popen[str], int, int]) -> None:
    _, script, _ = patched
    with Peerside.connect(("127.0.0.1", script)) as client, Peerside.connect(("127.0.0.1", script)) as other:
        client.send(b"job hello\nbadjob\n")
        assert sorted([client.line(), client.line()]) == [b"(b'HELLO', True)", b"LookupError('nothing there')"]
        client.send(b"stuck\nalarm 0.01\n")
        assert [client.line(), client.line()] == [b"at it", b"ring"]
        other.send(b"boom\n")
        assert other.ended()
        client.send(b"bye 20000000\n")  # more than the kernel takes
        assert len(client.rest()) == 20_000_001


def test_patched_or_not_requests_run_in_real_threads(patched: tuple[subprocess.Popen[str], int, int]) -> None:
    server, _, web = patched
    told = json.loads(get(web, "/thread"))
    assert told["loop"] == server.pid
    assert told["mine"] != server.pid
    answers: list[bytes] = []
    blocked = threading.Thread(target=lambda: answers.append(get(web, "/block")))
    blocked.start()
    assert get(web, "/release") == b"ok"
    blocked.join(PATIENCE)
    assert answers == [b"released"]
    assert get(web, "/long") == b"".join(b"%07d\n" % number * 1000 for number in range(500))


def test_running_out_of_file_descriptors_is_survived() -> None:
    with process("never") as (server, port, _), Peerside.connect(("127.0.0.1", port)) as before:
        before.send(b"echo in\n")
        assert before.line() == b"in"
        numbers = [int(name) for name in os.listdir(f"/proc/{server.pid}/fd")]
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, limits[1]))
        # As many as there are numbers free below the limit, and one that has to wait.
        late = [Peerside.connect(("127.0.0.1", port)) for _ in range(max(numbers) + 2 - len(numbers))]
        assert server.stderr is not None
        assert "Cannot accept connections" in server.stderr.readline()
        before.send(b"echo still here\n")
        assert before.line() == b"still here"
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        for client in late:
            with client:
                client.send(b"echo at last\n")
                assert client.line() == b"at last"
