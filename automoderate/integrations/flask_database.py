"""The database of a mounted Flask application: the same that its own pages use, however it came to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask
from sqlalchemy import URL, make_url

from automoderate.directory.tables import User
from automoderate.directory.urls import with_arguments

_SEVERAL = ("SQLALCHEMY_BINDS", "SQLALCHEMY_ENGINES")
"""Where Flask-SQLAlchemy, and Flask-SQLAlchemy-Lite, are told of several databases."""


def database_url(app: Flask) -> URL | None:
    """The URL of the database in which the application keeps its users; None where it says nothing of one.

    That is the engine's which Flask-SQLAlchemy or Flask-SQLAlchemy-Lite made, or else ``SQLALCHEMY_DATABASE_URI``,
    whose relative SQLite paths are below the application's instance folder, as Flask-SQLAlchemy reads them. Raises
    SQLAlchemy's ``ArgumentError``.
    """
    key, url = _engine(app)
    url = url or _configured_url(app)
    if url is None:
        return None
    bind = next((binds[key] for name in _SEVERAL if key in (binds := app.config.get(name) or {})), None)
    options = dict(bind) if isinstance(bind, Mapping) else {}
    if key is None:
        options.update(app.config.get("SQLALCHEMY_ENGINE_OPTIONS") or {})
    return with_arguments(url, options.get("connect_args") or {})


def _engine(app: Flask) -> tuple[str | None, URL | None]:
    """Which of Flask-SQLAlchemy's engines it is, None for the default one, and its URL."""
    extension = app.extensions.get("sqlalchemy")
    with app.app_context():
        engines: Mapping[str | None, Any] = getattr(extension, "engines", {})
    metadatas: Mapping[str | None, Any] = getattr(extension, "metadatas", {})
    with_users = (key for key, metadata in metadatas.items() if User.__tablename__ in metadata.tables)
    # Flask-SQLAlchemy-Lite knows no tables, and has another name for the default one.
    key = next(with_users, None if None in engines or "default" not in engines else "default")
    engine = engines.get(key)
    return key, None if engine is None else engine.url


def _configured_url(app: Flask) -> URL | None:
    configured: str | URL | None = app.config.get("SQLALCHEMY_DATABASE_URI")
    if not configured:
        return None
    url = make_url(configured)
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not str(url.database).startswith("file:"):
        return url.set(database=os.path.join(app.instance_path, str(url.database)))
    return url
