"""A client of a fault run: it does what the documentation tells clients to do, and notes what it sees.

A client remembers the newest id of each project, comes back by itself after every loss, to the other node where one
does not take it, and asks for what it missed. What happens to it besides (cuts, stalls, leaving) is said from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import aiohttp
from attrs import define, field

from kits.contract_client import event_packet
from kits.soak.plan import NODES, ClientPlan
from kits.soak.verdict import Asked, Cut, Got, Joined, Left, Record, place
from kits.soak.wire import Gone, Wire, open_wire

NOBODYS = "a project nobody has"
"""Leaving it is answered behind everything that was on its way."""
BACK_OFF = 0.1, 2.0
"""Seconds before the first try to come back, doubled from one to the next, and the most it grows to."""
ASK_AGAIN = 0.5
"""Seconds until a join that the server could not answer is asked again."""
SILENCE = 45.0
"""Seconds without a heartbeat after which a client gives its connection up: ping interval and ping timeout."""


@define(eq=False)
class Follow:
    """A client's interest in one project."""

    project_id: str
    records: list[Record] = field(factory=list)
    newest: str | None = None
    wanted: bool = True
    asked: bool = False
    """It waits for an answer."""
    inside: bool = False
    left: bool = False
    """It was told that it is not in the room, or left it by itself."""


