"""The notifier: in this process, over HTTP, when the server is away, when it is closed, and across a fork."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from notifier_kit import CONTENT, Here, counters

from automoderate import _delivery as delivery_module
from automoderate.notifier import WebSocketNotifier
from automoderate.publishing import PublishingApi


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to do."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def make() -> Iterator[Callable[..., WebSocketNotifier]]:
    """Make notifiers, and close them."""
    made: list[WebSocketNotifier] = []

    def make(**options: Any) -> WebSocketNotifier:
        made.append(WebSocketNotifier(**{"timeout": 60, **options}))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The notifier's clock: one number, which only the test changes."""
    now = [0.0]
    monkeypatch.setattr(delivery_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_all_methods_in_this_process(make: Callable[..., WebSocketNotifier]) -> None:
    here = Here()
    notifier = make(realtime=here)
    notifier.send_content_created(CONTENT)
    notifier.send_update_async(CONTENT, "approved", [{"moderator_type": "ai"}], 1.5)
    notifier.send_stats_update("p", {"total": 1})
    notifier.send_rule_update("p", {"id": "r"})
    notifier.send_rule_update("p", {"id": "r"}, action="deleted")
    notifier.access_changed("p")
    notifier.access_changed("p", user_id="u")
    notifier.logged_out(7)
    assert [call[:2] for call in here.calls] == [
        ("p", "content_received"),
        ("p", "moderation_update"),
        ("p", "stats_update"),
        ("p", "rule_update"),
        ("p", "rule_update"),
        ("access_changed", None),
        ("access_changed", "u"),
        ("logged_out", "7"),
    ]
    assert here.calls[1][2]["moderator_name"] == "AI"
    assert here.calls[2][2] == {"total": 1}
    assert [call[2]["action"] for call in here.calls[3:5]] == ["updated", "deleted"]
    assert here.calls[6] == ("access_changed", "u", "p")
    assert counters(notifier) == (0, 0, 0)
    for future in here.futures:
        future.set_result("1-1")
    assert counters(notifier) == (8, 0, 0)
    assert notifier.close()


def test_a_failure_in_this_process_is_counted_and_logged(
    make: Callable[..., WebSocketNotifier], caplog: pytest.LogCaptureFixture
) -> None:
    here = Here()
    notifier = make(realtime=here)
    notifier.send_update_async(CONTENT, "approved", [], 0)
    notifier.send_update_async(CONTENT, "approved", [], 0)
    here.futures[0].set_exception(RuntimeError("not running"))
    assert here.futures[1].cancel()
    assert counters(notifier) == (0, 0, 2)
    assert "could not send moderation_update of project p: not running" in caplog.text
    assert "cancelled" in caplog.text


def test_a_server_in_this_process_that_raises(
    make: Callable[..., WebSocketNotifier], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Here):
        def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> Future[str]:
            raise RuntimeError("no loop")

        def logged_out(self, user_id: str) -> Any:
            return None

    notifier = make(realtime=Broken())
    notifier.send_update_async(CONTENT, "approved", [], 0)
    notifier.logged_out("u")
    assert counters(notifier) == (0, 0, 2)
    assert "no loop" in caplog.text
    assert "could not send logout of user u" in caplog.text
    assert notifier.close(0)


def test_a_loop_that_does_not_keep_up_bounds_what_waits(make: Callable[..., WebSocketNotifier]) -> None:
    here = Here()
    notifier = make(realtime=here, queue_size=2)
    for _ in range(5):
        notifier.send_content_created(CONTENT)
    assert len(here.calls) == 2
    here.futures[0].set_result("1-1")
    notifier.send_content_created(CONTENT)
    assert (len(here.calls), counters(notifier)) == (3, (1, 3, 0))


def test_all_methods_over_http(make: Callable[..., WebSocketNotifier], scripted_api: Any) -> None:
    notifier = make(url=scripted_api.url + "/", api_key="am_key")
    notifier.send_content_created({**CONTENT, "project_id": "p/ä"})
    notifier.send_update_async(CONTENT, "approved", [{"moderator_type": "ai"}], 1.5)
    notifier.send_stats_update("p", {"total": 1})
    notifier.send_rule_update("p", {"id": "r"}, "created")
    notifier.access_changed("p", "u")
    notifier.access_changed("p")
    assert notifier.close(60)
    assert counters(notifier) == (6, 0, 0)
    assert [posted.path for posted in scripted_api.requests] == [
        "/api/projects/p%2F%C3%A4/events",
        "/api/projects/p/events",
        "/api/projects/p/events",
        "/api/projects/p/events",
        "/api/access-changes",
        "/api/access-changes",
    ]
    assert {posted.api_key for posted in scripted_api.requests} == {"am_key"}
    bodies = [posted.body for posted in scripted_api.requests]
    assert [body.get("event") for body in bodies[:4]] == [
        "content_received",
        "moderation_update",
        "stats_update",
        "rule_update",
    ]
    assert bodies[1]["data"]["processing_time"] == 1.5
    assert bodies[2]["data"] == {"total": 1}
    assert bodies[4:] == [{"project_id": "p", "user_id": "u"}, {"project_id": "p"}]


def test_order_is_kept_through_failures(make: Callable[..., WebSocketNotifier], scripted_api: Any) -> None:
    scripted_api.answers = [(503, {"error": "draining"}), None, (429, ""), (502, "<html>"), None]
    notifier = make(url=scripted_api.url, api_key="am_key")
    for number in range(5):
        notifier.send_stats_update("p", {"number": number})
    assert notifier.close(60)
    assert counters(notifier) == (5, 0, 0)
    numbers = [posted.body["data"]["number"] for posted in scripted_api.requests]
    assert numbers == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4]


