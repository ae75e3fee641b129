"""Figures of clients that were away: as their server restarted, as they were cut off, or as they stopped reading."""

from __future__ import annotations

from typing import Any

from benchmarks.child import ChildFailed
from benchmarks.inside import ANSWER, LONGEST
from benchmarks.reader import Reader
from benchmarks.scenarios import Scenario
from benchmarks.site import Site, costs
from benchmarks.world import World

EVERY, AWAY = 15.0, 2.0  # seconds between two cuts of a member, and of each
STALLED = 10_000  # updates that go out while one member does not read


def measure_storm(site: Site) -> dict[str, Any]:
    """The server restarts on the same port, and everybody comes back with the official client's back-off."""
    site.load.begin_storm()
    server = site.restart()
    before = server.cpu()
    back = site.load.returned(LONGEST)
    cpu = server.cpu() - before
    server.say('{"statements": true}')
    statements = server.hear(ANSWER)["statements"]
    return {
        "members": back.back.count, "seconds": back.seconds, "rate": back.back.count / back.seconds,
        "back": back.back.summary(), "statements": statements, "refused": back.refused, "timed_out": back.timed_out,
        "errors": back.errors, "first_error": back.first_error, "server_cpu": cpu,
        "cost_us": cpu / back.back.count * 1e6,
    }  # fmt: skip


def measure_jitter(site: Site, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """Updates at a fixed rate while every member is cut off now and then; each has to get each, once and in order."""
    assert scenario.rate is not None
    server, updates = site.alone(), max(1, round(scenario.rate * seconds))
    site.load.begin_cutting(updates, every=EVERY, away=AWAY)
    before = server.cpu()
    server.publish(rooms=1, updates=updates, batch=1, rate=scenario.rate)
    caught_up = site.load.caught_up(seconds + LONGEST)
    cpu = server.cpu() - before
    server.hear(ANSWER)
    return {
        "updates": updates, "deliveries": caught_up.deliveries,
        "delivered": caught_up.deliveries / scenario.deliveries(updates),
        "rate": caught_up.deliveries / caught_up.seconds, "cuts": caught_up.cuts, "replayed": caught_up.replayed,
        "back": caught_up.back.summary(), "delay": caught_up.delivery.summary(),
        **costs(caught_up, cpu, caught_up.deliveries),
    }  # fmt: skip


def measure_stalled(site: Site, world: World, _scenario: Scenario) -> dict[str, Any]:
    """One member more stops reading while many updates go out; afterwards it reads on, and comes back if it has to."""
    server = site.alone()
    member = world.members(1, 1)[0]
    try:
        reader = Reader(server.ports[0], member)
    except OSError as error:
        raise ChildFailed(f"the one that is to stop reading: {error}") from error
    try:
        site.load.begin(STALLED)
        before, cpu = server.resident(), server.cpu()
        server.publish(rooms=1, updates=STALLED, batch=1, rate=None)
        others = site.load.result(LONGEST)
        grown, cpu = server.resident() - before, server.cpu() - cpu
        reader.read_on()
        got, recovered = reader.seqs, reader.recovered
        if reader.ended:
            again = Reader(server.ports[0], member, reader.last_event_id)
            again.close()
            got, recovered = got + again.seqs, again.recovered
        server.hear(LONGEST)
    except OSError as error:
        raise ChildFailed(f"the one that stopped reading: {error}") from error
    finally:
        reader.close()
    if got != sorted(set(got)):
        raise ChildFailed("the one that stopped reading got updates twice, or not in order")
    lost = STALLED - len(got)
    return {
        "updates": STALLED, "delivered": len(got), "grown": grown, "rate": others.deliveries / others.seconds,
        "lost_told": lost if recovered is False else 0,
        "lost_ended": lost if reader.ended and recovered is not False else 0,
        "lost_unnoticed": 0 if reader.ended or recovered is False else lost,
        "delay": others.delivery.summary(), **costs(others, cpu, others.deliveries),
    }  # fmt: skip
