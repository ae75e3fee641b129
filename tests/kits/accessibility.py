"""The accessibility checker, axe-core, run on a page as a browser shows it."""

from __future__ import annotations

import itertools
from typing import Literal

from playwright.sync_api import Page, ViewportSize

from kits import ROOT

CHECKER = ROOT / "node_modules" / "axe-core" / "axe.min.js"
SIZES: list[ViewportSize] = [{"width": 320, "height": 568}, {"width": 1280, "height": 800}]
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]


def violations(page: Page) -> list[str]:
    """What the checker finds on the page, a line for each element: the rule, how bad it is, the element and why."""
    assert CHECKER.is_file(), "the accessibility checker is missing: run npm ci"
    # Within an animation colours are between two: what counts is where it ends. One that never ends is left alone.
    page.evaluate(
        """() => document.getAnimations()
            .filter((animation) => animation.effect.getComputedTiming().endTime !== Infinity)
            .forEach((animation) => animation.finish())"""
    )
    page.evaluate(CHECKER.read_text("utf-8"))
    found: list[str] = page.evaluate(
        """async () => {
            const { violations } = await axe.run(document);
            return violations.flatMap(({ id, impact, nodes }) =>
                nodes.map((node) => `${id} (${impact}) ${node.html}: ${node.failureSummary}`));
        }"""
    )
    return found


def check(page: Page) -> None:
    """On a desk and a phone, in light and dark, the checker finds nothing on the page as it is now, and it fits."""
    for size, scheme in itertools.product(SIZES, SCHEMES):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == [], (size, scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"it is too wide for {size}"
