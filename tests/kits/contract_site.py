"""A real server in a thread, over a temporary database, with a Flask application that signs its visitors in."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import attrs
import flask
import flask_login
from attrs import Factory, define, frozen
from contract_client import PATIENCE, Answer, Client, Http, TransportName
from sqlalchemy import event

from automoderate import adapters, app
from automoderate.adapters import Handle
from automoderate.adapters import asyncio as asyncio_adapter
from automoderate.core.hub import Access
from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database
from automoderate.settings import Settings

SECRET = "a secret that two applications share"
PLAIN_ASYNCIO = "asyncio without uvloop"
KINDS = (*adapters.names(), PLAIN_ASYNCIO)


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that the server is about to do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)


@frozen
class World:
    """The database, and an application of somebody else's that signs visitors in with the same secret."""

    database: Database
    sign_in: flask.Flask
    made: list[str] = Factory(list)
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

    gates: dict[str, Gate]

    @contextlib.contextmanager
    def held(self, question: str = "check_access", error: Exception | None = None) -> Iterator[Gate]:
        """Within it such questions wait for ``gate.opened``; then they fail, with an error, or are answered."""
        gate = self.gates[question] = Gate(error)
        try:
            yield gate
        finally:
            del self.gates[question]
            gate.opened.set()

    @contextlib.contextmanager
    def failing(self, question: str = "check_access", message: str = "away") -> Iterator[None]:
        """Within it such questions fail at once."""
        with self.held(question, RuntimeError(message)) as gate:
            gate.opened.set()
            yield

    def _pass(self, question: str) -> None:
        gate = self.gates.get(question)
        if gate is not None:
            gate.asked.release()
            assert gate.opened.wait(2 * PATIENCE), "the test forgot a question"
            if gate.error is not None:
                raise gate.error

    def identify(self, cookie: str | None) -> str | None:
        self._pass("identify")
        return super().identify(cookie)

    def check_access(self, user_id: str, project_id: str) -> Access:
        self._pass("check_access")
        return super().check_access(user_id, project_id)

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        self._pass("recheck")
        return super().recheck(user_id, project_ids)


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
        with mock.patch.object(app, "SQLDirectory", HeldDirectory):
            assembly = app.build(Settings(**given | self.options))
        if kind == PLAIN_ASYNCIO:
            assembly = attrs.evolve(assembly, adapter=_plain_asyncio())
        self.assembly = assembly
        directory = assembly.server._directory
        assert isinstance(directory, HeldDirectory)
        directory.gates = {}
        self.directory = directory
        self._ready: Future[Handle] = Future()
        self.thread = threading.Thread(target=self._run, name=f"server-{kind}", daemon=True)
        self.thread.start()
        self.handle = self._ready.result(PATIENCE)
        self.address = self.handle.addresses[0]
        self.url = f"http://{self.address[0]}:{self.address[1]}"

    def _run(self) -> None:
        try:
            self.assembly.run(self._ready.set_result)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    def stop(self) -> None:
        """Drain and leave; idempotent."""
        self.handle.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the server did not leave"

    @contextlib.contextmanager
    def check_timeout(self, seconds: float) -> Iterator[None]:
        """What is asked of the directory within it may take that long."""
        hub = self.assembly.server._hub
        limits = hub.limits
        hub.limits = attrs.evolve(limits, check_timeout=seconds)
        try:
            yield
        finally:
            hub.limits = limits

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
        return self.assembly.realtime.publish(project, event, {"n": number}).result(PATIENCE)

    def http(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        browser = Http(self.address)
        try:
            return browser.request(method, path, body, **headers)
        finally:
            browser.close()


def _plain_asyncio() -> ModuleType:
    """The asyncio adapter on the event loop of the standard library."""
    module = ModuleType("plain_asyncio")

    def run(driver: Any, *, handle_signals: bool, **options: Any) -> None:
        assert not handle_signals, "servers of tests run in threads"
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(asyncio_adapter.serve(driver, **options))

    module.run = run  # type: ignore[attr-defined]
    return module
