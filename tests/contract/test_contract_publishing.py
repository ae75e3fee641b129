"""Section 7 of the contract: publishing over HTTP, from Python and from the command line, and what operators ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import flask
import pytest
from click.testing import CliRunner

from automoderate.cli import cli
from automoderate.directory import accounts
from automoderate.notifier import AsyncWebSocketNotifier, WebSocketNotifier
from kits import PATIENCE, until
from kits.contract_client import Answer, Client, Http, TransportName, target
from kits.contract_site import SECRET, Site, World, signing_application


@pytest.fixture(scope="session")
def key(world: World, project: str) -> str:
    return world.api_key(project)


@pytest.fixture
def client(site: Site, connect: Any, alice: str, project: str, transport: TransportName) -> Client:
    """In the room."""
    client: Client = connect(site, alice, transport)
    client.call("join_project", {"project_id": project})
    del client.items[:]
    return client


def post(site: Site, project: str, key: str | None, body: Any, *, prefix: str = "") -> Answer:
    sent = body if isinstance(body, str | bytes) else json.dumps(body)
    headers = {} if key is None else {"X_API_Key": key}
    return site.http("POST", f"{prefix}/api/projects/{project}/events", sent, **headers)


UPDATE = {"event": "moderation_update", "data": {"status": "approved", "content_id": "c"}}


class TestHttp:
    @pytest.mark.every_runtime
    def test_202_with_the_event_id_and_the_room_has_it(
        self, site: Site, client: Client, project: str, key: str
    ) -> None:
        answer = post(site, project, key, UPDATE)
        assert answer.status == 202
        assert answer.json.keys() == {"event_id"}
        assert client.expect("moderation_update") == {
            "status": "approved", "content_id": "c", "project_id": project, "event_id": answer.json["event_id"],
        }  # fmt: skip

    @pytest.mark.parametrize("event", ["moderation_update", "content_received", "stats_update", "rule_update"])
    def test_every_event_of_the_dashboard(
        self, site: Site, connect: Any, alice: str, project: str, key: str, event: str
    ) -> None:
        client = connect(site, alice, "websocket")
        client.call("join_project", {"project_id": project})
        answer = post(site, project, key, {"event": event, "data": {"x": 1}})
        assert client.until(event).items() >= {"x": 1, "event_id": answer.json["event_id"]}.items()

    def test_401_without_a_valid_key(self, site: Site, world: World, alice: str, project: str, key: str) -> None:
        revoked = world.api_key(project)
        accounts.revoke_api_key(world.database, revoked)
        for wrong in (None, "", "am_wrong", key + "x", key.upper(), f"Bearer {key}", revoked):
            assert post(site, project, wrong, UPDATE).status == 401, wrong
        # A session is no key.
        browser = Http(site.address, {"Cookie": world.cookie(alice)})
        answer = browser.request("POST", f"/api/projects/{project}/events", json.dumps(UPDATE))
        browser.close()
        assert answer.status == 401

    def test_403_for_another_projects_key(
        self, site: Site, client: Client, fresh: str, project: str, world: World
    ) -> None:
        assert post(site, project, world.api_key(fresh), UPDATE).status == 403
        assert post(site, "none", world.api_key(fresh), UPDATE).status == 403
        assert client.settle() == []

    def test_400_for_a_bad_body(self, site: Site, client: Client, project: str, key: str) -> None:
        bad: list[Any] = ["", "text", b"\xff", [], 5, None, {}, {"event": "moderation_update"}, {"data": {}}]
        bad += [{"event": event, "data": {}} for event in ("", "connected", "error", "joined_project", 5, None, ["x"])]
        bad += [{"event": "stats_update", "data": data} for data in (None, 5, "text", ["x"])]
        bad += ['{"event": "stats_update", "data": {"x": NaN}}', "[" * 100_000]
        bad += [{"event": "moderation_update", "data": {"status": "unheard of"}}]
        bad += [{"event": "moderation_update", "data": {"project_id": "another"}}]
        for body in bad:
            answer = post(site, project, key, body)
            assert answer.status == 400, (body, answer)
            assert answer.json["error"].keys() == {"message", "code"}
        assert client.settle() == []

    @pytest.mark.every_runtime
    def test_413_for_a_body_that_is_too_large(self, site: Site, client: Client, project: str, key: str) -> None:
        def of(size: int) -> dict[str, Any]:
            return {"event": "stats_update", "data": {"x": "x" * size}}

        assert post(site, project, key, of(256 * 1024)).status == 413
        assert post(site, project, key, b" " * (16 * 1024 * 1024 + 1)).status == 413
        assert client.settle() == []
        assert post(site, project, key, of(255 * 1024)).status == 202
        assert len(client.expect("stats_update")["x"]) == 255 * 1024

    @pytest.mark.every_runtime
    def test_what_is_posted_on_one_connection_keeps_its_order(
        self, site: Site, client: Client, project: str, key: str
    ) -> None:
        program = Http(site.address, {"X-API-Key": key})
        for number in range(20):
            body = json.dumps({"event": "stats_update", "data": {"n": number}})
            assert program.request("POST", f"/api/projects/{project}/events", body).status == 202
        program.close()
        assert [data["n"] for _, data in client.settle()] == list(range(20))

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_revoked_key_stops_at_once_where_it_is_announced_and_soon_otherwise(
        self, site: Site, world: World, fresh: str, announced: bool
    ) -> None:
        key = world.api_key(fresh)
        assert post(site, fresh, key, UPDATE).status == 202
        accounts.revoke_api_key(world.database, key)
        if announced:
            site.assembly.realtime.access_changed(project_id=fresh).result(PATIENCE)
            assert post(site, fresh, key, UPDATE).status == 401
        else:
            until(lambda: post(site, fresh, key, UPDATE).status == 401, "the end of the key")


class TestOtherWays:
    def test_the_notifier_in_another_process(self, site: Site, client: Client, project: str, key: str) -> None:
        notifier = WebSocketNotifier(url=site.url, api_key=key, timeout=PATIENCE)
        content = {"id": "c", "project_id": project, "content_data": "text"}
        notifier.send_content_created(content)
        notifier.send_update_async(content, "rejected", [{"moderator_type": "ai"}], 0.5)
        notifier.send_stats_update(project, {"total": 1})
        notifier.send_rule_update(project, {"id": 1}, action="created")
        notifier.close(PATIENCE)
        assert (notifier.sent, notifier.dropped, notifier.failed) == (4, 0, 0)
        names = [name for name, _ in client.settle()]
        assert names == ["content_received", "moderation_update", "stats_update", "rule_update"]

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_the_notifier_of_an_async_pipeline(
        self, site: Site, client: Client, project: str, key: str, backend: str
    ) -> None:
        async def pipeline() -> None:
            async with AsyncWebSocketNotifier(url=site.url, api_key=key, timeout=PATIENCE) as notifier:
                assert await notifier.send_stats_update(project, {"total": 1})
                assert await notifier.access_changed(project)
                assert not await notifier.logged_out("somebody")
            async with AsyncWebSocketNotifier(url=site.url, api_key="am_wrong", timeout=PATIENCE) as notifier:
                assert not await notifier.send_stats_update(project, {"total": 2})
            async with AsyncWebSocketNotifier(realtime=site.assembly.realtime) as notifier:
                assert await notifier.send_stats_update(project, {"total": 3})

        anyio.run(pipeline, backend=backend)
        # The last may be kept for the member until its access was looked up again.
        assert [client.until("stats_update")["total"] for _ in range(2)] == [1, 3]

    def test_the_notifier_never_raises_and_counts(self, site: Site, project: str) -> None:
        refused = WebSocketNotifier(url=site.url, api_key="am_wrong", timeout=PATIENCE)
        refused.send_stats_update(project, {"total": 1})
        refused.send_update_async(None, None, None, None)
        refused.close(PATIENCE)
        assert (refused.sent, refused.failed) == (0, 2)

    def test_the_command_line(self, site: Site, client: Client, project: str, key: str) -> None:
        arguments = ["publish", project, "--url", site.url, "--api-key", key, "--status", "flagged"]
        result = CliRunner().invoke(cli, [*arguments, "--text", "words"])
        assert result.exit_code == 0, result.output
        data = client.expect("moderation_update")
        assert (data["status"], data["content_preview"]) == ("flagged", "words")


class TestOperators:
    def test_health(self, site: Site) -> None:
        answer = site.http("GET", "/health")
        assert (answer.status, answer.json) == (200, {"status": "healthy", "service": "AutoModerate"})

    @pytest.mark.usefixtures("client")
    def test_metrics(self, site: Site) -> None:
        answer = site.http("GET", "/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        (sessions,) = (line for line in answer.text.splitlines() if line.startswith("automoderate_sessions "))
        assert float(sessions.split()[1]) == 1

    def test_ready(self, site: Site) -> None:
        assert site.http("GET", "/readyz").status == 200

    def test_503_while_the_database_is_away(self, own_site: Any, tmp_path: Path) -> None:
        world = World.make(tmp_path / "own.db")
        user = world.user()
        project = world.project(user)
        key = world.api_key(project)
        world.database.close()
        site = own_site(database_url=str(world.database))
        assert site.http("GET", "/readyz").status == 200
        site.assembly.database.close()  # what is open already would be read on
        (tmp_path / "own.db").rename(tmp_path / "away.db")
        assert site.http("GET", "/readyz").status == 503
        answer = post(site, project, key, UPDATE)
        assert (answer.status, "retry-after" in answer.headers) == (503, True)
        assert str(tmp_path) not in answer.text
        assert site.http("GET", "/health").status == 200
        (tmp_path / "away.db").rename(tmp_path / "own.db")
        assert site.http("GET", "/readyz").status == 200
        assert post(site, project, key, UPDATE).status == 202

    @pytest.mark.every_runtime
    def test_503_while_the_server_leaves(self, own_site: Any, project: str, key: str) -> None:
        site = own_site()
        # Connections from before, one of which has sent half a request: so long the server cannot go.
        probe, program, slow = Http(site.address), Http(site.address, {"X-API-Key": key}), Http(site.address)
        slow.start("POST", f"/api/projects/{project}/events", Content_Length="10")
        assert probe.request("GET", "/readyz").status == program.request("GET", "/health").status == 200
        site.handle.stop()
        until(lambda: site.assembly.realtime.draining, "the server leaves")
        ready = probe.request("GET", "/readyz")
        assert (ready.status, ready.json["checks"]["realtime"]) == (503, "draining")
        answer = program.request("POST", f"/api/projects/{project}/events", json.dumps(UPDATE))
        assert (answer.status, "retry-after" in answer.headers) == (503, True)
        for connection in (probe, program, slow):
            connection.close()


@pytest.fixture(scope="session")
def mounted(sites: Any) -> Iterator[Site]:
    """A server with an application of somebody else's mounted."""
    module = ModuleType("contract_mounted")
    application = signing_application(SECRET)
    application.add_url_rule("/", view_func=lambda: "home", endpoint="home")

    @application.route("/<path:path>", methods=["GET", "POST"])
    def anything(path: str) -> str:
        return f"the application's {flask.request.method} /{path}"

    module.app = application  # type: ignore[attr-defined]
    sys.modules["contract_mounted"] = module
    yield sites(wsgi="contract_mounted:app")
    del sys.modules["contract_mounted"]


