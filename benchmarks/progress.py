"""What a run says of itself while it lasts, on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from attrs import define, field


@define
class Progress:
    """One line that is written over on a terminal, a line for each step elsewhere."""

    steps: int
    stream: TextIO = field(factory=lambda: sys.stderr)
    _step: int = 0
    _began: float = field(factory=time.monotonic)

    def begin(self, what: str) -> None:
        """The next step; on a terminal it is shown while it lasts."""
        self._step += 1
        if self.stream.isatty():
            self._rewrite(f"{self._head()} {what}")

    def end(self, what: str) -> None:
        """The step is done, with this result."""
        if self.stream.isatty():
            self._rewrite(f"{self._head()} {what}")
        else:
            print(f"{self._head()} {what}", file=self.stream, flush=True)

    def say(self, what: str) -> None:
        """Something that is no step, and stays to be read on a terminal too."""
        if self.stream.isatty():
            self._rewrite("")
        print(f"{self._head()} {what}", file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the terminal's line empty."""
        if self.stream.isatty():
            self._rewrite("")

    def _head(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"[{self._step}/{self.steps} {minutes}:{seconds:02d}]"

    def _rewrite(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}\r", end="", file=self.stream, flush=True)
