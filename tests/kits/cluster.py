"""Nodes in processes of their own that share a database and a Redis, and the shipped nginx in front of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from live_server import SECRET_KEY, LiveServer, steady_port, until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def environment(**settings: str) -> dict[str, str]:
    """Nothing of this machine's, and these settings."""
    names = ("SECRET_KEY", "DATABASE_URL")
    clean = {name: value for name, value in os.environ.items() if name not in names and "AUTOMODERATE_" not in name}
    given = {f"AUTOMODERATE_{name.upper()}": value for name, value in settings.items()}
    return clean | {"SECRET_KEY": SECRET_KEY, "PYTHONUNBUFFERED": "1"} | given


class Process:
    """``automoderate serve``, perhaps with workers of its own."""

    def __init__(self, log: Path, **settings: str) -> None:
        self.settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        found = re.findall(r"listening on http://127\.0\.0\.1:(\d+)", self.log)
        return int(found[-1])

    def start(self, processes: int = 1) -> None:
        """Start it and wait until that many processes listen."""
        assert self.try_to_start(processes), self.log

    def try_to_start(self, processes: int = 1) -> bool:
        """The same; False where it ended instead."""
        self._log.touch()
        before = len(self.log)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "automoderate", "serve"], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log,
                env=environment(**self.settings),
            )  # fmt: skip
        process = self._process
        until(lambda: self.log[before:].count("listening on") >= processes or process.poll() is not None)
        return process.poll() is None

    def wait(self) -> int:
        """Wait for its end: the exit status."""
        process, self._process = self._process, None
        assert process is not None
        return process.wait(60)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end: the exit status."""
        os.kill(self.pid, number)
        return self.wait()

    def close(self) -> None:
        if self._process is not None:
            self.stop()


class Nginx:
    """Debian's nginx with ``deploy/nginx.conf``, in which only the ports and what belongs to root are replaced."""

    def __init__(self, folder: Path, nodes: list[int]) -> None:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program is not None, "no nginx: run scripts/install-services"
        self.port = steady_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        text = (DEPLOY / "nginx.conf").read_text("utf-8")
        here = {"127.0.0.1:6217": nodes[0], "127.0.0.1:6218": nodes[1], "listen 8080": self.port}
        for shipped, port in here.items():
            assert shipped in text
            text = text.replace(
                shipped, f"{shipped.rstrip('0123456789')}{'127.0.0.1:' if ' ' in shipped else ''}{port}"
            )
        text = re.sub(r"worker_rlimit_nofile \d+;\n", "", text)  # more than a test may have
        text = re.sub(r"worker_connections \d+;", "worker_connections 256;", text)
        paths = "\n".join(
            f"    {name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {\n", f"http {{\n{paths}\n    access_log off;\n", 1)
        path = folder / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""  # whose folder it is
        path.write_text(f"daemon off;\n{user}pid {folder / 'nginx.pid'};\n{text}", "utf-8")
        with (folder / "nginx.log").open("ab") as log:
            command = [program, "-p", str(folder), "-c", str(path), "-e", str(folder / "nginx.log")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, "nginx answers")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            return requests.get(f"{self.url}/health", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    @property
    def log(self) -> str:
        return (self._folder / "nginx.log").read_text("utf-8")

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


class Cluster:
    """Two nodes, ``a`` and ``b``, and nginx in front. ``world`` has the users, a project and how to sign in."""

    def __init__(self, folder: Path, redis_url: str, database_url: str, world: LiveServer) -> None:
        self.world = world
        ports = [steady_port(), steady_port()]
        shared = {
            "redis_url": redis_url, "database_url": database_url, "trusted_proxy": "127.0.0.1",
            "max_connections_per_minute": "40", "auth_grace": "0.2",
        }  # fmt: skip
        self.nodes = {
            name: Process(folder / f"{name}.log", node=name, port=str(port), **shared)
            for name, port in zip("ab", ports, strict=True)
        }
        self._folder, self._ports = folder, ports
        self._nginx: Nginx | None = None

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()
        self._nginx = Nginx(self._folder, self._ports)

    @property
    def nginx(self) -> Nginx:
        assert self._nginx is not None
        return self._nginx

    def metrics(self, name: str) -> dict[str, float]:
        """A node's own numbers."""
        text = requests.get(f"http://127.0.0.1:{self.nodes[name].port}/metrics", timeout=10).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {series.removeprefix("automoderate_"): float(value) for series, _, value in lines}

    def publish(self, number: int, through: str = "") -> str:
        """Publish through nginx, or one node: the event id."""
        base = f"http://127.0.0.1:{self.nodes[through].port}" if through else self.nginx.url
        body: dict[str, Any] = {"event": "stats_update", "data": {"n": number}}
        url = f"{base}/api/projects/{self.world.project}/events"
        answer = requests.post(url, json=body, headers={"X-API-Key": self.world.api_key}, timeout=30)
        assert answer.status_code == 202, answer.text
        event_id: str = answer.json()["event_id"]
        return event_id

    def close(self) -> None:
        if self._nginx is not None:
            self._nginx.close()
        for node in self.nodes.values():
            node.close()
