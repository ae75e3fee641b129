"""The list of projects in a real browser: all of them live over one connection, as they come, change and go."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from automoderate import adapters
from automoderate.directory import accounts
from kits import PATIENCE
from kits.accessibility import check
from kits.browser_site import Site, ThreadServer, Visitors, before_membership_checks, expect_state, log_in, update
from kits.processes import Process

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def _more_projects(site: Site, count: int) -> list[accounts.ProjectInfo]:
    """Projects of the member's own, which come after the one that is there."""
    return [
        accounts.create_project(site.database, name=f"Project {number:03}", owner_id=site.member.id)
        for number in range(count)
    ]


def _card(page: Page, project: accounts.ProjectInfo) -> Locator:
    return page.locator(f'.project[data-project-id="{project.id}"]')


def _cards(page: Page, state: str) -> Locator:
    return page.locator(f'.project[data-state="{state}"]')


def _publish(
    server: ThreadServer, project: accounts.ProjectInfo, data: dict[str, Any], event: str = "moderation_update"
) -> None:
    server.publish(project.id, event, {**data, "project_id": project.id}).result(PATIENCE)


def _decided(name: str, status: str = "approved", minutes_ago: float = 0, **more: Any) -> dict[str, Any]:
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return update(name, status, timestamp=moment.isoformat(), **more)


