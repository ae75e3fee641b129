"""What a person does on the live page: begins with what is kept, finds, acts, is called, and sees who else is there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from automoderate.directory import accounts
from kits import PATIENCE
from kits.browser_site import WHOLE, Site, ThreadServer, Visitors, expect_state, place_of, previews, rows, update

ELSEWHERE = """
// A page that nobody looks at, whose sounds and notifications are noted.
window.heard = 0; window.told = [];
document.hasFocus = () => false;
const { start } = AudioScheduledSourceNode.prototype;
OscillatorNode.prototype.start = function (when) { window.heard += 1; start.call(this, when); };
window.Notification = class extends EventTarget {
    static permission = "default";
    static async requestPermission() { return (Notification.permission = window.allows ?? "granted"); }
    constructor(title, options) { super(); window.told.push([title, options.body]); }
    close() {}
};
"""


def fill(server: ThreadServer, site: Site, count: int, **more: Any) -> None:
    """Publish so many updates, whose contents are named by their numbers from 0 on."""
    told = [
        server.publish(site.project.id, "moderation_update", update(f"c{number}", **more)) for number in range(count)
    ]
    for future in told:
        future.result(PATIENCE)


def row_of(page: Page, content_id: str) -> Locator:
    return page.locator(f'#feed [data-content-id="{content_id}"]')


def names(first: int, last: int) -> list[str]:
    """Previews of the contents with these numbers, both counted, newest first."""
    return [f"Preview c{number}" for number in range(first, last - 1, -1)]


def test_the_page_begins_with_what_is_kept_and_goes_back_in_pages(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    fill(server, site, 240)
    page = visitors.watching()
    expect(rows(page)).to_have_count(100)
    assert previews(page) == names(239, 140)
    expect(page.get_by_text("Last 100 before that")).to_be_visible()
    expect(page.locator("#share-before")).to_have_attribute("aria-label", re.compile("^100 % approved"))
    expect(page.locator("#count-approved")).to_have_text("100")
    expect(page.locator("#fresh-approved")).to_have_text("+0")

    site.publish(update("c240", "flagged"))
    expect(page.locator("#fresh-flagged")).to_have_text("+1")
    expect(page.locator("#total")).to_have_text("1 update")
    older = page.get_by_role("button", name="Load older")
    older.click()
    expect(rows(page)).to_have_count(201)
    expect(page.get_by_text("Last 200 before that")).to_be_visible()
    older.click()
    expect(rows(page)).to_have_count(241)
    assert previews(page) == names(240, 0)
    older.click()
    expect(page.get_by_text("Nothing older is kept.")).to_be_visible()
    expect(older).to_be_hidden()


@pytest.mark.parametrize("settings", [{"history_entries": 130}])
def test_what_was_missed_for_good_is_marked_and_filled_in_as_far_as_it_is_kept(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    fill(server, site, 20)
    page = visitors.watching()
    page.mouse.move(600, 600)
    page.context.set_offline(True)
    expect_state(page, "reconnecting")
    for number in range(20, 200):
        server.publish(site.project.id, "moderation_update", update(f"c{number}")).result(PATIENCE)
    page.context.set_offline(False)
    expect_state(page, "live")
    expect(rows(page)).to_have_count(120)
    assert previews(page) == [*names(199, 100), *names(19, 0)]
    mark = page.locator(".feed__mark")
    expect(mark).to_contain_text("Some updates were missed here")
    expect(page.locator('#feed > [data-content-id="c100"] + .feed__mark + [data-content-id="c19"]')).to_be_attached()
    mark.get_by_role("button").click()
    expect(rows(page)).to_have_count(150)
    assert previews(page) == [*names(199, 70), *names(19, 0)]
    mark.get_by_role("button").click()
    expect(mark).to_have_text("What was missed here is no longer kept.")
    expect(mark).to_be_focused()  # its button, which had the focus, is gone
    expect(page.locator("#missed")).to_contain_text("Some updates were missed at")


def test_a_view_is_found_and_shared_by_its_address(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    ai = {"moderator_type": "ai", "moderator_name": "AI", "rule_name": None}
    site.publish(update("a", "flagged", **ai))
    site.publish(update("b", "flagged", content_type="image"))
    site.publish(update("c", "approved", content_preview="The ferry runs again"))
    page = visitors.watching()
    shown = page.locator("#feed .update__preview")
    expect(rows(page)).to_have_count(3)

    page.get_by_role("button", name=re.compile("^Flagged 2")).click()
    expect(shown).to_have_text(["Preview b", "Preview a"])
    expect(page.locator("#feed-count")).to_have_text("2 of 3")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Moderator").select_option("AI")
    expect(shown).to_have_text(["Preview a"])
    assert page.url.endswith("?status=flagged&moderator=ai")

    # It holds for what arrives, by whatever way, and somebody else sees the same.
    site.publish(update("d", "flagged"))
    site.publish(update("e", "pending", moderator_type="pending", moderator_name="Processing…"), "content_received")
    site.publish(update("e", "flagged", **ai))
    expect(shown).to_have_text(["Preview e", "Preview a"])
    other = visitors.logged_in(site.owner)
    other.goto(page.url)
    expect(other.locator("#feed .update__preview")).to_have_text(["Preview e", "Preview a"])
    expect(other.locator("#filter-flagged")).to_have_attribute("aria-pressed", "true")
    other.close()

    page.get_by_role("button", name="Clear").click()
    expect(rows(page)).to_have_count(5)
    assert page.url == site.live_url
    page.get_by_label("Search in what is loaded").fill("ferry again")
    expect(shown).to_have_text(["The ferry runs again"])
    assert page.url.endswith("?q=ferry+again")
    page.get_by_label("Search in what is loaded").fill("no such thing")
    expect(page.get_by_text("Nothing here matches")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(rows(page)).to_have_count(5)
    expect(page.get_by_label("Search in what is loaded")).to_be_focused()


def test_older_updates_are_looked_through_for_what_the_filter_wants(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    site.publish(update("wanted", "flagged"))
    fill(server, site, 320)
    page = visitors.logged_in()
    page.goto(f"{site.live_url}?status=flagged")
    expect(page.get_by_text("Nothing here matches")).to_be_visible()
    page.get_by_role("button", name="Load older").click()
    expect(row_of(page, "wanted")).to_be_visible()
    assert previews(page) == ["Preview wanted"]


def test_a_filter_takes_away_however_many_rows_whoever_reads(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    fill(server, site, 3, status="flagged")
    fill(server, site, 500)
    page = visitors.watching()
    for count in (200, 300, 400, 500, 503):
        page.get_by_role("button", name="Load older").click()
        expect(rows(page)).to_have_count(count)
    row_of(page, "c200").first.scroll_into_view_if_needed()
    page.locator("#filter-flagged").click()
    expect(rows(page)).to_have_count(3)
    expect(page.locator('#feed > [data-status="flagged"]')).to_have_count(3)


def test_what_is_read_stays_while_its_decision_no_longer_fits(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    site.publish(update("a", "pending", moderator_type="pending"), "content_received")
    page = visitors.logged_in()
    page.goto(f"{site.live_url}?status=pending")
    row_of(page, "a").get_by_role("button", name="Details").click()
    site.publish(update("a", "approved"))
    expect(row_of(page, "a").locator(".badge")).to_have_text("Approved")
    row_of(page, "a").get_by_role("button", name="Details").click()
    page.get_by_label("Search in what is loaded").focus()
    expect(row_of(page, "a")).to_have_count(0)


@pytest.mark.parametrize("settings", [{"content_url": "/auth/login?content={content_id}&project={project_id}"}])
def test_a_row_leads_on(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    meta = {
        "author": "u-17", "profile": "https://people.example/u-17", "script": "javascript:alert(1)",
        "user_id": 48213, "confidence": 0.004217,
        "nested": {"https://key.example": ["http://deep.example/x?a=1&b=2", "see https://no.example"]},
    }  # fmt: skip
    site.publish(update("c/1?", meta_data=meta))
    site.publish(update("..", meta_data=None))
    page = visitors.watching()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row = row_of(page, "c/1?")
    expect(row.locator(".update__author")).to_have_text("by u-17")
    expect(row.get_by_role("link", name="Preview c/1?")).to_have_attribute(
        "href", f"/auth/login?content=c%2F1%3F&project={site.project.id}"
    )
    assert row_of(page, "..").get_by_role("link").count() == 0
    row.get_by_role("button", name="Details").click()
    links = row.locator(".update__details a[target]")
    addresses = ["https://people.example/u-17", "http://deep.example/x?a=1&b=2"]
    expect(links).to_have_text(addresses)
    for link, address in zip(links.all(), addresses, strict=True):
        assert link.get_attribute("href") == address
        assert link.get_attribute("rel") == "noopener noreferrer"
    expect(row.locator("dd", has_text="javascript:alert(1)")).to_be_visible()
    for number in ("48213", "0.004217"):
        expect(row.get_by_text(number, exact=True)).to_be_visible()
    expect(row.locator(".update__time")).to_contain_text(re.compile("^Jan 15"))
    row.get_by_role("button", name="Copy the id").click()
    expect(row.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "c/1?"

    # Over plain HTTP a page has no clipboard of its own.
    site.publish(update(1042))
    row = row_of(page, "1042")
    page.get_by_role("button", name="1 new").click()
    href = f"/auth/login?content=1042&project={site.project.id}"
    expect(row.get_by_role("link", name="Preview 1042")).to_have_attribute("href", href)
    row.get_by_role("button", name="Details").click()
    page.evaluate("board = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    row.get_by_role("button", name="Copy the id").click()
    expect(row.get_by_role("button", name="Copied")).to_be_focused()
    assert page.evaluate("board.readText()") == "1042"
    expect(row.get_by_role("button", name="Copy the id")).to_be_visible()
    page.evaluate("document.execCommand = () => false")
    row.get_by_role("button", name="Copy the id").click()
    expect(row.get_by_role("button", name="Not allowed")).to_be_focused()


def test_who_else_is_there_and_what_they_look_at(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    site.publish(update("a"))
    mia, olga = visitors.watching(), visitors.watching(site.owner)
    others = mia.get_by_role("list", name="Also watching")
    expect(others.get_by_role("listitem")).to_have_text(["Oolga"])
    expect(others.get_by_title("olga")).to_have_text("O")
    place = place_of(row_of(mia, "a"))
    olga.locator(".update__more").click()
    lookers = row_of(mia, "a").locator(".update__lookers")
    expect(lookers).to_contain_text("olga is looking at this")
    expect(lookers.locator("bdi")).to_have_text("olga")  # a name that runs from right to left turns no sentence around
    assert place_of(row_of(mia, "a")) == place
    expect(row_of(olga, "a").locator(".update__lookers")).to_be_hidden()
    olga.locator(".update__more").click()
    expect(lookers).to_be_hidden()
    olga.locator(".update__more").click()
    expect(lookers).to_be_visible()
    olga.locator("#filter-flagged").click()  # which takes the open row away
    expect(lookers).to_be_hidden()
    olga.locator("#filter-flagged").click()
    expect(row_of(olga, "a").locator(".update__more")).to_have_attribute("aria-expanded", "false")
    olga.locator(".update__more").click()
    expect(lookers).to_be_visible()
    mia.set_viewport_size({"width": 360, "height": 740})
    assert lookers.evaluate(WHOLE), "on a phone it says all of it, too"
    olga.close()
    expect(others).to_be_hidden()
    expect(lookers).to_be_hidden()

    olga = visitors.watching(site.owner)
    olga.locator(".update__more").click()
    expect(lookers).to_be_visible()
    accounts.remove_member(site.database, site.project.id, site.member.id)
    site.access_changed()
    expect_state(mia, "disconnected")
    expect(mia.locator("#watchers")).to_be_hidden()  # who is there is not for them any more
    expect(lookers).to_be_hidden()


def test_somebody_who_is_away_is_called_as_they_chose(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.page()
    page.add_init_script(ELSEWHERE)
    visitors.log_in(page)
    page.goto(site.live_url)
    expect_state(page, "live")
    page.get_by_text("Alerts").click()
    page.get_by_label("A sound").check()
    assert page.evaluate("heard") == 2, "two notes, so that it is known"
    page.evaluate("allows = 'denied'")
    page.get_by_label("A notification").click()
    expect(page.get_by_label("A notification")).not_to_be_checked()
    expect(page.locator("#alert-note")).to_contain_text("does not allow")
    page.evaluate("allows = 'granted'")
    page.get_by_label("A notification").check()

    site.publish(update("a"))
    site.publish(update("b", "flagged"))
    page.wait_for_function("() => told.length === 1 && heard > 2")
    assert page.evaluate("told[0]") == ["Community forum: New, flagged", "Preview b"]
    expect(page).to_have_title("(1) Community forum · AutoModerate")
    expect(page.locator("#announcer")).to_contain_text(re.compile("New|new"))
    page.get_by_label("All that the filter shows").check()
    site.publish(update("c", "approved"))
    expect(page).to_have_title("(2) Community forum · AutoModerate")
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page).to_have_title("Community forum · AutoModerate")

    page.add_init_script("Notification.permission = 'granted'")
    page.reload()
    expect_state(page, "live")
    expect(page).to_have_title("Community forum · AutoModerate", timeout=PATIENCE * 1000)
    page.get_by_text("Alerts").click()
    for name in ("A sound", "A notification", "A number in", "All that the filter"):
        expect(page.get_by_label(name)).to_be_checked()
    page.evaluate("Notification.permission = 'denied'")  # the browser takes back what it had allowed
    site.publish(update("d"))
    expect(page.get_by_label("A notification")).not_to_be_checked()
    expect(page.locator("#alert-note")).to_contain_text("does not allow")
    assert page.evaluate("told") == []
    page.keyboard.press("Escape")
    expect(page.get_by_label("A sound")).to_be_hidden()


def test_the_keyboard_is_enough(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    for name in ("a", "b", "c"):
        site.publish(update(name))
    page = visitors.watching()
    expect(rows(page)).to_have_count(3)
    keys = page.keyboard
    keys.press("j")
    expect(row_of(page, "c")).to_be_focused()
    keys.press("j")
    keys.press("j")
    keys.press("j")
    keys.press("k")
    expect(row_of(page, "b")).to_be_focused()
    keys.press("o")
    expect(row_of(page, "b").locator(".update__details")).to_be_visible()
    site.publish(update("d"))
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    keys.press("Escape")
    expect(row_of(page, "b").locator(".update__details")).to_be_hidden()
    keys.press("Escape")
    expect(row_of(page, "d")).to_be_visible()
    keys.press("j")
    expect(row_of(page, "d")).to_be_focused()
    site.publish(update("e"))
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    keys.press("Shift+Tab")  # to that button, which goes as nobody reads any more
    expect(row_of(page, "e")).to_be_visible()
    expect(page.locator("#feed-title")).to_be_focused()
    keys.press("/")
    search = page.get_by_label("Search in what is loaded")
    expect(search).to_be_focused()
    keys.type("jp?")  # letters, where somebody types
    expect(search).to_have_value("jp?")
    search.fill("")
    keys.press("Escape")
    for key, code, caps in (("P", "KeyP", True), ("P", "KeyP", False), ("з", "KeyP", False), ("З", "KeyP", True)):
        # With CapsLock, with Shift, and on a Russian keyboard: all but that with Shift.
        page.evaluate(
            """([key, code, caps]) => document.body.dispatchEvent(new KeyboardEvent("keydown", {
                key, code, modifierCapsLock: caps, shiftKey: key === "P" && !caps, bubbles: true }))""",
            [key, code, caps],
        )
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    keys.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("Next update")
    dialog.get_by_label("Use these keys").uncheck()
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    keys.press("p")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.reload()
    expect_state(page, "live")
    keys.press("p")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_on_a_phone_the_list_comes_first_and_the_charts_are_folded(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    fill(server, site, 30)
    page = visitors.watching(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    expect(rows(page).first).to_be_in_viewport()
    expect(page.locator("#pace")).to_be_hidden()
    page.locator("#filter-approved").click()  # the line of the search is full
    for menu in page.locator("details.menu").all():
        menu.locator("summary").click()
        panel = menu.locator(".menu__panel")
        assert panel.evaluate("panel => panel.getBoundingClientRect().left") >= 0
        assert panel.evaluate("panel => panel.getBoundingClientRect().right") <= 360
        page.keyboard.press("Escape")
    page.locator("#clear").click()
    summary = page.locator("#charts > summary")
    expect(summary).to_be_in_viewport()
    summary.click()
    expect(page.locator("#pace")).to_be_visible()
    expect(page.locator("#share-before")).to_be_in_viewport()
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.locator("#pace")).to_be_visible()
    page.set_viewport_size({"width": 360, "height": 740})
    expect(page.locator("#pace")).to_be_hidden()
    _go_up_in_sight(page)


def _go_up_in_sight(page: Page) -> None:
    """Who goes from the end of the list to its beginning by keyboard sees where they are, below the bar that stays."""
    page.locator("#older").focus()
    for _ in range(rows(page).count()):
        page.keyboard.press("Shift+Tab")
        page.wait_for_function(
            """() => {
                const [{ top }, { bottom }] = [document.activeElement, document.getElementById("feed-bar")].map(
                    (element) => element.getBoundingClientRect());
                return document.activeElement.matches(".update__more") && top >= bottom - 1;
            }"""
        )


def test_no_more_rows_are_drawn_than_asked_for_and_none_is_lost_to_a_reader(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    page = visitors.watching()
    fill(server, site, 250)
    expect(page.locator("#count-approved")).to_have_text("250")
    expect(rows(page)).to_have_count(200)
    assert previews(page) == names(249, 50)
    page.get_by_role("button", name="Load older").click()
    expect(rows(page)).to_have_count(250)
    row = row_of(page, "c20")
    row.scroll_into_view_if_needed()
    place = place_of(row)
    fill(server, site, 220)
    expect(page.get_by_role("button", name="220 new")).to_be_visible()
    assert place_of(row) == place
