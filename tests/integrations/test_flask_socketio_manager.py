"""The manager that stands in an application's Flask-SocketIO, by itself."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import flask
import flask_socketio
import pytest
import socketio

from automoderate.integrations.flask_socketio import take_over
from automoderate.realtime import Realtime


class Recorder(Realtime):
    """A server that takes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def publish(self, project_id: str, event: str, data: Mapping[str, Any], _trace: str | None = None) -> Future[str]:
        self.calls.append((project_id, event, data))
        future: Future[str] = Future()
        future.set_result("1-0")
        return future

    def access_changed(self, *, user_id: str | None = None, project_id: str | None = None) -> Future[None]:
        self.calls.append(("access_changed", user_id, project_id))
        future: Future[None] = Future()
        future.set_result(None)
        return future


def mounted(realtime: Realtime, channel: str | None = None, **options: Any) -> flask_socketio.SocketIO:
    app = flask.Flask("mounted")
    extension = flask_socketio.SocketIO(app, async_mode="threading", **options)
    take_over(app, realtime, channel)
    return extension


def test_an_application_without_flask_socketio_is_left_alone() -> None:
    app = flask.Flask("plain")
    before = app.wsgi_app
    take_over(app, Realtime())
    assert app.wsgi_app == before


def test_a_list_of_rooms_is_each_of_its_projects() -> None:
    realtime = Recorder()
    extension = mounted(realtime)
    extension.emit("stats_update", {"n": 1}, to=["project_a", "other", "project_b"])
    assert realtime.calls == [("a", "stats_update", {"n": 1}), ("b", "stats_update", {"n": 1})]


def test_closing_a_room_asks_who_may_be_in_it() -> None:
    realtime = Recorder()
    extension = mounted(realtime)
    extension.close_room("project_a")
    extension.close_room("other")
    extension.close_room("project_a", namespace="/admin")
    assert realtime.calls == [("access_changed", None, "a")]


def test_before_the_server_runs_nothing_raises_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    extension = mounted(Realtime())
    for _ in range(3):
        extension.emit("stats_update", {}, to="project_a")
    extension.close_room("project_a")
    assert caplog.text.count("the real-time server is not running") == 1


@pytest.mark.parametrize("channel", [None, "socketio"])
def test_a_message_queue_that_is_not_read_is_warned_about(
    channel: str | None, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    extension = mounted(Recorder(), channel, message_queue=f"redis://127.0.0.1:{closed_port}")
    assert "message queue is not read" in caplog.text
    assert "start with --redis-channel flask-socketio, and that Redis as --redis-url" in caplog.text
    assert not isinstance(extension.server.manager, socketio.PubSubManager)


def test_a_message_queue_that_cannot_be_read_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    extension = mounted(Recorder(), "socketio", client_manager=socketio.PubSubManager())
    assert "message queue is not read, as it is no Redis" in caplog.text
    assert not isinstance(extension.server.manager, socketio.PubSubManager)


def test_beside_a_message_queue_that_is_read_its_own_emits_go_to_the_rooms_alone(
    closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    realtime = Recorder()
    extension = mounted(realtime, "flask-socketio", message_queue=f"redis://127.0.0.1:{closed_port}")
    extension.emit("stats_update", {"n": 1}, to="project_a")
    assert realtime.calls == [("a", "stats_update", {"n": 1})]
    assert caplog.text == "", "neither a warning nor a word of a Redis that is away"


def test_clients_at_a_path_of_its_own_are_kept() -> None:
    realtime = Recorder()
    app = flask.Flask("mounted")
    extension = flask_socketio.SocketIO(app, path="live", async_mode="threading", manage_session=False)
    extension.on_event("enter", lambda: flask_socketio.join_room("project_a"))
    take_over(app, realtime)
    browser = app.test_client()
    opened = browser.get("/live/?EIO=4&transport=polling").get_data(as_text=True)
    address = f"/live/?EIO=4&transport=polling&sid={opened.split(chr(34))[3]}"
    browser.post(address, data='40\x1e420["enter"]')
    seen = ""
    while "430" not in seen:
        seen += browser.get(address).get_data(as_text=True)
    extension.emit("stats_update", {"n": 1}, to="project_a")
    assert browser.get(address).get_data(as_text=True) == '42["stats_update",{"n":1}]'
    assert realtime.calls == [("a", "stats_update", {"n": 1})]
    (sid,) = (sid for sid, _ in extension.server.manager.get_participants("/", None))
    extension.server.disconnect(sid)
    assert browser.get(address).get_data(as_text=True) == "41"
    assert browser.get("/socket.io/?EIO=4&transport=polling").status_code == 404
    extension.server.shutdown()
