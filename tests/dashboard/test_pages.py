"""The pages: who sees which, and that nothing in them is trusted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dashboard_world import World
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from automoderate.dashboard import pages
from automoderate.directory import accounts


def test_pages_send_strangers_to_the_login_and_back(world: World, client: FlaskClient) -> None:
    assert client.get("/").location == "/auth/login?next=/"
    path = f"/projects/{world.project.id}"
    assert client.get(path).location == f"/auth/login?next={path}"


def test_the_list_has_the_persons_projects_with_roles(world: World) -> None:
    owner, member = world.logged_in(world.owner).get("/").text, world.logged_in(world.member).get("/").text
    assert "Forum &lt;b&gt;&amp;&lt;/b&gt;" in owner
    assert "Reviews" in owner
    assert re.findall(r'class="tag">(\w+)<', owner) == ["Owner", "Owner"]
    assert "Reviews" not in member
    assert re.findall(r'class="tag">(\w+)<', member) == ["Admin"]


def test_somebody_without_projects_is_told_what_to_do(world: World) -> None:
    page = world.logged_in(world.stranger).get("/")
    assert "No projects yet" in page.text
    assert "Forum" not in page.text


def test_members_and_owners_get_the_live_page(world: World) -> None:
    for user in (world.owner, world.member):
        page = world.logged_in(user).get(f"/projects/{world.project.id}")
        assert page.status_code == 200
        assert f'data-project-id="{world.project.id}"' in page.text
        assert 'data-state="connecting"' in page.text


def test_a_project_that_is_not_there_and_one_that_is_not_mine(world: World) -> None:
    client = world.logged_in(world.stranger)
    missing = client.get("/projects/no-such-project")
    assert missing.status_code == 404
    assert 'data-code="project_not_found"' in missing.text
    assert client.get("/projects/" + "x" * 5000).status_code == 404
    denied = client.get(f"/projects/{world.project.id}")
    assert denied.status_code == 403
    assert 'data-code="access_denied"' in denied.text
    assert f'href="/projects/{world.project.id}">Try again' in denied.text
    assert "Forum" not in denied.text


def test_a_missing_browser_client_is_said_on_the_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.logged_in(world.owner)
    monkeypatch.setattr(pages, "CLIENT", "vendor/not-there.js")
    page = client.get(f"/projects/{world.project.id}")
    assert page.status_code == 200
    assert "npm ci" in page.text
    monkeypatch.setattr(pages, "CLIENT", "dashboard.css")
    assert "npm ci" not in client.get(f"/projects/{world.project.id}").text


@pytest.mark.parametrize("path", ["/nope", "/projects/", "/static/nope.css"])
def test_other_addresses_are_a_readable_404(world: World, path: str) -> None:
    for client in (world.app.test_client(), world.logged_in(world.owner)):
        page = client.get(path)
        assert page.status_code == 404
        assert "There is no such page" in page.text


def test_a_wrong_method_says_the_right_ones(world: World) -> None:
    answer = world.logged_in(world.owner).get("/auth/logout")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_a_form_too_large_is_refused(client: FlaskClient) -> None:
    answer = client.post("/auth/login", data={"username": "x" * 100_000})
    assert answer.status_code == 413


def test_the_database_being_away_is_told_and_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.logged_in(world.owner)
    path = world.database.path
    assert path is not None
    hidden = path.rename(path.with_suffix(".away"))
    world.app.extensions["automoderate"].database.close()
    try:
        page = client.get("/")
        assert page.status_code == 503
        assert "The database cannot be reached" in page.text
        assert page.headers["Retry-After"] == "5"
        assert str(path.name) not in page.text
    finally:
        hidden.rename(path)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("failure", "status"),
    [(RuntimeError("secret detail"), 500), (OperationalError("secret detail", {}, Exception()), 503)],
)
def test_failures_do_not_show_their_details(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    client = world.logged_in(world.owner)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(accounts, "projects_for", fail)
    page = client.get("/")
    assert page.status_code == status
    assert "secret detail" not in page.text
    assert "Try again" in page.text


def _all_pages(world: World) -> list[str]:
    return ["/", "/auth/login", f"/projects/{world.project.id}", "/nope", "/health", "/api/nope"]


def test_every_answer_is_protected(world: World) -> None:
    client = world.logged_in(world.owner)
    for path in [*_all_pages(world), "/static/live.js"]:
        headers = client.get(path, base_url="http://mod.example:6217", buffered=True).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert policy["connect-src"] == "'self' ws://mod.example:6217 wss://mod.example:6217"
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_a_strange_host_does_not_get_into_the_policy(client: FlaskClient) -> None:
    policy = client.get("/health", headers={"Host": "evil; script-src *"}).headers["Content-Security-Policy"]
    assert "evil" not in policy
    assert "script-src" not in policy


def test_pages_have_no_inline_code(world: World) -> None:
    client = world.logged_in(world.owner)
    anonymous = world.app.test_client()
    for text in [client.get(path).text for path in _all_pages(world)] + [anonymous.get("/auth/login").text]:
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)


def test_scripts_never_make_markup_out_of_text(world: World) -> None:
    folder = Path(world.app.static_folder or "")
    scripts = list(folder.glob("*.js"))
    assert {script.name for script in scripts} >= {"live.js", "feed.js", "room.js", "tally.js", "text.js"}
    for script in scripts:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script.read_text()
        ), script


def test_the_scripts_are_served_with_the_right_type(world: World, client: FlaskClient) -> None:
    for name in ("live.js", "feed.js", "room.js", "tally.js", "text.js"):
        assert client.get(f"/static/{name}", buffered=True).mimetype == "text/javascript"
    assert client.get("/static/icons.svg", buffered=True).mimetype == "image/svg+xml"


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _schemes(app: Flask) -> dict[str, dict[str, str]]:
    css = (Path(app.static_folder or "") / "dashboard.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    )
    return {"light": light, "dark": light | dark}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(world: World, scheme: str) -> None:
    colours = _schemes(world.app)[scheme]
    pairs = [
        (text, ground) for text in ("text", "text-soft", "accent") for ground in ("ground", "surface", "surface-soft")
    ]
    pairs += [(status, f"{status}-soft") for status in ("approved", "rejected", "flagged", "pending", "rule")]
    pairs += [
        ("on-accent", "accent"),
        ("on-accent", "accent-strong"),
        ("text-soft", "rule-soft"),
        ("accent", "rule-soft"),
    ]
    for text, ground in pairs:
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert _contrast(colours["line-strong"], colours["surface"]) >= 3, "the edge of an input"
