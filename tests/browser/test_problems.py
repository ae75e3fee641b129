"""What a person is told when they may not, or cannot, watch a project, and how they get on from there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
import requests
from flask import Flask
from playwright.sync_api import Locator, Page, expect

from automoderate.adapters import _wsgi
from automoderate.directory import accounts
from kits import PATIENCE
from kits.accessibility import check
from kits.browser_site import (
    Site,
    ThreadServer,
    Visitors,
    before_membership_checks,
    expect_passed_through,
    expect_state,
    log_in,
    update,
    watch_states,
)


def _problem(page: Page, code: str) -> Locator:
    panel = page.locator(f"#problem[data-code={code}]")
    expect(panel).to_be_visible()
    return panel


def _updates_flow(page: Page, site: Site, name: str) -> None:
    expect_state(page, "live")
    expect(page.locator("#problem")).to_be_hidden()
    site.publish(update(name))
    expect(page.locator(f'[data-content-id="{name}"]')).to_be_visible()


def test_not_logged_in_leads_through_the_login_and_back(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.page()
    page.goto(site.live_url)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    log_in(page, site.member)
    _updates_flow(page, site, "c1")
    assert page.url == site.live_url


def test_a_wrong_password_is_told(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.page()
    page.goto(site.base)
    page.get_by_label("Username or email").fill("mia")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That username or password is not right.")
    expect(page.get_by_label("Username or email")).to_have_value("mia")


def test_signing_out_elsewhere_signs_the_live_page_out(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    elsewhere = page.context.new_page()
    elsewhere.goto(site.base)
    elsewhere.get_by_role("button", name="Log out").click()
    expect(elsewhere.get_by_role("heading", name="You are signed out")).to_be_visible()

    panel = _problem(page, "authentication_required")
    expect(panel).to_contain_text("You have been signed out")
    expect_state(page, "disconnected")
    panel.get_by_role("link", name="Log in").click()
    log_in(page, site.member)
    _updates_flow(page, site, "c1")


def test_signing_out_on_one_device_leaves_the_others_in(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    """The server ends every live session of the user; a page whose own cookie is still good is let in again."""
    page, elsewhere = visitors.watching(), visitors.watching()
    watch_states(page)
    elsewhere.get_by_role("button", name="Log out").click()
    expect(elsewhere.get_by_role("heading", name="You are signed out")).to_be_visible()
    expect_passed_through(page, "reconnecting")
    _updates_flow(page, site, "c1")


def test_a_project_that_does_not_exist(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.logged_in()
    page.goto(f"{site.base}/projects/no-such-project")
    expect(page.get_by_role("heading", name="This project does not exist")).to_be_visible()
    page.get_by_role("link", name="Go to your projects").click()
    expect(page.get_by_role("link", name="Community forum")).to_be_visible()


def test_a_project_that_is_deleted_while_watched(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    accounts.remove_project(site.database, site.project.id)
    server.assembly.realtime.access_changed(project_id=site.project.id).result(PATIENCE)
    panel = _problem(page, "access_denied")
    expect_state(page, "disconnected")
    panel.get_by_role("button", name="Try again").click()
    panel = _problem(page, "project_not_found")
    expect(panel).to_contain_text("This project does not exist")
    panel.get_by_role("link", name="Go to your projects").click()
    expect(page.get_by_text("No projects yet")).to_be_visible()


def test_a_stranger_sees_access_denied(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    member = visitors.watching()
    stranger = visitors.logged_in(site.stranger)
    stranger.goto(site.live_url)
    expect(stranger.get_by_role("heading", name="You do not have access to this project")).to_be_visible()
    expect(stranger.get_by_text("Community forum")).to_be_hidden()
    _updates_flow(member, site, "c1")

    accounts.add_member(site.database, site.project.id, site.stranger.id)
    stranger.get_by_role("link", name="Try again").click()
    _updates_flow(stranger, site, "c2")


def test_a_member_who_is_removed_and_added_again(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.watching()
    accounts.remove_member(site.database, site.project.id, site.member.id)
    site.access_changed()
    panel = _problem(page, "access_denied")
    expect(panel).to_contain_text("You do not have access to this project")
    expect_state(page, "disconnected")
    site.publish(update("unseen"))

    panel.get_by_role("button", name="Try again").click()
    expect(page.locator("#feed-title")).to_be_focused()  # the button went, and is there again
    expect(panel.get_by_role("button", name="Try again")).to_be_visible()
    accounts.add_member(site.database, site.project.id, site.member.id)
    panel.get_by_role("button", name="Try again").click()
    _updates_flow(page, site, "c1")
    expect(page.locator("#feed-title")).to_be_focused()


@pytest.mark.parametrize("settings", [{"check_timeout": 0.5}])
def test_a_slow_membership_check_is_told_and_tried_again(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.logged_in()
    quick = threading.Event()
    with before_membership_checks(lambda: quick.wait(PATIENCE * 2)):
        page.goto(site.live_url)
        panel = _problem(page, "timeout")
        expect(panel).to_contain_text("The server took too long to answer")
        expect_state(page, "connecting")
        panel.get_by_role("button", name="Try again").click()
        quick.set()
        _updates_flow(page, site, "c1")


def test_a_failing_membership_check_is_told_and_passes_by_itself(
    server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    page = visitors.logged_in()

    def fail() -> None:
        raise RuntimeError("the database is on fire")

    with before_membership_checks(fail):
        page.goto(site.live_url)
        panel = _problem(page, "server_error")
        expect(panel).to_contain_text("Something went wrong on the server")
        expect(page.get_by_text("on fire")).to_be_hidden()
        expect_state(page, "connecting")
    _updates_flow(page, site, "c1")  # nobody pressed anything


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server takes one request that waits; the paths of those that were refused."""
    paths: list[str] = []

    def noted(pages: Any, status: Any, request: Any) -> Any:
        paths.append(request.path)
        return answer(pages, status, request)

    answer = _wsgi.error_answer
    monkeypatch.setattr(_wsgi, "WAITING", 1)
    monkeypatch.setattr(_wsgi, "error_answer", noted)
    return paths


