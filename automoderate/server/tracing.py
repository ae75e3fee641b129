"""What the server needs of a tracer, which takes its spans. It has none unless it was given one at the start.

A ``traceparent`` is the text of the W3C's Trace Context, by which spans of several processes are one trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias, TypeVar

__all__ = ["Attributes", "Span", "TracedDelivery", "Tracer", "is_traceparent", "traced"]

PublishedT = TypeVar("PublishedT")

Attributes: TypeAlias = Mapping[str, str | int]
"""Of a span: ids, names and counts, never content."""

_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """Something that takes its time. From any thread."""

    @property
    def traceparent(self) -> str:
        """What makes another span its child, wherever that is."""

    def end(self, error: BaseException | None) -> None:
        """It is over, or has failed."""


class Tracer(Protocol):
    """Takes spans. Never blocks and never raises."""

    def start(self, name: str, parent: str | None, attributes: Attributes) -> Span:
        """Begin a span; ``parent`` is a traceparent, and one that is none counts as absent."""

    def record(
        self, name: str, seconds: float, attributes: Attributes, parent: str | None = None,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Take a span that is over by now, and took so many seconds."""


class TracedDelivery(float):
    """When a room was to be sent an update, and as part of which trace."""

    __slots__ = ("attributes", "trace")

    trace: str
    attributes: Attributes

    @classmethod
    def of(cls, at: float, trace: str, attributes: Attributes) -> TracedDelivery:
        """One at that time."""
        delivery = cls(at)
        delivery.trace, delivery.attributes = trace, attributes
        return delivery


def is_traceparent(text: str) -> bool:
    """Whether a text is a traceparent."""
    return _TRACEPARENT.fullmatch(text) is not None


def traced(
    tracer: Tracer,
    project_id: str,
    events: Sequence[str],
    parents: Sequence[str | None],
    publish: Callable[[Sequence[str]], PublishedT],
) -> PublishedT:
    """Publish events within spans, one for each parent; ``publish`` gets the traceparents that go with the events."""
    spans: dict[str | None, Span] = {}
    for parent in parents:
        if parent not in spans:
            attributes: Attributes = {"project": project_id, "event": events[0], "updates": parents.count(parent)}
            spans[parent] = tracer.start("publish", parent, attributes)

    def end(error: BaseException | None) -> None:
        for span in spans.values():
            span.end(error)

    try:
        published = publish([spans[parent].traceparent for parent in parents])
    except BaseException as error:
        end(error)
        raise
    if isinstance(published, Future):
        published.add_done_callback(lambda future: end(future.exception()))
    else:
        end(None)
    return published
