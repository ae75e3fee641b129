"""Putting the parts together: from settings to a running server."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import random
import resource
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen
from flask import Flask
from flask_login import user_logged_out
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from automoderate import _logs, adapters, contract, control
from automoderate.adapters.runtime import Certificate, Handle, Options
from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Limits
from automoderate.dashboard import client_installed, create_app, error_pages, is_genuine, put_inspector_beside
from automoderate.directory.access import SQLDirectory
from automoderate.directory.database import Database, DatabaseUnavailable
from automoderate.directory.sessions import SessionReader
from automoderate.directory.urls import InvalidDatabaseURL
from automoderate.integrations.commits import CommitListener
from automoderate.integrations.flask_database import database_url
from automoderate.integrations.flask_socketio import take_over
from automoderate.integrations.wsgi_target import (
    CannotLoad,
    flask_within,
    load_application,
    look_in_working_directory,
)
from automoderate.metrics import exposition
from automoderate.protocol.config import Config
from automoderate.protocol.files import StaticFile
from automoderate.realtime import Realtime, process_name
from automoderate.server import Server
from automoderate.server.admin import AdminOptions
from automoderate.server.api import ApiOptions
from automoderate.server.interfaces import BackplaneUnavailable
from automoderate.server.tracing import Tracer
from automoderate.settings import DEFAULT_DATABASE_URL, WEAK_SECRET, Settings
from automoderate.update_payloads import trial_update

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from automoderate.backplane.redis import RedisBackplane
    from automoderate.opentelemetry import OpenTelemetryTracer

T = TypeVar("T")

log = logging.getLogger("automoderate.app")

CLIENT_FOLDER = Path(__file__).parent / "dashboard" / "static" / "vendor"
"""Where building the package puts the client for browsers."""

API_PREFIX = "/realtime"
"""Where our own API and pages are while another application is mounted."""

MAKE_A_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


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
    certificate: Certificate | None = None
    sockets: Sequence[socket.socket] = ()
    """Sockets that listen already, in place of the settings' addresses."""
    tracer: OpenTelemetryTracer | None = None
    """Its own, which ends with it."""

    def run(self, on_ready: Callable[[Handle], None] | None = None) -> None:
        """Serve until stopped by a signal or by the handle that ``on_ready`` gets. Raises :exc:`CannotStart`.

        Signals are only taken where this runs in the main thread.
        """

        def ready(handle: Handle) -> None:
            self.realtime.bind(self.server, handle)
            for address, port in handle.addresses:
                log.info(
                    "listening on %s with %s", self._url(address, port), self.settings.adapter,
                    extra={"event": "listening"},
                )  # fmt: skip
            if on_ready is not None:
                on_ready(handle)

        try:
            with _rare_collections(), _many_descriptors(), self._listening():
                self._serve(ready)
        except OSError as error:
            raise CannotStart(cannot_listen(error)) from error
        finally:
            self.realtime.unbind()
            self.database.close()
            if self.tracer is not None:
                self.tracer.close()

    def _url(self, address: str, port: int) -> str:
        scheme = "http" if self.certificate is None else "https"
        if not port:
            return f"{scheme}+unix:{address}"
        return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"

    def _listening(self) -> contextlib.AbstractContextManager[object]:
        """Within it, what a mounted application commits takes effect on live sessions at once."""
        if self.settings.wsgi is None:
            return contextlib.nullcontext()
        return contextlib.closing(CommitListener(self._announce))

    def _announce(self, user_id: str | None, project_id: str | None) -> None:
        told = self.realtime.access_changed(user_id=user_id, project_id=project_id)
        told.add_done_callback(_report)

    @property
    def options(self) -> Options:
        """Where and how an adapter serves it."""
        return Options(
            host=self.settings.host,
            port=self.settings.port,
            uds=self.settings.uds,
            sockets=self.sockets,
            reuse_port=self.settings.workers > 1,
            app=self.application,
            error_pages=error_pages(),
            threads=self.settings.threads,
            drain_timeout=self.settings.drain_timeout,
            # As for a client that polls: the default is less than one project's history.
            max_write_buffer=_protocol_config(self.settings).send_buffer,
            certificate=self.certificate,
        )

    def _serve(self, ready: Callable[[Handle], None]) -> None:
        self.adapter.run(self.server, self.options, on_ready=ready, handle_signals=_may_handle_signals())


