"""All sockets of a server in one selector: accept, read, write, end, and calls from other threads.

The selector has a file descriptor of its own, which can be read while there is something to do. Waiting for that one
descriptor is all that a runtime has to be able to do.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from automoderate._threads import Bell, real_selectors
from automoderate.adapters._tls import Certificate, TLSTransport
from automoderate.adapters._transport import SocketTransport
from automoderate.adapters._wsgi import Bridge
from automoderate.protocol.complaints import Complaints
from automoderate.protocol.driver import Driver
from automoderate.protocol.model import Peer
from automoderate.protocol.timers import Timers, earliest

EVENTS_PER_TURN = 128
"""Sockets that are looked at in one turn; the others that are ready have the next one."""
ACCEPTED_PER_TURN = 16
"""Connections that one listener takes in a turn, so that those that are there already get their turn."""
PAUSE = 1.0
"""Seconds without accepting once the process or the system has run out of descriptors or memory for sockets."""
QUIET = 5.0
"""Seconds without it after which it counts as over: where clients come and go, it may last no longer than a pause."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger(__name__)


class Watched(Protocol):
    """Whatever has a socket in the selector."""

    def ready(self, events: int, now: float) -> None:
        """The socket can be read or written."""


class Doorbell(Bell):
    """Has the runtime take a turn: makes the selector's descriptor readable."""

    def ready(self, _events: int, _now: float) -> None:
        """What it was rung for is looked at in every turn."""
        self.hush()


class Guest:
    """A descriptor of somebody else's, who wants to be called when it can be read."""

    def __init__(self, poller: Poller, fileno: int, call: Callable[[float], bool]) -> None:
        self.fileno = fileno
        self._poller = poller
        self._call = call

    def ready(self, _events: int, now: float) -> None:
        """Call, unless that has ended since."""
        if not self._poller.has(self):
            return
        try:
            goes_on = self._call(now)
        except Exception:
            log.exception("Error in a call for a descriptor", extra={"event": "call_error"})
            goes_on = False
        if not goes_on:
            self._poller.dismiss(self)


class Listener:
    """A listening socket; the poller closes it."""

    def __init__(self, poller: Poller, sock: socket.socket) -> None:
        self._poller = poller
        self.sock = sock
        self.local = _address(sock.getsockname())
        self._unix = sock.family == socket.AF_UNIX
        # Where it listens on every address, a connection knows which of them it came to.
        self._anywhere = self.local[0] in ("0.0.0.0", "::")
        sock.setblocking(False)  # one that somebody else has opened may not be
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux lets the connections inherit it

    def ready(self, _events: int, now: float) -> None:
        """Take a bounded number of those who wait."""
        for _ in range(ACCEPTED_PER_TURN):
            try:
                sock, remote = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._poller.pause(error, now)
                    return
                continue  # a connection that was gone before it was accepted (accept(2))
            self._poller.begin(sock, self._peer(sock, remote), now)

    def _peer(self, sock: socket.socket, remote: Any) -> Peer:
        local = self.local
        if self._unix:
            return Peer("", 0, self._poller.scheme, *local)
        if self._anywhere:
            with contextlib.suppress(OSError):  # reset already
                local = _address(sock.getsockname())
        address, port = _address(remote)
        # Thousands of connections may come from one address, a proxy's for instance, and share its text.
        return Peer(sys.intern(address), port, self._poller.scheme, *local)


