"""The pages: who sees which, and that nothing in them is trusted."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from automoderate.dashboard import pages
from automoderate.directory import accounts
from kits.dashboard_world import PASSWORD, World, csrf_token


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
        assert 'data-content-url="/content/{content_id}?a=1&amp;b=2"' in page.text
        assert f'data-user-id="{user.id}"' in page.text


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


def test_the_database_being_away_is_told_and_passes(world: World) -> None:
    client = world.logged_in(world.owner)
    with _without_database(world):
        page = client.get("/")
        assert page.status_code == 503
        assert "The database cannot be reached" in page.text
        assert page.headers["Retry-After"] == "5"
        assert "sqlite" not in page.text
    assert client.get("/").status_code == 200


def _without_database(world: World) -> AbstractContextManager[object]:
    """Within it the database is away."""
    stack = ExitStack()
    path = world.database.path
    assert path is not None
    hidden = path.rename(path.with_suffix(".away"))
    stack.callback(hidden.rename, path)
    world.app.extensions["automoderate"].database.close()
    return stack


def test_other_errors_stay_what_they_are_while_the_database_is_away(world: World) -> None:
    client = world.logged_in(world.owner)
    with _without_database(world):
        missing = client.get("/nope")
        assert missing.status_code == 404
        assert "There is no such page" in missing.text
        assert client.get("/auth/logout").status_code == 405
        login = client.get("/auth/login?next=/projects/7%3Fstatus%3Dflagged")
        assert login.status_code == 503
        assert 'href="/auth/login?next=/projects/7%3Fstatus%3Dflagged">Try again' in login.text
    assert "Log out" in client.get("/nope").text


def test_a_login_that_the_database_did_not_see_is_tried_again_with_the_form(world: World, client: FlaskClient) -> None:
    path = "/auth/login?next=/projects/7"
    form = {"username": "olga", "password": PASSWORD, "csrf_token": csrf_token(client.get(path))}
    with _without_database(world):
        answer = client.post(path, data=form)
    assert answer.status_code == 503
    assert 'href="/auth/login?next=/projects/7">Try again' in answer.text


def test_problems_lead_on_below_the_path_of_a_proxy(world: World) -> None:
    below = {"SCRIPT_NAME": "/moderation"}
    client = world.logged_in(world.stranger)
    path = f"/projects/{world.project.id}"
    denied = client.get(f"{path}?status=flagged", environ_overrides=below)
    assert f'href="/moderation{path}?status=flagged">Try again' in denied.text
    for status, where in ((403, path), (404, "/nope"), (404, "/projects/nope"), (200, "/auth/signed-out")):
        answer = (client if status != 200 else world.app.test_client()).get(where, environ_overrides=below)
        assert answer.status_code == status
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', answer.text)
        assert links
        assert all(link.startswith("/moderation/") for link in links), links
    with _without_database(world):
        away = client.get("/", environ_overrides=below)
    assert (away.status_code, 'href="/moderation/">Try again' in away.text) == (503, True)


@pytest.mark.usefixtures("world")
def test_a_page_remembers_its_filters_through_the_login(client: FlaskClient) -> None:
    answer = client.get("/projects/7?status=flagged&q=a%20b")
    assert answer.location == "/auth/login?next=/projects/7?status%3Dflagged%26q%3Da%2520b"


@pytest.mark.parametrize("code", [400, 403, 404, 405, 413, 418])
def test_every_error_is_a_page_of_one_kind(world: World, client: FlaskClient, code: int) -> None:
    world.app.add_url_rule("/fails", view_func=lambda: abort(code))
    answer = client.get("/fails")
    assert answer.status_code == code
    assert re.search(rf"Error {code}</p>\s*<h1>\S.+</h1>\s*<p>\S.+</p>", answer.text)
    assert 'href="/">Go to your projects' in answer.text


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
    return ["/", "/auth/login", "/auth/signed-out", f"/projects/{world.project.id}", "/nope", "/health", "/api/nope"]


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
    assert {"live.js", "connection.js", "room.js"} <= {script.name for script in scripts}
    for script in scripts:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script.read_text()
        ), script


def test_the_scripts_are_served_with_the_right_type(world: World, client: FlaskClient) -> None:
    for script in Path(world.app.static_folder or "").glob("*.js"):
        assert client.get(f"/static/{script.name}", buffered=True).mimetype == "text/javascript"
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
