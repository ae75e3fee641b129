"""A runtime or Redis client that is not installed: one line that names what to install, and exit status 3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kits import ROOT

# As if the package were not there, whether it is or not.
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys({modules!r}))
from automoderate.cli import cli
cli.main({arguments!r})
"""


def automoderate(arguments: list[str], missing: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(modules=missing, arguments=arguments)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SECRET_KEY": "a secret long enough for anybody"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", ["demo", "serve"])
@pytest.mark.parametrize("adapter", ["trio", "eventlet"])
def test_the_message_names_the_command_that_installs_it(command: str, adapter: str, tmp_path: Path) -> None:
    done = automoderate([command, "--adapter", adapter], [adapter], tmp_path)
    assert done.stderr == f'Error: the {adapter} adapter needs {adapter}: pip install "automoderate[{adapter}]"\n'
    assert done.returncode == 3
    assert list(tmp_path.iterdir()) == [], "what cannot start leaves nothing behind"


def test_no_extra_is_needed_without_its_adapter(tmp_path: Path) -> None:
    done = automoderate(["serve", "--check-config"], ["trio", "anyio", "eventlet", "uvloop"], tmp_path)
    assert done.returncode == 0, done.stderr


def test_telling_nodes_through_redis_needs_its_client_before_anything_is_changed(tmp_path: Path) -> None:
    done = automoderate(["user", "remove", "ann", "--redis-url", "redis://127.0.0.1"], ["redis"], tmp_path)
    assert done.stderr == 'Error: --redis-url needs redis: pip install "automoderate[redis]"\n'
    assert done.returncode == 3
    assert list(tmp_path.iterdir()) == []
