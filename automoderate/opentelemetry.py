"""The server's spans for OpenTelemetry; imported only where they are wanted (the extra ``otel``)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping

from attrs import frozen
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from automoderate.server.tracing import Attributes

__all__ = ["OpenTelemetrySpan", "OpenTelemetryTracer", "from_environment"]

PROTOCOLS = {"http/protobuf": "http", "grpc": "grpc"}
"""What OTEL_EXPORTER_OTLP_PROTOCOL may be, and the exporter's package for it."""

MAX_PARENT = 512
"""Characters of a traceparent; OpenTelemetry takes none that is longer, and would say so in the log each time."""

_PROPAGATOR = TraceContextTextMapPropagator()


@frozen
class OpenTelemetrySpan:
    """A :class:`automoderate.server.tracing.Span`."""

    span: trace.Span

    @property
    def traceparent(self) -> str:
        """The traceparent of this span."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self.span, Context()))
        return carrier["traceparent"]

    def end(self, error: BaseException | None, at: int | None = None) -> None:
        """It is over; ``at`` is in nanoseconds since 1970."""
        if error is not None:
            # Its kind alone: the message may hold what a publisher has sent.
            self.span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self.span.end(at)


class OpenTelemetryTracer:
    """A :class:`automoderate.server.tracing.Tracer` that hands spans to a provider of OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        """The provider's processor must not block: :class:`BatchSpanProcessor` does not."""
        self._provider = provider
        self._tracer = provider.get_tracer("automoderate")

    def start(self, name: str, parent: str | None, attributes: Attributes) -> OpenTelemetrySpan:
        """Begin a span."""
        return self._begin(name, parent, attributes, time.time_ns())

    def record(
        self, name: str, seconds: float, attributes: Attributes, parent: str | None = None,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Take a span that is over by now."""
        now = time.time_ns()
        self._begin(name, parent, attributes, now - int(seconds * 1e9)).end(error, now)

    def close(self) -> None:
        """Send what was taken, within the exporter's own timeout, and end the provider."""
        self._provider.shutdown()

    def _begin(self, name: str, parent: str | None, attributes: Attributes, at: int) -> OpenTelemetrySpan:
        carrier = {} if parent is None or len(parent) > MAX_PARENT else {"traceparent": parent}
        # An empty context, as whatever span the loop's thread is within has nothing to do with it.
        context = _PROPAGATOR.extract(carrier, Context())
        named = {f"automoderate.{key}": value for key, value in attributes.items()}
        return OpenTelemetrySpan(
            self._tracer.start_span(f"automoderate.{name}", context, attributes=named, start_time=at)
        )


def from_environment(environment: Mapping[str, str]) -> OpenTelemetryTracer:
    """What sends spans as OpenTelemetry's variables say; they are sent by a thread, and to their end at exit.

    Raises ValueError, in one line that names the fix, for an exporter that there is not and for what is no number.
    """
    for name, value in environment.items():
        # OpenTelemetry would say it with a traceback, and go on without, or not say which it was.
        if name.startswith("OTEL_BSP_") and value and not (value.isdecimal() and int(value)):
            raise ValueError(f"{name} {value}: must be a whole number greater than 0")
    said = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if said else {"service.name": "automoderate"}))
    for name in (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip(), environment)))
    return OpenTelemetryTracer(provider)


def _exporter(name: str, environment: Mapping[str, str]) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER {name}: must be otlp, console or none")
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((environment[name] for name in variables if environment.get(name)), "http/protobuf")
    if protocol not in PROTOCOLS:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL {protocol}: must be one of {', '.join(PROTOCOLS)}")
    package = PROTOCOLS[protocol]
    try:
        module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.trace_exporter")
    except ModuleNotFoundError as error:
        fix = f"pip install opentelemetry-exporter-otlp-proto-{package}"
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL {protocol} needs {error.name}: {fix}") from error
    exporter: SpanExporter = module.OTLPSpanExporter()
    return exporter
