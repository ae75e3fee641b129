"""Adapters: one runtime's way of waiting, under a sans-IO driver.

An adapter is a module with ``run(driver, options, *, on_ready=None, handle_signals=True)``; where its runtime can be
embedded in a program it has a ``serve`` too. What it owes, all of it checked by the conformance suite in
``tests/adapters``. :class:`automoderate.adapters.runtime.Runtime` does what does not depend on the runtime, which is
all of this but for what is said of the adapter:

1.  *Waiting.* The adapter waits until ``runtime.fileno()`` can be read or ``runtime.deadline`` has come, whichever is
    first, lets its runtime's other tasks run, and calls ``runtime.turn()``, until ``runtime.done``.
2.  *Time.* The adapter brings the clock: its runtime's monotonic one, the same for every call.
3.  *Listening.* The sockets are opened first, so that a port already taken is an ``OSError`` before anything else
    happens. ``on_ready(handle)`` is called on the runtime's thread once connections are accepted.
4.  *Reading.* Every connection becomes ``driver.connect``, then ``receive_data``/``receive_eof`` as the peer sends,
    then exactly one ``connection_lost``, however it ended. A half-closed connection stays open until the driver
    closes it. A turn looks at a bounded number of sockets. Between ``PauseReading`` and ``ResumeReading`` nothing is
    read from a connection, so that its peer has to wait; an end of the stream is reported afterwards.
5.  *One flush.* Every turn ends with draining ``driver.outputs()`` until it is empty, and performing the outputs
    strictly in order. ``driver.tick`` is called when ``driver.next_deadline()`` has come.
6.  *Writing.* ``write`` is the socket's own ``send`` and never blocks; what it did not take is handed to ``keep``,
    after which ``write`` puts data behind it. It waits in a buffer of at most ``max_write_buffer`` bytes; a peer that
    exceeds it is aborted and everybody else notices nothing. What is written to a connection that is gone is ignored.
    A closed connection whose peer does not take the rest within 30 s is aborted. Behind ``SendEof`` nothing is written
    any more, and what the peer still sends is thrown away up to its end.
7.  *Jobs* run in worker threads of their own, never behind the application's requests; their result or exception
    goes back through ``driver.job_done``.
8.  *Other threads* reach the driver through the ``Handle`` alone: the call runs on the runtime's thread, the result
    is a future. Once the server is gone the future fails with ``ServerStopped``; none is left pending.
9.  *Requests* that are not the protocol's go to the WSGI application, in worker threads.
10. *Faults.* A reset at any moment is a lost connection. An exception out of the driver is logged and ends the
    connection it was called for, and no other. Out of file descriptors, accepting stops for a second at a time, and
    all else goes on.
11. *Leaving.* ``Handle.stop`` and the adapter, which hands ``runtime.signals`` to ``runtime.on_signal()`` and turns a
    cancellation into ``runtime.stop()``: both call ``driver.drain`` and wait at most ``drain_timeout`` seconds for
    ``driver.drained()``, running requests and unsent bytes. Connections are taken until then: a client that polls has
    none between two polls, and is told with the next. A second signal leaves at once. Nothing survives: no socket, no
    task, no timer, no thread that still reaches the driver.

Nothing in here knows an event name or an error text: rules belong to the driver.
"""

from __future__ import annotations

import importlib
from types import ModuleType

# Adapter name -> the extra that installs its runtime (None: the standard library suffices).
_ADAPTERS: dict[str, str | None] = {"asyncio": None, "trio": "trio", "eventlet": "eventlet"}


class MissingExtra(ImportError):
    """The runtime of an adapter is not installed; the message names the command that installs it."""


def names() -> tuple[str, ...]:
    """The adapters that come with the package."""
    return tuple(_ADAPTERS)


def load(name: str) -> ModuleType:
    """Import one adapter: by its name, or an adapter of somebody's own as ``package.module``.

    Raises ``ValueError`` where there is none, and ``MissingExtra`` where its runtime is not installed.
    """
    if name not in _ADAPTERS:
        return _load_foreign(name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        extra = _ADAPTERS[name]
        if extra is None:
            raise
        raise MissingExtra(
            f'the {name} adapter needs {error.name}: pip install "automoderate[{extra}]"', name=error.name
        ) from error


def _load_foreign(name: str) -> ModuleType:
    known = f"choose one of {', '.join(_ADAPTERS)}, or a module of your own as package.module"
    if "." not in name:
        raise ValueError(f"unknown adapter {name!r}: {known}")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"cannot import the adapter {name!r}: {error}") from error
    if callable(getattr(module, "run", None)):
        return module
    raise ValueError(f"{name!r} is no adapter: it has no function run(driver, options, ...)")


__all__ = ["MissingExtra", "load", "names"]
