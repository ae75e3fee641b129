"""Deliveries a second: counted only while somebody asks, over the last five to ten seconds."""

from __future__ import annotations

from attrs import define

from automoderate.server.meter import LEAST, PATIENCE, SPAN, Meter


@define
class Source:
    counting: dict[str, int] | None = None

    def deliver(self, project_id: str, count: int) -> None:
        assert self.counting is not None
        self.counting[project_id] = self.counting.get(project_id, 0) + count


def test_nothing_is_counted_before_somebody_asks() -> None:
    source = Source()
    meter = Meter(source)
    assert (source.counting, meter.next_deadline(), meter.rate("p", 5.0), meter.total(5.0)) == (None, None, None, None)
    meter.tick(10.0)
    assert source.counting is None


def test_the_rate_is_that_of_the_last_seconds() -> None:
    source = Source()
    meter = Meter(source)
    meter.ask(100.0)
    source.deliver("p", 20)
    source.deliver("q", 10)
    assert meter.rate("p", 100.0 + LEAST / 2) is None, "too early to say"
    assert (meter.rate("p", 102.0), meter.rate("q", 102.0), meter.rate("r", 102.0)) == (10.0, 5.0, 0.0)
    assert meter.total(102.0) == 15.0
    assert meter.next_deadline() == 100.0 + SPAN
    meter.tick(104.0)
    meter.tick(105.0)
    source.deliver("p", 10)
    assert meter.rate("p", 106.0) == 5.0, "30 in 6 seconds"
    meter.tick(110.0)
    assert meter.rate("p", 111.0) == round(10 / 6, 1), "the first five seconds are forgotten"
    meter.tick(115.0)
    assert meter.rate("p", 116.0) == 0.0


def test_counting_ends_when_nobody_has_asked_for_a_while_and_begins_anew() -> None:
    source = Source()
    meter = Meter(source)
    meter.ask(100.0)
    source.deliver("p", 1000)
    meter.ask(104.0)
    now = 100.0
    while (deadline := meter.next_deadline()) is not None:
        now = deadline
        meter.tick(now)
    assert 104.0 + PATIENCE <= now <= 104.0 + PATIENCE + 2 * SPAN
    assert source.counting is None
    meter.ask(200.0)
    assert meter.rate("p", 202.0) == 0.0
