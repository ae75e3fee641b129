"""The publishing API: what programs are answered, and that success is never claimed without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dashboard_world import SECRET_KEY, World, csrf_token, log_in
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, TestResponse

from automoderate.backplane import redis
from automoderate.dashboard import api, create_api_app
from automoderate.dashboard.services import CONTROL_SUBJECT, control_serializer
from automoderate.directory import accounts

UPDATE = {"event": "moderation_update", "data": {"content_id": "c1", "status": "approved"}}


def _publish(
    world: World, body: Any = UPDATE, *, project_id: str | None = None, key: str | None = None, **more: Any
) -> TestResponse:
    headers = {"X-API-Key": world.key if key is None else key}
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = f"/api/projects/{world.project.id if project_id is None else project_id}/events"
    return world.app.test_client().post(path, data=sent, headers=headers, **more)


def _failed(answer: TestResponse) -> tuple[int, str]:
    assert answer.mimetype == "application/json"
    error = answer.json["error"]  # type: ignore[index]
    assert set(error) == {"message", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return answer.status_code, error["code"]


def test_publishing_answers_the_event_id(world: World) -> None:
    answer = _publish(world)
    assert answer.status_code == 202
    assert answer.json == {"event_id": "1768473000000-0"}
    data = {"content_id": "c1", "status": "approved", "project_id": world.project.id}
    assert world.server.published == [(world.project.id, "moderation_update", data)]


@pytest.mark.parametrize("event", ["content_received", "stats_update", "rule_update"])
def test_the_other_events_may_be_published_too(world: World, event: str) -> None:
    assert _publish(world, {"event": event, "data": {"any": ["thing", 1]}}).status_code == 202
    assert world.server.published[0][1] == event


def test_the_content_type_does_not_matter(world: World) -> None:
    assert _publish(world, content_type="text/plain").status_code == 202


def test_without_a_valid_key_nothing_is_published(world: World) -> None:
    revoked = accounts.create_api_key(world.database, world.project.id, "old").key
    accounts.revoke_api_key(world.database, revoked)
    for key in ("", "am_wrong", world.key + "x", world.key.upper(), revoked, "\xe4", "' OR 1=1 --"):
        answer = _publish(world, key=key)
        assert _failed(answer) == (401, "invalid_api_key")
        assert "WWW-Authenticate" in answer.headers
    assert world.server.published == []


def test_a_login_is_no_key(world: World) -> None:
    answer = world.logged_in(world.owner).post(f"/api/projects/{world.project.id}/events", json=UPDATE)
    assert _failed(answer) == (401, "invalid_api_key")


def test_a_key_is_for_its_own_project(world: World) -> None:
    for project_id in (world.other_project.id, "no-such-project"):
        assert _failed(_publish(world, project_id=project_id)) == (403, "access_denied")
    assert world.server.published == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"1" * 5000, "invalid_json"),
        ([], "invalid_json"),
        ("text", "invalid_json"),
        ({}, "invalid_event"),
        ({"event": "moderation_update"}, "invalid_event"),
        ({"event": "connected", "data": {}}, "invalid_event"),
        ({"event": ["moderation_update"], "data": {}}, "invalid_event"),
        ({"event": "moderation_update", "data": []}, "invalid_event"),
        ({"event": "moderation_update", "data": {"status": "great"}}, "invalid_event"),
        ({"event": "moderation_update", "data": {"project_id": "another"}}, "invalid_event"),
        (b'{"event": "stats_update", "data": {"x": NaN}}', "invalid_event"),
        (b'{"event": "stats_update", "data": {"x": 1e999}}', "invalid_event"),
        (b'{"event": "stats_update", "data": {"x": "\\ud800"}}', "invalid_event"),
    ],
)
def test_a_bad_body_is_explained(world: World, body: Any, code: str) -> None:
    assert _failed(_publish(world, body)) == (400, code)
    assert world.server.published == []


def test_the_largest_body_is_taken_and_a_larger_one_is_not(world: World) -> None:
    frame = len(json.dumps({"event": "stats_update", "data": {"x": ""}}))
    body = {"event": "stats_update", "data": {"x": "y" * (api.MAX_BODY - frame)}}
    assert _publish(world, body).status_code == 202
    body["data"] = {"x": "y" * (api.MAX_BODY - frame + 1)}
    assert _failed(_publish(world, body)) == (413, "too_large")


def test_a_server_that_does_not_run_is_never_success(world: World) -> None:
    world.realtime.unbind()
    answer = _publish(world)
    assert _failed(answer) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "5"
    world.bind()
    world.server.draining = True
    assert _failed(_publish(world)) == (503, "unavailable")
    world.handle.stopped = True
    assert _failed(_publish(world)) == (503, "unavailable")


@pytest.fixture
def cut_off(world: World, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One of several nodes, whose Redis is away."""
    monkeypatch.setattr(redis, "PATIENCE", 0.0)
    world.realtime.unbind()
    world.server.backplane = redis.RedisBackplane(f"redis://127.0.0.1:{closed_port}/0")
    world.bind()
    yield world
    world.realtime.unbind()


