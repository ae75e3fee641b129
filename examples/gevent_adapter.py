"""An adapter of one's own: gevent waits for the server's one descriptor, among its other greenlets.

automoderate serve --adapter examples.gevent_adapter, or run(driver, options) in a program.
"""

from __future__ import annotations

import contextlib
import time

import gevent
from gevent import socket

from automoderate.adapters.runtime import OnReady, Options, Runtime
from automoderate.protocol.driver import Driver


def run(driver: Driver, options: Options, *, on_ready: OnReady = None, handle_signals: bool = True) -> None:
    """Serve ``driver`` until SIGTERM, SIGINT or ``Handle.stop``. For a process that gevent has not monkey-patched."""
    with Runtime(driver, options, time.monotonic) as runtime:
        numbers = runtime.signals if handle_signals else ()
        watchers = [gevent.signal_handler(number, runtime.on_signal, number) for number in numbers]
        try:
            runtime.begin(on_ready)
            while not runtime.done:
                wait(runtime.fileno(), runtime.deadline - time.monotonic())
                runtime.turn()
        finally:
            for watcher in watchers:
                watcher.cancel()


def wait(fileno: int, seconds: float) -> None:
    """Until the descriptor can be read, but not longer than that; other greenlets run meanwhile."""
    if seconds <= 0:
        gevent.sleep(0)
        return
    with contextlib.suppress(TimeoutError):
        socket.wait_read(fileno, timeout=min(seconds, 3600))
