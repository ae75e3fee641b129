"""Putting the parts together: from settings to a running server."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import logging
import random
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen
from flask import Flask
from flask_login import user_logged_out
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from automoderate import adapters
from automoderate.adapters import Handle
from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Limits
from automoderate.dashboard import create_api_app, create_app
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database, DatabaseUnavailable
from automoderate.directory.sessions import SessionReader
from automoderate.mounted import take_over
from automoderate.protocol.config import Config
from automoderate.realtime import Realtime
from automoderate.server import BackplaneUnavailable, Server
from automoderate.settings import DEFAULT_DATABASE_URL, WEAK_SECRET, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from automoderate.backplane.redis import RedisBackplane

T = TypeVar("T")

log = logging.getLogger("automoderate.app")

API_PREFIX = "/realtime"
"""Where the publishing API is while another application is mounted."""

MAKE_A_SECRET = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class CannotStart(RuntimeError):
    """Something outside is missing or does not fit; the message is one line and names the fix."""


@frozen
class Assembly:
    """A server with everything it needs, not yet listening."""

    settings: Settings
    database: Database
    realtime: Realtime
    server: Server
    application: WSGIApplication
    adapter: ModuleType

    def run(self, on_ready: Callable[[Handle], None] | None = None) -> None:
        """Serve until stopped by a signal or by the handle that ``on_ready`` gets. Raises :exc:`CannotStart`.

        Signals are only taken where this runs in the main thread.
        """

        def ready(handle: Handle) -> None:
            self.realtime.bind(self.server, handle)
            for address, port in handle.addresses:
                shown = f"[{address}]" if ":" in address else address
                log.info("listening on http://%s:%d with %s", shown, port, self.settings.adapter)
            if on_ready is not None:
                on_ready(handle)

        try:
            with _rare_collections():
                self._serve(ready)
        except OSError as error:
            raise CannotStart(cannot_listen(self.settings, error)) from error
        finally:
            self.realtime.unbind()
            self.database.close()

    def _serve(self, ready: Callable[[Handle], None]) -> None:
        self.adapter.run(
            self.server,
            host=self.settings.host,
            port=self.settings.port,
            app=self.application,
            threads=self.settings.threads,
            drain_timeout=self.settings.drain_timeout,
            # As for a client that polls: the adapter's default is less than one project's history.
            max_write_buffer=_protocol_config(self.settings).send_buffer,
            on_ready=ready,
            # By its number: where eventlet has patched threading, the current thread is never the main one.
            handle_signals=threading.get_native_id() == threading.main_thread().native_id,
            reuse_port=self.settings.workers > 1,
        )


def run(settings: Settings) -> None:
    """Build a server and serve until SIGTERM or SIGINT. Raises :exc:`CannotStart`."""
    build(settings).run()


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Have Python look for garbage in cycles less often while serving.

    By default every few hundred new objects begin a collection, and now and then one that looks at all objects of all
    connections, which stops everybody. What was imported so far is never looked at again.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(25_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def build(settings: Settings) -> Assembly:
    """Put a server together; our own database is made if it is not there yet. Raises :exc:`CannotStart`."""
    adapter = _load_adapter(settings)
    mounted = _mounted_application(settings)
    secret_key = _secret_key(settings, mounted)
    backplane = _backplane(settings)
    database = _open_database(settings, make=True)
    realtime = Realtime()
    application, signer = _assemble_web(database, realtime, mounted, secret_key, settings.redis_channel)
    server = Server(
        SQLDirectory(database, SessionReader(signer)),
        backplane,
        protocol=_protocol_config(settings),
        limits=_limits(settings),
        random=random.Random().random,
        new_id=lambda: secrets.token_urlsafe(15),
    )
    return Assembly(settings, database, realtime, server, application, adapter)


def problems(settings: Settings) -> list[str]:
    """What would keep a server with these settings from starting, one line each; starts and makes nothing."""
    found: list[str] = []

    def attempt(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except CannotStart as error:
            found.append(str(error))
            return None

    attempt(lambda: _load_adapter(settings))
    mounted = attempt(lambda: _mounted_application(settings))
    if settings.wsgi is None or mounted is not None:
        attempt(lambda: _secret_key(settings, mounted))
    attempt(lambda: _open_database(settings, make=False).close())
    attempt(lambda: _backplane(settings))
    return found


def _assemble_web(
    database: Database, realtime: Realtime, mounted: WSGIApplication | None, secret_key: str, channel: str | None
) -> tuple[WSGIApplication, Flask]:
    """The WSGI application to serve, and the Flask application whose session cookies count."""
    if mounted is None:
        dashboard = create_app(database, realtime, secret_key=secret_key)
        return dashboard, dashboard
    api = create_api_app(database, realtime, secret_key=secret_key)
    if isinstance(mounted, Flask):
        signer = mounted
        _announce_logouts(mounted, realtime)
        take_over(mounted, realtime, channel)
    else:
        signer = Flask("automoderate.sessions", static_folder=None)
        signer.secret_key = secret_key
    return DispatcherMiddleware(mounted, {API_PREFIX: api}), signer


def _announce_logouts(app: Flask, realtime: Realtime) -> None:
    """End the live sessions of whoever logs out of the mounted application."""

    def logged_out(_sender: Flask, user: Any, **_rest: object) -> None:
        user_id = user.get_id()
        if user_id is not None:
            realtime.logged_out(user_id)

    user_logged_out.connect(logged_out, app, weak=False)


def _load_adapter(settings: Settings) -> ModuleType:
    try:
        return adapters.load(settings.adapter)
    except adapters.MissingExtra as error:
        raise CannotStart(str(error)) from error


def _mounted_application(settings: Settings) -> WSGIApplication | None:
    return None if settings.wsgi is None else _load_application(settings.wsgi)


def _load_application(name: str) -> WSGIApplication:
    """Import ``module:application``, or call ``module:factory()``."""
    module_name, _, path = name.partition(":")
    # As for any server of WSGI applications, the working directory is where they are.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.removesuffix("()").split("."):
            found = getattr(found, attribute)
        if path.endswith("()"):
            found = found()
    except Exception as error:
        log.debug("cannot load %s", name, exc_info=True)
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CannotStart(f"cannot load the application {name}: {cause} (--log-level debug shows where)") from error
    if not callable(found):
        raise CannotStart(f"cannot serve {name}: it is no WSGI application but a {type(found).__name__}")
    application: WSGIApplication = found
    return application


def _secret_key(settings: Settings, mounted: WSGIApplication | None) -> str:
    """The key for our own application and for control tokens; a mounted Flask application's where none is set."""
    secret: str | bytes | None = settings.secret_key
    if isinstance(mounted, Flask):
        if not mounted.secret_key:
            raise CannotStart(f"the mounted application {settings.wsgi} has no secret key; set its SECRET_KEY")
        secret = secret or mounted.secret_key
    if not secret:
        raise CannotStart(f"a secret key is needed to sign sessions: set SECRET_KEY; to make one: {MAKE_A_SECRET}")
    if len(secret) < WEAK_SECRET:
        log.warning("the secret key is weak, fewer than %d characters; to make one: %s", WEAK_SECRET, MAKE_A_SECRET)
    return secret if isinstance(secret, str) else secret.decode("latin-1")


