"""What goes over HTTP: in which requests, in which order, and what a refusal or a lost answer costs."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from automoderate.notifier import WebSocketNotifier
from automoderate.notifier.http import PublishingApi
from kits import until
from kits.notifiers import CONTENT, counters

Make = Callable[..., WebSocketNotifier]


def send(notifier: WebSocketNotifier, *numbers: int, project: str = "p") -> None:
    for number in numbers:
        notifier.send_stats_update(project, {"number": number})


def published(api: Any) -> list[int]:
    """The numbers of what was accepted, in order."""
    return [event["data"]["number"] for event in api.published]


def sizes(api: Any) -> list[int]:
    """How many events each request had."""
    return [len(posted.events) for posted in api.requests]


def test_all_methods(make: Make, scripted_api: Any) -> None:
    notifier = make(url=scripted_api.url + "/", api_key="am_key")
    notifier.send_content_created({**CONTENT, "project_id": "p/ä"})
    scripted_api.wait_for(1)
    notifier.send_update_async(CONTENT, "approved", [{"moderator_type": "ai"}], 1.5)
    notifier.send_stats_update("p", {"total": 1})
    notifier.send_rule_update("p", {"id": "r"}, "created")
    notifier.access_changed("p", "u")
    notifier.access_changed("p")
    assert notifier.close(60)
    assert counters(notifier) == (6, 0, 0)
    paths = [posted.path for posted in scripted_api.requests]
    assert paths[0] == "/api/projects/p%2F%C3%A4/events"
    assert set(paths[1:-2]) == {"/api/projects/p/events"}
    assert paths[-2:] == ["/api/access-changes"] * 2
    assert {posted.api_key for posted in scripted_api.requests} == {"am_key"}
    assert [posted.body for posted in scripted_api.requests[-2:]] == [
        {"project_id": "p", "user_id": "u"},
        {"project_id": "p"},
    ]
    events = [event for posted in scripted_api.requests[:-2] for event in posted.events]
    assert [event["event"] for event in events] == [
        "content_received",
        "moderation_update",
        "stats_update",
        "rule_update",
    ]
    assert events[1]["data"]["processing_time"] == 1.5
    assert events[2]["data"] == {"total": 1}


# Batches ------------------------------------------------------------------------------------------------------


def test_what_waits_leaves_together_and_one_by_itself_leaves_as_such(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(1)
    send(notifier, *range(1, 40))
    scripted_api.held.set()
    assert notifier.close(60)
    assert sizes(scripted_api) == [1, 39]
    assert "events" not in scripted_api.requests[0].body
    assert published(scripted_api) == [*range(40)]


def test_a_burst_is_not_dropped(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, *range(5000))
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (5000, 0, 0)
    assert published(scripted_api) == [*range(5000)]
    assert max(sizes(scripted_api)) == 1000


def test_a_request_is_no_larger_than_the_server_takes(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key")
    for number in range(8):
        notifier.send_stats_update("p", {"number": number, "text": "x" * 250_000})
    scripted_api.held.set()
    assert notifier.close(60)
    assert published(scripted_api) == [*range(8)]
    assert max(sizes(scripted_api)) > 1
    for posted in scripted_api.requests:
        assert len(json.dumps(posted.body, separators=(",", ":"))) <= 1024 * 1024


def test_a_change_of_access_keeps_its_place(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(1)
    send(notifier, 1, 2)
    notifier.access_changed("p")
    send(notifier, 3, 4)
    scripted_api.held.set()
    assert notifier.close(60)
    assert [posted.path.rpartition("/")[2] for posted in scripted_api.requests] == [
        "events",
        "events",
        "access-changes",
        "events",
    ]
    assert sizes(scripted_api) == [1, 2, 1, 2]


def test_several_projects_have_requests_under_way_and_one_project_has_one(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key={"a": "am_a", "b": "am_b"})
    send(notifier, 0, project="a")
    send(notifier, 1, project="b")
    under_way = scripted_api.wait_for(2)
    assert {posted.api_key for posted in under_way} == {"am_a", "am_b"}
    send(notifier, 2, 3, project="a")
    scripted_api.held.set()
    assert notifier.close(60)
    assert sizes(scripted_api) == [1, 1, 2]


def test_more_projects_than_requests_under_way(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    keys = {f"project-{number}": f"am_{number}" for number in range(20)}
    notifier = make(url=scripted_api.url, api_key=keys)
    for number in range(5):
        for project in keys:
            send(notifier, number, project=project)
    scripted_api.wait_for(4)
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (100, 0, 0)
    for key in keys.values():
        events = [event for posted in scripted_api.requests if posted.api_key == key for event in posted.events]
        assert [event["data"]["number"] for event in events] == [*range(5)]
    assert len([thread for thread in threading.enumerate() if thread.name == "automoderate-notifier"]) <= 4


def test_a_key_for_each_project(make: Make, scripted_api: Any, caplog: pytest.LogCaptureFixture) -> None:
    notifier = make(url=scripted_api.url, api_key={"a": "am_a", "b": "am_b"})
    for project in ("a", "b", "c"):
        send(notifier, 0, project=project)
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 1)
    assert {posted.api_key for posted in scripted_api.requests} == {"am_a", "am_b"}
    assert "there is no API key for this project" in caplog.text


def test_a_key_that_was_exchanged(make: Make, scripted_api: Any) -> None:
    keys = {"p": "am_old"}
    notifier = make(url=scripted_api.url, api_key=keys)
    send(notifier, 0)
    until(lambda: notifier.sent == 1)
    keys["p"] = "am_new"
    send(notifier, 1)
    assert notifier.close(60)
    assert [posted.api_key for posted in scripted_api.requests] == ["am_old", "am_new"]


# Refusals -----------------------------------------------------------------------------------------------------


def test_order_is_kept_through_failures(make: Make, scripted_api: Any) -> None:
    scripted_api.answers = [(503, {"error": "draining"}), None, (429, ""), (502, "<html>"), None]
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, *range(5))
    assert notifier.close(60)
    assert counters(notifier) == (5, 0, 0)
    assert published(scripted_api) == [0, 1, 2, 3, 4]
    assert len(scripted_api.requests) > 5


def test_a_pause_is_as_long_as_the_server_asks_for(make: Make, scripted_api: Any) -> None:
    scripted_api.answers = [(429, {}, {"Retry-After": "1"})]
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    assert notifier.close(60)
    first, second = scripted_api.requests
    assert second.at - first.at >= 1.0


def test_a_pause_is_no_longer_than_an_update_may_wait(make: Make, scripted_api: Any) -> None:
    scripted_api.answers = [(429, {}, {"Retry-After": "3600"})]
    notifier = make(url=scripted_api.url, api_key="am_key", retry_for=0.05)
    send(notifier, 0)
    until(lambda: notifier.failed == 1)
    send(notifier, 1)
    assert notifier.close(60)
    assert published(scripted_api) == [1]


def test_one_that_is_refused_is_not_tried_again(
    make: Make, scripted_api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_api.answers = [(401, {"error": {"message": "no such key"}}), (413, "too large")]
    notifier = make(url=scripted_api.url, api_key="am_key")
    for number in range(3):
        send(notifier, number)
        until(lambda: sum(counters(notifier)) == number + 1)  # noqa: B023 - called at once
    assert counters(notifier) == (1, 0, 2)
    assert len(scripted_api.requests) == 3
    assert "no such key" in caplog.text
    assert "413" in caplog.text


def refusing(bad: set[int], status: int, *, named: bool) -> Callable[[list[Any]], tuple[int, Any] | None]:
    """Refuses a request with one of these numbers in it, and names its place or does not."""

    def refusal(events: list[Any]) -> tuple[int, Any] | None:
        for place, event in enumerate(events, 1):
            if event["data"]["number"] in bad:
                return status, {"error": {"message": "bad event", **({"event": place} if named else {})}}
        return None

    return refusal


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("status", [400, 413, 500])
@pytest.mark.parametrize(
    "bad", [{5}, {1}, {99}, {1, 2, 3}, {40, 41, 77}, {*range(1, 100)}], ids=lambda bad: f"{min(bad)}+{len(bad) - 1}"
)
def test_what_the_server_refuses_takes_nothing_else_with_it(
    make: Make, scripted_api: Any, bad: set[int], status: int, named: bool
) -> None:
    scripted_api.held.clear()
    scripted_api.refusal = refusing(bad, status, named=named)
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(1)
    send(notifier, *range(1, 100))
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (100 - len(bad), 0, len(bad))
    assert published(scripted_api) == [number for number in range(100) if number not in bad]
    assert len(scripted_api.requests) <= 2 + 3 * 7 * len(bad), "about the logarithm of the batch"


@pytest.mark.parametrize("status", [401, 403, 404, 302, 200])
def test_a_refusal_that_is_about_none_of_them_ends_all(make: Make, scripted_api: Any, status: int) -> None:
    scripted_api.held.clear()
    scripted_api.missing = None
    notifier = make(url=scripted_api.url + "/realtime", api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(1)
    scripted_api.refusal = lambda _events: (status, {"error": {"message": "no"}})
    send(notifier, *range(1, 100))
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (1, 0, 99)
    assert sizes(scripted_api) == [1, 99]


def test_a_server_that_knows_no_batches(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    scripted_api.refusal = lambda events: (400, {"error": "event must be a string"}) if len(events) > 1 else None
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, *range(50))
    scripted_api.held.set()
    assert notifier.close(60)
    assert published(scripted_api) == [*range(50)]


def test_it_finds_the_api_beside_a_mounted_application(make: Make, scripted_api: Any) -> None:
    scripted_api.missing = "/api/"
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(2)
    send(notifier, 1)
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 0)
    places = [posted.path.removesuffix("/api/projects/p/events") for posted in scripted_api.requests]
    assert places == ["", "/realtime", "/realtime"]  # it remembers


def test_a_logout_is_refused_at_once(make: Make, scripted_api: Any, caplog: pytest.LogCaptureFixture) -> None:
    notifier = make(url=scripted_api.url, api_key="am_key")
    notifier.logged_out("u")
    assert counters(notifier) == (0, 0, 1)
    assert caplog.messages == [
        "could not send logout of user u: no API key may end a user's sessions; it takes realtime= or redis_url="
    ]
    assert notifier.close(60)
    assert scripted_api.requests == []


def test_what_json_cannot_say_is_refused_at_once(make: Make, scripted_api: Any) -> None:
    notifier = make(url=scripted_api.url, api_key="am_key")
    notifier.send_update_async({**CONTENT, "meta_data": {"score": float("nan")}}, "approved", [], 0)
    assert notifier.close(60)
    assert sum(counters(notifier)) == 1


# Lost answers -------------------------------------------------------------------------------------------------


def history(*numbers: int) -> tuple[int, Any]:
    """The history as the server tells it: with ids, and the project where there was none."""
    events = [
        {"event": "stats_update", "data": {"number": number, "project_id": "p", "event_id": f"5-{number}"}}
        for number in numbers
    ]
    return 200, {"events": events, "complete": True, "last_event_id": "5-9"}


def lose_an_answer(notifier: WebSocketNotifier, api: Any, *numbers: int) -> None:
    """Publish 0, and then the numbers at a time, whose answer does not come."""
    api.held.clear()
    send(notifier, 0)
    api.wait_for(1)
    api.answers = [None]
    send(notifier, *numbers)
    api.held.set()


def test_what_was_published_though_the_answer_was_lost_is_not_published_twice(make: Make, scripted_api: Any) -> None:
    scripted_api.history = history(7, 1, 2, 8)  # and by others
    notifier = make(url=scripted_api.url, api_key="am_key")
    lose_an_answer(notifier, scripted_api, 1, 2)
    until(lambda: notifier.sent == 3)
    assert sizes(scripted_api) == [1, 2]
    assert scripted_api.asked == ["/api/projects/p/events?after=1-1&limit=1000"]
    send(notifier, 3)  # which nobody doubts
    assert notifier.close(60)
    assert published(scripted_api) == [0, 3]
    assert len(scripted_api.asked) == 1


def test_an_id_that_came_with_an_update_is_none_of_it(make: Make, scripted_api: Any) -> None:
    """The server gives each another; what was heard of one server may be passed on to the next."""
    scripted_api.history = history(1)
    notifier = make(url=scripted_api.url, api_key="am_key")
    lose_an_answer(notifier, scripted_api)
    notifier.send_stats_update("p", {"number": 1, "event_id": "4-4"})
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 0)
    assert published(scripted_api) == [0]


def test_where_the_page_ends_the_beginning_is_enough(make: Make, scripted_api: Any) -> None:
    scripted_api.history = history(*range(1000, 1999), 1)
    notifier = make(url=scripted_api.url, api_key="am_key")
    lose_an_answer(notifier, scripted_api, 1, 2)
    assert notifier.close(60)
    assert published(scripted_api) == [0]
    assert counters(notifier) == (3, 0, 0)


@pytest.mark.parametrize(
    "told",
    [
        history(),
        history(1),
        history(2, 1),
        (405, "an old server"),
        (200, "<html>"),
        (200, {"events": [None, {"event": "stats_update"}, {"data": {}}]}),
    ],
)
def test_what_was_not_published_is_sent_again(make: Make, scripted_api: Any, told: tuple[int, Any]) -> None:
    scripted_api.history = told
    notifier = make(url=scripted_api.url, api_key="am_key")
    lose_an_answer(notifier, scripted_api, 1, 2)
    assert notifier.close(60)
    assert published(scripted_api) == [0, 1, 2]
    assert counters(notifier) == (3, 0, 0)


def test_nothing_is_sent_again_before_it_is_known_whether_it_has_to_be(make: Make, scripted_api: Any) -> None:
    scripted_api.history = 503, {}
    notifier = make(url=scripted_api.url, api_key="am_key")
    lose_an_answer(notifier, scripted_api, 1, 2)
    until(lambda: len(scripted_api.asked) > 2)
    assert sizes(scripted_api) == [1, 2]
    scripted_api.history = history(1, 2)
    assert notifier.close(60)
    assert sizes(scripted_api) == [1, 2]


def test_a_server_that_was_busy_has_taken_nothing(make: Make, scripted_api: Any) -> None:
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    until(lambda: notifier.sent == 1)
    scripted_api.answers = [(429, "")]
    send(notifier, 1)
    assert notifier.close(60)
    assert scripted_api.asked == []


# Giving up ----------------------------------------------------------------------------------------------------


def test_a_server_that_stays_away_is_given_up_on(
    make: Make, closed_port: int, caplog: pytest.LogCaptureFixture, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []
    publish_all = PublishingApi.publish_all

    def counted(api: PublishingApi, project_id: str, events: list[bytes], api_key: str) -> list[str]:
        attempts.append(project_id)
        return publish_all(api, project_id, events, api_key)

    monkeypatch.setattr(PublishingApi, "publish_all", counted)
    notifier = make(url=f"http://127.0.0.1:{closed_port}", api_key="am_key", retry_for=30)
    send(notifier, 0)
    until(lambda: len(attempts) > 2)
    clock[0] = 30.0
    until(lambda: notifier.failed == 1)
    assert "Connection refused" in caplog.text


def test_what_waited_too_long_is_not_sent_late(make: Make, scripted_api: Any, clock: list[float]) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key", retry_for=30)
    send(notifier, 0)
    scripted_api.wait_for(1)
    send(notifier, 1)
    clock[0] = 20.0
    send(notifier, 2)
    clock[0] = 30.0
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 1)
    assert published(scripted_api) == [0, 2]


def test_without_time_to_try_again_each_is_tried_once(make: Make, scripted_api: Any) -> None:
    scripted_api.answers = [(202, {}), (503, ""), (202, {}), (202, {})]
    notifier = make(url=scripted_api.url, api_key="am_key", retry_for=0)
    for number in range(4):
        send(notifier, number)
        until(lambda: sum(counters(notifier)) == number + 1)  # noqa: B023 - called at once
    assert counters(notifier) == (3, 0, 1)
    assert sizes(scripted_api) == [1, 1, 1, 1]


def test_a_closed_notifier_sends_nothing_any_more(make: Make, scripted_api: Any) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(1)
    send(notifier, 1, 2)
    assert not notifier.close(0)
    assert counters(notifier) == (0, 0, 3)
    scripted_api.held.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "automoderate-notifier"])
    assert published(scripted_api) == [0]
    assert counters(notifier) == (0, 0, 3)


def test_one_that_nobody_holds_sends_what_waits_and_ends(scripted_api: Any) -> None:
    """Pipelines make one for each content, too."""
    others = {*threading.enumerate()}
    scripted_api.held.clear()
    for number in range(3):
        send(WebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=60), number)
    scripted_api.wait_for(3)
    gc.collect()
    senders = [thread for thread in {*threading.enumerate()} - others if thread.name == "automoderate-notifier"]
    assert len(senders) == 3
    scripted_api.held.set()
    until(lambda: not any(sender.is_alive() for sender in senders))
    assert sorted(published(scripted_api)) == [0, 1, 2]


# What never should happen -------------------------------------------------------------------------------------


def test_a_thread_that_cannot_start_is_started_with_the_next_update(
    make: Make, scripted_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_threads(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    notifier = make(url=scripted_api.url, api_key={"p": "am_p", "q": "am_q"})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        send(notifier, 0)
    scripted_api.held.clear()
    send(notifier, 1)
    scripted_api.wait_for(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        send(notifier, 2, project="q")  # which has to wait for the one thread there is
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 1)
    assert published(scripted_api) == [1, 2]


def test_an_unexpected_failure_does_not_end_the_thread(
    make: Make, scripted_api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def broken(_api: object, _project_id: str, events: list[bytes], _api_key: str) -> list[str]:
        calls.extend(events)
        raise ZeroDivisionError

    monkeypatch.setattr(PublishingApi, "publish_all", broken)
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    until(lambda: notifier.failed == 1)
    send(notifier, 1)
    assert notifier.close(60)
    assert len(calls) == 2
    assert counters(notifier) == (0, 0, 2)
    assert caplog.text.count("unexpected failure") == 2


@pytest.mark.parametrize("told", [{}, {"event_ids": ["1-1"]}, {"event_ids": "1-1"}])
def test_an_acceptance_without_ids_is_one(make: Make, scripted_api: Any, told: Mapping[str, Any]) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key")
    send(notifier, 0)
    scripted_api.wait_for(1)
    scripted_api.answers = [(202, told)]
    send(notifier, 1, 2)
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (3, 0, 0)
