"""Chromium, a server and a database with people in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from automoderate import dashboard
from automoderate.dashboard.pages import CLIENT
from automoderate.directory import accounts
from automoderate.directory.database import Database
from kits import PATIENCE
from kits.browser_site import PASSWORD, Site, ThreadServer, Visitors
from kits.processes import Process, steady_port

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The installed Chromium. For one module at a time: Playwright keeps an event loop running in this thread."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path is not None, "no Chromium is installed: run scripts/install-browser"
    client = Path(dashboard.__file__).parent / "static" / CLIENT
    assert client.is_file(), "the browser's Socket.IO client is missing: run npm ci"
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with people and a project, made once: hashing passwords is slow on purpose."""
    path = tmp_path_factory.mktemp("browser") / "template.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.create_all()
    owner, member, _ = (
        accounts.create_user(database, username=name, email=f"{name}@example.org", password=PASSWORD)
        for name in ("olga", "mia", "sam")
    )
    project = accounts.create_project(database, name="Community forum", owner_id=owner.id)
    accounts.add_member(database, project.id, member.id)
    accounts.create_api_key(database, project.id, "pipeline")
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture
def site(site_template: Path, tmp_path: Path) -> Iterator[Site]:
    """A copy of that database, which the test may change."""
    path = tmp_path / "automoderate.sqlite3"
    path.write_bytes(site_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    project = accounts.list_projects(database)[0]
    owner, member, stranger = (accounts.find_user(database, name) for name in ("olga", "mia", "sam"))
    yield Site(database, project, owner, member, stranger, accounts.list_api_keys(database, project.id)[0].key)
    database.close()


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those of the server that are not the defaults; for a test to be parametrised with."""
    return {}


@pytest.fixture
def server(site: Site, adapter: str, settings: dict[str, Any]) -> Iterator[ThreadServer]:
    """A server for that database in this process."""
    server = ThreadServer(site, adapter=adapter, **settings)
    yield server
    server.stop()


@pytest.fixture
def process(site: Site, adapter: str, tmp_path: Path) -> Iterator[Process]:
    """A server for that database in a process of its own, which starts again on the same port."""
    port = steady_port()
    site.base = f"http://127.0.0.1:{port}"
    process = Process(tmp_path / "server.log", port=str(port), adapter=adapter, database_url=site.database_url)
    yield process
    process.close()


@pytest.fixture
def visitors(browser: Browser, site: Site) -> Iterator[Visitors]:
    """People with browsers, none of which may have complained in the end."""
    visitors = Visitors(browser, site)
    yield visitors
    visitors.close()
    assert visitors.complaints == []
