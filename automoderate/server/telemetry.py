"""What the server measures of itself: histograms with fixed bounds, which cost a search among a dozen numbers each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

from automoderate.server.tracing import TracedDelivery, Tracer

__all__ = ["Histogram", "Telemetry"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UPDATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BYTES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)


class Histogram:
    """How often a value was at most so large. ``about`` says to people what is measured."""

    __slots__ = ("about", "bounds", "counts", "total")

    def __init__(self, about: str, bounds: Sequence[float]) -> None:
        self.about = about
        self.bounds = bounds
        self.total = 0.0
        """Of all values."""
        self.counts = [0] * (len(bounds) + 1)
        """Of values beyond the bound before and not beyond this one."""

    def observe(self, value: float, count: int = 1) -> None:
        """Note a value, which was measured so many times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def cumulated(self) -> list[int]:
        """For each bound how many values were not beyond it; at last how many there were."""
        return list(accumulate(self.counts))

    @property
    def count(self) -> int:
        """How many values were noted."""
        return sum(self.counts)


class Telemetry:
    """The histograms of one server, and the way to who takes its spans, if anybody. Times are in seconds."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.tracer = tracer
        self.written: list[float] = []
        """When the broadcasts were made that have been handed out to their room's last member since the last turn."""
        self.turn = Histogram("Turns of the loop", SECONDS)
        self.delivery = Histogram(
            "From when an update was accepted on this node until it was written to the last member of its room", SECONDS
        )
        self.join = Histogram("From a client's join_project until it was let in", SECONDS)
        self.question = Histogram(
            "Questions to the database, from when they were asked until they were answered", SECONDS
        )
        self.replay = Histogram("Updates that were replayed to one client that joined, where there were any", UPDATES)
        self.waiting = Histogram("Bytes that wait for a slow client, each time more of them have to", BYTES)

    def asked(self, what: str, took: float, count: int, failure: BaseException | None) -> None:
        """Questions to the database were answered, or failed, together."""
        self.question.observe(took, count)
        if self.tracer is not None:
            self.tracer.record("question", took, {"what": what, "questions": count}, error=failure)

    def joined(self, project_id: str, took: float, replayed: int) -> None:
        """A client was let in, and so many updates were replayed to it."""
        self.join.observe(took)
        if replayed:
            self.replay.observe(replayed)
        if self.tracer is not None:
            self.tracer.record("join", took, {"project": project_id, "replayed": replayed})

    def replayed(self, project_id: str, took: float, updates: int, failure: BaseException | None) -> None:
        """What a client missed was read, or could not be."""
        if self.tracer is not None:
            self.tracer.record("replay", took, {"project": project_id, "updates": updates}, error=failure)

    def turned(self, now: float, took: float) -> None:
        """A turn of the loop is over, and what was handed out in it is written."""
        at, turn = bisect_left(SECONDS, took), self.turn
        turn.counts[at] += 1
        turn.total += took
        if written := self.written:
            if self.tracer is None and min(written) == now:
                # Made in the same turn, as nearly all are: they took as long as it did.
                self.delivery.counts[at] += len(written)
                self.delivery.total += took * len(written)
            else:
                self._delivered(now + took)
            written.clear()

    def _delivered(self, now: float) -> None:
        for made in self.written:
            self.delivery.observe(now - made)
            if self.tracer is not None and isinstance(made, TracedDelivery):
                self.tracer.record("delivery", now - made, made.attributes, made.trace)

    def histograms(self) -> Mapping[str, Histogram]:
        """All of them, by what they are called to the outside."""
        return {
            "turn_seconds": self.turn,
            "delivery_delay_seconds": self.delivery,
            "join_seconds": self.join,
            "question_seconds": self.question,
            "replayed_updates": self.replay,
            "waiting_bytes": self.waiting,
        }
