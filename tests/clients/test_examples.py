"""The examples of the README, run as they stand: they print what is published, also after a restart, and what fails.

``automoderate watch`` runs beside them where all have to do the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from automoderate.directory.database import Database
from automoderate.notifier.http import PublishingApi, Refused
from kits import PATIENCE, until
from kits.cables import Cable
from kits.live_server import LiveServer
from kits.postgresql_server import PostgreSQL
from kits.redis_server import RedisServer

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
COMMANDS = {"client.py": [sys.executable], "client.mjs": ["node"]}
WATCH = "watch"
JOINED = ("live in project_", "watching project_", "connected again")
"""One of these each prints once it is in the room."""


Run = Callable[..., subprocess.Popen[str]]


@contextlib.contextmanager
def starting(name: str) -> Iterator[Run]:
    """Starts one of them with the environment or the arguments that it is to have, and ends it in the end."""
    with contextlib.ExitStack() as stack:

        def start(url: str, project: str, cookie: str) -> subprocess.Popen[str]:
            given = {"URL": url, "PROJECT": project, "COOKIE": cookie, "PYTHONUNBUFFERED": "1"}
            if name == WATCH:
                command = [sys.executable, "-m", "automoderate", WATCH, project, "--url", url, "--cookie", cookie]
            else:
                command = [*COMMANDS[name], str(EXAMPLES / name)]
            process = stack.enter_context(
                subprocess.Popen(
                    command, env={**os.environ, **given}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(params=COMMANDS)
def start(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Starts one of the examples."""
    with starting(request.param) as start:
        yield start


