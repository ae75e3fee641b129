"""What publishes during a fault run, in every way there is, and the truth log: what was accepted, line by line."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import define, field

from automoderate.backplane.redis import RedisBackplane, RedisPublisher
from automoderate.notifier.http import PublishingApi, PublishingError
from automoderate.server import Server
from automoderate.server.interfaces import BackplaneUnavailable
from kits import PATIENCE, until
from kits.soak.plan import BUSY_PROJECTS, FLOOD, Plan
from kits.soak.verdict import Accepted, Attempts

Way: TypeAlias = Literal["http a", "http b", "backplane", "door"]
WAYS: tuple[Way, ...] = ("http a", "http b", "backplane", "door")
EVENT = "moderation_update"
DOOR_PATIENCE = 3.0
PACE: Mapping[bool, tuple[float, float]] = {True: (0.1, 0.6), False: (1.0, 4.0)}
"""Seconds between two publications of a project, busy or not."""


class TruthLog:
    """Accepted publications, each written the moment it is known; read again for the verdict. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("w", encoding="utf-8")

    def write(self, project: str, number: int, event_id: str) -> None:
        with self._lock:
            self._file.write(json.dumps([project, number, event_id]) + "\n")
            self._file.flush()

    def read(self) -> dict[str, list[Accepted]]:
        """By project, in the order of acceptance."""
        found: dict[str, list[Accepted]] = {}
        for line in self._path.read_text("utf-8").splitlines():
            project, number, event_id = json.loads(line)
            found.setdefault(project, []).append(Accepted(number, event_id))
        return found

    def close(self) -> None:
        self._file.close()


@define(eq=False)
class _Project:
    """One project's numbering. Whoever publishes to it holds the lock until the outcome is known."""

    name: str
    project_id: str
    api_key: str
    lock: threading.Lock = field(factory=threading.Lock)
    tried: set[int] = field(factory=set)
    repeatable: set[int] = field(factory=set)


class Publishers:
    """A thread for each project, and floods on demand. ``counts`` has what became of what, by way."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        redis_url: str,
        entries: int,
        bases: Mapping[str, str],
        projects: Mapping[str, tuple[str, str]],
    ) -> None:
        """``projects`` has each project's id and API key, by name."""
        self.log = TruthLog(folder / "truth.log")
        self.counts: Counter[str] = Counter()
        self.newest = dict.fromkeys(projects, "0-0")
        """The id of the newest update of each project that is known to be accepted, by the project's name."""
        self._plan = plan
        self._bases = bases
        self._backplane = RedisBackplane(redis_url, entries=entries)
        self._door = RedisPublisher(redis_url, patience=DOOR_PATIENCE, max_waiting=10_000, entries=entries)
        self._projects = {name: _Project(name, *known) for name, known in projects.items()}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(project,), name=f"publisher of {project.name}")
            for project in self._projects.values()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Publish no more by itself, and wait for what is under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.stop()
        self._backplane.close()
        self._door.close(0.0)
        self.log.close()

    def attempts(self, name: str) -> Attempts:
        project = self._projects[name]
        return Attempts(frozenset(project.tried), frozenset(project.repeatable))

    def flood(self, name: str) -> None:
        """Publish many large updates at once."""
        self._publish(self._projects[name], "backplane", FLOOD)

    def mark(self, name: str) -> None:
        """Publish until one is accepted."""
        until(lambda: self._publish(self._projects[name], "backplane", [10]), f"the last update of {name}")

    # Inside

    def _run(self, project: _Project) -> None:
        chance = self._plan.chance(f"publisher of {project.name}")
        pace = PACE[project.name in BUSY_PROJECTS]
        while not self._stopping.wait(chance.uniform(*pace)):
            way = chance.choice(WAYS)
            sizes = [_size(chance) for _ in range(chance.choice((1, 1, 1, 2, 3, 8)))]
            self._publish(project, way, sizes)

    def _publish(self, project: _Project, way: Way, sizes: Sequence[int]) -> int:
        """Publish updates under new numbers, which are never used again; how many are known to be accepted."""
        with project.lock:
            first = len(project.tried)
            batch = {number: _data(project.project_id, number, size) for number, size in enumerate(sizes, first)}
            project.tried |= batch.keys()
            if way == "door":
                project.repeatable |= batch.keys()
            if way in ("door", "backplane"):
                accepted = self._to_redis(way, project, batch)
            else:
                accepted = self._over_http(self._bases[way[-1]], project, batch)
        self.counts[f"{way}: accepted"] += accepted
        self.counts[f"{way}: not known to be"] += len(batch) - accepted
        return accepted

    def _to_redis(self, way: Way, project: _Project, batch: Mapping[int, Mapping[str, Any]]) -> int:
        """All at once, as a pipeline that is busy does."""
        if way == "door":
            futures = {number: self._door.publish(project.project_id, EVENT, data) for number, data in batch.items()}
        else:
            texts = {number: Server.encode(data) for number, data in batch.items()}
            futures = {number: self._backplane.publish(project.project_id, EVENT, texts[number]) for number in texts}
        accepted = 0
        for number, future in futures.items():
            with contextlib.suppress(BackplaneUnavailable):
                self._accepted(project, number, future.result(PATIENCE))
                accepted += 1
        return accepted

    def _over_http(self, base: str, project: _Project, batch: Mapping[int, Mapping[str, Any]]) -> int:
        accepted = 0
        with PublishingApi(base, timeout=PATIENCE) as api:
            for number, data in batch.items():
                try:
                    event_id = api.publish(project.project_id, EVENT, data, project.api_key)
                except PublishingError:
                    continue
                self._accepted(project, number, event_id)
                accepted += 1
        return accepted

    def _accepted(self, project: _Project, number: int, event_id: str) -> None:
        self.log.write(project.name, number, event_id)
        self.newest[project.name] = event_id


def _size(chance: random.Random) -> int:
    """Bytes of one update: mostly few."""
    return chance.randint(3_000, 20_000) if chance.random() < 0.05 else chance.randint(50, 1_000)


def _data(project_id: str, number: int, size: int) -> dict[str, Any]:
    return {"project_id": project_id, "number": number, "status": "approved", "content_preview": "x" * size}
