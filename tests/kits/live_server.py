"""A real server in a process of its own, with a temporary database, that tests can stop, kill and start again."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from automoderate.dashboard.services import CONTROL_SUBJECT, control_serializer
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.publishing import PublishingApi

ROOT = Path(__file__).parent.parent.parent
SECRET_KEY = "a secret for these tests only, and no other"
PASSWORD = "correct horse"
PATIENCE = 60.0
"""Seconds until something that has to happen counts as not happening."""


def until(condition: Callable[[], Any], what: str = "it") -> None:
    """Wait for something that another thread or process is about to do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def steady_port() -> int:
    """A free loopback port to come back to, outside the range that the system hands out.

    One of those may be somebody else's by the time the server is back: another server's, or that of a client that
    meanwhile tries to connect to it, and so to itself.
    """
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    while True:
        port: int = random.choice([*range(10_000, lowest), *range(highest + 1, 65_536)] or range(10_000, 65_536))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class LiveServer:
    """``automoderate serve`` on a free loopback port; a restart keeps the port and the database.

    Users ``alice`` and ``bob``; ``project`` is alice's and has an API key, ``other`` is bob's. Without an empty
    ``database`` it makes one.
    """

    def __init__(self, folder: Path, database: Database | None = None, **settings: str) -> None:
        self.port = steady_port()
        self._log = folder / "server.log"
        self._log.touch()
        patient = {"check_timeout": str(PATIENCE), "drain_timeout": str(PATIENCE)}
        self._settings = {"auth_grace": "0.2", "max_connections_per_minute": "100000", **patient, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.database = database or Database(f"sqlite:///{folder / 'database.sqlite3'}")
        self.database.create_all()
        self._url = self.database.url.render_as_string(hide_password=False)
        self.users = {
            name: accounts.create_user(self.database, username=name, email=f"{name}@example.org", password=PASSWORD).id
            for name in ("alice", "bob")
        }
        self.project = accounts.create_project(self.database, name="Project", owner_id=self.users["alice"]).id
        self.other = accounts.create_project(self.database, name="Other", owner_id=self.users["bob"]).id
        self.api_key = accounts.create_api_key(self.database, self.project, "tests").key

    @property
    def url(self) -> str:
        """Where it is, or was."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All it has written so far."""
        return self._log.read_text("utf-8")

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", "automoderate", "serve", "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOMODERATE_")}
        environment |= {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": self._url, "PYTHONUNBUFFERED": "1"}
        environment |= {f"AUTOMODERATE_{name.upper()}": value for name, value in self._settings.items()}
        before = len(self.log)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=log)
        until(lambda: "listening on" in self.log[before:] or self._process is None or self._process.poll() is not None)
        listening = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log[before:])
        assert listening, self.log
        self.port = int(listening[1])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, SIGTERM or SIGKILL, and wait for its end: the exit status."""
        assert self._process is not None, "it runs"
        process, self._process = self._process, None
        process.send_signal(number)
        return process.wait(PATIENCE)

    def close(self) -> None:
        """Stop it if it runs, and close the database."""
        if self._process is not None:
            self.stop()
        self.database.close()

    def cookie(self, username: str) -> str:
        """A ``Cookie`` header that any Flask application with the same secret could have made."""
        return self.cookie_of({"_user_id": self.users[username], "_fresh": True})

    @staticmethod
    def cookie_of(session: Mapping[str, Any]) -> str:
        """A ``Cookie`` header with a session signed by the server's secret."""
        app = Flask(__name__)
        app.secret_key = SECRET_KEY
        serializer = SecureCookieSessionInterface().get_signing_serializer(app)
        assert serializer is not None
        return f"session={serializer.dumps(dict(session))}"

    def publish(self, number: int) -> str:
        """Publish one update to alice's project over the publishing API; its event id."""
        with PublishingApi(self.url, timeout=PATIENCE) as api:
            data = {"number": number, "status": "approved"}
            return api.publish(self.project, self.api_key, "moderation_update", data)

    def announce(self, **change: Any) -> None:
        """Announce a logout or changed access, as the command line does."""
        token = control_serializer(SECRET_KEY).dumps(CONTROL_SUBJECT)
        headers = {"Authorization": f"Bearer {token}"}
        response = requests.post(f"{self.url}/api/access-changes", json=change, headers=headers, timeout=PATIENCE)
        assert response.status_code == 202, response.text


@contextlib.contextmanager
def running_server(folder: Path, **settings: str) -> Iterator[LiveServer]:
    """A server that runs, and is stopped at the end."""
    server = LiveServer(folder, None, **settings)
    try:
        server.start()
        yield server
    finally:
        server.close()
