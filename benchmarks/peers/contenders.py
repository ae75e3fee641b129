"""The peers as servers to measure, in the order in which they are shown."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from attrs import evolve

from benchmarks.servers import Contender, distributions, needs

FOLDER = Path(__file__).parent
BUN = FOLDER / "node_modules" / "@oven" / "bun-linux-x64" / "bin" / "bun"
UWS = "@trufflesuite/uws-js-unofficial"
BUN_ENGINE = "@socket.io/bun-engine"
STREAMS = "@socket.io/redis-streams-adapter"
MOST_THREADED = 1000
"""Members of the threaded peer: each takes four threads, and thousands of them take minutes to connect."""

NO_NOTIFIER = {"notifier": "it has no notifier", "window": "its updates do not wait for one another"}
NO_REPLAY = {"jitter": "a client that was away gets nothing of what it missed", **NO_NOTIFIER}
BY_HAND = {"polling": "it has WebSocket alone", **NO_REPLAY}
THREADED = dict.fromkeys(("publish", "polling"), "its HTTP server ends every connection after one answer") | NO_REPLAY


def _python(
    module: str, title: str, most_members: int | None = None, lacks: Mapping[str, str] = NO_REPLAY, *,
    standard: bool = False, **modules: str,
) -> Contender:  # fmt: skip
    argv = (sys.executable, "-m", f"benchmarks.peers.{module}")
    return Contender(
        module, title, "peer", argv, needs(socketio="python-socketio", **modules),
        distributions("python-socketio", "python-engineio", *modules.values()), most_members, lacks=lacks,
        standard=standard,
    )  # fmt: skip


def _javascript(
    name: str, title: str, program: str, packages: tuple[str, ...], lacks: Mapping[str, str], *, bun: bool = False
) -> Contender:
    argv = (str(BUN) if bun else "node", str(FOLDER / program))
    missing = bun_missing if bun else partial(node_missing, packages)
    return Contender(name, title, "peer", argv, missing, partial(_versions, argv[0], packages), lacks=lacks)


def sharing_redis(nodes: int) -> tuple[Contender, ...]:
    """The peers whose servers can share a Redis, so many of each: python-socketio's Redis manager, Node's streams."""
    found = {peer.name: peer for peer in PEERS}
    python, node = found["uvicorn_socketio"], found["node"]
    streams = ("socket.io", "ws", "better-sqlite3", "redis", STREAMS)
    return (
        evolve(
            python, name=f"{python.name}-{nodes}", title=f"python-socketio's Redis manager, {nodes} nodes", nodes=nodes,
            publisher=(sys.executable, "-m", "benchmarks.peers.redis_manager"),
        ),
        evolve(
            node, name=f"{node.name}-{nodes}", title=f"Node's Redis streams adapter, {nodes} nodes", nodes=nodes,
            missing=partial(node_missing, streams), versions=partial(_versions, "node", streams),
            publisher=("node", str(FOLDER / "redis_streams.mjs")),
        ),
    )  # fmt: skip


def node_missing(packages: tuple[str, ...]) -> str | None:
    """Why a server on Node that needs these packages cannot run here."""
    if shutil.which("node") is None:
        return "there is no Node; install Node.js 20 or newer with npm"
    if not all((FOLDER / "node_modules" / name).is_dir() for name in (*packages, "better-sqlite3")):
        return "not installed; npm ci --prefix benchmarks/peers"
    return None


def bun_missing() -> str | None:
    """Why a server on Bun cannot run here."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "Bun is installed for Linux on x86-64 alone"
    return None if BUN.exists() else "not installed; npm ci --prefix benchmarks/peers"


def _versions(runtime: str, packages: tuple[str, ...]) -> dict[str, str]:
    """The runtime's version and those of the packages that are installed; the native add-ons are optional."""
    said = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True)
    found = {Path(runtime).name: said.stdout.strip().removeprefix("v")}
    for name in packages:
        manifest = FOLDER / "node_modules" / name / "package.json"
        if manifest.exists():
            found[name] = json.loads(manifest.read_text())["version"]
    return found


PEERS = (
    _python("uvicorn_socketio", "python-socketio on uvicorn", standard=True, uvicorn="uvicorn", uvloop="uvloop",
            httptools="httptools", websockets="websockets"),
    _python("eventlet_socketio", "python-socketio on eventlet", eventlet="eventlet"),
    _python("flask_threading", "Flask-SocketIO, threads", MOST_THREADED, THREADED, flask_socketio="Flask-SocketIO",
            simple_websocket="simple-websocket"),
    _python("attached", "our rules on python-socketio", lacks=NO_NOTIFIER, uvicorn="uvicorn", uvloop="uvloop",
            httptools="httptools", websockets="websockets"),
    _javascript("node", "Node's socket.io", "node_server.mjs", ("socket.io", "ws", "better-sqlite3"), NO_NOTIFIER),
    _javascript("uws_socketio", "socket.io on µWebSockets.js", "uws_socketio.mjs", ("socket.io", UWS), NO_REPLAY),
    _javascript("uws_raw", "µWebSockets.js by hand", "uws_raw.mjs", (UWS,), BY_HAND),
    _javascript("bun_socketio", "socket.io on Bun", "bun_socketio.mjs", ("socket.io", BUN_ENGINE), NO_REPLAY, bun=True),
    _javascript("bun_raw", "Bun by hand", "bun_raw.mjs", (), BY_HAND, bun=True),
)  # fmt: skip
