"""The server's gauges and counters as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from automoderate.adapters import ServerStopped
from automoderate.realtime import NotRunning, Realtime

PREFIX = "automoderate_"


class RealtimeCollector(Collector):
    """Asks the running server at each scrape. Numbers whose names end in ``_total`` are counters, others gauges."""

    def __init__(self, realtime: Realtime) -> None:
        self._realtime = realtime

    def collect(self) -> Iterator[Metric]:
        """One family per number, and ``automoderate_up``: 0 where the server did not answer."""
        try:
            stats = self._realtime.stats()
        except (NotRunning, ServerStopped, TimeoutError):
            stats = None
        yield GaugeMetricFamily(PREFIX + "up", "Whether the real-time server answers", 0 if stats is None else 1)
        for name, value in (stats or {}).items():
            words = name.removesuffix("_total").replace("_", " ")
            if name.endswith("_total"):
                yield CounterMetricFamily(PREFIX + name, f"{words.capitalize()} since the server started", value)
            else:
                yield GaugeMetricFamily(PREFIX + name, f"{words.capitalize()} at the moment", value)


def exposition(realtime: Realtime) -> tuple[bytes, str]:
    """The text of a scrape and its content type."""
    registry = CollectorRegistry()
    registry.register(RealtimeCollector(realtime))
    return generate_latest(registry), CONTENT_TYPE_LATEST
