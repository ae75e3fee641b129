"""Choosing an adapter, and the helpers all of them share."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import cast

import pytest

from automoderate import adapters
from automoderate._threads import CALLS, Inbox, ServerStopped, Workers
from automoderate.adapters import MissingExtra
from automoderate.adapters.runtime import Handle, Options
from automoderate.protocol.driver import Driver
from kits.adapters import PATIENCE, Peerside, Script


def test_adapters_are_chosen_by_name() -> None:
    assert adapters.names() == ("asyncio", "trio", "eventlet")
    assert adapters.load("asyncio").__name__ == "automoderate.adapters.asyncio"


@pytest.mark.parametrize("name", adapters.names())
def test_every_adapter_runs_with_the_same_arguments(name: str) -> None:
    assert inspect.signature(adapters.load(name).run) == inspect.signature(adapters.load("asyncio").run)


def test_an_unknown_name_is_told_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown adapter 'twisted': choose one of asyncio"):
        adapters.load("twisted")


def test_a_missing_runtime_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(adapters._ADAPTERS, "nowhere", "somewhere")
    with pytest.raises(MissingExtra, match=r'pip install "automoderate\[somewhere\]"'):
        adapters.load("nowhere")


def test_a_broken_installation_is_not_blamed_on_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(adapters._ADAPTERS, "nowhere", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        adapters.load("nowhere")
    assert not isinstance(raised.value, MissingExtra)


@pytest.mark.parametrize("uvloop", [True, False])
def test_run_takes_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, uvloop: bool) -> None:
    import asyncio

    if not uvloop:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    ready: Future[Handle] = Future()

    def serve() -> None:
        adapters.load("asyncio").run(
            cast(Driver, Script()), Options(port=0), on_ready=ready.set_result, handle_signals=False
        )

    thread = threading.Thread(target=serve)
    thread.start()
    handle = ready.result(PATIENCE)
    with Peerside.connect(handle.addresses[0]) as client:
        client.send(b"echo hello\n")
        assert client.line() == b"hello"
    loop = handle.submit(lambda _: asyncio.get_running_loop()).result(PATIENCE)
    assert type(loop).__module__.startswith("uvloop") == uvloop
    handle.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_serve_lives_in_a_loop_of_ones_own_and_can_be_cancelled() -> None:
    import asyncio

    from automoderate.adapters.asyncio import serve

    async def main() -> bytes:
        ready: asyncio.Future[Handle] = asyncio.get_running_loop().create_future()
        driver = cast(Driver, Script())
        task = asyncio.create_task(serve(driver, Options(port=0), on_ready=ready.set_result, handle_signals=False))
        host, port = (await asyncio.wait_for(ready, PATIENCE)).addresses[0]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"echo hello\n")
        line = await reader.readline()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with contextlib.suppress(ConnectionError):
            line += await reader.read()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
        return line

    assert asyncio.run(main()) == b"hello\ndraining\n"


class TestInbox:
    def test_a_crowd_of_calls_is_run_in_turns(self) -> None:
        wakes: list[None] = []
        ran: list[int] = []
        inbox = Inbox(lambda: wakes.append(None))
        for number in range(2 * CALLS + 1):
            inbox.post(lambda _now, number=number: ran.append(number))  # type: ignore[misc]
        for turn in range(1, 4):
            assert inbox.waiting
            inbox.run(0.0)
            assert ran == list(range(min(turn * CALLS, 2 * CALLS + 1)))
        assert not inbox.waiting
        assert len(wakes) == 1

    def test_one_wake_up_for_all_that_waits(self) -> None:
        wakes: list[None] = []
        inbox = Inbox(lambda: wakes.append(None))
        futures = [inbox.submit(lambda now, n=n: (n, now)) for n in range(3)]  # type: ignore[misc]
        assert len(wakes) == 1
        inbox.run(7.0)
        assert [future.result(0) for future in futures] == [(0, 7.0), (1, 7.0), (2, 7.0)]
        inbox.submit(lambda _: None)
        assert len(wakes) == 2

    def test_a_call_put_by_a_call_waits_for_the_next_turn(self) -> None:
        wakes: list[None] = []
        inbox = Inbox(lambda: wakes.append(None))
        inner: list[Future[float]] = []
        inbox.post(lambda _: inner.append(inbox.submit(lambda later: later)))
        inbox.run(1.0)
        assert len(wakes) == 2
        assert not inner[0].done()
        inbox.run(2.0)
        assert inner[0].result(0) == 2.0

    def test_a_cancelled_call_is_not_run(self) -> None:
        inbox = Inbox(lambda: None)
        ran: list[float] = []
        assert inbox.submit(ran.append).cancel()
        inbox.run(1.0)
        assert ran == []

    def test_closing_fails_what_waits_and_what_comes_later(self) -> None:
        inbox = Inbox(lambda: None)
        waiting, cancelled = inbox.submit(lambda _: None), inbox.submit(lambda _: None)
        cancelled.cancel()
        inbox.post(lambda _: None)
        inbox.close()
        inbox.post(lambda _: None)
        for future in (waiting, inbox.submit(lambda _: None)):
            with pytest.raises(ServerStopped):
                future.result(0)

    def test_a_posted_call_that_fails_is_logged_and_stops_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        inbox = Inbox(lambda: None)
        ran: list[float] = []

        def fail(_now: float) -> None:
            raise ValueError("a posted mistake")

        inbox.post(fail)
        inbox.post(ran.append)
        inbox.run(1.0)
        assert ran == [1.0]
        assert "a posted mistake" in caplog.text


class TestWorkers:
    def test_no_more_threads_than_allowed_and_no_fewer_than_useful(self) -> None:
        workers = Workers("test-count", 3)
        meeting = threading.Barrier(4)
        for _ in range(3):
            assert workers.put(lambda: meeting.wait(PATIENCE))
        done = threading.Event()
        workers.put(done.set)
        assert not done.is_set()
        assert sum(thread.name.startswith("test-count") for thread in threading.enumerate()) == 3
        meeting.wait(PATIENCE)
        assert done.wait(PATIENCE)
        workers.close()

    def test_tasks_start_in_order(self) -> None:
        workers = Workers("test-order", 1)
        seen: list[int] = []
        done = threading.Event()
        for number in range(50):
            workers.put(lambda number=number: seen.append(number))  # type: ignore[misc]
        workers.put(done.set)
        assert done.wait(PATIENCE)
        assert seen == list(range(50))
        workers.close()

    def test_a_full_queue_refuses(self) -> None:
        workers = Workers("test-full", 1, waiting=2)
        begun, go = threading.Event(), threading.Event()

        def block() -> None:
            begun.set()
            go.wait(PATIENCE)

        assert workers.put(block)
        assert begun.wait(PATIENCE)
        assert [workers.put(lambda: None) for _ in range(3)] == [True, True, False]
        go.set()
        workers.close()

    @pytest.mark.parametrize("error", [ValueError("a mistake in a task"), SystemExit("a mistake in a task")])
    def test_a_thread_outlives_its_tasks_mistakes(self, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
        def fail() -> None:
            raise error

        workers = Workers("test-mistake", 1)
        done = threading.Event()
        tasks: list[Callable[[], object]] = [fail, done.set]
        for task in tasks:
            workers.put(task)
        assert done.wait(PATIENCE)
        assert "a mistake in a task" in caplog.text
        workers.close()

    def test_closing_runs_what_waits_and_ends_the_threads(self) -> None:
        workers = Workers("test-close", 2)
        go = threading.Event()
        seen: list[int] = []
        workers.put(lambda: go.wait(PATIENCE))
        workers.put(lambda: go.wait(PATIENCE))
        workers.put(lambda: seen.append(1))
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("test-close")]
        workers.close()
        assert not workers.put(lambda: None)
        go.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        assert seen == [1]
