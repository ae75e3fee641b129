"""OpenTelemetry: spans through its SDK, in this process, and nothing of it where it is not wanted."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from automoderate.app import opentelemetry_wanted
from automoderate.notifier import WebSocketNotifier
from automoderate.opentelemetry import OpenTelemetryTracer, from_environment
from automoderate.testing import Simulation
from kits import PATIENCE, PYTHONPATH

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def taken() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(taken: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(taken))
    return provider


def named(taken: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in taken.get_finished_spans() if span.name == f"automoderate.{name}"]


def member(simulation: Simulation, **wanted: object) -> None:
    simulation.connect("alice").emit("join_project", {"project_id": "p", **wanted})
    simulation.run()


def test_spans_of_a_server(taken: InMemorySpanExporter, provider: TracerProvider) -> None:
    simulation = Simulation(tracer=OpenTelemetryTracer(provider))
    simulation.directory.add_user("alice")
    simulation.directory.add_project("p", owner="alice")
    member(simulation)
    publish = simulation.server.publish
    first = publish("p", "stats_update", '{"secret":"content"}', simulation.now, PARENT)
    publish("p", "stats_update", '{"secret":"content"}', simulation.now, "nonsense")
    simulation.run()
    member(simulation, last_event_id=first)
    spans = taken.get_finished_spans()
    kinds = [span.name.removeprefix("automoderate.") for span in spans]
    assert set(kinds) == {"question", "join", "publish", "delivery", "replay"}
    publications, deliveries = named(taken, "publish"), named(taken, "delivery")
    assert [span.context.trace_id == int("a" * 32, 16) for span in publications] == [True, False]
    assert publications[0].parent is not None
    assert publications[0].parent.span_id == int("b" * 16, 16)
    assert [span.parent.span_id for span in deliveries if span.parent] == [
        span.context.span_id for span in publications
    ]
    assert [span.context.trace_id for span in deliveries] == [span.context.trace_id for span in publications]
    (replay,) = named(taken, "replay")
    assert replay.attributes == {"automoderate.project": "p", "automoderate.updates": 1}
    assert all(span.end_time >= span.start_time for span in spans if span.end_time and span.start_time)
    assert "content" not in "".join(span.to_json() for span in spans)


def test_a_failure_has_its_kind_and_not_its_message(taken: InMemorySpanExporter, provider: TracerProvider) -> None:
    OpenTelemetryTracer(provider).record("question", 0.5, {}, error=ValueError("it holds content"))
    (span,) = taken.get_finished_spans()
    assert (span.status.is_ok, span.status.description) == (False, "ValueError")
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(0.5)


def test_whatever_a_request_names_as_its_parent_nothing_is_said_of_it(
    taken: InMemorySpanExporter, provider: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry would write a line for each, so that whoever may publish could fill the log."""
    odd = ("", "-", f"{PARENT}, {PARENT}", f"ff{PARENT[2:]}", "x" * 5000, f"01{PARENT[2:]}-{'y' * 5000}", "é\udcff")
    for parent in odd:
        OpenTelemetryTracer(provider).start("publish", parent, {}).end(None)
    assert [span.parent for span in taken.get_finished_spans()] == [None] * len(odd)
    assert caplog.text == ""


def test_a_notifier_names_the_span_that_it_is_called_in(provider: TracerProvider) -> None:
    said: list[tuple[Any, ...]] = []

    def publish(*arguments: Any) -> Future[str]:
        said.append(arguments[3:])
        done: Future[str] = Future()
        done.set_result("1-0")
        return done

    notifier = WebSocketNotifier(realtime=SimpleNamespace(publish=publish))
    notifier.send_stats_update("p", {})
    wanted: dict[str, str] = {}
    with trace.use_span(provider.get_tracer("pipeline").start_span("decide")):
        notifier.send_stats_update("p", {})
        TraceContextTextMapPropagator().inject(wanted)
    assert said == [(), (wanted["traceparent"],)]
    notifier.close()


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "live"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
    ],
)
def test_its_own_variables_say_whether_it_is_wanted(variables: dict[str, str], wanted: bool) -> None:
    assert opentelemetry_wanted(variables) is wanted


@pytest.mark.parametrize(
    ("variables", "fix"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER zipkin: must be otlp, console or none"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "must be one of http/protobuf, grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "pip install opentelemetry-exporter-otlp-proto-grpc"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "5s"}, "OTEL_BSP_SCHEDULE_DELAY 5s: must be a whole number greater than 0"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OTEL_BSP_MAX_QUEUE_SIZE -1: must be a whole number greater than 0"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_the_fix(variables: dict[str, str], fix: str) -> None:
    with pytest.raises(ValueError, match="OTEL_") as caught:
        from_environment(variables)
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)


SERVING = """
import sys, threading
sys.modules["redis"] = None  # which imports it by itself
from automoderate import app
from automoderate.notifier import WebSocketNotifier
from automoderate.settings import Settings
assembly = app.build(Settings(port=0, database_url=sys.argv[1], secret_key="a secret long enough for anybody"))
def ready(handle):
    notifier = WebSocketNotifier(realtime=assembly.realtime)
    notifier.send_stats_update("p", {})
    threading.Thread(target=lambda: (notifier.close(), handle.stop())).start()
assembly.run(ready)
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""


def test_checking_a_configuration_looks_at_its_variables_too(tmp_path: Any) -> None:
    """One of which OpenTelemetry itself reads when it is imported."""
    for variables in (
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"},
    ):
        for options in ((), ("--check-config",)):
            run = subprocess.run(
                [sys.executable, "-m", "automoderate", "serve", "--port=0", *options], capture_output=True, text=True,
                timeout=PATIENCE, check=False, cwd=tmp_path,
                env={"PYTHONPATH": PYTHONPATH, "SECRET_KEY": "a secret long enough for anybody", **variables},
            )  # fmt: skip
            assert run.returncode == 3
            assert run.stderr.startswith("Error: OTEL_")
            assert run.stderr.count("\n") == 1


def serve(folder: str, **variables: str) -> subprocess.CompletedProcess[str]:
    from automoderate.directory.database import Database

    database = Database(f"sqlite:///{folder}/database.sqlite3")
    database.create_all()
    database.close()
    return subprocess.run(
        [sys.executable, "-c", SERVING, str(database)],
        capture_output=True, text=True, timeout=3 * PATIENCE, check=True,
        env={"PYTHONPATH": PYTHONPATH, **variables},
    )  # fmt: skip


def test_nothing_of_it_is_imported_where_it_is_off(tmp_path: Any) -> None:
    assert serve(str(tmp_path)).stdout == "[]\n"


def test_a_server_sends_its_spans_to_their_end_where_the_variables_say_so(tmp_path: Any) -> None:
    printed = serve(str(tmp_path), OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="live").stdout
    assert '"name": "automoderate.publish"' in printed
    assert '"service.name": "live"' in printed
