"""``automoderate serve`` in processes of their own."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from kits import PATIENCE, PYTHONPATH, ROOT, until

SECRET_KEY = "a secret for these tests only, and no other"


def environment(**settings: str) -> dict[str, str]:
    """Nothing of this machine's, and these settings."""
    names = ("SECRET_KEY", "DATABASE_URL")
    clean = {name: value for name, value in os.environ.items() if name not in names and "AUTOMODERATE_" not in name}
    given = {f"AUTOMODERATE_{name.upper()}": value for name, value in settings.items()}
    return clean | {"SECRET_KEY": SECRET_KEY, "PYTHONPATH": PYTHONPATH, "PYTHONUNBUFFERED": "1"} | given


def stop_process(pid: int) -> None:
    """Stop a child of ours where it is; it has stopped on return, which is some time after the signal."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def steady_port() -> int:
    """A free loopback port to come back to, outside the range that the system hands out.

    One of those may be somebody else's by the time the server is back: another server's, or that of a client that
    meanwhile tries to connect to it, and so to itself.
    """
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    while True:
        port: int = random.choice([*range(10_000, lowest), *range(highest + 1, 65_536)] or range(10_000, 65_536))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Process:
    """One server, perhaps with workers of its own; before it starts ``environment`` and ``folder`` may be changed."""

    def __init__(self, log: Path, *arguments: str, **settings: str) -> None:
        self.environment = environment(**settings)
        self.folder = ROOT
        self.started_by: list[str] = []  # a command that starts the one behind it
        self.command = [sys.executable, "-m", "automoderate", "serve", *arguments]
        self._log = log
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """All it has written so far."""
        return self._log.read_text("utf-8")

    @property
    def running(self) -> bool:
        """Whether it was started and nobody has waited for its end yet."""
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it listened last."""
        found = re.findall(r"listening on https?://127\.0\.0\.1:(\d+)", self.log)
        return int(found[-1])

    def start(self, processes: int = 1) -> None:
        """Start it and wait until that many processes listen."""
        assert self.try_to_start(processes), self.log

    def try_to_start(self, processes: int = 1) -> bool:
        """Start it and wait until that many processes listen; False where it ended instead."""
        before = len(self.log)
        process = self.launch()
        until(lambda: self.log[before:].count("listening on") >= processes or process.poll() is not None)
        return process.poll() is None

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        command = [*self.started_by, *self.command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stderr=log, env=self.environment
            )
        return self._process

    def try_again(self) -> subprocess.CompletedProcess[str]:
        """Run the command once more beside the one that runs, to its end."""
        return subprocess.run(
            self.command, cwd=self.folder, stdin=subprocess.DEVNULL, env=self.environment,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def wait(self) -> int:
        """Wait for its end: the exit status."""
        process, self._process = self._process, None
        assert process is not None
        return process.wait(PATIENCE)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end: the exit status."""
        os.kill(self.pid, number)
        return self.wait()

    def close(self) -> None:
        """Stop it if it runs."""
        if self.running:
            self.stop()
