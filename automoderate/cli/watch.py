"""``automoderate watch``: the updates of one project in a terminal, as they come.

It is an ordinary client of the server: it logs in like a browser, joins the project's room, and after a lost
connection asks for what it missed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import click
import engineio
import requests
import socketio
from attrs import define, field, frozen

from automoderate.cli.common import Unavailable, WrongUsage, harmless
from automoderate.cli.login import TIMEOUT, cookies, credentials, log_in, login_options
from automoderate.core.hub import parse_event_id
from automoderate.notifier.http import check_url, shown_url
from automoderate.update_payloads import EVENTS

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the signal's number, as shells count."""

_ASK_AGAIN = 3.0
_TEMPORARY = frozenset({"timeout", "server_error", "rate_limited"})
_COLOURS = {"approved": "green", "rejected": "red", "flagged": "yellow", "pending": "cyan"}


@click.command(short_help="Print a project's updates as they come.")
@click.argument("project_id")
@login_options
@click.option(
    "--cookie",
    envvar="AUTOMODERATE_COOKIE",
    help="A browser's session cookie instead of a login, as VALUE or NAME=VALUE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each update as one line of JSON.")
@click.option("--count", type=click.IntRange(min=1), help="Leave after this many updates.")
def watch(
    project_id: str,
    url: str,
    username: str | None,
    password_stdin: bool,
    cookie: str | None,
    as_json: bool,
    count: int | None,
) -> None:
    """Print the updates of PROJECT_ID as they come, until Ctrl-C.

    The password is asked for; it may also come from AUTOMODERATE_PASSWORD or standard input. Where the login form of
    another application lets no command in, log in with a browser and hand over its session cookie (--cookie). After a
    lost connection what was missed is printed first; a note says so where the server no longer has all of it. It
    connects by WebSocket, or by long-polling where a proxy stops WebSocket.

    Updates go to standard output, everything else to standard error. Exit status: 0 after --count updates, 1 refused
    by the server, 2 wrong usage, 3 server cannot be reached, 130 after Ctrl-C.

    \b
    automoderate watch 3f0c… --username alice
    automoderate watch 3f0c… --username alice --json | jq .data.status
    """
    try:
        try:
            base = check_url(url)
        except ValueError as error:
            raise WrongUsage(str(error)) from None
        with requests.Session() as session:
            if cookie is None:
                log_in(session, base, *credentials(username, password_stdin, " (or --cookie with a session's cookie)"))
            else:
                # In the session, not as a header: the library sends headers of its own with the first request only.
                session.cookies.update(cookies(cookie))
            Watcher(project_id, base, printer(as_json), count).run(session)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)


# Printing -----------------------------------------------------------------------------------------------------

Print = Callable[[str, Any], None]


def printer(as_json: bool) -> Print:
    """What prints one update to standard output."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter shows its number
    return _print_json if as_json else _print_line


def _print_json(event: str, data: Any) -> None:
    # JSON escapes every control character but this one.
    click.echo(json.dumps({"event": event, "data": data}).replace("\x7f", "\\u007f"))


def _print_line(event: str, data: Any) -> None:
    click.echo(describe(event, data))


def describe(event: str, data: Any) -> str:
    """One update as one line for a person, coloured by its status. Nothing in it can control a terminal."""
    fields = data if isinstance(data, dict) else {}
    time = _time(fields)
    if event not in ("moderation_update", "content_received"):
        shown = {name: value for name, value in fields.items() if name not in ("event_id", "timestamp")}
        return f"{time}  {event:<9}  {harmless(json.dumps(shown, ensure_ascii=False))}"
    status = harmless(fields.get("status") or "?")
    who = harmless(fields.get("moderator_name") or "?")
    if fields.get("rule_name"):
        who = f"{who}: {harmless(fields['rule_name'])}"
    took = fields.get("processing_time")
    seconds = f"{took:.2f} s" if isinstance(took, int | float) else ""
    preview = harmless(fields.get("content_preview") or "")
    coloured = click.style(f"{status:<9}", fg=_COLOURS.get(status), bold=status == "rejected")
    return f"{time}  {coloured}  {who:<24}  {seconds:>7}  {preview}"


def _time(fields: dict[str, Any]) -> str:
    """When it happened, on this machine's clock: by its timestamp, else by its event id."""
    try:
        when = datetime.fromisoformat(str(fields.get("timestamp")))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError):
        published = parse_event_id(fields.get("event_id"))
    try:
        return datetime.fromtimestamp(published[0] / 1000).strftime("%H:%M:%S") if published else "--:--:--"
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def _note(text: str) -> None:
    click.echo(text, err=True)


# Watching -----------------------------------------------------------------------------------------------------


class _OrderedEngine(engineio.Client):  # type: ignore[misc]
    """Handles messages one after the other.

    The library's own client gives each message a thread of its own, so that two updates may change places.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.one_by_one = ThreadPoolExecutor(1)

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if target == self.handlers.get("message"):
            return self.one_by_one.submit(target, *args, **kwargs)
        return super().start_background_task(target, *args, **kwargs)


class _OrderedClient(socketio.Client):  # type: ignore[misc]
    """A client that hands over everything in order."""

    def _engineio_client_class(self) -> type[_OrderedEngine]:
        return _OrderedEngine


@frozen
class _Happened:
    """Something the client reported: ``connect``, ``disconnect`` or the name of an event, and what came with it."""

    what: str
    data: Any = None


def _why(error: BaseException) -> str:
    """Why a connection failed, in a few words: the library's say little, and what happened is behind them."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        if hasattr(error, "status_code"):  # of a refused WebSocket, whose words are all of its headers
            return f"it answered {error.status_code}"
        if len(error.args) > 1 and isinstance(error.args[1], dict):  # what a server of ours says of it
            return harmless(f"{error.args[0]} ({error.args[1].get('detail') or error.args[1].get('message')})")
        inner = error.__cause__ or error.__context__
    said = getattr(error, "strerror", None) or (error.args[0] if error.args else type(error).__name__)
    return harmless(said).rstrip(".")


