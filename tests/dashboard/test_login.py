"""Logging in and out, and what keeps others from doing it in a person's name."""

from __future__ import annotations

import time
from unittest import mock

import pytest
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner

from automoderate.core.hub import Access, Identity
from automoderate.dashboard import auth
from automoderate.directory import accounts
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import DatabaseUnavailable
from automoderate.directory.sessions import SessionReader
from automoderate.directory.signatures import CLOCK_LEEWAY
from kits.dashboard_world import PASSWORD, SECRET_KEY, World, csrf_token, log_in


@pytest.mark.parametrize("name", ["olga", "olga@example.org", "  olga "])
def test_username_and_email_both_log_in(client: FlaskClient, name: str) -> None:
    answer = log_in(client, name)
    assert (answer.status_code, answer.location) == (302, "/")
    assert "Forum" in client.get("/").text


def test_the_realtime_server_reads_the_session(world: World, client: FlaskClient) -> None:
    log_in(client, "mia")
    cookie = client.get_cookie("session")
    assert cookie is not None
    directory = SQLDirectory(world.database, SessionReader(world.app))
    assert directory.identify(f"session={cookie.value}") == Identity(world.member.id, world.member.username)
    assert directory.check_access(world.member.id, world.project.id) is Access.GRANTED


@pytest.mark.parametrize(("name", "password"), [("olga", "wrong"), ("nobody", PASSWORD), ("olga'--", PASSWORD)])
def test_a_wrong_name_or_password_is_told_alike(client: FlaskClient, name: str, password: str) -> None:
    answer = log_in(client, name, password)
    assert answer.status_code == 401
    assert "That username or password is not right." in answer.text
    assert client.get("/").status_code == 302


def test_empty_fields_are_asked_for(client: FlaskClient) -> None:
    answer = log_in(client, "  ", "")
    assert answer.status_code == 400
    assert "Please enter" in answer.text


def test_an_inactive_user_does_not_get_in_and_is_thrown_out(world: World) -> None:
    client = world.logged_in(world.member)
    accounts.set_active(world.database, world.member.id, False)
    assert client.get("/").location == "/auth/login?next=/"
    assert log_in(world.app.test_client(), "mia").status_code == 401


def test_login_without_a_valid_token_is_refused_with_a_fresh_form(world: World, client: FlaskClient) -> None:
    form = {"username": "olga", "password": PASSWORD}
    for token in (
        {},
        {"csrf_token": "made up"},
        {"csrf_token": csrf_token(world.app.test_client().get("/auth/login"))},
    ):
        answer = client.post("/auth/login", data=form | token)
        assert answer.status_code == 400
        assert "Please try again" in answer.text
        assert csrf_token(answer)
    assert client.get("/").status_code == 302


def test_the_session_is_a_new_one_after_login(client: FlaskClient) -> None:
    before = csrf_token(client.get("/auth/login"))
    log_in(client, "olga")
    assert client.post("/auth/logout", data={"csrf_token": before}).location == "/"  # refused: another session's token
    assert client.get("/").status_code == 200