def _may_handle_signals() -> bool:
    """Whether this is the main thread, as the interpreter knows it.

    ``threading`` does not: a forked process has the main thread's number of its parent, and where eventlet has patched
    it the current thread is never the main one.
    """
    try:
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    except ValueError:
        return False
    return True


def _report(told: Future[None]) -> None:
    if error := told.exception():
        log.warning(
            "a change of access was not announced, and takes effect at the next re-check: %s", error,
            extra={"event": "announcement_failed", "reason": str(error)},
        )  # fmt: skip


def run(settings: Settings, sockets: Sequence[socket.socket] = ()) -> None:
    """Build a server and serve until SIGTERM or SIGINT. Raises :exc:`CannotStart`.

    ``sockets`` that listen already are served in place of the settings' addresses.
    """
    build(settings, sockets).run()


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


@contextlib.contextmanager
def _many_descriptors() -> Iterator[None]:
    """Allow this process as many open files as it may allow itself while serving, as Node and Go do.

    Each client takes one. The lower, soft limit is for programs that use select(), which breaks beyond 1,024; systemd
    and shells leave it to others to raise it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # an unlimited one is more than some systems take
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def build(settings: Settings, sockets: Sequence[socket.socket] = (), *, tracer: Tracer | None = None) -> Assembly:
    """Put a server together; our own database is made if it is not there yet. Raises :exc:`CannotStart`.

    ``tracer`` takes its spans, and is for the caller to end; without one it is OpenTelemetry, where the environment
    asks for that.
    """
    adapter = _load_adapter(settings)
    certificate = _certificate(settings)
    mounted = _mounted_application(settings)
    secret_key = _secret_key(settings, mounted)
    own_tracer = _tracer() if tracer is None else None
    backplane = _backplane(settings)
    database = _open_database(settings, mounted, make=True)
    realtime = Realtime()
    application, signer = _assemble_web(settings, database, realtime, mounted, secret_key)
    if settings.wsgi is not None:
        _logs.keep_enabled()
    reader = SessionReader(signer)
    prefix = "" if mounted is None else API_PREFIX
    server = Server(
        SQLDirectory(database, reader),
        backplane,
        protocol=_protocol_config(settings),
        limits=_limits(settings),
        random=random.Random().random,
        new_id=lambda: secrets.token_urlsafe(15),
        identification=reader.identification,
        api=ApiOptions(
            prefix=prefix,
            refusal=lambda token: control.refusal(token, secret_key),
            exposition=exposition,
            documents=contract.documents(prefix, signer.session_interface.get_cookie_name(signer)),
            about={"node": _node_name(settings), "version": version("automoderate"), "runtime": settings.adapter},
            admin=AdminOptions(genuine=partial(is_genuine, signer), trial_update=trial_update),
        ),
        window=settings.window / 1000,
        tracer=own_tracer if tracer is None else tracer,
    )
    return Assembly(settings, database, realtime, server, application, adapter, certificate, sockets, own_tracer)


def _tracer() -> OpenTelemetryTracer | None:
    """OpenTelemetry, where the environment asks for it; nothing of it is imported otherwise."""
    if not opentelemetry_wanted(os.environ):
        return None
    try:
        from automoderate import opentelemetry

        return opentelemetry.from_environment(os.environ)
    except ModuleNotFoundError as error:
        raise CannotStart(
            f'the OTEL_ variables ask for traces, which needs {error.name}: pip install "automoderate[otel]", '
            "or set OTEL_SDK_DISABLED=true"
        ) from error
    except ValueError as error:  # some of its variables are read when it is imported
        raise CannotStart(str(error)) from error


def opentelemetry_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables say that traces are to be sent."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in endpoints))


def _node_name(settings: Settings) -> str:
    """What operators call this process."""
    return settings.node or process_name()


@frozen
class Examination:
    """What came of looking at settings without starting anything."""

    problems: Sequence[str]
    """What would keep a server from starting, one line each."""
    database: str | None
    """The URL of the database that it would read, without secrets; None where none is found."""


def examine(settings: Settings) -> Examination:
    """Find what would keep a server with these settings from starting. A mounted application is imported for it."""
    found: list[str] = []

    def attempt(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except CannotStart as error:
            found.append(str(error))
            return None

    attempt(lambda: _load_adapter(settings))
    attempt(lambda: _certificate(settings))
    mounted = attempt(lambda: _mounted_application(settings))
    database = None
    if loaded := settings.wsgi is None or mounted is not None:
        attempt(lambda: _secret_key(settings, mounted))
    if loaded or settings.database_url is not None:
        database = attempt(lambda: _open_database(settings, mounted, make=False))
    if database is not None:
        database.close()
    attempt(lambda: _backplane(settings))
    if (tracer := attempt(_tracer)) is not None:
        tracer.close()
    return Examination(found, None if database is None else str(database))


def _assemble_web(
    settings: Settings, database: Database, realtime: Realtime, mounted: WSGIApplication | None, secret_key: str
) -> tuple[WSGIApplication, Flask]:
    """The WSGI application to serve, and the Flask application whose session cookies count."""
    if mounted is None:
        if not client_installed():
            log.warning(
                "the browser's Socket.IO client is not installed, so that live pages show nothing: run npm ci in the "
                "checkout that this runs from, or install a package that was built with npm",
                extra={"event": "client_missing"},
            )
        dashboard = create_app(
            database, realtime, secret_key=secret_key, secret_key_fallbacks=settings.secret_key_fallbacks,
            session_cookie_name=settings.session_cookie_name, content_url=settings.content_url,
        )  # fmt: skip
        return dashboard, dashboard
    signer = flask_within(mounted)
    if signer is not None:
        _announce_logouts(signer, realtime)
        take_over(signer, realtime, settings.redis_channel)
    else:
        signer = Flask("automoderate.sessions", static_folder=None)
        signer.config.update(
            SECRET_KEY=secret_key,
            SECRET_KEY_FALLBACKS=list(settings.secret_key_fallbacks),
            SESSION_COOKIE_NAME=settings.session_cookie_name,
        )
    return put_inspector_beside(mounted, API_PREFIX, database, realtime, signer), signer


def _announce_logouts(app: Flask, realtime: Realtime) -> None:
    """End the live sessions of a user who logs out of the mounted application."""

    def logged_out(_sender: Flask, user: Any, **_rest: object) -> None:
        user_id = user.get_id()
        if user_id is not None:
            realtime.logged_out(user_id)

    user_logged_out.connect(logged_out, app, weak=False)


def _load_adapter(settings: Settings) -> ModuleType:
    if settings.adapter not in adapters.names():
        look_in_working_directory()
    try:
        return adapters.load(settings.adapter)
    except (adapters.MissingExtra, ValueError) as error:
        raise CannotStart(str(error)) from error


def _certificate(settings: Settings) -> Certificate | None:
    if settings.ssl_certfile is None:
        return None
    try:
        return Certificate(settings.ssl_certfile, settings.ssl_keyfile)
    except ValueError as error:
        raise CannotStart(f"{error}; see --ssl-certfile and --ssl-keyfile") from error


def _mounted_application(settings: Settings) -> WSGIApplication | None:
    if settings.wsgi is None:
        return None
    try:
        application = load_application(settings.wsgi)
    except CannotLoad as error:
        raise CannotStart(str(error)) from error
    finally:
        _logs.keep_enabled()
    if (theirs := flask_within(application)) is not None:
        _look_at_cookie(settings, theirs)
    return application


def _look_at_cookie(settings: Settings, theirs: Flask) -> None:
    """Say so where browsers do not send the session cookie to our endpoint: every visitor would be anonymous."""
    path, endpoint = theirs.session_interface.get_cookie_path(theirs), Config().path
    if not f"{endpoint}/".startswith(f"{path.rstrip('/')}/"):  # RFC 6265, section 5.1.4
        log.warning(
            "browsers send the session cookie of %s below %s only, and not to %s, where everybody would then count as "
            "not logged in: set SESSION_COOKIE_PATH to /, unless a proxy shows all of this server below that path",
            settings.wsgi, path, endpoint,
            extra={"event": "cookie_path", "reason": path},
        )  # fmt: skip


def _secret_key(settings: Settings, mounted: WSGIApplication | None) -> str:
    """The key for our own application and for control tokens; a mounted Flask application's where none is set."""
    secret: str | bytes | None = settings.secret_key
    if (theirs := flask_within(mounted)) is not None:
        if not theirs.secret_key:
            raise CannotStart(f"the mounted application {settings.wsgi} has no secret key; set its SECRET_KEY")
        secret = secret or theirs.secret_key
    if settings.wsgi is not None:
        secret = secret or os.environ.get("SECRET_KEY")  # which its import may have set
    if not secret:
        raise CannotStart(f"a secret key is needed to sign sessions: set SECRET_KEY; to make one: {MAKE_A_SECRET}")
    if len(secret) < WEAK_SECRET:
        log.warning(
            "the secret key is weak, fewer than %d characters; to make one: %s", WEAK_SECRET, MAKE_A_SECRET,
            extra={"event": "weak_secret"},
        )  # fmt: skip
    return secret if isinstance(secret, str) else secret.decode("latin-1")


