"""The command: what it takes, what it leaves, and a run of everything at a small size."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import CliRunner

from benchmarks import inside, table
from benchmarks.budget import Budget
from benchmarks.child import ChildFailed
from benchmarks.choosing import known
from benchmarks.fanout import main
from benchmarks.peers.contenders import PEERS
from benchmarks.progress import Progress
from benchmarks.results import Results, Sample
from benchmarks.run import Run
from benchmarks.scenarios import KINDS, Scenario, Sizes, chosen, fitted
from benchmarks.servers import ADAPTERS, FLOOR, Server, of_checkout
from benchmarks.site import Cores, Site
from benchmarks.world import World
from benchmarks.worlds import Worlds
from kits import ROOT


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--adapters", "tornado"), "no adapter 'tornado': choose of asyncio, uvloop, trio, eventlet, all or none"),
        (("--peers", "tornado"), "no peer 'tornado'"),
        (("--scenarios", "fast"), "no scenario 'fast': choose of throughput, delay"),
        (("--members", "0"), "'0' is no list of whole numbers from 1"),
        (("--rooms", "many"), "'many' is no list of whole numbers from 1"),
        (("--repeat", "0"), "--repeat"),
        (("--adapters", "none", "--peers", "none"), "nothing to measure"),
        (("--json", "/no/such/folder/results.json"), "--json"),
        (("--also", "/no/such/folder"), "--also"),
        (("--also", str(ROOT / "docs")), f"there is no checkout of AutoModerate in {ROOT / 'docs'}"),
        (("--also", str(ROOT), "--also", str(ROOT)), "two checkouts in folders of the same name"),
    ],
)
def test_wrong_usage_is_status_2_and_a_line_that_says_what_is_right(arguments: tuple[str, ...], complaint: str) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 2
    assert complaint in run.output


def test_a_small_run_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    scenarios = [
        "fanout-5x4", "delay-1x20", "backlog-8", "connect", "memory", "stall", "window-0", "window-5",
        "publish", "polling",
    ]  # fmt: skip
    words = (
        "--members", "20", "--rooms", "1,5", "--adapters", "asyncio", "--peers", "floor",
        "--scenarios", ",".join(scenarios), "--json", str(path),
    )  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.fanout", "--quick", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(path.read_text())
    assert found["schema"] == 1
    assert found["command"] == ["python", "-m", "benchmarks.fanout", "--quick", *words]
    assert {"processor", "cores", "memory", "system", "descriptors"} <= set(found["machine"])
    assert {"python", "automoderate"} <= set(found["versions"])
    kinds = {scenario["name"]: scenario["kind"] for scenario in found["scenarios"]}
    assert len(kinds) == len(scenarios)
    for name, kind in kinds.items():
        assert kind_of_sample(found, name, "asyncio") == kind
        assert f"{name}: " in run.stdout
    measured = {kinds[s["scenario"]] for s in found["samples"] if s["contender"] == "floor"}
    assert measured == {"throughput", "delay", "backlog"}


def test_the_server_of_another_checkout_is_that_ones(tmp_path: Path) -> None:
    package = tmp_path / "before" / "automoderate"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "app.py").write_text("raise SystemExit('as it was')")
    before = of_checkout(ADAPTERS[0], package.parent)
    assert before.name == "asyncio@before"
    with pytest.raises(ChildFailed, match=r"ended: as it was$"):
        Server(before, World.make(tmp_path, []).config, None)


def test_another_checkout_is_measured_beside_this_one(tmp_path: Path) -> None:
    (tmp_path / "before").symlink_to(ROOT)
    words = ("--members", "10", "--scenarios", "connect,memory", "--adapters", "asyncio", "--peers", "none")
    command = [sys.executable, "-m", "benchmarks.fanout", "--quick", *words, "--also", str(tmp_path / "before")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("× before\n") == 2
    assert run.stdout.count("AutoModerate, asyncio, before  ") == 2


def kind_of_sample(found: dict[str, Any], scenario: str, contender: str) -> str:
    """The kind of scenario that a contender's only sample can be of, by the figures it has."""
    [sample] = [s for s in found["samples"] if (s["scenario"], s["contender"]) == (scenario, contender)]
    assert sample["round"] == 0
    if "bytes_each" in sample:
        assert sample["after"] >= sample["before"] > 0
        return "memory"
    assert sample["rate"] > 0
    assert sample["server_cpu"] >= 0
    assert sample["load_share"] > 0
    if "delay" not in sample:
        assert sample["members"] > 0
        return "connect"
    if "answer" in sample:
        assert 0 < sample["answer"]["p50_ms"] <= sample["answer"]["max_ms"]
        return "publish"
    delay = sample["delay"]
    assert 0 < delay["p50_ms"] <= delay["p99_ms"] <= delay["max_ms"]
    assert sum(count for _, count in delay["histogram"]) == sample["deliveries"]
    if "ping" in sample:
        assert sample["ping"]["count"] > 0
        assert 0 < sample["join"]["p50_ms"] <= sample["join"]["max_ms"]
        return "stall"
    return scenario.partition("-")[0].replace("fanout", "throughput")


