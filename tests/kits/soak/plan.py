"""What a fault run does, drawn from a seed: who is there, who may see what, and what goes wrong when.

The same seed and length give the same plan. What comes of it is real, with real clocks, and differs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from attrs import frozen

from automoderate import adapters

NODES = ("a", "b")
CLIENTS = 200
USERS = 24
STRANGERS = 2
"""The last of the users, who are members of nothing."""
BUSY_PROJECTS = ("red", "green", "blue", "amber")
FLOODED_PROJECTS = ("flood 1", "flood 2", "flood 3", "flood 4", "flood 5", "flood 6")
"""Seen by the clients that stall and by a few others."""
FLOOD = (120_000,) * 15
"""Bytes of the updates of one flood in one project: less than the 2 MiB that are replayed. For a client that does not
read, those of two projects fit into the kernel's buffers, of four also into the server's, and of six are too much."""
PROJECTS = BUSY_PROJECTS + FLOODED_PROJECTS
QUIET = 3.0
"""Seconds at the end in which no new fault begins."""

Kind: TypeAlias = Literal["steady", "stalled", "flapping"]
Transport: TypeAlias = Literal["websocket", "polling", "upgrade"]
FaultKind: TypeAlias = Literal[
    "redis killed", "redis paused", "redis connections cut", "node killed", "node drained", "clients cut", "flood",
    "member removed", "client leaves",
]  # fmt: skip

DECK: Mapping[FaultKind, int] = {
    "redis killed": 2, "redis paused": 2, "redis connections cut": 5, "node killed": 3, "node drained": 2,
    "clients cut": 6, "flood": 1, "member removed": 4, "client leaves": 3,
}  # fmt: skip
"""How often each kind comes before the deck is shuffled anew."""
PAUSES = 0.4, 2.6
"""Seconds between the beginnings of two faults; the shortest deck is played within a minute."""


@frozen
class ClientPlan:
    """One client. It asks for its projects whether or not its user is a member."""

    number: int
    kind: Kind
    transport: Transport
    user: str
    projects: tuple[str, ...]
    node: str
    """Where it connects first."""


@frozen
class Fault:
    """Something that happens ``at`` so many seconds, and what more there is to say of its kind."""

    at: float
    kind: FaultKind
    target: str = ""
    """A node; which of the connections to Redis; a project."""
    seconds: float = 0.0
    """For how long something is away."""
    user: str = ""
    clients: tuple[int, ...] = ()

    def __str__(self) -> str:
        words = [self.kind, self.target, self.user]
        if self.clients:
            words.append(f"{len(self.clients)} clients" if len(self.clients) > 1 else f"client {self.clients[0]}")
        if self.seconds:
            words.append(f"for {self.seconds:.1f} s")
        return " ".join(word for word in words if word)


@frozen
class Plan:
    """All of a run that chance decides beforehand."""

    seed: int
    seconds: float
    adapters: Mapping[str, str]
    """The adapter of each node."""
    members: Mapping[str, frozenset[str]]
    """Who may see each project."""
    clients: tuple[ClientPlan, ...]
    faults: tuple[Fault, ...]

    @property
    def users(self) -> tuple[str, ...]:
        return tuple(_users())

    def chance(self, purpose: str) -> random.Random:
        """Chance that depends on the seed and on what it is for, not on what else is drawn."""
        return random.Random(f"{self.seed} {purpose}")


def draw(seed: int, seconds: float) -> Plan:
    """The plan of a run whose faults go on for so many seconds."""
    chance = random.Random(f"{seed} plan")
    runtimes = dict(zip(NODES, chance.sample(adapters.names(), len(NODES)), strict=True))
    members = {project: frozenset(_members(chance, project)) for project in PROJECTS}
    clients = tuple(_client(chance, number, members) for number in range(CLIENTS))
    faults = tuple(_faults(random.Random(f"{seed} faults"), seconds, members, clients))
    return Plan(seed, seconds, runtimes, members, clients, faults)


def _users() -> list[str]:
    return [f"user {number}" for number in range(USERS)]


def _members(chance: random.Random, project: str) -> list[str]:
    insiders = _users()[:-STRANGERS]
    return insiders if project in FLOODED_PROJECTS else chance.sample(insiders, len(insiders) * 2 // 3)


def _client(chance: random.Random, number: int, members: Mapping[str, frozenset[str]]) -> ClientPlan:
    """Every tenth stalls and every tenth flaps, whatever chance says of the rest."""
    kind: Kind = "stalled" if number % 10 == 3 else "flapping" if number % 10 == 7 else "steady"
    transport: Transport = chance.choices(("websocket", "polling", "upgrade"), (75, 12, 13))[0]
    insiders = _users()[:-STRANGERS]
    user = chance.choice(insiders if kind == "stalled" or chance.random() < 0.95 else _users()[-STRANGERS:])
    seen = [project for project in BUSY_PROJECTS if user in members[project]]
    projects = chance.sample(seen, min(len(seen), chance.randint(1, 2)))
    if not projects or chance.random() < 0.2:
        projects.append(chance.choice([project for project in BUSY_PROJECTS if project not in seen] or seen))
    if kind == "stalled" or chance.random() < 0.02:
        projects.extend(chance.sample(FLOODED_PROJECTS, chance.choice((2, 4, 6))))
    return ClientPlan(number, kind, transport, user, tuple(dict.fromkeys(projects)), chance.choice(NODES))


def _faults(
    chance: random.Random, seconds: float, members: Mapping[str, frozenset[str]], clients: tuple[ClientPlan, ...]
) -> Iterator[Fault]:
    removable = _removable(chance, members, clients)
    inside = [client for client in clients if client.user in members[client.projects[0]]]
    leaving = iter([(client.number, client.projects[0]) for client in chance.sample(inside, CLIENTS // 4)])
    at = 1.0
    for kind in _shuffled(chance):
        if at > seconds - QUIET:
            return
        node, pause = chance.choice(NODES), chance.uniform(*PAUSES)
        if kind == "member removed":
            removed = next(removable, None)
            if removed is not None:
                yield Fault(at, kind, target=removed[0], user=removed[1])
        elif kind == "client leaves":
            leaver = next(leaving, None)
            if leaver is not None:
                yield Fault(at, kind, target=leaver[1], clients=(leaver[0],))
        elif kind == "clients cut":
            yield Fault(at, kind, clients=tuple(sorted(chance.sample(range(CLIENTS), chance.randint(1, 30)))))
        elif kind == "redis connections cut":
            yield Fault(at, kind, target=chance.choice(("all", "readers", "others")))
        elif kind == "flood":
            yield Fault(at, kind, seconds=chance.uniform(1.0, 4.0))
        elif kind in ("node killed", "node drained"):
            yield Fault(at, kind, target=node, seconds=chance.uniform(0.0, 3.0))
        else:
            yield Fault(at, kind, seconds=chance.uniform(0.2, 6.0))
        at += pause


def _shuffled(chance: random.Random) -> Iterator[FaultKind]:
    """Deck after deck, so that a run of a minute has something of every kind."""
    while True:
        deck = [kind for kind, count in DECK.items() for _ in range(count)]
        chance.shuffle(deck)
        yield from deck


def _removable(
    chance: random.Random, members: Mapping[str, frozenset[str]], clients: tuple[ClientPlan, ...]
) -> Iterator[tuple[str, str]]:
    """Who may be removed from where: somebody who watches, and never more than a third of a project's watchers."""
    pairs: list[tuple[str, str]] = []
    for project in BUSY_PROJECTS:
        watchers = sorted({client.user for client in clients if project in client.projects} & members[project])
        pairs.extend(itertools.product([project], chance.sample(watchers, len(watchers) // 3)))
    chance.shuffle(pairs)
    return iter(pairs)
