"""Several nodes that share a backplane, in one virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import zip_longest
from typing import Any

from attrs import evolve

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import (
    AccessChanged,
    History,
    HistoryLost,
    Limits,
    LoggedOut,
    PresenceReport,
    PresenceShared,
    Published,
    Update,
)
from automoderate.server import Server
from automoderate.server.api import ApiOptions
from automoderate.server.interfaces import Asked, Backplane, Heard, Listen, NodeAnswer, Receive
from automoderate.server.tracing import Tracer
from automoderate.testing.directory import MemoryDirectory
from automoderate.testing.network import Faults
from automoderate.testing.simulation import EPOCH, Simulation

ANSWERED_WITHIN = 2.0
"""Seconds that a node has to answer what another asks."""


class Nodes:
    """Several servers that share their updates, as through Redis, with one clock and one directory.

    Each node hears of an update up to ``max_delay`` seconds after it was published, each at a time of its own. A node
    is a ``Simulation``: ``nodes[1].connect("alice")``. To operators they are ``node 1``, ``node 2`` and so on.
    """

    def __init__(
        self, count: int = 2, *, seed: int = 0, max_delay: float = 0.0, faults: Faults | None = None,
        limits: Limits | None = None, api: ApiOptions | None = None, tracer: Tracer | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.max_delay = max_delay
        self.directory = MemoryDirectory()
        self.now = 1000.0
        self.backplanes: list[SharedBackplane] = []
        self._started = 0
        self._awaited: dict[str, Callable[[str], None]] = {}
        self._shared = self._new_history()
        options = api or ApiOptions()
        self._nodes = [
            _Node(self, self.random.random(), faults, limits, evolve(options, about={"node": f"node {number}"}), tracer)
            for number in range(1, count + 1)
        ]

    def __getitem__(self, index: int) -> Simulation:
        return self._nodes[index]

    def new_name(self) -> str:
        """The name of a node that begins: one that is started anew is another."""
        self._started += 1
        return f"node {self._started}"

    def publish(self, project_id: str, event: str, data: Mapping[str, Any]) -> str:
        """Publish an event from anywhere; returns its ``event_id``."""
        return self.publish_text(project_id, event, Server.encode(data))

    def publish_text(self, project_id: str, event: str, text: str, trace: str | None = None) -> str:
        """Publish an event whose data was encoded before; returns the update's ``event_id``."""
        update = self._shared.publish(project_id, event, text, trace)
        for backplane in self.backplanes:
            backplane.hear(update)
        return update.event_id

    def expect_answer(self, answered: Callable[[str], None]) -> str:
        """Where to answer so that ``answered`` is called."""
        reply_to = f"answer {len(self._awaited)}"
        self._awaited[reply_to] = answered
        return reply_to

    def take_answer(self, reply_to: str, text: str) -> None:
        """An answer to something that was asked."""
        self._awaited[reply_to](text)

    def read(self, project_id: str, after: str | None, newest: int, before: str | None) -> History:
        """A project's history, as every node reads it."""
        return self._shared.read(project_id, after, newest, before)

    def forget(self) -> None:
        """Lose the shared history, as a Redis does that comes back empty."""
        self._shared = self._new_history()
        for backplane in self.backplanes:
            backplane.lose()

    def run(self, *, within: float = 5.0) -> None:
        """Let everything happen that is under way on any node, for at most ``within`` seconds of virtual time."""
        self._go(self.now + within, lambda node: node.busy)

    def advance(self, seconds: float) -> None:
        """Let this much virtual time pass on every node."""
        limit = self.now + seconds
        self._go(limit, lambda _: True)
        self._set(limit)

    def _go(self, limit: float, wanted: Callable[[_Node], bool]) -> None:
        while any(wanted(node) for node in self._nodes):
            times = [(when, index) for index, node in enumerate(self._nodes) if (when := node.next_time()) is not None]
            if not times or min(times)[0] > limit:
                return
            when, index = min(times)
            self._set(when)
            self._nodes[index].step(when)

    def _set(self, now: float) -> None:
        self.now = now
        for node in self._nodes:
            node.now = now

    def _new_history(self) -> MemoryBackplane:
        return MemoryBackplane(wall=lambda: EPOCH + self.now)


class _Node(Simulation):
    """One of several nodes. Its clock is that of all of them."""

    def __init__(
        self, nodes: Nodes, seed: float, faults: Faults | None, limits: Limits | None, api: ApiOptions,
        tracer: Tracer | None,
    ) -> None:  # fmt: skip
        self._nodes = nodes
        super().__init__(
            seed=int(seed * 2**32), faults=faults, limits=limits, directory=nodes.directory, api=api, tracer=tracer
        )
        self.directory = nodes.directory
        self.now = nodes.now

    @property
    def busy(self) -> bool:
        when = self._next()
        return when is not None and self._under_way(when)

    def next_time(self) -> float | None:
        return self._next()

    def step(self, when: float) -> None:
        self._step(when)

    def run(self, *, within: float = 5.0) -> None:
        self._nodes.run(within=within)

    def advance(self, seconds: float) -> None:
        self._nodes.advance(seconds)

    def _new_backplane(self) -> Backplane:
        backplane = SharedBackplane(self._nodes, self)
        self._nodes.backplanes.append(backplane)
        return backplane


