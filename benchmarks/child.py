"""A child process that is spoken with in lines."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

LEAVING = 2.0  # seconds a child has to end once its input has
TAIL = 400  # characters of what a child said last that go into an error


class ChildFailed(RuntimeError):
    """A child ended, said nothing in time, or said that something went wrong; the message is one line."""


def cpu_seconds(pid: int) -> float:
    """CPU seconds a process has used, all its threads together."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of it on Linux


class Child:
    """A process on one core (None: on any) that takes lines and answers each with a line of JSON."""

    def __init__(self, argv: Sequence[str], core: int | None, inherited: Sequence[int] = ()) -> None:
        """It has the ``inherited`` open files too, by the same numbers."""
        self.argv = argv
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        # In a group of its own: when a shell leaves, the kernel hangs up on its groups that have stopped processes. For
        # the same reason a stopped child does not outlive us, however we end.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0, pass_fds=inherited,
            process_group=0,
        )  # fmt: skip
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})  # before it has threads, which inherit it
        self._heard = bytearray()

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, text: str) -> None:
        """Send one line, or several. Raises :exc:`ChildFailed`."""
        assert self._process.stdin is not None
        data = memoryview(text.encode() + b"\n")
        try:
            while data:
                data = data[self._process.stdin.write(data) or 0 :]
        except BrokenPipeError:
            raise ChildFailed(self._last_words("ended")) from None

    def hear(self, seconds: float) -> dict[str, Any]:
        """The next line it says. Raises :exc:`ChildFailed`, also where that is an error."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._heard:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise ChildFailed(self._last_words(f"said nothing for {seconds:.0f} seconds"))
            data = self._process.stdout.read(65536)
            if not data:
                raise ChildFailed(self._last_words("ended"))
            self._heard += data
        line, _, rest = self._heard.partition(b"\n")
        self._heard = bytearray(rest)
        heard: dict[str, Any] = json.loads(line)
        if "error" in heard:
            raise ChildFailed(heard["error"])
        return heard

    def cpu(self) -> float:
        """CPU seconds the process has used, all its threads together."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Bytes of it that are in memory."""
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """Let :meth:`peak` be of what comes now."""
        with open(f"/proc/{self.pid}/clear_refs", "w") as clear:
            clear.write("5")  # proc(5)

    def peak(self) -> int:
        """The most bytes of it that have been in memory."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))

    def rest(self) -> None:
        """Stop it where it is, until ``wake``; it has stopped on return."""
        self._process.send_signal(signal.SIGSTOP)
        # The kernel stops a process some time after it has taken the signal.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def wake(self) -> None:
        """Let it go on; harmless where it does already, or has ended."""
        self._process.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Wait for its end. Raises :exc:`subprocess.TimeoutExpired`."""
        self._process.wait(seconds)

    def close(self) -> None:
        """End it by ending its input; killed when it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.wake()
        self._process.stdin.close()
        try:
            self._process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self, what: str) -> str:
        self._errors.seek(0)
        said = " ".join(self._errors.read().decode(errors="replace").split())[-TAIL:]
        return f"{self.argv[0]} {what}{': ' + said if said else ''}"