@pytest.mark.parametrize("settings", [{"threads": 1}])
def test_an_overloaded_server_is_told_and_tried_again(
    refused: list[str], server: ThreadServer, site: Site, visitors: Visitors
) -> None:
    """By a page that looks like all others, though nothing else can be asked for."""
    page, begun, go_on = visitors.page(), threading.Event(), threading.Event()
    application = server.assembly.application
    assert isinstance(application, Flask)

    def take_long() -> str:
        begun.set()
        return str(go_on.wait(PATIENCE * 2))

    application.add_url_rule("/slow", view_func=take_long)
    with ThreadPoolExecutor(3) as others:
        slow = [others.submit(requests.get, f"{site.base}/slow", timeout=PATIENCE * 2)]
        assert begun.wait(PATIENCE), "until then it would wait itself, and both of the next be refused"
        slow += [others.submit(requests.get, f"{site.base}/slow", timeout=PATIENCE * 2) for _ in range(2)]
        try:
            # One is answered, one waits, and the third may not: it is plain text, as for every program.
            plain = next(as_completed(slow, PATIENCE)).result()
            assert (plain.status_code, plain.text) == (503, "503 Service Unavailable\n")
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            address = f"{site.base}/auth/login?next=/%3Fa"
            answer = page.goto(address)
            assert answer is not None
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            expect(page).to_have_title("The server is busy · AutoModerate")
            check(page)
            assert asked == [address]
            assert refused == ["/slow", "/auth/login"], "nor is an icon of the page asked for"
            assert page.locator("main").evaluate("(main) => getComputedStyle(main).borderRadius") == "12px"
        finally:
            go_on.set()
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert page.url == address
