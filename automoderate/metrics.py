"""The server's gauges, counters and histograms as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from automoderate.server.telemetry import Histogram

PREFIX = "automoderate_"

LABELS = {"errors": "code", "endings": "reason"}
"""Counters of several kinds, such as ``errors_timeout_total``, and what tells these apart: a label of one counter."""


def exposition(stats: Mapping[str, float], histograms: Mapping[str, Histogram]) -> tuple[bytes, str]:
    """The text of a scrape and its content type.

    Numbers whose names end in ``_total`` are counters, others gauges.
    """
    registry = CollectorRegistry()
    registry.register(_Numbers(stats, histograms))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Numbers(Collector):
    def __init__(self, stats: Mapping[str, float], histograms: Mapping[str, Histogram]) -> None:
        self._stats = stats
        self._histograms = histograms

    def collect(self) -> Iterator[Metric]:
        """One family for each name, and ``automoderate_up``."""
        yield GaugeMetricFamily(PREFIX + "up", "Whether the real-time server answers", 1)
        labelled = {
            name: CounterMetricFamily(
                f"{PREFIX}{name}", f"{name.capitalize()} since the server started", labels=[label]
            )
            for name, label in LABELS.items()
        }
        for name, value in self._stats.items():
            kind, _, rest = name.removesuffix("_total").partition("_")
            words = name.removesuffix("_total").replace("_", " ")
            if name.endswith("_total") and kind in labelled:
                labelled[kind].add_metric([rest], value)
            elif name.endswith("_total"):
                yield CounterMetricFamily(PREFIX + name, f"{words.capitalize()} since the server started", value)
            else:
                yield GaugeMetricFamily(PREFIX + name, f"{words.capitalize()} at the moment", value)
        yield from labelled.values()
        for name, histogram in self._histograms.items():
            yield _family(name, histogram)


def _family(name: str, histogram: Histogram) -> Metric:
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    buckets = list(zip(bounds, histogram.cumulated(), strict=True))
    return HistogramMetricFamily(PREFIX + name, histogram.about, buckets, sum_value=histogram.total)
