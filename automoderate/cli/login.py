"""``automoderate login``: log in as a browser does, and print the cookie that clients of other languages need."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any, NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

import click
import requests
from attrs import define, field

from automoderate.cli.common import Unavailable, WrongUsage
from automoderate.cli.running import DEFAULT_URL
from automoderate.notifier.http import check_url, reason, shown_url

F = TypeVar("F", bound=Callable[..., Any])

TIMEOUT = 10.0
"""Seconds that each answer of the server may take."""

FROM_A_BROWSER = (
    "log in there with a browser and copy its session cookie from the developer tools (F12, then Application or "
    "Storage, Cookies); automoderate watch takes it with --cookie"
)
"""How to get a cookie where this command cannot."""

_FORMS = ("/auth/login", "/", "/realtime/inspector")
"""Where a login form is looked for: at the dashboard's own address, then where the start page leads to, then where the
inspector beside a mounted application sends visitors, which is the login page that its Flask-Login knows."""


def login_options(command: F) -> F:
    """The flags that say which server, and who logs in."""
    url = click.option(
        "--url", envvar="AUTOMODERATE_URL", default=DEFAULT_URL, show_default=True, help="Where the server is."
    )
    username = click.option("--username", envvar="AUTOMODERATE_USERNAME", help="Who logs in: a username or an email.")
    stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    return url(username(stdin(command)))


@click.command(short_help="Log in and print the cookie that clients need.")
@login_options
@click.option("--print-cookie", is_flag=True, help="Print the value of the Cookie header, and nothing else.")
def login(url: str, username: str | None, password_stdin: bool, print_cookie: bool) -> None:
    """Log in at the server's login form, and print the session cookie for clients that are no browser.

    The password is asked for; it may also come from AUTOMODERATE_PASSWORD or standard input. Keep the cookie as you
    keep the password: until the session expires it lets its holder in as that user.

    Exit status: 0 logged in, 1 refused by the server, 2 wrong usage, 3 server cannot be reached.

    \b
    automoderate login --username alice
    export COOKIE=$(automoderate login --username alice --print-cookie)
    """
    try:
        base = check_url(url)
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    with requests.Session() as session:
        name, password = credentials(username, password_stdin)
        log_in(session, base, name, password)
        header = cookie_header(session, base)
    click.echo(
        header
        if print_cookie
        else f"{name} may log in at {shown_url(base)}; --print-cookie prints the session's cookie."
    )


def credentials(username: str | None, password_stdin: bool, or_else: str = "") -> tuple[str, str]:
    """Who logs in, and the password: as given, from the environment, or asked for.

    Raises :class:`WrongUsage` where neither can be had; ``or_else`` is what the command takes instead of a username.
    """
    if not username:
        raise WrongUsage(f"who logs in? --username NAME{or_else}")
    if password_stdin:
        return username, piped_password()
    password = os.environ.get("AUTOMODERATE_PASSWORD")
    if password is None:
        if not has_terminal():
            raise WrongUsage("there is no terminal to ask for the password: --password-stdin or AUTOMODERATE_PASSWORD")
        password = str(click.prompt(f"Password of {username}", hide_input=True, err=True))
    return username, password


def piped_password() -> str:
    """The first line of standard input, which is the password."""
    try:
        line = sys.stdin.readline().rstrip("\r\n")
        line.encode()  # in some locales what is not UTF-8 comes as half characters
    except UnicodeError:
        raise WrongUsage("the password on standard input is not UTF-8") from None
    return line


def has_terminal() -> bool:
    """Whether somebody could be asked."""
    return sys.stdin.isatty()


def cookie_header(session: requests.Session, base: str) -> str:
    """The value of the Cookie header that a client has to send to the Socket.IO endpoint of ``base``."""
    request = requests.Request("GET", f"{base}/socket.io/", cookies=session.cookies).prepare()
    header = request.headers.get("Cookie")
    if not header:
        raise click.ClickException(
            f"{shown_url(base)} let the user in without a cookie for this address; use the address, https included, "
            "that browsers use"
        )
    return header


# The form -----------------------------------------------------------------------------------------------------


@define
class _Form:
    """A form as a page has it: where it is sent, and what each field is called and holds."""

    action: str
    method: str
    fields: dict[str, str] = field(factory=dict)
    password: str = ""
    """The name of the field for the password, or "" where there is none."""
    name: str = ""
    """The name of the first field for text, which asks for the user's name or email."""


