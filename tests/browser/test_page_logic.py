"""What the live page knows and wants, without a browser: Node's own test runner on the page's own modules."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kits import PATIENCE

LOGIC = Path(__file__).parent / "logic"


def test_the_pages_logic() -> None:
    suites = sorted(str(path) for path in LOGIC.glob("*.test.mjs"))
    assert suites
    done = subprocess.run(
        ["node", "--test", *suites],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
