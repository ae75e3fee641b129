"""Puts the browser's Socket.IO client into what is built; everything else about the package is in pyproject.toml.

The client is a package of the npm registry, of which package-lock.json names version and checksum. It is not in git, so
that a build from a checkout fetches it with npm. A source distribution has it, and is built without npm.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import PlatformError

ROOT = Path(__file__).resolve().parent
SOURCES = ("package.json", "package-lock.json", "scripts/build-assets.js")
"""What it takes to fetch the client."""
VENDOR = Path("automoderate", "dashboard", "static", "vendor")
CLIENT = ("socket.io.esm.min.js", "socket.io.min.js")


def fetch_client() -> None:
    """Have the client that package-lock.json names in the dashboard's static files.

    Raises ``PlatformError``, which ends a build with one line, where npm is missing or fails.
    """
    version = json.loads((ROOT / "package-lock.json").read_text())["packages"]["node_modules/socket.io-client"][
        "version"
    ]
    files = [ROOT / VENDOR / name for name in CLIENT]
    # Their first lines are a comment with the version.
    if all(file.is_file() and f"Socket.IO v{version}\n" in file.read_text()[:200] for file in files):
        return
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise PlatformError(
            "the browser's Socket.IO client comes from npm, which is not installed: install Node.js 18 or newer with "
            "npm, or install AutoModerate from a wheel or a source distribution, which have the client"
        )
    # In a folder of its own: npm would remove what a developer's node_modules has besides.
    with tempfile.TemporaryDirectory(prefix="automoderate-npm-") as folder:
        for name in SOURCES:
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, Path(folder) / name)
        for command in ([npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], [node, SOURCES[-1]]):
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                said = " ".join(done.stdout.split())[-500:]
                raise PlatformError(f"cannot fetch the browser's Socket.IO client: {' '.join(command)} failed: {said}")
        shutil.copytree(Path(folder) / VENDOR, ROOT / VENDOR, dirs_exist_ok=True)


class BuildWithClient(build_py):
    """Copies the package, of which the client is a part."""

    def run(self) -> None:
        """Fetch the client first."""
        fetch_client()
        super().run()


class SourceWithClient(sdist):
    """Packs the sources, with the client."""

    def run(self) -> None:
        """Fetch the client first."""
        fetch_client()
        super().run()


setup(cmdclass={"build_py": BuildWithClient, "sdist": SourceWithClient})
