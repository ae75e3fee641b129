"""The accessibility checker finds nothing on any page, on a desk and a phone, in light and dark."""

from __future__ import annotations

from playwright.sync_api import expect

from kits.accessibility import check
from kits.browser_site import Site, ThreadServer, Visitors, expect_state, rows, update


def test_no_page_has_a_violation(server: ThreadServer, site: Site, visitors: Visitors) -> None:
    page = visitors.page()
    page.goto(site.base)
    check(page)
    visitors.log_in(page)
    check(page)
    page.get_by_role("link", name="Community forum").click()
    expect_state(page, "live")
    check(page)
    for status in ("approved", "rejected", "flagged", "pending"):
        site.publish(update(status, status))
    site.publish({"action": "created", "rule": {"name": "No links"}}, "rule_update")
    expect(rows(page)).to_have_count(5)
    page.locator(".update__more").first.click()
    check(page)
