"""Configuration: every option is defined once here, and has a flag, an environment variable and a key in a TOML file.

A flag wins over the environment, the environment over the file, the file over the default. The variable of an option
is ``AUTOMODERATE_`` and its name; ``SECRET_KEY`` and ``DATABASE_URL`` are read too, as AutoModerate names them. An
empty variable counts as absent.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
from attrs import frozen

ENVIRONMENT_PREFIX = "AUTOMODERATE_"
CONFIG_VARIABLE = "AUTOMODERATE_CONFIG"
DEFAULT_DATABASE_URL = "sqlite:///automoderate.sqlite3"
"""Our own database, made on first use in the working directory."""
WEAK_SECRET = 16
"""A secret of fewer characters than this could be guessed."""

T = TypeVar("T")
Parse = Callable[[Any], T]


class SettingsError(ValueError):
    """A value that cannot be used; the message is one line, says where the value came from and how to mend it."""


# What values may be: each takes text (flag, variable) or a TOML value and raises ValueError with what is expected.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be text")
    return value


def _integer(least: int, most: int) -> Parse[int]:
    def parse(value: Any) -> int:
        expected = f"must be a whole number from {least} to {most}"
        if isinstance(value, bool | float):
            raise ValueError(expected)  # noqa: TRY004 - a user's mistake
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
        if not least <= number <= most:
            raise ValueError(expected)
        return number

    return parse


def _seconds(*, zero: bool = False) -> Parse[float]:
    def parse(value: Any) -> float:
        expected = f"must be a number of seconds{', 0 or more' if zero else ' greater than 0'}"
        if isinstance(value, bool):
            raise ValueError(expected)  # noqa: TRY004 - a user's mistake
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(expected) from None
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
            raise ValueError(expected)
        return number

    return parse


def _several(parse: Parse[T]) -> Parse[tuple[T, ...]]:
    def parse_all(values: Any) -> tuple[T, ...]:
        if isinstance(values, str):
            values = re.split(r"[,\s]+", values.strip(", \t\n"))
        if not isinstance(values, Iterable):
            raise ValueError("must be a list")  # noqa: TRY004 - a user's mistake
        return tuple(parse(value) for value in values)

    return parse_all


def _optional(parse: Parse[T]) -> Parse[T | None]:
    return lambda value: None if value is None else parse(value)


def _adapter(value: Any) -> str:
    from automoderate import adapters

    if value not in adapters.names():
        raise ValueError(f"must be one of: {', '.join(adapters.names())}")
    return str(value)


def _host(value: Any) -> str:
    host = _text(value).removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(host))
    except ValueError:
        if re.fullmatch(r"[\w.-]+", host):
            return host
    raise ValueError("must be a host name or an address, without scheme or port")


def _log_level(value: Any) -> str:
    levels = ("debug", "info", "warning", "error", "critical")
    if not isinstance(value, str) or value.lower() not in levels:
        raise ValueError(f"must be one of: {', '.join(levels)}")
    return value.lower()


def _database_url(value: Any) -> str:
    from automoderate.directory.database import Database  # here, as SQLAlchemy takes long to import

    return Database(_text(value)).url.render_as_string(hide_password=False)


def _redis_url(value: Any) -> str:
    try:
        parts = urlsplit(_text(value))
        where = {"redis": parts.hostname, "rediss": parts.hostname, "unix": parts.path}.get(parts.scheme)
        usable = bool(where) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be redis://host:port/0, rediss://… with TLS or unix:///path")
    return str(value)


def _node(value: Any) -> str:
    from automoderate.protocol.routing import NODE_NAME

    if not isinstance(value, str) or not NODE_NAME.fullmatch(value):
        raise ValueError("must be at most 32 letters, digits, _ and -")
    return value


def _wsgi(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.]+:[^\W\d][\w.]*(\(\))?", value):
        raise ValueError("must be MODULE:APPLICATION or MODULE:FACTORY(), as in wsgi:app or app:create_app()")
    return value


def _origin(value: Any) -> str:
    if value == "*":
        return "*"
    try:
        parts = urlsplit(_text(value))
        complete = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or "@" in value or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must be an origin such as https://dashboard.example.org (no path), or *")
    return str(value)


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    expected = "must be an address or a network such as 10.0.0.0/8"
    if not isinstance(value, str):
        raise ValueError(expected)  # noqa: TRY004 - a user's mistake
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        meant = ip_interface(value).network
    except ValueError:
        raise ValueError(expected) from None
    raise ValueError(f"must be a network; {value} is an address within {meant}")


def option(
    default: T,
    parse: Parse[T],
    help: str,
    *,
    metavar: str,
    variables: tuple[str, ...] = (),
    multiple: bool = False,
    secret: bool = False,
) -> T:
    """Define one option: an attrs field that checks its value, with what its flag and its variables need to know.

    ``variables`` are read besides ``AUTOMODERATE_<NAME>``; ``multiple`` options may be given more than once; a
    ``secret`` is never shown.
    """
    metadata = {
        "parse": parse,
        "help": help,
        "metavar": metavar,
        "variables": variables,
        "multiple": multiple,
        "secret": secret,
    }
    defined: T = attrs.field(default=default, converter=parse, repr=not secret, metadata=metadata)
    return defined


@frozen(kw_only=True)
class Settings:
    """All options with their effective values. Raises :exc:`ValueError` for a value that cannot be used."""

    adapter: str = option("asyncio", _adapter, "The runtime to serve with.", metavar="NAME")
    host: str = option("127.0.0.1", _host, "The address to listen on; 0.0.0.0 for all.", metavar="ADDRESS")
    port: int = option(6217, _integer(0, 65535), "The port to listen on; 0 for any free one.", metavar="PORT")
    workers: int = option(
        1, _integer(1, 1024),
        "Processes that share the port. More than one serve WebSocket only, no long-polling, and need --redis-url.",
        metavar="NUMBER",
    )  # fmt: skip
    node: str | None = option(
        None, _optional(_node),
        "The name of this node among several behind one proxy: session ids begin with it, so that a proxy can send "
        "all requests of a session to the node that has it.",
        metavar="NAME",
    )  # fmt: skip
    database_url: str | None = option(
        None, _optional(_database_url),
        "The database of an existing AutoModerate, opened for reading only (sqlite:///file or postgresql://…). "
        "Without it a file of our own, automoderate.sqlite3, is made in the working directory.",
        metavar="URL", variables=("DATABASE_URL",), secret=True,
    )  # fmt: skip
    redis_url: str | None = option(
        None, _optional(_redis_url),
        "The Redis or Valkey through which several nodes share updates (redis://host:6379/0, rediss://… with TLS or "
        "unix:///path). Without it this process is the only one.",
        metavar="URL", secret=True,
    )  # fmt: skip
    redis_channel: str | None = option(
        None, _optional(_text),
        "The channel on which other processes emit to projects' rooms with python-socketio's RedisManager (by default "
        "it is socketio) or Flask-SocketIO's message_queue (flask-socketio). It is in the Redis of --redis-url.",
        metavar="NAME",
    )  # fmt: skip
    secret_key: str | None = option(
        None, _optional(_text),
        "The key that signs session cookies, the same as the web application's. Better set SECRET_KEY: "
        "others on this machine can see a flag.",
        metavar="TEXT", variables=("SECRET_KEY",), secret=True,
    )  # fmt: skip
    wsgi: str | None = option(
        None, _optional(_wsgi),
        "Another WSGI application to serve in place of the dashboard. Where it is a Flask application its own secret "
        "key, cookie name and session interface are used.",
        metavar="MODULE:APP",
    )  # fmt: skip
    cors_origin: tuple[str, ...] = option(
        (), _several(_origin),
        "Another origin whose pages may connect with the visitor's session; * allows every site. May be repeated.",
        metavar="ORIGIN", multiple=True,
    )  # fmt: skip
    trusted_proxy: tuple[IPv4Network | IPv6Network, ...] = option(
        (), _several(_network),
        "A reverse proxy (address or network) whose X-Forwarded-… headers are believed. May be repeated.",
        metavar="NETWORK", multiple=True,
    )  # fmt: skip
    log_level: str = option("info", _log_level, "debug, info, warning, error or critical.", metavar="LEVEL")
    ping_interval: float = option(25.0, _seconds(), "Between two heartbeats of a client.", metavar="SECONDS")
    ping_timeout: float = option(20.0, _seconds(), "A client may take this long to answer one.", metavar="SECONDS")
    connect_timeout: float = option(
        45.0, _seconds(), "A connection that does not say what it wants ends after this time.", metavar="SECONDS"
    )
    max_payload: int = option(
        1_000_000, _integer(1, 1 << 30), "The largest message taken from a client.", metavar="BYTES"
    )
    check_timeout: float = option(
        10.0, _seconds(), "The time the database has to say who may join a project.", metavar="SECONDS"
    )
    recheck_interval: float = option(
        60.0, _seconds(), "Between two looks at whether live sessions still may see their projects.", metavar="SECONDS"
    )
    auth_grace: float = option(
        1.0, _seconds(zero=True), "Before the session of a visitor who is not logged in ends.", metavar="SECONDS"
    )
    max_rooms: int = option(50, _integer(1, 1_000_000), "Projects that one session may follow.", metavar="NUMBER")
    max_events_per_minute: int = option(
        100, _integer(1, 1_000_000), "Events taken from one session in a minute.", metavar="NUMBER"
    )
    max_connections_per_minute: int = option(
        300, _integer(1, 1_000_000), "New connections taken from one address in a minute.", metavar="NUMBER"
    )
    history_entries: int = option(
        1000, _integer(1, 1_000_000), "Updates of each project kept for clients that catch up.", metavar="NUMBER"
    )
    threads: int = option(
        16, _integer(1, 1000), "Worker threads for pages, and as many again for questions to the database.",
        metavar="NUMBER",
    )  # fmt: skip
    drain_timeout: float = option(
        10.0, _seconds(zero=True), "The time that running requests have when the server stops.", metavar="SECONDS"
    )


@frozen
class Option:
    """One option as the command line, the environment and the file see it."""

    name: str
    default: Any
    help: str
    metavar: str
    variables: tuple[str, ...]
    multiple: bool
    secret: bool
    parse: Parse[Any]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _option(attribute: attrs.Attribute[Any]) -> Option:
    known = dict(attribute.metadata)
    known["variables"] = (ENVIRONMENT_PREFIX + attribute.name.upper(), *known["variables"])
    return Option(name=attribute.name, default=attribute.default, **known)


OPTIONS: dict[str, Option] = {attribute.name: _option(attribute) for attribute in attrs.fields(Settings)}
"""All options by name, in the order in which they are shown."""


@frozen
class Loaded:
    """Effective settings and where each came from: a flag, a variable, a file's path or ``default``."""

    settings: Settings
    sources: Mapping[str, str]


