"""Several processes on one port: shared out by the kernel, minded by their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from automoderate.directory.database import Database
from kits import PATIENCE, ROOT, until
from kits.adapters import Peerside
from kits.authority import Authority, names_of
from kits.cables import NoWebSocket
from kits.live_server import PASSWORD, LiveServer
from kits.processes import Process, environment
from kits.real_clients import Clients
from kits.redis_server import RedisServer
from kits.terminals import Terminal, terminals

WORKERS = 3


@pytest.fixture
def settings(redis_server: RedisServer, world: LiveServer) -> dict[str, str]:
    return {"workers": str(WORKERS), "port": "0", "redis_url": redis_server.url, "database_url": str(world.database)}


@pytest.fixture
def server(tmp_path: Path, settings: dict[str, str]) -> Iterator[Process]:
    server = Process(tmp_path / "log", **settings)
    try:
        server.start(WORKERS)
        yield server
    finally:
        server.close()


def workers(server: Process) -> list[int]:
    """The processes that serve."""
    text = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_clients_on_all_workers_see_the_same_and_return_after_one_was_killed(
    server: Process, world: LiveServer, client: Clients
) -> None:
    before = workers(server)
    assert len(before) == WORKERS
    url = f"http://127.0.0.1:{server.port}"
    watching = [client(url, world.cookie("alice")) for _ in range(8)]
    world.port = server.port
    for each in watching:
        each.connect()
        each.wait("connected")
        each.call("join_project", {"project_id": world.project})
    world.publish(1)
    for each in watching:
        assert each.wait("moderation_update")["number"] == 1
    os.kill(before[0], signal.SIGKILL)
    ended = f"(process {before[0]}) was ended by SIGKILL; it is started again in"
    until(lambda: ended in server.log, "its end is said")
    until(lambda: len(workers(server)) == WORKERS and before[0] not in workers(server), "it is started again")
    until(lambda: server.log.count("listening on") == WORKERS + 1, "it listens")
    assert requests.get(f"{url}/health", timeout=PATIENCE).status_code == 200
    alone = [each for each in watching if any(event == "disconnect" for event, _ in each.events)]
    for each in alone:
        each.wait("connected", 2)
    assert server.stop() == 0
    assert all(gone(pid) for pid in before)


def test_the_command_line_watches_workers_and_returns_after_they_were_killed(
    server: Process, world: LiveServer
) -> None:
    world.port = server.port
    with terminals() as terminal:
        watching: Terminal = terminal(
            world.project, "--url", world.url, "--username", "alice", "--count", "2", "--json",
            AUTOMODERATE_PASSWORD=PASSWORD,
        )  # fmt: skip
        assert watching.err.get(timeout=PATIENCE) == f"watching project_{world.project}; Ctrl-C ends"
        world.publish(1)
        assert json.loads(watching.out.get(timeout=PATIENCE))["data"]["number"] == 1
        for pid in workers(server):
            os.kill(pid, signal.SIGKILL)
        assert "connection lost" in watching.err.get(timeout=PATIENCE)
        assert watching.err.get(timeout=PATIENCE) == "connected again; nothing was missed"
        world.publish(2)
        assert json.loads(watching.out.get(timeout=PATIENCE))["data"]["number"] == 2
        assert watching.wait() == 0


def test_nobody_watches_workers_through_a_proxy_that_lets_no_websocket_through(
    server: Process, world: LiveServer
) -> None:
    proxy = NoWebSocket(server.port, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    try:
        with terminals() as terminal:
            watching = terminal(world.project, "--url", proxy.url, AUTOMODERATE_COOKIE=world.cookie("alice"))
            assert watching.err.get(timeout=PATIENCE) == (
                f"Error: {proxy.url} does not let anybody connect, by WebSocket: it answered 400; by long-polling: "
                "Unexpected status code 400 in server response "
                "(only WebSocket is served here: set transports to websocket in the client)"
            )
            assert watching.wait() == 1
    finally:
        proxy.close()


def test_polling_is_refused_with_the_way_out(server: Process) -> None:
    answer = requests.get(f"http://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=polling", timeout=PATIENCE)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "only WebSocket is served here: set transports to websocket in the client"


def test_workers_leave_with_a_parent_that_was_killed(server: Process) -> None:
    running = workers(server)
    server.stop(signal.SIGKILL)
    for pid in running:
        until(lambda pid=pid: gone(pid), "the worker leaves")  # type: ignore[misc]


def test_the_port_is_not_shared_with_strangers(server: Process, settings: dict[str, str]) -> None:
    """Another server of the same user could listen there as well."""
    settings["port"] = str(server.port)
    assert refused(**settings) == (
        3, f"Error: cannot listen on 127.0.0.1 port {server.port}: the port is taken; choose another with --port",
    )  # fmt: skip


def test_what_keeps_a_worker_from_starting_is_said_once(settings: dict[str, str], closed_port: int) -> None:
    settings["redis_url"] = f"redis://127.0.0.1:{closed_port}/0"
    status, said = refused(**settings)
    assert status == 3
    assert said.startswith("Error: ")
    assert "--redis-url" in said


LATE_SIGNALS = """
import os, signal
from automoderate import supervisor
from automoderate.settings import Settings

