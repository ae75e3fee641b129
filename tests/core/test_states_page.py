"""The picture in the docs is the table in the code."""

from __future__ import annotations

import subprocess
import sys

from kits import ROOT


def test_the_picture_of_the_states_is_up_to_date() -> None:
    check = subprocess.run([sys.executable, "scripts/state_picture.py", "--check"], cwd=ROOT)
    assert check.returncode == 0, "run: python scripts/state_picture.py"