@define
class Watcher:
    """Watches one project until ``count`` updates have come, or for ever."""

    project_id: str
    base: str
    show: Print
    count: int | None = None
    last_event_id: str | None = None
    """Where to go on after a lost connection."""

    _happened: queue.SimpleQueue[_Happened] = field(factory=queue.SimpleQueue, init=False)
    _shown: int = field(default=0, init=False)
    _join_again: bool = field(default=False, init=False)

    def run(self, session: requests.Session) -> None:
        """Connect with that session's cookies, and print what comes.

        Raises :class:`click.ClickException` with one line for the person.
        """
        quiet = logging.getLogger(f"{__name__}.client")
        quiet.disabled = True  # what goes wrong is told here, in fewer words
        client = _OrderedClient(logger=quiet, engineio_logger=quiet, http_session=session, handle_sigint=False)
        client.on("connect", lambda: self._happened.put(_Happened("connect")))
        client.on("disconnect", lambda why: self._happened.put(_Happened("disconnect", why)))
        client.on("*", lambda event, *args: self._happened.put(_Happened(event, args[0] if args else None)))
        try:
            self._connect(client)
            while self.count is None or self._shown < self.count:
                self._take(client)
        finally:
            # In a thread, because with the server gone a farewell would wait for an answer that never comes.
            farewell = threading.Thread(target=client.shutdown, daemon=True)
            farewell.start()
            farewell.join(2.0)
            client.eio.one_by_one.shutdown(wait=False)

    def _connect(self, client: _OrderedClient) -> None:
        """By WebSocket, as workers that share a port serve nothing else, or by long-polling where a proxy stops that.

        What works is kept to after a lost connection.
        """
        # Below a prefix the endpoint is below it, too; of the address the library keeps only the host.
        path = f"{urlsplit(self.base).path}/socket.io"
        try:
            client.connect(self.base, transports=["websocket"], socketio_path=path, wait_timeout=TIMEOUT)
            return
        except socketio.exceptions.ConnectionError as error:
            websocket = _why(error)
        try:
            client.connect(self.base, transports=["polling"], socketio_path=path, wait_timeout=TIMEOUT)
        except socketio.exceptions.ConnectionError as error:
            if "status code" not in str(error):
                # Of what the HTTP library says the system's own words are for people.
                system = re.search(r"\[Errno -?\d+\] ([^\[\]()\"']+)", str(error))
                cause = harmless(error) if system is None else system[1]
                hint = "is the server running, and is --url right?"
                raise Unavailable(f"cannot reach {shown_url(self.base)}: {cause}; {hint}") from None
            raise click.ClickException(
                f"{shown_url(self.base)} does not let anybody connect, by WebSocket: {websocket}; "
                f"by long-polling: {_why(error)}"
            ) from None
        _note(f"no WebSocket at {shown_url(self.base)}: {websocket}; watching by long-polling")

    def _take(self, client: _OrderedClient) -> None:
        try:
            happened = self._happened.get(timeout=_ASK_AGAIN if self._join_again else None)
        except queue.Empty:
            happened = _Happened("connect")
        data = happened.data if isinstance(happened.data, dict) else {}
        if happened.what == "connect":
            self._join(client)
        elif happened.what == "joined_project":
            self._joined(data)
        elif happened.what == "disconnect":
            self._disconnected(str(happened.data))
        elif happened.what == "error":
            self._refused(data)
        elif happened.what in EVENTS:
            self.show(happened.what, happened.data)
            self._shown += 1
            self.last_event_id = data.get("event_id") or self.last_event_id

    def _join(self, client: _OrderedClient) -> None:
        self._join_again = False
        request = {"project_id": self.project_id}
        if self.last_event_id is not None:
            request["last_event_id"] = self.last_event_id
        with contextlib.suppress(socketio.exceptions.BadNamespaceError):  # gone again: it reconnects
            client.emit("join_project", request)

    def _joined(self, data: dict[str, Any]) -> None:
        if "recovered" not in data:
            _note(f"watching {harmless(data.get('room', self.project_id))}; Ctrl-C ends")
        elif data["recovered"]:
            _note("connected again; nothing was missed")
        else:
            _note("connected again; some updates were missed, and the server no longer has them")
        self.last_event_id = data.get("last_event_id") or self.last_event_id

    def _disconnected(self, why: str) -> None:
        if why == _OrderedClient.reason.SERVER_DISCONNECT:
            raise click.ClickException("the server ended the session; log in again")
        self._join_again = False
        _note(f"connection lost ({why}); reconnecting")

    def _refused(self, error: dict[str, Any]) -> None:
        message = harmless(error.get("message") or "the server reported an error")
        if error.get("code") not in _TEMPORARY:
            raise click.ClickException(message)
        _note(f"{message}; asking again in {_ASK_AGAIN:g} seconds")
        self._join_again = True