def test_the_clock_of_the_node_that_logged_somebody_in_may_be_a_little_ahead(world: World, client: FlaskClient) -> None:
    """The next page may come from another node, whose clock is behind."""
    now = int(time.time())
    with mock.patch.object(TimestampSigner, "get_timestamp", return_value=now + CLOCK_LEEWAY - 1):
        token = csrf_token(client.get("/auth/login"))
    form = {"username": "olga", "password": PASSWORD, "csrf_token": token}
    with mock.patch.object(TimestampSigner, "get_timestamp", return_value=now):
        assert client.post("/auth/login", data=form).status_code == 302
        assert client.get("/").status_code == 200
    for signed, status in ((CLOCK_LEEWAY - 1, 200), (3600, 302), (-30 * 86400, 200), (-32 * 86400, 302)):
        another = world.app.test_client()
        with (
            mock.patch.object(TimestampSigner, "get_timestamp", return_value=now + signed),
            another.session_transaction() as session,
        ):
            session["_user_id"] = world.owner.id
        assert another.get("/").status_code == status, signed


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: FlaskClient) -> None:
    plain = log_in(client, "olga").headers["Set-Cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=Lax" in plain
    assert "Secure" not in plain


def test_the_cookie_of_an_encrypted_connection_stays_on_such(world: World) -> None:
    client = world.app.test_client()
    page = client.get("/auth/login", base_url="https://mod.example")
    assert "Secure" in page.headers["Set-Cookie"]


def test_login_works_over_an_encrypted_connection(world: World) -> None:
    client, base = world.app.test_client(), "https://mod.example"
    form = {
        "username": "olga",
        "password": PASSWORD,
        "csrf_token": csrf_token(client.get("/auth/login", base_url=base)),
    }
    foreign = client.post("/auth/login", data=form, base_url=base, headers={"Referer": "https://evil.example/"})
    assert foreign.status_code == 400
    answer = client.post("/auth/login", data=form, base_url=base, headers={"Referer": f"{base}/auth/login"})
    assert answer.status_code == 302
    assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("target", "lands"),
    [
        ("/projects/7", "/projects/7"),
        ("/projects/7?a=b", "/projects/7?a=b"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("projects", "/"),
    ],
)
def test_login_leads_on_within_this_site_only(client: FlaskClient, target: str, lands: str) -> None:
    path = "/auth/login?" + "next=" + target.replace("?", "%3F").replace("\t", "%09").replace("\\", "%5C")
    assert log_in(client, "olga", path=path).location == lands
    assert client.get(path).location == lands, "somebody already logged in"


def test_the_form_keeps_where_one_wanted_to_go(client: FlaskClient) -> None:
    answer = log_in(client, "olga", "wrong", path="/auth/login?next=/projects/7")
    assert 'action="/auth/login?next=/projects/7"' in answer.text


def test_too_many_attempts_on_one_account_have_to_wait(world: World) -> None:
    # From a different address each time: what counts here is the account.
    for number in range(auth.PER_ACCOUNT.amount):
        attempt = log_in(
            world.app.test_client(), "Olga" if number % 2 else "olga", "wrong",
            environ_base={"REMOTE_ADDR": f"192.0.2.{number}"},
        )  # fmt: skip
        assert attempt.status_code == 401
    answer = log_in(world.app.test_client(), "olga", environ_base={"REMOTE_ADDR": "192.0.2.99"})
    assert answer.status_code == 429
    assert "Too many attempts to log in. Please try again in" in answer.text
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    assert log_in(world.app.test_client(), "mia").status_code == 302, "others are not concerned"


def test_a_blocked_address_does_not_use_up_others_attempts() -> None:
    limiter = auth.LoginLimiter()
    for number in range(auth.PER_ADDRESS.amount + 20):
        limiter.wait("192.0.2.1", "olga" if number >= auth.PER_ADDRESS.amount else f"user{number}")
    assert limiter.wait("192.0.2.1", "olga") is not None
    assert limiter.wait("192.0.2.2", "olga") is None


def test_success_forgets_the_attempts_on_the_account(world: World) -> None:
    for _ in range(3):
        for number in range(auth.PER_ACCOUNT.amount - 1):
            where = {"REMOTE_ADDR": f"192.0.2.{number}"}
            assert log_in(world.app.test_client(), "olga", "wrong", environ_base=where).status_code == 401
        where = {"REMOTE_ADDR": "192.0.2.100"}
        assert log_in(world.app.test_client(), "olga", environ_base=where).status_code == 302


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8:1:2:{}::1"])
def test_too_many_attempts_from_one_address_have_to_wait(
    world: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "authenticate", lambda *_: None)
    for number in range(auth.PER_ADDRESS.amount + 1):
        # Of IPv6 an address is a /64: the rest is the visitor's to choose.
        where = {"REMOTE_ADDR": address.format(number)}
        answer = log_in(world.app.test_client(), f"user{number}", environ_base=where)
        assert answer.status_code == (401 if number < auth.PER_ADDRESS.amount else 429)
    assert log_in(world.app.test_client(), "olga", environ_base={"REMOTE_ADDR": "198.51.100.1"}).status_code == 401


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "a second"), (59, "59 seconds"), (61, "2 minutes"), (300, "5 minutes")]
)
def test_the_wait_is_told_in_words(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, seconds: int, words: str
) -> None:
    limiter = world.app.extensions["automoderate_login_limiter"]
    monkeypatch.setattr(limiter, "wait", lambda _address, _name: seconds)
    assert f"Please try again in {words}." in log_in(client, "olga").text


def test_attempts_are_forgotten_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = auth.LoginLimiter()
    for _ in range(auth.PER_ACCOUNT.amount):
        assert limiter.wait("192.0.2.1", "olga") is None
    assert limiter.wait("192.0.2.1", "olga") is not None
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)
    assert limiter.wait("192.0.2.1", "olga") is None


def test_an_address_that_is_none_is_counted_too() -> None:
    limiter = auth.LoginLimiter()
    waits = [limiter.wait("", f"user{number}") for number in range(auth.PER_ADDRESS.amount + 1)]
    assert waits[:-1] == [None] * auth.PER_ADDRESS.amount
    assert waits[-1] is not None


def test_logout_ends_the_session_everywhere(world: World) -> None:
    client = world.logged_in(world.member)
    token = csrf_token(client.get("/"))
    answer = client.post("/auth/logout", data={"csrf_token": token})
    assert answer.location == "/auth/signed-out"
    assert client.get("/").status_code == 302
    assert world.server.logged_out_users == [world.member.id]


def test_logout_needs_the_token_and_a_post(world: World) -> None:
    client = world.logged_in(world.member)
    assert client.get("/auth/logout").status_code == 405
    assert client.post("/auth/logout").location == "/"
    assert client.get("/").status_code == 200
    assert world.server.logged_out_users == []


def test_logout_works_while_the_realtime_server_is_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client = world.logged_in(world.member)
    world.realtime.unbind()
    token = csrf_token(client.get("/"))
    assert client.post("/auth/logout", data={"csrf_token": token}).location == "/auth/signed-out"
    assert "could not be announced" in caplog.text


def test_logout_works_while_the_database_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.logged_in(world.member)
    token = csrf_token(client.get("/"))

    def fail(*_: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(accounts, "get_user", fail)
        assert client.post("/auth/logout", data={"csrf_token": token}).location == "/auth/signed-out"
    assert client.get("/").status_code == 302
    assert world.server.logged_out_users == [world.member.id]


def test_the_signed_out_page_leads_to_the_login(world: World, client: FlaskClient) -> None:
    page = client.get("/auth/signed-out")
    assert (page.status_code, 'data-code="signed_out"' in page.text) == (200, True)
    assert 'href="/auth/login">Log in' in page.text
    assert world.logged_in(world.member).get("/auth/signed-out").location == "/"


def test_logging_out_twice_is_no_error(world: World, client: FlaskClient) -> None:
    token = csrf_token(client.get("/auth/login"))
    assert client.post("/auth/logout", data={"csrf_token": token}).location == "/auth/signed-out"
    assert world.server.logged_out_users == []


def test_a_cookie_signed_with_another_key_is_nobodys(world: World) -> None:
    client = world.logged_in(world.owner)
    world.app.secret_key = SECRET_KEY + "!"
    assert client.get("/").status_code == 302
