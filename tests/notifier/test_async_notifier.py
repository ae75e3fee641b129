"""The notifier for asyncio and trio: what a task is told, and what its cancellation changes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
import trio

from automoderate import notifier as notifier_module
from automoderate.notifier import AsyncWebSocketNotifier
from kits import PATIENCE
from kits.notifiers import CONTENT, Here, counters

Main = Callable[[], Awaitable[None]]
Run = Callable[[Main], None]


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function on one of the runtimes, for a minute at most."""
    options: dict[str, Any] = {"use_uvloop": True} if request.param == "uvloop" else {}
    backend = "trio" if request.param == "trio" else "asyncio"

    def run(main: Main) -> None:
        async def within_a_minute() -> None:
            with anyio.fail_after(60):
                await main()

        anyio.run(within_a_minute, backend=backend, backend_options=options)

    return run


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that another task or thread is about to do."""
    while not condition():
        await anyio.sleep(0.002)


def closing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "notifier-close" in thread.name]


# What a task is told ------------------------------------------------------------------------------------------


def test_each_method_hands_over_at_once_and_says_what_became_of_it(run: Run) -> None:
    async def main() -> None:
        here = Here()
        notifier = AsyncWebSocketNotifier(realtime=here)
        said = [
            notifier.send_content_created(CONTENT),
            notifier.send_update_async(CONTENT, "approved", [{"moderator_type": "ai"}], 1.5),
            notifier.send_stats_update("p", {"total": 1}),
            notifier.send_rule_update("p", {"id": "r"}, action="deleted"),
            notifier.access_changed("p", user_id="u"),
            notifier.logged_out("u"),
        ]
        assert [call[:2] for call in here.calls] == [
            ("p", "content_received"),
            ("p", "moderation_update"),
            ("p", "stats_update"),
            ("p", "rule_update"),
            ("access_changed", "u"),
            ("logged_out", "u"),
        ]
        here.futures[2].set_exception(RuntimeError("not running"))
        assert here.futures[3].cancel()
        for number in (0, 1, 4, 5):
            here.futures[number].set_result("1-1")
        assert [await each for each in said] == [True, True, False, False, True, True]
        assert counters(notifier) == (4, 0, 2)
        assert await notifier.close()

    run(main)


def test_it_is_told_when_the_server_has_answered_and_not_before(run: Run) -> None:
    async def main() -> None:
        here = Here()
        told: list[bool] = []

        async def send() -> None:
            told.append(await AsyncWebSocketNotifier(realtime=here).send_stats_update("p", {}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await until(lambda: here.calls)
            await anyio.wait_all_tasks_blocked()
            assert told == []
            threading.Thread(target=here.futures[0].set_result, args=["1-1"]).start()  # as another thread does it
        assert told == [True]

    run(main)


def test_odd_calls_never_raise(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Here):
        def logged_out(self, _user_id: str) -> Any:
            raise RuntimeError("no loop")

    async def main() -> None:
        notifier = AsyncWebSocketNotifier(realtime=Broken())
        assert not await notifier.send_update_async(None, None, None, None)
        assert not await notifier.send_stats_update("p", None)
        assert not await notifier.access_changed(None)
        assert not await notifier.logged_out("u")
        assert counters(notifier) == (0, 0, 4)

    run(main)
    assert caplog.text.count("could not send") == 4


def test_a_logout_over_http_is_refused_at_once(run: Run, scripted_api: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE) as notifier:
            assert not await notifier.logged_out("u")
            assert counters(notifier) == (0, 0, 1)

    run(main)
    assert "no API key may end a user's sessions" in caplog.text
    assert scripted_api.requests == []


def test_a_full_queue_drops_and_says_so(run: Run) -> None:
    async def main() -> None:
        here = Here()
        notifier = AsyncWebSocketNotifier(realtime=here, queue_size=1)
        first = notifier.send_stats_update("p", {})
        assert not await notifier.send_stats_update("p", {})
        here.futures[0].set_result("1-1")
        assert await first
        assert counters(notifier) == (1, 1, 0)

    run(main)


def test_who_awaits_each_update_never_fills_the_queue(run: Run, scripted_api: Any) -> None:
    async def main() -> None:
        options = {"url": scripted_api.url, "api_key": "am_key", "timeout": PATIENCE, "queue_size": 1}
        async with AsyncWebSocketNotifier(**options) as notifier:
            for number in range(20):
                assert await notifier.send_stats_update("p", {"number": number})
            assert counters(notifier) == (20, 0, 0)

    run(main)


def test_concurrent_calls_leave_in_their_order(run: Run, scripted_api: Any) -> None:
    """Also on trio, which starts the tasks of one batch in any order."""
    scripted_api.answers = [None, (503, "")]

    async def main() -> None:
        async with (
            AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE) as notifier,
            anyio.create_task_group() as tasks,
        ):
            for number in range(40):
                tasks.start_soon(notifier.send_stats_update, "p", {"number": number})
        assert counters(notifier) == (40, 0, 0)

    run(main)
    assert [event["data"]["number"] for event in scripted_api.published] == [*range(40)]


def test_several_loops_share_one_notifier(scripted_api: Any) -> None:
    notifier = AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE)

    async def send() -> list[bool]:
        return [await notifier.send_stats_update("p", {}) for _ in range(20)]

    with ThreadPoolExecutor(4) as threads:
        backends = ["asyncio", "trio"] * 2
        told = threads.map(lambda backend: anyio.run(send, backend=backend), backends)
        assert [each for one in told for each in one] == [True] * 80
    assert anyio.run(notifier.close)
    assert counters(notifier) == (80, 0, 0)


# Cancellation -------------------------------------------------------------------------------------------------


def test_a_cancelled_wait_takes_nothing_back(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        here = Here()
        notifier = AsyncWebSocketNotifier(realtime=here)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notifier.send_stats_update, "p", {})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        here.futures[0].set_result("1-1")
        assert counters(notifier) == (1, 0, 0)
        later = notifier.send_stats_update("p", {})
        here.futures[1].set_result("1-2")
        assert await later
        assert await notifier.close()

    run(main)
    assert caplog.messages == []


def test_a_task_that_is_cancelled_before_it_ran_has_sent_its_update(run: Run) -> None:
    async def main() -> None:
        here = Here()
        notifier = AsyncWebSocketNotifier(realtime=here)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notifier.send_stats_update, "p", {})
            tasks.cancel_scope.cancel()
        assert len(here.calls) == 1

    run(main)


def test_a_task_cancelled_by_asyncio_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        here = Here()
        notifier = AsyncWebSocketNotifier(realtime=here)
        tasks = [asyncio.create_task(notifier.send_stats_update("p", {})) for _ in range(2)]
        tasks[0].cancel()
        await asyncio.sleep(0)
        tasks[1].cancel()
        assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
        for future in here.futures:
            future.set_result("1-1")
        assert counters(notifier) == (2, 0, 0)

    asyncio.run(main())
    assert caplog.messages == []


def test_an_answer_after_the_loop_is_over_calls_nobody(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    here = Here()
    notifier = AsyncWebSocketNotifier(realtime=here)

    async def leave_early() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notifier.send_stats_update, "p", {})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    run(leave_early)
    here.futures[0].set_result("1-1")
    assert counters(notifier) == (1, 0, 0)
    assert caplog.messages == []

    async def close_elsewhere() -> None:
        assert await notifier.close()

    run(close_elsewhere)


# The end ------------------------------------------------------------------------------------------------------


def test_the_loop_goes_on_while_it_is_closed(run: Run, scripted_api: Any) -> None:
    scripted_api.held.clear()

    async def main() -> None:
        notifier = AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE)
        told: list[bool] = []

        async def send() -> None:
            told.append(await notifier.send_stats_update("p", {}))

        async def close() -> None:
            told.append(await notifier.close(60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await until(lambda: scripted_api.requests)
            tasks.start_soon(close)
            await until(closing_threads)
            assert told == []
            scripted_api.held.set()  # only a loop that runs gets here
        assert told == [True, True]

    run(main)


def test_the_block_ends_when_what_is_queued_was_sent(run: Run, scripted_api: Any) -> None:
    async def main() -> None:
        async with AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE) as notifier:
            said = [notifier.send_stats_update("p", {"number": number}) for number in range(20)]
        assert counters(notifier) == (20, 0, 0)
        assert [await each for each in said] == [True] * 20
        assert not await notifier.send_stats_update("p", {})
        assert counters(notifier) == (20, 1, 0)
        assert await notifier.close()

    run(main)


def test_a_cancelled_block_sends_its_last_updates(run: Run, scripted_api: Any) -> None:
    scripted_api.held.clear()

    async def main() -> None:
        notifier = AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE)

        async def pipeline() -> None:
            async with notifier:
                await notifier.send_stats_update("p", {})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pipeline)
            await until(lambda: scripted_api.requests)
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(closing_threads)
                scripted_api.held.set()
        assert counters(notifier) == (1, 0, 0)

    run(main)


def test_a_mistake_in_closing_is_told_and_not_waited_for(run: Run) -> None:
    async def main() -> None:
        here = Here()
        notifier = AsyncWebSocketNotifier(realtime=here)
        said = notifier.send_stats_update("p", {})
        with pytest.raises(TypeError):
            await notifier.close("soon")  # type: ignore[arg-type]
        here.futures[0].set_result("1-1")
        assert await said

    run(main)


def test_closing_gives_up_on_a_server_that_is_away(run: Run, closed_port: int) -> None:
    async def main() -> None:
        notifier = AsyncWebSocketNotifier(url=f"http://127.0.0.1:{closed_port}", api_key="am_key")
        said = [notifier.send_stats_update("p", {}) for _ in range(3)]
        assert not await notifier.close(0.01)
        assert [await each for each in said] == [False] * 3
        assert counters(notifier) == (0, 0, 3)

    run(main)


def test_a_cancelled_close_goes_on_by_itself(run: Run, scripted_api: Any) -> None:
    scripted_api.held.clear()

    async def main() -> None:
        notifier = AsyncWebSocketNotifier(url=scripted_api.url, api_key="am_key", timeout=PATIENCE)
        said = notifier.send_stats_update("p", {})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notifier.close, 60)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert not await notifier.send_stats_update("p", {})
        scripted_api.held.set()
        assert await said
        await until(lambda: not closing_threads())
        assert counters(notifier) == (1, 1, 0)

    run(main)


# Where it is --------------------------------------------------------------------------------------------------

MISSING = """
import sys
sys.modules["anyio"] = None
from automoderate.notifier import WebSocketNotifier
try:
    from automoderate.notifier import AsyncWebSocketNotifier
