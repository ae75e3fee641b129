"""What a run has found: every sample, and the JSON file that holds them.

::

    {"schema": 1,
     "date": "2026-01-15T10:30:00+00:00",
     "command": ["python", "-m", "benchmarks.fanout", "--repeat", "3"],
     "machine": {"processor": "…", "cores": 2, "memory": 25e9 (bytes), "system": "Linux 6.1 …", "descriptors": 20000},
     "versions": {"python": "3.11.9", "automoderate": "0.1.0", …},
     "notes": ["what was left out or made smaller, and why"],
     "contenders": [{"name": "asyncio", "title": "AutoModerate, asyncio", "kind": "adapter" | "peer" | "floor",
                     "command": ["…"], "versions": {"uvloop": "0.21.0"}, "nodes": 0 (that share a Redis)}],
     "scenarios": [{"name": "fanout-1x5000", "kind": "throughput", "members": 5000, "rooms": 1,
                    "rate": null, "batch": 1, "variant": "" (or what is different), "window": 0, "standard": true}],
     "samples": [{"scenario": "fanout-1x5000", "contender": "asyncio", "round": 0, …}]}

Contenders and scenarios are in the order in which they are shown. A sample has ``scenario``, ``contender``, ``round``
and, by the kind of its scenario (times in seconds unless the name says otherwise):

``throughput``, ``backlog`` and ``delay``
    ``updates``, ``deliveries``, ``seconds`` (first publish to last receipt), ``rate`` (deliveries a second),
    ``server_cpu`` (CPU seconds of the server's process meanwhile), ``cost_us`` (that per delivery, microseconds),
    ``load_share`` (the load generator's CPU time by wall time, 0 to 1), ``load_limited`` (it was above 0.9: the figure
    may be the load generator's), ``delay`` (publish to receipt: ``p50_ms``, ``p99_ms``, ``max_ms`` and ``histogram``,
    pairs of an upper bound in microseconds and a count, ascending, empty ones left out).
    Where nodes share a Redis ``server_cpu`` is of all of them. ``redis_cpu`` and ``publisher_cpu`` stand beside it (CPU
    seconds), ``redis_us`` and ``publisher_us`` are the same per update (microseconds). Where those run on the load
    generator's core ``load_share`` counts them too.
``stall``
    The same, and ``ping`` and ``join``: how long another client's WebSocket ping and ``join_project`` took to be
    answered meanwhile, ``count``, ``p50_ms``, ``p99_ms``, ``max_ms`` each.
``polling`` and ``window``
    The same as ``delay``; with a window also ``per_cpu_second`` (deliveries a second of the server's CPU time).
``publish``
    ``updates`` (POSTs), ``seconds``, ``rate`` (POSTs a second), ``server_cpu``, ``cost_us`` (per POST), ``load_share``,
    ``load_limited``, ``answer`` (how long each answer took) and ``delay`` (of the deliveries): ``p50_ms``, ``p99_ms``,
    ``max_ms``.
``notifier``
    ``updates`` (handed over), ``deliveries``, ``dropped``, ``failed``, ``seconds`` (first hand-over to last receipt),
    ``rate`` (deliveries a second), ``server_cpu`` and ``cost_us`` (per delivery), ``notifier_cpu`` and ``notifier_us``
    likewise, ``delay``.
``storm``
    ``members``, ``seconds`` (the first connection's end to the last join), ``rate``, ``back`` (each one's, as
    ``answer``), ``statements`` that the database was asked, ``refused`` and ``timed_out`` attempts, ``errors`` and the
    ``first_error``, ``server_cpu``, ``cost_us`` (per session).
``jitter``
    As ``delay`` without its histogram, and ``delivered`` (1 where everybody got everything), ``cuts``, ``replayed``
    (deliveries of what was missed), ``back`` (from connecting again to having caught up).
``stalled``
    ``updates``, ``delivered`` to the one who stopped reading, ``lost_unnoticed``, ``lost_ended``, ``lost_told``,
    ``grown`` (bytes of the server's memory meanwhile); ``rate``, ``delay`` and costs of the others.
``connect``
    ``members`` (those who came after the first tenth), ``seconds``, ``rate`` (sessions connected, logged in and joined
    a second), ``server_cpu``, ``cost_us`` (per session), ``load_share``, ``load_limited``.
``memory``
    ``members`` (likewise), ``before`` and ``after`` (resident bytes with the first tenth and with all), ``bytes_each``.

``hostile``
    ``ping``, ``join`` and ``delay`` (of updates) of the other clients as in ``stall``; ``p99_ms`` and ``max_ms``, the
    worst of those three; ``grown`` (bytes that the server's memory had grown by at most), ``server_cpu``; what was
    done, and ``said``, the same in words. Or ``gave_up``: the seconds without an update after which the run was ended.

A sample that failed has ``error``, one line, instead of the figures.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen

from benchmarks.scenarios import Scenario
from benchmarks.servers import Contender, distributions

SCHEMA = 1
DISTRIBUTIONS = ("automoderate", "h11", "orjson", "websockets", "python-socketio", "python-engineio", "SQLAlchemy")


@frozen
class Sample:
    """What one run has found, or why it found nothing."""

    scenario: str
    contender: str
    round: int
    figures: dict[str, Any]

    @property
    def error(self) -> str | None:
        """Why there are no figures."""
        return self.figures.get("error")

    def figure(self, name: str) -> float | None:
        """A figure by its name, of which a dot leads inside: ``delay.p99_ms``."""
        found: Any = self.figures
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return None if found is None else float(found)


@define
class Results:
    """All samples of one run."""

    contenders: Sequence[Contender]
    scenarios: Sequence[Scenario]
    samples: list[Sample] = field(factory=list)
    notes: list[str] = field(factory=list)

    def of(self, scenario: str, contender: str) -> list[Sample]:
        """The samples of one contender in one scenario."""
        return [sample for sample in self.samples if (sample.scenario, sample.contender) == (scenario, contender)]

    def values(self, scenario: str, contender: str, figure: str) -> list[float]:
        """One figure of every sample that has it."""
        found = (sample.figure(figure) for sample in self.of(scenario, contender))
        return [value for value in found if value is not None]

    def median(self, scenario: str, contender: str, figure: str) -> float | None:
        """The median of one figure, None where there is none."""
        values = self.values(scenario, contender, figure)
        return statistics.median(values) if values else None

    def errors(self, scenario: str, contender: str) -> list[str]:
        """What went wrong, once each."""
        found = (sample.error for sample in self.of(scenario, contender))
        return list(dict.fromkeys(error for error in found if error is not None))

    def save(self, path: Path, command: Sequence[str]) -> None:
        """Write it all as JSON."""
        path.write_text(json.dumps(self.as_dict(command), indent=1) + "\n")

    def as_dict(self, command: Sequence[str]) -> dict[str, Any]:
        """It all, as the file has it."""
        return {
            "schema": SCHEMA,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": list(command),
            "machine": machine(),
            "versions": {"python": platform.python_version(), **distributions(*DISTRIBUTIONS)()},
            "notes": self.notes,
            "contenders": [
                {"name": c.name, "title": c.title, "kind": c.kind, "command": [*c.argv, "CONFIG"],
                 "versions": c.versions(), "nodes": c.nodes}
                for c in self.contenders
            ],
            "scenarios": [attrs.asdict(scenario) for scenario in self.scenarios],
            "samples": [
                {"scenario": s.scenario, "contender": s.contender, "round": s.round, **s.figures}
                for s in self.samples
            ],
        }  # fmt: skip


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "implementation": f"{platform.python_implementation()} {sys.version.split()[0]}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
