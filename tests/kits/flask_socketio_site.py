"""``automoderate serve --wsgi`` in a process of its own, and browsers and clients of it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from attrs import define, field
from client_kit import AsyncPythonClient

from automoderate.directory import accounts
from automoderate.directory.database import Database

HERE = Path(__file__).parent
PATIENCE = 60.0
PASSWORD = "correct horse"


@define
class Site:
    """The running server. Users ``alice`` and ``bob``; ``project`` is alice's and bob is a member."""

    url: str
    project: str
    users: dict[str, str]
    database: Database
    log_file: Path
    clients: list[AsyncPythonClient] = field(factory=list)

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8")

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

    def watch(self, browser: requests.Session, transports: list[str]) -> AsyncPythonClient:
        """A client with the browser's cookie that has joined the project's room."""
        ((name, value),) = browser.cookies.items()
        client = AsyncPythonClient(self.url, f"{name}={value}", transports)
        self.clients.append(client)
        client.connect()
        client.wait("connected")
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOMODERATE_")}
    environment |= {"SECRET_KEY": "a secret long enough for anybody", "DATABASE_URL": url, "PYTHONUNBUFFERED": "1"}
    environment |= more
    command = [sys.executable, "-m", "automoderate", "serve", "--port", "0", "--adapter", adapter]
    command += ["--wsgi", "mounted_site:create_app()", *flags]
    log_file = folder / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (listening := re.search(r"listening on (http://127\.0\.0\.1:\d+)", log_file.read_text("utf-8"))):
            assert process.poll() is None, log_file.read_text("utf-8")
            assert time.monotonic() < deadline, log_file.read_text("utf-8")
            time.sleep(0.02)
        yield Site(listening[1], project, users, database, log_file)
    finally:
        process.terminate()
        status = process.wait(PATIENCE)
        database.close()
    assert status == 0, log_file.read_text("utf-8")