def load(flags: Mapping[str, Any], environment: Mapping[str, str], config: str | Path | None = None) -> Loaded:
    """Put the effective settings together. Raises :exc:`SettingsError` for the first value that cannot be used.

    ``flags`` has option names and the text given for them, None or ``()`` for those that were not given. ``config`` is
    the file; without it ``AUTOMODERATE_CONFIG`` may name one.
    """
    path = config or environment.get(CONFIG_VARIABLE) or None
    contents = {} if path is None else _read(Path(path))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS.values():
        value, source = _find(option, flags, environment, contents, str(path))
        sources[option.name] = source
        if source == "default":
            continue
        try:
            values[option.name] = option.parse(value)
        except ValueError as error:
            given = ", ".join(value) if isinstance(value, tuple) else value
            shown = "" if option.secret else f" {given}"
            raise SettingsError(f"{option.name}{shown} (from {source}): {error}") from None
    settings = Settings(**values)
    if settings.workers > 1 and settings.redis_url is None:
        raise SettingsError(
            f"workers {settings.workers} (from {sources['workers']}): several processes share updates through Redis; "
            "set --redis-url, or run one"
        )
    if settings.redis_channel is not None and settings.redis_url is None:
        raise SettingsError(
            f"redis_channel {settings.redis_channel} (from {sources['redis_channel']}): needs the Redis that it is in; "
            "set --redis-url"
        )
    return Loaded(settings, sources)


def _find(
    option: Option, flags: Mapping[str, Any], environment: Mapping[str, str], contents: Mapping[str, Any], path: str
) -> tuple[Any, str]:
    """The value that wins and where it came from."""
    given = flags.get(option.name)
    if given is not None and given != ():
        return given, option.flag
    for variable in option.variables:
        if environment.get(variable):
            return environment[variable], variable
    if option.name in contents:
        return contents[option.name], path
    return option.default, "default"


def _read(path: Path) -> dict[str, Any]:
    """The contents of a configuration file."""
    try:
        contents = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the configuration file {path} is not TOML: {error}") from None
    for name in contents:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name.replace("-", "_"), OPTIONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"it may have {', '.join(OPTIONS)}"
            raise SettingsError(f"the configuration file {path} has an unknown key {name}; {hint}")
    return contents
