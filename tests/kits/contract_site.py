"""A real server in a thread, over a temporary database, with a Flask application that signs its visitors in."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import attrs
import flask
import flask_login
from attrs import Factory, define, frozen
from sqlalchemy import event

from automoderate import adapters, app
from automoderate.adapters import asyncio as asyncio_adapter
from automoderate.adapters.runtime import Options
from automoderate.core.hub import Access, Identity
from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database
from automoderate.settings import Settings
from kits import PATIENCE
from kits.contract_client import Answer, Client, Http, TransportName
from kits.threads import ServerThread

SECRET = "a secret that two applications share"
PLAIN_ASYNCIO = "asyncio without uvloop"
KINDS = (*adapters.names(), PLAIN_ASYNCIO)


@frozen
class World:
    """The database, and an application of somebody else's that signs visitors in with the same secret."""

    database: Database
    sign_in: flask.Flask
    made: list[str] = Factory(list)
    usernames: dict[str, str] = Factory(dict)
    cookies: dict[str, str] = Factory(dict)

    @classmethod
    def make(cls, path: Path) -> World:
        database = Database(f"sqlite:///{path}")
        database.create_all()
        # It need not survive a power cut.
        event.listen(database.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF"))
        database.close()
        return cls(database, signing_application(SECRET))

    def user(self, *, active: bool = True) -> str:
        """A new user's id."""
        name = f"user{len(self.made)}"
        self.made.append(name)
        # Nobody logs in with a password here, and making its hash is slow on purpose.
        with mock.patch.object(accounts, "generate_password_hash", return_value="none"):
            user = accounts.create_user(self.database, username=name, email=f"{name}@example.org", password="x")
        self.usernames[user.id] = name
        if not active:
            accounts.set_active(self.database, user.id, False)
        return user.id

    def password(self, user_id: str) -> str:
        """Give the user a password to log in to the dashboard with."""
        accounts.set_password(self.database, user_id, "correct horse")
        return "correct horse"

    def project(self, owner: str, *members: str) -> str:
        """A new project's id."""
        project = accounts.create_project(self.database, name="Project", owner_id=owner)
        for member in members:
            accounts.add_member(self.database, project.id, member)
        return project.id

    def api_key(self, project: str) -> str:
        return accounts.create_api_key(self.database, project, "test").key

    def cookie(self, user_id: str) -> str:
        """The Cookie header of somebody who signed in there."""
        if user_id not in self.cookies:
            self.cookies[user_id] = cookie(self.sign_in, user_id)
        return self.cookies[user_id]


def signing_application(secret: str) -> flask.Flask:
    """A plain Flask and Flask-Login application."""
    application = flask.Flask("existing", static_folder=None)
    application.secret_key = secret
    flask_login.LoginManager(application)

    class User(flask_login.UserMixin):  # type: ignore[misc]
        def __init__(self, user_id: str) -> None:
            self.id = user_id

    @application.post("/login/<user_id>")
    def login(user_id: str) -> str:
        flask_login.login_user(User(user_id))
        return "welcome"

    return application


def cookie(application: flask.Flask, user_id: str) -> str:
    """The Cookie header with which a browser comes back from signing in."""
    with application.test_client() as browser:
        assert browser.post(f"/login/{user_id}").text == "welcome"
        found = browser.get_cookie("session")
    assert found is not None
    return f"session={found.value}"


@define(eq=False)
class Gate:
    """Questions to the directory that wait until the test lets them be answered."""

    error: Exception | None
    asked: threading.Semaphore = Factory(lambda: threading.Semaphore(0))
    opened: threading.Event = Factory(threading.Event)

    def wait(self) -> None:
        """Until one more question has been asked."""
        assert self.asked.acquire(timeout=PATIENCE), "nobody asked"


class HeldDirectory(SQLDirectory):
    """The real directory, except that a test decides when, and whether, it answers."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._gates: dict[str, Gate] = {}

    @contextlib.contextmanager
    def held(self, question: str = "check_access", error: Exception | None = None) -> Iterator[Gate]:
        """Within it such questions wait for ``gate.opened``; then they fail, with an error, or are answered."""
        gate = self._gates[question] = Gate(error)
        try:
            yield gate
        finally:
            del self._gates[question]
            gate.opened.set()

    @contextlib.contextmanager
    def failing(self, question: str = "check_access", message: str = "away") -> Iterator[None]:
        """Within it such questions fail at once."""
        with self.held(question, RuntimeError(message)) as gate:
            gate.opened.set()
            yield

    def _pass(self, question: str, count: int) -> None:
        gate = self._gates.get(question)
        if gate is not None:
            gate.asked.release(count)
            assert gate.opened.wait(2 * PATIENCE), "the test forgot a question"
            if gate.error is not None:
                raise gate.error

    def identify_many(self, cookies: Sequence[str | None]) -> list[Identity | Exception | None]:
        self._pass("identify", len(cookies))
        return super().identify_many(cookies)

    def check_access_many(self, pairs: Sequence[tuple[str, str]]) -> list[Access]:
        self._pass("check_access", len(pairs))
        return super().check_access_many(pairs)

    def recheck_many(self, questions: Sequence[tuple[str, tuple[str, ...]]]) -> list[frozenset[str] | None]:
        self._pass("recheck", len(questions))
        return super().recheck_many(questions)


class Site:
    """One running server."""

    def __init__(self, kind: str, world: World, options: Mapping[str, Any]) -> None:
        self.kind = kind
        self.world = world
        self.options = dict(options)
        adapter = "asyncio" if kind == PLAIN_ASYNCIO else kind
        given: dict[str, Any] = {
            "adapter": adapter, "port": 0, "database_url": str(world.database), "secret_key": SECRET,
            "max_connections_per_minute": 1_000_000, "drain_timeout": PATIENCE, "threads": 4,
            "check_timeout": PATIENCE,
        }  # fmt: skip
        made: list[HeldDirectory] = []

        def make(*parts: Any) -> HeldDirectory:
            made.append(HeldDirectory(*parts))
            return made[-1]

        with mock.patch.object(app, "SQLDirectory", make):
            assembly = app.build(Settings(**given | self.options))
        if kind == PLAIN_ASYNCIO:
            assembly = attrs.evolve(assembly, adapter=_plain_asyncio())
        self.assembly = assembly
        (self.directory,) = made
        self.server = ServerThread(assembly)
        self.handle = self.server.handle
        self.address = self.handle.addresses[0]
        self.url = self.server.url

    def stop(self) -> None:
        """Drain and leave; idempotent."""
        self.server.stop()

    def stats(self) -> dict[str, float]:
        return self.assembly.realtime.stats(PATIENCE)

    def connect(
        self, user: str | None, transport: TransportName, *, query: str = "", auth: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Client:  # fmt: skip
        """Connect as that user, by a cookie of the application that signs visitors in."""
        credentials = {} if user is None else {"Cookie": self.world.cookie(user)}
        return Client.connect(self.address, transport, {**credentials, **(headers or {})}, query=query, auth=auth)

    def publish(self, project: str, number: int, event: str = "moderation_update") -> str:
        """Publish one event in the server's own process; its event id."""
        data = {"project_id": project, "n": number}
        return self.assembly.realtime.publish(project, event, data).result(PATIENCE)

    def http(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        browser = Http(self.address, prefix=app.API_PREFIX if "wsgi" in self.options else "")
        try:
            return browser.request(method, path, body, **headers)
        finally:
            browser.close()


def _plain_asyncio() -> ModuleType:
    """The asyncio adapter on the event loop of the standard library."""
    module = ModuleType("plain_asyncio")

    def run(driver: Any, options: Options, *, handle_signals: bool, **rest: Any) -> None:
        assert not handle_signals, "servers of tests run in threads"
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(asyncio_adapter.serve(driver, options, **rest))

    module.run = run  # type: ignore[attr-defined]
    return module
