"""The address of a Redis, read and judged without the Redis client, which is an extra.

``redis://``, ``rediss://`` (TLS) and ``unix://`` as the Redis clients of all languages write them. What a URL says is
either used or refused: a mistyped option must not be found out by the connection that does not have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from attrs import field, frozen

Scheme = Literal["redis", "rediss", "unix"]

SHAPE = "must be redis://host:port/0, rediss://… with TLS or unix:///path"
_SECRET = ("password", "ssl_password")


@frozen
class RedisURL:
    """A usable address: what kind of connection it takes, and with which options of redis-py."""

    scheme: Scheme
    options: Mapping[str, Any] = field(repr=False)
    shown: str
    """The address for people, without its secrets."""


def _text(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be text")
    return value


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise ValueError("must be a whole number, 0 or more")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e9:
        raise ValueError("must be a number of seconds greater than 0")
    return seconds


def _yes_or_no(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("must be true or false")
    return words[value.lower()]


def _certificates(value: str) -> str:
    # Celery and others write the name of Python's constant.
    word = value.lower().removeprefix("cert_")
    if word not in ("none", "optional", "required"):
        raise ValueError("must be none, optional or required")
    return word


OPTIONS: dict[str, Callable[[str], Any]] = {
    "db": _number,
    "username": _text,
    "password": _text,
    "client_name": _text,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _yes_or_no,
}
"""What may stand behind the ``?`` of every address."""

TLS_OPTIONS: dict[str, Callable[[str], Any]] = {
    "ssl_cert_reqs": _certificates,
    "ssl_check_hostname": _yes_or_no,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_password": _text,
    "ssl_ciphers": _text,
}
"""What may stand there besides where the connection is encrypted."""


def parse(url: str) -> RedisURL:
    """Read an address. Raises ValueError, one line without the secrets in ``url``, where it cannot be used as it is."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, unquote(parts.hostname or "")
        host.encode("idna")  # as looking it up would fail
    except ValueError:
        raise ValueError(SHAPE) from None
    scheme: Scheme
    options: dict[str, Any]
    if parts.scheme == "unix" and parts.path not in ("", "/") and not parts.hostname:
        scheme, options = "unix", {"path": unquote(parts.path)}
    elif parts.scheme in ("redis", "rediss") and host and (port is None or port > 0):
        scheme = "rediss" if parts.scheme == "rediss" else "redis"
        options = {"host": host, "port": port or 6379, **_database(parts.path)}
    else:
        raise ValueError(SHAPE)
    if parts.fragment or not url.isprintable():
        raise ValueError(f"{SHAPE}; in a password write # as %23")
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    given = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in given:
        options[name] = _read(scheme, name, value)
    return RedisURL(scheme, options, _shown(parts, given))


def _database(path: str) -> dict[str, int]:
    if path in ("", "/"):
        return {}
    if not re.fullmatch(r"/\d+/?", path, re.ASCII):
        raise ValueError(f"{SHAPE}; behind the host stands the number of the database")
    return {"db": int(path.strip("/"))}


def _read(scheme: Scheme, name: str, value: str) -> Any:
    """The value of one option. A name that does not look like one is not repeated: it may be part of a password."""
    known = OPTIONS | (TLS_OPTIONS if scheme == "rediss" else {})
    if name not in known:
        named = f"the option {name}" if re.fullmatch(r"[a-z_]{1,40}", name) else "an option"
        hint = " goes with rediss:// only" if name in TLS_OPTIONS else f" is not known; it may have {', '.join(known)}"
        raise ValueError(f"{named}{hint}")
    try:
        if not value:
            raise ValueError("has no value")
        return known[name](value)
    except ValueError as error:
        raise ValueError(f"the option {name} {error}") from None


def _shown(parts: SplitResult, given: list[tuple[str, str]]) -> str:
    _, at, host = parts.netloc.rpartition("@")
    options = "&".join(f"{name}={'***' if name in _SECRET else value}" for name, value in given)
    return f"{parts.scheme}://{'***' + at if at else ''}{host}{parts.path}{'?' + options if options else ''}"