def _open_database(settings: Settings, mounted: WSGIApplication | None, *, make: bool) -> Database:
    """The database, checked and for reading only; our own is made before, with ``make``, if it is not there."""
    database = _named_database(settings, mounted)
    ours = settings.database_url is None and settings.wsgi is None
    try:
        if ours and make:
            _make_database(DEFAULT_DATABASE_URL)
        if make or not ours or (database.path is not None and database.path.exists()):
            database.check()
        if make and (statement := database.missing_index()) is not None:
            log.warning(
                "each join looks through all memberships for want of an index; to make it: %s;", statement,
                extra={"event": "index_missing"},
            )  # fmt: skip
    except DatabaseUnavailable as error:
        database.close()
        raise CannotStart(str(error)) from error
    return database


def _named_database(settings: Settings, mounted: WSGIApplication | None) -> Database:
    """The database that the settings name, or else the mounted application, or else neither: then it is our own."""
    url: str | URL | None = settings.database_url
    try:
        if url is None and (theirs := flask_within(mounted)) is not None:
            url = database_url(theirs)
        if url is None and settings.wsgi is not None:
            url = os.environ.get("DATABASE_URL")  # which its import may have set
        if not url and settings.wsgi is not None:
            raise CannotStart(
                f"no database: the mounted application {settings.wsgi} names none in SQLALCHEMY_DATABASE_URI, and "
                "DATABASE_URL is not set; set --database-url"
            )
        return Database(
            url or DEFAULT_DATABASE_URL, read_only=True, pool_size=settings.threads,
            statement_timeout=settings.check_timeout, theirs=settings.wsgi is not None,
        )  # fmt: skip
    except (InvalidDatabaseURL, ArgumentError) as error:
        cause = error if isinstance(error, InvalidDatabaseURL) else "it is no database URL"
        raise CannotStart(f"the database of {settings.wsgi} cannot be used: {cause}; set --database-url") from error


