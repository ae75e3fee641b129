"""The load generator: a process that is all the clients. In C where there is a compiler, else in Python."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from benchmarks import native
from benchmarks.child import Child
from benchmarks.world import Member

INFLIGHT = 64  # sessions that connect at a time
CONNECTING = 300.0  # seconds all of them have
PATIENCE = 20.0  # seconds without a delivery after which the rest counts as lost


@frozen
class Delays:
    """How long something took, each time. ``counts`` are pairs of an upper bound in nanoseconds and a number."""

    counts: Sequence[tuple[int, int]]
    longest: int

    @classmethod
    def of(cls, said: dict[str, Any]) -> Delays:
        return cls([(bound, count) for bound, count in said["delays"]], said["max"])

    @property
    def count(self) -> int:
        return sum(count for _, count in self.counts)

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share of all was done, 0 where there was none."""
        left = math.ceil(self.count * share)
        for bound, count in self.counts:
            left -= count
            if left <= 0:
                return min(bound, self.longest) / 1e6
        return 0.0

    def summary(self) -> dict[str, Any]:
        """Percentiles in milliseconds, as a sample holds them."""
        p50, p99 = self.percentile(0.5), self.percentile(0.99)
        return {"p50_ms": p50, "p99_ms": p99, "max_ms": self.longest / 1e6}


@frozen
class Connected:
    """Everybody has joined: how long that took, and the generator's CPU seconds."""

    joined: int
    seconds: float
    cpu: float


@frozen
class Measured:
    """Everybody has got everything, once and in order. ``seconds`` are from first publish to last receipt."""

    deliveries: int
    seconds: float
    cpu: float
    delivery: Delays
    ping: Delays
    join: Delays


class LoadGenerator(Child):
    """The clients of one server, or of several that share the members of each room evenly.

    With ``awake`` it does not sleep while it measures, which needs a core that nobody else does. ``receipts`` is the
    writing end of a pipe, into which a byte goes for each update that everybody in its room has got. Every method
    raises :exc:`benchmarks.child.ChildFailed`.
    """

    def __init__(
        self, ports: Sequence[int], core: int | None, *, awake: bool = False, receipts: int | None = None
    ) -> None:
        super().__init__([*program(), str(ports[0])], core, [] if receipts is None else [receipts])
        self._ports = ports
        self._placed: Counter[int] = Counter()
        if awake and native.missing() is None:  # the one in Python has no time to sleep anyway
            self.say("awake")
        if receipts is not None:
            self.say(f"receipts {receipts}")

    def connect(self, members: Sequence[Member], probe: Member | None = None) -> Connected:
        """Connect and join these too; the probe is a session that asks while the others listen."""
        lines = [line for member in members for line in self._lines(member)]
        if probe is not None:
            lines.append(f"probe {probe.project_id} {probe.cookie}")
        self.say("\n".join([*lines, f"connect {INFLIGHT}"]))
        return Connected(**self.hear(CONNECTING))

    def _lines(self, member: Member) -> Iterator[str]:
        """What names a member, with where it connects to."""
        if len(self._ports) > 1:
            yield f"port {self._ports[self._placed[member.room] % len(self._ports)]}"
            self._placed[member.room] += 1
        yield f"member {member.room} {member.project_id} {member.cookie}"

    def begin(self, updates: int, *, ping_ms: float = 0.0, join_ms: float = 0.0) -> None:
        """Expect so many updates more in every room, from now on."""
        self.say(f"measure {updates} {PATIENCE} {ping_ms} {join_ms}")
        self.hear(PATIENCE)

    def result(self, seconds: float) -> Measured:
        """What became of them, in ``seconds`` at most."""
        said = self.hear(seconds)
        for name in ("delivery", "ping", "join"):
            said[name] = Delays.of(said[name])
        return Measured(**said)


def program() -> list[str]:
    """The command that starts a load generator."""
    if native.missing() is None:
        return [str(native.build("load"))]
    return [sys.executable, "-m", "benchmarks.load"]
