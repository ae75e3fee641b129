"""A whole fault run: from a plan to a verdict, with a word on what happens when."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from kits.soak.clients import SoakClient
from kits.soak.crowd import Crowd
from kits.soak.plan import FLOODED_PROJECTS, NODES, PROJECTS, Fault, Plan
from kits.soak.publisher import Publishers
from kits.soak.stage import ENTRIES, LIMITS, Stage
from kits.soak.verdict import Entry, Follower, Role, Violation, judge_follower, judge_stream, recoveries

PROGRESS = 10.0
"""Seconds between two words on how it goes."""
Say = Callable[[str], None]


@frozen
class Outcome:
    """What came of a run."""

    violations: tuple[Violation, ...]
    recovered: int
    not_recovered: int
    table: str
    """All that was counted, for people."""


def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """Play the plan with real processes, whose files go to ``folder``, and judge it."""
    began = time.monotonic()

    def timed(text: str) -> None:
        say(f"{time.monotonic() - began:6.1f} s  {text}")

    stage = Stage(plan, folder)
    try:
        stage.start()
        timed("Redis and nodes " + ", ".join(f"{name} ({runtime})" for name, runtime in plan.adapters.items()))
        publishers = Publishers(plan, folder, stage.redis.url, ENTRIES, stage.bases, stage.projects)
        try:
            return asyncio.run(_Run(plan, folder, stage, publishers, timed).play())
        finally:
            publishers.close()
    finally:
        stage.close()


class _Run:
    def __init__(self, plan: Plan, folder: Path, stage: Stage, publishers: Publishers, say: Say) -> None:
        self._plan = plan
        self._folder = folder
        self._stage = stage
        self._publishers = publishers
        self._say = say
        self._faults: Counter[str] = Counter()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._over = False
        self._flooded: dict[str, str] = {}
        """Up to which update each project was flooded, by the project's id."""

    async def play(self) -> Outcome:
        ids = {name: project_id for name, (project_id, _) in self._stage.projects.items()}
        crowd = Crowd(self._plan, self._stage.bases, self._stage.cookies(), ids)
        try:
            self._publishers.start()
            await crowd.start()
            self._say(f"{len(crowd.clients)} clients have come")
            progress = asyncio.create_task(self._report(crowd))
            await self._break_things(crowd)
            progress.cancel()
            await self._settle(crowd)
            followers = {name: list(self._followers(crowd, name)) for name in PROJECTS}
        finally:
            await crowd.close()
        return self._judge(followers, crowd)

    async def _report(self, crowd: Crowd) -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            accepted = sum(count for name, count in self._publishers.counts.items() if name.endswith("accepted"))
            connected = sum(client.wire is not None for client in crowd.clients)
            self._say(
                f"{accepted} updates accepted, {crowd.counts['updates received']} received, "
                f"{connected} clients connected, {crowd.counts['connections']} connections so far"
            )

    # Faults

    async def _break_things(self, crowd: Crowd) -> None:
        """Begin each fault when it is due, and wait until all are over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as faults:
            for fault in self._plan.faults:
                await asyncio.sleep(began + fault.at - time.monotonic())
                faults.create_task(self._perform(fault, crowd))
            await asyncio.sleep(began + self._plan.seconds - time.monotonic())
            self._over = True

    async def _perform(self, fault: Fault, crowd: Crowd) -> None:
        """One fault of Redis and one of a node at a time: what is broken is mended first, and one node is there."""
        async with self._turns[fault.kind.split()[0]]:
            while fault.kind == "flood" and not self._over and not crowd.has(self._flooded):
                await asyncio.sleep(0.1)  # two floods are more than is replayed
            if self._over:
                self._faults["left out, as others took their time"] += 1
                return
            self._say(str(fault))
            self._faults[fault.kind] += 1
            if fault.kind == "clients cut":
                for number in fault.clients:
                    crowd.clients[number].cut()
            elif fault.kind == "client leaves":
                crowd.clients[fault.clients[0]].leave(self._stage.projects[fault.target][0])
            elif fault.kind == "flood":
                await self._flood(fault, crowd)
            else:
                await asyncio.to_thread(self._stage.perform, fault)

    async def _flood(self, fault: Fault, crowd: Crowd) -> None:
        """More than the kernel and the server hold for a client that does not read."""
        crowd.stall()
        for name in FLOODED_PROJECTS:
            await asyncio.to_thread(self._publishers.flood, name)
            self._flooded[self._stage.projects[name][0]] = self._publishers.newest[name]
        await asyncio.sleep(fault.seconds)
        crowd.read_on()

    # The end

    async def _settle(self, crowd: Crowd) -> None:
        """No more faults: everybody gets what they are still to get."""
        await crowd.calm()
        await asyncio.to_thread(self._publishers.stop)
        await asyncio.to_thread(self._stage.heal)
        self._say("all is well again")
        for name in PROJECTS:
            await asyncio.to_thread(self._publishers.mark, name)
        newest: dict[str, str] = {}
        while newest != (newest := await asyncio.to_thread(self._stage.newest)):
            late = await crowd.settle(newest)  # what nobody knew of may have come behind the last update
            self._say(f"{late} clients are without the last update" if late else "everybody has the last update")

    def _followers(self, crowd: Crowd, name: str) -> Iterator[Follower]:
        project_id, _ = self._stage.projects[name]
        for client in crowd.clients:
            follow = client.follows.get(project_id)
            if follow is not None:
                records = tuple(follow.records)
                yield Follower(f"{client.name} of {client.plan.user} in {name}", self._role(client, name), records)

    def _role(self, client: SoakClient, name: str) -> Role:
        user = client.plan.user
        if name not in client.plan.projects or user not in self._plan.members[name]:
            return Role.OUTSIDER
        if (name, user) in self._stage.removed:
            return Role.REMOVED
        return Role.MEMBER if client.follows[self._stage.projects[name][0]].wanted else Role.LEAVER

    def _judge(self, followers: dict[str, list[Follower]], crowd: Crowd) -> Outcome:
        truth = self._publishers.log.read()
        violations: list[Violation] = []
        streams: dict[str, list[Entry]] = {}
        for name in PROJECTS:
            stream = streams[name] = self._stage.stream_of(name)
            violations += judge_stream(name, truth.get(name, []), self._publishers.attempts(name), stream)
            for follower in followers[name]:
                found = judge_follower(follower, stream, LIMITS)
                if found:
                    self._keep(follower, found)
                violations += found
        recovered = recoveries([follower for each in followers.values() for follower in each])
        return Outcome(tuple(violations), recovered[True], recovered[False], self._table(followers, streams, crowd))

    def _keep(self, follower: Follower, found: list[Violation]) -> None:
        """Write down all that happened to a client that was wronged, for whoever looks for the cause."""
        with (self._folder / "wronged.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in (*found, *follower.records, ""))

    def _table(self, followers: dict[str, list[Follower]], streams: dict[str, list[Entry]], crowd: Crowd) -> str:
        roles = Counter(f"as {follower.role.value}" for each in followers.values() for follower in each)
        dropped = sum(self._stage.log_of(node).count("Dropped a peer that takes no data") for node in NODES)
        sections: dict[str, Counter[str]] = {
            "faults": self._faults,
            "published": self._publishers.counts,
            "in the streams": Counter({name: len(stream) for name, stream in streams.items()}),
            "clients in projects": roles,
            "clients": crowd.counts,
            "nodes": Counter({"dropped peers that took no data": dropped}),
        }
        lines = []
        for title, counts in sections.items():
            lines.append(title)
            lines.extend(f"  {name:<40}{count:>10,}" for name, count in sorted(counts.items()))
        return "\n".join(lines)
