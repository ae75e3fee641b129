"""How much official clients send at once, beside what a session may send: the figures of ``docs/operating.md``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from attrs import Factory, define

from automoderate.protocol import engineio
from automoderate.protocol.engineio_packets import BURST, Packets
from automoderate.protocol.engineio_payload import MAX_PACKETS, split
from automoderate.protocol.model import Session
from kits import ROOT
from kits.cables import Cable
from kits.contract_site import Site, World
from kits.real_clients import LIBRARIES, TRANSPORTS, Clients

ROOMS = 50
"""As many as a session may be in."""
FACTOR = 10
"""How many times as much a session may send, at the least."""

charge, receive = Packets.charge, Packets.receive


@define
class Meter:
    """Sees what the server counts. However slow this machine is: what is forgiven as time passes counts as well."""

    sent: Counter[str] = Factory(Counter)
    """What was charged to each session, by its id, but for its heartbeat."""
    posted: Counter[str] = Factory(Counter)
    """The most packets in one POST, by the client."""
    sids: dict[str, set[str]] = Factory(dict)
    """The sessions of each client, which says its name in its packets."""

    def charge(self, packets: Packets, session: Session, count: float, now: float) -> None:
        charge(packets, session, count, now)
        self.sent[session.sid] += round(count)

    def receive(self, packets: Packets, session: Session, raw: str | bytes, now: float) -> None:
        for name in self.names_in(str(raw)):
            self.sids.setdefault(name, set()).add(session.sid)
        self.sent[session.sid] -= raw == "3"
        receive(packets, session, raw, now)

    def split(self, body: bytes) -> list[str]:
        found = split(body)
        for name in self.names_in(body.decode()):
            self.posted[name] = max(self.posted[name], len(found))
        return found

    @staticmethod
    def names_in(text: str) -> set[str]:
        return set(re.findall(r'"by": ?"([^"]+)"', text))

    def of_a_session(self, name: str) -> int:
        """The most that was charged to a session of this client."""
        return max(self.sent[sid] for sid in self.sids[name])


@pytest.fixture
def metered(tmp_path: Path, adapter: str) -> Iterator[tuple[Site, Meter]]:
    """A server in this process, whose counts can be seen."""
    meter = Meter()
    world = World.make(tmp_path / "bursts.db")
    with (
        mock.patch.object(Packets, "charge", lambda *args: meter.charge(*args)),
        mock.patch.object(Packets, "receive", lambda *args: meter.receive(*args)),
        mock.patch.object(engineio, "split", meter.split),
    ):
        site = Site(adapter, world, {"drain_timeout": 0.1})
        yield site, meter
        site.stop()
    world.database.close()


@pytest.fixture
def cable(metered: tuple[Site, Meter]) -> Iterator[Cable]:
    cable = Cable(metered[0].address[1])
    yield cable
    cable.close()


def test_the_largest_bursts_are_far_below_what_a_session_may_send(
    metered: tuple[Site, Meter], cable: Cable, client: Clients
) -> None:
    site, meter = metered
    alice = site.world.user()
    projects = [site.world.project(alice) for _ in range(ROOMS)]
    clients = {
        f"{library} on {transports}": client(cable.url, site.world.cookie(alice), transports, library)
        for library in LIBRARIES
        for transports in TRANSPORTS
    }
    joins = {name: [{"project_id": each, "by": name} for each in projects] for name in clients}
    for one in clients.values():
        one.connect()
    for name, one in clients.items():
        one.wait("connected")
        one.emit_all("join_project", joins[name])
    for one in clients.values():
        one.wait("joined_project", ROOMS)
    cable.cut()
    for name, one in clients.items():
        one.wait("disconnect")
        if one.keeps:
            one.emit_all("join_project", joins[name])
    cable.plugged.set()
    for name, one in clients.items():
        one.wait("connected", 2)
        if not one.keeps:
            one.emit_all("join_project", joins[name])
        one.wait("joined_project", 2 * ROOMS)
    sessions = {name: meter.of_a_session(name) for name in clients}
    posts = {name: meter.posted[name] for name in clients if not name.endswith(" websocket")}
    assert max(sessions.values()) <= BURST / FACTOR, sessions
    assert max(posts.values()) <= MAX_PACKETS / FACTOR, posts
    # What a machine can do in a moment another does in two: in more packets, fewer of which are in one POST.
    text = " ".join((ROOT / "docs" / "operating.md").read_text().split())
    said = re.search(r"at most (\d+) of its ([\d,]+) packets, and the largest POST has (\d+) of ([\d,]+)", text)
    assert said is not None
    at_once, burst, post, packets = (int(number.replace(",", "")) for number in said.groups())
    assert (burst, packets) == (BURST, MAX_PACKETS)
    assert ROOMS < max(sessions.values()) <= at_once, sessions
    assert ROOMS / 2 < max(posts.values()) <= post, posts
