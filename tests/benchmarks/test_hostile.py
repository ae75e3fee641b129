"""What is sent is what it is called, is sent, and what the others wait for is measured."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from click.testing import CliRunner
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from benchmarks import native, report, table
from benchmarks.child import ChildFailed
from benchmarks.hostile import control, situations
from benchmarks.hostile.__main__ import acts, main
from benchmarks.hostile.control import Attack, Ground, wait_with
from benchmarks.hostile.inputs import INPUTS, MANY, SIZE, Input, packets
from benchmarks.results import Results, Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import ADAPTERS, FLOOR
from benchmarks.site import Cores
from benchmarks.world import World

ANYWHERE = Cores(None, None)
MEMBERS = 4


# What is sent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.name)
def test_each_input_is_about_a_megabyte(kind: Input) -> None:
    assert 0.85 * SIZE < len(kind.make()) <= SIZE + 6


def named(name: str) -> bytes:
    """The bytes of an input."""
    return next(kind for kind in (*INPUTS, *MANY) if kind.name == name).make()


@pytest.mark.parametrize("name", [kind.name for kind in INPUTS if kind.how == "websocket"])
def test_what_goes_over_a_websocket_is_frames_without_a_fault(name: str) -> None:
    server = ServerProtocol(state=State.OPEN, max_size=None)
    server.receive_data(named(name))
    assert server.parser_exc is None
    frames = [event for event in server.events_received() if isinstance(event, Frame)]
    kinds = {(frame.opcode, bytes(frame.data[:8])) for frame in frames}
    assert (
        kinds
        == {
            "ws-acks": {(Opcode.TEXT, b"430[]")},
            "ws-pings": {(Opcode.PING, b"")},
            "ws-noops": {(Opcode.TEXT, b"6")},
            "ws-connects": {(Opcode.TEXT, b"40"), (Opcode.TEXT, b"41")},
            "ws-fragments": {(Opcode.TEXT, b"4"), (Opcode.CONT, b"x")},
            "ws-empty": {(Opcode.TEXT, b"4"), (Opcode.CONT, b"")},
            "event-objects": {(Opcode.TEXT, b'42["x",[')},
            "event-nested": {(Opcode.TEXT, b'42["x",[')},
        }[name]
    )
    if name.startswith("event"):
        json.loads(bytes(frames[0].data)[2:])


@pytest.mark.parametrize("name", ["pipelined-bad", "pipelined-handshakes", "query", "cookie", "headers"])
def test_what_is_pipelined_is_requests_without_a_fault(name: str) -> None:
    data = named(name)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=SIZE)
    connection.receive_data(data[: data.index(b"\r\n\r\n") + 4])
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert request.target.startswith(b"/socket.io/?EIO=")
    assert data.endswith(b"\r\n\r\n")
    headers = {"headers": 3001, "cookie": 2}.get(name, 1)
    assert len(request.headers) == headers


def test_packets_are_separated_and_end_with_one() -> None:
    assert packets("40", "41").startswith(b"40\x1e41\x1e40\x1e")
    assert packets("40", "41").endswith(b"\x1e41")


# Who sends it, and who waits -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), [(10, 2), (control.MEMBERS, 1)])


@pytest.fixture(scope="module")
def ground(world: World) -> Iterator[Ground]:
    with Ground(ADAPTERS[0], world, ANYWHERE, MEMBERS) as ground:
        yield ground


@pytest.mark.parametrize("name", ["ws-noops", "post-noops", "chunked", "headers", "silent", "slow-bodies"])
def test_an_attack_is_one_and_the_others_go_on(ground: Ground, name: str) -> None:
    with ground.taken() as site:
        attack = Attack(site.server.ports[0], name, 2, None)
        try:
            figures = wait_with(site, 0.3, attack.begin)
            done = attack.end()
        finally:
            attack.close()
    assert done["opened"] >= 2
    assert done["sent"] > 0 or name == "silent"
    assert figures["delay"]["count"] == MEMBERS * round(0.3 * control.RATE)
    assert 0 < max(figures[name]["p99_ms"] for name in ("ping", "join", "delay")) == figures["p99_ms"]
    assert figures["p99_ms"] <= figures["max_ms"]


def test_where_nothing_comes_any_more_the_run_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ground(ADAPTERS[0], world, ANYWHERE, MEMBERS) as ground, ground.taken() as site:
        monkeypatch.setattr(control, "PATIENCE", 0.3)
        stop = site.alone().rest
        assert wait_with(site, 0.3, stop) == {"gave_up": 0.3}
        site.wake()


def test_a_server_that_loses_the_others_has_failed_and_is_put_up_anew(world: World) -> None:
    with Ground(ADAPTERS[0], world, ANYWHERE, MEMBERS) as ground:
        with pytest.raises(ChildFailed), ground.taken() as site:
            wait_with(site, 5.0, lambda: site.alone().send_signal(signal.SIGKILL))
        with ground.taken() as site:
            assert wait_with(site, 0.1)["p99_ms"] > 0


# Situations ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes less than in a run."""
    sizes = {"PUBLISHED": 2_000_000, "STOPPED_SECONDS": 0.5, "MANY_SECONDS": 0.5, "RETURNING": 5, "LOADED": 0.1}
    for name, value in sizes.items():
        monkeypatch.setattr(situations, name, value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("measure", "said"),
    [
        pytest.param(situations.stopped(2), None, id="stopped"),
        pytest.param(situations.many("silent", 3), "3 of 3 held", id="silent"),
        pytest.param(situations.many("slow-headers", 3), "3 of 3 held", id="slow"),
        pytest.param(situations.returning, "all back in ", id="returning"),
        pytest.param(situations.terminated, "gone in ", id="SIGTERM"),
        pytest.param(situations.without_descriptors, "a new client joins after ", id="descriptors"),
        pytest.param(situations.clock_set, "a new client joins", id="clock"),
    ],
)
def test_situations_are_what_they_are_called(world: World, measure: situations.Measure, said: str | None) -> None:
    figures = measure(ADAPTERS[0], world, ANYWHERE)
    assert str(figures.get("said", "")).startswith(said or "")
    assert figures.get("p99_ms", 1) > 0