class Poller:
    """The sockets of one server. Every method but the bell's is for the runtime's thread."""

    def __init__(
        self,
        driver: Driver,
        bridge: Bridge,
        bell: Doorbell,
        listeners: Sequence[socket.socket],
        *,
        max_write_buffer: int,
        certificate: Certificate | None,
    ) -> None:
        self.driver = driver
        self.bridge = bridge
        self.max_write_buffer = max_write_buffer
        self.transports: set[SocketTransport] = set()
        self.turning_away = False
        """Set once every connection was told to close: those who come now would be told nothing."""
        self.scheme = "http" if certificate is None else "https"
        self._certificate = certificate
        self._selector: Any = real_selectors().DefaultSelector()
        self._selector.register(bell.sock, selectors.EVENT_READ, bell)
        self._ready: deque[tuple[Watched, int]] = deque()
        self._ending: Timers[SocketTransport] = Timers()
        self._ended: deque[SocketTransport] = deque()
        self._guests: dict[int, Guest] = {}
        self._listeners = [Listener(self, sock) for sock in listeners]
        self._resume: float | None = None  # when accepting goes on, where it is paused
        self._exhaustions = 0
        self._last_exhausted = -math.inf
        self._complaints = Complaints()
        self._exhausted: float | None = None  # when that was said, until it is said to be over
        self._now = -math.inf
        self._accept()

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Address and port of every listening socket; of a Unix socket its path, and 0."""
        return tuple(listener.local for listener in self._listeners)

    def fileno(self) -> int:
        """The descriptor that can be read while a socket is ready."""
        return int(self._selector.fileno())

    def next_deadline(self) -> float | None:
        """When there is something to do although no socket is ready."""
        if self._ready:
            return self._now
        ending = self._ending.next()
        return ending if self._resume is None else earliest(ending, self._resume)

    def turn(self, now: float) -> None:
        """Look at the sockets that are ready, at a bounded number of them."""
        self._now = now
        if self._resume is not None and self._resume <= now:
            self._accept()
        if self._ready:
            # Many are: what comes to a guest, as an update for all of them does, is not to stand in line behind them.
            for guest in tuple(self._guests.values()):
                guest.ready(0, now)
        else:
            self._ready.extend((key.data, events) for key, events in self._selector.select(0))
        for _ in range(min(EVENTS_PER_TURN, len(self._ready))):
            watched, events = self._ready.popleft()
            if not isinstance(watched, SocketTransport):
                watched.ready(events, now)
            elif events & watched.events:  # else it has ended since, or is not to be read from any more
                try:
                    watched.ready(events, now)
                except Exception:
                    self._drop(watched)
        while (transport := self._ending.pop_due(now)) is not None:
            self._ended.append(transport)

    def attend(self, fileno: int, call: Callable[[float], bool], now: float) -> None:
        """Call ``call(now)`` at once, and whenever the descriptor can be read or may be, until it says False."""
        if fileno not in self._guests:
            self._guests[fileno] = Guest(self, fileno, call)
            self._selector.register(fileno, selectors.EVENT_READ, self._guests[fileno])
        self._guests[fileno].ready(0, now)

    def has(self, guest: Guest) -> bool:
        """Whether it is still to be called."""
        return self._guests.get(guest.fileno) is guest

    def dismiss(self, guest: Guest) -> None:
        """Call it no more."""
        del self._guests[guest.fileno]
        self._selector.unregister(guest.fileno)

    def finish_ended(self, now: float) -> bool:
        """Report every connection lost that has ended since; whether there was one.

        For when the outputs are performed: the driver may be in the middle of something before.
        """
        found = bool(self._ended)
        while self._ended:
            transport = self._ended.popleft()
            if transport in self.transports:
                self.transports.discard(transport)
                self._ending.cancel(transport)
                try:
                    transport.finish(now)
                except Exception:
                    log.exception(
                        "Error in the driver over a connection that has ended", extra={"event": "driver_error"}
                    )
        return found

    def begin(self, sock: socket.socket, peer: Peer, now: float) -> None:
        """A connection was accepted."""
        if self.turning_away:
            sock.close()
            return
        if self._exhausted is not None and self._last_exhausted + QUIET <= now:
            log.warning(
                "Connections are accepted again; for %.0f seconds some had to wait (%d times so far)",
                self._last_exhausted - self._exhausted + PAUSE, self._exhaustions, extra={"event": "accepting_again"},
            )  # fmt: skip
            self._exhausted = None
        sock.setblocking(False)
        if self._certificate is None:
            transport = SocketTransport(self, sock)
        else:
            transport = TLSTransport(self, sock, self._certificate.context)
        self.transports.add(transport)
        try:
            transport.begin(peer, now)
        except Exception:
            self._drop(transport)

    def watch(self, transport: SocketTransport, events: int) -> None:
        """Call the connection's ``ready`` for these events; always 0 before its socket is closed."""
        before = transport.events
        if not before and events:
            self._selector.register(transport.sock, events, transport)
        elif not events and before:
            self._selector.unregister(transport.sock)
        elif events != before:
            self._selector.modify(transport.sock, events, transport)
        transport.events = events

    def end(self, transport: SocketTransport, after: float) -> None:
        """Finish the connection in so many seconds; the soonest of several calls counts."""
        if after:
            self._ending.set(transport, self._now + after)
        else:
            self._ended.append(transport)

    def pause(self, error: OSError, now: float) -> None:
        """Accept nothing for a while: there is nothing left to accept with."""
        if self._resume is not None:
            return
        self._resume = now + PAUSE
        for listener in self._listeners:
            self._selector.unregister(listener.sock)
        self._exhaustions += 1
        self._last_exhausted = now
        if self._complaints.due("", "descriptors", now):
            self._exhausted = now if self._exhausted is None else self._exhausted
            log.warning(
                "Cannot accept connections for now: %s (%d times so far). Those that are open are served; "
                "allow more open files (ulimit -n)", error.strerror, self._exhaustions,
                extra={"event": "accepting_paused", "reason": error.strerror},
            )  # fmt: skip

    def close(self) -> None:
        """Close the listening sockets and the selector. The connections have ended before."""
        for listener in self._listeners:
            listener.sock.close()
        self._selector.close()

    def _accept(self) -> None:
        self._resume = None
        for listener in self._listeners:
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    @staticmethod
    def _drop(transport: SocketTransport) -> None:
        """A mistake in the driver is paid for by the one connection that it was called for."""
        log.exception("Error while serving a connection; it is dropped", extra={"event": "connection_error"})
        transport.abort()


def _address(name: Any) -> tuple[str, int]:
    """Address and port of what a socket says of its ends; a Unix socket has a path, or an abstract name."""
    if isinstance(name, tuple):
        # A socket on "::" that takes IPv4 too has it in IPv6's clothes (RFC 4291, section 2.5.5.2).
        return name[0].removeprefix("::ffff:") if "." in name[0] else name[0], name[1]
    return name.replace(b"\0", b"@").decode(errors="replace") if isinstance(name, bytes) else name, 0
