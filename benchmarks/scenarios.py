"""What is measured: scenarios, and the layouts of members and rooms that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from attrs import evolve, frozen

Kind = Literal[
    "throughput", "delay", "backlog", "connect", "memory", "stall", "publish", "notifier", "polling", "stalled",
    "storm", "jitter", "window", "hostile",
]  # fmt: skip
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "hostile")
"""The kinds that :mod:`benchmarks.fanout` measures."""
Variant = Literal["", "polling", "recovery", "postgresql"]

STARTING_KINDS: tuple[Kind, ...] = ("connect", "memory")
"""What is measured while everybody connects."""
NATIVE_KINDS: tuple[Kind, ...] = ("publish", "notifier", "polling", "stalled", "storm", "jitter")
"""What only the load generator in C can measure."""
SLOW_KINDS: tuple[Kind, ...] = ("notifier", "polling", "stalled", "storm", "jitter")
"""What is left out of a quick look, unless it is asked for."""

BATCH = 64  # updates of different rooms that are handed over in one go
BACKLOGS = (1, 8, 64)  # updates of one room that are
SEVERAL = 1000  # members of the room for backlogs and delays
MOST = 5000  # members, where rooms are compared
FEW = 10  # members, where one of them stops reading
FEWEST = 100  # members that say little beside more of them: measured where they are asked for
POLLED = 10.0  # updates a second to members that poll
JITTERED = 20.0  # updates a second to members that are cut off
WINDOWS = (0, 5, 20, 50)  # milliseconds
WINDOWED, AWAITED = 100, 500.0  # members of a room whose updates wait for one another, and updates a second


@frozen
class Scenario:
    """One thing to measure; ``rate`` is updates a second, None for as many as the server takes."""

    name: str
    kind: Kind
    members: int
    rooms: int = 1
    rate: float | None = None
    batch: int = 1
    variant: Variant = ""
    """What is different from the other scenarios: how members connect, or how servers are started."""
    window: int = 0
    """Milliseconds for which servers have updates of a room wait for one another."""
    standard: bool = True
    """Whether it is measured where nobody says what is to be."""
    words: str = ""
    """What is done to a server, of those of :mod:`benchmarks.hostile`."""

    @property
    def layout(self) -> tuple[int, int]:
        """The sessions it needs: how many members in how many rooms."""
        return self.members, self.rooms

    @property
    def setup(self) -> tuple[int, int, Variant, int]:
        """What it shares with other scenarios: the sessions, and the servers they are with."""
        return self.members, self.rooms, self.variant, self.window

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
        database = ", with PostgreSQL" if self.variant == "postgresql" else ""
        return {
            "throughput": f"{rooms}, as many updates as it takes",
            "delay": f"{rooms}, {self.rate or 0:g} updates a second",
            "backlog": f"{rooms}, {self.batch} updates at a time",
            "connect": f"{self.members:,} sessions connect, log in and join",
            "memory": f"resident memory of {self.members:,} idle joined sessions",
            "stall": f"{rooms}, while another session pings and joins",
            "publish": "HTTP POSTs on 8 kept-alive connections, to a room of 1",
            "notifier": "5,000 updates in a burst through WebSocketNotifier(url=…), to a room of 1",
            "polling": f"{rooms} that polls, {self.rate or 0:g} updates a second",
            "stalled": f"10,000 updates to {rooms}, of whom one stops reading",
            "storm": f"the server restarts, and {self.members:,} sessions in {self.rooms:,} rooms come back{database}",
            "window": f"{rooms}, {self.rate or 0:g} updates a second that wait up to {self.window} ms for one another",
            "hostile": self.words,
            "jitter": f"{rooms}, {self.rate or 0:g} updates a second, each member cut off every 15 s for 2 s",
        }[self.kind]


@frozen
class Sizes:
    """How large: ``members`` of one room, and in how many ``rooms`` the same number of members is spread."""

    members: Sequence[int] = (100, 1000, 5000)
    rooms: Sequence[int] = (1, 100, 5000)

    def scenarios(self) -> list[Scenario]:
        """Everything that can be measured at these sizes."""
        many = max(self.members)
        base, several, few = min(MOST, many), min(SEVERAL, many), min(FEW, many)
        spread = [(base, rooms) for rooms in self.rooms if rooms <= base]
        rooms = min(100, max((rooms for rooms in self.rooms if rooms <= base), default=1))
        return [
            *(
                evolve(throughput(*layout), standard=layout[0] > min(FEWEST, many - 1))
                for layout in dict.fromkeys([*((size, 1) for size in self.members), *spread])
            ),
            delay(several, 1),
            delay(base, rooms, rate=200.0),
            *(Scenario(f"backlog-{size}", "backlog", several, batch=size, standard=size > 1) for size in BACKLOGS),
            Scenario(f"connect-{base}", "connect", base),
            Scenario(f"memory-{base}", "memory", base),
            Scenario(f"stall-1x{many}", "stall", many),
            Scenario("publish", "publish", several),
            Scenario("notifier", "notifier", several),
            Scenario(f"storm-{base}", "storm", base, rooms),
            Scenario(f"polling-1x{several}", "polling", several, rate=POLLED, variant="polling"),
            Scenario(f"jitter-1x{several}", "jitter", several, rate=JITTERED, variant="recovery"),
            Scenario(f"stalled-1x{few}", "stalled", few),
            Scenario(f"storm-postgresql-{base}", "storm", base, rooms, variant="postgresql", standard=False),
            *(
                Scenario(f"window-{window}", "window", min(WINDOWED, many), rate=AWAITED, window=window, standard=False)
                for window in WINDOWS
            ),
        ]


QUICK = Sizes((500,), (1, 100))


def throughput(members: int, rooms: int) -> Scenario:
    """As many updates as are taken."""
    name = f"fanout-{rooms}x{members // rooms}"
    return Scenario(name, "throughput", members, rooms, batch=min(rooms, BATCH))


def delay(members: int, rooms: int, rate: float = 50.0) -> Scenario:
    """Updates at a fixed rate."""
    return Scenario(f"delay-{rooms}x{members // rooms}", "delay", members, rooms, rate=rate)


def chosen(scenarios: Iterable[Scenario], words: Sequence[str], *, quick: bool = False) -> list[Scenario]:
    """The scenarios with one of these names or kinds; without ``words`` the standard ones, for a ``quick`` look the
    standard ones that take little time. ``ValueError`` for a word that is neither name nor kind."""
    found = list(scenarios)
    known = {scenario.name for scenario in found} | set(KINDS)
    for word in words:
        if word not in known:
            raise ValueError(f"no scenario {word!r}: choose of {', '.join([*KINDS, *(s.name for s in found)])}")
    if not words:
        return [s for s in found if s.standard and not (quick and s.kind in SLOW_KINDS)]
    return [scenario for scenario in found if {scenario.name, scenario.kind} & set(words)]


def fitted(scenarios: Iterable[Scenario], descriptors: int) -> tuple[list[Scenario], list[str]]:
    """The scenarios with as many members as there may be sockets, and what was made smaller, in words."""
    most = descriptors - 200  # a server has other files open too
    notes = [
        f"{s.name} has {max(s.rooms, most):,} members: there may be only {descriptors:,} open files (ulimit -n)"
        for s in scenarios
        if s.members > most
    ]
    return [evolve(s, members=max(s.rooms, min(s.members, most))) for s in scenarios], notes
