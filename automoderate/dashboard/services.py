"""What the views need, kept on the application they belong to."""

from __future__ import annotations

from attrs import field, frozen
from flask import Flask, current_app
from itsdangerous import URLSafeTimedSerializer

from automoderate.directory.database import Database
from automoderate.realtime import Realtime

CONTROL_SALT = "automoderate.control"
CONTROL_SUBJECT = "access-changes"
CONTROL_MAX_AGE = 60
"""Seconds for which a control token is accepted."""


def control_serializer(secret_key: str) -> URLSafeTimedSerializer:
    """Signs and reads the tokens with which whoever holds the secret key commands a running server."""
    return URLSafeTimedSerializer(secret_key, salt=CONTROL_SALT)


@frozen
class Services:
    """The database, the running server, and the reader of control tokens."""

    database: Database
    realtime: Realtime
    control: URLSafeTimedSerializer = field(repr=False)


def install(app: Flask, database: Database, realtime: Realtime, secret_key: str) -> None:
    """Make ``services()`` work in the views of ``app``."""
    app.extensions["automoderate"] = Services(database, realtime, control_serializer(secret_key))


def services() -> Services:
    """Those of the application that handles the current request."""
    found: Services = current_app.extensions["automoderate"]
    return found
