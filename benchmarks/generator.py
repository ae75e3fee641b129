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
SEQ, SENT = "S" * 20, "N" * 20
"""Where numbers come in a body to post."""


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


@frozen
class CaughtUp(Measured):
    """What members measured that were cut off now and then. ``back`` is from connecting again to having caught up."""

    cuts: int
    replayed: int
    back: Delays


@frozen
class Returned:
    """Everybody is back. ``seconds`` are from the first connection's end to the last join, ``back`` each one's.

    ``refused`` and ``timed_out`` are attempts that found nobody, ``errors`` those that the server did not want.
    """

    seconds: float
    cpu: float
    refused: int
    timed_out: int
    errors: int
    first_error: str
    back: Delays


@frozen
class Heard:
    """What somebody else published has come; ``missing`` numbers did not."""

    deliveries: int
    seconds: float
    cpu: float
    delivery: Delays
    missing: int


@frozen
class Posted(Heard):
    """What members heard of updates that the load generator posted; ``answer`` is how long each answer took."""

    posted: int
    answer: Delays


class LoadGenerator(Child):
    """The clients of one server, or of several that share the members of each room evenly.

    With ``awake`` it does not sleep while it measures, which needs a core that nobody else does. ``receipts`` is the
    writing end of a pipe, into which a byte goes for each update that everybody in its room has got. With ``polling``
    members poll; the probe has a WebSocket. Every method raises :exc:`benchmarks.child.ChildFailed`.
    """

    def __init__(
        self, ports: Sequence[int], core: int | None, *,
        awake: bool = False, receipts: int | None = None, polling: bool = False,
    ) -> None:  # fmt: skip
        super().__init__([*program(), str(ports[0])], core, [] if receipts is None else [receipts])
        self._ports = ports
        self._placed: Counter[int] = Counter()
        if awake and native.missing() is None:  # the one in Python has no time to sleep anyway
            self.say("awake")
        if receipts is not None:
            self.say(f"receipts {receipts}")
        if polling:
            self.say("transport polling")

    def connect(self, members: Sequence[Member], probe: Member | None = None, inflight: int = INFLIGHT) -> Connected:
        """Connect and join these too; the probe is a session that asks while the others listen."""
        self.begin_connecting(members, probe, inflight)
        return self.connected()

    def begin_connecting(self, members: Sequence[Member], probe: Member | None, inflight: int) -> None:
        """Begin to do that, with so many at a time."""
        lines = [line for member in members for line in self._lines(member)]
        if probe is not None:
            lines.append(f"probe {probe.project_id} {probe.cookie}")
        self.say("\n".join([*lines, f"connect {inflight}"]))

    def connected(self) -> Connected:
        """Wait until everybody has joined."""
        return Connected(**self.hear(CONNECTING))

    def _lines(self, member: Member) -> Iterator[str]:
        """What names a member, with where it connects to."""
        if len(self._ports) > 1:
            yield f"port {self._ports[self._placed[member.room] % len(self._ports)]}"
            self._placed[member.room] += 1
        yield f"member {member.room} {member.project_id} {member.cookie}"

    def begin(self, updates: int, *, ping_ms: float = 0.0, join_ms: float = 0.0, patience: float | None = None) -> None:
        """Expect so many updates more in every room, from now on; ``patience`` is for the longest pause, in seconds."""
        self._begin(f"measure {updates} {patience or PATIENCE} {ping_ms} {join_ms}")

    def result(self, seconds: float) -> Measured:
        """What became of them, in ``seconds`` at most."""
        return Measured(**self._hear(seconds))

    # Only the one in C does what follows.

    def let_ask(self, askers: int) -> None:
        """Let so many members ask in turn instead of the probe. What has no answer at the end counts as well."""
        self.say(f"askers {askers}")

    def begin_cutting(self, updates: int, *, every: float, away: float) -> None:
        """As ``begin``, while each member is cut off every so many seconds and is away for some."""
        self._begin(f"jitter {updates} {PATIENCE} {every} {away}")

    def caught_up(self, seconds: float) -> CaughtUp:
        """What became of them, in ``seconds`` at most."""
        return CaughtUp(**self._hear(seconds))

    def begin_storm(self) -> None:
        """Expect every connection to end, from now on."""
        self._begin(f"storm {PATIENCE}")

    def returned(self, seconds: float) -> Returned:
        """How everybody came back, in ``seconds`` at most."""
        return Returned(**self._hear(seconds))

    def listen(self) -> None:
        """Expect that somebody else publishes to the probe's room, numbered from 0."""
        self._begin(f"listen {PATIENCE}")

    def heard(self, updates: int, seconds: float) -> Heard:
        """What came, as soon as so many have, in ``seconds`` at most."""
        self.say(f"expect {updates}")
        return Heard(**self._hear(seconds))

    def post(self, connections: int, updates: int, path: str, key: str, body: str) -> Posted:
        """Post so many updates to the probe's room, over each connection one at a time.

        ``body`` is a JSON object with :data:`SEQ` and :data:`SENT` in the places of numbers.
        """
        self.say(f"post {connections} {updates} {PATIENCE} {path} {key} {body}")
        return Posted(**self._hear(CONNECTING))

    def _begin(self, command: str) -> None:
        self.say(command)
        self.hear(PATIENCE)

    def _hear(self, seconds: float) -> dict[str, Any]:
        said = self.hear(seconds)
        delays = {name: Delays.of(value) for name, value in said.items() if isinstance(value, dict)}
        return said | delays


def program() -> list[str]:
    """The command that starts a load generator."""
    if native.missing() is None:
        return [str(native.build("load"))]
    return [sys.executable, "-m", "benchmarks.load"]
