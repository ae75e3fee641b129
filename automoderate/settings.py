"""Configuration: every option is defined once here, and has a flag, an environment variable and a key in a TOML file.

A flag wins over the environment, the environment over the file, the file over the default. The variable of an option
is ``AUTOMODERATE_`` and its name; ``SECRET_KEY`` and ``DATABASE_URL`` are read too, as AutoModerate names them. An
empty variable counts as absent.
"""

from __future__ import annotations

import difflib
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
MAX_SECONDS = 1_000_000
"""The longest time that an option may say: clients add two, and timers in browsers end at 2**31 milliseconds."""
MAX_SHOWN = 100
"""Characters of a value that are repeated where it cannot be used."""

_SERVICE = re.compile(r"(tcp|udp|sctp)://")
"""How the value of a variable begins that Kubernetes sets in each pod, and Docker's links in a container.

With a service of the name ``automoderate`` the variable is ``AUTOMODERATE_PORT``, and the value is its address.
"""

T = TypeVar("T")
Parse = Callable[[Any], T]


class SettingsError(ValueError):
    """A value that cannot be used; the message is one line, says where the value came from and how to mend it."""


# What values may be: each takes text (flag, variable) or a TOML value and raises ValueError with what is expected.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    if not value.isprintable():
        # Files that hold a secret often end with a line end, which nobody sees.
        raise ValueError("must be text of one line: it has a line end in it, or another character that is not shown")
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
        expected = f"must be a number of seconds{', 0 or more' if zero else ' greater than 0'}, at most {MAX_SECONDS}"
        if isinstance(value, bool):
            raise ValueError(expected)  # noqa: TRY004 - a user's mistake
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(expected) from None
        if not 0 <= number <= MAX_SECONDS or (number == 0 and not zero):
            raise ValueError(expected)
        return number

    return parse


def _several(parse: Parse[T], separators: str = r",\s") -> Parse[tuple[T, ...]]:
    def parse_all(values: Any) -> tuple[T, ...]:
        if isinstance(values, str):
            values = re.split(f"[{separators}]+", re.sub(f"^[{separators}]+|[{separators}]+$", "", values))
        if not isinstance(values, Iterable):
            raise ValueError("must be a list")  # noqa: TRY004 - a user's mistake
        return tuple(parse(value) for value in values)

    return parse_all


def _one_or_more(parse: Parse[T]) -> Parse[tuple[T, ...]]:
    def parse_some(values: Any) -> tuple[T, ...]:
        parsed = _several(parse)(values)
        if not parsed:
            raise ValueError("must not be empty")
        return parsed

    return parse_some


def _optional(parse: Parse[T]) -> Parse[T | None]:
    return lambda value: None if value is None else parse(value)


def _adapter(value: Any) -> str:
    from automoderate import adapters

    if value not in adapters.names() and not re.fullmatch(r"\w+(\.\w+)+", str(value)):
        raise ValueError(
            f"must be one of {', '.join(adapters.names())}, or the module of an adapter of your own (package.module)"
        )
    return str(value)


def _host(value: Any) -> str:
    host = _text(value).removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        host.encode("idna")  # as looking it up would fail
    except UnicodeError:
        host = ""
    if re.fullmatch(r"[\w.-]+", host):
        return host
    raise ValueError("must be a host name or an address, without scheme or port")


def _cookie_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", value, re.ASCII):
        raise ValueError("must be the name of a cookie: letters, digits, _ and - (RFC 6265, section 4.1.1)")
    return value


def _log_level(value: Any) -> str:
    levels = ("debug", "info", "warning", "error", "critical")
    if not isinstance(value, str) or value.lower() not in levels:
        raise ValueError(f"must be one of: {', '.join(levels)}")
    return value.lower()


def _log_format(value: Any) -> str:
    if value not in ("text", "json"):
        raise ValueError("must be text or json")
    return str(value)


def _database_url(value: Any) -> str:
    from automoderate.directory.urls import parse  # here, as SQLAlchemy takes long to import

    parse(_text(value))
    return str(value)


def _redis_url(value: Any) -> str:
    from automoderate.backplane import redis_url  # here, as its package imports the server

    url = _text(value)
    redis_url.parse(url)
    return url


def _node(value: Any) -> str:
    from automoderate.protocol.routing import NODE_NAME

    if not isinstance(value, str) or not NODE_NAME.fullmatch(value):
        raise ValueError("must be at most 32 letters, digits, _ and -")
    return value


def _wsgi(value: Any) -> str:
    from automoderate.integrations.wsgi_target import parse_target

    try:
        parse_target(_text(value))
    except ValueError:
        raise ValueError(
            "must be MODULE:APPLICATION or MODULE:FACTORY(…) with literal arguments, as in run:app or "
            """app:create_app("production")"""
        ) from None
    return str(value)


