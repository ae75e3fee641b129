"""All clients of a fault run together: they come, are restless until told otherwise, and settle."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from kits import PATIENCE
from kits.soak.clients import Follow, SoakClient
from kits.soak.plan import Plan
from kits.soak.verdict import place
from kits.soak.wire import new_http


class Crowd:
    """All clients of a plan, and what they do of their own accord."""

    def __init__(
        self, plan: Plan, bases: Mapping[str, str], cookies: Mapping[str, str], project_ids: Mapping[str, str]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._http = new_http()
        self._tasks: list[asyncio.Task[None]] = []
        self._restless: list[asyncio.Task[None]] = []
        self._flooded = False
        self.clients = [
            SoakClient(
                each, bases, cookies[each.user], self._http,
                {project_ids[name]: Follow(project_ids[name]) for name in each.projects},
                plan.chance(f"client {each.number}"), self.counts,
            )
            for each in plan.clients
        ]  # fmt: skip
        self.stalled = [client for client in self.clients if client.plan.kind == "stalled"]

    async def start(self) -> None:
        """Let them come, one after another."""
        for client in self.clients:
            client.may_read.set()
            self._tasks.append(asyncio.create_task(client.run(), name=client.name))
            await asyncio.sleep(0.01)
        for client in self.clients:
            if client.plan.kind != "steady":
                self._restless.append(asyncio.create_task(self._be_restless(client)))

    async def _be_restless(self, client: SoakClient) -> None:
        chance = self._plan.chance(f"restless {client.plan.number}")
        while True:
            await asyncio.sleep(chance.uniform(2.0, 8.0))
            if client.plan.kind == "flapping":
                self.counts["flaps"] += 1
                client.flap()
            else:
                self.counts["stalls"] += 1
                client.may_read.clear()
                await asyncio.sleep(chance.uniform(1.0, 5.0))
                if not self._flooded:
                    client.may_read.set()

    def stall(self) -> None:
        """Have those that stall stop reading until they are told to read on."""
        self._flooded = True
        for client in self.stalled:
            client.may_read.clear()

    def read_on(self) -> None:
        self._flooded = False
        for client in self.stalled:
            client.may_read.set()

    def has(self, newest: Mapping[str, str]) -> bool:
        """Whether everybody in the room has these updates of these projects."""
        return all(
            follow.left or (follow.newest is not None and place(follow.newest) >= place(newest[project_id]))
            for client in self.clients
            for project_id, follow in client.follows.items()
            if project_id in newest
        )

    async def calm(self) -> None:
        """Everybody reads, and stays where they are."""
        for task in self._restless:
            task.cancel()
        await asyncio.gather(*self._restless, return_exceptions=True)
        self.read_on()

    async def settle(self, newest: Mapping[str, str]) -> int:
        """Wait until everybody is done, or has had its time: how many are not, of which the verdict will say more."""
        settling = [asyncio.create_task(client.settle(newest)) for client in self.clients]
        _, late = await asyncio.wait(settling, timeout=PATIENCE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in self._tasks:
            if task.done():
                task.result()  # it never ends by itself, unless it failed
        return len(late)

    async def close(self) -> None:
        """Have them all go."""
        for task in (*self._restless, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._restless, *self._tasks, return_exceptions=True)
        await self._http.close()
