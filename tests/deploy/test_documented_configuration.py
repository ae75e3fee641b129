"""The configuration blocks of the documentation, run or checked: nobody copies one that does not work."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from automoderate.directory.database import Database
from automoderate.notifier.http import PublishingApi
from automoderate.settings import load
from kits import PATIENCE, ROOT
from kits.cluster import DEPLOY, Nginx
from kits.live_server import PASSWORD, LiveServer
from kits.postgresql_server import PostgreSQL
from kits.processes import Process
from kits.prometheus_server import program
from kits.real_clients import TRANSPORTS, Clients
from kits.terminals import terminals

OPERATING = ROOT / "docs" / "operating.md"
HERE = {"nginx", "yaml", "sql"}
"""Languages of blocks that are run or checked here."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", OPERATING.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_no_block_is_left_out() -> None:
    languages = set()
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        languages |= set(re.findall(r"^```([a-z]\w*)$", page.read_text("utf-8"), re.MULTILINE))
    assert languages <= HERE | {"python", "js", "ts", "json", "mermaid", "sh"}
    assert {language: len(blocks(language)) for language in HERE} == {"nginx": 2, "yaml": 2, "sql": 1}


@pytest.fixture(params=["port", "uds"])
def nginx(request: pytest.FixtureRequest, tmp_path: Path, world: LiveServer) -> Iterator[Nginx]:
    """The documented nginx in front of a server, over a port or over a Unix socket."""
    settings = {"port": "0", "trusted_proxy": "127.0.0.1"}
    if request.param == "uds":
        settings = {"uds": f"{tmp_path}/s"}
    server = Process(tmp_path / "log", database_url=str(world.database), **settings)
    server.start()
    try:
        block, below = blocks("nginx")
        lines = re.search(r"^ +proxy_http_version .*^ +proxy_read_timeout [^\n]*", block, re.DOTALL | re.MULTILINE)
        assert lines is not None
        (comment,) = re.findall(r"^ *# and the lines above, from proxy_http_version on$", below, re.MULTILINE)
        block = block.replace("    location / {", below.replace(comment, lines[0]) + "    location / {")
        shown = "proxy_pass http://127.0.0.1:6217;"
        target = f"http://127.0.0.1:{server.port}" if request.param == "port" else f"http://unix:{tmp_path}/s:"
        if request.param == "uds":
            assert "http://unix:/run/automoderate/http.sock" in block
        text = f"events {{\n    worker_connections 64;\n}}\nhttp {{\n{block}\n}}\n"
        nginx = Nginx(
            tmp_path,
            text,
            {
                shown: f"proxy_pass {target};",
                shown[:-1] + "/;": f"proxy_pass {target}/;",
                "listen 80;": "listen 127.0.0.1:{port};",
            },
        )
        try:
            yield nginx
        finally:
            nginx.close()
    finally:
        server.close()


def test_nginx_as_documented_lets_pages_of_any_port_in(nginx: Nginx, world: LiveServer, client: Clients) -> None:
    """Its own page is of the port that nginx listens on, which is not 80 here."""
    page = requests.get(
        f"{nginx.url}/socket.io/?EIO=4&transport=polling", headers={"Origin": nginx.url}, timeout=PATIENCE
    )
    assert page.status_code == 200, page.text
    other = requests.get(
        f"{nginx.url}/socket.io/?EIO=4&transport=polling", headers={"Origin": "http://127.0.0.1"}, timeout=PATIENCE
    )
    assert other.status_code == 403
    for transports in TRANSPORTS:
        client(nginx.url, world.cookie("alice"), transports).welcomed()


def test_nginx_as_documented_shows_everything_below_a_path(nginx: Nginx, world: LiveServer) -> None:
    base = f"{nginx.url}/moderation"
    with requests.Session() as browser:
        form = browser.get(f"{base}/projects/{world.project}", timeout=PATIENCE)
        assert form.url == f"{base}/auth/login?next=/moderation/projects/{world.project}"
        (token,) = re.findall(r'name="csrf_token"[^>]* value="([^"]+)"', form.text)
        filled = {"username": "alice", "password": PASSWORD, "csrf_token": token}
        page = browser.post(form.url, filled, headers={"Referer": form.url}, timeout=PATIENCE)
        assert page.url == f"{base}/projects/{world.project}"
        (script,) = re.findall(r'src="(\S+/live\.js)', page.text)
        assert script == "/moderation/static/live.js"
        assert browser.get(nginx.url + script, timeout=PATIENCE).status_code == 200
        handshake = f"{base}/socket.io/?EIO=4&transport=polling"
        assert browser.get(handshake, headers={"Origin": nginx.url}, timeout=PATIENCE).status_code == 200
    with terminals() as terminal, PublishingApi(base, timeout=PATIENCE) as api:
        watching = terminal(
            world.project,
            "--url",
            base,
            "--username",
            "alice",
            "--count",
            "1",
            "--json",
            AUTOMODERATE_PASSWORD=PASSWORD,
        )
        assert watching.err.get(timeout=PATIENCE) == f"watching project_{world.project}; Ctrl-C ends"
        api.publish(world.project, "stats_update", {"total": 1}, world.api_key)
        assert json.loads(watching.out.get(timeout=PATIENCE))["data"]["total"] == 1
        assert watching.wait() == 0


def test_the_documented_role_may_read_what_the_server_reads(postgresql: PostgreSQL) -> None:
    (block,) = blocks("sql")
    name = postgresql.create_with_tables()
    with postgresql.connect(name) as connection:
        connection.execute(block.replace("automoderate", "reader").encode())  # that name is the tests' own
    try:
        database = Database(postgresql.url(name, "reader"), read_only=True)
        database.check()
        database.close()
    finally:
        postgresql.drop(name)
        with postgresql.connect() as connection:
            connection.execute("DROP ROLE reader")


def test_prometheus_takes_what_is_to_be_scraped(tmp_path: Path) -> None:
    block, _ = blocks("yaml")
    (tmp_path / "prometheus.yml").write_text(f"{block}rule_files: [{DEPLOY / 'alerts.yaml'}]\n")
    checked = subprocess.run(
        [program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    (job,) = yaml.safe_load(block)["scrape_configs"]
    assert f'job="{job["job_name"]}"' in (DEPLOY / "alerts.yaml").read_text("utf-8")


def test_the_pod_has_time_to_wait_and_to_drain() -> None:
    """Kubernetes itself is not here: what can be checked is that it says what the server does."""
    _, block = blocks("yaml")
    spec = yaml.safe_load(block)["spec"]
    (container,) = spec["containers"]
    command, *words = container["args"]
    assert command == "serve"
    flags = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)
    }
    settings = load(flags, {}).settings
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert spec["terminationGracePeriodSeconds"] >= int(seconds) + settings.drain_timeout + 5
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {"readiness": "/readyz", "liveness": "/health"}
    ports = {probe["port"] for probe in probes.values()} | {port["containerPort"] for port in container["ports"]}
    assert ports == {settings.port}
    assert settings.host == ("::",), "a pod has an address of either kind"
    assert int(seconds) >= container["readinessProbe"]["periodSeconds"]
