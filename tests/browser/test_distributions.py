"""What people install: wheel and source distribution, built from a fresh tree, and the page that they show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import automoderate
from kits import ROOT
from kits.browser_site import expect_state

PATIENCE = 300.0
"""Seconds until a build, which downloads what it needs, counts as not happening."""
VENDOR = "automoderate/dashboard/static/vendor/"
CLIENT = {"socket.io.esm.min.js", "socket.io.esm.min.js.map", "socket.io.min.js", "socket.io-client.LICENSE"}


def outside() -> dict[str, str]:
    """The environment, without what would let a process import this checkout or take this machine's options."""
    ours = ("PYTHON", "AUTOMODERATE_", "SECRET_KEY", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def run(*command: str | Path, folder: Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run a command away from this checkout: what it imports is what it installed."""
    environment = outside() | {"PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
    )  # fmt: skip


def without_npm(folder: Path) -> str:
    """A PATH on which everything is but Node and npm."""
    folder.mkdir()
    for directory in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(directory).glob("*"):
            if program.name not in ("node", "npm", "npx", "nodejs"):
                link = folder / program.name
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(folder)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of this repository would have: no ignored files, no third-party scripts."""
    folder = tmp_path_factory.mktemp("clone") / "automoderate-live"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    assert not (folder / VENDOR).exists()
    return folder


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    target = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "build", "--outdir", target, checkout, folder=target)
    assert built.returncode == 0, built.stdout
    (source,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    return source, wheel


def test_both_have_the_browsers_client_and_its_licence(distributions: tuple[Path, Path]) -> None:
    source, wheel = distributions
    version = automoderate.__version__
    assert (source.name, wheel.name) == (f"automoderate-{version}.tar.gz", f"automoderate-{version}-py3-none-any.whl")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert {name.removeprefix(VENDOR) for name in names if name.startswith(VENDOR)} == CLIENT
        assert {"package-lock.json", "setup.py", "CHANGELOG.md", "docs/glossary.md", "examples/client.mjs"} <= names
        assert not any(name.startswith(("node_modules", "tests", ".venv")) for name in names)
    with zipfile.ZipFile(wheel) as contents:
        assert {name.removeprefix(VENDOR) for name in contents.namelist() if name.startswith(VENDOR)} == CLIENT
        assert "automoderate/py.typed" in contents.namelist()
        for name in ("openapi.json", "asyncapi.json", "events.d.ts"):
            text = (ROOT / "automoderate" / "contract" / name).read_bytes()
            assert contents.read(f"automoderate/contract/{name}") == text
        (metadata,) = [name for name in contents.namelist() if name.endswith("/METADATA")]
        assert f"\nVersion: {version}\n" in contents.read(metadata).decode()


def test_a_source_distribution_is_built_without_npm(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    source, wheel = distributions
    path = without_npm(tmp_path / "bin")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source, folder=tmp_path, path=path)
    assert built.returncode == 0, built.stdout
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(tmp_path / wheel.name) as other:
        assert set(one.namelist()) == set(other.namelist())


def test_a_checkout_without_npm_is_told_what_is_missing(checkout: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(checkout, tmp_path / "bare", ignore=shutil.ignore_patterns("vendor", "build", "*.egg-info"))
    path = without_npm(tmp_path / "bin")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, bare, folder=tmp_path, path=path)
    assert built.returncode == 1
    (line,) = [line.strip() for line in built.stdout.splitlines() if line.strip().startswith("error: the browser")]
    assert "comes from npm, which is not installed: install Node.js 18 or newer with npm" in line
    assert not list(tmp_path.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, from the wheel, in an environment that has nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    made = run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    assert made.returncode == 0, made.stdout
    wheel = distributions[1]
    done = run(folder / "venv" / "bin" / "pip", "install", "--quiet", wheel, folder=folder)
    assert done.returncode == 0, done.stdout
    return folder / "venv" / "bin" / "automoderate"


@pytest.fixture
def demo(installed: Path, tmp_path: Path) -> Iterator[str]:
    """What the installed demo prints; it is ended with the test."""
    with subprocess.Popen(
        [installed, "demo", "--port", "0", "--rate", "20"],
        cwd=tmp_path, env=outside() | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            text = ""
            while "Ctrl-C" not in text:
                line = process.stdout.readline()
                assert line, text
                text += line
            yield text
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_the_installed_dashboard_is_live(demo: str, browser: Browser) -> None:
    printed = re.search(r"page +(http://\S+)", demo), re.search(r"(alice) +password (\S+)", demo)
    assert printed[0] is not None
    assert printed[1] is not None
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(printed[0][1])
        page.get_by_label("Username or email").fill(printed[1][1])
        page.get_by_label("Password").fill(printed[1][2])
        page.get_by_role("button", name="Log in").click()
        expect_state(page, "live")
        expect(page.locator("#feed .update").first).to_be_visible()
        # Other pages load the client from beside the endpoint.
        page.add_script_tag(url="/socket.io/socket.io.js")
        assert page.evaluate("typeof io") == "function"
    finally:
        context.close()


def test_what_is_installed_is_what_the_readme_says(installed: Path, tmp_path: Path) -> None:
    """No test tool comes with it, and the command works from any folder."""
    listed = run(installed.parent / "pip", "list", "--format=freeze", folder=tmp_path)
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert not names & {"pytest", "mypy", "ruff", "playwright", "trio", "eventlet", "redis", "uvloop"}
    assert run(installed, "--version", folder=tmp_path).stdout == f"automoderate {automoderate.__version__}\n"
