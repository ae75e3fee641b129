"""One trace through two nodes on one Redis, as OpenTelemetry's SDK takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import socketio
from attrs import frozen
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from automoderate import app
from automoderate.backplane.redis.entries import BadEntry, update
from automoderate.notifier import WebSocketNotifier
from automoderate.opentelemetry import OpenTelemetryTracer
from automoderate.settings import Settings
from kits import PATIENCE, until
from kits.live_server import LiveServer
from kits.processes import SECRET_KEY
from kits.redis_server import RedisServer
from kits.threads import ServerThread

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


class TracedNode:
    """A server in a thread, and the spans that it has ended."""

    def __init__(self, world: LiveServer, redis: RedisServer) -> None:
        self._taken = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._taken))
        settings = Settings(port=0, database_url=str(world.database), redis_url=redis.url, secret_key=SECRET_KEY)
        self._server = ServerThread(app.build(settings, tracer=OpenTelemetryTracer(provider)))
        self.url = self._server.url
        self.stop = self._server.stop

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._taken.get_finished_spans() if span.name == f"automoderate.{name}"]


@frozen
class Pair:
    world: LiveServer
    redis: RedisServer
    near: TracedNode
    far: TracedNode


@pytest.fixture
def nodes(tmp_path: Path, server: RedisServer) -> Iterator[Pair]:
    world = LiveServer(tmp_path)
    near, far = TracedNode(world, server), TracedNode(world, server)
    yield Pair(world, server, near, far)
    near.stop()
    far.stop()
    world.close()


def same_trace(delivery: ReadableSpan, publication: ReadableSpan) -> bool:
    assert delivery.context is not None
    assert publication.context is not None
    parent = delivery.parent
    return parent is not None and (parent.trace_id, parent.span_id) == (
        publication.context.trace_id, publication.context.span_id,
    )  # fmt: skip


def test_the_span_of_a_delivery_belongs_to_the_publication_on_another_node(nodes: Pair) -> None:
    near, far, world = nodes.near, nodes.far, nodes.world
    path, headers = f"/api/projects/{world.project}/events", {"X-API-Key": world.api_key}
    one = {"event": "stats_update", "data": {}}
    own = TracerProvider(shutdown_on_exit=False).get_tracer("pipeline")
    with socketio.SimpleClient() as watching:
        watching.connect(far.url, headers={"Cookie": world.cookie("alice")}, transports=["websocket"])
        watching.call("join_project", {"project_id": world.project}, timeout=int(PATIENCE))
        # Told alone, all at once, and too large to be told.
        for body in (one, {"events": [one, one]}, {"event": "stats_update", "data": {"text": "x" * 8000}}):
            answer = requests.post(
                near.url + path, json=body, headers={**headers, "traceparent": PARENT}, timeout=PATIENCE
            )
            assert answer.status_code == 202, answer.text
        until(lambda: len(far.named("delivery")) == 4, "the deliveries")
        publications = near.named("publish")
        assert {span.parent.trace_id for span in publications if span.parent} == {int("a" * 32, 16)}
        assert [
            [same_trace(delivery, publication) for publication in publications] for delivery in far.named("delivery")
        ] == [[True, False, False], [False, True, False], [False, True, False], [False, False, True]]
        # Notifiers name the span that they are called in: to a server over HTTP, and through Redis itself.
        sending: tuple[Callable[[], WebSocketNotifier], ...] = (
            lambda: WebSocketNotifier(url=near.url, api_key=world.api_key),
            lambda: WebSocketNotifier(redis_url=nodes.redis.url),
        )
        for number, make in enumerate(sending):
            notifier = make()
            with trace.use_span(own.start_span("decide")) as span:
                notifier.send_stats_update(world.project, {"number": number})
            assert notifier.close(PATIENCE)
            until(lambda number=number: len(far.named("delivery")) == 5 + number)  # type: ignore[misc]
            context = far.named("delivery")[-1].context
            assert context is not None
            assert context.trace_id == span.get_span_context().trace_id


def test_a_trace_that_is_none_is_left_out_and_another_field_is_none_of_ours() -> None:
    fields = (b"event", b"stats_update", b"data", b"{}")
    found = [
        update("p", (b"1-0", (*fields, b"trace", trace))) for trace in (PARENT.encode(), b"", b"\xff", b"nonsense")
    ]
    assert [each.trace for each in found if each is not None] == [PARENT, None, None, None]
    with pytest.raises(BadEntry):
        update("p", (b"1-0", (*fields, b"other", b"x")))
