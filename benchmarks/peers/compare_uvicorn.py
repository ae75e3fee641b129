"""Which of uvicorn's WebSocket implementations serves python-socketio best.

    python -m benchmarks.peers.compare_uvicorn

They take turns at one room, and the CPU time of the server for each delivery is printed, with its median. On 24
November 2026, on two cores of a shared AMD EPYC: websockets 128 µs, websockets-sansio 99, wsproto 105 (medians of 9).
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from attrs import evolve

from benchmarks.generator import LoadGenerator
from benchmarks.peers.contenders import PEERS
from benchmarks.servers import Contender, Server
from benchmarks.world import World

IMPLEMENTATIONS = ("websockets", "websockets-sansio", "wsproto")
MEMBERS = 1000
UPDATES = 20
ROUNDS = 3
PATIENCE = 60.0  # seconds


def costs(contender: Contender, world: World) -> list[float]:
    """Server CPU of one delivery in microseconds, of several runs with the same sessions."""
    server = Server(contender, world.config, 0)
    load = None
    try:
        load = LoadGenerator(server.ports, 1)
        load.connect(world.members(MEMBERS, 1), None)
        found = []
        for _ in range(ROUNDS):
            before = server.cpu()
            load.begin(UPDATES)
            server.publish(rooms=1, updates=UPDATES, batch=1, rate=None)
            measured = load.result(PATIENCE)
            server.hear(PATIENCE)
            found.append((server.cpu() - before) / measured.deliveries * 1e6)
        return found
    finally:
        if load is not None:
            load.close()
        server.close()


def main() -> None:
    """Measure each in turn, and print."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder), [(MEMBERS, 1)])
        for _ in range(ROUNDS):
            for name in IMPLEMENTATIONS:
                contender = evolve(PEERS[0], argv=(*PEERS[0].argv, "--ws", name))
                found[name] += costs(contender, world)
    for name, values in found.items():
        samples = " ".join(f"{value:.0f}" for value in values)
        print(f"{name:<20}{statistics.median(values):>6.0f} µs a delivery   ({samples})")


if __name__ == "__main__":
    main()
