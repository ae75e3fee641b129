"""What is measured: scenarios, and the layouts of members and rooms that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from attrs import evolve, frozen

Kind = Literal["throughput", "delay", "backlog", "connect", "memory", "stall"]
KINDS: tuple[Kind, ...] = get_args(Kind)

BATCH = 64  # updates of different rooms that are handed over in one go
BACKLOGS = (1, 8, 64)  # updates of one room that are
SEVERAL = 1000  # members of the room for backlogs and delays
MOST = 5000  # members, where rooms are compared


@frozen
class Scenario:
    """One thing to measure; ``rate`` is updates a second, None for as many as the server takes."""

    name: str
    kind: Kind
    members: int
    rooms: int = 1
    rate: float | None = None
    batch: int = 1

    @property
    def layout(self) -> tuple[int, int]:
        """The sessions it needs: how many members in how many rooms."""
        return self.members, self.rooms

    @property
    def step(self) -> int:
        """The number of updates is a multiple of it: every room gets the same, and every batch is full."""
        return self.rooms if self.rooms > 1 else self.batch

    def deliveries(self, updates: float) -> float:
        """How many so many updates make, with a room's share of members each."""
        return updates * self.members / self.rooms

    @property
    def title(self) -> str:
        """What is measured, in words."""
        each = f"{self.members // self.rooms:,}"
        rooms = f"1 room of {each}" if self.rooms == 1 else f"{self.rooms:,} rooms of {each}"
        return {
            "throughput": f"{rooms}, as many updates as it takes",
            "delay": f"{rooms}, {self.rate or 0:g} updates a second",
            "backlog": f"{rooms}, {self.batch} updates at a time",
            "connect": f"{self.members:,} sessions connect, log in and join",
            "memory": f"resident memory of {self.members:,} idle joined sessions",
            "stall": f"{rooms}, while another session pings and joins",
        }[self.kind]


@frozen
class Sizes:
    """How large: ``members`` of one room, and in how many ``rooms`` the same number of members is spread."""

    members: Sequence[int] = (100, 1000, 5000, 10_000)
    rooms: Sequence[int] = (1, 100, 1000, 5000)

    def scenarios(self) -> list[Scenario]:
        """Everything that can be measured at these sizes."""
        many = max(self.members)
        base, several = min(MOST, many), min(SEVERAL, many)
        spread = [(base, rooms) for rooms in self.rooms if rooms <= base]
        rooms = min(100, max((rooms for rooms in self.rooms if rooms <= base), default=1))
        return [
            *(throughput(*layout) for layout in dict.fromkeys([*((size, 1) for size in self.members), *spread])),
            delay(several, 1),
            delay(base, rooms, rate=200.0),
            *(Scenario(f"backlog-{size}", "backlog", several, batch=size) for size in BACKLOGS),
            Scenario(f"connect-{base}", "connect", base),
            Scenario(f"memory-{base}", "memory", base),
            Scenario(f"stall-1x{many}", "stall", many),
        ]


QUICK = Sizes((500,), (1, 100))


def throughput(members: int, rooms: int) -> Scenario:
    """As many updates as are taken."""
    name = f"fanout-{rooms}x{members // rooms}"
    return Scenario(name, "throughput", members, rooms, batch=min(rooms, BATCH))


def delay(members: int, rooms: int, rate: float = 50.0) -> Scenario:
    """Updates at a fixed rate."""
    return Scenario(f"delay-{rooms}x{members // rooms}", "delay", members, rooms, rate=rate)


def chosen(scenarios: Iterable[Scenario], words: Sequence[str]) -> list[Scenario]:
    """Those with one of these names or kinds, all of them where there are no words. ``ValueError`` for a word that
    is neither."""
    found = list(scenarios)
    known = {scenario.name for scenario in found} | set(KINDS)
    for word in words:
        if word not in known:
            raise ValueError(f"no scenario {word!r}: choose of {', '.join([*KINDS, *(s.name for s in found)])}")
    return [scenario for scenario in found if not words or {scenario.name, scenario.kind} & set(words)]


def fitted(scenarios: Iterable[Scenario], descriptors: int) -> tuple[list[Scenario], list[str]]:
    """The same with as many members as there may be sockets, and what was made smaller, in words."""
    most = descriptors - 200  # a server has other files open too
    notes = [
        f"{s.name} has {max(s.rooms, most):,} members: there may be only {descriptors:,} open files (ulimit -n)"
        for s in scenarios
        if s.members > most
    ]
    return [evolve(s, members=max(s.rooms, min(s.members, most))) for s in scenarios], notes
