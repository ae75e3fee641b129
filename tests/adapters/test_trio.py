"""What the trio adapter owes the trio program around it, besides what every adapter owes a driver."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import define, field

from automoderate._threads import ServerStopped
from automoderate.adapters import trio as adapter
from automoderate.adapters.runtime import Handle, Options
from automoderate.protocol.driver import Driver
from kits.adapters import PATIENCE, Peerside, Script


@define(eq=False)
class Tasks(trio.abc.Instrument):
    """Knows the tasks of a run."""

    alive: set[trio.lowlevel.Task] = field(factory=set)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.alive.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.alive.discard(task)


def run(main: Callable[[], Any], *instruments: trio.abc.Instrument) -> None:
    """Run a trio program that may not take for ever."""

    async def bounded() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    trio.run(bounded, instruments=instruments)


async def start(nursery: trio.Nursery, driver: object, **options: Any) -> Handle:
    serve = functools.partial(adapter.serve, cast(Driver, driver), Options(port=0, **options))
    handle = await nursery.start(serve)
    assert isinstance(handle.addresses, tuple)
    return cast(Handle, handle)


@contextlib.asynccontextmanager
async def client(
    handle: Handle, said: bytes = b"echo hello\n", heard: bytes = b"hello\n"
) -> AsyncIterator[trio.SocketStream]:
    """A connection on which the server has answered already."""
    async with await trio.open_tcp_stream(*handle.addresses[0]) as stream:
        await stream.send_all(said)
        assert await exactly(stream, len(heard)) == heard
        yield stream


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        assert more, f"the stream ended after {data!r}"
        data += more
    return data


async def rest(stream: trio.SocketStream) -> bytes:
    """Everything up to the end of the stream, be it orderly or not."""
    data = b""
    with contextlib.suppress(trio.BrokenResourceError):
        async for more in stream:
            data += more
    return data


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is the case."""
    while not condition():
        await trio.sleep(0.001)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nursery_start_gives_the_handle_of_a_server_that_listens() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, Script())
            async with client(handle):
                pass
            handle.stop()

    run(main)


def test_a_server_that_cannot_listen_never_starts() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BaseExceptionGroup) as raised:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    functools.partial(adapter.serve, cast(Driver, Script()), Options(port=taken.getsockname()[1]))
                )
        assert raised.group_contains(OSError, match="cannot listen on")

    run(main)


def test_a_handle_is_for_other_threads_and_stop_is_for_any() -> None:
    async def main() -> None:
        driver = Script()
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver)
            async with client(handle) as stream:
                call = functools.partial(handle.submit, lambda _: driver.shout(b"from a thread\n"))
                future = await trio.to_thread.run_sync(call)
                assert await exactly(stream, 14) == b"from a thread\n"
                assert future.result(0) is None
                handle.stop()
                assert await rest(stream) == b"draining\n"

    run(main)


def test_calls_from_threads_after_the_end_fail_at_once() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, Script())
            handle.stop()
        threads: list[threading.Thread] = []
        failed: list[BaseException | None] = []

        def call() -> None:
            failed.append(handle.submit(lambda _: None).exception(0))
            handle.stop()

        for _ in range(8):
            threads.append(threading.Thread(target=call))
            threads[-1].start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [type(error) for error in failed] == [ServerStopped] * 8

    run(main)


def test_a_call_after_the_whole_run_is_over_fails_too() -> None:
    handles: list[Handle] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handles.append(await start(nursery, Script()))
            nursery.cancel_scope.cancel()

    run(main)
    assert isinstance(handles[0].submit(lambda _: None).exception(0), ServerStopped)
    handles[0].stop()


def test_a_cancellation_drains_and_leaves_nothing() -> None:
    tasks = Tasks()

    async def main() -> None:
        driver = Script()
        before, others = files(), set(tasks.alive)
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver)
            async with client(handle, b"hold\n", b"held\n") as stream:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    assert await exactly(stream, 9) == b"draining\n"
                    # Half a server would be no use to those who are still on it.
                    await stream.send_all(b"job still served\nrelease\n")
                    answers = await rest(stream)
                    assert sorted(answers.splitlines()) == [b"(b'STILL SERVED', True)", b"released"]
        assert nursery.cancel_scope.cancelled_caught
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*handle.addresses[0])
        assert len(driver.lost) == 1
        assert tasks.alive == others
        assert files() <= before

    run(main, tasks)


