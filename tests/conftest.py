"""Options for every test, and fixtures that tests of several rooms share."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define

from automoderate import adapters

sys.path.insert(0, str(Path(__file__).parent / "postgresql"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=3, help="how many seeds the simulation runs with")
    parser.addoption("--first-seed", type=int, default=1, help="the first of them: the one a failing run printed")
    parser.addoption("--soak-seconds", type=float, default=60.0, help="how long the fault run breaks things")
    parser.addoption("--soak-seed", type=int, help="its seed: the one a failing run printed; otherwise any")
    parser.addoption(
        "--adapter", choices=adapters.names(), default="asyncio", help="what real clients and browsers find a server on"
    )


def pytest_configure() -> None:
    # A shell ignores SIGINT for what it starts in the background, and who inherits that cannot be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed")
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("--seeds")))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """One PostgreSQL server for all tests that leave it running."""
    from postgresql_kit import PostgreSQL

    server = PostgreSQL()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def adapter(request: pytest.FixtureRequest) -> str:
    """The adapter of a test's server. A test that is parametrised with ``adapter`` runs on each."""
    name: str = request.config.getoption("--adapter")
    return name


@define
class Posted:
    """One request that reached the scripted API."""

    path: str
    api_key: str | None
    body: Any


@define
class ScriptedApi:
    """An HTTP server on a free loopback port that answers POSTs as it is told, and 202 when it is told nothing."""

    url: str
    requests: list[Posted] = Factory(list)
    answers: list[tuple[int, Any] | None] = Factory(list)
    """One entry a request: status and JSON body (or raw text), or None to drop the connection unanswered."""
    missing: str | None = None
    """Paths that begin with this are not found."""
    held: threading.Event = Factory(threading.Event)
    """Answers wait for it; it is set to begin with."""
    changed: threading.Condition = Factory(threading.Condition)

    def wait_for(self, count: int) -> list[Posted]:
        """Wait until ``count`` requests have arrived."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, 60), self.requests
            return list(self.requests)


def _handler(api: ScriptedApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with api.changed:
                api.requests.append(Posted(self.path, self.headers["X-API-Key"], body))
                count = len(api.requests)
                answer = api.answers.pop(0) if api.answers else (202, {"event_id": f"1-{count}"})
                api.changed.notify_all()
            api.held.wait(60)
            if api.missing is not None and self.path.startswith(api.missing):
                answer = 404, "nothing here"
            if answer is None:
                self.close_connection = True
                return
            status, said = answer
            raw = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def scripted_api() -> Iterator[ScriptedApi]:
    """A publishing API that answers as the test tells it."""
    api = ScriptedApi("")
    api.held.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.held.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, without anything of this machine's environment."""
    for name in list(os.environ):
        if name.startswith("AUTOMODERATE_") or name in ("SECRET_KEY", "DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port on which nobody listens, nor will while the test has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
