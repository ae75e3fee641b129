"""Runs the scenarios: servers take turns, each with its own sessions, and every run becomes a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen

from benchmarks.child import ChildFailed
from benchmarks.cluster import Cluster
from benchmarks.generator import Connected, LoadGenerator, Measured
from benchmarks.progress import Progress
from benchmarks.results import Results, Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import Contender, Server
from benchmarks.world import World

LIMIT = 0.9  # of a core: beyond it the load generator may have been what was measured
MOST_DELIVERIES = 300_000  # in one run
WARM_UP = 3000  # deliveries
STARTS = 2  # times, at most, that all sessions connect for a figure: it takes longer than everything else
FIRST = 0.1  # of the sessions: they pay for what a server makes once, as threads and connections to the database
PING_MS, JOIN_MS = 2.0, 20.0  # between two questions of the probe
LONGEST = 120.0  # seconds a run may take
ANSWER = 30.0  # seconds in which a server has to say that it has published, when everything has arrived
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
    crowded: bool
    """Redis and the publisher share the load generator's core."""
    capacity: float = 0.0
    """Deliveries a second in the last run without a fixed rate."""

    @classmethod
    def start(cls, contender: Contender, config: Path, cores: Cores) -> Site:
        server: Server | Cluster
        if contender.nodes:
            server = Cluster(contender, config, cores.nodes, cores.others)
        else:
            server = Server(contender, config, cores.server)
        crowded = bool(contender.nodes) and cores.others == cores.load
        awake = cores.load is not None and not crowded
        try:
            load = LoadGenerator(server.ports, cores.load, awake=awake, receipts=server.receipts)
            return cls(contender, server, load, crowded)
        except BaseException:
            server.close()
            raise

    def close(self) -> None:
        self.load.close()
        self.server.close()

    def rest(self) -> None:
        """Let the server wait for its turn without costing the others anything.

        Ten thousand idle sessions keep python-socketio's service task busy for 4 % of a core. A node would be taken for
        gone by its Redis; nodes stay awake.
        """
        if isinstance(self.server, Server):
            self._settle(self.server)
            self.server.rest()

    @staticmethod
    def _settle(server: Server) -> None:
        """Give a server time to do what is left: a question over which it was stopped would time out later."""
        deadline, before = time.monotonic() + SETTLING, server.cpu()
        while time.monotonic() < deadline:
            time.sleep(GLANCE)
            after = server.cpu()
            if after - before < IDLE * GLANCE:
                return
            before = after

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
                **_costs(connected, cpu, connected.joined),
            },
            "memory": {
                "members": connected.joined, "before": before, "after": after,
                "bytes_each": (after - before) / connected.joined,
            },
        }  # fmt: skip

    def warm_up(self, scenario: Scenario, seconds: float) -> None:
        """A short run that tells how long a real one has to be; none where it would be as long as a real one."""
        unpaced = evolve(scenario, kind="throughput", rate=None)
        updates = scenario.step * math.ceil(WARM_UP / scenario.deliveries(scenario.step))
        if not self.capacity or (scenario.rate is None and scenario.deliveries(updates) < self.capacity * seconds):
            measured, _ = self._publish(unpaced, updates)
            self.capacity = measured.deliveries / measured.seconds

    def measure(self, scenario: Scenario, seconds: float) -> dict[str, Any]:
        """The figures of one run of about so many seconds."""
        deliveries = min(MOST_DELIVERIES, self.capacity * seconds)
        if scenario.rate is not None:  # at which not every server can follow
            deliveries = min(deliveries, scenario.deliveries(scenario.rate * seconds))
        updates = scenario.step * max(1, round(deliveries / scenario.deliveries(scenario.step)))
        measured, spent = self._publish(scenario, updates)
        others = {name: seconds for name, seconds in spent.items() if name != "server"}
        beside = sum(others.values()) if self.crowded else 0.0
        rate = measured.deliveries / measured.seconds
        if scenario.rate is None:
            self.capacity = rate
        figures = {
            "updates": updates, "deliveries": measured.deliveries, "rate": rate,
            **_costs(measured, spent["server"], measured.deliveries, beside),
            **{f"{name}_cpu": seconds for name, seconds in others.items()},
            **{f"{name}_us": seconds / updates * 1e6 for name, seconds in others.items()},
            "delay": {
                **measured.delivery.summary(),
                "histogram": [[bound / 1000, count] for bound, count in measured.delivery.counts],
            },
        }  # fmt: skip
        if scenario.kind == "stall":
            for name, delays in (("ping", measured.ping), ("join", measured.join)):
                figures[name] = {"count": delays.count, **delays.summary()}
        return figures

    def _publish(self, scenario: Scenario, updates: int) -> tuple[Measured, dict[str, float]]:
        """Publish, and wait until everything has arrived; with the CPU seconds meanwhile, by who has used them."""
        stall = scenario.kind == "stall"
        self.load.begin(updates // scenario.rooms, ping_ms=PING_MS if stall else 0, join_ms=JOIN_MS if stall else 0)
        before = self.server.spent()
        self.server.publish(rooms=scenario.rooms, updates=updates, batch=scenario.batch, rate=scenario.rate)
        measured = self.load.result(LONGEST)
        spent = {name: seconds - before[name] for name, seconds in self.server.spent().items()}
        self.server.hear(ANSWER)
        return measured, spent


def _costs(done: Connected | Measured, server_cpu: float, number: int, beside: float = 0.0) -> dict[str, Any]:
    """``beside`` are CPU seconds that others have used of the load generator's core."""
    share = (done.cpu + beside) / done.seconds
    return {
        "seconds": done.seconds, "server_cpu": server_cpu, "cost_us": server_cpu / number * 1e6,
        "load_share": share, "load_limited": share > LIMIT,
    }  # fmt: skip


@define(eq=False)
class Run:
    """One run of everything that was chosen. ``seconds`` is what one throughput run should last, ``long`` one at a
    fixed rate. Nothing is begun when ``deadline``, on the monotonic clock, has passed; a note says what is missing."""

    results: Results
    world: World
    cores: Cores
    repeat: int
    seconds: float
    long: float
    deadline: float
    progress: Progress
    _sites: dict[str, Site] = field(factory=dict)
    """The servers that are up, by their contenders' names."""

    @staticmethod
    def steps(scenarios: Sequence[Scenario], contenders: Sequence[Contender], repeat: int) -> int:
        """How often ``progress`` is told of something."""
        layouts = {scenario.layout for scenario in scenarios}
        connecting = {scenario.layout for scenario in scenarios if scenario.kind in ("connect", "memory")}
        measured = [scenario for scenario in scenarios if scenario.kind not in ("connect", "memory")]
        starts = len(layouts) + len(connecting) * (min(repeat, STARTS) - 1)
        return len(contenders) * (starts + len(measured) * repeat)

    def run(self) -> None:
        """Measure everything; nothing is left running, however it ends."""
        try:
            for layout in dict.fromkeys(scenario.layout for scenario in self.results.scenarios):
                self._run_layout([scenario for scenario in self.results.scenarios if scenario.layout == layout])
        finally:
            for name in list(self._sites):
                self._close(name)

    def _run_layout(self, scenarios: Sequence[Scenario]) -> None:
        start = [scenario for scenario in scenarios if scenario.kind in ("connect", "memory")]
        measured = [scenario for scenario in scenarios if scenario.kind not in ("connect", "memory")]
        for number in range(min(self.repeat, STARTS) if start else 1):
            for contender in self.results.contenders:
                if self._in_time(contender.name, start or [scenarios[0]]):
                    self._close(contender.name)
                    self._open(contender, scenarios[0], start, number)
        for scenario in measured:
            for number in range(self.repeat):
                for name in [contender.name for contender in self.results.contenders if contender.name in self._sites]:
                    if self._in_time(name, [scenario]):
                        self._measure(name, scenario, number)
        for name in list(self._sites):
            self._close(name)

    def _in_time(self, name: str, scenarios: Sequence[Scenario]) -> bool:
        """Whether there is time for another run; where there is not, note whose and of what."""
        if time.monotonic() < self.deadline:
            return True
        what = ", ".join(scenario.name for scenario in scenarios)
        note = f"{what}: no time was left for {name}, or not for every repetition"
        if note not in self.results.notes:
            self.results.notes.append(note)
        return False

    def _open(self, contender: Contender, layout: Scenario, start: Sequence[Scenario], number: int) -> None:
        """Start a server and connect everybody, which is a sample of its own where it was asked for."""
        what = f"{contender.name}: {layout.members:,} sessions in {layout.rooms:,} rooms"
        self.progress.begin(what)
        if contender.most_members is not None and layout.members > contender.most_members:
            note = f"{contender.title} is not measured with more than {contender.most_members:,} members"
            if note not in self.results.notes:
                self.results.notes.append(note)
            self.progress.end(note)
            return
        try:
            site = self._sites[contender.name] = Site.start(contender, self.world.config, self.cores)
            figures = site.connect(self.world, *layout.layout)
        except ChildFailed as error:
            self._failed(contender.name, start or [layout], number, error)
            return
        for scenario in start:
            if contender.kind != "floor":  # it logs nobody in
                self.results.samples.append(Sample(scenario.name, contender.name, number, figures[scenario.kind]))
        site.rest()
        self.progress.end(f"{what}, {figures['connect']['rate']:,.0f}/s")

    def _measure(self, name: str, scenario: Scenario, number: int) -> None:
        site = self._sites[name]
        what = f"{scenario.name} {name} {number + 1}"
        self.progress.begin(what)
        if site.contender.kind == "floor" and scenario.kind == "stall":  # it does nothing else meanwhile
            self.progress.end(f"{what}: left out")
            return
        try:
            site.wake()
            seconds = self.seconds if scenario.rate is None else self.long
            if number == 0:
                site.warm_up(scenario, seconds)
            figures = site.measure(scenario, seconds)
            site.rest()
        except ChildFailed as error:
            self._failed(name, [scenario], number, error)
            return
        self.results.samples.append(Sample(scenario.name, name, number, figures))
        self.progress.end(f"{what}: {figures['rate']:,.0f}/s, p99 {figures['delay']['p99_ms']:.2f} ms")

    def _failed(self, name: str, scenarios: Sequence[Scenario], number: int, error: ChildFailed) -> None:
        """Note what went wrong; the server is not asked again in this layout."""
        self._close(name)
        for scenario in scenarios:
            self.results.samples.append(Sample(scenario.name, name, number, {"error": str(error)}))
        self.progress.end(f"{name}: {error}")

    def _close(self, name: str) -> None:
        site = self._sites.pop(name, None)
        if site is not None:
            site.close()
