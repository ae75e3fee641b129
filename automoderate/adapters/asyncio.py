"""The asyncio adapter; uvloop where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math

from automoderate.adapters.runtime import OnReady, Options, Runtime
from automoderate.protocol.driver import Driver


class _Turns:
    """Has the running loop give the runtime its turns, without a task."""

    def __init__(self, runtime: Runtime) -> None:
        self.over = asyncio.Event()
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._armed = math.inf  # when the timer fires; uvloop does not tell of one that is due already

    def begin(self) -> None:
        self._loop.add_reader(self._runtime.fileno(), self._take)
        self._arm()

    def end(self) -> None:
        self._loop.remove_reader(self._runtime.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def _take(self) -> None:
        self._runtime.turn()
        if self._runtime.done:
            self.over.set()
        self._arm()

    def _arm(self) -> None:
        # A timer that fires too early is harmless and re-arms itself, so deadlines that move on cost nothing.
        if self._runtime.deadline < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = self._runtime.deadline
            if self._armed <= self._loop.time():  # one of the turns of a broadcast in a row: quicker than by a timer
                self._timer = self._loop.call_soon(self._fire)
            else:
                self._timer = self._loop.call_at(self._armed, self._fire)

    def _fire(self) -> None:
        self._timer, self._armed = None, math.inf
        self._take()


async def serve(driver: Driver, options: Options, *, on_ready: OnReady = None, handle_signals: bool = False) -> None:
    """Serve ``driver`` on the running loop until stopped or cancelled.

    A cancellation is an orderly end: it is held back for at most ``drain_timeout`` seconds; a second one cuts that
    short. Signals are the program's own business unless ``handle_signals`` says otherwise.
    """
    loop = asyncio.get_running_loop()
    with Runtime(driver, options, loop.time) as runtime, contextlib.ExitStack() as stack:
        turns = _Turns(runtime)
        stack.callback(turns.end)
        if handle_signals:
            for number in runtime.signals:
                loop.add_signal_handler(number, runtime.on_signal, number)
                stack.callback(loop.remove_signal_handler, number)
        runtime.begin(on_ready)
        turns.begin()
        try:
            await turns.over.wait()
        finally:
            runtime.stop()
            await turns.over.wait()


def run(driver: Driver, options: Options, *, on_ready: OnReady = None, handle_signals: bool = True) -> None:
    """Serve ``driver`` until SIGTERM, SIGINT or ``Handle.stop``, as every adapter does."""
    # asyncio's own loop where uvloop is not installed.
    factory = importlib.import_module("uvloop").new_event_loop if importlib.util.find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(driver, options, on_ready=on_ready, handle_signals=handle_signals))


__all__ = ["run", "serve"]
