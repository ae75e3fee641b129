"""Clients that were away, and programs that publish from outside: what is measured of a real server of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import away, inside, outside
from benchmarks.peers.contenders import PEERS
from benchmarks.scenarios import Scenario
from benchmarks.servers import ADAPTERS, Contender
from benchmarks.site import Cores, Site
from benchmarks.world import World, changed

MEMBERS = 6
NODE = next(peer for peer in PEERS if peer.name == "node")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), [(MEMBERS, 1)])


def start(world: World, contender: Contender, config: Path) -> Site:
    """A server with its sessions."""
    site = Site.start(contender, config, Cores(None, None))
    try:
        site.connect(world, MEMBERS, 1)
    except BaseException:
        site.close()
        raise
    return site


@pytest.fixture(scope="module")
def site(world: World) -> Iterator[Site]:
    site = start(world, ADAPTERS[0], world.config)
    yield site
    site.close()


def test_everybody_comes_back_to_a_server_that_restarts(site: Site) -> None:
    ports, pid = site.server.ports, site.alone().pid
    figures = away.measure_storm(site)
    assert site.server.ports == ports
    assert site.alone().pid != pid
    assert figures["members"] == MEMBERS + 1
    assert figures["errors"] == 0
    assert figures["statements"] >= 2
    assert 0.5 <= figures["back"]["p50_ms"] / 1000 <= figures["seconds"]
    again = inside.measure_at_rate(site, Scenario("after", "delay", MEMBERS, rate=100.0), 0.1)
    assert again["deliveries"] == 10 * MEMBERS


def test_updates_wait_for_one_another_where_servers_are_started_so(world: World) -> None:
    site = start(world, ADAPTERS[0], changed(world.config, window=100))
    try:
        scenario = Scenario("window", "window", MEMBERS, rate=500.0, window=100)
        figures = inside.measure_at_rate(site, scenario, 0.5)
    finally:
        site.close()
    assert figures["deliveries"] == 250 * MEMBERS
    assert figures["delay"]["p99_ms"] > 50
    assert figures["per_cpu_second"] > 0


@pytest.mark.parametrize("contender", [ADAPTERS[0], NODE], ids=["ours", "Node's"])
def test_who_is_cut_off_gets_everything(world: World, contender: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    assert contender.missing() is None
    monkeypatch.setattr(away, "EVERY", 0.3)
    monkeypatch.setattr(away, "AWAY", 0.1)
    site = start(world, contender, changed(world.config, recovery=True))
    try:
        figures = away.measure_jitter(site, Scenario("jitter", "jitter", MEMBERS, rate=50.0), 1.0)
    finally:
        site.close()
    assert figures["delivered"] == 1.0
    assert figures["cuts"] >= MEMBERS
    assert figures["replayed"] > 0
    assert 0 < figures["back"]["p50_ms"] <= figures["back"]["p99_ms"]


def test_who_stops_reading_gets_everything_or_is_told(
    site: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(away, "STALLED", 3000)
    figures = away.measure_stalled(site, world, Scenario("stalled", "stalled", MEMBERS))
    lost = figures["lost_told"] + figures["lost_ended"] + figures["lost_unnoticed"]
    assert figures["delivered"] + lost == 3000
    assert figures["lost_unnoticed"] == figures["lost_ended"] == 0
    assert figures["rate"] > 0


def test_publications_over_http_are_counted(site: Site, world: World) -> None:
    outside.warm_up(site, world)
    figures = outside.measure_publish(site, world, 0.05)
    assert figures["updates"] >= outside.CONNECTIONS
    assert 0 < figures["answer"]["p50_ms"] <= figures["answer"]["max_ms"]
    assert figures["server_cpu"] > 0


def test_a_burst_through_the_notifier_is_counted(site: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "BURST", 20)
    figures = outside.measure_notifier(site, world)
    assert (figures["deliveries"], figures["dropped"], figures["failed"]) == (20, 0, 0)
    assert figures["rate"] > 0
    assert figures["notifier_us"] > 0
