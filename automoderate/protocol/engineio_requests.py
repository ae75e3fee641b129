"""Requests to the Engine.IO path: which of them are refused, and how they are answered."""

from __future__ import annotations

import enum
import json
import logging
from collections.abc import Sequence

from automoderate.protocol import handshake
from automoderate.protocol.config import Config
from automoderate.protocol.http import Header, HttpServer
from automoderate.protocol.model import Connection, Request, Session
from automoderate.protocol.origin import OriginCheck, check_origin, cors_headers
from automoderate.protocol.routing import Routing

__all__ = ["Answers", "Failure", "log_other_origin", "log_too_large", "refusal"]

_LOGGER = logging.getLogger("automoderate.protocol.engineio")


class Failure(enum.Enum):
    """The error answers of the reference server: status, code, message."""

    UNKNOWN_TRANSPORT = (400, 0, "Transport unknown")
    UNKNOWN_SID = (400, 1, "Session ID unknown")
    BAD_HANDSHAKE_METHOD = (400, 2, "Bad handshake method")
    BAD_REQUEST = (400, 3, "Bad request")
    FORBIDDEN = (403, 4, "Forbidden")
    UNSUPPORTED_PROTOCOL_VERSION = (400, 5, "Unsupported protocol version")
    TOO_LARGE = (413, 3, "Payload too large")
    JSONP = (400, 3, "JSONP polling is not served")
    UPGRADE_REQUIRED = (426, 3, "Bad request")
    DRAINING = (503, 3, "Server is shutting down")


def refusal(request: Request, session: Session | None, config: Config, *, draining: bool) -> Failure | None:
    """Why a request to the Engine.IO path is refused, as far as its head says; None where it is not.

    ``session`` is the one its ``sid`` names, if there is one. The checks are made in the reference server's order.
    """
    origin = check_origin(request, config.allowed_origins)
    if origin is OriginCheck.REFUSED:
        return Failure.FORBIDDEN
    if origin is OriginCheck.ALLOWED and request.method == "OPTIONS":
        return None
    transport = request.query.get("transport")
    if transport not in config.transports:
        return Failure.UNKNOWN_TRANSPORT
    if transport == "polling" and "j" in request.query:
        return Failure.JSONP
    upgrade = handshake.wants_websocket(request)
    if request.query.get("sid"):
        if session is None:
            return Failure.UNKNOWN_SID
        fits = upgrade if transport == "websocket" else session.transport == "polling" and not upgrade
        fits = fits and (request.method == "GET" or (request.method == "POST" and transport == "polling"))
        return None if fits else Failure.BAD_REQUEST
    if request.method != "GET":
        return Failure.BAD_HANDSHAKE_METHOD
    if request.query.get("EIO") != "4":
        return Failure.UNSUPPORTED_PROTOCOL_VERSION
    if upgrade != (transport == "websocket"):
        return Failure.BAD_REQUEST
    return Failure.DRAINING if draining else None


def log_other_origin(request: Request) -> None:
    """Say that a page was refused. Behind a proxy that is not trusted every page is, and only this line says why."""
    page, own = request.header("origin"), f"{request.scheme}://{request.host}"
    _LOGGER.info(
        "Refused a page of %r, as this is %r", page, own,
        extra={"event": "origin_refused", "address": request.client_address, "reason": page},
    )  # fmt: skip


def log_too_large(request: Request, allowed: int) -> None:
    """Say that a body was refused, for an operator who looks for an upload that never arrived."""
    _LOGGER.warning(
        "Refused %s %r from %s: its body is larger than %d bytes",
        request.method, request.path, request.client_address, allowed,
        extra={"event": "request_refused", "address": request.client_address, "reason": "body too large"},
    )  # fmt: skip


class Answers:
    """Answers to requests to the Engine.IO path."""

    def __init__(self, config: Config, http: HttpServer, routing: Routing) -> None:
        self._config = config
        self._http = http
        self._routing = routing

    def answer(
        self,
        connection: Connection,
        status: int,
        body: bytes,
        headers: Sequence[Header],
        now: float,
        last: bool | None = None,
    ) -> None:
        """Answer the connection's request; no cache may keep the answer. ``last`` is that of ``HttpServer.answer``."""
        request = connection.request
        cors: list[Header] = []
        if request is not None:
            cors = cors_headers(request, check_origin(request, self._config.allowed_origins))
        self._http.answer(connection, status, body, [*headers, ("Cache-Control", "no-store"), *cors], now, last)

    def fail(self, connection: Connection, failure: Failure, now: float) -> None:
        """Answer the connection's request with an error."""
        status, code, message = failure.value
        body = {"code": code, "message": message}
        if (detail := self._detail(failure, connection.request, now)) is not None:
            body["detail"] = detail
        headers = [("Content-Type", "application/json")]
        if failure is Failure.UPGRADE_REQUIRED:
            headers += [("Upgrade", "websocket"), ("Sec-WebSocket-Version", handshake.VERSION)]
        self.answer(connection, status, json.dumps(body).encode(), headers, now)

    def _detail(self, failure: Failure, request: Request | None, now: float) -> str | None:
        """What an operator needs to know besides; clients read the code only."""
        if failure is Failure.UNKNOWN_SID and request is not None:
            return self._routing.stray(request.query.get("sid", ""), now)
        if failure is Failure.UNKNOWN_TRANSPORT and self._config.transports == {"websocket"}:
            return "only WebSocket is served here: set transports to websocket in the client"
        return None
