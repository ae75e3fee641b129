"""Tokens with which the command line, which knows the secret key, commands a running server."""

from __future__ import annotations

import logging

from itsdangerous import BadData, URLSafeTimedSerializer

from automoderate._logs import Sparingly
from automoderate.directory.signatures import WrongTime, load_signed

__all__ = ["MAX_AGE", "refusal", "sign"]

log = Sparingly(logging.getLogger(__name__))

MAX_AGE = 60
"""Seconds for which a token is accepted."""

_SUBJECT = "access-changes"


def sign(secret_key: str) -> str:
    """A token that says that its bearer knows the secret key."""
    token = _serializer(secret_key).dumps(_SUBJECT)
    return token if isinstance(token, str) else token.decode()


def refusal(token: str, secret_key: str) -> tuple[str, str] | None:
    """Why a token does not count, as a code for programs and a message, also for the log; None where it does."""
    try:
        subject = load_signed(_serializer(secret_key), token, MAX_AGE)
    except WrongTime as error:
        log.log(
            logging.WARNING, "a command was refused: it was %s by the clock of this machine", error,
            extra={"event": "command_refused", "reason": str(error)},
        )  # fmt: skip
        return "wrong_time", f"The token was {error} by the server's clock"
    except BadData:
        subject = None
    if subject == _SUBJECT:
        return None
    log.log(
        logging.WARNING, "a command was refused: it was signed with another secret key",
        extra={"event": "command_refused", "reason": "another secret key"},
    )  # fmt: skip
    return "invalid_token", "The token is not valid"


def _serializer(secret_key: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret_key, salt="automoderate.control")