class _Forms(HTMLParser):
    """Finds the forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(_Form(given.get("action", ""), given.get("method", "get").lower()))
            self._open = True
        elif tag == "input" and self._open and given.get("name"):
            self._add(self.forms[-1], given["name"], given.get("type", "text").lower(), given.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = False

    @staticmethod
    def _add(form: _Form, name: str, kind: str, value: str) -> None:
        if kind == "password":
            form.password = form.password or name
        elif kind in ("text", "email"):
            form.name = form.name or name
        elif kind == "hidden":
            form.fields[name] = value


def log_in(session: requests.Session, base: str, username: str, password: str) -> None:
    """Log in at the form of the dashboard, or of the application that is mounted instead; the session keeps the cookie.

    Raises :class:`click.ClickException` with one line for the person.
    """
    try:
        page, form = _find_form(session, base)
        target = urljoin(page, form.action)
        if urlsplit(target)[:2] != urlsplit(page)[:2]:
            raise click.ClickException(
                f"the login form at {shown_url(page)} sends passwords to another server; {FROM_A_BROWSER}"
            )
        filled = {**form.fields, form.name: username, form.password: password}
        # Over HTTPS the anti-forgery check wants to know the page that the form was on.
        answer = session.post(target, data=filled, headers={"Referer": page}, timeout=TIMEOUT, allow_redirects=False)
        if _is_in(session, answer, (urlsplit(target).path, urlsplit(page).path)):
            return
    except requests.RequestException as error:
        raise Unavailable(
            f"cannot reach {shown_url(base)}: {reason(error)}; is the server running, and is --url right?"
        ) from None
    _refused(answer, shown_url(page), form.name)


def _is_in(session: requests.Session, answer: requests.Response, form: Sequence[str]) -> bool:
    """Whether an answer leads on from the paths of the form, or back to one where there is no form any more."""
    if not answer.is_redirect:
        return False
    led_to = urljoin(answer.url, answer.headers["Location"])
    if urlsplit(led_to).path not in form:
        return True
    after = session.get(led_to, timeout=TIMEOUT)
    return after.ok and _form_in(after.text) is None


def _find_form(session: requests.Session, base: str) -> tuple[str, _Form]:
    """The address of the page with the login form, and the form."""
    statuses = []
    for path in _FORMS:
        response = session.get(base + path, timeout=TIMEOUT)
        statuses.append(response.status_code)
        if response.ok and (form := _form_in(response.text)) is not None:
            return response.url, form
    raise click.ClickException(
        f"there is no login form at {shown_url(base)}{_FORMS[0]} (it answered {statuses[0]}); {FROM_A_BROWSER}"
    )


def _form_in(text: str) -> _Form | None:
    """The login form of a page."""
    found = _Forms()
    found.feed(text)
    return next((form for form in found.forms if form.password and form.name and form.method == "post"), None)


def _refused(answer: requests.Response, page: str, name: str) -> NoReturn:
    """Say why a form did not let the user in."""
    if answer.status_code == 429:
        wait = answer.headers.get("Retry-After", "a few")
        raise click.ClickException(f"too many attempts to log in; try again in {wait} seconds")
    if answer.status_code >= 500:
        raise click.ClickException(f"{page} answered {answer.status_code} {answer.reason}; try again later")
    if answer.status_code == 401 and name == "username":
        raise click.ClickException("that username or password is not right")
    raise click.ClickException(
        f"{page} did not let the user in and does not say why: it asks for {name} and password; are both right? "
        f"Otherwise {FROM_A_BROWSER}"
    )


def cookies(given: str) -> dict[str, str]:
    """The cookies in what was given; a value by itself is that of Flask's usual ``session`` cookie."""
    header = given if re.match(r"[\w!#$%&'*+.^`|~-]+=", given, re.ASCII) else f"session={given}"
    if not (header.isascii() and header.isprintable()):
        raise WrongUsage("--cookie is no cookie: copy its value from the browser's developer tools")
    pairs = (pair.partition("=") for pair in header.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}
