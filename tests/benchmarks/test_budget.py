"""A run reckons how long it takes before it begins, and leaves out what there is no time for."""

from __future__ import annotations

import time

import pytest

from benchmarks import fanout
from benchmarks.budget import Budget
from benchmarks.peers.contenders import PEERS
from benchmarks.scenarios import Kind, Scenario, Sizes, chosen, delay, throughput
from benchmarks.servers import ADAPTERS, FLOOR

CONTENDERS = [ADAPTERS[0], FLOOR]
SCENARIOS = [throughput(100, 1), Scenario("connect-100", "connect", 100), delay(100, 1)]


def budget(seconds: float) -> Budget:
    """A budget of runs of a second, with so many seconds left."""
    return Budget(1.0, 3.0, time.monotonic() + seconds)


@pytest.mark.parametrize(
    ("seconds", "what", "rounds"),
    [
        pytest.param(1000, SCENARIOS, 3, id="everything"),
        pytest.param(33, SCENARIOS, 2, id="fewer rounds"),
        pytest.param(20, SCENARIOS, 1, id="one round"),
        pytest.param(14, SCENARIOS[:2], 1, id="not the last one"),
        pytest.param(5, [], 0, id="nothing"),
    ],
)
def test_better_one_round_of_everything_than_several_of_a_part(
    seconds: float, what: list[Scenario], rounds: int
) -> None:
    # 2.1 s until a server has its sessions, 1.7 s a run at full speed, 3.7 s one at a fixed rate.
    assert budget(seconds).affordable(CONTENDERS, SCENARIOS, 3) == (what, rounds)


def test_what_was_done_so_far_says_how_slow_a_day_it_is() -> None:
    slow = budget(33)
    slow.note(reckoned=1.0, begun=time.monotonic() - 3.0)
    assert slow.slowness == pytest.approx(3.0, rel=0.1)
    assert slow.left == pytest.approx(11.0, rel=0.1)
    assert slow.affordable(CONTENDERS, SCENARIOS, 3) == (SCENARIOS[:2], 1)


def test_a_quick_day_is_no_reason_to_begin_more() -> None:
    quick = budget(33)
    quick.note(reckoned=100.0, begun=time.monotonic())
    assert quick.slowness == 1.0


def test_sessions_that_join_slowly_take_their_time() -> None:
    slow = budget(1000)
    before = slow.opening(ADAPTERS[0], 5000)
    slow.note_rate(ADAPTERS[0], 50.0)
    assert slow.opening(ADAPTERS[0], 5000) == pytest.approx(before + 5000 / 50 - 5000 / 1400)


def test_nobody_is_reckoned_with_where_they_are_not_measured() -> None:
    connect = SCENARIOS[1]
    assert budget(1000).whole([FLOOR], [SCENARIOS[0], connect], 1) == pytest.approx(
        budget(1000).whole([FLOOR], [SCENARIOS[0]], 1)
    )


def test_what_takes_long_each_time_is_done_less_often() -> None:
    kinds: tuple[Kind, ...] = ("throughput", "connect", "storm", "jitter")
    rounds = {kind: budget(1).rounds(Scenario(kind, kind, 100), 5) for kind in kinds}
    assert rounds == {"throughput": 5, "connect": 2, "storm": 1, "jitter": 1}
    asked_for = Budget(1.0, 3.0, time.monotonic() + 1, sparing=False)
    assert {kind: asked_for.rounds(Scenario(kind, kind, 100), 5) for kind in kinds} == dict.fromkeys(kinds, 5)


def test_two_rounds_of_everything_fit_into_their_time() -> None:
    contenders = [*ADAPTERS, *(peer for peer in PEERS if peer.standard), FLOOR]
    scenarios = chosen(Sizes().scenarios(), [])
    whole = Budget(fanout.SECONDS, fanout.LONG, time.monotonic() + fanout.BUDGET)
    together = [[s for s in scenarios if s.setup == setup] for setup in dict.fromkeys(s.setup for s in scenarios)]
    assert sum(whole.whole(contenders, shared, fanout.REPEAT) for shared in together) <= fanout.BUDGET
