"""Nodes in processes of their own that share a database and a Redis, and the shipped nginx in front of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from kits import PATIENCE, ROOT, until
from kits.live_server import LiveServer
from kits.processes import Process, steady_port

DEPLOY = ROOT / "deploy"


class Nginx:
    """Debian's nginx with a configuration, of which only what belongs to root is replaced, and more text of ours.

    ``replaced`` has, for text that must be there, what stands in its place; ``{port}`` is the port to listen on.
    """

    def __init__(self, folder: Path, text: str, replaced: Mapping[str, str]) -> None:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program is not None, "no nginx: run scripts/install-services"
        self.port = steady_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        for shipped, here in replaced.items():
            assert shipped in text
            text = text.replace(shipped, here.format(port=self.port))
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
            return requests.get(f"{self.url}/health", timeout=PATIENCE).status_code == 200
        except requests.ConnectionError:
            return False

    @property
    def log(self) -> str:
        return (self._folder / "nginx.log").read_text("utf-8")

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)


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
        a, b = self._ports
        here = {
            "127.0.0.1:6217": f"127.0.0.1:{a}", "127.0.0.1:6218": f"127.0.0.1:{b}",
            "listen 8080": "listen 127.0.0.1:{port}",
        }  # fmt: skip
        self._nginx = Nginx(self._folder, (DEPLOY / "nginx.conf").read_text("utf-8"), here)

    @property
    def nginx(self) -> Nginx:
        assert self._nginx is not None
        return self._nginx

    def metrics(self, name: str) -> dict[str, float]:
        """A node's own numbers."""
        text = requests.get(f"http://127.0.0.1:{self.nodes[name].port}/metrics", timeout=PATIENCE).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {series.removeprefix("automoderate_"): float(value) for series, _, value in lines}

    def publish(self, number: int, through: str = "") -> str:
        """Publish through nginx, or one node: the event id."""
        base = f"http://127.0.0.1:{self.nodes[through].port}" if through else self.nginx.url
        body: dict[str, Any] = {"event": "stats_update", "data": {"n": number}}
        url = f"{base}/api/projects/{self.world.project}/events"
        answer = requests.post(url, json=body, headers={"X-API-Key": self.world.api_key}, timeout=PATIENCE)
        assert answer.status_code == 202, answer.text
        event_id: str = answer.json()["event_id"]
        return event_id

    def close(self) -> None:
        if self._nginx is not None:
            self._nginx.close()
        for node in self.nodes.values():
            node.close()
