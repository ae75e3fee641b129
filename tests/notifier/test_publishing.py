"""What a caller of the publishing API is told when something is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests

from automoderate.notifier.http import PublishingApi, PublishingError, Refused, Unreachable, reason


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (401, {"error": "no such key"}, r"refused \(401\): no such key"),
        (403, {"message": "another project's"}, r"refused \(403\): another project's"),
        (400, {"error": {"message": "bad event", "code": "x"}}, r"refused \(400\): bad event"),
        (400, ["a list"], "answered 400 Bad Request"),
        (500, "<html>", "answered 500 Internal Server Error"),
        (302, "", "answered 302, it is at https://elsewhere.example/"),
        (200, "<html>a page</html>", r"there is no publishing API at .* \(it answered 200\)"),
    ],
)
def test_a_refusal_says_what_is_wrong(scripted_api: Any, status: int, said: Any, message: str) -> None:
    scripted_api.answers = [(status, said)]
    with PublishingApi(scripted_api.url, timeout=60) as api, pytest.raises(Refused, match=message) as refused:
        api.publish("p", "stats_update", {}, "am_key")
    assert refused.value.status == status
    assert len(scripted_api.requests) == 1


@pytest.mark.parametrize("suffix", ["", "/realtime"])
def test_no_api_anywhere(scripted_api: Any, suffix: str) -> None:
    scripted_api.missing = "/"
    with PublishingApi(scripted_api.url + suffix) as api, pytest.raises(Refused, match="no publishing API"):
        api.publish("p", "stats_update", {}, "am_key")
    assert [posted.path for posted in scripted_api.requests][-1] == "/realtime/api/projects/p/events"
    assert len(scripted_api.requests) == (1 if suffix else 2)


@pytest.mark.parametrize(("status", "temporary"), [(503, True), (429, True), (502, True), (500, False), (401, False)])
def test_what_is_worth_another_try(status: int, temporary: bool) -> None:
    assert Refused("", status).temporary is temporary


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99999999999999999999 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_how_much_later_the_server_wants_it(scripted_api: Any, value: str, seconds: float) -> None:
    scripted_api.answers = [(429, "", {"Retry-After": value})]
    with PublishingApi(scripted_api.url, timeout=60) as api, pytest.raises(Refused) as refused:
        api.publish("p", "stats_update", {}, "am_key")
    assert refused.value.retry_after == seconds


def test_how_much_later_a_date_is(scripted_api: Any) -> None:
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    scripted_api.answers = [(429, "", {"Retry-After": tomorrow})]
    with PublishingApi(scripted_api.url, timeout=60) as api, pytest.raises(Refused) as refused:
        api.publish("p", "stats_update", {}, "am_key")
    assert refused.value.retry_after == pytest.approx(86_400.0, abs=600)


@pytest.mark.parametrize(("said", "event"), [({"event": 3}, 3), ({"event": "3"}, None), ({}, None), ("no", None)])
def test_which_of_several_events_was_refused(scripted_api: Any, said: Any, event: int | None) -> None:
    scripted_api.answers = [(400, {"error": said})]
    with PublishingApi(scripted_api.url, timeout=60) as api, pytest.raises(Refused) as refused:
        api.publish_all("p", [b"{}", b"{}", b"{}"], "am_key")
    assert refused.value.event == event


def test_an_answer_that_nobody_could_read_is_one_without_words(scripted_api: Any) -> None:
    scripted_api.answers = [(503, "[" * 100_000)]
    with PublishingApi(scripted_api.url, timeout=60) as api, pytest.raises(Refused, match="answered 503"):
        api.publish("p", "stats_update", {}, "am_key")


def test_nobody_listens(closed_port: int) -> None:
    message = f"cannot reach http://127.0.0.1:{closed_port}: Connection refused"
    with PublishingApi(f"http://127.0.0.1:{closed_port}/") as api, pytest.raises(Unreachable, match=message):
        api.publish("p", "stats_update", {}, "am_key")


def test_an_answer_that_does_not_come(scripted_api: Any) -> None:
    scripted_api.held.clear()
    with PublishingApi(scripted_api.url, timeout=0.05) as api, pytest.raises(Unreachable, match="no answer in time"):
        api.access_changed("am_key", project_id="p")


def test_an_answer_that_breaks_off(scripted_api: Any) -> None:
    scripted_api.answers = [None]
    with PublishingApi(scripted_api.url, timeout=60) as api, pytest.raises(PublishingError, match="without response"):
        api.publish("p", "stats_update", {}, "am_key")


def test_an_error_without_words() -> None:
    assert reason(requests.RequestException()) == "RequestException"
