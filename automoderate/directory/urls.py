"""What a database URL may say: SQLite's and PostgreSQL's, every option of which works or is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from attrs import frozen
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

SQLITE_DRIVER_OPTIONS = {"isolation_level", "detect_types", "check_same_thread", "cached_statements"}
"""How Python's sqlite3 treats the connections of the application that owns the file; ours are as we need them."""
SQLITE_FILE_OPTIONS = {"cache", "immutable", "mode", "nolock", "psow", "vfs"}
"""How SQLite opens a file whose URL says ``uri=true`` (https://www.sqlite.org/uri.html)."""
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another writer of the same SQLite file, unless the URL says otherwise."""


class InvalidDatabaseURL(ValueError):
    """The URL names no database we could open; the message is one line and names the fix."""


@frozen
class Address:
    """A database URL that we can open, and what it says of how to connect."""

    url: URL
    """All of it. The driver is ours, psycopg or sqlite3, whichever the URL names."""
    options: Mapping[str, Any]
    """What the driver's ``connect`` gets that text alone cannot say, besides libpq's options."""
    file: str | None = None
    """The path of an SQLite file, as written; None for PostgreSQL."""
    file_options: Mapping[str, str] = {}
    """SQLite's own options for opening the file, as it names them."""


def parse(url: str | URL) -> Address:
    """Take a URL apart. Raises :exc:`InvalidDatabaseURL`; its message never repeats a value."""
    if isinstance(url, str):
        scheme, colon, rest = url.partition(":")
        url = scheme.lower() + colon + rest  # RFC 3986, section 3.1
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        if isinstance(url, str) and re.search(r":[0-9]+,[^/]*:[0-9]+/", url):
            raise InvalidDatabaseURL(
                "several hosts of PostgreSQL are postgresql://user:password@/name?host=a:5432&host=b:5432"
            ) from error
        raise InvalidDatabaseURL(
            "this is no database URL; write sqlite:///file.sqlite3 or postgresql://user:password@host/name"
        ) from error
    if "\0" in unquote(parsed.render_as_string(hide_password=False)):
        raise InvalidDatabaseURL("no part of a database URL may have a NUL character")
    if backend in ("postgres", "postgresql"):
        return _postgresql(parsed)
    if backend == "sqlite":
        return _sqlite(parsed)
    raise InvalidDatabaseURL(f"{backend} databases are not supported; use sqlite:/// or postgresql://")


def shown(url: URL) -> str:
    """The URL as text with every secret hidden, wherever in it."""
    secrets = {name: "***" for name in url.query if name.endswith(("password", "secret", "_key"))}
    return url.update_query_dict(secrets).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def with_arguments(url: URL, arguments: Mapping[str, Any]) -> URL:
    """The URL with those of a driver's ``connect`` arguments that a URL may say and this one does not."""
    known = {"timeout"} if url.get_backend_name() == "sqlite" else _libpq_options() | {"prepare_threshold"}
    missing = {name: value for name, value in arguments.items() if name in known and name not in url.query}
    if missing.get("prepare_threshold", 0) is None:
        missing["prepare_threshold"] = "none"
    return url.update_query_dict({name: str(value) for name, value in missing.items() if value is not None})


# PostgreSQL ---------------------------------------------------------------------------------------------------


def _postgresql(url: URL) -> Address:
    url = url.set(drivername="postgresql+psycopg")
    if url.host is not None and (folder := unquote(url.host)).startswith("/"):
        # libpq takes the folder of a Unix socket for a host too, written %2Frun%2Fpostgresql.
        url = url.set(host="").update_query_dict({"host": folder})
    known = _libpq_options()
    for name, value in url.query.items():
        if name == "prepare_threshold":
            continue
        if known and name not in known:
            raise InvalidDatabaseURL(
                f"{name} is no option of a PostgreSQL URL; it may have libpq's, such as sslmode=require, and "
                "prepare_threshold"
            )
        if not isinstance(value, str) and name != "host":
            raise InvalidDatabaseURL(f"{name} may be given once")
    for host in _hosts(url):
        if "@" in host:  # what stands before it is the end of a password, and would be shown with the host
            raise InvalidDatabaseURL("an @ within a user's name or password is written %40")
        try:
            host.encode("idna")  # as looking it up would fail
        except UnicodeError:
            raise InvalidDatabaseURL(f"{host} is no name of a host") from None
    threshold = url.query.get("prepare_threshold")
    return Address(url, {} if threshold is None else {"prepare_threshold": _prepare_threshold(threshold)})


def _hosts(url: URL) -> Iterator[str]:
    """The hosts that a URL names, without their ports; folders of Unix sockets are none."""
    named = url.query.get("host", ())
    for hosts in (url.host or "", *((named,) if isinstance(named, str) else named)):
        for host in hosts.split(","):
            if not host.startswith(("/", "@")):
                yield re.sub(r":[0-9]*$", "", host)


def _prepare_threshold(value: str | tuple[str, ...]) -> int | None:
    """psycopg's: how often a statement is executed before it is prepared; None for never."""
    if isinstance(value, str) and value.lower() == "none":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        # Not at once: what begins our transactions is several statements, which cannot be prepared.
        return max(1, int(value))
    raise InvalidDatabaseURL("prepare_threshold must be a whole number, or none for no prepared statements")


def _libpq_options() -> set[str]:
    """The names of libpq's options; none where psycopg is not installed, which is said when it is needed."""
    try:
        from psycopg.pq import Conninfo
    except ImportError:
        return set()
    return {option.keyword.decode() for option in Conninfo.get_defaults()}


# SQLite -------------------------------------------------------------------------------------------------------


def _sqlite(url: URL) -> Address:
    query = dict(url.query)
    if url.host or url.username or url.password or url.port:
        raise InvalidDatabaseURL("an SQLite URL has three slashes before a file, four before a path from the root")
    file = url.database or ""
    options = {"timeout": _seconds(query.pop("timeout", BUSY_TIMEOUT))}
    is_uri = str(query.pop("uri", "false")).lower() in ("true", "1", "yes", "on")
    file_options: dict[str, str] = {}
    if is_uri and file.startswith("file:"):
        file = unquote(file.removeprefix("file:").removeprefix("//"))
        file_options = {name: str(query.pop(name)) for name in sorted(query.keys() & SQLITE_FILE_OPTIONS)}
        if file_options.get("mode") == "memory":
            file = ":memory:"
    for name in sorted(query.keys() - SQLITE_DRIVER_OPTIONS):
        raise InvalidDatabaseURL(f"{name} is no option of an SQLite URL; write sqlite:///file.sqlite3")
    if file in ("", ":memory:"):
        raise InvalidDatabaseURL("name a file: an SQLite URL is sqlite:///file.sqlite3, and no database in memory")
    return Address(url.set(drivername="sqlite"), options, file, file_options)


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidDatabaseURL("timeout must be a number of seconds")
    return seconds
