"""How smooth the live page is: 1,000 kept updates and more arriving, in Chromium's own trace.

    python -m benchmarks.page [--seconds 30] [--rate 20]

A server in this process, a real Chromium, one page. The page loads all that is kept, then updates arrive while somebody
scrolls, filters and opens rows. Printed is what kept the page's main thread from answering: tasks of more than 50 ms,
which is what browsers call a long task.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from playwright.sync_api import Browser, Page, sync_playwright

from automoderate import app
from automoderate.adapters.runtime import Handle
from automoderate.app import Assembly
from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.settings import Settings

KEPT = 1000
LONG = 50.0
"""Milliseconds from which a task is a long one."""
PASSWORD = "for a benchmark"
STATUSES = ("approved", "approved", "approved", "rejected", "flagged", "pending")
CATEGORIES = "-*,devtools.timeline,toplevel"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@frozen
class Served:
    """A running server, and a project on it."""

    assembly: Assembly
    project_id: str
    url: str

    def publish(self, number: int) -> None:
        """One more decision; returns when it is accepted."""
        data = {
            "content_id": f"content-{number}", "status": STATUSES[number % len(STATUSES)], "content_type": "text",
            "content_preview": f"Number {number}: " + "what somebody wrote, up to a hundred characters of it. " * 2,
            "meta_data": {"author": f"user{number % 97}", "source": "benchmark"}, "processing_time": 0.25,
            "moderator_type": "rule", "moderator_name": "Rule", "rule_name": f"Rule {number % 7}",
        }  # fmt: skip
        self.assembly.realtime.publish(self.project_id, "moderation_update", data).result(10)


@contextmanager
def serving() -> Iterator[Served]:
    """A server on a free port, over a database with one user and one project."""
    with tempfile.TemporaryDirectory(prefix="automoderate-page-") as folder:
        url = f"sqlite:///{Path(folder) / 'page.sqlite3'}"
        database = Database(url)
        database.create_all()
        user = accounts.create_user(database, username="ann", email="ann@example.org", password=PASSWORD)
        project = accounts.create_project(database, name="Forum", owner_id=user.id)
        database.close()
        secret = "only for as long as a benchmark runs"
        assembly = app.build(Settings(port=0, database_url=url, secret_key=secret, content_url="/c/{content_id}"))
        ready: list[Handle] = []
        started = threading.Event()

        def listening(handle: Handle) -> None:
            ready.append(handle)
            started.set()

        thread = threading.Thread(target=assembly.run, args=(listening,))
        thread.start()
        try:
            if not started.wait(60):
                raise RuntimeError("the server did not start")
            address, port = ready[0].addresses[0]
            yield Served(assembly, project.id, f"http://{address}:{port}")
        finally:
            for handle in ready:
                handle.stop()
            thread.join()


def opened(browser: Browser, served: Served) -> Page:
    """The live page, with everything that is kept in it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{served.url}/projects/{served.project_id}")
    page.get_by_label("Username or email").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("main[data-state=live]")
    while page.locator("#older").is_visible():
        page.locator("#older").click()
        page.wait_for_timeout(200)
    return page


def use(page: Page, seconds: float) -> None:
    """What somebody does on it for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        page.mouse.wheel(0, 2500)
        page.wait_for_timeout(1000)
        page.locator(".update__more").first.click()
        page.wait_for_timeout(500)
        page.locator("#filter-flagged").click()
        page.wait_for_timeout(1000)
        page.locator("#search").fill("number 99")
        page.wait_for_timeout(1000)
        page.locator("#clear").click()
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(2000)


def tasks(trace: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The tasks of the page's main thread: how long each took, and how much of the processor, in milliseconds."""
    events = trace["traceEvents"]
    mains = {(e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") == "CrRendererMain"}
    of_page = [e for e in events if (e["pid"], e["tid"]) in mains and "dur" in e]
    return [(e["dur"] / 1000, e.get("tdur", 0) / 1000) for e in of_page if e["name"] == "ThreadControllerImpl::RunTask"]


def measure(seconds: float, rate: float) -> list[tuple[float, float]]:
    """The tasks while updates arrive and somebody uses the page."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("there is no Chromium: run scripts/install-browser")
    with serving() as served, sync_playwright() as playwright:
        for number in range(KEPT):
            served.publish(number)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = opened(browser, served)
        stopped = threading.Event()

        def arrive() -> None:
            number = KEPT
            while not stopped.wait(1 / rate):
                served.publish(number)
                number += 1

        arriving = threading.Thread(target=arrive)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            browser.start_tracing(page=page, path=file, categories=CATEGORIES.split(","))
            arriving.start()
            try:
                use(page, seconds)
            finally:
                stopped.set()
                arriving.join()
                browser.stop_tracing()
            found = tasks(json.loads(file.read_text("utf-8")))
        print(f"rows in the list at the end: {page.locator('#feed > li').count()}")
        browser.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the page is used")
    parser.add_argument("--rate", type=float, default=20.0, help="updates that arrive in a second")
    options = parser.parse_args()
    found = measure(options.seconds, options.rate)
    if not found:
        sys.exit("the trace has no tasks of the page: this Chromium words it in another way")
    print(
        f"{KEPT:,} kept updates, {options.rate:g} arriving a second, {options.seconds:g} s of use, {len(found):,} tasks"
    )
    # Where others use the machine meanwhile a task also waits for the processor.
    for what, spent in zip(("by the clock", "of the processor"), zip(*found, strict=True), strict=True):
        longest = sorted(spent, reverse=True)[:5]
        long = sum(task > LONG for task in spent)
        print(f"{what}: {long} long tasks (over {LONG:g} ms); the longest {', '.join(f'{t:.1f}' for t in longest)} ms")


if __name__ == "__main__":
    main()