@pytest.mark.parametrize("adapter", adapters.names())
def test_all_projects_are_live_over_one_connection(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    market, quiet = _more_projects(site, 2)
    _publish(server, site.project, _decided("old", "flagged", minutes_ago=61))
    _publish(server, site.project, _decided("kept", "flagged", minutes_ago=10))
    page = visitors.page()
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    visitors.log_in(page)
    expect_state(page, "live")

    forum = _card(page, site.project)
    expect(forum.locator(".project__last")).to_have_text(re.compile("Flagged.*10 min ago.*Preview kept", re.S))
    expect(forum.locator(".project__flagged")).to_have_text("1")
    expect(forum.locator(".project__rate")).to_have_text("0")
    expect(_card(page, quiet)).to_contain_text("No decisions yet")

    _publish(server, market, _decided("first", "rejected"))
    _publish(server, market, _decided("second", "flagged"))
    _publish(server, market, update("third", "pending"), "content_received")
    _publish(server, site.project, _decided("live"))
    expect(forum.locator(".project__last")).to_have_text(re.compile("Approved.*just now.*Preview live", re.S))
    expect(forum.locator(".project__rate")).to_have_text("1")
    stall = _card(page, market)
    expect(stall.locator(".project__last")).to_have_text(re.compile("Flagged.*Preview second", re.S))
    expect(stall.locator(".project__rate")).to_have_text("2")
    expect(stall.locator(".project__flagged")).to_have_text("1")
    expect(stall.locator('path[data-status="rejected"]')).to_have_attribute("d", re.compile("^M"))
    expect(_card(page, quiet)).to_contain_text("No decisions yet")
    assert len(sockets) == 1

    page.get_by_role("link", name="Community forum").click()
    expect(page.get_by_role("heading", name="Community forum")).to_be_visible()


def test_numbers_say_where_more_is_kept_and_what_was_missed_is_counted_once(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    (market,) = _more_projects(site, 1)
    for number in range(120):
        _publish(server, site.project, _decided(f"c{number}", "flagged"))
    page = visitors.logged_in()
    expect_state(page, "live")
    busy, quiet = (_card(page, project).locator("dd") for project in (site.project, market))
    expect(busy).to_have_text(["100+", "100+"])
    _publish(server, market, _decided("before", "flagged"))
    expect(quiet).to_have_text(["1", "1"])

    page.context.set_offline(True)
    expect_state(page, "reconnecting")
    _publish(server, market, _decided("missed", "flagged"))
    _publish(server, site.project, _decided("missed"))
    page.context.set_offline(False)
    expect_state(page, "live")
    expect(quiet.last).to_have_text("2")
    expect(busy.last).to_have_text("100+")
    for project in (site.project, market):
        expect(_card(page, project)).to_contain_text("Preview missed")


def test_a_killed_server_comes_back_and_so_does_the_list(process: Process, site: Site, visitors: Visitors) -> None:
    process.start()
    page = visitors.logged_in()
    expect_state(page, "live")
    card = _card(page, site.project)
    site.publish(_decided("before", "flagged"))
    expect(card).to_contain_text("Preview before")
    page.evaluate("document.body.dataset.sameDocument = 'yes'")
    process.stop(signal.SIGKILL)
    expect_state(page, "reconnecting")
    expect(card).to_contain_text("Preview before")

    process.start()
    site.publish(_decided("meanwhile", "flagged"))
    expect_state(page, "live")
    # The new process cannot know what the old one published: what it still has is shown, and that some may be missing.
    expect(card).to_contain_text("Preview meanwhile")
    expect(card.locator(".project__flagged")).to_have_text("2+")
    site.publish(_decided("after"))
    expect(card).to_contain_text("Preview after")
    assert page.evaluate("document.body.dataset.sameDocument") == "yes", "the page was reloaded"


def test_projects_that_are_left_or_deleted_show_so(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    market, stays = _more_projects(site, 2)
    page = visitors.logged_in()
    expect_state(page, "live")
    accounts.remove_member(site.database, site.project.id, site.member.id)
    accounts.remove_project(site.database, market.id)
    for project in (site.project, market):
        server.assembly.realtime.access_changed(project_id=project.id).result(PATIENCE)
    left, deleted = _card(page, site.project), _card(page, market)
    expect(left).to_contain_text("You no longer have access to this project.")
    expect(deleted).to_contain_text("This project has been deleted.")
    expect(page.get_by_role("link", name=re.compile("Community forum|Project 000"))).to_have_count(0)
    expect(deleted.get_by_role("button")).to_have_count(0)
    expect_state(page, "live")
    _publish(server, stays, _decided("c1"))
    expect(_card(page, stays)).to_contain_text("Preview c1")

    left.get_by_role("button", name="Try again").click()
    expect(left.get_by_role("button", name="Try again")).to_be_focused()
    expect(left).to_contain_text("You no longer have access to this project.")
    accounts.add_member(site.database, site.project.id, site.member.id)
    left.get_by_role("button", name="Try again").click()
    _publish(server, site.project, _decided("c2"))
    expect(left).to_contain_text("Preview c2")
    expect(left.get_by_role("link", name="Community forum")).to_be_focused()  # the button has gone
    left.get_by_role("link", name="Community forum").click()
    expect(page.get_by_role("heading", name="Community forum")).to_be_visible()


@pytest.mark.parametrize("settings", [{"max_rooms": 2}])
def test_more_projects_than_one_page_may_follow(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    first, second, third = _more_projects(site, 3)
    page = visitors.logged_in()
    expect_state(page, "live")
    expect(_cards(page, "live")).to_have_count(2)
    expect(page.get_by_role("status").filter(has_text="2 of your projects are live here")).to_be_visible()
    for project in (second, third):
        expect(_card(page, project)).to_contain_text("Not live on this page")
    expect(_card(page, third).get_by_role("link")).to_be_visible()

    accounts.remove_project(site.database, first.id)
    accounts.remove_member(site.database, site.project.id, site.member.id)
    for project in (first, site.project):
        server.assembly.realtime.access_changed(project_id=project.id).result(PATIENCE)
    for project in (second, third):  # they have the places now
        _publish(server, project, _decided("c1"))
        expect(_card(page, project)).to_contain_text("Preview c1")
    expect(page.locator("#beyond")).to_be_hidden()


@pytest.mark.parametrize("settings", [{"max_rooms": 200, "ping_interval": 120.0}])
def test_joins_are_paced_below_the_limit_of_the_server(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    _more_projects(site, 95)
    page = visitors.page()
    page.clock.install()
    visitors.log_in(page)
    expect(_cards(page, "live")).to_have_count(90)
    expect(_cards(page, "waiting")).to_have_count(6)
    expect_state(page, "live")
    page.clock.fast_forward(61_000)
    expect(_cards(page, "live")).to_have_count(96)


@pytest.mark.parametrize("settings", [{"max_events_per_minute": 5}])
def test_a_server_that_takes_less_is_not_pressed(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    _more_projects(site, 9)
    page = visitors.logged_in()
    expect_state(page, "live")
    expect(_card(page, site.project)).to_have_attribute("data-state", "live")
    expect(_cards(page, "waiting").nth(4)).to_be_visible()  # at least half of them, until a minute has gone by
    _publish(server, site.project, _decided("c1"))
    expect(_card(page, site.project)).to_contain_text("Preview c1")


def test_logging_out_elsewhere_ends_it_and_logging_in_goes_on(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    page = visitors.logged_in()
    expect_state(page, "live")
    elsewhere = page.context.new_page()
    elsewhere.goto(site.base)
    elsewhere.get_by_role("button", name="Log out").click()
    expect(elsewhere.get_by_role("heading", name="You are signed out")).to_be_visible()

    expect_state(page, "disconnected")
    panel = page.get_by_role("alert")
    expect(panel).to_contain_text("You have been signed out")
    panel.get_by_role("link", name="Log in").click()
    log_in(page, site.member)
    expect_state(page, "live")


def test_a_failing_membership_check_is_told_and_passes_by_itself(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    def fail() -> None:
        raise RuntimeError("the database is on fire")

    page = visitors.page()
    with before_membership_checks(fail):
        visitors.log_in(page)
        expect(_card(page, site.project)).to_contain_text("The server does not answer for this project")
        expect(page.get_by_text("on fire")).to_be_hidden()
    expect(_cards(page, "live")).to_have_count(1)  # nobody pressed anything


@pytest.mark.parametrize("settings", [{"max_rooms": 3}])
def test_every_state_of_the_list_can_be_read_by_everybody(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    accounts.create_project(site.database, name=HOSTILE, owner_id=site.member.id)
    busy, deleted, *_ = _more_projects(site, 4)
    page = visitors.logged_in()
    expect_state(page, "live")
    accounts.remove_member(site.database, site.project.id, site.member.id)
    accounts.remove_project(site.database, deleted.id)
    for project in (site.project, deleted):
        server.assembly.realtime.access_changed(project_id=project.id).result(PATIENCE)
    for status in ("approved", "rejected", "flagged"):
        _publish(server, busy, _decided(status, status, content_preview=HOSTILE + "unbroken" * 30))
        expect(_card(page, busy).locator(f'.project__last[data-status="{status}"]')).to_be_visible()
    for state in ("denied", "gone", "live", "beyond"):
        expect(_cards(page, state).first).to_be_visible()
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    expect(_card(page, busy)).to_contain_text(HOSTILE)
    assert page.locator("main img, main script, main b").count() == 0
    check(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_has_the_menu_and_the_keyboard_reaches_it(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.logged_in(**PHONE)
    expect_state(page, "live")
    account = page.get_by_role("button", name="Account of mia")
    log_out = page.get_by_role("button", name="Log out")
    expect(page.get_by_role("navigation").get_by_role("link", name="Projects")).to_be_visible()
    expect(log_out).to_be_hidden()
    account.tap()
    expect(page.get_by_text("Logged in as")).to_be_visible()
    check(page)
    page.set_viewport_size(PHONE["viewport"])
    page.keyboard.press("Escape")
    expect(log_out).to_be_hidden()

    page.goto(f"{site.base}/projects/nope")
    check(page)
    page.set_viewport_size(PHONE["viewport"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    account.press("Enter")
    page.keyboard.press("Tab")
    expect(log_out).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    check(page)


def test_numbers_grow_old_and_say_where_some_are_missing(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.page()
    page.goto(site.base)
    opened = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    page.clock.set_fixed_time(opened)
    page.evaluate(
        """async () => {
            const { Pulse } = await import("/static/pulse.js");
            window.pulse = new Pulse();
            const used = () => pulse.columns().filter(({ flagged }) => flagged).length;
            window.numbers = () => [pulse.pace(), pulse.flagged(), used()];
            // The last is by a clock that is ahead.
            for (const secondsAgo of [4000, 3000, 200, 30, 0, -600]) {
                pulse.decided("flagged", new Date(Date.now() - 1000 * secondsAgo));
            }
        }"""
    )

    def numbers(minutes: int) -> tuple[str, str, int]:
        """After so many minutes: decided in a minute, flagged in an hour, columns in which something was flagged."""
        page.clock.set_fixed_time(opened + timedelta(minutes=minutes))
        pace, flagged, columns = page.evaluate("numbers()")
        spelled = [f"{number['count']}{'+' if number['more'] else ''}" for number in (pace, flagged)]
        return spelled[0], spelled[1], columns

    assert numbers(0) == ("3", "5", 3)
    page.evaluate("pulse.gap()")
    assert numbers(0) == ("3+", "5+", 3)
    assert numbers(1) == ("0", "5+", 3)
    page.evaluate("""() => { pulse.decided("flagged", new Date()); pulse.cut(); }""")
    assert numbers(1) == ("1+", "6+", 4)
    assert numbers(5) == ("0", "6+", 1)
    assert numbers(60) == ("0", "1+", 0)
    assert numbers(61) == ("0", "0", 0)
