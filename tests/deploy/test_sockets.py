"""Unix sockets and sockets passed by systemd, for one process and for workers."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import unix_connect

from automoderate import _listening
from automoderate._listening import passed_sockets
from kits import PATIENCE, until
from kits.adapters import Peerside
from kits.live_server import LiveServer
from kits.processes import Process, steady_port
from kits.redis_server import RedisServer

PASSING = """
import os, socket, sys
for number, address in enumerate(sys.argv[1].split(), 3):
    sock = socket.socket(socket.AF_UNIX if "/" in address else socket.AF_INET)
    sock.bind(address if "/" in address else ("127.0.0.1", int(address)))
    sock.listen()
    os.dup2(sock.detach(), number)
    os.set_inheritable(number, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number - 2), LISTEN_FDNAMES="any:names")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Opens sockets and becomes another program, which finds them as systemd passes them."""

HEALTH = b"GET /health HTTP/1.1\r\nHost: automoderate.test\r\n\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose name leaves room for a socket's; paths of sockets have at most 107 bytes."""
    folder = Path("/tmp") / f"automoderate-{os.getpid()}-{abs(hash(tmp_path)) % 10**6}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


Serve = Callable[..., Process]


@pytest.fixture
def serve(new_process: Callable[..., Process]) -> Serve:
    """Start a server with these settings; ``passed`` are sockets that it is passed."""

    def start(passed: str = "", processes: int = 1, **settings: str) -> Process:
        server = new_process([sys.executable, "-c", PASSING, passed] if passed else [], **settings)
        server.start(processes)
        return server

    return start


def connect(path: Path) -> Peerside:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return Peerside(sock)


def healthy(client: Peerside) -> bool:
    with client:
        client.send(HEALTH)
        return client.line() == b"HTTP/1.1 200 OK\r"


def test_a_unix_socket_in_place_of_a_port(serve: Serve, folder: Path) -> None:
    path = folder / "http.sock"
    server = serve(uds=str(path))
    assert f"listening on http+unix:{path} with asyncio" in server.log
    assert healthy(connect(path))
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert path.exists()
    server.start()
    assert healthy(connect(path))
    assert server.stop() == 0
    assert not path.exists()


def test_whoever_calls_through_it_is_believed(serve: Serve, folder: Path, world: LiveServer) -> None:
    """Or every visitor would count as one, and pages of HTTPS would be refused as another origin."""
    path = str(folder / "http.sock")
    serve(uds=path)
    uri = "ws://moderation.test/socket.io/?EIO=4&transport=websocket"
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", "Cookie": world.cookie("alice")}
    with unix_connect(path, uri, origin="https://moderation.test", additional_headers=forwarded) as client:
        assert str(client.recv(PATIENCE)).startswith("0{")


def test_workers_share_a_unix_socket(serve: Serve, folder: Path, redis_server: RedisServer) -> None:
    path = folder / "http.sock"
    server = serve(uds=str(path), workers="2", processes=2, redis_url=redis_server.url)
    assert all(healthy(connect(path)) for _ in range(20))
    assert server.log.count("listening on http+unix:") == 2
    second = server.try_again()
    assert (second.returncode, second.stderr.count("\n")) == (3, 1)
    assert second.stderr.startswith(f"Error: cannot listen on {path}: another server listens there")
    assert server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("host", ["127.0.0.1,::1", "::"])
def test_workers_listen_on_both_families(serve: Serve, redis_server: RedisServer, host: str) -> None:
    port = steady_port()
    server = serve(host=host, port=str(port), workers="2", processes=2, redis_url=redis_server.url)
    assert all(healthy(Peerside.connect((address, port))) for address in ("127.0.0.1", "::1"))
    second = server.try_again()
    assert second.returncode == 3
    assert f"port {port}: the port is taken; choose another with --port" in second.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sockets_that_systemd_passes_are_listened_on(
    serve: Serve, folder: Path, redis_server: RedisServer, workers: str
) -> None:
    path, port = folder / "http.sock", steady_port()
    server = serve(f"{port} {path}", processes=2 * int(workers), workers=workers, redis_url=redis_server.url, port="1")
    assert server.log.count(f"listening on http://127.0.0.1:{port} ") == int(workers)
    assert healthy(connect(path))
    assert healthy(Peerside.connect(("127.0.0.1", port)))
    assert server.stop() == 0
    assert path.exists(), "it is systemd's"


def test_the_program_with_which_systemd_is_tried_out(tmp_path: Path, world: LiveServer) -> None:
    """The server starts with the first client, who waits meanwhile."""
    activate = shutil.which("systemd-socket-activate")
    assert activate is not None, "no systemd-socket-activate: run scripts/install-services"
    port = steady_port()
    server = Process(tmp_path / "log", database_url=str(world.database))
    names = [f"--setenv={name}" for name in server.environment]
    server.started_by = [activate, f"--listen=127.0.0.1:{port}", *names]
    server.launch()
    try:
        until(lambda: "Listening on" in server.log)
        assert healthy(Peerside.connect(("127.0.0.1", port)))
        assert f"listening on http://127.0.0.1:{port} with asyncio" in server.log
    finally:
        server.close()


def passed(monkeypatch: pytest.MonkeyPatch, sock: socket.socket, **environment: str) -> dict[str, str]:
    """The environment of a process that was passed a copy of this socket."""
    monkeypatch.setattr(_listening, "FIRST_PASSED", os.dup(sock.fileno()))
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", **environment}


def test_what_is_passed_is_handed_to_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        environment = passed(monkeypatch, opened, LISTEN_FDNAMES="web", HOME="/")
        (taken,) = passed_sockets(environment)
        assert environment == {"HOME": "/"}
        assert taken.getsockname() == opened.getsockname()
        assert not taken.get_inheritable()
        taken.close()


def test_what_another_process_was_passed_is_not_ours() -> None:
    assert passed_sockets({}) == []
    assert passed_sockets({"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}) == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_cannot_be_listened_on_is_named(monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind) -> None:
    with socket.socket(type=kind) as wrong:
        environment = passed(monkeypatch, wrong)
        with pytest.raises(OSError, match=r"descriptor \d+, which systemd has passed: .* ListenStream= and Accept=no"):
            passed_sockets(environment)


def test_a_descriptor_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as gone:
        number = gone.fileno()
    monkeypatch.setattr(_listening, "FIRST_PASSED", number)
    with pytest.raises(OSError, match=f"descriptor {number}, which systemd has passed: Bad file descriptor") as caught:
        passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="LISTEN_FDS is 'some', no number"):
        passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "some"})
