"""A real server for the browser tests, in this process or in one that can be killed, and the people who visit it."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import requests
import sqlalchemy
from attrs import Factory, define
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Locator, Page, WebSocketRoute, expect

from automoderate import app
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.settings import Settings
from kits import PATIENCE
from kits.processes import SECRET_KEY
from kits.threads import ServerThread

PASSWORD = "correct horse battery"

# Complaints that a browser makes about what a test does on purpose.
EXPECTED = ("Failed to load resource", "WebSocket connection to", "net::ERR_")

# Nothing of an element is cut off, for its ``evaluate``.
WHOLE = "element => [element, ...element.children].every((each) => each.scrollWidth <= each.clientWidth)"


def update(content_id: str | int, status: str = "approved", **more: Any) -> dict[str, Any]:
    """The data of a moderation_update."""
    return {
        "content_id": content_id, "status": status, "content_type": "text", "content_preview": f"Preview {content_id}",
        "meta_data": {"author": "u-17"}, "results_count": 1, "processing_time": 0.25, "moderator_type": "rule",
        "moderator_name": "Rule", "rule_name": "Spam Detection", "timestamp": "2026-01-15T10:30:00+00:00", **more,
    }  # fmt: skip


@define
class Site:
    """A database with people and projects. Its server is a :class:`ThreadServer`, or a process."""

    database: Database
    project: accounts.ProjectInfo
    owner: accounts.UserInfo
    member: accounts.UserInfo
    stranger: accounts.UserInfo
    key: str
    base: str = ""

    @property
    def live_url(self) -> str:
        return f"{self.base}/projects/{self.project.id}"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.database.path}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Use the publishing API as a program would."""
        answer = requests.post(self.base + path, json=body, headers={"X-API-Key": self.key}, timeout=PATIENCE)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def publish(self, data: dict[str, Any], event: str = "moderation_update") -> str:
        """Publish to the project; returns the event id."""
        event_id: str = self.post(f"/api/projects/{self.project.id}/events", {"event": event, "data": data})["event_id"]
        return event_id

    def access_changed(self) -> None:
        """Announce that who may see the project has changed."""
        self.post("/api/access-changes", {"project_id": self.project.id})


class ThreadServer:
    """The whole server in a thread of this process, where tests may look into it and change its parts."""

    def __init__(self, site: Site, **settings: Any) -> None:
        self.assembly = app.build(
            Settings(port=0, database_url=site.database_url, secret_key=SECRET_KEY, drain_timeout=2.0, **settings)
        )
        self._server = ServerThread(self.assembly)
        site.base = self._server.url

    def publish(self, project_id: str, event: str, data: dict[str, Any], _trace: str | None = None) -> Future[str]:
        """Publish without waiting: many a second."""
        return self.assembly.realtime.publish(project_id, event, data)

    def stop(self) -> None:
        """Stop as SIGTERM would."""
        self._server.stop()


@define(slots=False)  # Playwright keeps notes of its own on the object of a handler
class Visitors:
    """Browser profiles, each of a person of its own, whose pages may not complain."""

    browser: Browser
    site: Site
    complaints: list[str] = Factory(list)
    contexts: list[BrowserContext] = Factory(list)
    _numbers: itertools.count[int] = Factory(itertools.count)

    def page(self, **options: Any) -> Page:
        """A page of a new profile, not logged in."""
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(PATIENCE * 1000)
        self.contexts.append(context)
        context.on("page", self._listen)
        return context.new_page()

    def logged_in(self, user: accounts.UserInfo | None = None, **options: Any) -> Page:
        """A page of a new profile on the list of projects, as the member unless another is named."""
        page = self.page(**options)
        self.log_in(page, user)
        return page

    def log_in(self, page: Page, user: accounts.UserInfo | None = None) -> None:
        """Go to the list of projects, as the member unless another is named."""
        page.goto(self.site.base)
        log_in(page, user or self.site.member)
        expect(page.get_by_role("heading", name="Projects")).to_be_visible()

    def watching(self, user: accounts.UserInfo | None = None, **options: Any) -> Page:
        """A page of a new profile on the live page, and live.

        It comes there straight from the login: a page that is left before it is live leaves a session behind, until
        its ping is missed.
        """
        page = self.page(**options)
        page.goto(self.site.live_url)
        log_in(page, user or self.site.member)
        expect_state(page, "live")
        return page

    def _listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("console", self._console)
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
            self.complaints.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        for context in self.contexts:
            context.close()


@define(slots=False)
class Wiretap:
    """Sits between a page and the server's WebSocket, and can put words into the server's mouth."""

    page: Page
    socket: WebSocketRoute | None = None
    doubling: str | None = None
    """A message that contains this reaches the page twice."""

    def __attrs_post_init__(self) -> None:
        self.page.route_web_socket(re.compile("/socket.io/"), self._opened)

    def _opened(self, socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def to_server(message: str | bytes) -> None:
            server.send(message)
            if message == "5":  # the upgrade is done: from here on everything travels on this socket
                self.socket = socket

        def to_page(message: str | bytes) -> None:
            socket.send(message)
            if self.doubling is not None and self.doubling in str(message):
                socket.send(message)

        socket.on_message(to_server)
        server.on_message(to_page)

    def say(self, message: str) -> None:
        """Send the page a message as if from the server, once the page listens on a WebSocket."""
        deadline = time.monotonic() + PATIENCE
        while self.socket is None:
            assert time.monotonic() < deadline, "the page never came to use a WebSocket"
            self.page.wait_for_timeout(20)
        self.socket.send(message)


def log_in(page: Page, user: accounts.UserInfo) -> None:
    """Fill in the login form that the page shows, and send it."""
    page.get_by_label("Username or email").fill(user.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def expect_state(page: Page, state: str) -> None:
    """Wait for a state of the connection, both as scripts and as people see it."""
    expect(page.locator(f"main[data-state={state}]")).to_be_visible(timeout=PATIENCE * 1000)
    expect(page.locator("#connection")).to_have_text(state.capitalize())


def watch_states(page: Page) -> None:
    """From here on note the states of the connection, for ``expect_passed_through``."""
    page.evaluate(
        """() => {
            window.states = [];
            const main = document.querySelector("main");
            const note = () => states.push(main.dataset.state);
            new MutationObserver(note).observe(main, { attributeFilter: ["data-state"] });
        }"""
    )


def expect_passed_through(page: Page, state: str) -> None:
    """Wait until the connection is, or has been, in a state that it leaves by itself."""
    page.wait_for_function("state => states.includes(state)", arg=state)


def rows(page: Page) -> Any:
    """The rows of the list, newest first."""
    return page.locator("#feed > .update")


def previews(page: Page) -> list[str]:
    """The content of the rows in the list, newest first."""
    return [text.strip() for text in page.locator("#feed .update__preview").all_text_contents()]


def place_of(row: Locator) -> Any:
    """Where a row is once it lies still. What comes into view is laid out then, and takes a frame or two."""
    row.element_handle().wait_for_element_state("stable")
    return row.bounding_box()


@contextlib.contextmanager
def before_membership_checks(call: Callable[[], object]) -> Iterator[None]:
    """Within it ``call`` is made before the database is asked who may see which project."""

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "json_each" in statement:
            call()

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", look)
