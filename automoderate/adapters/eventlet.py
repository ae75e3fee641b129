"""The eventlet adapter: one greenlet that waits for one descriptor, among the others of its hub."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator

from automoderate._threads import real
from automoderate.adapters.runtime import OnReady, Options, Runtime
from automoderate.protocol.driver import Driver

with warnings.catch_warnings():
    # Those who choose eventlet have read it in the documentation; -W error is for those who run tests.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    import eventlet
    from eventlet import hubs, patcher

log = logging.getLogger(__name__)


class _Over(Exception):
    """The time for waiting is over."""


def run(driver: Driver, options: Options, *, on_ready: OnReady = None, handle_signals: bool = True) -> None:
    """Serve ``driver`` until SIGTERM, SIGINT or ``Handle.stop``, as every adapter does. Other greenlets run too."""
    _mind_green_locks()
    hub = hubs.get_hub()
    try:
        with Runtime(driver, options, hub.clock) as runtime, _heeding_signals(runtime if handle_signals else None):
            hubs.notify_opened(runtime.fileno())  # whatever had this number before may not have been closed properly
            runtime.begin(on_ready)
            while not runtime.done:
                _wait(runtime.fileno(), runtime.deadline - hub.clock())
                runtime.turn()
    finally:
        _end_hub()


def _wait(fileno: int, seconds: float) -> None:
    """Until the descriptor can be read, but not longer than that."""
    if seconds <= 0:
        eventlet.sleep(0)
        return
    with contextlib.suppress(_Over):
        hubs.trampoline(fileno, read=True, timeout=None if seconds == math.inf else seconds, timeout_exc=_Over)


@contextlib.contextmanager
def _heeding_signals(runtime: Runtime | None) -> Iterator[None]:
    before = {number: signal.signal(number, runtime.on_signal) for number in runtime.signals} if runtime else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _end_hub() -> None:
    """End the hub's greenlet, which a thread that ends would leave behind, unless others wait for the hub."""
    hub = hubs.get_hub()
    timers = [timer for _, timer in (*hub.timers, *hub.next_timers) if timer.pending]
    outermost = eventlet.getcurrent().parent is None
    if hub.running and outermost and not (timers or hub.get_readers() or hub.get_writers()):
        hub.abort(wait=True)


def _mind_green_locks() -> None:
    """Where ``threading`` is monkey-patched, log with real locks, and warn of all the others.

    A green lock wakes no other thread: a greenlet that waits for one which a thread holds waits for ever.
    """
    if not patcher.is_monkey_patched("thread"):
        return
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            handler.lock = real(threading).RLock()
    log.warning(
        "Threads are monkey-patched; use eventlet.monkey_patch(thread=False), or worker threads may hang",
        extra={"event": "threads_patched"},
    )


__all__ = ["run"]
