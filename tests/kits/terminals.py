"""``automoderate watch`` in processes of their own."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kits import PATIENCE, ROOT


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