@pytest.fixture(params=[*COMMANDS, WATCH])
def watch(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Starts one of the examples, or the command."""
    with starting(request.param) as start:
        yield start


def said(process: subprocess.Popen[str], *what: str) -> str:
    """Read what an example prints up to a line that has one of these words in it."""
    assert process.stdout is not None
    text = ""
    while not any(words in text for words in what):
        line = process.stdout.readline()
        assert line, f"it ended:\n{text}"
        text += line
    return text


def members(server: LiveServer) -> int:
    """How many memberships the server counts."""
    text = requests.get(f"{server.url}/metrics", timeout=PATIENCE).text
    found = re.search(r"^automoderate_memberships (\d+)", text, re.MULTILINE)
    assert found, text
    return int(found[1])


def test_the_clients_of_the_readme(start: Run, own_server: LiveServer) -> None:
    example = start(own_server.url, own_server.project, own_server.cookie("alice"))
    for text in ("first", "after a restart"):
        # Not before: what is published while a client is let in is older than what it is told first.
        said(example, *JOINED)
        with PublishingApi(own_server.url, timeout=PATIENCE) as api:
            data = {"status": "flagged", "content_preview": text}
            api.publish(own_server.project, "moderation_update", data, own_server.api_key)
        said(example, f"flagged {text}")
        own_server.stop()
        said(example, "disconnected: transport")
        own_server.start()
    # The history was in the memory of the server that was stopped.
    said(example, "(some updates were missed)")


@contextlib.contextmanager
def a_redis(folder: Path) -> Iterator[tuple[dict[str, str], Database | None, Callable[[], Any]]]:
    """What a server needs to know of a Redis, and how to freeze that."""
    redis = RedisServer(folder)

    @contextlib.contextmanager
    def frozen() -> Iterator[None]:
        redis.pause()
        yield
        redis.resume()

    try:
        yield {"redis_url": redis.url}, None, frozen
    finally:
        redis.close()


@contextlib.contextmanager
def a_database(postgresql: PostgreSQL) -> Iterator[tuple[dict[str, str], Database | None, Callable[[], Any]]]:
    """The same of a database, in which nothing can be looked up while it is frozen."""
    name = postgresql.create_with_tables()

    @contextlib.contextmanager
    def frozen() -> Iterator[None]:
        with postgresql.connect(name) as connection, connection.transaction():
            connection.execute("LOCK TABLE users, projects, project_members IN ACCESS EXCLUSIVE MODE")
            yield

    yield {}, Database(postgresql.url(name)), frozen


@pytest.mark.parametrize("service", ["redis", "database"])
def test_those_whose_look_up_failed_as_they_came_back_ask_again(
    watch: Run, service: str, tmp_path: Path, adapter: str, request: pytest.FixtureRequest
) -> None:
    with contextlib.ExitStack() as stack:
        if service == "redis":
            settings, database, frozen = stack.enter_context(a_redis(tmp_path))
        else:
            settings, database, frozen = stack.enter_context(a_database(request.getfixturevalue("postgresql")))
        server = LiveServer(tmp_path, database, adapter=adapter, **{**settings, "check_timeout": "1"})
        stack.callback(server.close)
        server.start()
        cable = Cable(server.port)
        stack.callback(cable.close)
        watching = watch(cable.url, server.project, server.cookie("alice"))
        said(watching, *JOINED)
        with frozen():
            cable.cut()
            cable.plugged.set()
            said(watching, "Server ")  # timeout, or error occurred
            assert members(server) == 0
        said(watching, *JOINED)
        with PublishingApi(server.url, timeout=PATIENCE) as api:
            data = {"status": "flagged", "content_preview": "it works again"}
            until(lambda: published(api, server, data), "the server publishes again")
        assert "Traceback" not in said(watching, "it works again")


def published(api: PublishingApi, server: LiveServer, data: dict[str, str]) -> bool:
    try:
        api.publish(server.project, "moderation_update", data, server.api_key)
    except Refused:
        return False
    return True


def test_they_print_why_they_get_nothing(start: Run, server: LiveServer, closed_port: int) -> None:
    cookie = server.cookie("alice")
    said(start(server.url, server.other, cookie), "error: Access denied - you are not a member of this project")
    said(start(server.url, "", cookie), "error: Project ID required")
    said(start(f"http://127.0.0.1:{closed_port}", server.project, cookie), "cannot connect: ")
    refused = start(server.url, server.project, "session=wrong")
    said(refused, "error: Authentication required")
    said(refused, "disconnected: ")
    assert refused.wait(PATIENCE) == 0, "one that is not let in does not go on for ever"


def test_the_publisher_of_the_readme(server: LiveServer) -> None:
    command = [sys.executable, str(EXAMPLES / "publish.py")]
    given = {"URL": server.url, "PROJECT": server.project}
    for key, told in ((server.api_key, "1 sent, 0 failed\n"), ("am_wrong", "0 sent, 1 failed\n")):
        environment = {**os.environ, **given, "API_KEY": key}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert run.stdout == told
        assert ("A valid X-API-Key header is needed" in run.stderr) == (key == "am_wrong")


def test_the_commands_of_the_page_about_publishing(own_server: LiveServer) -> None:
    """What each is answered is what stands under it."""
    page = (EXAMPLES.parent / "docs" / "publishing.md").read_text()
    shown = re.findall(r"^```sh\n(.*?)^```\n\n```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == page.count("```sh\n")
    given = {**os.environ, "URL": own_server.url, "API_KEY": own_server.api_key, "PROJECT": own_server.project}
    for command, expected in shown:
        run = subprocess.run(
            ["bash", "-ec", command], env=given, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        event_id = re.compile(r"\d{13}-\d+")
        assert event_id.sub("ID", run.stdout) == event_id.sub("ID", expected.strip()), command


def test_the_history_is_printed_page_by_page(own_server: LiveServer) -> None:
    given = {**os.environ, "URL": own_server.url, "API_KEY": own_server.api_key, "PROJECT": own_server.project}
    with PublishingApi(own_server.url, timeout=PATIENCE) as api:
        updates = [b'{"event": "stats_update", "data": {"status": "%d"}}' % number for number in range(1000)]
        event_ids = api.publish_all(own_server.project, updates, own_server.api_key)
    for after, begin in ((event_ids[99], 100), (event_ids[500], 501), (None, 500)):
        command = [sys.executable, str(EXAMPLES / "read_history.py"), *([after] if after else [])]
        run = subprocess.run(command, env=given, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert run.stdout.split() == [
            word for number in range(begin, 1000) for word in (event_ids[number], "stats_update", str(number))
        ]
    command = [sys.executable, str(EXAMPLES / "read_history.py"), "1-1"]
    run = subprocess.run(command, env=given, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert run.stdout.startswith("(what came right after 1-1 is no longer kept)\n")
    assert len(run.stdout.splitlines()) == 501