def test_who_comes_when_everybody_was_told_to_go_is_turned_away_and_keeps_nobody() -> None:
    async def main() -> None:
        driver = Script()
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver, drain_timeout=3600, max_write_buffer=1 << 30)
            with Peerside.connect(handle.addresses[0]) as slow:
                slow.send(b"echo hello\n")
                await until(lambda: driver.lines)
                slow.narrow()
                handle.submit(lambda _: driver.shout(bytes(4_000_000)))
                handle.stop()
                await until(lambda: driver.draining)
                async with await trio.open_tcp_stream(*handle.addresses[0]) as late:
                    assert await rest(late) == b""
                await trio.to_thread.run_sync(slow.rest)
        assert len(driver.lost) == 1

    run(main)


def test_a_cancellation_is_held_back_no_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    driver = Script()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver, drain_timeout=0.05)
            async with client(handle, b"hold\nstuck\n", b"held\nat it\n") as stream:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    assert await rest(stream) == b"draining\n"

    run(main)
    assert "1 connections are cut" in caplog.text
    assert len(driver.lost) == 1


def test_a_server_that_is_cancelled_before_it_starts_leaves_nothing() -> None:
    tasks = Tasks()

    async def main() -> None:
        before, others = files(), set(tasks.alive)
        with trio.CancelScope() as scope:
            scope.cancel()
            await adapter.serve(cast(Driver, Script()), Options(port=0))
        assert scope.cancelled_caught
        assert (files(), tasks.alive) == (before, others)

    run(main, tasks)


def test_an_error_elsewhere_in_the_program_drains_as_well() -> None:
    driver = Script()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver)
            async with client(handle):
                raise LookupError("something else went wrong")

    with pytest.raises(BaseExceptionGroup) as raised:
        run(main)
    assert raised.group_contains(LookupError, match="something else")
    assert driver.draining


def test_a_blocked_connection_has_no_task() -> None:
    tasks = Tasks()

    async def main() -> None:
        driver = Script()
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver, max_write_buffer=64 * 1024 * 1024)
            with Peerside.connect(handle.addresses[0]) as slow:
                slow.send(b"echo hello\n")
                assert await trio.to_thread.run_sync(slow.line) == b"hello"
                slow.narrow()
                direct, others = driver.lines[0].write, set(tasks.alive)
                handle.submit(lambda _: driver.shout(b"x" * 4_000_000 + b"\n"))
                await until(lambda: driver.lines[0].write != direct)
                assert tasks.alive == others
                assert len(await trio.to_thread.run_sync(slow.line)) == 4_000_000
                await until(lambda: driver.lines[0].write == direct)
            handle.stop()

    run(main, tasks)


def test_hundreds_of_connections_leave_no_task_behind() -> None:
    tasks = Tasks()

    async def main() -> None:
        driver = Script()
        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver)
            async with client(handle):
                pass
            await until(lambda: not driver.lines)
            gc.collect()
            before, others = files(), set(tasks.alive)
            living = trio.lowlevel.current_statistics().tasks_living
            for _ in range(3):
                peers = [Peerside.connect(handle.addresses[0]) for _ in range(200)]
                for peer in peers:
                    peer.send(b"echo hello\n")
                await until(lambda: len(driver.lines) == 200)
                assert tasks.alive == others  # none of them has a task of its own
                for number, peer in enumerate(peers):
                    if number % 2:
                        peer.reset()
                    else:
                        peer.sock.close()
                await until(lambda: not driver.lines)
                await until(lambda: len(tasks.alive) == len(others))
                assert trio.lowlevel.current_statistics().tasks_living == living
                assert files() <= before
            assert len(driver.lost) == 601
            handle.stop()

    run(main, tasks)


def test_jobs_run_in_as_many_threads_as_allowed() -> None:
    async def main() -> None:
        driver = Script()
        gate = threading.Event()
        running: set[threading.Thread] = set()

        def work() -> int:
            running.add(threading.current_thread())
            assert gate.wait(PATIENCE)
            most = len(running)
            running.discard(threading.current_thread())
            return most

        async with trio.open_nursery() as nursery:
            handle = await start(nursery, driver, threads=3)
            async with client(handle) as stream:

                def begin(_now: float) -> None:
                    for _ in range(9):
                        driver.job(driver.lines[0], work)

                handle.submit(begin)
                await until(lambda: len(running) == 3)
                await trio.testing.wait_all_tasks_blocked()
                gate.set()
                assert max(await exactly(stream, 9 * 2)) == ord("3")
            handle.stop()

    run(main)


def test_two_servers_live_in_one_program() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            first, second = await start(nursery, Script()), await start(nursery, Script())
            async with client(first) as here, client(second) as there:
                first.stop()
                assert await rest(here) == b"draining\n"
                await there.send_all(b"echo still here\n")
                assert await exactly(there, 11) == b"still here\n"
            second.stop()

    run(main)