def _open_database(settings: Settings, *, make: bool) -> Database:
    """The database, checked and for reading only; our own is made before, with ``make``, if it is not there."""
    url = settings.database_url or DEFAULT_DATABASE_URL
    database = Database(url, read_only=True, pool_size=settings.threads, statement_timeout=settings.check_timeout)
    ours = settings.database_url is None
    try:
        if ours and make:
            _make_database(url)
        if make or not ours or (database.path is not None and database.path.exists()):
            database.check()
    except DatabaseUnavailable as error:
        database.close()
        raise CannotStart(str(error)) from error
    return database


def _backplane(settings: Settings) -> MemoryBackplane | RedisBackplane:
    """What the nodes share, known to answer; a memory of this process's own where there is only one."""
    if settings.redis_url is None:
        return MemoryBackplane(entries=settings.history_entries)
    try:
        from automoderate.backplane.redis import RedisBackplane
    except ModuleNotFoundError as error:
        raise CannotStart(f'--redis-url needs {error.name}: pip install "automoderate[redis]"') from error
    backplane = RedisBackplane(settings.redis_url, entries=settings.history_entries, channel=settings.redis_channel)
    try:
        backplane.check()
    except BackplaneUnavailable as error:
        raise CannotStart(f"{error}; see --redis-url") from error
    return backplane


def _make_database(url: str) -> None:
    database = Database(url)
    try:
        database.create_all()
    finally:
        database.close()


def cannot_listen(settings: Settings, error: OSError) -> str:
    """Why nobody can listen there, in one line that names the fix."""
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: the port is taken; choose another with --port"
    return f"cannot listen on {where}: {error.strerror or error}"


def _protocol_config(settings: Settings) -> Config:
    return Config(
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
        max_payload=settings.max_payload,
        connect_timeout=settings.connect_timeout,
        allowed_origins=frozenset(settings.cors_origin),
        trusted_proxies=settings.trusted_proxy,
        node=settings.node,
        # The requests of a client that polls come to whichever worker the kernel chooses.
        transports=frozenset({"polling", "websocket"} if settings.workers == 1 else {"websocket"}),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_rooms=settings.max_rooms,
        max_events_per_minute=settings.max_events_per_minute,
        max_connections_per_minute=settings.max_connections_per_minute,
        check_timeout=settings.check_timeout,
        recheck_interval=settings.recheck_interval,
        auth_grace=settings.auth_grace,
    )
