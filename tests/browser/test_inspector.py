"""The inspector in a real browser: what an administrator sees and does, and what everybody else does not."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from automoderate.directory import accounts
from kits import PATIENCE
from kits.accessibility import check, violations
from kits.browser_site import (
    PASSWORD,
    Site,
    ThreadServer,
    Visitors,
    expect_passed_through,
    expect_state,
    log_in,
    rows,
    watch_states,
)
from kits.contract_client import Client
from kits.processes import SECRET_KEY

HOSTILE = "<img src=x onerror=alert(2)>"


@pytest.fixture
def root(site: Site) -> accounts.UserInfo:
    """An administrator, who is a member of no project."""
    accounts.create_user(site.database, username="root", email="root@example.org", password=PASSWORD, is_admin=True)
    return accounts.find_user(site.database, "root")


def ask_again(page: Page) -> None:
    """Have the page ask now, as it does when somebody comes back to it, and not with the next of its questions."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def claim_another_page(route: Route) -> None:
    """Answer as the server does, but for the number of all."""
    answer = route.fetch()
    route.fulfill(response=answer, json={**answer.json(), "total": 21})


ASKED_TWICE = """button => {
  button.click();
  document.getElementById("confirm").close();
  button.click();
}"""
"""The browser tells of the end of the first dialog when the second is open."""


