"""Several hubs that tell one another who is in their rooms, in one virtual time, and what each client makes of it."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from automoderate.core.hub import (
    Broadcast,
    BroadcastExcept,
    Closed,
    Effect,
    Enter,
    Input,
    Leave,
    PresenceShared,
    Recheck,
    Rechecked,
    Replay,
    SharePresence,
    Tick,
    Update,
)
from kits.hub_bench import HubBench

ROOM = "presence:project_p"


@define(eq=False)
class Watcher:
    """What a client that asked has been told, and what it shows."""

    users: dict[str, str] | None = None
    """By user id, with their names; None: it was not told yet."""
    looking: dict[str, str] = field(factory=dict)
    told: list[tuple[float, str, Any]] = field(factory=list)
    """When, which event, and its data."""

    def hear(self, now: float, update: Update) -> None:
        data = update.data
        self.told.append((now, update.event, data))
        if update.event == "presence_state":
            self.users = {user["user_id"]: user["username"] for user in data["users"]}
            self.looking.clear()
        elif update.event == "presence_change":
            assert self.users is not None, "a change came before the state"
            assert data["joined"] or data["left"]
            for user in data["joined"]:
                assert user["user_id"] not in self.users, f"{user} joined twice"
                self.users[user["user_id"]] = user["username"]
            for user in data["left"]:
                del self.users[user["user_id"]]
                self.looking.pop(user["user_id"], None)
        else:
            assert self.users is not None
            assert data["user_id"] in self.users, "somebody looks who is not there"
            if data["content_id"] is None:
                del self.looking[data["user_id"]]
            else:
                self.looking[data["user_id"]] = data["content_id"]

    def changes(self) -> list[float]:
        """When it was told of changes of who is there."""
        return [when for when, event, _ in self.told if event == "presence_change"]


class Node(HubBench):
    """One of several: what its hub wants done with presence is done."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(other_nodes=True)
        self.cluster = cluster
        self.name = name
        self.watchers: dict[str, Watcher] = {}
        """Of its sessions, by sid; those that never asked are told nothing."""
        self.listening: set[str] = set()
        self.members: set[str] = set()
        """Sids. While there are any, others' messages come to this node."""
        self.rechecks: list[Recheck] = []
        """Whose access is looked up again, and was not found out yet."""

    def give(self, item: Input) -> list[Effect]:
        self.now = self.cluster.now
        effects = super().give(item)
        for effect in effects:
            self.perform(effect)
        return effects

    def perform(self, effect: Effect) -> None:
        if isinstance(effect, SharePresence):
            self.cluster.send(self, effect)
        elif isinstance(effect, Recheck):
            self.rechecks.append(effect)
        elif isinstance(effect, Replay):
            self.watcher(effect.sid).hear(self.now, effect.update)
        elif isinstance(effect, Enter) and effect.room == ROOM:
            self.listening.add(effect.sid)
        elif isinstance(effect, Leave) and effect.room == ROOM:
            self.listening.remove(effect.sid)
        elif isinstance(effect, Broadcast | BroadcastExcept) and effect.room == ROOM:
            left_out = effect.sids if isinstance(effect, BroadcastExcept) else ()
            assert self.listening, "a room without members is told something"
            for sid in sorted(self.listening.difference(left_out)):
                self.watcher(sid).hear(self.now, effect.update)

    def watcher(self, sid: str) -> Watcher:
        return self.watchers.setdefault(sid, Watcher())

    def enter(self, sid: str, user: str, *, presence: bool = True) -> Watcher:
        """A session of a user joins."""
        self.connect(sid, user)
        self.join(sid=sid, presence=presence)
        self.members.add(sid)
        return self.watcher(sid)

    def confirm(self) -> None:
        """All whose access is looked up again may still see everything."""
        while self.rechecks:
            recheck = self.rechecks.pop()
            self.give(Rechecked(recheck.ticket, frozenset(recheck.project_ids)))

    def look(self, sid: str, content_id: str | None) -> None:
        self.send("looking_at", {"project_id": "p", "content_id": content_id}, sid=sid)

    def close(self, sid: str) -> None:
        self.members.remove(sid)
        self.give(Closed(sid))
        self.watchers.pop(sid, None)


class Cluster:
    """The nodes, their clock, and the messages under way between them."""

    def __init__(self, count: int = 2) -> None:
        self.now = 100.0
        self.delay = 0.01
        self.lost = False
        """Messages are lost."""
        self.sent: list[SharePresence] = []
        self._under_way: list[tuple[float, Node, PresenceShared]] = []
        self._started = 0
        self.nodes = [self.start() for _ in range(count)]

    def __getitem__(self, index: int) -> Node:
        return self.nodes[index]

    def start(self) -> Node:
        """A node that comes up."""
        self._started += 1
        return Node(self, f"node {self._started}")

    def kill(self, index: int) -> None:
        """One falls silent, and another takes its place."""
        gone = self.nodes[index]
        self._under_way = [item for item in self._under_way if item[1] is not gone]
        self.nodes[index] = self.start()

    def send(self, node: Node, effect: SharePresence) -> None:
        self.sent.append(effect)
        if not self.lost and node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    shared = PresenceShared(node.name, effect.report)
                    self._under_way.append((self.now + self.delay, other, shared))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        limit = self.now + seconds
        while True:
            deadlines = [(deadline, node) for node in self.nodes if (deadline := node.hub.next_deadline()) is not None]
            arrivals = [(when, index) for index, (when, _, _) in enumerate(self._under_way)]
            first = min((when for when, _ in [*deadlines, *arrivals]), default=limit + 1)
            if first > limit:
                break
            self.now = max(self.now, first)
            if arrivals and min(arrivals)[0] <= first:
                _, node, shared = self._under_way.pop(min(arrivals)[1])
                if node.members:
                    node.give(shared)
            else:
                next(node for deadline, node in deadlines if deadline == first).give(Tick())
        self.now = limit
