"""The live page in a real browser: what a person sees as updates come, stop coming and come again."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from automoderate import adapters
from kits import PATIENCE
from kits.browser_site import (
    WHOLE,
    Site,
    ThreadServer,
    Visitors,
    Wiretap,
    expect_passed_through,
    expect_state,
    log_in,
    place_of,
    previews,
    rows,
    update,
    watch_states,
)
from kits.cluster import Nginx
from kits.processes import Process

# The page is the same on all of them: two tests are enough to see that.
every_adapter = pytest.mark.parametrize("adapter", adapters.names())

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def _arrived(page: Page, content_id: str) -> None:
    expect(page.locator(f'#feed [data-content-id="{content_id}"]')).to_be_visible()


@every_adapter
def test_a_person_logs_in_and_watches_updates_arrive(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.page()
    page.goto(site.base)
    log_in(page, site.member)
    page.get_by_role("link", name="Community forum").click()
    expect_state(page, "live")
    expect(page.get_by_text("Waiting for the next update")).to_be_visible()

    site.publish(update("c1", "rejected"))
    _arrived(page, "c1")
    expect(page.get_by_text("Waiting for the next update")).to_be_hidden()
    row = rows(page).first
    expect(row.locator(".badge")).to_have_text("Rejected")
    expect(row.locator(".update__facts")).to_have_text("Rule: Spam Detectionby u-17Text250 ms")
    moment = row.locator("time")
    expect(moment).to_have_attribute("datetime", "2026-01-15T10:30:00.000Z")
    assert "2026" in (moment.get_attribute("title") or "")

    site.publish(update("c2", moderator_type="ai", moderator_name="AI", rule_name=None))
    _arrived(page, "c2")
    assert previews(page) == ["Preview c2", "Preview c1"]
    expect(page.locator("#count-approved")).to_have_text("1")
    expect(page.locator("#count-rejected")).to_have_text("1")
    expect(page.locator("#share")).to_have_attribute(
        "aria-label", "50 % approved, 50 % rejected, 0 % flagged, 0 % pending"
    )


BELOW_A_PATH = """
events {
    worker_connections 64;
}
http {
    server {
        listen PORT;
        location /health {
            proxy_pass http://NODE;
        }
        location /moderation/ {
            proxy_pass http://NODE/;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Prefix /moderation;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
}
"""


@pytest.mark.parametrize(("adapter", "settings"), [("asyncio", {"trusted_proxy": "127.0.0.1"})])
def test_it_works_below_a_path_of_a_proxy(server: ThreadServer, site: Site, visitors: Visitors, tmp_path: Path) -> None:
    node = site.base.removeprefix("http://").rstrip("/")
    nginx = Nginx(tmp_path, BELOW_A_PATH, {"PORT": "127.0.0.1:{port}", "NODE": node})
    try:
        page = visitors.page()
        page.goto(f"{nginx.url}/moderation/")
        log_in(page, site.member)
        page.get_by_role("link", name="Community forum").click()
        expect_state(page, "live")
        site.publish(update("c1"))
        _arrived(page, "c1")
        page.close()
    finally:
        nginx.close()


def test_content_is_text_and_nothing_else(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    meta = {"<b>key</b>": [HOSTILE]}
    site.publish(
        update(
            HOSTILE,
            content_preview=HOSTILE,
            rule_name=HOSTILE,
            content_type=HOSTILE,
            moderator_name=HOSTILE,
            meta_data=meta,
        )
    )
    site.publish({"action": HOSTILE, "rule": {"name": HOSTILE}}, "rule_update")
    site.publish({HOSTILE: HOSTILE, "nested": {HOSTILE: 1}}, "stats_update")
    expect(rows(page)).to_have_count(2)
    for button in page.get_by_role("button", name="Details").all():
        button.click()
    expect(page.locator("#feed")).to_contain_text(HOSTILE)
    expect(page.locator(".update__details dt", has_text="<b>key</b>")).to_be_visible()
    expect(page.locator("#stats-list")).to_contain_text("<script>")
    assert page.locator("main img, main script, main b").count() == 0


def test_received_content_turns_into_its_decision_in_place(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    page = visitors.watching()
    for name in ("c1", "c2"):
        site.publish(
            update(name, "pending", moderator_type="pending", moderator_name="Processing…", rule_name=None),
            "content_received",
        )
    _arrived(page, "c2")
    expect(page.locator("#count-pending")).to_have_text("2")
    row = page.locator('[data-content-id="c1"]')
    expect(row.locator(".badge")).to_have_text("Pending")
    before, moment = place_of(row), row.locator("time").inner_text()

    site.publish(update("c1", "flagged", timestamp="2026-01-15T10:30:59+00:00"))
    expect(row.locator(".badge")).to_have_text("Flagged")
    expect(row).to_contain_text("Spam Detection")
    assert previews(page) == ["Preview c2", "Preview c1"]
    assert place_of(row) == before
    assert row.locator("time").inner_text() == moment, "the list is ordered by arrival"
    expect(row.locator("time")).to_have_attribute("title", re.compile("Received .*30:00.*, decided .*30:59"))
    expect(page.locator("#count-pending")).to_have_text("1")
    expect(page.locator("#count-flagged")).to_have_text("1")

    open_row, link = page.locator('[data-content-id="c2"]'), "https://people.example/u-18"
    open_row.get_by_role("button", name="Details").click()
    open_row.get_by_role("button", name="Copy the id").focus()
    site.publish(update("c2", "pending", meta_data={"profile": link}), "content_received")
    expect(open_row.get_by_role("link", name=link)).to_be_visible()
    expect(open_row.get_by_role("button", name="Copy the id")).to_be_focused()  # it is another one, of the same row
    open_row.get_by_role("link", name=link).focus()
    site.publish(update("c2"))
    expect(open_row.locator(".badge")).to_have_text("Approved")
    expect(open_row.get_by_role("link", name=link)).to_have_count(0)
    expect(open_row.get_by_role("button", name="Details")).to_be_focused()
    open_row.get_by_role("button", name="Details").click()
    page.evaluate("document.activeElement.blur()")

    site.publish(update("c1", "approved"))  # a person decides anew: that is an update of its own
    expect(rows(page)).to_have_count(3)
    assert previews(page)[0] == "Preview c1"


def test_statistics_and_rule_changes_show(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    expect(page.get_by_text("none received yet")).to_be_visible()
    site.publish({"total_content": 12345, "by_status": {"approved": 7}, "enabled": True, "note": None}, "stats_update")
    expect(page.locator("#stats-list > div")).to_have_text(
        ["Total content12,345", "By status: approved7", "EnabledYes", "Note–"]
    )
    expect(page.get_by_text("none received yet")).to_be_hidden()
    site.publish({"action": "created", "rule": {"name": "No links"}}, "rule_update")
    expect(rows(page).first).to_contain_text("“No links” was created")
    expect(rows(page).first.locator(".badge")).to_have_text("Rule change")
    expect(page.locator("#count-approved")).to_have_text("0")


LEGEND = """marks => marks.map(mark => getComputedStyle(mark, "::before").backgroundColor)"""


def test_the_legend_has_the_colours_of_the_chart(server: ThreadServer, visitors: Visitors) -> None:
    page = visitors.watching()
    colours = page.eval_on_selector_all(".legend [data-status]", LEGEND)
    assert len(set(colours)) == len(colours) == 4


@every_adapter
def test_a_killed_server_comes_back_and_so_does_the_page(process: Process, site: Site, visitors: Visitors) -> None:
    process.start()
    page = visitors.watching()
    site.publish(update("before"))
    _arrived(page, "before")
    page.evaluate("document.body.dataset.sameDocument = 'yes'")

    process.stop(signal.SIGKILL)
    expect_state(page, "reconnecting")
    expect(page.locator('[data-content-id="before"]')).to_be_visible()

    process.start()
    expect_state(page, "live")
    site.publish(update("after"))
    _arrived(page, "after")
    assert page.evaluate("document.body.dataset.sameDocument") == "yes", "the page was reloaded"
    # The new process cannot know what the old one published: the page says so where it is, and keeps what it has.
    expect(page.locator("#feed > li")).to_have_text(
        [re.compile("Preview after"), re.compile("Some updates were missed here"), re.compile("Preview before")]
    )
    expect(page.locator("#count-approved")).to_have_text("2")
    page.get_by_role("button", name="Load what is kept").click()
    expect(page.locator(".feed__mark")).to_have_text("What was missed here is no longer kept.")


def test_what_was_missed_while_away_arrives_in_order_and_once(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    page = visitors.watching()
    site.publish(update("c0"))
    _arrived(page, "c0")
    page.context.set_offline(True)
    expect_state(page, "reconnecting")
    for number in range(1, 4):
        site.publish(update(f"c{number}"))
    page.context.set_offline(False)
    expect_state(page, "live")
    site.publish(update("c4"))
    _arrived(page, "c4")
    assert previews(page) == [f"Preview c{number}" for number in (4, 3, 2, 1, 0)]
    expect(page.locator(".feed__mark")).to_have_count(0)


def test_an_update_that_comes_twice_is_shown_once(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.logged_in()
    tap = Wiretap(page, doubling="moderation_update")
    page.goto(site.live_url)
    expect_state(page, "live")
    tap.say("6")  # a no-op: it is sent once the upgrade is done
    site.publish(update("c1"))
    site.publish(update("c2"))
    _arrived(page, "c2")
    assert previews(page) == ["Preview c2", "Preview c1"]
    expect(page.locator("#count-approved")).to_have_text("2")


def test_a_session_that_the_server_ends_is_begun_anew(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.logged_in()
    tap = Wiretap(page)
    page.goto(site.live_url)
    expect_state(page, "live")
    site.publish(update("c1"))
    _arrived(page, "c1")
    watch_states(page)
    tap.say("41")  # Socket.IO's DISCONNECT, after which the client library does nothing by itself
    expect_passed_through(page, "reconnecting")
    site.publish(update("c2"))
    expect_state(page, "live")
    _arrived(page, "c2")
    assert previews(page) == ["Preview c2", "Preview c1"]


def _fill(server: ThreadServer, site: Site, page: Page, count: int) -> None:
    for number in range(count):
        server.publish(site.project.id, "moderation_update", update(f"old{number}")).result(PATIENCE)
    _arrived(page, f"old{count - 1}")


def test_a_reader_keeps_their_place(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    _fill(server, site, page, 40)
    row = page.locator('[data-content-id="old10"]')
    row.scroll_into_view_if_needed()
    place = place_of(row)
    for number in range(3):
        site.publish(update(f"new{number}"))
    button = page.get_by_role("button", name="3 new")
    expect(button).to_be_visible()
    expect(page.locator("#count-approved")).to_have_text("43")
    assert place_of(row) == place
    assert previews(page)[0] == "Preview old39"

    button.click()
    expect(rows(page).first).to_contain_text("Preview new2")
    expect(rows(page).first).to_be_in_viewport()
    expect(button).to_be_hidden()
    expect(page.get_by_role("heading", name="Updates")).to_be_focused()


def test_rows_that_come_into_view_from_above_move_nothing(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    """They are of any height, which is known when they are seen for the first time."""
    for number in range(80):
        text = "A long text that somebody wrote. " * (number % 2 * 9 + 1)
        server.publish(site.project.id, "moderation_update", update(f"c{number}", content_preview=text)).result(
            PATIENCE
        )
    page = visitors.watching()
    expect(rows(page)).to_have_count(80)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(rows(page).last).to_be_in_viewport()
    for _ in range(12):
        moved = page.evaluate(
            """async () => {
                const middle = () => document.elementFromPoint(300, innerHeight / 2).closest("#feed > li");
                const row = middle();
                const before = row.getBoundingClientRect().top;
                scrollBy(0, -250);
                for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
                return row.getBoundingClientRect().top - before;
            }"""
        )
        assert abs(moved - 250) < 2


def test_scrolling_back_to_the_top_shows_what_is_new(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    _fill(server, site, page, 40)
    page.locator('[data-content-id="old10"]').scroll_into_view_if_needed()
    site.publish(update("new"))
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    _arrived(page, "new")


def test_updates_can_be_paused(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    site.publish(update("c0"))
    _arrived(page, "c0")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    site.publish(update("c1", "pending", moderator_type="pending"), "content_received")
    expect(page.get_by_role("button", name="Resume, 1 new")).to_be_visible()
    site.publish(update("c1", "rejected"))
    expect(page.locator("#count-rejected")).to_have_text("1")
    assert previews(page) == ["Preview c0"]
    page.get_by_role("button", name="Resume, 1 new").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    _arrived(page, "c1")
    expect(rows(page).first.locator(".badge")).to_have_text("Rejected")


def test_an_open_row_stays_where_it_is(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    site.publish(update("c0"))
    _arrived(page, "c0")
    # By keyboard alone.
    details = page.get_by_role("button", name="Details")
    for _ in range(15):
        page.keyboard.press("Tab")
        if details.evaluate("button => button === document.activeElement"):
            break
    assert details.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(details).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".update__details")).to_contain_text("Authoru-17")
    site.publish(update("c1"))
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".update__details")).to_be_hidden()
    page.keyboard.press("Tab")  # leaving the list is the end of reading it
    _arrived(page, "c1")


def test_nothing_but_the_list_moves_as_updates_arrive(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()

    def places() -> list[object]:
        return [
            page.locator(selector).bounding_box()
            for selector in ("h1", "#connection", "#charts", ".counts", "#pace", "#stats", "#feed-bar", "#pause")
        ]

    before = places()
    for number in range(30):
        status = ("approved", "rejected", "flagged", "pending")[number % 4]
        server.publish(site.project.id, "moderation_update", update(f"c{number}", status)).result(PATIENCE)
    _arrived(page, "c29")
    expect(page.locator("#count-approved")).to_have_text("8")
    assert places() == before


@pytest.mark.parametrize("path", ["login", "projects", "live"])
def test_a_phone_never_scrolls_sideways(server: ThreadServer, site: Site, visitors: Visitors, path: str) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    if path == "login":
        page = visitors.page(**phone)
        page.goto(site.base)
    elif path == "projects":
        page = visitors.logged_in(**phone)
    else:
        page = visitors.watching(**phone)
        site.publish(update("c1"))
        _arrived(page, "c1")
        assert page.locator(".update__author").evaluate(WHOLE), "a short name is not cut"
        long = "unbroken" * 12
        site.publish(update(long, content_preview=long, rule_name=long, meta_data={long: long}))
        site.publish({long: long * 20}, "stats_update")
        _arrived(page, long)
        page.get_by_role("button", name="Details").first.click()
        page.locator("#charts > summary").click()
        page.locator("#stats > summary").click()
        expect(page.locator("#stats-list")).to_be_visible()
        assert page.locator("#stats-list dt").evaluate("term => term.clientWidth") > 90
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_colour_scheme(server: ThreadServer, visitors: Visitors, scheme: str, dark: bool) -> None:
    page = visitors.watching(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(colour.removeprefix("rgb(").split(",")[0])
    assert (red < 64) == dark, colour


def test_reduced_motion_is_respected(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching(reduced_motion="reduce")
    site.publish(update("c0"))
    _arrived(page, "c0")
    assert rows(page).first.evaluate("row => getComputedStyle(row).animationName") == "none"