class SharedBackplane:
    """The backplane of one simulated node, on what all nodes share."""

    hearing = True
    writable = True
    shared = True

    def __init__(self, nodes: Nodes, node: Simulation) -> None:
        self._nodes = nodes
        self._node = node
        self.name = nodes.new_name()
        self._followed: dict[str, bool] = {}
        """Followed projects. True: a history was read since, and updates are handed over from its end."""

    def follow(self, project_id: str) -> None:
        """Hand over updates of the project, from the next history that is read on."""
        self._followed[project_id] = False

    def unfollow(self, project_id: str) -> None:
        """Hand over none of the project's updates any more."""
        self._followed.pop(project_id, None)

    def read(
        self, project_id: str, after: str | None, newest: int = 0, before: str | None = None
    ) -> Callable[[], History]:
        """A call that reads the project's history: after a position, or the newest updates, or those before an id."""
        return partial(self._read, project_id, after, newest, before)

    def hear(self, update: Update) -> None:
        """Take an update that any of the nodes published."""
        if self._followed.get(update.project_id):
            self.tell(Published(update))

    def lose(self) -> None:
        """Say of every followed project that updates may be missing."""
        projects, self._followed = list(self._followed), {}
        for project_id in projects:
            self.tell(HistoryLost(project_id))

    def publish(self, project_id: str, event: str, text: str, trace: str | None = None) -> Future[str]:
        """Number an update and have every node hear it."""
        future: Future[str] = Future()
        future.set_result(self._nodes.publish_text(project_id, event, text, trace))
        return future

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], traces: Sequence[str] = ()
    ) -> Future[Sequence[str]]:
        """Publish several events on every node; the future is done already."""
        future: Future[Sequence[str]] = Future()
        together = zip_longest(events, traces)
        future.set_result(
            [self._nodes.publish_text(project_id, event, text, trace) for (event, text), trace in together]
        )
        return future

    def share_presence(self, report: PresenceReport) -> None:
        """Tell the other nodes that follow the project."""
        for backplane in self._nodes.backplanes:
            if backplane is not self:
                backplane.hear_presence(PresenceShared(self.name, report))

    def hear_presence(self, item: PresenceShared) -> None:
        """Take what another node says of its members."""
        if item.report.project_id in self._followed:
            self.tell(item)

    def announce(self, item: AccessChanged | LoggedOut) -> Future[Any]:
        """Tell the other nodes."""
        for backplane in self._nodes.backplanes:
            if backplane is not self:
                backplane.tell(item)
        future: Future[Any] = Future()
        future.set_result(None)
        return future

    def ask(self, question: str) -> Future[Sequence[NodeAnswer]]:
        """Ask the other nodes; what they say is there a moment later, and those that say nothing are named."""
        others = [backplane for backplane in self._nodes.backplanes if backplane is not self]
        said: dict[str, str | None] = {backplane.name: None for backplane in others}
        future: Future[Sequence[NodeAnswer]] = Future()

        def settle() -> None:
            if not future.done():
                future.set_result([NodeAnswer(name, text) for name, text in said.items()])

        def answered(name: str, text: str) -> None:
            said[name] = text
            if None not in said.values():
                settle()

        for backplane in others:
            backplane.tell(Asked(question, self._nodes.expect_answer(partial(answered, backplane.name))))
        self._node.at(self._nodes.now + (ANSWERED_WITHIN if others else 0.0), settle)
        return future

    def answer(self, reply_to: str, text: str) -> None:
        """Tell the node that asked."""
        self._nodes.take_answer(reply_to, text)

    def start(self, receive: Receive, listen: Listen | None = None) -> None:
        """Nothing to start: ``Nodes`` calls ``hear``."""

    def drain(self) -> None:
        """Nothing to do: what is published here the other nodes hear."""

    def close(self) -> None:
        """Hand over nothing any more."""
        self._followed.clear()
        self._nodes.backplanes.remove(self)

    def stats(self) -> dict[str, float]:
        """How many projects are followed."""
        return {"backplane_streams": len(self._followed)}

    def _read(self, project_id: str, after: str | None, newest: int, before: str | None) -> History:
        if project_id in self._followed:
            self._followed[project_id] = True
        return self._nodes.read(project_id, after, newest, before)

    def tell(self, item: Heard) -> None:
        """Have the node hear it, sooner or later."""
        self._node.hear([item], self._nodes.random.random() * self._nodes.max_delay)
