"""``automoderate serve --wsgi run:app`` in the folder of an existing application, which keeps its settings itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import requests

from kits import PATIENCE
from kits.contract_client import Client
from kits.existing_application import PASSWORD
from kits.processes import Process

HERE = Path(__file__).parent
SECRET = "the existing application's own secret"
RUN = """
from app import create_app

app = create_app("production")


@app.get("/")
def home():
    return "the existing application"
"""


class ExistingSite:
    """A folder with the package ``app``, ``run.py`` and ``.env``, and a server for it.

    Users ``alice`` and ``bob``; the projects ``P`` and ``Q`` are alice's and bob is a member of both.
    """

    def __init__(self, folder: Path, *arguments: str, dotenv: str = f"SECRET_KEY={SECRET!r}\n") -> None:
        self.folder = folder
        (folder / "app").mkdir()
        shutil.copy(HERE / "existing_application.py", folder / "app" / "__init__.py")
        (folder / "run.py").write_text(RUN)
        (folder / ".env").write_text(dotenv)
        if "--wsgi" not in arguments:
            arguments = ("--wsgi", "run:app", *arguments)
        self.server = Process(folder / "server.log", "--port", "0", *arguments)
        self.server.folder = folder
        del self.server.environment["SECRET_KEY"]
        self._clients: list[Client] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def login(self, username: str) -> str:
        """The Cookie header of somebody who logged in on the application's own page."""
        form = {"username": username, "password": PASSWORD}
        with requests.Session() as browser:
            answer = browser.post(f"{self.url}/auth/login", form, timeout=PATIENCE)
            assert answer.text == "welcome", answer.text
            ((name, value),) = browser.cookies.items()
        return f"{name}={value}"

    def watch(self, username: str, project: str = "P") -> Client:
        """A client that has joined a project's room."""
        client = Client.connect(("127.0.0.1", self.server.port), "websocket", {"Cookie": self.login(username)})
        self._clients.append(client)
        client.expect("connected")
        answer = client.call("join_project", {"project_id": project})
        assert "error" not in answer, answer
        return client

    def publish(self, project: str = "P") -> None:
        answer = requests.post(
            f"{self.url}/realtime/api/projects/{project}/events", timeout=PATIENCE,
            json={"event": "stats_update", "data": {}}, headers={"X-API-Key": "am_key"},
        )  # fmt: skip
        assert answer.status_code == 202, answer.text

    def act(self, action: str, end: str = "commit") -> None:
        """Have the application do something, in its own process and with its own ORM."""
        answer = requests.post(f"{self.url}/do/{action}/{end}", timeout=PATIENCE)
        assert answer.text == "done", answer.text

    def close(self) -> None:
        for client in self._clients:
            client.wire.close()
        self.server.close()
