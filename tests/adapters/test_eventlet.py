"""What is eventlet's own: its hub, its greenlets, and a standard library that may be patched."""

from __future__ import annotations

import gc
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from automoderate import adapters
from automoderate.adapters.runtime import Handle, Options
from automoderate.protocol.driver import Driver
from automoderate.protocol.outputs import Write
from kits import PYTHONPATH
from kits.adapters import PATIENCE, Peerside, Running, Script, Start
from kits.eventlet_server import PATCHED


@pytest.fixture
def kind() -> str:
    """These tests are for this one."""
    return "eventlet"


def hub_of(server: Running) -> Any:
    """The hub a server runs on."""
    from eventlet import hubs

    return server.call(lambda _: hubs.get_hub())


def test_connections_need_nothing_of_the_hub(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=16 * 1024 * 1024)
    hub = hub_of(server)

    def counted(_now: float) -> tuple[int, int]:
        return len(hub.get_readers()), len(hub.get_writers())

    before = server.call(counted)
    clients = [server.connect() for _ in range(300)]
    for client in clients:
        client.send(b"echo in\n")
        assert client.line() == b"in"
    for client in clients[:5]:
        client.narrow()
    stalled = [line.itself for line in driver.lines[:5]]
    server.call(lambda _: driver.queue(*(Write(connection, b"x" * 4_000_000) for connection in stalled)))
    assert server.call(counted) == before
    for number, client in enumerate(clients):
        if number % 2:
            client.reset()
        else:
            client.sock.close()
    driver.wait_for(lambda: len(driver.lost) == 300)
    assert server.call(counted) == before


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

    def client(handle: Handle) -> None:
        sock = eventlet.connect(handle.addresses[0])
        sock.sendall(b"echo from the same thread\n")
        said.append(sock.recv(1000))
        sock.close()
        handle.stop()

    import eventlet

    adapter.run(
        cast(Driver, driver),
        Options(port=0),
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
    adapter.run(cast(Driver, Script()), Options(port=0), on_ready=lambda handle: handle.stop(), handle_signals=False)
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
    assert files() <= before


def test_signals_are_somebody_elses_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    adapters.load("eventlet").run(
        cast(Driver, Script()), Options(port=0), on_ready=lambda _: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert signal.getsignal(signal.SIGTERM) == before


@contextmanager
def process(patched: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """The program of ``eventlet_server`` and its two ports; SIGTERM ends it."""
    command = [sys.executable, "-W", "error", "-m", "kits.eventlet_server", patched]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **environment}
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


@pytest.fixture(params=[*PATCHED, "on asyncio"])
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