@define(eq=False)
class SoakClient:
    """One client, as a task that ends when it is cancelled."""

    plan: ClientPlan
    bases: Mapping[str, str]
    cookie: str
    http: aiohttp.ClientSession
    follows: dict[str, Follow]
    chance: random.Random
    counts: Counter[str]
    may_read: asyncio.Event = field(factory=asyncio.Event)
    wire: Wire | None = None
    _at: int = 0
    _tries: int = 0
    _barrier: asyncio.Event = field(factory=asyncio.Event)
    _errands: set[asyncio.Task[None]] = field(factory=set)

    @property
    def name(self) -> str:
        return f"client {self.plan.number} ({self.plan.kind}, {self.plan.transport})"

    async def run(self) -> None:
        """Connect, and come back after every loss."""
        self._at = NODES.index(self.plan.node)
        while True:
            with contextlib.suppress(Gone):
                try:
                    await self._session()
                finally:
                    self._lost()
            first, longest = BACK_OFF
            await asyncio.sleep(min(longest, first * 2.0**self._tries) * self.chance.uniform(0.5, 1.5))
            self._tries += 1

    async def _session(self) -> None:
        base = self.bases[NODES[self._at]]
        try:
            wire = await open_wire(self.plan.transport, self.http, base, self.cookie)
        except Gone:
            self._at = 1 - self._at
            raise
        self.wire = wire
        self.counts["connections"] += 1
        try:
            while True:
                await self.may_read.wait()
                try:
                    async with asyncio.timeout(SILENCE):
                        packet = await wire.receive()
                except TimeoutError:
                    raise Gone("no heartbeat") from None
                for answer in self._take(packet):
                    await wire.send(answer)
        finally:
            self.wire = None
            await wire.close()

    def _lost(self) -> None:
        for follow in self.follows.values():
            follow.asked = follow.inside = False
            follow.records.append(Cut())
            if not follow.wanted and not follow.left:
                follow.left = True
                follow.records.append(Left())

    # What the server says

    def _take(self, packet: str) -> Iterable[str]:
        """Take one packet; what is to be answered."""
        kind = packet[:1]
        if kind == "0":
            return ["40"]
        if kind == "2":
            return ["3"]
        if kind == "1" or packet[:2] in ("41", "44"):
            raise Gone(packet)
        if packet[:2] != "42":
            return []
        event, data = json.loads(packet[2:])
        handler = self._handlers.get(event)
        return handler(self, data) if handler is not None else []

    def _on_connected(self, _data: Mapping[str, Any]) -> Iterable[str]:
        self._tries = 0
        return [self._ask(follow) for follow in self.follows.values() if follow.wanted]

    def _on_joined(self, data: Mapping[str, Any]) -> Iterable[str]:
        follow = self._follow(data["project_id"])
        follow.records.append(Joined(data["last_event_id"], data.get("recovered")))
        follow.newest, follow.asked, follow.inside = data["last_event_id"], False, True
        self.counts["joins"] += 1
        return []

    def _on_update(self, data: Mapping[str, Any]) -> Iterable[str]:
        follow = self._follow(data["project_id"])
        follow.records.append(Got(data["event_id"], data["number"]))
        follow.newest = data["event_id"]
        self.counts["updates received"] += 1
        return []

    def _on_left(self, data: Mapping[str, Any]) -> Iterable[str]:
        if data["project_id"] == NOBODYS:
            self._barrier.set()
        else:
            self._out_of(self._follow(data["project_id"]))
        return []

    def _on_error(self, data: Mapping[str, Any]) -> Iterable[str]:
        self.counts[f"answered {data['code']}"] += 1
        if "project_id" in data:
            follow = self._follow(data["project_id"])
            if data["code"] == "access_denied":
                self._out_of(follow)
            else:
                self._later(follow)
        return []

    def _out_of(self, follow: Follow) -> None:
        follow.records.append(Left())
        follow.asked, follow.inside, follow.left = False, False, True

    def _follow(self, project_id: str) -> Follow:
        """Its interest in a project; what it never asked for is noted, too, and held against the server."""
        return self.follows.setdefault(project_id, Follow(project_id, wanted=False))

    _handlers: ClassVar[Mapping[str, Callable[[SoakClient, Mapping[str, Any]], Iterable[str]]]] = {
        "connected": _on_connected,
        "joined_project": _on_joined,
        "moderation_update": _on_update,
        "left_project": _on_left,
        "error": _on_error,
    }

    # What it says

    def _ask(self, follow: Follow) -> str:
        follow.asked = True
        follow.records.append(Asked(follow.newest))
        payload: dict[str, str] = {"project_id": follow.project_id}
        if follow.newest is not None:
            payload["last_event_id"] = follow.newest
        return event_packet("join_project", payload)

    def _later(self, follow: Follow) -> None:
        """Ask again on the same connection, if it is still there then."""
        wire = self.wire

        async def ask() -> None:
            await asyncio.sleep(ASK_AGAIN * self.chance.uniform(0.5, 1.5))
            if wire is not None and wire is self.wire and follow.wanted and not follow.inside:
                await wire.send(self._ask(follow))

        self._errand(ask)

    def _errand(self, errand: Callable[[], Any]) -> None:
        async def run() -> None:
            with contextlib.suppress(Gone):
                await errand()

        task = asyncio.create_task(run())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # What happens to it

    def cut(self) -> None:
        """The network fails it."""
        if self.wire is not None:
            self.wire.cut()

    def flap(self) -> None:
        """It goes over to the other node."""
        self._at = 1 - self._at
        self.cut()

    def leave(self, project_id: str) -> None:
        """It has seen enough of a project."""
        follow = self.follows[project_id]
        follow.wanted = False
        wire = self.wire
        if wire is not None:
            self._errand(lambda: wire.send(event_packet("leave_project", {"project_id": project_id})))
        elif not follow.left:
            self._out_of(follow)

    async def settle(self, newest: Mapping[str, str]) -> None:
        """Wait until it has everything it is to have, and nothing more is on its way to it."""
        while not self._has(newest) or not await self._silent():
            await asyncio.sleep(0.05)

    def _has(self, newest: Mapping[str, str]) -> bool:
        return all(_settled(follow, newest) for follow in self.follows.values())

    async def _silent(self) -> bool:
        """Whether the server has answered behind everything that it had said before."""
        wire = self.wire
        self._barrier.clear()
        if wire is None:
            return False
        try:
            await wire.send(event_packet("leave_project", {"project_id": NOBODYS}))
            await asyncio.wait_for(self._barrier.wait(), 5.0)
        except (Gone, TimeoutError):
            return False
        return True


def _settled(follow: Follow, newest: Mapping[str, str]) -> bool:
    """In the room with everything up to the newest, or out of it and told so."""
    if follow.left:
        return not follow.asked
    return follow.inside and follow.newest is not None and place(follow.newest) >= place(newest[follow.project_id])