def _backplane(settings: Settings) -> MemoryBackplane | RedisBackplane:
    """What the nodes share, known to answer; a memory of this process's own where there is only one."""
    if settings.redis_url is None:
        return MemoryBackplane(entries=settings.history_entries)
    try:
        from automoderate.backplane.redis import RedisBackplane
    except ModuleNotFoundError as error:
        raise CannotStart(f'--redis-url needs {error.name}: pip install "automoderate[redis]"') from error
    backplane = RedisBackplane(
        settings.redis_url, entries=settings.history_entries, channel=settings.redis_channel, name=_node_name(settings)
    )
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


def cannot_listen(error: OSError) -> str:
    """Why the server cannot listen there, in one line that names the fix."""
    why = error.strerror or str(error)
    return why.replace(os.strerror(errno.EADDRINUSE), "the port is taken; choose another with --port")


def _client_files() -> dict[str, StaticFile]:
    """The client for browsers, at the addresses where the reference server has it. The package may be without it."""
    names = {
        "socket.io.js": "socket.io.min.js",
        "socket.io.min.js": "socket.io.min.js",
        "socket.io.esm.min.js": "socket.io.esm.min.js",
    }
    found = {name: CLIENT_FOLDER / file for name, file in names.items() if (CLIENT_FOLDER / file).is_file()}
    return {
        f"/socket.io/{name}": StaticFile(file.read_bytes(), "application/javascript; charset=utf-8")
        for name, file in found.items()
    }


def _protocol_config(settings: Settings) -> Config:
    return Config(
        files=_client_files(),
        error_pages=error_pages(),
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
        max_payload=settings.max_payload,
        max_request_body=settings.max_request_body,
        keep_alive=settings.keep_alive,
        connect_timeout=settings.connect_timeout,
        max_pending=max(Config().max_pending, settings.max_connections_per_minute),
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


__all__ = ["Assembly", "CannotStart", "build", "run"]