def test_a_refusal_is_not_tried_again(
    make: Callable[..., WebSocketNotifier], scripted_api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_api.answers = [
        (401, {"error": {"message": "no such key"}}),
        (413, "too large"),
        (202, {"event_id": "1-1"}),
    ]
    notifier = make(url=scripted_api.url, api_key="am_key")
    for number in range(3):
        notifier.send_stats_update("p", {"number": number})
    assert notifier.close(60)
    assert counters(notifier) == (1, 0, 2)
    assert len(scripted_api.requests) == 3
    assert "no such key" in caplog.text
    assert "413" in caplog.text


def test_it_finds_the_api_beside_a_mounted_application(
    make: Callable[..., WebSocketNotifier], scripted_api: Any
) -> None:
    scripted_api.missing = "/api/"
    notifier = make(url=scripted_api.url, api_key="am_key")
    notifier.send_stats_update("p", {})
    notifier.send_stats_update("p", {})
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 0)
    places = [posted.path.removesuffix("/api/projects/p/events") for posted in scripted_api.requests]
    assert places == ["", "/realtime", "/realtime"]  # it remembers


def test_a_key_for_each_project(make: Callable[..., WebSocketNotifier], scripted_api: Any) -> None:
    notifier = make(url=scripted_api.url, api_key={"a": "am_a", "b": "am_b"})
    for project in ("a", "b", "c"):
        notifier.send_stats_update(project, {})
    assert notifier.close(60)
    assert counters(notifier) == (2, 0, 1)
    assert [posted.api_key for posted in scripted_api.requests] == ["am_a", "am_b"]