def test_an_administrator_looks_into_the_nodes_and_acts(
    server: ThreadServer, site: Site, visitors: Visitors, root: accounts.UserInfo
) -> None:
    project = site.project.id
    member = visitors.watching(user_agent=HOSTILE)
    page = visitors.page()
    page.goto(f"{site.base}/inspector")
    log_in(page, root)
    page.get_by_role("link", name="Inspector").click()
    expect(page).to_have_title("Inspector · AutoModerate")
    expect(page.get_by_role("link", name="Inspector")).to_have_attribute("aria-current", "page")

    # What is there
    expect(page.locator("#nodes tr")).to_have_count(1)
    expect(page.locator("#nodes")).to_contain_text("1 websocket")
    expect(page.locator("#clients")).to_contain_text("<img")
    expect(page.locator("#rooms tr")).to_have_count(1)
    expect(page.locator("#sessions")).to_contain_text("mia")
    expect(page.locator("#sessions-place")).to_have_text("1 to 1 of 1")
    expect(page.locator("#sessions-after")).to_be_disabled()
    expect(page.locator("#sessions-after")).not_to_have_css("opacity", "1")

    # Finding
    page.get_by_placeholder("User, address").fill("nobody of that name")
    expect(page.locator("#sessions tr")).to_have_count(0)
    page.get_by_placeholder("User, address").fill("MIA")
    expect(page.locator("#sessions tr")).to_have_count(1)
    page.get_by_placeholder("User, address").fill("")

    # A room, with what happens in it
    page.get_by_role("button", name=f"Open the room of project {project}").click()
    expect(page.get_by_role("heading", name=f"Room of project {project}")).to_be_focused()
    expect(page.locator("#room-members")).to_contain_text("1 on ")
    page.get_by_label("Test update").select_option("flagged")
    page.get_by_role("button", name="Publish a test update").click()
    expect(page.locator("#done")).to_contain_text("was published")
    expect(rows(member)).to_have_count(1)
    expect(rows(member).first).to_contain_text("Test update by root: nothing was moderated")
    expect(page.locator("#room-updates li")).to_have_count(1)
    site.publish({"content_id": "c", "status": "approved", "content_preview": HOSTILE})
    expect(page.locator("#room-updates li").first).to_contain_text(HOSTILE)
    site.publish({"content_preview": {"of": [HOSTILE]}, "status": {"a": 1}}, "stats_update")
    expect(page.locator("#room-updates li").first).to_have_text(f'{{"a":1}} {{"of":["{HOSTILE}"]}}')
    expect(page.locator("#rooms td.n").nth(1)).not_to_have_text("–")
    check(page)

    # Ending a session: asked first, by keyboard
    end = page.get_by_role("button", name=re.compile("End the session .* of mia"))
    end.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("End a session of mia?")
    expect(page.get_by_role("dialog")).to_contain_text("A live page comes back by itself")
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(end).to_be_focused()
    expect_state(member, "live")
    watch_states(member)
    end.evaluate(ASKED_TWICE)
    page.get_by_role("button", name="End it").click()
    expect(page.locator("#done")).to_have_text("The session of mia has ended.")
    expect_passed_through(member, "reconnecting")
    expect_state(member, "live")
    expect(page.locator("[aria-labelledby=sessions-title][tabindex]")).to_be_focused()  # as the row is gone

    # Ending a user
    page.get_by_role("button", name="Close").click()
    member.goto(site.live_url)
    expect_state(member, "live")
    ask_again(page)
    page.get_by_role("button", name=re.compile("End all sessions of mia")).click()
    page.get_by_role("dialog").get_by_role("button", name="End all").click()
    expect(page.locator("#done")).to_have_text("One session of mia ended.")
    expect(member.locator("main[data-state=live]")).to_have_count(0)

    # More than one page
    page.route("**/api/admin/sessions?*", claim_another_page)
    ask_again(page)
    expect(page.locator("#sessions-after")).to_be_enabled()
    page.locator("#sessions-after").press("Enter")
    expect(page.locator("#sessions-after")).to_be_disabled()
    expect(page.locator("#sessions-before")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#sessions-before")).to_be_disabled()
    expect(page.locator("#sessions-after")).to_be_focused()

    # The server goes, and comes back
    page.route("**/api/admin/**", lambda route: route.abort())
    ask_again(page)
    expect(page.locator("#problem")).to_have_text("The server cannot be reached. Trying again.")
    assert violations(page) == []
    page.unroute("**/api/admin/**")
    ask_again(page)
    expect(page.locator("#problem")).to_be_hidden()

    # Who is an administrator no longer sees nothing more
    with site.database.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET is_admin = 0")
        connection.commit()
    ask_again(page)
    expect(page.locator("#problem")).to_have_text("You are no administrator any more.", timeout=PATIENCE * 1000)
    page.reload()
    expect(page.get_by_role("heading", name="This page is for administrators")).to_be_visible()
    expect(page.get_by_role("link", name="Inspector")).to_have_count(0)


@pytest.fixture
def mounted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the application that is mounted wants to find in its environment."""
    monkeypatch.setenv("SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("DATABASE_URL", site.database_url)


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("settings", [{"wsgi": "kits.mounted_app:create_app()"}])
def test_it_is_beside_a_mounted_application(
    server: ThreadServer, site: Site, visitors: Visitors, root: accounts.UserInfo
) -> None:
    """Through the application's own login, with what its sessions say."""
    project = site.project.id
    page = visitors.page()
    page.goto(f"{site.base}/realtime/inspector")
    log_in_there(page, root)
    expect(page).to_have_title("Inspector · AutoModerate")
    expect(page.locator("#nodes tr")).to_have_count(1)
    cookies = page.context.cookies()

    # A member who watches with a session of the application
    member = watching(site)
    ask_again(page)
    expect(page.locator("#sessions")).to_contain_text("mia")
    page.get_by_role("button", name=f"Open the room of project {project}").click()
    page.get_by_role("button", name="Publish a test update").click()
    expect(page.locator("#done")).to_contain_text("was published")
    assert "by root" in member.expect("moderation_update")["content_preview"]
    check(page)
    page.get_by_role("button", name=re.compile("End the session .* of mia")).click()
    page.get_by_role("button", name="End it").click()
    expect(page.locator("#done")).to_have_text("The session of mia has ended.")
    member.ended()
    member.wire.close()
    assert page.context.cookies() == cookies, "they are the application's"

    # Who logs out of the application is told by the page, which leads back through the login
    page.request.post(f"{site.base}/auth/logout")
    ask_again(page)
    page.get_by_role("link", name="Log in").click()
    log_in_there(page, site.member)
    expect(page.get_by_role("heading", name="This page is for administrators")).to_be_visible()
    check(page)
    page.get_by_role("link", name="Go to the application").click()
    expect(page).to_have_url(f"{site.base}/")


def log_in_there(page: Page, user: accounts.UserInfo) -> None:
    """Fill in the form of the mounted application."""
    page.locator("[name=username]").fill(user.username)
    page.locator("[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Go").click()


def watching(site: Site) -> Client:
    """A client of the member who logged in on the mounted application's own page, in the project's room."""
    form = {"username": site.member.username, "password": PASSWORD}
    answer = requests.post(f"{site.base}/auth/login", form, timeout=PATIENCE, allow_redirects=False)
    cookie = "; ".join(f"{name}={value}" for name, value in answer.cookies.items())
    client = Client.connect(("127.0.0.1", urlsplit(site.base).port or 0), "websocket", {"Cookie": cookie})
    client.expect("connected")
    client.call("join_project", {"project_id": site.project.id})
    return client