except ImportError as error:
    print(error)
"""


def test_a_missing_anyio_is_said_with_the_command_that_installs_it() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=True)
    assert done.stdout == 'AsyncWebSocketNotifier needs anyio: pip install "automoderate[anyio]"\n'


def test_the_module_has_no_other_names_to_offer() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'SocketNotifier'"):
        notifier_module.SocketNotifier  # noqa: B018


def test_wrong_settings_are_said_at_once() -> None:
    with pytest.raises(ValueError, match="one of realtime="):
        AsyncWebSocketNotifier()


def test_trio_itself_may_start_it() -> None:
    """Without anyio's own ``run``."""
    here = Here()

    async def main() -> bool:
        said = AsyncWebSocketNotifier(realtime=here).send_stats_update("p", {})
        here.futures[0].set_result("1-1")
        return await said

    assert trio.run(main)


def test_tasks_of_both_runtimes_in_one_thread_are_told_on_their_own() -> None:
    """trio as the guest of asyncio's loop."""
    here = Here()
    notifier = AsyncWebSocketNotifier(realtime=here)

    async def host() -> list[bool]:
        loop = asyncio.get_running_loop()
        guest = loop.create_future()

        async def in_trio() -> bool:
            return await notifier.send_stats_update("p", {"who": "guest"})

        trio.lowlevel.start_guest_run(
            in_trio,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: guest.set_result(outcome.unwrap()),
        )
        said = asyncio.create_task(notifier.send_stats_update("p", {"who": "host"}))
        while len(here.futures) < 2:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0)
        for future in here.futures:
            threading.Thread(target=future.set_result, args=["1-1"]).start()
        return [await said, await guest]

    assert asyncio.run(asyncio.wait_for(host(), 60)) == [True, True]