def test_scenarios_follow_from_the_sizes() -> None:
    scenarios = {scenario.name: scenario for scenario in Sizes().scenarios()}
    assert [name for name in scenarios if name.startswith("fanout")] == [
        "fanout-1x100", "fanout-1x1000", "fanout-1x5000", "fanout-100x50", "fanout-5000x1",
    ]  # fmt: skip
    assert scenarios["delay-1x1000"].rate == 50
    assert scenarios["delay-100x50"].layout == (5000, 100)
    assert scenarios["backlog-64"].step == 64
    assert scenarios["fanout-5000x1"].step == 5000
    small = Sizes((40,), (1, 8, 50)).scenarios()
    assert {scenario.setup for scenario in small} == {
        (40, 1, "", 0), (40, 8, "", 0), (40, 1, "polling", 0), (40, 1, "recovery", 0), (10, 1, "", 0),
        (40, 8, "postgresql", 0), (40, 1, "", 5), (40, 1, "", 20), (40, 1, "", 50),
    }  # fmt: skip
    assert {scenario.kind for scenario in small} == set(KINDS)


def test_scenarios_are_chosen_by_kind_or_name() -> None:
    every = Sizes().scenarios()
    assert [s.name for s in chosen(every, ["stall", "fanout-1x100"])] == ["fanout-1x100", "stall-1x5000"]
    assert [s.name for s in chosen(every, ["storm"])] == ["storm-5000", "storm-postgresql-5000"]


def test_where_none_is_chosen_the_standard_ones_are_and_fewer_for_a_quick_look() -> None:
    every = Sizes().scenarios()
    assert {s.name for s in every} - {s.name for s in chosen(every, [])} == {
        "fanout-1x100", "backlog-1", "storm-postgresql-5000", "window-0", "window-5", "window-20", "window-50",
    }  # fmt: skip
    few = chosen(Sizes((50,), (1, 8)).scenarios(), [])
    assert "fanout-1x50" in {s.name for s in few}, "the largest room is never left out"
    quick = {s.kind for s in chosen(every, [], quick=True)}
    assert set(KINDS) - quick == {"notifier", "polling", "stalled", "storm", "jitter", "window"}


def test_where_none_is_chosen_those_who_tell_the_most_are_measured() -> None:
    standard = {peer.name for peer in PEERS if peer.standard}
    assert {peer.name for peer in PEERS} - standard == {"eventlet_socketio", "flask_threading", "attached"}
    assert known(PEERS, None, "peer") == [peer for peer in PEERS if peer.name in standard]
    assert known(PEERS, ("all",), "peer") == list(PEERS)
    assert known(PEERS, ("none",), "peer") == []


def test_where_there_are_too_few_descriptors_there_are_fewer_members() -> None:
    [scenario], notes = fitted([Scenario("stall-1x10000", "stall", 10_000)], 1024)
    assert scenario.members == 824
    assert notes == ["stall-1x10000 has 824 members: there may be only 1,024 open files (ulimit -n)"]
    assert fitted([scenario], 1024) == ([scenario], [])


def throughput(contender: str, number: int, rate: float, *, limited: bool = False) -> Sample:
    figures = {"deliveries": 100, "rate": rate, "cost_us": 2.5, "load_limited": limited}
    return Sample("fanout-1x100", contender, number, figures)


