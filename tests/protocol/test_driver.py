"""The base of drivers: an application is a layer with one method."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from automoderate.protocol import (
    AppRequest,
    AppRequestEnd,
    Config,
    Driver,
    EngineIOEvent,
    EngineIOServer,
    EventReceived,
    Layer,
    MessageReceived,
    SessionClosed,
    SessionOpened,
    SocketIOEvent,
    SocketIOServer,
)
from automoderate.protocol.events import ClientConnecting

Around = Callable[[Driver], Any]
NUMBERS = itertools.count()


def new_id() -> str:
    return f"id{next(NUMBERS)}"


class EngineEcho(Layer[EngineIOEvent]):
    """An application on Engine.IO that answers other requests as soon as they begin."""

    def __init__(self) -> None:
        self.protocol = EngineIOServer(Config(path="/engine.io/"), new_id=new_id)
        super().__init__(self.protocol)
        self.seen: list[EngineIOEvent] = []

    def on_event(self, event: EngineIOEvent, now: float) -> None:
        self.seen.append(event)
        if isinstance(event, MessageReceived):
            self.protocol.send(event.session, event.data, now)
        elif isinstance(event, AppRequest):
            self.respond(event.connection, 200, "OK", [("Content-Length", "2")], now)
            self.respond_body(event.connection, b"ok", now)
            self.respond_end(event.connection, now)


class SocketEcho(Layer[SocketIOEvent]):
    """An application on Socket.IO."""

    def __init__(self) -> None:
        self.protocol = SocketIOServer(Config(path="/engine.io/"), new_id=new_id)
        super().__init__(self.protocol)

    def on_event(self, event: SocketIOEvent, now: float) -> None:
        if isinstance(event, ClientConnecting):
            self.protocol.accept(event.client, now)
        elif isinstance(event, EventReceived):
            self.protocol.emit(event.client, event.event, *event.args, now=now)


@pytest.fixture
def engine_echo() -> EngineEcho:
    return EngineEcho()


def opened(line: Any) -> str:
    """Opens a session by polling; returns where it goes on."""
    sid = line.get("/engine.io/?EIO=4&transport=polling").text[1:].partition('"sid":"')[2].partition('"')[0]
    return f"/engine.io/?EIO=4&transport=polling&sid={sid}"


def test_an_application_on_engineio(around: Around, engine_echo: EngineEcho) -> None:
    line = around(engine_echo).connect()
    target = opened(line)
    assert line.post(target, "4hello").text == "ok"
    assert line.get(target).text == "4hello"


def test_an_application_on_socketio(around: Around) -> None:
    line = around(SocketEcho()).connect()
    target = opened(line)
    line.post(target, "40")
    assert line.get(target).text.startswith('40{"sid":')
    line.post(target, '42["greet","you"]')
    assert line.get(target).text == '42["greet","you"]'


def test_a_request_for_another_path_is_the_applications(around: Around, engine_echo: EngineEcho) -> None:
    reply = around(engine_echo).connect().get("/elsewhere")
    assert (reply.status, reply.text) == (200, "ok")
    assert [type(event) for event in engine_echo.seen] == [AppRequest, AppRequestEnd]


def test_events_are_acted_on_one_at_a_time(around: Around) -> None:
    acted = []

    class Busy(EngineEcho):
        def on_event(self, event: EngineIOEvent, now: float) -> None:
            self.tick(now)
            acted.append(event.data if isinstance(event, MessageReceived) else None)

    line = around(Busy()).connect()
    line.post(opened(line), "4one\x1e4two\x1e4three")
    assert acted == [None, "one", "two", "three"]


@pytest.mark.parametrize("end", ["lose", "eof"])
def test_a_layer_is_told_of_ends(around: Around, engine_echo: EngineEcho, end: str) -> None:
    world = around(engine_echo)
    line = world.connect()
    target = opened(line)
    line.request("GET", target)
    getattr(line, end)()
    assert [type(event) for event in engine_echo.seen] == [SessionOpened, SessionClosed]


def test_a_layer_is_told_of_deadlines(around: Around, engine_echo: EngineEcho) -> None:
    world = around(engine_echo)
    opened(world.connect())
    world.wait(60)
    assert [type(event) for event in engine_echo.seen] == [SessionOpened, SessionClosed]


def test_a_connection_that_comes_late_finds_the_deadlines_acted_on(around: Around, engine_echo: EngineEcho) -> None:
    world = around(engine_echo)
    opened(world.connect())
    for _ in range(2):  # a ping, and its timeout
        world.now += 60
        world.connect()
    assert [type(event) for event in engine_echo.seen] == [SessionOpened, SessionClosed]


def test_a_layer_drains(around: Around, engine_echo: EngineEcho) -> None:
    world = around(engine_echo)
    line = world.connect()
    target = opened(line)
    engine_echo.drain(world.now)
    assert not engine_echo.drained()
    line.get(target)
    assert engine_echo.drained()
    assert [type(event) for event in engine_echo.seen] == [SessionOpened, SessionClosed]


def test_a_layer_that_starts_no_jobs_takes_no_results(engine_echo: EngineEcho) -> None:
    with pytest.raises(NotImplementedError):
        engine_echo.job_done(1, None, 0.0)


def test_a_layer_measures_nothing_unless_it_wants_to(around: Around, engine_echo: EngineEcho) -> None:
    world = around(engine_echo)
    opened(world.connect())
    engine_echo.turned(world.now, 0.5)
    engine_echo.kept(1000)
    assert [type(event) for event in engine_echo.seen] == [SessionOpened]