class TestMounted:
    """Where another application is mounted."""

    @pytest.mark.parametrize("path", ["/health", "/readyz", "/metrics", "/auth/login", "/socket.ioo/", "/realtimes"])
    def test_every_other_path_is_the_applications(self, mounted: Site, path: str) -> None:
        assert mounted.http("GET", path).text == f"the application's GET {path}"

    @pytest.mark.every_runtime
    def test_its_front_page(self, mounted: Site) -> None:
        assert mounted.http("GET", "/").text == "home"

    def test_our_publishing_path_is_the_applications_too(self, mounted: Site, project: str, key: str) -> None:
        assert post(mounted, project, key, UPDATE).text == f"the application's POST /api/projects/{project}/events"

    @pytest.mark.every_runtime
    def test_the_api_is_under_realtime(
        self, mounted: Site, connect: Any, alice: str, project: str, key: str, transport: TransportName
    ) -> None:
        client = connect(mounted, alice, transport)
        client.call("join_project", {"project_id": project})
        assert post(mounted, project, key, UPDATE, prefix="/realtime").status == 202
        assert client.until("moderation_update")["status"] == "approved"
        for wrong, status in (("am_wrong", 401), (None, 401)):
            assert post(mounted, project, wrong, UPDATE, prefix="/realtime").status == status

    def test_health_ready_and_metrics_are_under_realtime(self, mounted: Site) -> None:
        assert mounted.http("GET", "/realtime/health").json == {"status": "healthy", "service": "AutoModerate"}
        assert mounted.http("GET", "/realtime/readyz").status == 200
        assert "automoderate_sessions" in mounted.http("GET", "/realtime/metrics").text

    def test_our_pages_are_nowhere(self, mounted: Site) -> None:
        assert mounted.http("GET", "/realtime/auth/login").status == 404

    def test_socket_io_is_ours(self, mounted: Site) -> None:
        assert mounted.http("GET", target("polling")).text.startswith('0{"sid"')
