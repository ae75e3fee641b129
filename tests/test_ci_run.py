"""`.ci/run` ends with the status of what it ran, as that is all that is asked of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kits import PATIENCE, ROOT

MAKE = """#!/bin/sh
case "$1" in
check) echo 'the checks said this'; exec sh -c '{checks}' ;;
test) exec sh -c '{tests}' ;;
esac
"""


@pytest.mark.parametrize(
    ("checks", "tests", "status"),
    [
        ("exit 0", "exit 0", 0),
        ("exit 1", "exit 0", 1),
        ("exit 0", "exit 2", 2),
    ],
    ids=["passed", "checks-failed", "tests-failed"],
)
def test_it_ends_as_what_it_ran_ended(tmp_path: Path, checks: str, tests: str, status: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    make = tmp_path / "make"
    make.write_text(MAKE.format(checks=checks, tests=tests))
    make.chmod(0o755)

    ended = subprocess.run(
        ["bash", ".ci/run"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert ended.returncode == status, ended.stderr
    assert "the checks said this" in ended.stdout
    assert not list(tmp_path.glob("tmp.*"))
