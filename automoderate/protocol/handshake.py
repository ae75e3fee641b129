"""The opening handshake of a WebSocket: what a request has to say to get one (RFC 6455, section 4.2)."""

from __future__ import annotations

import base64
import binascii

from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_extension, parse_subprotocol
from websockets.utils import accept_key

from automoderate.protocol.model import Request

VERSION = "13"
MAX_EXTENSIONS = 1024
"""Characters of the extensions that a client offers; browsers write fifty. A head full takes 15 ms to parse."""
MAX_SUBPROTOCOLS = 100
"""Subprotocols that a client offers, however long: some clients put a token there."""


def wants_websocket(request: Request) -> bool:
    """Whether the request asks to switch to WebSocket (RFC 9110, section 7.8)."""
    return (request.header("upgrade") or "").strip().lower() == "websocket"


def answer(request: Request) -> list[tuple[str, str]] | None:
    """The headers that answer an upgrade request, or None where that breaks RFC 6455, section 4.2.1.

    Of the subprotocols that the client offers it gets the first, as from the reference server: browsers give up a
    WebSocket that has none of them. No extension is taken, but the offer has to be well-formed (section 9.1). There
    are bounds to both. The caller checks the version: a wrong one has an answer of its own (section 4.2.2).
    """
    accept = accept_value(request)
    if accept is None:
        return None
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    protocols, extensions = request.header("sec-websocket-protocol"), request.header("sec-websocket-extensions")
    if (protocols or "").count(",") >= MAX_SUBPROTOCOLS or len(extensions or "") > MAX_EXTENSIONS:
        return None
    try:
        if protocols is not None:
            offered = parse_subprotocol(protocols)
            if len(set(offered)) < len(offered):
                return None
            headers.append(("Sec-WebSocket-Protocol", offered[0]))
        if extensions is not None:
            parse_extension(extensions)
    except InvalidHeaderFormat:
        return None
    return headers


def accept_value(request: Request) -> str | None:
    """The ``Sec-WebSocket-Accept`` that answers an upgrade request; None where that has no key or is no upgrade."""
    options = [option.strip().lower() for option in (request.header("connection") or "").split(",")]
    key = (request.header("sec-websocket-key") or "").strip()
    if request.http_version != "1.1" or "upgrade" not in options:
        return None
    try:
        nonce = base64.b64decode(key.encode("latin-1"), validate=True)
    except binascii.Error:
        return None
    return accept_key(key) if len(nonce) == 16 else None
