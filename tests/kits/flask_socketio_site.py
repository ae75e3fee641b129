"""``automoderate serve --wsgi`` in a process of its own, and browsers and clients of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import requests
from attrs import define, field

from automoderate.directory import accounts
from automoderate.directory.database import Database
from kits import PATIENCE
from kits.processes import Process
from kits.real_clients import Clients, RealClient

PASSWORD = "correct horse"


@define
class Site:
    """The running server. Users ``alice`` and ``bob``; ``project`` is alice's and bob is a member."""

    url: str
    project: str
    users: dict[str, str]
    database: Database
    server: Process
    clients: Clients = field(factory=Clients)

    @property
    def log(self) -> str:
        return self.server.log

    def login(self, username: str) -> requests.Session:
        """Somebody who logged in on the application's own page."""
        browser = requests.Session()
        form = {"username": username, "password": PASSWORD}
        assert "form" in browser.get(f"{self.url}/auth/login", timeout=PATIENCE).text
        assert browser.post(f"{self.url}/auth/login", data=form, timeout=PATIENCE).text == "welcome"
        return browser

    def post(self, path: str, browser: requests.Session | None = None) -> str:
        response = (browser or requests).post(self.url + path, timeout=PATIENCE)
        assert response.status_code == 200, response.text
        return response.text

    def watch(self, browser: requests.Session, transports: str = "websocket") -> RealClient:
        """A client with the browser's cookie that has joined the project's room."""
        ((name, value),) = browser.cookies.items()
        client = self.clients(self.url, f"{name}={value}", transports)
        client.welcomed()
        assert "error" not in client.call("join_project", {"project_id": self.project})
        return client


@contextlib.contextmanager
def running_site(folder: Path, adapter: str, *flags: str, **more: str) -> Iterator[Site]:
    """The server with one adapter, stopped at the end; ``flags`` are for it, and its environment has ``more``."""
    url = f"sqlite:///{folder / 'existing.db'}"
    database = Database(url)
    database.create_all()
    users = {
        name: accounts.create_user(database, username=name, email=f"{name}@example.org", password=PASSWORD).id
        for name in ("alice", "bob")
    }
    project = accounts.create_project(database, name="Project", owner_id=users["alice"]).id
    server = Process(
        folder / "server.log", "--port", "0", "--adapter", adapter, "--wsgi", "kits.flask_socketio_app:create_app()",
        *flags,
    )  # fmt: skip
    server.environment |= {"DATABASE_URL": url, **more}
    try:
        server.start()
        yield Site(f"http://127.0.0.1:{server.port}", project, users, database, server)
    finally:
        status = server.stop()
        database.close()
    assert status == 0, server.log
