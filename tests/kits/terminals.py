"""``automoderate watch`` in processes of their own, and what may be between it and a server."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from live_server import PATIENCE, ROOT


class Terminal:
    """``automoderate watch`` in a process of its own; its lines can be waited for."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "automoderate", "watch", *arguments],
            cwd=ROOT,
            env={**os.environ, "TZ": "UTC", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out, self.err = self._lines(self._process.stdout), self._lines(self._process.stderr)

    def _lines(self, stream: Any) -> queue.SimpleQueue[str]:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            with stream:
                for line in stream:
                    lines.put(line.rstrip("\n"))

        self._readers = [*getattr(self, "_readers", []), threading.Thread(target=read)]
        self._readers[-1].start()
        return lines

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            for reader in self._readers:
                reader.join()


Open = Callable[..., Terminal]


@contextlib.contextmanager
def terminals() -> Iterator[Open]:
    """Open terminals, and leave none behind."""
    opened: list[Terminal] = []

    def open_one(*arguments: str, **environment: str) -> Terminal:
        opened.append(Terminal(*arguments, **environment))
        return opened[-1]

    yield open_one
    for one in opened:
        one.interrupt()
        one.wait()


class Cable:
    """Forwards TCP connections to a server until they are cut; more may follow."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = port
        self._open: list[socket.socket] = []
        self.plugged = threading.Event()
        self.plugged.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self.plugged.is_set():
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Cut all connections, and let no other through until ``plugged`` is set."""
        self.plugged.clear()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class NoWebSocket(Cable):
    """A proxy that lets no WebSocket through: ``answer`` is what it says to one, or nothing."""

    def __init__(self, port: int, answer: bytes) -> None:
        self._answer = answer
        super().__init__(port)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # A client that wants one says so in the first request of a connection.
            if b"upgrade: websocket" in source.recv(65536, socket.MSG_PEEK).lower():
                source.sendall(self._answer)
                source.shutdown(socket.SHUT_RDWR)
                return
        super()._copy(source, sink)
