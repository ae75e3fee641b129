"""One and two nodes that share a real Redis: what a run leaves, what spoils it, and how its figures are shown."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import cluster, planning, servers, table
from benchmarks.budget import Budget
from benchmarks.child import ChildFailed
from benchmarks.nodes import contenders, main, placed, scenarios
from benchmarks.peers.contenders import sharing_redis
from benchmarks.progress import Progress
from benchmarks.report import Report, markdown
from benchmarks.results import Results
from benchmarks.run import Run
from benchmarks.scenarios import Scenario
from benchmarks.servers import ADAPTERS
from benchmarks.site import Cores, Site
from benchmarks.world import World
from benchmarks.worlds import Worlds
from kits import PYTHONPATH, ROOT

CANNED = Path(__file__).parent / "nodes.json"
ANYWHERE = Cores(None, None, (None, None), None)

# The run -----------------------------------------------------------------------------------------------------


def test_a_small_run_has_figures_of_everything(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    (tmp_path / "before").symlink_to(ROOT)
    words = (
        "--adapter", "asyncio", "--members", "13", "--rooms", "3", "--repeat", "1", "--seconds", "0.1",
        "--also", str(tmp_path / "before"), "--json", str(path),
    )  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.nodes", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(path.read_text())
    assert found["command"] == ["python", "-m", "benchmarks.nodes", *words]
    layouts = {scenario["name"]: (scenario["members"], scenario["rooms"]) for scenario in found["scenarios"]}
    assert layouts == {"fanout-3x4": (12, 3), "delay-3x4": (12, 3)}
    others = [peer.name for peer in sharing_redis(2) if peer.missing() is None]
    assert {(s["scenario"], s["contender"]) for s in found["samples"]} == {
        (name, contender)
        for name in layouts
        for contender in ("memory", "redis-1", "redis-2", "redis-1@before", *others)
    }
    for sample in found["samples"]:
        members, rooms = layouts[sample["scenario"]]
        assert sample["deliveries"] == sample["updates"] * members // rooms > 0
        assert sum(count for _, count in sample["delay"]["histogram"]) == sample["deliveries"]
        assert sample["rate"] > 0
        assert sample["cost_us"] > 0
        shared = {"redis_cpu", "publisher_cpu", "redis_us", "publisher_us"}
        assert {name for name in shared if sample.get(name, 0) > 0} == (
            set() if sample["contender"] == "memory" else shared
        )
    assert {"redis-server", "redis"} <= set(found["contenders"][1]["versions"])
    assert [contender["nodes"] for contender in found["contenders"]] == [0, 1, 2, 1, *(2 for _ in others)]
    assert planning.TITLE in run.stdout
    assert "failed" not in markdown(Report.load(path))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path, [(4, 1)])


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher loses an update."""
    monkeypatch.setattr(cluster, "PUBLISHER", (sys.executable, "-m", "kits.lossy_publisher"))
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)


@pytest.mark.usefixtures("lossy")
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_lost_update_is_an_error_and_no_figure(tmp_path: Path, nodes: int) -> None:
    results = Results([contenders(ADAPTERS[0])[nodes]], scenarios(4, (1,)))
    Run(results, Worlds(tmp_path, results.scenarios), ANYWHERE, 1, Budget(0.1, 0.1, math.inf), Progress(3)).run()
    [sample] = results.samples
    assert sample.error is not None
    assert sample.error.endswith("update 2 came too early, others are missing; 1 was due")
    assert sample.figure("rate") is None
    assert "failed: session" in table.render(results)


@pytest.mark.usefixtures("lossy")
def test_a_run_with_an_error_ends_with_status_1() -> None:
    words = (
        "--adapter", "asyncio", "--peers", "none", "--members", "2", "--rooms", "1", "--repeat", "1",
        "--seconds", "0.1",
    )  # fmt: skip
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 1, run.output
    assert "1 was due" in run.stdout


def test_the_members_of_a_room_are_spread_over_the_nodes(world: World) -> None:
    site = Site.start(contenders(ADAPTERS[0])[2], world.config, ANYWHERE)
    try:
        site.connect(world, 4, 1)
        assert [connections(port) for port in site.server.ports] == [2, 2 + 1]  # and who asks while others listen
    finally:
        site.close()


def connections(port: int) -> int:
    """How many established connections a loopback server has, as the kernel says twice in a row.

    While connections of others come and go, a reading of that file may have some of ours twice, or not at all.
    """
    peers, before = established(port), None
    while peers != before:
        peers, before = established(port), peers
    return len(peers)


def established(port: int) -> set[str]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {peer for _, local, peer, state, *_ in lines if local == f"0100007F:{port:04X}" and state == "01"}


# What is missing or wrong --------------------------------------------------------------------------------------