class Supervisor:
    def __init__(self, *_):
        pass

    def run(self):
        signal.setitimer(signal.ITIMER_REAL, 60)
        for number in (signal.SIGALRM, supervisor.READY):
            os.kill(os.getpid(), number)
        return 0

supervisor._Supervisor = Supervisor
print(supervisor.run(Settings(port=0, workers=2)), signal.getitimer(signal.ITIMER_REAL)[0])
"""


def test_signals_that_come_when_the_supervisor_has_done_end_nothing() -> None:
    """The timer of a worker that was to start again, and a worker that has become ready in the last moment."""
    ended = subprocess.run([sys.executable, "-c", LATE_SIGNALS], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0 0.0\n", "")


def test_each_line_of_workers_may_be_an_object_with_their_number(tmp_path: Path, settings: dict[str, str]) -> None:
    file = tmp_path / "workers.sqlite3"
    settings["database_url"] = f"sqlite:///{file}"
    database = Database(settings["database_url"])
    database.create_all()
    database.close()
    server = Process(tmp_path / "log", **settings, log_format="json")
    try:
        server.start(WORKERS)
        (first, *_) = workers(server)
        away = file.rename(tmp_path / "away")
        os.kill(first, signal.SIGKILL)
        until(lambda: "cannot_start" in server.log)
        away.rename(file)
        assert server.stop() == 0
    finally:
        server.close()
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {line["worker"] for line in lines if line["event"] == "listening"} == set(range(1, WORKERS + 1))
    (ended,) = (line for line in lines if line["event"] == "worker_ended" and "SIGKILL" in line["reason"])
    refused = next(line for line in lines if line["event"] == "cannot_start")
    assert refused["worker"] == ended["worker"]
    assert refused["level"] == "critical"


def test_workers_without_anything_to_share_updates_through_are_refused() -> None:
    fix = "several processes share updates through Redis; set --redis-url, or run one"
    assert refused(workers="2") == (2, f"Error: workers 2 (from AUTOMODERATE_WORKERS): {fix}")


def refused(**settings: str) -> tuple[int, str]:
    """The exit status of ``serve``, and the one line it ended with."""
    result = subprocess.run(
        [sys.executable, "-m", "automoderate", "serve"], cwd=ROOT, env=environment(**settings),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    return result.returncode, line


def test_a_worker_that_is_told_to_leave_takes_leave_of_its_clients(
    server: Process, world: LiveServer, client: Clients
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    watching = [client(url, world.cookie("alice")) for _ in range(4)]
    for each in watching:
        each.connect()
        each.wait("connected")
    for pid in workers(server):
        os.kill(pid, signal.SIGTERM)
    for each in watching:
        each.wait("connected", 2)
    assert "was ended by SIGTERM" not in server.log
    assert server.log.count("ended with status 0") == WORKERS


def test_all_workers_read_a_renewed_certificate(tmp_path: Path, settings: dict[str, str]) -> None:
    authority = Authority.make(tmp_path)
    files = {"ssl_certfile": str(authority.certfile), "ssl_keyfile": str(authority.keyfile)}
    server = Process(tmp_path / "log", **settings, **files)
    try:
        server.start(WORKERS)
        authority.issue("localhost", "renewed.test")
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: server.log.count("read the certificate") == WORKERS)
        for _ in range(2 * WORKERS):  # whichever the kernel chooses
            with authority.secure(Peerside.connect(("127.0.0.1", server.port))) as client:
                assert "renewed.test" in names_of(client)
    finally:
        server.close()


def test_without_a_certificate_a_hangup_stops_them_in_order(server: Process) -> None:
    os.kill(server.pid, signal.SIGHUP)
    assert server.wait() == 0
