"""The trio adapter: one task that waits for one descriptor, however many connections there are."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator

import trio

from automoderate.adapters.runtime import Handle, OnReady, Options, Runtime
from automoderate.protocol.driver import Driver


async def serve(
    driver: Driver,
    options: Options,
    *,
    on_ready: OnReady = None,
    handle_signals: bool = False,
    task_status: trio.TaskStatus[Handle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``driver`` within a trio program until stopped or cancelled.

    ``handle = await nursery.start(serve, driver, options)`` returns once connections are accepted. A cancellation is an
    orderly end: it is held back for at most ``drain_timeout`` seconds. Signals are the program's own business unless
    ``handle_signals`` says otherwise.
    """
    with Runtime(driver, options, trio.current_time) as runtime, contextlib.ExitStack() as stack:
        signals = stack.enter_context(trio.open_signal_receiver(*runtime.signals)) if handle_signals else None
        runtime.begin(on_ready)
        async with trio.open_nursery() as nursery:
            if signals is not None:
                nursery.start_soon(_heed, signals, runtime)
            task_status.started(runtime.handle)
            try:
                await _take_turns(runtime)
            finally:
                runtime.stop()
                with trio.CancelScope(shield=True):
                    await _take_turns(runtime)
                nursery.cancel_scope.cancel()


async def _take_turns(runtime: Runtime) -> None:
    while not runtime.done:
        if runtime.deadline <= trio.current_time():
            # The turns of a broadcast in a row: quicker than by a time-out, and the other tasks have theirs.
            await trio.lowlevel.checkpoint()
        else:
            with trio.move_on_at(runtime.deadline):
                await trio.lowlevel.wait_readable(runtime.fileno())
        runtime.turn()


async def _heed(signals: AsyncIterator[int], runtime: Runtime) -> None:
    async for number in signals:
        runtime.on_signal(number)


def run(driver: Driver, options: Options, *, on_ready: OnReady = None, handle_signals: bool = True) -> None:
    """Serve ``driver`` until SIGTERM, SIGINT or ``Handle.stop``, as every adapter does."""
    trio.run(functools.partial(serve, driver, options, on_ready=on_ready, handle_signals=handle_signals))


__all__ = ["run", "serve"]
