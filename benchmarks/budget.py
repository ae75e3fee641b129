"""How long a run takes, reckoned beforehand, and what of it there is time for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from attrs import define, field

from benchmarks.scenarios import STARTING_KINDS, Kind, Scenario
from benchmarks.servers import Contender

BEGINNING, RATE = 2.0, 1400.0  # seconds until a server listens, and sessions a second that join it
SLOWER = {"flask_threading": 200.0, "uvicorn_socketio": 350.0, "attached": 300.0, "eventlet_socketio": 450.0}
AROUND = 0.7  # seconds that a run takes beside what it measures: warming up, and settling
STARTS = 2  # times, at most, that all sessions connect for a figure: it takes longer than everything else
MOST_ROUNDS: dict[Kind, int] = {"connect": STARTS, "memory": STARTS, "storm": 1, "jitter": 1, "stalled": 1}
"""Of those that take long each time, or whose figures are counts."""
JITTER_LASTS = 20.0  # seconds: every member is cut off once, and some twice


@define
class Budget:
    """Seconds of a run. ``seconds`` is what one at full speed should last, ``long`` one at a fixed rate.

    What is reckoned is for a usual day; what was done so far says how much slower this one is.
    """

    seconds: float
    long: float
    deadline: float
    """On the monotonic clock; nothing is begun when it has passed."""
    sparing: bool = True
    """Whether those that take long are run less often than the others: not where somebody has asked for them."""
    _reckoned: float = 0.0
    _taken: float = 0.0
    _rates: dict[str, float] = field(factory=lambda: dict(SLOWER))
    """Sessions a second that have joined each contender's server."""

    def lasts(self, scenario: Scenario) -> float:
        """How many seconds one run is to measure."""
        if scenario.kind == "jitter":
            return JITTER_LASTS * min(1.0, self.long)
        return self.seconds if scenario.rate is None else self.long

    def rounds(self, scenario: Scenario, repeat: int) -> int:
        """How often it is run where ``repeat`` was asked for."""
        return min(repeat, MOST_ROUNDS.get(scenario.kind, repeat)) if self.sparing else repeat

    def opening(self, contender: Contender, members: int) -> float:
        """Seconds until everybody has joined a server."""
        return BEGINNING + members / self._rates.get(contender.name, RATE)

    def one_run(self, contender: Contender, scenario: Scenario) -> float:
        """Seconds of one run of a scenario, of a server whose sessions are there."""
        if scenario.kind == "storm":
            return 2.5 + self.opening(contender, scenario.members)
        if scenario.kind == "stalled":
            return 6.0
        if scenario.kind == "notifier":
            return 3.0
        return self.lasts(scenario) + AROUND

    def whole(self, contenders: Sequence[Contender], scenarios: Sequence[Scenario], repeat: int) -> float:
        """Seconds of scenarios that share their sessions."""
        starts = max([self.rounds(s, repeat) for s in scenarios if s.kind in STARTING_KINDS], default=1)
        return sum(
            starts * self.opening(contender, scenarios[0].members)
            + sum(
                self.rounds(scenario, repeat) * self.one_run(contender, scenario)
                for scenario in scenarios
                if scenario.kind not in STARTING_KINDS and scenario.kind not in contender.lacks
            )
            for contender in contenders
        )

    @property
    def slowness(self) -> float:
        """How much longer things take than was reckoned; never less than 1."""
        return max(1.0, self._taken / self._reckoned) if self._reckoned else 1.0

    @property
    def left(self) -> float:
        """Seconds that are left, of a usual day."""
        return (self.deadline - time.monotonic()) / self.slowness

    def note(self, reckoned: float, begun: float) -> None:
        """Something that was begun at that time is done."""
        self._reckoned += reckoned
        self._taken += time.monotonic() - begun

    def note_rate(self, contender: Contender, rate: float) -> None:
        """So many sessions a second have joined."""
        self._rates[contender.name] = rate

    def affordable(
        self, contenders: Sequence[Contender], scenarios: Sequence[Scenario], repeat: int
    ) -> tuple[list[Scenario], int]:
        """What there is time for of scenarios that share their sessions, and how often.

        Better one round of everything than several of a part; the last are left out first.
        """
        for rounds in dict.fromkeys((repeat, *range(min(repeat, 2), 0, -1))):
            if self.whole(contenders, scenarios, rounds) <= self.left:
                return list(scenarios), rounds
        for number in range(len(scenarios) - 1, 0, -1):
            if self.whole(contenders, scenarios[:number], 1) <= self.left:
                return list(scenarios[:number]), 1
        return [], 0
