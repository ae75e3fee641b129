"""``automoderate status``: what happens on the nodes, in a terminal or for a script."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
import requests
from attrs import frozen

from automoderate.cli.common import Unavailable, WrongUsage, harmless, load_settings, settings_options
from automoderate.cli.running import DEFAULT_URL, ask_server
from automoderate.notifier.http import check_url
from automoderate.server.gathering import gathered
from automoderate.server.interfaces import BackplaneUnavailable
from automoderate.settings import Settings

TIMEOUT = 6.0
"""Seconds that the server at --url has for an answer. It waits for other nodes for two of them."""

COUNTED = 1.1
"""Seconds after which a node that has begun to count deliveries can say how many they are."""


@frozen
class _Found:
    """What was found out."""

    nodes: Sequence[Mapping[str, Any]]
    silent: Sequence[Mapping[str, Any]]
    problem: str | None = None

    def only(self, name: str) -> _Found:
        """What was found out about one node."""
        here = [[node for node in some if node.get("node") == name] for some in (self.nodes, self.silent)]
        if not any(here):
            known = ", ".join(sorted(str(node.get("node")) for node in (*self.nodes, *self.silent)))
            raise click.ClickException(f"there is no node {name}; there is {known or 'none at all'}")
        return _Found(here[0], here[1], self.problem)


@click.command(short_help="Print what happens on the nodes.")
@settings_options(
    "secret_key",
    secret_key="The server's secret key, with which it is asked. Better set SECRET_KEY: a flag can be seen.",
)
@click.option("--node", metavar="NAME", help="Print this node only.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option(
    "--url", envvar="AUTOMODERATE_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
    help="The running server that is asked, and asks all others, where there is no Redis.",
)  # fmt: skip
@click.option("--redis-url", metavar="URL", help="The Redis that the nodes share, through which all of them are asked.")
def status(config: str | None, node: str | None, as_json: bool, url: str, **flags: Any) -> None:
    """Print who is connected to the nodes, what they deliver, and what they refuse.

    A node has two seconds to answer; one that does not is named, with the seconds since its last sign of life. Exit
    status: 0 all have answered, 1 one has not, or refused, 2 wrong usage, 3 no node can be asked.

    \b
    automoderate status
    automoderate status --redis-url redis://127.0.0.1:6379/0 --node a --json
    """
    settings = load_settings(config, flags).settings
    found = _ask(settings, url)
    if any("deliveries_per_second" in each and each["deliveries_per_second"] is None for each in found.nodes):
        time.sleep(COUNTED)  # nodes count them while somebody looks, and did not before
        found = _ask(settings, url)
    if node is not None:
        found = found.only(node)
    if as_json:
        click.echo(json.dumps({"nodes": found.nodes, "silent": found.silent, "problem": found.problem}))
    else:
        for line in _table(found):
            click.echo(line)
    if found.problem is not None:
        raise click.ClickException(f"the other nodes could not be asked: {harmless(found.problem)}")
    if found.silent:
        raise click.ClickException(f"{len(found.silent)} of {len(found.nodes) + len(found.silent)} have not answered")


def _ask(settings: Settings, url: str) -> _Found:
    return _ask_server(url, settings.secret_key) if settings.redis_url is None else _ask_through_redis(settings)


def _ask_through_redis(settings: Settings) -> _Found:
    try:
        from automoderate.backplane.redis.questions import ask_nodes
    except ModuleNotFoundError as error:
        raise Unavailable(f'--redis-url needs {error.name}: pip install "automoderate[redis]"') from error
    assert settings.redis_url is not None, "the caller has looked"
    try:
        answers = ask_nodes(settings.redis_url, json.dumps({"what": "status"}))
    except BackplaneUnavailable as error:
        raise Unavailable(str(error)) from None
    except ValueError as error:
        raise WrongUsage(f"redis_url: {error}") from None
    found = gathered("status", answers)
    nodes = (answer for _, answer in found.answers)
    return _Found(sorted(nodes, key=lambda each: str(each.get("node"))), found.silent)


def _ask_server(url: str, secret_key: str | None) -> _Found:
    try:
        base = check_url(url)
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    if not secret_key:
        raise WrongUsage("SECRET_KEY is not set; it has to be the server's")
    try:
        return ask_server("GET", base, "/api/admin/status", secret_key, timeout=TIMEOUT, found=_found)
    except Unavailable as error:
        raise Unavailable(f"{error.message}; is the server running?") from None


def _found(response: requests.Response) -> _Found | None:
    """What the server says of the nodes; None where it is another answer."""
    try:
        said = response.json() if response.status_code == 200 else None
    except requests.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("nodes"), list):
        return None
    return _Found(said["nodes"], said.get("silent") or [], said.get("problem"))


# In a terminal ------------------------------------------------------------------------------------------------

_COLUMNS = ("NODE", "SESSIONS", "USERS", "ROOMS", "DELIVERIES/S", "WAITING", "REDIS", "REFUSED")


def _table(found: _Found) -> Iterator[str]:
    if not found.nodes and not found.silent:
        yield "no node runs"
        return
    rows = [_COLUMNS, *(_row(node) for node in found.nodes)]
    silent = [str(node.get("node")) for node in found.silent]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    widths[0] = max([widths[0], *map(len, silent)])
    for row in rows:
        first, *numbers, last = row
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        yield harmless("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
    for node in found.silent:
        heard = "" if node.get("seconds") is None else f", last heard of {node['seconds']} seconds ago"
        yield harmless(f"{str(node.get('node')).ljust(widths[0])}  no answer{heard}")
    clients: dict[str, int] = {}
    for node in found.nodes:
        for each in node.get("clients", []):
            clients[str(each["client"])] = clients.get(str(each["client"]), 0) + int(each["sessions"])
    if clients:
        named = sorted(clients.items(), key=lambda item: (-item[1], item[0]))[:10]
        yield ""
        yield harmless("clients: " + ", ".join(f"{count:,} {name}" for name, count in named))


def _row(node: Mapping[str, Any]) -> tuple[str, ...]:
    transports = ", ".join(f"{count:,} {name}" for name, count in node.get("transports", {}).items())
    codes = node.get("refusals", {}).get("codes", {})
    rate = node.get("deliveries_per_second")
    return (
        str(node.get("node")),
        f"{node.get('sessions', 0):,}{f' ({transports})' if transports else ''}",
        f"{node.get('users', 0):,}",
        f"{node.get('rooms', 0):,}",
        "-" if rate is None else f"{rate:,}",
        f"{node.get('waiting_bytes', 0):,} B",
        _redis(node.get("backplane", {})),
        ", ".join(f"{count:,} {code}" for code, count in codes.items()) or "-",
    )


def _redis(backplane: Mapping[str, Any]) -> str:
    """How a node stands with Redis."""
    if not backplane:
        return "-"
    if not backplane.get("up"):
        return "cut off"
    lag = f"{backplane.get('lag_seconds', 0) * 1000:.0f} ms"
    return lag if backplane.get("writable") else f"{lag}, takes nothing"
