"""Several processes behind one port: a parent that starts workers, starts them again when they end, and stops them.

Every worker has a listening socket of its own (``SO_REUSEPORT``), and the kernel gives each its share of the
connections. One socket inherited by all would go to the worker that wakes up first, with all that waits: after a
restart, when everybody comes back at once, that is one worker, and the connections stay for hours. The price is that
nothing of a session may need a second connection: workers serve WebSocket, not long-polling. A Unix socket, or one that
systemd has opened, can only be shared: then that is the price.

The parent serves nothing. It holds the port, so that no other program gets it while a worker is away, and waits for
signals. A worker that finds its parent gone leaves as on SIGTERM.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

import attrs
from attrs import define

from automoderate import _logs, app
from automoderate._listening import UnixSocket, bind
from automoderate.app import CannotStart
from automoderate.settings import Settings

RESTART_FIRST = 0.5
"""Seconds before a worker that ended is started again; doubles each time, with chance in it."""
RESTART_LAST = 30.0
STEADY = 60.0
"""A worker that ran this long, in seconds, is started again as if it had never ended before."""

READY = signal.SIGUSR1
"""What a worker sends its parent once it takes connections."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, READY)

log = logging.getLogger("automoderate.supervisor")


def run(settings: Settings, sockets: Sequence[socket.socket] = ()) -> int:
    """Serve with ``settings.workers`` processes until SIGTERM or SIGINT; the exit status.

    The first worker starts alone: what keeps it from starting would keep all of them, and is said once. All of them
    take connections from ``sockets`` where there are some, or from the Unix socket of the settings. Call it in the main
    thread of a process that has no other. Raises :exc:`CannotStart`.
    """
    with contextlib.ExitStack() as stack:
        try:
            held, shared = _take(settings, sockets, stack)
        except OSError as error:
            raise CannotStart(app.cannot_listen(error)) from error
        lifeline, parents_end = os.pipe()
        stack.callback(os.close, lifeline)
        stack.callback(os.close, parents_end)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        stack.callback(_forget_signals)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # what is ignored is not waited for everywhere
        if held:
            settings = attrs.evolve(settings, port=held[0].getsockname()[1])
        return _Supervisor(settings, held, shared, lifeline, parents_end).run()


