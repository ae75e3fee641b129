"""Runs the scenarios: servers take turns, each with its own sessions, and every run becomes a sample."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from benchmarks import away, inside, native, outside
from benchmarks.budget import Budget
from benchmarks.child import ChildFailed
from benchmarks.progress import Progress
from benchmarks.results import Results, Sample
from benchmarks.scenarios import NATIVE_KINDS, STARTING_KINDS, Scenario
from benchmarks.servers import Contender
from benchmarks.site import Cores, Site
from benchmarks.worlds import Worlds

WORTH_A_NOTE = ("publish", "polling", "jitter")
"""Kinds of which a note says that a server is not measured there; a notifier and a window are ours alone."""


@define(eq=False)
class Run:
    """One run of everything that was chosen. What there is no time for is said before it would begin, and noted."""

    results: Results
    worlds: Worlds
    cores: Cores
    repeat: int
    budget: Budget
    progress: Progress
    _sites: dict[str, Site] = field(factory=dict)
    """The servers that are up, by their contenders' names."""

    @staticmethod
    def steps(scenarios: Sequence[Scenario], contenders: Sequence[Contender], budget: Budget, repeat: int) -> int:
        """How often ``progress`` is told of something, where there is time for everything."""
        steps = 0
        for setup in dict.fromkeys(scenario.setup for scenario in scenarios):
            shared = [scenario for scenario in scenarios if scenario.setup == setup]
            for contender in _measurable(contenders, shared):
                starting = [s for s in shared if s.kind in STARTING_KINDS]
                steps += max([budget.rounds(s, repeat) for s in starting], default=1)
                steps += sum(budget.rounds(s, repeat) for s in _of(contender, shared) if s not in starting)
        return steps

    def run(self) -> None:
        """Measure everything; nothing is left running, however it ends."""
        try:
            for setup in dict.fromkeys(scenario.setup for scenario in self.results.scenarios):
                self._run_setup([scenario for scenario in self.results.scenarios if scenario.setup == setup])
        finally:
            for name in list(self._sites):
                self._close(name)

    def _run_setup(self, scenarios: Sequence[Scenario]) -> None:
        """Run scenarios that share their sessions, as far as there is time."""
        scenarios = self._possible(scenarios)
        contenders = _measurable(self.results.contenders, scenarios)
        if not contenders:
            return
        chosen, repeat = self.budget.affordable(contenders, scenarios, self.repeat)
        self._say_what_is_left_out(contenders, scenarios, chosen, repeat)
        if not chosen:
            return
        self._open_all(contenders, chosen, repeat)
        for scenario in chosen:
            if scenario.kind not in STARTING_KINDS:
                self._measure_all(contenders, scenario, repeat)
        for name in list(self._sites):
            self._close(name)

    def _possible(self, scenarios: Sequence[Scenario]) -> list[Scenario]:
        """The scenarios for which there is what they need; a note says what others lack."""
        missing = self.worlds.missing(scenarios[0].variant)
        if missing is None and native.missing() is not None:
            needing = [scenario for scenario in scenarios if scenario.kind in NATIVE_KINDS]
            missing = native.missing()
        else:
            needing = list(scenarios) if missing else []
        for scenario in needing:
            self._note(f"{scenario.name} is left out: {missing}")
        for contender in self.results.contenders:
            for scenario in scenarios:
                if scenario.kind in contender.lacks and scenario.kind in WORTH_A_NOTE and contender.kind != "floor":
                    self._note(f"{contender.title} is not in {scenario.name}: {contender.lacks[scenario.kind]}")
        return [scenario for scenario in scenarios if scenario not in needing]

    def _say_what_is_left_out(
        self, contenders: Sequence[Contender], scenarios: Sequence[Scenario], chosen: Sequence[Scenario], repeat: int
    ) -> None:
        """Before it would begin: what there is no time for, and what would have been needed."""
        left = max(0.0, self.budget.left * self.budget.slowness)
        for scenario in scenarios:
            if scenario not in chosen:
                needed = self.budget.whole(contenders, [scenario], 1) * self.budget.slowness
                self._announce(f"{scenario.name} is left out: it takes about {needed:.0f} s, and {left:.0f} s are left")
        fewer = [s.name for s in chosen if self.budget.rounds(s, repeat) < self.budget.rounds(s, self.repeat)]
        if fewer:
            rounds = "round" if repeat == 1 else "rounds"
            self._announce(f"{', '.join(fewer)}: {repeat} {rounds} instead of {self.repeat}, as {left:.0f} s are left")

    def _open_all(self, contenders: Sequence[Contender], scenarios: Sequence[Scenario], repeat: int) -> None:
        """Start all servers with their sessions, more than once where that is measured."""
        starting = [scenario for scenario in scenarios if scenario.kind in STARTING_KINDS]
        for number in range(max([self.budget.rounds(s, repeat) for s in starting], default=1)):
            for contender in contenders:
                with self._in_time(contender, scenarios, self.budget.opening(contender, scenarios[0].members)) as ok:
                    if ok:
                        self._close(contender.name)
                        self._open(
                            contender, scenarios[0], [s for s in starting if s.kind not in contender.lacks], number
                        )

    def _measure_all(self, contenders: Sequence[Contender], scenario: Scenario, repeat: int) -> None:
        """Run a scenario round after round, in each of which every server has its turn."""
        for number in range(self.budget.rounds(scenario, repeat)):
            for contender in contenders:
                if contender.name not in self._sites or scenario.kind in contender.lacks:
                    continue
                with self._in_time(contender, [scenario], self.budget.one_run(contender, scenario)) as ok:
                    if ok:
                        self._measure(contender.name, scenario, number)

    @contextlib.contextmanager
    def _in_time(self, contender: Contender, scenarios: Sequence[Scenario], reckoned: float) -> Iterator[bool]:
        """Whether there is time for another run; where there is not, note whose and of what."""
        begun = time.monotonic()
        if begun < self.budget.deadline:
            yield True
            self.budget.note(reckoned, begun)
            return
        what = ", ".join(scenario.name for scenario in scenarios)
        self._announce(f"{what}: no time was left for {contender.name}, or not for every repetition")
        yield False

    def _announce(self, text: str) -> None:
        if self._note(text):
            self.progress.say(text)

    def _note(self, text: str) -> bool:
        """Keep this for the end; whether it is new."""
        if text in self.results.notes:
            return False
        self.results.notes.append(text)
        return True

    def _open(self, contender: Contender, shared: Scenario, start: Sequence[Scenario], number: int) -> None:
        """Start a server and connect everybody, which is a sample of its own where it was asked for."""
        what = f"{contender.name}: {shared.members:,} sessions in {shared.rooms:,} rooms"
        self.progress.begin(what)
        if contender.most_members is not None and shared.members > contender.most_members:
            note = f"{contender.title} is not measured with more than {contender.most_members:,} members"
            self._note(note)
            self.progress.end(note)
            return
        try:
            world = self.worlds.of(shared.variant)
            config = self.worlds.config(shared)
            polling = shared.variant == "polling"
            site = self._sites[contender.name] = Site.start(contender, config, self.cores, polling=polling)
            figures = site.connect(world, *shared.layout)
        except ChildFailed as error:
            self._failed(contender.name, start or [shared], number, error)
            return
        self.budget.note_rate(contender, figures["connect"]["rate"])
        for scenario in start:
            self.results.samples.append(Sample(scenario.name, contender.name, number, figures[scenario.kind]))
        site.rest()
        self.progress.end(f"{what}, {figures['connect']['rate']:,.0f}/s")

    def _measure(self, name: str, scenario: Scenario, number: int) -> None:
        site = self._sites[name]
        what = f"{scenario.name} {name} {number + 1}"
        self.progress.begin(what)
        try:
            site.wake()
            figures = self._figures(site, scenario, first=number == 0)
            site.rest()
        except ChildFailed as error:
            self._failed(name, [scenario], number, error)
            return
        self.results.samples.append(Sample(scenario.name, name, number, figures))
        self.progress.end(f"{what}: {_in_short(figures)}")

    def _figures(self, site: Site, scenario: Scenario, *, first: bool) -> dict[str, Any]:
        """The figures of one run."""
        world, seconds = self.worlds.of(scenario.variant), self.budget.lasts(scenario)
        match scenario.kind:
            case "storm":
                return away.measure_storm(site)
            case "jitter":
                return away.measure_jitter(site, scenario, seconds)
            case "stalled":
                return away.measure_stalled(site, world, scenario)
            case "notifier":
                return outside.measure_notifier(site, world)
            case "publish":
                if first:
                    outside.warm_up(site, world)
                return outside.measure_publish(site, world, seconds)
            case "polling" | "window":
                return inside.measure_at_rate(site, scenario, seconds)
            case _:
                if first:
                    inside.warm_up(site, scenario, seconds)
                return inside.measure(site, scenario, seconds)

    def _failed(self, name: str, scenarios: Sequence[Scenario], number: int, error: ChildFailed) -> None:
        """Note what went wrong; the server is not asked again in this setup."""
        self._close(name)
        for scenario in scenarios:
            self.results.samples.append(Sample(scenario.name, name, number, {"error": str(error)}))
        self.progress.end(f"{name}: {error}")

    def _close(self, name: str) -> None:
        site = self._sites.pop(name, None)
        if site is not None:
            site.close()


def _of(contender: Contender, scenarios: Sequence[Scenario]) -> list[Scenario]:
    """The scenarios in which a contender is measured."""
    return [scenario for scenario in scenarios if scenario.kind not in contender.lacks]


def _measurable(contenders: Sequence[Contender], scenarios: Sequence[Scenario]) -> list[Contender]:
    """The contenders that are measured in any of these."""
    return [contender for contender in contenders if _of(contender, scenarios)]


def _in_short(figures: Mapping[str, Any]) -> str:
    """The figures that tell the most, in a few words."""
    words = [f"{figures['rate']:,.0f}/s"]
    words += [f"p99 {figures[name]['p99_ms']:,.2f} ms" for name in ("back", "answer", "delay") if name in figures][:1]
    words += [f"{figures[name]:,} {name.replace('_', ' ')}" for name in ("errors", "dropped") if figures.get(name)]
    return ", ".join(words)