def test_the_wall_clock_can_be_set_and_no_other(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("=q", 7200))
    code = "import time; print(time.time(), time.monotonic())"
    environment = {"LD_PRELOAD": str(native.build("wall_clock", "-shared", "-fPIC")), "WALL_CLOCK": str(offset)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(said[0]) == pytest.approx(time.time() + 7200, abs=60)
    assert float(said[1]) == pytest.approx(time.monotonic(), abs=60)


# What is said of it --------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_everything_and_a_column_for_everybody() -> None:
    scenarios = [Scenario(name, "hostile", 100, words=name.title()) for name in ("quick", "stuck", "gone", "broken")]
    results = Results([ADAPTERS[0], FLOOR], scenarios)
    figures: dict[str, dict[str, Any]] = {
        "quick": {"p99_ms": 1.234, "max_ms": 5.6, "grown": 1000},
        "stuck": {"gave_up": 10.0},
        "gone": {"said": "gone in 0.1 s"},
        "broken": {"error": "the server hung up"},
    }
    results.samples += [Sample(name, "asyncio", 0, figures[name]) for name in figures]
    results.samples.append(Sample("quick", "floor", 0, {"p99_ms": 2.0, "max_ms": 3.0, "grown": 50 * 2**20}))
    assert table.waits(results) == [
        [table.WAITS, ADAPTERS[0].title, FLOOR.title],
        ["Quick", "1.2 (6)", "2.0 (3), +50 MB"],
        ["Stuck", "> 10,000", ""],
        ["Gone", "gone in 0.1 s", ""],
        ["Broken", "failed: the server hung up", ""],
    ]


def test_where_nothing_hostile_was_done_there_is_no_such_table() -> None:
    assert table.waits(Results([FLOOR], [Scenario("fanout-1x1", "throughput", 1)])) == []


def test_everything_is_done_over_each_number_of_connections() -> None:
    assert [scenario.name for scenario, _, _ in acts(("nothing", "ws-acks", "sigterm"), (1, 50))] == [
        "nothing", "ws-acks-1", "ws-acks-50", "sigterm",
    ]  # fmt: skip
    assert len(acts((), (1, 50))) == 1 + 2 * len(INPUTS) + len(situations.SITUATIONS)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--only", "kindness"), 2, "nothing hostile is called 'kindness': choose of nothing, pipelined-bad"),
        (("--connections", "0"), 2, "'0' is no list of whole numbers from 1"),
        (("--adapters", "none", "--peers", "none"), 2, "nothing to measure"),
        (("--page", __file__), 2, "begins with '<!-- From here on'"),
    ],
)
def test_wrong_usage_is_status_2_and_a_line_that_says_what_is_right(
    arguments: tuple[str, ...], status: int, complaint: str
) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == status
    assert complaint in run.output


def test_without_a_compiler_it_cannot_start_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "there is no such compiler")
    run = CliRunner().invoke(main, ())
    assert (run.exit_code, run.output) == (3, f"Error: {native.NO_COMPILER}\n")


def test_a_run_ends_with_a_table_and_writes_it_into_a_page(tmp_path: Path) -> None:
    path, page = tmp_path / "hostile.json", tmp_path / "page.md"
    page.write_text(f"By hand.\n\n{report.MARK}: a command -->\n\nOld figures.\n")
    words = (
        "--adapters", "asyncio", "--peers", "none", "--only", "nothing,ws-noops", "--connections", "1",
        "--seconds", "0.2", "--json", str(path), "--page", str(page),
    )  # fmt: skip
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 0, run.output
    assert "WebSocket: 6, 1 ×" in run.output
    written = page.read_text()
    assert written.startswith(f"By hand.\n\n{report.MARK}: a command -->\n\n20")
    assert "| WebSocket: 6, 1 × | " in written
    assert "Old figures" not in written
    found = json.loads(path.read_text())
    assert [sample["scenario"] for sample in found["samples"]] == ["nothing", "ws-noops-1"]
    assert found["samples"][1]["rounds"] >= 1
    assert found["samples"][0]["ping"]["count"] > 0
