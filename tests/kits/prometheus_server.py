"""A real Prometheus of a test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import requests

from kits import PATIENCE, until
from kits.processes import steady_port


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``."""
    found = shutil.which(name)
    assert found is not None, f"no {name}: run scripts/install-services"
    return found


class Prometheus:
    """``prometheus`` on a free loopback port: it scrapes one server, a second apart, and evaluates some rules."""

    def __init__(self, folder: Path, target: str, rules: Path) -> None:
        port = steady_port()
        self._url = f"http://127.0.0.1:{port}/api/v1"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "automoderate", "static_configs": [{"targets": [target]}]}],
            "rule_files": [str(rules)],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
        command = [
            program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        ]  # fmt: skip
        self._process = subprocess.Popen(command)
        until(self._ready, "Prometheus is ready")

    def ask(self, what: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        answer = requests.get(f"{self._url}/{what}", params=parameters, timeout=PATIENCE).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """What an expression is at the moment."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def _ready(self) -> bool:
        assert self._process.poll() is None, "Prometheus did not start"
        try:
            return requests.get(self._url.replace("/api/v1", "/-/ready"), timeout=PATIENCE).status_code == 200
        except requests.ConnectionError:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