def _origin(value: Any) -> str:
    """What a browser, or the shell of an application, sends as ``Origin`` (RFC 6454, section 6.2).

    Shells have schemes of their own (``capacitor://localhost``), or no host (``file://``), or send ``null``.
    """
    if value in ("*", "null", "file://"):
        return str(value)
    try:
        parts = urlsplit(_text(value))
        complete = parts.scheme and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or re.search(r"[@*\s]", value) or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must be an origin such as https://dashboard.example.org (no path), or *")
    if not value.isascii():
        raise ValueError("must be an origin as browsers send it, which write such a host in ASCII (xn--…)")
    return str(value)


def _content_url(value: Any) -> str:
    """An address of this site or of another, in whose path or query contents and projects are named."""
    template = _text(value)
    names = re.findall(r"\{(.*?)\}", template)
    address = re.fullmatch(r"(https?://[\w.:\[\]-]+)?/(?![/\\])[^\s\"'<>\\]*", template)
    balanced = re.sub(r"\{(content_id|project_id)\}", "", template)
    if address is None or "content_id" not in names or re.search("[{}]", balanced):
        raise ValueError(
            "must be a path such as /dashboard/content/{content_id}, or an address with http:// or https://; "
            "{content_id} and {project_id} are all that it may leave open, after the host"
        )
    return template


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    expected = "must be an address or a network such as 10.0.0.0/8"
    if not isinstance(value, str):
        raise ValueError(expected)  # noqa: TRY004 - a user's mistake
    try:
        network = ip_network(value)
    except ValueError:
        pass
    else:
        mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
        if mapped is not None and network.prefixlen >= 96:
            # As a socket for both shows it. Such an address counts as IPv4 wherever one is read.
            return IPv4Network((mapped, network.prefixlen - 96))
        return network
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
    host: tuple[str, ...] = option(
        ("127.0.0.1",), _one_or_more(_host),
        "The address to listen on; 0.0.0.0 for all of IPv4, :: for all of IPv6 and, where no address of IPv4 is named "
        "besides, of IPv4 too. May be repeated.",
        metavar="ADDRESS", multiple=True,
    )  # fmt: skip
    port: int = option(6217, _integer(0, 65535), "The port to listen on; 0 for any free one.", metavar="PORT")
    uds: str | None = option(
        None, _optional(_text),
        "Listen on a Unix socket at this path in place of --host and --port. Its owner and group may connect, and are "
        "believed as a --trusted-proxy is.",
        metavar="PATH",
    )  # fmt: skip
    ssl_certfile: str | None = option(
        None, _optional(_text),
        "A PEM file with the certificate and its chain: then it is https and wss. SIGHUP has the files read again.",
        metavar="FILE",
    )  # fmt: skip
    ssl_keyfile: str | None = option(
        None,
        _optional(_text),
        "The PEM file with the private key, where that is not in --ssl-certfile.",
        metavar="FILE",
    )
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
        "The database of an existing AutoModerate (sqlite:///file or postgresql://…). Without it that of a mounted "
        "application is used, else automoderate.sqlite3 in the working directory, which is made if it is not there. "
        "The server only reads it.",
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
    secret_key_fallbacks: tuple[str, ...] = option(
        (), _several(_text, r"\s"),
        "An old secret key: cookies that it has signed are still good. A mounted Flask application has its own "
        "SECRET_KEY_FALLBACKS. May be repeated.",
        metavar="TEXT", variables=("SECRET_KEY_FALLBACKS",), multiple=True, secret=True,
    )  # fmt: skip
    session_cookie_name: str = option(
        "session", _cookie_name,
        "The name of the session cookie. A mounted Flask application has its own SESSION_COOKIE_NAME.",
        metavar="NAME", variables=("SESSION_COOKIE_NAME",),
    )  # fmt: skip
    wsgi: str | None = option(
        None, _optional(_wsgi),
        "Another WSGI application to serve in place of the dashboard, such as run:app. Where it is a Flask application "
        "its own database, secret key, cookie name and session interface are used.",
        metavar="MODULE:APP",
    )  # fmt: skip
    cors_origin: tuple[str, ...] = option(
        (), _several(_origin),
        "Another origin whose pages may connect, and read the history, with the visitor's session: "
        "https://dashboard.example.org, capacitor://localhost of an application, or null for pages without one; "
        "* allows every site. May be repeated.",
        metavar="ORIGIN", multiple=True,
    )  # fmt: skip
    trusted_proxy: tuple[IPv4Network | IPv6Network, ...] = option(
        (), _several(_network),
        "A reverse proxy (address or network) whose X-Forwarded-… headers, or Forwarded, are believed. May "
        "be repeated.",
        metavar="NETWORK", multiple=True,
    )  # fmt: skip
    content_url: str | None = option(
        None, _optional(_content_url),
        "The page of one content, with {content_id} in its address and {project_id} where it is needed, such as "
        "/dashboard/content/{content_id}: rows of the live page lead there.",
        metavar="TEMPLATE",
    )  # fmt: skip
    log_level: str = option("info", _log_level, "debug, info, warning, error or critical.", metavar="LEVEL")
    log_format: str = option(
        "text", _log_format, "How a line of the log is written: text, or json for an object a line.", metavar="FORMAT"
    )
    ping_interval: float = option(25.0, _seconds(), "Between two heartbeats of a client.", metavar="SECONDS")
    ping_timeout: float = option(20.0, _seconds(), "A client may take this long to answer one.", metavar="SECONDS")
    connect_timeout: float = option(
        45.0, _seconds(), "A session whose client is not let into the namespace by then ends.", metavar="SECONDS"
    )
    max_payload: int = option(
        1_000_000, _integer(1, 1 << 30), "The largest message taken from a client.", metavar="BYTES"
    )
    max_request_body: int = option(
        16 * 1024 * 1024, _integer(0, 1 << 40),
        "The largest body of a request to the mounted application or the dashboard.",
        metavar="BYTES",
    )  # fmt: skip
    keep_alive: float = option(
        75.0, _seconds(),
        "An HTTP connection may be idle this long between two requests: longer than the proxy in front keeps it.",
        metavar="SECONDS",
    )  # fmt: skip
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
    window: int = option(
        0, _integer(0, 1000),
        "Updates of a project wait up to this long for one another; the first after a pause does not.", metavar="MS",
    )  # fmt: skip
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
        """How the command line spells it."""
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
    if config == "":
        raise SettingsError("config (from --config): must name a file")
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
            shown = "" if option.secret else f" {_shown(value)}"
            raise SettingsError(f"{option.name}{shown} (from {source}): {error}") from None
    if values.get("wsgi") is not None and sources["database_url"] == "DATABASE_URL":
        # The application's own name for it: the application is asked, which may read it in a way of its own.
        del values["database_url"]
        sources["database_url"] = "default"
    settings = Settings(**values)
    _check_together(settings, sources)
    return Loaded(settings, sources)


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise :exc:`SettingsError` for an option that does not go with another one, or lacks one."""
    if settings.workers > 1 and settings.redis_url is None:
        raise SettingsError(
            f"workers {settings.workers} (from {sources['workers']}): several processes share updates through Redis; "
            "set --redis-url, or run one"
        )
    if settings.uds is not None and (both := [name for name in ("host", "port") if sources[name] != "default"]):
        raise SettingsError(
            f"uds {settings.uds} (from {sources['uds']}): is listened on alone; leave out {both[0]} "
            f"(from {sources[both[0]]})"
        )
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        raise SettingsError(
            f"ssl_keyfile {settings.ssl_keyfile} (from {sources['ssl_keyfile']}): needs the certificate that it "
            "belongs to; set --ssl-certfile"
        )
    if settings.content_url is not None and settings.wsgi is not None:
        raise SettingsError(
            f"content_url {settings.content_url} (from {sources['content_url']}): is for our own dashboard, "
            f"in whose place wsgi (from {sources['wsgi']}) serves another application; leave one of them out"
        )
    if settings.redis_channel is not None and settings.redis_url is None:
        raise SettingsError(
            f"redis_channel {settings.redis_channel} (from {sources['redis_channel']}): needs the Redis that it is in; "
            "set --redis-url"
        )


def _find(
    option: Option, flags: Mapping[str, Any], environment: Mapping[str, str], contents: Mapping[str, Any], path: str
) -> tuple[Any, str]:
    """The value that wins and where it came from."""
    given = flags.get(option.name)
    if given is not None and given != ():
        return given, option.flag
    for variable in option.variables:
        value = environment.get(variable)
        if value and not (option.name == "port" and _SERVICE.match(value)):
            return value, variable
    if option.name in contents:
        return contents[option.name], path
    return option.default, "default"


def _shown(value: Any) -> str:
    """A value that cannot be used, on one line and without what a terminal would act on."""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _read(path: Path) -> dict[str, Any]:
    """The contents of a configuration file."""
    try:
        contents = tomllib.loads(path.read_text("utf-8-sig"))
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


__all__ = ["OPTIONS", "Loaded", "Option", "Settings", "SettingsError", "load"]
