"""What every Python server under test needs to keep to the line protocol of :mod:`benchmarks.servers`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from attrs import define, field, frozen


@frozen
class Config:
    """What the file CONFIG says."""

    database_url: str
    secret_key: str
    projects: list[str]
    template: dict[str, Any]
    ping_interval: float
    port: int
    recovery: bool
    limits: Literal["raised", "default"]
    counting: bool
    standby: bool
    window: int

    @classmethod
    def load(cls, path: str | Path) -> Config:
        return cls(**json.loads(Path(path).read_text()))


@frozen
class Publish:
    """One command: ``updates`` updates to rooms 0 to ``rooms`` - 1 in turn, ``batch`` at a time."""

    rooms: int
    updates: int
    rate: float | None
    batch: int

    def batches(self) -> Iterator[int]:
        """How many updates to hand over in one go, again and again until there are none left."""
        for start in range(0, self.updates, self.batch):
            yield min(self.batch, self.updates - start)

    def due(self, begin: float) -> Iterator[tuple[float, int]]:
        """When each batch leaves, counted from ``begin``, and its size; for a command with a rate."""
        assert self.rate is not None
        for number, size in enumerate(self.batches()):
            yield begin + number * self.batch / self.rate, size


@define
class Updates:
    """Makes one update after the other, to each room in turn: quickly, as servers are charged for it."""

    config: Config
    with_event_id: bool = True
    """Whether to add an ``event_id``; where the server itself does, the updates are as long without."""
    _seq: list[int] = field(init=False)
    """Of each room's next update."""
    _room: int = 0

    def __attrs_post_init__(self) -> None:
        self._seq = [0] * len(self.config.projects)

    def begin(self) -> None:
        """The next update goes to room 0, as with every command."""
        self._room = 0

    def next(self, rooms: int) -> tuple[str, dict[str, Any]]:
        """The next update's project and data, stamped with the present time."""
        room = self._room
        self._room = room + 1 if room + 1 < rooms else 0
        seq = self._seq[room]
        self._seq[room] = seq + 1
        project_id = self.config.projects[room]
        data = self.config.template.copy()
        data["project_id"] = project_id
        data["meta_data"] = meta_data = data["meta_data"].copy()
        meta_data["seq"] = seq
        meta_data["sent"] = time.monotonic_ns()
        if self.with_event_id:
            data["event_id"] = f"{time.time_ns() // 1_000_000}-{seq % 10}"
        return project_id, data


def stand_by(config: Config) -> None:
    """Wait until connections are to be taken, where that is wanted."""
    if config.standby:
        say({"standing_by": True})
        os.read(sys.stdin.fileno(), 100)  # not through the file, of which somebody else reads on


def ready(port: int) -> None:
    """Say that connections are taken."""
    say({"port": port})


def say(answer: dict[str, Any]) -> None:
    """Say one line."""
    print(json.dumps(answer), flush=True)


@define(eq=False)
class Statements:
    """Counts what SQLAlchemy is asked to say to a database, whichever thread asks."""

    asked: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)

    @classmethod
    def counted(cls) -> Statements:
        """From now on."""
        from sqlalchemy import Engine, event  # here, as not every server asks through it

        counter = cls()
        event.listen(Engine, "before_cursor_execute", counter._count)
        return counter

    def _count(self, *_: Any) -> None:
        with self._lock:
            self.asked += 1


def serve_commands(publish: Callable[[Publish], None], statements: Statements | None = None) -> None:
    """Carry out every command and answer, ``publish`` when it returns; returns when there will be no more."""
    for line in sys.stdin:
        command = json.loads(line)
        if "publish" in command:
            publish(Publish(**command["publish"]))
            say({"published": command["publish"]["updates"]})
        else:
            say({"statements": statements.asked if statements else 0})
