"""Situations in which a server has to keep its head, and what the others wait for meanwhile.

Each begins with a server of its own, as it may not survive what is done to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from subprocess import TimeoutExpired
from typing import Any

from attrs import evolve, frozen

from benchmarks import native
from benchmarks.generator import LoadGenerator
from benchmarks.hostile.control import Attack, start, wait_with
from benchmarks.reader import Reader
from benchmarks.servers import Contender
from benchmarks.site import Cores
from benchmarks.world import TEMPLATE, World, changed

SILENT, SLOW, RETURNING = 5000, 1000, 2000
LARGE, PUBLISHED = 20_000, 200_000_000  # bytes of an update, and of all that are published to those who do not read
STOPPED_SECONDS, MANY_SECONDS = 5.0, 6.0
LISTENERS = 5  # of so large updates
FILES = 200  # descriptors, where they run out
HOUR = 3600
LOADED = 1.0  # seconds of updates before SIGTERM
LEAVING = 60.0  # seconds that a server has to end after SIGTERM
PATIENCE = 30.0


Measure = Callable[[Contender, World, Cores], dict[str, Any]]
"""The figures of one contender; among them may be ``said``."""


@frozen
class Situation:
    """Something that happens to a server."""

    name: str
    title: str
    measure: Measure


def stopped(readers: int) -> Measure:
    def measure(contender: Contender, world: World, cores: Cores) -> dict[str, Any]:
        """Members who joined read no more, while large updates go out."""
        template = {**TEMPLATE, "meta_data": {"padding": "x" * LARGE}}
        config = changed(world.config, template=template)
        rate = PUBLISHED / LARGE / STOPPED_SECONDS
        with contextlib.ExitStack() as open_things:
            site = start(contender, config, cores, world, LISTENERS, limits="raised")
            open_things.callback(site.close)
            for member in world.members(readers, 1):
                open_things.callback(Reader(site.server.ports[0], member).close)
            return wait_with(site, STOPPED_SECONDS, rate=rate)

    return measure


def many(name: str, connections: int) -> Measure:
    def measure(contender: Contender, world: World, cores: Cores) -> dict[str, Any]:
        """So many connections of :data:`benchmarks.hostile.inputs.MANY`."""
        site = start(contender, world.config, cores, world)
        try:
            attack = Attack(site.server.ports[0], name, connections, cores.load)
            try:
                figures = wait_with(site, MANY_SECONDS, attack.begin)
                done = attack.end()
            finally:
                attack.close()
        finally:
            site.close()
        held = done["opened"] - done["ended"]
        return figures | {**done, "said": f"{held:,} of {done['opened']:,} held"}

    return measure


def returning(contender: Contender, world: World, cores: Cores) -> dict[str, Any]:
    """Many clients come at the same time and join."""
    site = start(contender, world.config, cores, world, limits="raised")
    try:
        load = LoadGenerator(site.server.ports, cores.load)
        try:
            os.setpriority(os.PRIO_PROCESS, load.pid, 19)  # as attackers: on the core of the others
            others = [member for member in world.members(2 * RETURNING, 2) if member.room == 1]
            figures = wait_with(site, 2.0, lambda: load.begin_connecting(others, None, RETURNING))
            joined = load.connected()
        finally:
            load.close()
    finally:
        site.close()
    return figures | {"seconds": joined.seconds, "said": f"all back in {joined.seconds:.1f} s"}


def terminated(contender: Contender, world: World, cores: Cores) -> dict[str, Any]:
    """SIGTERM while updates go out; in another run a second one half a second later."""
    once, twice = (_ends_after(contender, world, cores, signals) for signals in (1, 2))
    return {"exit_s": once, "exit_twice_s": twice, "said": f"gone in {once:.1f} s, after two in {twice:.1f} s"}


def _ends_after(contender: Contender, world: World, cores: Cores, signals: int) -> float:
    site = start(contender, world.config, cores, world)
    try:
        server = site.alone()
        site.load.begin(10_000)
        server.publish(rooms=1, updates=10_000, batch=1, rate=500.0)
        time.sleep(LOADED)
        begun = time.monotonic()
        for number in range(signals):
            time.sleep(0.5 * number)
            server.send_signal(signal.SIGTERM)
        try:
            server.wait(LEAVING)
        except TimeoutExpired:
            return LEAVING
        return time.monotonic() - begun
    finally:
        site.close()


def without_descriptors(contender: Contender, world: World, cores: Cores) -> dict[str, Any]:
    """More connections come than the server may have files open, and go again."""
    limited = evolve(contender, argv=("prlimit", f"--nofile={FILES}", *contender.argv))
    site = start(limited, world.config, cores, world)
    try:
        port = site.server.ports[0]
        with contextlib.ExitStack() as connections:

            def crowd() -> None:
                for number in range(2 * FILES):
                    address = (f"127.0.0.{2 + number % 50}", 0)
                    connection = socket.create_connection(("127.0.0.1", port), PATIENCE, address)
                    connections.callback(connection.close)

            figures = wait_with(site, 2.0, crowd)
        begun = time.monotonic()
        recovered = _joins(port, world)
        took = time.monotonic() - begun
    finally:
        site.close()
    said = f"a new client joins after {took:.1f} s" if recovered else "no new client joins"
    return figures | {"recovered": recovered, "recovery_s": took, "said": said}


def _joins(port: int, world: World) -> bool:
    """Whether somebody new can join, before long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            Reader(port, world.members(1, 1)[0]).close()
        except OSError:
            time.sleep(0.1)
            continue
        return True
    return False


def clock_set(contender: Contender, world: World, cores: Cores) -> dict[str, Any]:
    """The wall clock goes an hour forth and two back, again and again; clients come meanwhile."""
    with tempfile.NamedTemporaryFile() as offset:

        def put(seconds: int) -> None:
            offset.seek(0)
            offset.write(struct.pack("=q", seconds))
            offset.flush()

        put(0)
        library = native.build("wall_clock", "-shared", "-fPIC")
        settable = ("env", f"LD_PRELOAD={library}", f"WALL_CLOCK={offset.name}", *contender.argv)
        site = start(evolve(contender, argv=settable), world.config, cores, world)
        ended = threading.Event()

        def turn() -> None:
            hour = HOUR
            while not ended.wait(0.2):
                put(hour)
                hour = -hour

        turning = threading.Thread(target=turn)
        try:
            figures = wait_with(site, 3.0, turning.start)
            ended.set()
            put(HOUR)
            joins = _joins(site.server.ports[0], world)
        finally:
            ended.set()
            turning.join()
            site.close()
    return figures | {"said": "a new client joins" if joins else "no new client joins"}


SITUATIONS = (
    Situation("stopped-1", "1 reader stops, 200 MB are published", stopped(1)),
    Situation("stopped-50", "50 readers stop, 200 MB are published", stopped(50)),
    Situation("silent", f"{SILENT:,} sessions that never connect", many("silent", SILENT)),
    Situation("slow-headers", f"headers of a byte a second on {SLOW:,} connections", many("slow-headers", SLOW)),
    Situation("slow-bodies", f"bodies of a byte a second on {SLOW:,} connections", many("slow-bodies", SLOW)),
    Situation("returning", f"{RETURNING:,} clients come back and join", returning),
    Situation("sigterm", "SIGTERM while updates go out", terminated),
    Situation("descriptors", "no descriptors left", without_descriptors),
    Situation("clock", "the wall clock is set back and forth", clock_set),
)
