"""The other clients: what they wait for while something is done to their server."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define

from benchmarks.child import Child, ChildFailed
from benchmarks.generator import Measured
from benchmarks.inside import ANSWER, LONGEST
from benchmarks.servers import Contender
from benchmarks.site import Cores, Site
from benchmarks.world import World, changed

MEMBERS = 100
"""So many that each of them asks seldom enough for the default limits."""
PING_MS, JOIN_MS, RATE = 2.0, 20.0, 50.0
"""Milliseconds between two pings and two joins of all members together, and updates a second to their room."""
PATIENCE = 10.0
"""Seconds without an update after which a run is ended."""
RESTING = 3.0
"""Seconds that a server has to come to rest before it is put up again instead."""
WARM_UP = 0.5
"""Seconds in which a server gets used to its clients."""


@define(eq=False)
class Ground:
    """Where one contender's server is, with the other clients, and is put up again when it did not survive."""

    contender: Contender
    world: World
    cores: Cores
    members: int = MEMBERS
    _site: Site | None = None

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take it down."""
        site, self._site = self._site, None
        if site is not None:
            site.close()

    def site(self) -> Site:
        """The server and its clients, ready. Raises :exc:`ChildFailed`."""
        if self._site is None:
            self._site = start(self.contender, self.world.config, self.cores, self.world, self.members)
            wait_with(self._site, WARM_UP)
        return self._site

    @contextlib.contextmanager
    def taken(self) -> Iterator[Site]:
        """The site, which is taken down where it fails or has not come to rest afterwards."""
        site = self.site()
        try:
            yield site
            if not site.settle(RESTING):
                self.clear()
        except BaseException:
            self.clear()
            raise


def start(
    contender: Contender, config: Path, cores: Cores, world: World, members: int = MEMBERS, *, limits: str = "default"
) -> Site:
    """A server with so many other clients, who ask in turn. Raises :exc:`ChildFailed`."""
    site = Site.start(contender, changed(config, limits=limits), cores, sleeps=True)
    try:
        site.load.connect(world.members(members, 1))
        site.load.let_ask(members)
    except BaseException:
        site.close()
        raise
    return site


def wait_with(
    site: Site, seconds: float, begin: Callable[[], object] = lambda: None, rate: float = RATE
) -> dict[str, Any]:
    """What the others wait for while what ``begin`` begins goes on. Raises :exc:`ChildFailed` where one is lost.

    Where nothing comes for :data:`PATIENCE` seconds, the figures are ``gave_up`` alone, which is that.
    """
    server, updates = site.alone(), max(1, round(rate * seconds))
    site.load.begin(updates, ping_ms=PING_MS, join_ms=JOIN_MS, patience=PATIENCE)
    server.forget_peak()
    before, cpu = server.resident(), server.cpu()
    begin()
    server.publish(rooms=1, updates=updates, batch=1, rate=rate)
    try:
        measured = site.load.result(LONGEST)
    except ChildFailed as error:
        if "nothing more comes" not in str(error):
            raise
        return {"gave_up": PATIENCE}
    cpu = server.cpu() - cpu
    server.hear(ANSWER)
    return waits(measured) | {"grown": max(0, server.peak() - before), "server_cpu": cpu}


def waits(measured: Measured) -> dict[str, Any]:
    """How long pings, joins and updates took; and of all three the worst."""
    found = {
        name: {"count": delays.count, **delays.summary()}
        for name, delays in (("ping", measured.ping), ("join", measured.join), ("delay", measured.delivery))
    }
    return {
        **found,
        "p99_ms": max(figures["p99_ms"] for figures in found.values()),
        "max_ms": max(figures["max_ms"] for figures in found.values()),
    }


class Attack(Child):
    """Hostile clients who send one of :mod:`benchmarks.hostile.inputs`. Raises :exc:`ChildFailed`."""

    def __init__(self, port: int, name: str, connections: int, core: int | None) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.hostile.attacker", str(port), name, str(connections)], core)
        try:
            self.hear(LONGEST)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Attack."""
        self.say("go")

    def end(self) -> dict[str, Any]:
        """End it; what they have done."""
        self.say("stop")
        return self.hear(LONGEST)
