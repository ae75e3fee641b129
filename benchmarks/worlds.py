"""The worlds of a run: the one in SQLite that nearly all scenarios are in, and what is different for some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import define

from benchmarks import postgresql
from benchmarks.postgresql import PostgreSQL
from benchmarks.scenarios import Scenario, Variant
from benchmarks.world import World, changed


@define(eq=False)
class Worlds:
    """Made in ``folder``, for scenarios that are to find their members allowed. Use as a context manager."""

    folder: Path
    scenarios: Sequence[Scenario]
    core: int | None = None
    """PostgreSQL's."""
    _usual: World | None = None
    _other: World | None = None
    _postgresql: PostgreSQL | None = None

    def __enter__(self) -> Worlds:
        return self

    def __exit__(self, *_: object) -> None:
        if self._postgresql is not None:
            self._postgresql.close()

    def missing(self, variant: Variant) -> str | None:
        """Why there can be no such world here, in one line that names the fix; None where there can."""
        return postgresql.missing() if variant == "postgresql" else None

    def of(self, variant: Variant) -> World:
        """Who takes part. Raises :exc:`ChildFailed` where a database does not start."""
        if variant == "postgresql":
            self._other = self._other or self._in_postgresql()
            return self._other
        self._usual = self._usual or World.make(self.folder, self._layouts(postgresql=False))
        return self._usual

    def config(self, scenario: Scenario) -> Path:
        """What servers are started with."""
        path = self.of(scenario.variant).config
        if scenario.variant == "recovery":
            return changed(path, recovery=True)
        return changed(path, window=scenario.window) if scenario.window else path

    def _in_postgresql(self) -> World:
        self._postgresql = PostgreSQL(self.core)
        folder = self.folder / "postgresql"
        folder.mkdir()
        return World.make(folder, self._layouts(postgresql=True), self._postgresql.url)

    def _layouts(self, *, postgresql: bool) -> list[tuple[int, int]]:
        return [s.layout for s in self.scenarios if (s.variant == "postgresql") is postgresql]
