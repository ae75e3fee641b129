"""The dashboard and the alerts that ship in ``deploy/``, as a real Prometheus that scrapes a node takes them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml

from kits import PATIENCE, ROOT, until
from kits.cluster import DEPLOY
from kits.live_server import LiveServer, running_server
from kits.prometheus_server import Prometheus, program
from kits.redis_server import RedisServer

ALERTS = DEPLOY / "alerts.yaml"
FILLED_IN = {"$job": "automoderate", "$instance": ".*", "$__rate_interval": "1m"}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
    return found


def expressions() -> list[str]:
    """All of both files, as Grafana would fill them in."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    for name, value in FILLED_IN.items():
        found = [expression.replace(name, value) for expression in found]
    return [*found, *(rule["expr"] for rule in rules())]


@pytest.fixture(scope="module")
def node(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("node"), redis_url=redis_server.url) as node:
        yield node


@pytest.fixture(scope="module")
def prometheus(node: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), node.url.removeprefix("http://"), ALERTS)
    yield server
    server.close()


def test_promtool_has_nothing_to_say_against_the_alerts() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(rules())} rules found" in done.stdout


def test_promtool_has_nothing_to_say_against_the_metrics(node: LiveServer) -> None:
    text = requests.get(f"{node.url}/metrics", timeout=PATIENCE).text
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_finds_every_metric_that_the_two_files_name(node: LiveServer, prometheus: Prometheus) -> None:
    node.publish(1)
    until(lambda: prometheus.query("automoderate_up == 1"), "a scrape")
    names = set(re.findall(r"\bautomoderate_\w+", " ".join(expressions())))
    assert len(names) > 30
    missing = {name for name in names if not prometheus.query(name)}
    assert not missing
    for expression in expressions():
        prometheus.query(expression)  # raises for what is none
    labels = re.findall(r'(\bautomoderate_\w+)\{(\w+)="(\w+)"\}', " ".join(expressions()))
    codes = {result["metric"]["code"] for result in prometheus.query("automoderate_errors_total")}
    assert {"timeout", "server_error", "rate_limited"} <= codes
    assert {value for _, label, value in labels if label == "code"} <= codes


def test_prometheus_evaluates_the_alerts_and_a_node_that_is_well_sets_none_off(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        (group,) = prometheus.ask("rules")["groups"]
        return [rule for rule in group["rules"] if rule["health"] != "unknown"]

    until(lambda: len(evaluated()) == len(rules()), "an evaluation")
    assert {rule["health"] for rule in evaluated()} == {"ok"}
    assert not [alert for alert in prometheus.ask("alerts")["alerts"] if "lost" in alert["labels"]["alertname"].lower()]


def test_a_node_that_is_gone_sets_off_its_alert(node: LiveServer, prometheus: Prometheus) -> None:
    node.stop()
    until(
        lambda: [alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]].count("AutoModerateDown")
    )


def test_the_documentation_names_every_metric(node: LiveServer) -> None:
    node.start()
    text = requests.get(f"{node.url}/metrics", timeout=PATIENCE).text
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    names = re.findall(r"^# TYPE automoderate_(\w+) ", text, re.MULTILINE)
    assert [name for name in names if f"`{name}`" not in page] == []
    documented = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \|", page.partition("## Metrics")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert {name for cell in documented for name in re.findall(r"`(\w+)`", cell)} == set(names)