def test_the_table_has_medians_their_spread_and_ratios() -> None:
    results = Results([ADAPTERS[0], FLOOR], [Scenario("fanout-1x100", "throughput", 100)])
    results.samples += [throughput("asyncio", number, rate) for number, rate in enumerate((90.0, 100.0, 110.0))]
    results.samples += [throughput("floor", 0, 400.0, limited=True)]
    _, _, ours, floor = table.render(results).splitlines()
    assert ours.split()[-4:] == ["100", "2.50", "20%", "0.25"]
    assert floor.endswith("load generator at its limit")


def test_ours_are_compared_with_themselves_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "before").symlink_to(ROOT)
    before = of_checkout(ADAPTERS[0], tmp_path / "before")
    results = Results([ADAPTERS[0], before, FLOOR], [Scenario("fanout-1x100", "throughput", 100)])
    rates = {"asyncio": 300.0, "asyncio@before": 200.0, "floor": 400.0}
    results.samples += [throughput(name, 0, rate) for name, rate in rates.items()]
    _, headings, *rows = table.render(results).splitlines()
    assert headings.split()[-4:] == ["×", "before", "×", "floor"]
    assert [row.split()[-2:] for row in rows] == [["1.50", "0.75"], ["1.00", "0.50"], ["2.50", "1.00"]]


def test_what_failed_is_in_the_table_and_no_figure() -> None:
    results = Results([FLOOR], [Scenario("fanout-1x100", "throughput", 100)], notes=["trio is left out"])
    results.samples.append(evolve(throughput("floor", 0, 1.0), figures={"error": "update 2 came again"}))
    assert results.median("fanout-1x100", "floor", "rate") is None
    lines = table.render(results).splitlines()
    assert lines[2].endswith("failed: update 2 came again")
    assert lines[-1] == "trio is left out"


def test_while_one_server_is_measured_the_others_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario("fanout-1x2", "throughput", 2)
    results = Results(ADAPTERS[:3], [scenario])
    worlds = Worlds(tmp_path, [scenario])
    sites: list[Site] = []
    stopped: list[list[bool]] = []
    start, measure = Site.start, inside.measure

    def begin(*given: Any, **named: Any) -> Site:
        sites.append(start(*given, **named))
        return sites[-1]

    def look(*given: Any) -> Any:
        figures = measure(*given)
        stopped.append([state(other.server) == "T" for other in sites])
        return figures

    monkeypatch.setattr(Site, "start", begin)
    monkeypatch.setattr(inside, "measure", look)
    Run(results, worlds, Cores(None, None), 2, budget(300), Progress(9)).run()
    assert stopped == [[other != turn for other in range(3)] for turn in range(3)] * 2
    assert all("error" not in sample.figures for sample in results.samples)


def state(server: object) -> str:
    """The letter that stands for what the kernel lets a process do; T for nothing."""
    assert isinstance(server, Server)
    return state_of(server.pid)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_was_stopped_does_not_outlive_a_harness_that_is_killed() -> None:
    code = (
        "import sys; from benchmarks.child import Child; "
        "child = Child([sys.executable, '-c', 'import signal; signal.pause()'], None); "
        "child.rest(); print(child.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    ) as harness:
        assert harness.stdout is not None
        child = int(harness.stdout.readline())
        assert state_of(child) == "T"
        ended = os.pidfd_open(child)
        harness.kill()
    try:
        assert select.select([ended], [], [], 60)[0], "it is still there"
    finally:
        os.close(ended)


def budget(seconds: float) -> Budget:
    """Short runs, and so many seconds for all of them."""
    return Budget(0.01, 0.01, time.monotonic() + seconds)


def test_when_time_is_up_nothing_is_begun_and_a_note_says_so(tmp_path: Path) -> None:
    scenario = Scenario("fanout-1x2", "throughput", 2)
    results = Results([FLOOR], [scenario])
    said = io.StringIO()
    Run(results, Worlds(tmp_path, [scenario]), Cores(None, None), 1, budget(-1), Progress(1, said)).run()
    assert results.samples == []
    assert results.notes == ["fanout-1x2 is left out: it takes about 3 s, and 0 s are left"]
    assert results.notes[0] in said.getvalue()