def test_a_logout_over_http_is_refused_at_once(
    make: Callable[..., WebSocketNotifier], scripted_api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = make(url=scripted_api.url, api_key="am_key")
    notifier.logged_out("u")
    assert counters(notifier) == (0, 0, 1)
    assert caplog.messages == [
        "could not send logout of user u: no API key may end a user's sessions; it takes realtime= or redis_url="
    ]
    assert notifier.close(60)
    assert scripted_api.requests == []


def test_a_server_that_stays_away_is_given_up_on(
    make: Callable[..., WebSocketNotifier], closed_port: int, caplog: pytest.LogCaptureFixture, clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    attempts: list[str] = []
    publish = PublishingApi.publish

    def counted(api: PublishingApi, project_id: str, api_key: str, event: str, data: Mapping[str, Any]) -> str:
        attempts.append(event)
        return publish(api, project_id, api_key, event, data)

    monkeypatch.setattr(PublishingApi, "publish", counted)
    notifier = make(url=f"http://127.0.0.1:{closed_port}", api_key="am_key", retry_for=30)
    notifier.send_stats_update("p", {})
    until(lambda: len(attempts) > 2)
    clock[0] = 30.0
    until(lambda: notifier.failed == 1)
    assert "Connection refused" in caplog.text


def test_what_waited_too_long_is_not_sent_late(
    make: Callable[..., WebSocketNotifier], scripted_api: Any, clock: list[float]
) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key", retry_for=30)
    notifier.send_stats_update("p", {"number": 0})
    scripted_api.wait_for(1)
    notifier.send_stats_update("p", {"number": 1})
    clock[0] = 30.0
    scripted_api.held.set()
    assert notifier.close(60)
    assert counters(notifier) == (1, 0, 1)
    assert len(scripted_api.requests) == 1


def test_a_full_queue_drops_the_newest(
    make: Callable[..., WebSocketNotifier], scripted_api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_api.held.clear()
    notifier = make(url=scripted_api.url, api_key="am_key", queue_size=3)
    for number in range(10):
        notifier.send_stats_update("p", {"number": number})
    assert notifier.dropped == 7
    assert caplog.text.count("dropping stats_update of project p") == 1
    scripted_api.held.set()
    until(lambda: notifier.sent == 3)
    notifier.send_stats_update("p", {"number": 10})
    assert notifier.close(60)
    assert counters(notifier) == (4, 7, 0)
    assert [posted.body["data"]["number"] for posted in scripted_api.requests] == [0, 1, 2, 10]


def test_it_never_blocks_its_caller(make: Callable[..., WebSocketNotifier], scripted_api: Any) -> None:
    scripted_api.held.clear()  # nothing is answered: a call that waited for an answer would hang here
    notifier = make(url=scripted_api.url, api_key="am_key")
    for _ in range(50):
        notifier.send_update_async(CONTENT, "approved", [], 0)
    assert counters(notifier) == (0, 0, 0)


def test_closing_gives_up_on_a_server_that_is_away(
    make: Callable[..., WebSocketNotifier], closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = make(url=f"http://127.0.0.1:{closed_port}", api_key="am_key")
    for _ in range(3):
        notifier.send_stats_update("p", {})
    assert not notifier.close(0.01)
    assert counters(notifier) == (0, 0, 3)
    assert "could not send 3 updates" in caplog.text
    notifier.send_stats_update("p", {})
    notifier.send_stats_update("p", {})
    assert counters(notifier) == (0, 2, 3)
    assert caplog.text.count("the notifier is closed") == 1
    assert notifier.close(0)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "automoderate-notifier"])


def test_what_was_given_up_is_not_counted_twice(make: Callable[..., WebSocketNotifier]) -> None:
    here = Here()
    notifier = make(realtime=here)
    notifier.send_stats_update("p", {})
    assert not notifier.close(0)
    here.futures[0].set_result("1-1")
    assert counters(notifier) == (0, 0, 1)


def test_odd_calls_never_raise(make: Callable[..., WebSocketNotifier], caplog: pytest.LogCaptureFixture) -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("hostile")

    class Nameless:
        def __str__(self) -> str:
            raise RuntimeError("nameless")

    here = Here()
    notifier = make(realtime=here)
    notifier.send_update_async(None, None, None, None)
    notifier.send_update_async(Hostile(), Hostile(), Hostile(), Hostile())
    notifier.send_content_created(Hostile())
    notifier.send_stats_update("p", None)
    notifier.send_stats_update(None, {})
    notifier.send_rule_update("", {})
    notifier.send_rule_update("p", 7)
    notifier.access_changed(None)
    notifier.access_changed("p", Nameless())
    notifier.logged_out(None)
    notifier.logged_out(Nameless())
    assert here.calls == []
    assert counters(notifier) == (0, 0, 11)
    assert caplog.text.count("could not send") == 11


def test_a_thread_that_cannot_start_is_started_with_the_next_update(
    make: Callable[..., WebSocketNotifier], scripted_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_threads(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    notifier = make(url=scripted_api.url, api_key="am_key")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        notifier.send_stats_update("p", {})
    notifier.send_stats_update("p", {})
    assert notifier.close(60)
    assert counters(notifier) == (1, 0, 1)


def test_an_unexpected_failure_does_not_end_the_thread(
    make: Callable[..., WebSocketNotifier],
    scripted_api: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = []

    def broken(api: object, project_id: str, api_key: str, event: str, data: object) -> str:
        calls.append(event)
        raise ZeroDivisionError

    monkeypatch.setattr("automoderate.publishing.PublishingApi.publish", broken)
    notifier = make(url=scripted_api.url, api_key="am_key")
    notifier.send_stats_update("p", {})
    notifier.send_stats_update("p", {})
    assert notifier.close(60)
    assert len(calls) == 2
    assert counters(notifier) == (0, 0, 2)
    assert caplog.text.count("unexpected failure") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of realtime="),
        ({"realtime": Here(), "url": "http://h", "api_key": "am_k"}, "one of realtime="),
        ({"realtime": Here(), "api_key": "am_k"}, "api_key= goes with url="),
        ({"url": "http://h"}, "needs api_key="),
        ({"url": "http://h", "api_key": ""}, "needs api_key="),
        ({"url": "http://h", "api_key": {}}, "needs api_key="),
        ({"url": "localhost:6217", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://h/?a=b", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://h", "api_key": "am_\n"}, "printable ASCII"),
        ({"url": "http://h", "api_key": {"p": "am_é"}}, "printable ASCII"),
        ({"url": "http://h", "api_key": "am_k", "queue_size": 0}, "queue_size"),
    ],
)
def test_wrong_settings_are_said_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WebSocketNotifier(**options)


FORKING = """
import os, sys, threading, warnings
from automoderate import _delivery as module
from automoderate.notifier import WebSocketNotifier
module._AT_EXIT = 60
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of every fork beside a thread
notifier = WebSocketNotifier(url=sys.argv[1], api_key="am_key")
notifier.send_stats_update("p", {"who": "parent"})
with notifier._changed:  # a fork at the worst moment: another thread may hold the lock
    holder = threading.Event()
    child = os.fork()
if child == 0:
    notifier.send_stats_update("p", {"who": "child"})
    flushed = notifier.close(60)
    os._exit(0 if flushed and (notifier.sent, notifier.failed) == (1, 0) else 1)
_, status = os.waitpid(child, 0)
notifier.send_stats_update("p", {"who": "parent again"})
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_worker_sends_its_own_and_only_its_own(scripted_api: Any) -> None:
    """Also: what a process sent just before it ended still leaves."""
    done = subprocess.run([sys.executable, "-c", FORKING, scripted_api.url], timeout=120, check=False)
    assert done.returncode == 0
    who = [posted.body["data"]["who"] for posted in scripted_api.requests]
    assert sorted(who) == ["child", "parent", "parent again"]


def test_a_notifier_that_nobody_holds_is_let_go(make: Callable[..., WebSocketNotifier]) -> None:
    gc.collect()
    before = len(delivery_module._deliveries)
    WebSocketNotifier(realtime=Here())
    gc.collect()
    assert len(delivery_module._deliveries) == before


def test_dropping_is_a_warning(make: Callable[..., WebSocketNotifier], caplog: pytest.LogCaptureFixture) -> None:
    notifier = make(realtime=Here(), queue_size=1)
    notifier.send_stats_update("p", {})
    notifier.send_stats_update("p", {})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
