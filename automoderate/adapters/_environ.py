"""An HTTP request head as WSGI (PEP 3333) describes it to an application."""

from __future__ import annotations

import io
import logging
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from automoderate.protocol.model import Request

log = logging.getLogger("automoderate.wsgi")

_SAID = {"event": "application_said"}

Environ = dict[str, Any]

_DEFAULT_PORTS = {"http": "80", "https": "443"}
# Told through variables of their own, true of this hop only, or dangerous: CGI libraries take HTTP_PROXY for the
# operator's outgoing proxy ("httpoxy").
_NOT_PASSED = frozenset({"content-type", "content-length", "host", "connection", "transfer-encoding", "proxy"})


class ErrorLog(io.TextIOBase):
    """``wsgi.errors``: whole lines go to the log."""

    def __init__(self) -> None:
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            log.error("%s", line, extra=_SAID)
        return len(text)

    def flush(self) -> None:
        if self._line:
            log.error("%s", self._line, extra=_SAID)
            self._line = ""


def build(request: Request, body: IO[bytes], size: int) -> Environ:
    """The environ of one complete request whose body of ``size`` bytes is in ``body``."""
    name, port = _server(request)
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _decoded(request.prefix),
        "PATH_INFO": _path(request.target),
        "QUERY_STRING": request.query_string,
        "RAW_URI": request.target,
        "REQUEST_URI": request.target,
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "SERVER_SOFTWARE": "automoderate",
        "REMOTE_ADDR": request.client_address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": ErrorLog(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.client_address == request.peer.address:
        environ["REMOTE_PORT"] = str(request.peer.port)
    if request.host:
        environ["HTTP_HOST"] = request.host
    content_type = request.header("content-type")
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    if size or request.header("content-length") is not None:
        # The body is here in full, so its length is known even where it came in chunks.
        environ["CONTENT_LENGTH"] = str(size)
    _add_headers(environ, request)
    return environ


def _add_headers(environ: Environ, request: Request) -> None:
    for name, value in request.headers:
        # "X_Forwarded_For" and "X-Forwarded-For" would become the same variable: the first could pose as the second.
        if name in _NOT_PASSED or "_" in name:
            continue
        key = "HTTP_" + name.upper().replace("-", "_")
        if key in environ:
            separator = "; " if name == "cookie" else ", "
            environ[key] += separator + value
        else:
            environ[key] = value


def _path(target: str) -> str:
    """The decoded path of a request target in origin form, absolute form or ``*`` (RFC 9112, section 3.2)."""
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return _decoded(path)


def _decoded(path: str) -> str:
    return unquote_to_bytes(path.encode("latin-1", "replace")).decode("latin-1")


def _server(request: Request) -> tuple[str, str]:
    """The name and port the client asked for; our own where it named none (HTTP/1.0)."""
    if not request.host:
        return request.peer.local_address, str(request.peer.local_port)
    name, colon, port = request.host.rpartition(":")
    if colon and port.isdigit():  # "[::1]" ends with "1]", so its last colon separates no port
        return name, port
    return request.host, _DEFAULT_PORTS.get(request.scheme, "80")
