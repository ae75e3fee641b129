"""Adapters: one runtime's sockets, threads and clock under a sans-IO driver.

An adapter is a module in this package with ``run(driver, *, host, port, ...)``. What it owes, all of it checked by the
conformance suite in ``tests/adapters``. What needs no runtime is done in ``_server``: ``Server`` performs and flushes
(3), ``SocketLink`` writes to plain sockets (4).

1.  *Listening.* ``listen(host, port)`` of ``_shared`` opens the sockets, so that a port already taken is an
    ``OSError`` before anything else happens. ``on_ready(handle)`` is called on the runtime's thread once connections
    are accepted.
2.  *Reading.* Every connection becomes ``driver.connect``, then ``receive_data``/``receive_eof`` as the peer sends,
    then exactly one ``connection_lost``, however it ended. A half-closed connection stays open until the driver
    closes it.
3.  *One flush.* After every call into the driver one function drains ``driver.outputs()`` until it is empty, performs
    the outputs strictly in order, and re-arms the one timer for ``driver.next_deadline()``.
4.  *Writing.* ``write`` is the socket's own ``send`` and never blocks; ``Server`` hands what it did not take to
    ``keep``, after which ``write`` puts data behind it. It waits in a buffer of at most ``max_write_buffer``
    bytes; a peer that exceeds it is aborted and everybody else notices nothing. What is written to a connection that is
    gone is ignored. A closed connection whose peer does not take the rest within ``CLOSE_TIMEOUT`` is aborted. No task
    or timer per write.
5.  *Time.* ``now`` is the runtime's monotonic clock, the same for every call.
6.  *Jobs* run in worker threads of their own, never behind the application's requests; their result or exception
    goes back through ``driver.job_done``.
7.  *Other threads* reach the driver through the ``Handle`` alone: the call runs on the runtime's thread, the result
    is a future. Once the server is gone the future fails with ``ServerStopped``; none is left pending.
8.  *Requests* that are not the protocol's go to ``_wsgi.Bridge``, which needs ``pause``/``resume`` told about a
    connection that takes no more and takes it again.
9.  *Faults.* A reset at any moment is a lost connection. An exception out of the driver is logged and ends the
    connection it was called for, and no other. Out of file descriptors, accepting is tried again and all else goes on.
10. *Leaving.* SIGTERM, SIGINT and ``Handle.stop`` call ``driver.drain`` and wait at most ``drain_timeout`` seconds for
    ``driver.drained()``, running requests and unsent bytes. Connections are taken until then: a client that polls has
    none between two polls, and is told with the next. A second signal leaves at once. Nothing survives: no socket, no
    task, no thread that still reaches the driver.

Nothing in here knows an event name or an error text: rules belong to the driver.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Future
from types import ModuleType
from typing import Protocol, TypeVar

T = TypeVar("T")

# Adapter name -> the extra that installs its runtime (None: the standard library suffices).
_ADAPTERS: dict[str, str | None] = {"asyncio": None, "trio": "trio", "eventlet": "eventlet"}


class MissingExtra(ImportError):
    """The runtime of an adapter is not installed; the message names the command that installs it."""


class ServerStopped(RuntimeError):
    """A call was handed to a server that is no longer running."""


class Handle(Protocol):
    """A running server, for other threads: every method may be called from any of them."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Address and port of every listening socket."""

    def submit(self, call: Callable[[float], T], /) -> Future[T]:
        """Run ``call(now)`` on the runtime's thread and flush; the future has its result, its exception or
        ``ServerStopped``. Do not wait for it on the runtime's own thread."""

    def stop(self) -> None:
        """Begin draining, as SIGTERM does; returns at once."""


def names() -> tuple[str, ...]:
    """The adapters there are."""
    return tuple(_ADAPTERS)


def load(name: str) -> ModuleType:
    """Import one adapter. ``ValueError`` for an unknown name, ``MissingExtra`` where its runtime is not installed."""
    if name not in _ADAPTERS:
        raise ValueError(f"unknown adapter {name!r}: choose one of {', '.join(_ADAPTERS)}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        extra = _ADAPTERS[name]
        if extra is None:
            raise
        raise MissingExtra(
            f'the {name} adapter needs {error.name}: pip install "automoderate[{extra}]"', name=error.name
        ) from error


__all__ = ["Handle", "MissingExtra", "ServerStopped", "load", "names"]
