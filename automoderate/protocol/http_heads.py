"""The head of an HTTP request: when it is complete, and the ``Request`` that it is.

Nearly all heads are of a plain sort, which ``plain_head`` reads. All others are h11's to read or to refuse. A head that
is plain means the same to both, and what h11 would refuse is not plain: so h11 is the one judge of what HTTP is.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from automoderate.protocol.config import Config
from automoderate.protocol.model import Connection, HttpExchange, Peer, Request, joined
from automoderate.protocol.proxies import forwarded_request

__all__ = ["MAX_HEAD", "cut_head", "keeps_alive", "plain_head", "read_head"]

MAX_HEAD = 16 * 1024
"""Bytes of a request head."""
MAX_HEADERS = 100
"""Headers of a request, whatever their size."""
MAX_PARAMETERS = 100
"""Parameters in the query of a request to the protocol, which reads half a dozen."""
MAX_COOKIES = 500
"""Cookies of a request. No browser keeps half as many of one site."""
_MAX_LINES = 1 + MAX_HEADERS + 1
_END = re.compile(rb"\n\r?\n")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PLAIN = re.compile(rf"({_TOKEN}) ([!-~]++) HTTP/1\.1\r\n((?:{_TOKEN}:[\t -~\x80-\xff]*+\r\n)++)\r\n")
"""Method, target and header lines of a plain head (RFC 9112, sections 3 and 5). Control characters are not plain."""
_PLAIN_LENGTH = re.compile(r"[0-9]{1,15}")
_UNUSUAL = frozenset({"expect", "transfer-encoding"})
"""Headers that change how a request is read."""
_ONCE = frozenset({"content-length", "host"})
"""Headers of which there may be one."""


def cut_head(connection: Connection, exchange: HttpExchange) -> bytes:
    """Take the head of a request off what is unread; ``b""`` where it is not complete.

    There is none that is too large, and no part of one but where that cannot become a head. Raises
    RemoteProtocolError.
    """
    unread = connection.unread
    end = _END.search(unread, exchange.searched)
    size = len(unread) if end is None else end.end()
    if size > MAX_HEAD or unread.count(b"\n", 0, size) > _MAX_LINES:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
    if end is None and unread[0] > ord(" "):
        exchange.searched = max(0, size - 2)
        return b""
    connection.unread, exchange.searched = unread[size:], 0
    return unread[:size]


def plain_head(head: bytes, peer: Peer, config: Config) -> Request | None:
    """The request of a head; None where the head is not plain.

    Plain is one of HTTP/1.1, whose connection goes on after it, with a body of known size or none. Raises
    RemoteProtocolError as ``read_head`` does.
    """
    found = _PLAIN.fullmatch(head.decode("latin-1"))
    if found is None:
        return None
    method, target, lines = found.groups()
    parts = [line.partition(":") for line in lines[:-2].split("\r\n")]
    headers = [(name.lower(), value.strip(" \t")) for name, _, value in parts]
    values = dict(headers)
    if len(headers) > len(values):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in _ONCE):
            return None
        values = joined(headers)
    length = values.get("content-length")
    if (
        method == "CONNECT"
        or "host" not in values
        or not values.keys().isdisjoint(_UNUSUAL)
        or "close" in values.get("connection", "").lower()
        or (length is not None and _PLAIN_LENGTH.fullmatch(length) is None)
    ):
        return None
    return _request(method, target, "1.1", headers, values, peer, config)


def read_head(event: h11.Request, peer: Peer, config: Config) -> Request:
    """The request that h11 has read. Raises RemoteProtocolError for one that is refused nevertheless."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
    if not event.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError("no version of HTTP that is spoken here", error_status_hint=505)
    values = joined(headers)
    if "transfer-encoding" in values and ("content-length" in values or event.http_version == b"1.0"):
        # A proxy before us may have found the end of the body elsewhere (RFC 9112, section 6.1).
        raise h11.RemoteProtocolError("the size of the body is doubtful", error_status_hint=400)
    method, target, version = (part.decode("latin-1") for part in (event.method, event.target, event.http_version))
    return _request(method, target, version, headers, values, peer, config)


def keeps_alive(request: Request) -> bool:
    """Whether the connection goes on after a request, as far as its client is concerned."""
    wishes = request.header("connection")
    return request.http_version != "1.0" and (
        wishes is None or "close" not in [wish.strip() for wish in wishes.lower().split(",")]
    )


def _request(
    method: str, target: str, version: str, headers: list[tuple[str, str]], values: dict[str, str], peer: Peer,
    config: Config,
) -> Request:  # fmt: skip
    """The request as its sender made it, seen through any trusted proxy."""
    raw_path, _, query_string = (target if target.startswith("/") else _relative(target)).partition("?")
    path = unquote(raw_path)
    if values.get("cookie", "").count(";") >= MAX_COOKIES:
        raise h11.RemoteProtocolError("too many cookies", error_status_hint=431)
    if path.startswith(config.path) and query_string.count("&") >= MAX_PARAMETERS:
        raise h11.RemoteProtocolError("too many parameters", error_status_hint=400)
    view = forwarded_request(peer, values, config.trusted_proxies)
    return Request(
        method=method,
        target=target,
        path=path,
        query_string=query_string,
        headers=tuple(headers),
        http_version=version,
        peer=peer,
        client_address=view.client_address,
        scheme=view.scheme,
        host=view.host,
        prefix=view.prefix,
        query=_parameters(query_string),
        values=values,
    )


def _parameters(query_string: str) -> dict[str, str]:
    """The last of each name, as ``parse_qsl`` reads them; that takes long where there is nothing to decode."""
    if "%" in query_string or "+" in query_string:
        return dict(parse_qsl(query_string, keep_blank_values=True))
    pairs = [part.partition("=") for part in query_string.split("&") if part]
    return {name: value for name, _, value in pairs}


def _relative(target: str) -> str:
    """Path and query of an absolute target (RFC 9112, section 3.2.2); anything else, such as ``*``, as it is."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return target
    if not parts.netloc:
        return target
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path
