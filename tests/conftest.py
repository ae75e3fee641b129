"""Options for every test, and fixtures that tests of several rooms share."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest
from attrs import Factory, define
from werkzeug.security import generate_password_hash

from automoderate import adapters
from automoderate._logs import LastingLogger
from automoderate.directory import accounts
from kits.postgresql_server import PostgreSQL


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=1, help="how many seeds the simulation runs with")
    parser.addoption("--first-seed", type=int, default=1, help="the first of them: the one a failing run printed")
    parser.addoption("--soak-seconds", type=float, default=15.0, help="how long the fault run breaks things")
    parser.addoption("--soak-seed", type=int, help="its seed: the one a failing run printed; otherwise any")
    parser.addoption(
        "--adapter", choices=adapters.names(), default="asyncio", help="what tests that need one server find it on"
    )
    parser.addoption("--one-runtime", action="store_true", help="run the tests of every runtime on that one only")


# A busy machine makes any example slow: no test measures speed.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure() -> None:
    # A shell ignores SIGINT for what it starts in the background, and who inherits that cannot be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it: what tests start is not to inherit that
        signal.signal(signal.SIGHUP, lambda *_: None)


LONG = ("soak", "clients", "deploy", "redis", "browser", "benchmarks", "postgresql", "integrations")
"""Folders of tests that wait for processes most of the time, those first whose files take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that in the end no file is left that one worker has to see through alone."""
    order = {folder: number for number, folder in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(LONG)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed")
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("--seeds")))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One PostgreSQL server for all tests that leave it running."""
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
    at: float
    """When, by the monotonic clock."""

    @property
    def events(self) -> list[Any]:
        """What it publishes: one event, or several."""
        found: list[Any] = self.body.get("events", [self.body])
        return found


@define
class ScriptedApi:
    """An HTTP server on a free loopback port that answers POSTs as it is told, and 202 when it is told nothing."""

    url: str
    requests: list[Posted] = Factory(list)
    answers: list[tuple[int, Any] | tuple[int, Any, dict[str, str]] | None] = Factory(list)
    """One entry a request: status, JSON body (or raw text) and headers, or None to drop the connection unanswered."""
    refusal: Callable[[list[Any]], tuple[int, Any] | None] = lambda _events: None
    """How events are refused where there are no ``answers``; None where they are taken."""
    published: list[Any] = Factory(list)
    """The events that were answered with 202, in order."""
    history: tuple[int, Any] = (405, "no history here")
    """Status and body of GETs."""
    asked: list[str] = Factory(list)
    """Paths of GETs, with their queries."""
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

    def answer(self, posted: Posted) -> tuple[int, Any] | tuple[int, Any, dict[str, str]] | None:
        """What a POST is told, under the lock."""
        if self.missing is not None and posted.path.startswith(self.missing):
            return 404, "nothing here"
        if self.answers:
            return self.answers.pop(0)
        if (refused := self.refusal(posted.events)) is not None:
            return refused
        self.published += posted.events
        last = len(self.published)
        event_ids = [f"1-{number}" for number in range(last - len(posted.events) + 1, last + 1)]
        return 202, {"event_ids": event_ids} if "events" in posted.body else {"event_id": event_ids[0]}


def _handler(api: ScriptedApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with api.changed:
                posted = Posted(self.path, self.headers["X-API-Key"], body, time.monotonic())
                api.requests.append(posted)
                answer = api.answer(posted)
                api.changed.notify_all()
            api.held.wait(60)
            if answer is None:
                self.close_connection = True
            else:
                with contextlib.suppress(ConnectionError):  # the client did not wait for it
                    self._say(*answer)

        def do_GET(self) -> None:
            api.asked.append(self.path)
            self._say(*api.history)

        def _say(self, status: int, said: Any, headers: Mapping[str, str] = {}) -> None:
            raw = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", str(len(raw)))
            for header in headers.items():
                self.send_header(*header)
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


@pytest.fixture(scope="session", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    """To hash a password takes a tenth of a second, on purpose; the tests make hundreds of users."""
    cheap = partial(generate_password_hash, method="pbkdf2:sha256:1")
    with mock.patch.object(accounts, "generate_password_hash", cheap):
        yield


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a test that starts the server has configured is over with it."""
    ours = logging.getLogger("automoderate")
    before = ours.handlers[:], ours.level, ours.propagate
    handler = LastingLogger.ours
    yield
    LastingLogger.ours = handler
    ours.handlers, ours.propagate = before[0], before[2]
    ours.setLevel(before[1])


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
