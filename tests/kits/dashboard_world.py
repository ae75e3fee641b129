"""What the dashboard tests act on, and how they log in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from attrs import Factory, define
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automoderate._threads import ServerStopped
from automoderate.backplane.memory import MemoryBackplane
from automoderate.backplane.redis import RedisBackplane
from automoderate.core.hub import AccessChanged, LoggedOut
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.realtime import LoopHandle, Realtime
from automoderate.server import Server
from automoderate.server.interfaces import NotRunning

SECRET_KEY = "a secret for these tests only, long enough"
PASSWORD = "correct horse battery"

T = TypeVar("T")


@define
class StubServer:
    """Stands where the real server would: on the far side of ``Realtime``."""

    draining: bool = False
    backplane: MemoryBackplane | RedisBackplane = Factory(MemoryBackplane)
    published: list[tuple[str, str, dict[str, Any]]] = Factory(list)
    announced: list[tuple[str | None, str | None]] = Factory(list)
    logged_out_users: list[str] = Factory(list)

    def publish(self, project_id: str, event: str, text: str, _now: float) -> str | Future[str]:
        if isinstance(self.backplane, RedisBackplane):
            return self.backplane.publish(project_id, event, text)
        if self.draining:
            raise NotRunning("the server is shutting down")
        self.published.append((project_id, event, json.loads(text)))
        return f"1768473000000-{len(self.published) - 1}"

    def announce(self, item: AccessChanged | LoggedOut, _now: float) -> Future[Any] | None:
        if isinstance(item, AccessChanged):
            self.announced.append((item.user_id, item.project_id))
        else:
            self.logged_out_users.append(item.user_id)
        return self.backplane.announce(item)

    def stats(self) -> dict[str, float]:
        return {"sessions": 3, "updates_total": len(self.published), **self.backplane.stats()}


@define
class StubHandle:
    """Calls at once, or, while ``stuck``, never."""

    stuck: bool = False
    stopped: bool = False

    def watch(self, _fileno: int, _ready: Callable[[float], bool]) -> Future[None]:
        raise AssertionError("nothing is heard from a descriptor")

    def submit(self, call: Callable[[float], T | Future[T]]) -> Future[T]:
        future: Future[T] = Future()
        if self.stopped:
            future.set_exception(ServerStopped("the server has stopped"))
        elif not self.stuck:
            try:
                result = call(0.0)
            except NotRunning as error:
                future.set_exception(error)
            else:
                if isinstance(result, Future):
                    return result
                future.set_result(result)
        return future


@define
class World:
    """Everything a test of the dashboard may want to look at or change."""

    app: Flask
    database: Database
    realtime: Realtime
    server: StubServer
    handle: StubHandle
    owner: accounts.UserInfo
    member: accounts.UserInfo
    stranger: accounts.UserInfo
    project: accounts.ProjectInfo
    other_project: accounts.ProjectInfo
    key: str

    def bind(self) -> None:
        """Let calls reach the stub server again."""
        self.realtime.bind(cast(Server, self.server), cast(LoopHandle, self.handle))

    def logged_in(self, user: accounts.UserInfo) -> FlaskClient:
        """A browser in which that user has logged in, through the form."""
        client = self.app.test_client()
        assert log_in(client, user.username).status_code == 302
        return client


def csrf_token(page: TestResponse) -> str:
    """The token in the first form of a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


def log_in(client: FlaskClient, name: str, password: str = PASSWORD, **extra: Any) -> TestResponse:
    """Fill in the login form and send it."""
    path = extra.pop("path", "/auth/login")
    form = {"username": name, "password": password, "csrf_token": csrf_token(client.get(path))}
    return client.post(path, data=form, **extra)