def without_server(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PATH", "/no/such/folder")
    return "redis-server is not installed; scripts/install-services"


def without_module(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    return "not installed; pip install redis"


@pytest.mark.parametrize("absent", [without_server, without_module])
def test_what_is_missing_is_named_with_the_fix_and_status_3(
    absent: Callable[[pytest.MonkeyPatch], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = absent(monkeypatch)
    run = CliRunner().invoke(main, ("--adapter", "asyncio"))
    assert (run.exit_code, run.output) == (3, f"Error: {line}\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--adapter", "tornado"), "--adapter"),
        (("--peers", "tornado"), "no peer 'tornado': choose of uvicorn_socketio-2, node-2, all or none"),
        (("--rooms", "0"), "'0' is no list of whole numbers from 1"),
        (("--members", "5", "--rooms", "1,3"), "3 rooms need at least 6 members, one of each room on each node"),
        (("--seconds", "0"), "--seconds"),
        (("--json", "/no/such/folder/results.json"), "--json"),
    ],
)
def test_wrong_usage_is_status_2_and_a_line_that_says_what_is_right(arguments: tuple[str, ...], complaint: str) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 2
    assert complaint in run.output


def test_a_redis_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(cluster, "free_port", lambda: taken.getsockname()[1])
        with pytest.raises(ChildFailed, match=r"redis-server does not start: .*(bind|listen)"):
            cluster.Redis(None)


# What is measured, and where -----------------------------------------------------------------------------------


def test_delay_is_measured_with_a_thousand_members_at_most() -> None:
    assert [(s.name, s.rate) for s in scenarios(5000, (1, 100))] == [
        ("fanout-1x5000", None), ("fanout-100x50", None), ("delay-1x1000", 50.0), ("delay-100x10", 200.0),
    ]  # fmt: skip


def test_every_room_has_the_same_number_of_members() -> None:
    assert [s.layout for s in scenarios(1000, (300,))] == [(900, 300), (900, 300)]


def test_with_four_cores_each_node_has_its_own() -> None:
    assert placed([0, 1, 2, 3]) == (Cores(0, 2, (0, 1), 3), [])


@pytest.mark.parametrize("cores", [(4, 5), (4, 5, 6)])
def test_with_fewer_cores_nodes_share_one_and_a_note_says_so(cores: tuple[int, ...]) -> None:
    where, [note] = placed(cores)
    assert where == Cores(4, 5, (4, 4), 5)
    assert note.startswith(f"{len(cores)} cores: all nodes share one")


def test_a_single_core_is_shared_by_all_and_a_note_says_so() -> None:
    where, [note] = placed([0])
    assert where == ANYWHERE
    assert note == "everything shares the only core: figures are too low"


# How it is shown -----------------------------------------------------------------------------------------------


@pytest.fixture
def canned() -> Report:
    """Made-up figures that are easy to reckon with."""
    return Report.load(CANNED)


def test_the_table_has_the_costs_of_redis_and_the_publisher(canned: Report) -> None:
    rows = [line.split() for line in table.render(canned.results).splitlines() if line.startswith("  ")]
    assert ["through", "Redis,", "1", "node", "80,000", "10.00", "60.0", "90.0", "100%", "0.80"] in rows
    assert ["in", "memory,", "1", "node", "100,000", "10.00", "100%", "1.00"] in rows
    assert any(row[:4] == ["through", "Redis,", "2", "nodes"] and row[-2:] == ["its", "limit"] for row in rows)


def test_what_is_left_of_an_update_without_its_deliveries_is_what_it_costs(canned: Report) -> None:
    rows: dict[str, Any] = {what: cells for what, *cells in planning.rows(canned.results)}
    assert rows[""] == ["memory", "redis-1", "redis-2"]
    assert rows["a delivery"] == ["10.0", "10.0", "12.0"]
    # 10 deliveries at 20 µs, less 10 at 10 µs; with two nodes 10 at 26 µs, less 10 at 12 µs, for each of them.
    follows = "an update, on each node that follows 100 projects"
    assert rows[f"{follows}, as many as they take"] == ["50.0", "100.0", "70.0"]
    assert rows[f"{follows}, 200 a second"] == ["200.0", "400.0", ""]
    assert len(rows) == 4


def test_markdown_has_a_table_of_what_to_plan_with(canned: Report) -> None:
    text = markdown(canned)
    assert "| CPU µs | memory | redis-1 | redis-2 |\n|---|--:|--:|--:|\n| a delivery | 10.0 | 10.0 | 12.0 |" in text
    assert "| **through Redis, 2 nodes** | failed: session 3 in room 0: update 2 came too early" in text
    assert "| through Redis, 1 node | redis-server 7.0.0 |" in text


def test_where_no_redis_was_shared_there_is_nothing_to_plan_with() -> None:
    results = Results([ADAPTERS[0]], [Scenario("fanout-1x100", "throughput", 100)])
    assert planning.rows(results) == []
    assert planning.TITLE not in table.render(results)
