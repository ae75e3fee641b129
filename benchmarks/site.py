"""A server under test with all its sessions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, frozen

from benchmarks.cluster import Cluster
from benchmarks.generator import Connected, Heard, LoadGenerator, Measured
from benchmarks.servers import Contender, Server
from benchmarks.world import World, changed

LIMIT = 0.9  # of a core: beyond it the load generator may have been what was measured
FIRST = 0.1  # of the sessions: they pay for what a server makes once, as threads and connections to the database
SETTLING = 10.0  # seconds, at most, for what a server has left to do before it is stopped
GLANCE, IDLE = 0.05, 0.1  # it has nothing left when it has used less than this share of a core for so many seconds


@frozen
class Cores:
    """Where processes run: None where there are not two cores to choose."""

    server: int | None
    load: int | None
    nodes: Sequence[int | None] = ()
    """Of servers that share a Redis, one for each."""
    others: int | None = None
    """Of that Redis, and of who publishes through it."""


@define(eq=False)
class Site:
    """A server with all its sessions. Raises :exc:`ChildFailed` wherever one of them fails."""

    contender: Contender
    server: Server | Cluster
    load: LoadGenerator
    config: Path
    cores: Cores
    crowded: bool
    """Redis and the publisher share the load generator's core."""
    capacity: float = 0.0
    """Deliveries a second in the last run without a fixed rate."""
    posts: float = 0.0
    """POSTs a second in the last run of them."""

    @classmethod
    def start(
        cls, contender: Contender, config: Path, cores: Cores, *, polling: bool = False, sleeps: bool = False
    ) -> Site:
        """Start server and load generator, which ``sleeps`` where its core has others to do something for too."""
        server: Server | Cluster
        if contender.nodes:
            server = Cluster(contender, config, cores.nodes, cores.others)
        else:
            server = Server(contender, config, cores.server)
        crowded = bool(contender.nodes) and cores.others == cores.load
        awake = cores.load is not None and not crowded and not sleeps
        try:
            load = LoadGenerator(server.ports, cores.load, awake=awake, receipts=server.receipts, polling=polling)
            return cls(contender, server, load, config, cores, crowded)
        except BaseException:
            server.close()
            raise

    def close(self) -> None:
        self.load.close()
        self.server.close()

    def alone(self) -> Server:
        """The server, which is one process and shares nothing."""
        assert isinstance(self.server, Server)
        return self.server

    def restart(self) -> Server:
        """End the server at once, as a crash does, and have a new one listen on its port, which counts its statements.

        The new one stood by, as its successor would behind a socket that stays open: how long a runtime takes to start
        is no matter of those who come back.
        """
        before = self.alone()
        config = changed(self.config, port=before.ports[0], counting=True, standby=True)
        after = Server(self.contender, config, self.cores.server, standby=True)
        before.close()
        self.server = after
        after.listen()
        return after

    def rest(self) -> None:
        """Let the server wait for its turn without costing the others anything.

        Ten thousand idle sessions keep python-socketio's service task busy for 4 % of a core. A node would be taken for
        gone by its Redis; nodes stay awake. A question over which a server was stopped would time out later.
        """
        if isinstance(self.server, Server):
            self.settle()
            self.server.rest()

    def settle(self, seconds: float = SETTLING) -> bool:
        """Give the server time to do what is left; whether it was enough."""
        deadline, before = time.monotonic() + seconds, self.server.cpu()
        while time.monotonic() < deadline:
            time.sleep(GLANCE)
            after = self.server.cpu()
            if after - before < IDLE * GLANCE:
                return True
            before = after
        return False

    def wake(self) -> None:
        """It is the server's turn."""
        if isinstance(self.server, Server):
            self.server.wake()

    def connect(self, world: World, members: int, rooms: int) -> dict[str, dict[str, Any]]:
        """Connect and join everybody; the figures of ``connect`` and ``memory``."""
        everybody = world.members(members, rooms)
        first = math.ceil(members * FIRST)
        self.load.connect(everybody[:first])
        before, cpu = self.server.resident(), self.server.cpu()
        connected = self.load.connect(everybody[first:], world.probe())
        cpu, after = self.server.cpu() - cpu, self.server.resident()
        return {
            "connect": {
                "members": connected.joined, "rate": connected.joined / connected.seconds,
                **costs(connected, cpu, connected.joined),
            },
            "memory": {
                "members": connected.joined, "before": before, "after": after,
                "bytes_each": (after - before) / connected.joined,
            },
        }  # fmt: skip


def costs(done: Connected | Measured | Heard, server_cpu: float, number: int, beside: float = 0.0) -> dict[str, Any]:
    """What it took. ``beside`` are CPU seconds that others have used of the load generator's core."""
    share = (done.cpu + beside) / done.seconds
    return {
        "seconds": done.seconds, "server_cpu": server_cpu, "cost_us": server_cpu / number * 1e6,
        "load_share": share, "load_limited": share > LIMIT,
    }  # fmt: skip
