"""The publishing API, for programs: JSON in and out, API keys instead of sessions, and what operators ask."""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future
from typing import Any, TypeVar

from flask import Blueprint, Response, jsonify, make_response, request
from itsdangerous import BadData
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from automoderate import payloads
from automoderate.adapters import ServerStopped
from automoderate.dashboard.metrics import exposition
from automoderate.dashboard.services import CONTROL_MAX_AGE, CONTROL_SUBJECT, services
from automoderate.directory import accounts
from automoderate.directory.database import DatabaseUnavailable
from automoderate.realtime import BackplaneUnavailable, NotRunning

log = logging.getLogger(__name__)

MAX_BODY = 256 * 1024
"""Bytes of a request to this API."""

TIMEOUT = 10.0
"""Seconds the real-time server has to take an update."""

T = TypeVar("T")


class ApiError(Exception):
    """An answer other than success: ``code`` is for programs, ``message`` for whoever reads their log."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def is_api(path: str) -> bool:
    """Whether the answers at this path are for programs."""
    return path.startswith("/api/") or path in ("/health", "/readyz", "/metrics")


def create_blueprint() -> Blueprint:
    """The API's routes and error answers; a new blueprint each time, as an application may keep its own handlers."""
    blueprint = Blueprint("api", __name__)
    blueprint.add_url_rule("/api/projects/<project_id>/events", view_func=publish, methods=["POST"])
    blueprint.add_url_rule("/api/access-changes", view_func=access_changes, methods=["POST"])
    blueprint.add_url_rule("/health", view_func=health)
    blueprint.add_url_rule("/readyz", view_func=ready)
    blueprint.add_url_rule("/metrics", view_func=metrics)
    blueprint.register_error_handler(ApiError, _api_error)
    blueprint.register_error_handler(HTTPException, http_error)
    blueprint.register_error_handler(SQLAlchemyError, database_away)
    blueprint.register_error_handler(DatabaseUnavailable, database_away)
    return blueprint


# Routes -------------------------------------------------------------------------------------------------------


def publish(project_id: str) -> Response:
    """Publish one event to the people who watch the project: 202 with its ``event_id``."""
    key = _presented_key()
    if key.project_id != project_id:
        raise ApiError(403, "access_denied", "This API key belongs to another project")
    body = _body()
    event = body.get("event")
    try:
        data = payloads.validate(project_id, event, body.get("data"))
        published = services().realtime.publish(project_id, str(event), data)
    except ValueError as error:
        raise ApiError(400, "invalid_event", str(error)) from None
    return make_response(jsonify(event_id=_await(published)), 202)


def access_changes() -> Response:
    """Make the server look up again who may see what: 202 once it has begun to."""
    commanded = _commanded()
    key = None if commanded else _presented_key()
    body = _body()
    user_id, project_id = _optional_id(body, "user_id"), _optional_id(body, "project_id")
    logged_out = body.get("logged_out", False)
    if not isinstance(logged_out, bool):
        raise ApiError(400, "invalid_request", "logged_out must be true or false")
    if key is not None and (logged_out or project_id != key.project_id):
        raise ApiError(403, "access_denied", "An API key may only announce changes of its own project")
    realtime = services().realtime
    if logged_out:
        if user_id is None:
            raise ApiError(400, "invalid_request", "logged_out needs a user_id")
        _await(realtime.logged_out(user_id))
    elif user_id is None and project_id is None:
        raise ApiError(400, "invalid_request", "Name a user_id, a project_id or both")
    else:
        _await(realtime.access_changed(user_id=user_id, project_id=project_id))
    return make_response(jsonify(status="accepted"), 202)


def health() -> Response:
    """The process is alive; says nothing of whether it can do its work."""
    return jsonify(status="healthy", service="AutoModerate")


def ready() -> Response:
    """Whether clients should be sent here: 200, or 503 with what is missing."""
    realtime = services().realtime
    checks = {"database": "ok", "realtime": "ok"}
    if not realtime.running:
        checks["realtime"] = "not running"
    elif realtime.draining:
        checks["realtime"] = "draining"
    elif realtime.deaf:
        checks["realtime"] = "cut off from the other nodes"
    try:
        services().database.ping()
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        log.warning("not ready: %s", error)
        checks["database"] = "unavailable"
    is_ready = all(check == "ok" for check in checks.values())
    answer = jsonify(status="ready" if is_ready else "unavailable", checks=checks)
    return make_response(answer, 200 if is_ready else 503)


def metrics() -> Response:
    """The server's numbers in Prometheus' text format."""
    text, content_type = exposition(services().realtime)
    return Response(text, content_type=content_type)


# Who asks, and for what ---------------------------------------------------------------------------------------


def _presented_key() -> accounts.ApiKeyInfo:
    key = accounts.api_key(services().database, request.headers.get("X-API-Key", ""))
    if key is None:
        raise ApiError(401, "invalid_api_key", "A valid X-API-Key header is needed", {"WWW-Authenticate": "X-API-Key"})
    return key


def _commanded() -> bool:
    """Whether the request carries a control token; a bad one is an error rather than no token."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    try:
        subject = services().control.loads(token.strip(), max_age=CONTROL_MAX_AGE)
    except BadData:
        subject = None
    if subject != CONTROL_SUBJECT:
        raise ApiError(401, "invalid_token", "The token is not valid or has expired", {"WWW-Authenticate": "Bearer"})
    return True


def _body() -> dict[str, Any]:
    """The request's JSON object, whatever its content type says."""
    request.max_content_length = MAX_BODY
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):  # ValueError: not JSON, or not UTF-8
        raise ApiError(400, "invalid_json", "The body must be JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "invalid_json", "The body must be a JSON object")
    return body


def _optional_id(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or (isinstance(value, str) and 0 < len(value) <= 100):
        return value
    raise ApiError(400, "invalid_request", f"{name} must be a string of at most 100 characters")


def _await(accepted: Future[T]) -> T:
    """What the real-time server answers; never a success that it did not report."""
    try:
        return accepted.result(TIMEOUT)
    except BackplaneUnavailable as error:
        log.warning("a publication failed: %s", error)
        raise ApiError(
            503, "unavailable", "The update was not accepted, or nobody knows whether it was", {"Retry-After": "5"}
        ) from None
    except (NotRunning, ServerStopped):
        raise ApiError(
            503, "unavailable", "The real-time server is not running or is shutting down", {"Retry-After": "5"}
        ) from None
    except TimeoutError:
        raise ApiError(
            504, "timeout", "The real-time server did not answer in time; this may have happened or not"
        ) from None


# Errors -------------------------------------------------------------------------------------------------------


def _error(status: int, code: str, message: str) -> Response:
    return make_response(jsonify(error={"message": message, "code": code}), status)


def _api_error(error: ApiError) -> Response:
    response = _error(error.status, error.code, error.message)
    response.headers.update(error.headers)
    return response


def http_error(error: HTTPException) -> Response:
    """Any HTTP error as JSON, with the headers that belong to it."""
    if isinstance(error, RequestEntityTooLarge):
        return _error(413, "too_large", f"The body may have at most {MAX_BODY} bytes")
    status = error.code or 500
    response = _error(status, error.name.lower().replace(" ", "_"), error.description or error.name)
    response.headers.extend((name, value) for name, value in error.get_headers() if name in ("Allow", "Retry-After"))
    return response


def database_away(error: Exception) -> Response:
    """The database failed; details are for the log."""
    log.error("%s %r failed: %s", request.method, request.path, error)
    response = _error(503, "unavailable", "The database cannot be reached")
    response.headers["Retry-After"] = "5"
    return response
