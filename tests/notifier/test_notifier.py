"""The notifier: in this process, over HTTP, when the server is away, when it is closed, and across a fork."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from automoderate.notifier import WebSocketNotifier, delivery
from kits import PYTHONPATH, until
from kits.memory import allocated
from kits.notifiers import CONTENT, Here, counters


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
        def publish(
            self, _project_id: str, _event: str, _data: Mapping[str, Any], _trace: str | None = None
        ) -> Future[str]:
            raise RuntimeError("no loop")

        def logged_out(self, _user_id: str) -> Any:
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
    assert [event["data"]["number"] for event in scripted_api.published] == [0, 1, 2, 10]


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


@pytest.mark.parametrize("why", ["failed", "dropped", "closed"])
def test_a_log_that_takes_its_time_holds_up_nobody(make: Callable[..., WebSocketNotifier], why: str) -> None:
    here = Here()
    notifier = make(realtime=here, queue_size=1 if why == "dropped" else 10)
    notifier.send_stats_update("p", {})
    held_up: list[bool] = []

    class Slow(logging.Handler):
        def createLock(self) -> None:
            self.lock = None

        def emit(self, _record: logging.LogRecord) -> None:
            if not held_up:
                other = threading.Thread(target=notifier.send_stats_update, args=("p", {}))
                held_up.append(True)
                other.start()
                other.join(10)
                held_up[0] = other.is_alive()

    logger, slow = logging.getLogger("automoderate.notifier"), Slow()
    logger.addHandler(slow)
    try:
        if why == "failed":
            here.futures[0].set_exception(RuntimeError("no"))
        elif why == "dropped":
            notifier.send_stats_update("p", {})
        else:
            notifier.close(0)
    finally:
        logger.removeHandler(slow)
    assert held_up == [False]


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
        ({"url": "http://a..b", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://h/?a=b", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://h/?", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://h#", "api_key": "am_k"}, "is no server address"),
        ({"url": "http://h", "api_key": "am_\n"}, "printable ASCII"),
        ({"url": "http://h", "api_key": {"p": "am_é"}}, "printable ASCII"),
        ({"url": "http://h", "api_key": "am_k", "queue_size": 0}, "queue_size"),
        ({"url": "http://h", "api_key": "am_k", "timeout": 0}, "timeout"),
        ({"url": "http://h", "api_key": "am_k", "timeout": float("nan")}, "timeout"),
        ({"url": "http://h", "api_key": "am_k", "retry_for": -1}, "retry_for"),
    ],
)
def test_wrong_settings_are_said_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WebSocketNotifier(**options)


FORKING = """
import os, sys, threading, warnings
from automoderate.notifier import delivery as module
from automoderate.notifier import WebSocketNotifier
module._AT_EXIT = 60
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of every fork beside a thread
notifier = WebSocketNotifier(url=sys.argv[1], api_key="am_key", timeout=60)
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
    who = [event["data"]["who"] for event in scripted_api.published]
    assert sorted(who) == ["child", "parent", "parent again"]


CHILDREN = """
import multiprocessing, sys
from automoderate.notifier import WebSocketNotifier
from kits.notifiers import last_words
url = sys.argv[1]
forking = multiprocessing.get_context("fork")
notifier = WebSocketNotifier(url=url, api_key="am_key", timeout=60)
children = [
    forking.Process(target=last_words, args=(url, "forked", notifier)),
    forking.Process(target=last_words, args=(url, "forked, with its own")),
    multiprocessing.get_context("forkserver").Process(target=last_words, args=(url, "of a fork server")),
]
for child in children:
    child.start()
for child in children:
    child.join()
with forking.Pool(1) as pool:
    pool.apply(last_words, (url, "of a pool"))
    pool.close()
    pool.join()
sys.exit(any(child.exitcode for child in children))
"""


def test_what_children_sent_just_before_they_ended_still_leaves(scripted_api: Any) -> None:
    """``multiprocessing`` ends them without what is to be done at an interpreter's exit."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", CHILDREN, scripted_api.url], timeout=120, check=False, env=environment)
    assert done.returncode == 0
    who = [event["data"]["who"] for event in scripted_api.published]
    assert sorted(who) == ["forked", "forked, with its own", "of a fork server", "of a pool"]


def test_the_end_of_a_process_waits_once_for_all_its_notifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    waited: list[float] = []

    def close(timeout: float) -> bool:
        nonlocal now
        now += min(timeout, 1.5)
        waited.append(timeout)
        return False

    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(delivery, "_deliveries", [SimpleNamespace(_close=close)] * 3)
    delivery._flush()  # noqa: SLF001 - the interpreter calls it
    assert waited == [2.0, 0.5, 0.0]


@pytest.mark.usefixtures("make")
def test_notifiers_that_nobody_holds_are_let_go() -> None:
    WebSocketNotifier(realtime=Here())
    with allocated() as held:
        for _ in range(1000):
            WebSocketNotifier(realtime=Here())
        assert held() < 100_000


def test_dropping_is_a_warning(make: Callable[..., WebSocketNotifier], caplog: pytest.LogCaptureFixture) -> None:
    notifier = make(realtime=Here(), queue_size=1)
    notifier.send_stats_update("p", {})
    notifier.send_stats_update("p", {})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