def test_a_node_that_is_cut_off_from_the_others_claims_no_success(cut_off: World) -> None:
    answer = _publish(cut_off)
    assert _failed(answer) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "5"
    announced = _announce(cut_off, {"user_id": "u1", "logged_out": True}, Authorization=_token())
    assert _failed(announced) == (503, "unavailable")
    assert cut_off.server.logged_out_users == ["u1"]  # its own sessions end all the same


def test_a_node_that_is_cut_off_from_the_others_is_not_ready(cut_off: World, client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = {"database": "ok", "realtime": "cut off from the other nodes"}
    assert answer.json == {"status": "unavailable", "checks": checks}
    assert client.get("/health").status_code == 200
    assert _metrics(client)["automoderate_backplane_up"] == ("gauge", 0)


def test_a_server_that_does_not_answer_is_never_success(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "TIMEOUT", 0.01)
    world.handle.stuck = True
    assert _failed(_publish(world)) == (504, "timeout")


def test_a_database_that_is_away_is_never_success(world: World) -> None:
    assert world.database.path is not None
    world.database.path.rename(world.database.path.with_suffix(".away"))
    world.app.extensions["automoderate"].database.close()
    answer = _publish(world)
    assert _failed(answer) == (503, "unavailable")
    assert "away" not in answer.text
    assert world.server.published == []


def test_a_path_cannot_add_lines_to_the_log(
    world: World, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert world.database.path is not None
    world.database.path.rename(world.database.path.with_suffix(".away"))
    world.app.extensions["automoderate"].database.close()
    assert client.post("/api/projects/x%0AERROR all is lost/events").status_code == 503
    assert "\nERROR" not in caplog.text
    assert "x\\nERROR" in caplog.text


def test_wrong_addresses_and_methods_are_json_too(world: World, client: FlaskClient) -> None:
    assert _failed(client.get("/api/nope")) == (404, "not_found")
    answer = client.get(f"/api/projects/{world.project.id}/events")
    assert _failed(answer) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_a_bug_is_a_plain_500(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(accounts, "api_key", fail)
    answer = _publish(world)
    assert _failed(answer) == (500, "internal_server_error")
    assert "secret" not in answer.text


# Access changes -----------------------------------------------------------------------------------------------


def _announce(world: World, body: Any, **headers: str) -> TestResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.app.test_client().post("/api/access-changes", json=body, headers=names)


def _token(subject: str = CONTROL_SUBJECT, secret_key: str = SECRET_KEY) -> str:
    signed = control_serializer(secret_key).dumps(subject)
    return f"Bearer {signed if isinstance(signed, str) else signed.decode()}"


def test_a_key_announces_changes_of_its_project(world: World) -> None:
    assert _announce(world, {"project_id": world.project.id}, X_API_Key=world.key).status_code == 202
    both = {"project_id": world.project.id, "user_id": "u1"}
    assert _announce(world, both, X_API_Key=world.key).status_code == 202
    assert world.server.announced == [(None, world.project.id), ("u1", world.project.id)]


def test_a_key_announces_nothing_else(world: World) -> None:
    bodies: list[dict[str, Any]] = [
        {}, {"user_id": "u1"}, {"project_id": world.other_project.id}, {"user_id": "u1", "logged_out": True},
        {"user_id": "u1", "project_id": world.project.id, "logged_out": True},
    ]  # fmt: skip
    for body in bodies:
        assert _failed(_announce(world, body, X_API_Key=world.key)) == (403, "access_denied")
    assert _failed(_announce(world, {"project_id": world.project.id}, X_API_Key="am_no")) == (401, "invalid_api_key")
    assert _failed(_announce(world, {"project_id": world.project.id})) == (401, "invalid_api_key")
    assert world.server.announced == []
    assert world.server.logged_out_users == []


def test_the_holder_of_the_secret_announces_anything(world: World) -> None:
    assert _announce(world, {"user_id": "u1"}, Authorization=_token()).status_code == 202
    assert _announce(world, {"project_id": "p1"}, Authorization=_token()).status_code == 202
    assert _announce(world, {"user_id": "u2", "logged_out": True}, Authorization=_token()).status_code == 202
    assert world.server.announced == [("u1", None), (None, "p1")]
    assert world.server.logged_out_users == ["u2"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"logged_out": True},
        {"logged_out": 1, "user_id": "u1"},
        {"user_id": 7},
        {"user_id": ""},
        {"project_id": "x" * 101},
        [],
    ],
)
def test_what_is_announced_must_make_sense(world: World, body: Any) -> None:
    assert _failed(_announce(world, body, Authorization=_token()))[0] == 400
    assert world.server.announced == []
    assert world.server.logged_out_users == []


def test_a_bad_token_is_refused_even_beside_a_key(world: World) -> None:
    body = {"project_id": world.project.id}
    for token in ("Bearer ", "Bearer nonsense", _token("something else"), _token(secret_key="another")):
        answer = _announce(world, body, Authorization=token, X_API_Key=world.key)
        assert _failed(answer) == (401, "invalid_token")
    assert world.server.announced == []


def test_a_token_grows_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = _token()
    monkeypatch.setattr(api, "CONTROL_MAX_AGE", -1)
    assert _failed(_announce(world, {"user_id": "u1"}, Authorization=token)) == (401, "invalid_token")


# What operators ask -------------------------------------------------------------------------------------------


def test_health_needs_nothing(world: World, client: FlaskClient) -> None:
    world.realtime.unbind()
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json == {"status": "healthy", "service": "AutoModerate"}


def test_ready_says_what_is_missing(world: World, client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {"status": "ready", "checks": {"database": "ok", "realtime": "ok"}}
    world.server.draining = True
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"status": "unavailable", "checks": {"database": "ok", "realtime": "draining"}}
    world.realtime.unbind()
    assert world.database.path is not None
    world.database.path.rename(world.database.path.with_suffix(".away"))
    world.app.extensions["automoderate"].database.close()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"status": "unavailable", "checks": {"database": "unavailable", "realtime": "not running"}}


