"""The peers as servers to measure, in the order in which they are shown."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.servers import Contender, distributions, needs

FOLDER = Path(__file__).parent
NODE_PACKAGES = ("socket.io", "ws", "bufferutil", "better-sqlite3")
MOST_THREADED = 1000
"""Members of the threaded peer: each takes four threads, and thousands of them take minutes to connect."""


def _python(module: str, title: str, most_members: int | None = None, **modules: str) -> Contender:
    argv = (sys.executable, "-m", f"benchmarks.peers.{module}")
    return Contender(
        module, title, "peer", argv, needs(socketio="python-socketio", **modules),
        distributions("python-socketio", "python-engineio", *modules.values()), most_members,
    )  # fmt: skip


def node_missing() -> str | None:
    """Why Node's server cannot run here."""
    if shutil.which("node") is None:
        return "there is no Node; install Node.js 20 or newer with npm"
    if (
        not (FOLDER / "node_modules" / "socket.io").is_dir()
        or not (FOLDER / "node_modules" / "better-sqlite3").is_dir()
    ):
        return "not installed; npm ci --prefix benchmarks/peers"
    return None


def node_versions() -> dict[str, str]:
    """Node's version and those of the packages that are installed; the native add-ons are optional."""
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    found = {"node": said.stdout.strip().removeprefix("v")}
    for name in NODE_PACKAGES:
        manifest = FOLDER / "node_modules" / name / "package.json"
        if manifest.exists():
            found[name] = json.loads(manifest.read_text())["version"]
    return found


PEERS = (
    _python("uvicorn_socketio", "python-socketio on uvicorn", uvicorn="uvicorn", uvloop="uvloop", httptools="httptools",
            websockets="websockets"),
    _python("eventlet_socketio", "python-socketio on eventlet", eventlet="eventlet"),
    _python("flask_threading", "Flask-SocketIO, threads", MOST_THREADED, flask_socketio="Flask-SocketIO",
            simple_websocket="simple-websocket"),
    _python("attached", "our rules on python-socketio", uvicorn="uvicorn", uvloop="uvloop", httptools="httptools",
            websockets="websockets"),
    Contender("node", "Node's socket.io", "peer", ("node", str(FOLDER / "node_server.mjs")), node_missing,
              node_versions),
)  # fmt: skip