def _forget_signals() -> None:
    """Forget what only the supervisor waits for: the signal of a timer or of a worker would end this process now."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGALRM, READY):
        before = signal.signal(number, signal.SIG_IGN)  # with which one that is pending is gone
        signal.signal(number, before)


def _take(
    settings: Settings, sockets: Sequence[socket.socket], stack: contextlib.ExitStack
) -> tuple[Sequence[socket.socket], Sequence[socket.socket]]:
    """What the parent holds for workers with sockets of their own, and what they share in place of that."""
    held: Sequence[socket.socket] = ()
    if not sockets and settings.uds is not None:
        unix_socket = UnixSocket(settings.uds)
        sockets = [unix_socket.sock]
        stack.callback(unix_socket.sock.close)
        stack.callback(unix_socket.remove)
    elif not sockets:
        held = _hold(settings.host, settings.port)
        for sock in held:
            stack.enter_context(sock)
    return held, sockets


def _hold(host: Sequence[str], port: int) -> list[socket.socket]:
    """Take the port for workers alone. ``OSError`` where somebody listens there already, also in the same way."""
    for probe in bind(host, port, reuse_port=False):
        port = probe.getsockname()[1]
        probe.close()
    return bind(host, port, reuse_port=True)


@define
class _Worker:
    """One of the processes, or the time at which its successor starts."""

    number: int
    pid: int | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        held: Sequence[socket.socket],
        shared: Sequence[socket.socket],
        lifeline: int,
        parents_end: int,
    ) -> None:
        self._settings = settings
        self._held = held
        self._shared = shared
        self._lifeline = lifeline
        self._parents_end = parents_end
        self._workers = [_Worker(number) for number in range(1, settings.workers + 1)]
        self._ready = False  # a worker has shown that workers can start
        self._stopping = False
        # As with nohup. A signal that is ignored can be waited for all the same.
        self._hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._status = 0

    def run(self) -> int:
        """Start, watch, and stop."""
        self._start(self._workers[0])
        while any(worker.pid for worker in self._workers) or not self._stopping:
            number = signal.sigwait(SIGNALS)
            if number == signal.SIGHUP and self._settings.ssl_certfile is not None:
                log.info(
                    "SIGHUP: the workers are told to renew their certificate", extra={"event": "certificate_renewal"}
                )
                self._pass_on(signal.SIGHUP)
            elif number in (signal.SIGTERM, signal.SIGINT) or (number == signal.SIGHUP and not self._hangup_ignored):
                name, at_once = signal.Signals(number).name, " at once" if self._stopping else ""
                log.info("%s: the workers leave%s", name, at_once, extra={"event": "draining", "reason": name})
                self._stopping = True
                self._pass_on(signal.SIGTERM)  # they drain; asked once more, they leave at once
            elif number == READY:
                self._on_ready()
            for pid, status in _ended():
                self._on_end(pid, status)
            if not self._stopping:
                self._start_due()
        return self._status

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)

    def _on_ready(self) -> None:
        if not self._ready:
            self._ready = True
            for worker in self._workers[1:]:
                worker.due = time.monotonic()

    def _on_end(self, pid: int, status: int) -> None:
        worker = next((worker for worker in self._workers if worker.pid == pid), None)
        if worker is None:  # an orphan, as process 1 of a container gets them
            return
        worker.pid = None
        if self._stopping:
            return
        if not self._ready:
            self._stopping, self._status = True, status if status > 0 else 1
            return
        now = time.monotonic()
        worker.failures = 0 if now - worker.started >= STEADY else worker.failures + 1
        delay = min(RESTART_LAST, RESTART_FIRST * 2 ** max(0, worker.failures - 1)) * random.uniform(0.5, 1.0)
        worker.due = now + delay
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        log.error(
            "worker %d (process %d) %s; it is started again in %.1f s", worker.number, pid, how, delay,
            extra={"event": "worker_ended", "worker": worker.number, "reason": how},
        )  # fmt: skip

    def _start_due(self) -> None:
        """Start the workers whose time has come, and wake up for the next."""
        if not self._ready:
            return
        waiting = [worker for worker in self._workers if worker.pid is None]
        for worker in waiting:
            if worker.due <= time.monotonic():
                self._start(worker)
        times = [worker.due for worker in waiting if worker.pid is None]
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(times) - time.monotonic()) if times else 0)

    def _start(self, worker: _Worker) -> None:
        parent = os.getpid()
        worker.started = time.monotonic()
        worker.pid = os.fork()
        if worker.pid == 0:
            self._become(worker.number, parent)
        log.info(
            "worker %d is process %d", worker.number, worker.pid,
            extra={"event": "worker_started", "worker": worker.number},
        )  # fmt: skip

    def _say(self, problem: str) -> None:
        """Tell why this process cannot start: as every command does, unless a program reads the log."""
        if self._settings.log_format == _logs.JSON:
            log.critical("%s", problem, extra={"event": "cannot_start", "reason": problem})
        else:
            print(f"Error: {problem}", file=sys.stderr)

    def _become(self, number: int, parent: int) -> NoReturn:
        """What the new process does, to its end."""
        status = 1
        try:
            # Ctrl-C goes to everybody in a process group: the parent alone passes it on, as one SIGTERM.
            os.setpgid(0, 0)
            os.close(self._parents_end)
            for sock in self._held:
                sock.close()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            _logs.name_worker(number, self._settings.log_format)
            threading.Thread(target=_leave_with_the_parent, args=(self._lifeline,), daemon=True).start()
            assembly = app.build(self._settings, self._shared)
            assembly.run(lambda _: os.kill(parent, READY))
            status = 0
        except CannotStart as error:
            self._say(str(error))
            status = 3
        except BaseException:
            log.exception("Error in worker %d", number, extra={"event": "worker_error", "worker": number})
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(status)


def _ended() -> Iterator[tuple[int, int]]:
    """Every process that has ended: its id, and its exit status or the negative number of a signal."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def _leave_with_the_parent(lifeline: int) -> None:
    """Wait for the end of the pipe whose other end only the parent has."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