def _metrics(client: FlaskClient) -> dict[str, tuple[str, float]]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    return {
        sample.name: (family.type, sample.value)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_the_servers_numbers(world: World, client: FlaskClient) -> None:
    _publish(world)
    assert _metrics(client) == {
        "automoderate_up": ("gauge", 1),
        "automoderate_sessions": ("gauge", 3),
        "automoderate_updates_total": ("counter", 1),
    }


def test_metrics_without_a_server_say_so(world: World, client: FlaskClient) -> None:
    world.handle.stopped = True
    assert _metrics(client) == {"automoderate_up": ("gauge", 0)}
    world.realtime.unbind()
    assert _metrics(client) == {"automoderate_up": ("gauge", 0)}


# Beside another application -----------------------------------------------------------------------------------


@pytest.fixture
def mounted(world: World) -> Client:
    """The API alone below /realtime, and somebody's application everywhere else."""
    alone = create_api_app(world.app.extensions["automoderate"].database, world.realtime, secret_key=SECRET_KEY)
    alone.config["PROPAGATE_EXCEPTIONS"] = False
    return Client(DispatcherMiddleware(Flask("somebody elses"), {"/realtime": alone}))


def test_the_api_works_beside_another_application(world: World, mounted: Client) -> None:
    assert mounted.get("/realtime/health").json == {"status": "healthy", "service": "AutoModerate"}
    assert mounted.get("/realtime/readyz").status_code == 200
    assert "automoderate_up 1.0" in mounted.get("/realtime/metrics").text
    path = f"/realtime/api/projects/{world.project.id}/events"
    assert mounted.post(path, json=UPDATE, headers={"X-API-Key": world.key}).status_code == 202
    assert _failed(mounted.post(path, json=UPDATE)) == (401, "invalid_api_key")
    announced = mounted.post(
        "/realtime/api/access-changes", json={"user_id": "u1"}, headers={"Authorization": _token()}
    )
    assert announced.status_code == 202
    assert mounted.get("/health").status_code == 404


def test_nothing_but_the_api_is_mounted(mounted: Client) -> None:
    for path in ("/realtime/", "/realtime/auth/login", "/realtime/static/live.js"):
        assert _failed(mounted.get(path)) == (404, "not_found")


def test_forms_and_the_api_do_not_get_in_each_others_way(world: World, client: FlaskClient) -> None:
    log_in(client, "olga")
    token = csrf_token(client.get("/"))
    # A page of ours could not publish either: what counts is the key.
    answer = client.post(f"/api/projects/{world.project.id}/events", data={"csrf_token": token})
    assert _failed(answer) == (401, "invalid_api_key")
