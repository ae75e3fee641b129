"""The command that prints what happens on the nodes: over HTTP and through Redis, and each way it can go wrong."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from click.testing import CliRunner, Result

from automoderate import control
from automoderate.cli import status as module
from automoderate.cli.status import status
from kits import until
from kits.live_server import LiveServer
from kits.processes import SECRET_KEY, Process, stop_process
from kits.redis_server import RedisServer

NODE: dict[str, Any] = {
    "node": "a", "sessions": 1204, "users": 800, "rooms": 35, "transports": {"polling": 4, "websocket": 1200},
    "clients": [{"client": "Chrome 126", "sessions": 1200}, {"client": "bad\u009bname", "sessions": 4}],
    "deliveries_per_second": 1203.4, "waiting_bytes": 12000,
    "backplane": {"up": 1, "writable": 1, "lag_seconds": 0.0012}, "refusals": {"codes": {"access_denied": 3}},
}  # fmt: skip


@define
class Answering:
    """Answers each request to a path with the next of the answers for it."""

    port: int
    answers: dict[str, list[tuple[int, Any]]] = field(factory=dict)
    asked: list[tuple[str, str]] = field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[Answering]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answering.asked.append((self.path, self.headers["Authorization"] or ""))
            answers = answering.answers.get(self.path, [])
            code, said = answers.pop(0) if len(answers) > 1 else answers[0] if answers else (404, "not ours")
            body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answering = Answering(http.server_address[1])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield answering
    http.shutdown()
    thread.join()
    http.server_close()


pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", SECRET_KEY)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(status, list(arguments))


def failed(result: Result, exit_code: int, message: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


STATUS, MOUNTED = "/api/admin/status", "/realtime/api/admin/status"


def test_a_table_of_all_nodes(server: Answering) -> None:
    cut_off = {**NODE, "node": "b", "backplane": {"up": 0}, "refusals": {"codes": {}}, "sessions": 1, "transports": {}}
    full = {**NODE, "node": "c", "backplane": {"up": 1, "writable": 0, "lag_seconds": 0.5}, "clients": []}
    alone = {**NODE, "node": "d", "backplane": {}, "deliveries_per_second": 0.0}
    server.answers[STATUS] = [(200, {"nodes": [NODE, cut_off, full, alone], "silent": [], "problem": None})]
    result = run("--url", server.url)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    sessions = "1,204 (4 polling, 1,200 websocket)"
    assert cells == [
        ["NODE", "SESSIONS", "USERS", "ROOMS", "DELIVERIES/S", "WAITING", "REDIS", "REFUSED"],
        ["a", sessions, "800", "35", "1,203.4", "12,000 B", "1 ms", "3 access_denied"],
        ["b", "1", "800", "35", "1,203.4", "12,000 B", "cut off", "-"],
        ["c", sessions, "800", "35", "1,203.4", "12,000 B", "500 ms, takes nothing", "3 access_denied"],
        ["d", sessions, "800", "35", "0.0", "12,000 B", "-", "3 access_denied"],
        [],
        ["clients: 3,600 Chrome 126, 12 bad\\x9bname"],
    ]
    (path, authorization) = server.asked[0]
    assert control.refusal(authorization.removeprefix("Bearer "), SECRET_KEY) is None
    assert path == STATUS


def test_below_realtime_where_an_application_is_mounted(server: Answering) -> None:
    server.answers[STATUS] = [(200, "<html>")]
    server.answers[MOUNTED] = [(200, {"nodes": [NODE]})]
    result = run("--url", server.url, "--json")
    assert json.loads(result.stdout) == {"nodes": [NODE], "silent": [], "problem": None}


def test_rates_are_asked_for_again_where_nobody_had_looked_before(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COUNTED", 0.0)
    uncounted = {**NODE, "deliveries_per_second": None}
    server.answers[STATUS] = [(200, {"nodes": [uncounted]}), (200, {"nodes": [NODE]})]
    assert json.loads(run("--url", server.url, "--json").stdout)["nodes"] == [NODE]
    server.answers[STATUS] = [(200, {"nodes": [uncounted]})]
    assert "  -  " in run("--url", server.url).stdout.splitlines()[1]


def test_one_node(server: Answering) -> None:
    server.answers[STATUS] = [(200, {"nodes": [NODE, {**NODE, "node": "b"}], "silent": [{"node": "c", "seconds": 1}]})]
    assert json.loads(run("--url", server.url, "--json", "--node", "b").stdout)["nodes"][0]["node"] == "b"
    result = run("--url", server.url, "--node", "b")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 4), "that another is silent is not asked"
    failed(run("--url", server.url, "--node", "c"), 1, "1 of 1 have not answered")
    failed(run("--url", server.url, "--node", "x"), 1, "there is no node x; there is a, b, c")


def test_a_node_that_says_nothing_is_named(server: Answering) -> None:
    silent = [{"node": "b", "seconds": 12.5}, {"node": "c", "seconds": None}]
    server.answers[STATUS] = [(200, {"nodes": [NODE], "silent": silent, "problem": None})]
    result = run("--url", server.url)
    failed(result, 1, "2 of 3 have not answered")
    lines = result.stdout.splitlines()
    assert lines[2] == "b     no answer, last heard of 12.5 seconds ago"
    assert lines[3].split() == ["c", "no", "answer"]


def test_where_the_other_nodes_cannot_be_asked(server: Answering) -> None:
    server.answers[STATUS] = [(200, {"nodes": [NODE], "silent": [], "problem": "Redis\nis away"})]
    result = run("--url", server.url)
    failed(result, 1, "the other nodes could not be asked: Redis")
    assert "\na " in result.stdout


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"error": {"code": "invalid_token"}}), "does not accept this SECRET_KEY"),
        ((401, {"error": {"code": "wrong_time"}}), "clocks of"),
        ((200, ["nodes"]), "answered 404"),
        ((200, {"nodes": 7}), "answered 404"),
        ((500, "it broke"), "answered 404"),
    ],
)
def test_what_a_server_may_answer_instead(server: Answering, answer: tuple[int, Any], message: str) -> None:
    server.answers[STATUS] = [answer]
    failed(run("--url", server.url), 1, message)


def test_wrong_usage_and_nobody_to_ask(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    failed(run("--url", url), 3, "is the server running?")
    failed(run("--url", "ftp://x"), 2, "ftp://x")
    failed(run("--redis-url", "nonsense"), 2, "redis")
    failed(run("--redis-url", f"redis://127.0.0.1:{closed_port}"), 3, "cannot ask the nodes through Redis")
    monkeypatch.delenv("SECRET_KEY")
    failed(run("--url", url), 2, "SECRET_KEY is not set")
    assert run("--nodes").exit_code == 2


def test_two_real_nodes_through_redis_and_through_one_of_them(tmp_path: Path) -> None:
    redis, world = RedisServer(tmp_path), LiveServer(tmp_path)
    shared = {"redis_url": redis.url, "database_url": str(world.database), "port": "0"}
    nodes = [Process(tmp_path / f"{name}.log", node=name, **shared) for name in "ab"]
    try:
        assert run("--redis-url", redis.url).stdout == "no node runs\n"
        for node in nodes:
            node.start()
        ways = [["--redis-url", redis.url], ["--url", f"http://127.0.0.1:{nodes[1].port}"]]

        def seen(way: list[str]) -> list[Any]:
            said = json.loads(run("--json", *way).stdout)
            return [*(node["node"] for node in said["nodes"]), *said["silent"]]

        for way in ways:
            until(lambda way=way: seen(way) == ["a", "b"], "both answer")  # type: ignore[misc]
        stop_process(nodes[0].pid)
        for way in ways:
            result = run("--json", *way)
            failed(result, 1, "1 of 2 have not answered")
            (silent,) = json.loads(result.stdout)["silent"]
            assert silent["node"] == "a"
            assert silent["seconds"] >= 0
        nodes[0].stop(signal.SIGKILL)
        for way in ways:
            until(lambda way=way: seen(way) == ["b"], "one is gone")  # type: ignore[misc]
    finally:
        for node in nodes:
            node.close()
        world.close()
        redis.close()
