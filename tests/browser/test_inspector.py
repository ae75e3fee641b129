"""The inspector in a real browser: what an administrator sees and does, and what everybody else does not."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from automoderate.directory import accounts
from kits import PATIENCE
from kits.accessibility import violations
from kits.browser_site import PASSWORD, Site, ThreadServer, Visitors, expect_state, rows

HOSTILE = "<img src=x onerror=alert(2)>"


def check(page: Page) -> None:
    """On a desk and on a phone, in light and dark."""
    for width, height in ((360, 740), (1280, 800)):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            assert violations(page) == [], (width, scheme)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"it is too wide at {width}"


def test_an_administrator_looks_into_the_nodes_and_acts(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    accounts.create_user(site.database, username="root", email="root@example.org", password=PASSWORD, is_admin=True)
    root = accounts.find_user(site.database, "root")
    project = site.project.id
    member = visitors.watching(user_agent=HOSTILE)
    page = visitors.logged_in(root)
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
    expect(page.locator("#rooms td.n").nth(1)).not_to_have_text("–")
    check(page)

    # Ending a session: asked first, by keyboard
    end = page.get_by_role("button", name=re.compile("End the session .* of mia"))
    end.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("End a session of mia?")
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(end).to_be_focused()
    expect_state(member, "live")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="End it").click()
    expect(page.locator("#done")).to_have_text("The session of mia has ended.")
    expect(member.locator("main[data-state=live]")).to_have_count(0)

    # Ending a user
    page.get_by_role("button", name="Close").click()
    member.goto(site.live_url)
    expect_state(member, "live")
    page.get_by_role("button", name=re.compile("End all sessions of mia")).click()
    page.get_by_role("dialog").get_by_role("button", name="End all").click()
    expect(page.locator("#done")).to_have_text("One session of mia ended.")
    expect(member.locator("main[data-state=live]")).to_have_count(0)

    # The server goes, and comes back
    page.route("**/api/admin/**", lambda route: route.abort())
    expect(page.locator("#problem")).to_have_text("The server cannot be reached. Trying again.")
    assert violations(page) == []
    page.unroute("**/api/admin/**")
    expect(page.locator("#problem")).to_be_hidden()

    # Who is an administrator no longer sees nothing more
    with site.database.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET is_admin = 0")
        connection.commit()
    expect(page.locator("#problem")).to_have_text("You are no administrator any more.", timeout=PATIENCE * 1000)
    page.reload()
    expect(page.get_by_role("heading", name="This page is for administrators")).to_be_visible()
    expect(page.get_by_role("link", name="Inspector")).to_have_count(0)
