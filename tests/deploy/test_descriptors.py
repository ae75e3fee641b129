"""File descriptors of ``serve``, its workers and ``demo``; the suite of the adapters runs each runtime out of them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kits import until
from kits.adapters import Peerside
from kits.processes import Process
from kits.redis_server import RedisServer

COMPLAINT = "Cannot accept connections for now: Too many open files"
SOFT = 300
FEW_ALLOWED = ["sh", "-c", f'ulimit -S -n {SOFT}; exec "$@"', "sh"]

Serve = Callable[[str], Process]


@pytest.fixture
def serve(new_process: Callable[..., Process], redis_server: RedisServer) -> Serve:
    """Start ``serve`` with so few open files as a shell allows, with workers or without, or ``demo``."""

    def start(what: str) -> Process:
        workers = {"workers": "2", "redis_url": redis_server.url} if what == "workers" else {}
        server = new_process(FEW_ALLOWED, port="0", **workers)
        if what == "demo":
            server.command[-1:] = ["demo", "--port", "0"]
            server.launch()
            until(lambda: Path(f"/proc/{server.pid}/fd").exists() and listening_port(server.pid) is not None)
        else:
            server.start(2 if workers else 1)
        return server

    return start


def serving(server: Process) -> list[int]:
    """The processes that take connections."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [int(pid) for pid in children] or [server.pid]


def listening_port(pid: int) -> int | None:
    """The port on which a process listens."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}")))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            return int(fields[1].partition(":")[2], 16)
    return None


def served(client: Peerside) -> bool:
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    head = client.until(b"\r\n\r\n")
    client.exactly(int(re.findall(rb"(?i)content-length: (\d+)", head)[0]))
    return head.startswith(b"HTTP/1.1 200")


def processor_time(pid: int) -> float:
    """Seconds that a process has spent computing."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("what", ["serve", "workers", "demo"])
def test_a_server_allows_itself_what_it_may_have_and_survives_running_out(serve: Serve, what: str) -> None:
    server = serve(what)
    processes = serving(server)
    port = listening_port(processes[0])
    assert port is not None
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in processes}
    assert all(soft == hard > SOFT for soft, hard in limits.values())
    with contextlib.ExitStack() as stack:

        def connect() -> Peerside:
            return stack.enter_context(Peerside.connect(("127.0.0.1", port)))

        before = [connect() for _ in range(8)]
        assert all(served(client) for client in before)
        free = 0
        for pid in processes:
            numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
            free += max(numbers) + 1 - len(numbers)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, limits[pid][1]))
        late = [connect() for _ in range(free + 40)]
        until(lambda: server.log.count(COMPLAINT) == len(processes), "each process has run out and said so")
        begun, spent = time.monotonic(), {pid: processor_time(pid) for pid in processes}
        until(lambda: all(served(client) for client in before) and time.monotonic() > begun + 2.5)
        assert all(processor_time(pid) - spent[pid] < 1 for pid in processes), "it spins"
        for pid in processes:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])
        assert all(served(client) for client in late)
        assert server.log.count(COMPLAINT) == len(processes), "one line was enough"
    assert server.stop() == 0
