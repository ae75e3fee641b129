"""A real server in a process of its own, with a temporary database, that tests can stop, kill and start again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from automoderate import control
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.notifier.http import PublishingApi
from kits import PATIENCE
from kits.processes import SECRET_KEY, Process, steady_port

PASSWORD = "correct horse"


class LiveServer:
    """``automoderate serve`` on a free loopback port; a restart keeps the port and the database.

    Users ``alice`` and ``bob``; ``project`` is alice's and has an API key, ``other`` is bob's. Without an empty
    ``database`` it makes one.
    """

    def __init__(self, folder: Path, database: Database | None = None, **settings: str) -> None:
        self.port = steady_port()
        self.database = database or Database(f"sqlite:///{folder / 'database.sqlite3'}")
        self.database.create_all()
        patient = {"check_timeout": str(PATIENCE), "drain_timeout": str(PATIENCE)}
        given = {"auth_grace": "0.2", "max_connections_per_minute": "100000", **patient, **settings}
        url = self.database.url.render_as_string(hide_password=False)
        self._scheme = "https" if "ssl_certfile" in settings else "http"
        self._process = Process(folder / "server.log", port=str(self.port), database_url=url, **given)
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
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All it has written so far."""
        return self._process.log

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process.start()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, SIGTERM or SIGKILL, and wait for its end: the exit status."""
        return self._process.stop(number)

    def close(self) -> None:
        """Stop it if it runs, and close the database."""
        self._process.close()
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
            return api.publish(self.project, "moderation_update", data, self.api_key)

    def announce(self, **change: Any) -> None:
        """Announce a logout or changed access, as the command line does."""
        headers = {"Authorization": f"Bearer {control.sign(SECRET_KEY)}"}
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
