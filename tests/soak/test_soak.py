"""Half a minute with two hundred clients, two nodes and a Redis, in which all of them break: nobody misses anything.

``make soak SECONDS=600 SEED=17`` runs longer, or again what a seed gave.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kits.soak.plan import draw
from kits.soak.run import run


def test_whatever_breaks_nothing_is_lost_doubled_reordered_or_leaked(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    given = request.config.getoption("--soak-seed")
    seed = random.SystemRandom().randrange(1_000_000) if given is None else given
    seconds = request.config.getoption("--soak-seconds")
    print(f"\nSEED={seed} SECONDS={seconds:g}")
    outcome = run(draw(seed, seconds), tmp_path, lambda text: print(text, flush=True))
    print(outcome.table)
    found = "\n".join(str(violation) for violation in outcome.violations[:50])
    print(
        f"{outcome.recovered} times recovered, {outcome.not_recovered} times not, {len(outcome.violations)} violations"
    )
    assert not outcome.violations, f"make soak SEED={seed} SECONDS={seconds:g}, see {tmp_path}\n{found}"
    assert outcome.recovered, "nobody was ever cut off"
