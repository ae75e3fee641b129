"""What the views need, kept on the application they belong to."""

from __future__ import annotations

from attrs import frozen
from flask import Flask, current_app

from automoderate.directory.database import Database
from automoderate.realtime import Realtime


@frozen
class Services:
    """The database, the running server, and where the operator's pages of contents are."""

    database: Database
    realtime: Realtime
    content_url: str | None


def install(app: Flask, database: Database, realtime: Realtime, content_url: str | None) -> None:
    """Make ``services()`` work in the views of ``app``."""
    app.extensions["automoderate"] = Services(database, realtime, content_url)


def services() -> Services:
    """Those of the application that handles the current request."""
    found: Services = current_app.extensions["automoderate"]
    return found
