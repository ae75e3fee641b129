"""What ships in ``deploy/`` says what the server does: times, ports, names and options."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from automoderate._listening import BACKLOG, SOCKET_MODE
from automoderate.settings import OPTIONS, load
from kits import PATIENCE, ROOT
from kits.cluster import DEPLOY

UNITS = ["automoderate.service", "automoderate@.service"]


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name)
    return parser


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


def flags(words: list[str]) -> dict[str, str]:
    return {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)
    }


@pytest.mark.parametrize("names", [["automoderate.service", "automoderate.socket"], ["automoderate@6217.service"]])
def test_systemd_has_nothing_to_say_against_the_units(names: list[str], tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None, "no systemd-analyze: run scripts/install-services"
    for name in names:
        text = (DEPLOY / name.replace("6217", "")).read_text("utf-8")
        # A program that is on this machine; whether ours is installed there is not the question.
        (tmp_path / name).write_text(text.replace("/opt/automoderate/bin/automoderate", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(f"./{name}" for name in names)], cwd=tmp_path, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_socket_is_where_the_server_would_listen() -> None:
    section = unit("automoderate.socket")["Socket"]
    assert section["ListenStream"] == f"{OPTIONS['host'].default[0]}:{OPTIONS['port'].default}"
    assert (int(section["SocketMode"], 8), int(section["Backlog"])) == (SOCKET_MODE, BACKLOG)


def test_the_service_may_make_the_unix_socket_that_the_page_names() -> None:
    """With ProtectSystem=strict everything is read-only but the folders that the unit names."""
    service = unit("automoderate.service")["Service"]
    (path,) = re.findall(r"http://unix:([^;]+);", (DEPLOY.parent / "docs" / "operating.md").read_text("utf-8"))
    assert service["ProtectSystem"] == "strict"
    assert Path(path).parent == Path("/run") / service["RuntimeDirectory"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_time_to_drain(name: str) -> None:
    service = unit(name)["Service"]
    program, command, *words = shlex.split(service["ExecStart"].replace("%i", "6217"))
    assert (program, command) == ("/opt/automoderate/bin/automoderate", "serve")
    settings = load(flags(words), {}).settings
    assert int(service["TimeoutStopSec"]) >= settings.drain_timeout + 5
    assert service["KillMode"] == "mixed", "the parent of workers is told, not each of them"


def test_instances_are_named_by_their_port() -> None:
    *_, port, number, node, name, _, _, _, _ = shlex.split(unit("automoderate@.service")["Service"]["ExecStart"])
    assert (port, number, node, name) == ("--port", "%i", "--node", "%i")


def test_compose_starts_what_nginx_and_the_nodes_expect(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"tables", "a", "b", "redis", "postgresql", "nginx"}
    conf = (DEPLOY / "nginx.conf").read_text("utf-8")
    for name, port in (("a", "6217"), ("b", "6218")):
        variables = services[name]["environment"]
        known = {f"AUTOMODERATE_{option.upper()}" for option in OPTIONS} | {"SECRET_KEY", "DATABASE_URL"}
        assert set(variables) <= known
        assert (variables["AUTOMODERATE_NODE"], variables["AUTOMODERATE_PORT"]) == (name, port)
        assert f'"~^{name}\\."  automoderate_{name};' in conf
        assert re.search(rf"upstream automoderate_{name} {{\s+server 127\.0\.0\.1:{port} ", conf)
        assert f"s/127.0.0.1:{port}/{name}:{port}/" in services["nginx"]["command"]
        grace = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert grace >= float(variables["AUTOMODERATE_DRAIN_TIMEOUT"]) + 5
        (subnet,) = compose["networks"]["default"]["ipam"]["config"]
        assert variables["AUTOMODERATE_TRUSTED_PROXY"] == subnet["subnet"]
        load({}, {key: str(value) for key, value in variables.items() if key.startswith("AUTOMODERATE_")})
        build = services[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).exists()


def test_the_image_is_built_from_what_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert all((ROOT / name).exists() for names in copied for name in names)


def test_nginx_waits_longer_than_a_heartbeat_takes() -> None:
    conf = (DEPLOY / "nginx.conf").read_text("utf-8")
    found = re.search(r"proxy_read_timeout (\d+)s;", conf)
    assert found is not None
    assert int(found[1]) > OPTIONS["ping_interval"].default + OPTIONS["ping_timeout"].default
