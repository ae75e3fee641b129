"""The notifier of a moderation pipeline that is an asyncio or a trio program.

It sends as :class:`automoderate.notifier.WebSocketNotifier` does, in the same threads; what is here is how a task waits
for what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import anyio

from automoderate.notifier.base import Notifier
from automoderate.notifier.items import Item


class AsyncWebSocketNotifier(Notifier[Coroutine[Any, Any, bool]]):
    """Sends updates to dashboards from asyncio or trio. No method blocks the loop or raises into its caller.

    Arguments and counters are those of :class:`automoderate.notifier.Notifier`. A method hands its update over when it
    is called, so that updates leave in the order of the calls; what it returns is to be awaited: True once the server,
    or Redis, has accepted the update, False where it could not be sent, which is logged and counted. Who awaits each
    before the next never fills the queue.

    A task that is cancelled while it waits takes nothing back: the update is still sent. One notifier serves any
    number of event loops, threads and tasks. ``async with`` closes it.
    """

    def close(self, timeout: float = 5.0) -> Coroutine[Any, Any, bool]:
        """Stop taking updates and wait up to ``timeout`` seconds for those under way; True if none is left.

        What is still queued then counts as failed. Idempotent. It goes on by itself where the waiting is cancelled.
        """
        # A thread of its own, at once: one of the program's might be free only much later.
        thread = ThreadPoolExecutor(1, "automoderate-notifier-close")
        closed = thread.submit(self._close, timeout)
        thread.shutdown(wait=False)
        return _outcome(closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it; also where the task is cancelled, whose last updates have as long as any."""
        with anyio.CancelScope(shield=True):
            await self.close()

    def _say(self, what: str, make: Callable[[], Item]) -> Coroutine[Any, Any, bool]:
        outcome: Future[bool] = Future()
        self._send(what, make, outcome.set_result)
        return _outcome(outcome)


async def _outcome(future: Future[bool]) -> bool:
    """What a thread says, without a thread that waits for it."""
    settled = anyio.Event()
    run_soon = _run_soon()

    def wake(_: Future[bool]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is over, and the tasks that waited with it
            run_soon(settled.set)

    future.add_done_callback(wake)
    await settled.wait()
    return future.result()


def _run_soon() -> Callable[[Callable[[], object]], object]:
    """What runs a function on this event loop, from any thread and without waiting for it; anyio has only what waits.

    RuntimeError once the loop is over.
    """
    if (trio := sys.modules.get("trio")) is not None:  # a program that runs on it has imported it
        with contextlib.suppress(RuntimeError):  # others have, too
            trio.lowlevel.current_task()
            return trio.lowlevel.current_trio_token().run_sync_soon  # type: ignore[no-any-return]
    return asyncio.get_running_loop().call_soon_threadsafe


__all__ = ["AsyncWebSocketNotifier"]
