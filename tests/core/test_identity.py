"""Who is connecting, and from where how often."""

from __future__ import annotations

import pytest

from automoderate.core.hub import (
    WINDOW,
    Acknowledge,
    CheckAccess,
    Closed,
    Connected,
    Emit,
    End,
    Ending,
    Error,
    Failed,
    HubError,
    Identified,
    Identity,
    Limits,
    Received,
)
from kits.hub_bench import HubBench, error
from kits.memory import allocated


class TestIdentity:
    def test_a_user_is_welcomed(self, bench: HubBench) -> None:
        assert bench.connect() == [Emit("s", "connected", {"message": "Connected to AutoModerate"})]

    def test_a_stranger_is_told_and_ended_after_the_grace(self, bench: HubBench) -> None:
        assert bench.connect(user=None) == [Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))]
        assert bench.after(0.9) == []
        assert bench.after(0.1) == [End("s", Ending.STAY_AWAY)]
        assert bench.is_empty()

    def test_any_event_in_the_grace_gets_the_same_error(self, bench: HubBench) -> None:
        bench.connect(user=None)
        assert bench.send("join_project", {"project_id": "p"}, ack=1) == [
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED, "p")),
            Acknowledge("s", 1, {"error": error(Error.AUTHENTICATION_REQUIRED)}),
        ]
        assert bench.send("anything") == [Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED))]

    def test_the_grace_does_not_answer_a_flood(self) -> None:
        bench = HubBench(Limits(max_events_per_minute=3))
        bench.connect(user=None)
        assert [len(bench.send("x")) for _ in range(5)] == [1, 1, 1, 0, 0]

    def test_a_stranger_may_leave_within_the_grace(self, bench: HubBench) -> None:
        bench.connect(user=None)
        assert bench.give(Closed("s")) == []
        assert bench.after(5) == []
        assert bench.is_empty()

    def test_events_sent_before_the_answer_are_served_after_it(self, bench: HubBench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert bench.send("join_project", {"project_id": "p"}, ack=3) == []
        assert bench.send("leave_project", {"project_id": "q"}, ack=4) == []
        effects = bench.give(Identified(identify.ticket, Identity("u", "U")))  # type: ignore[union-attr]
        assert effects[0] == Emit("s", "connected", {"message": "Connected to AutoModerate"})
        assert effects[1] == CheckAccess(2, "u", "p")
        assert effects[2:] == [
            Emit("s", "left_project", {"project_id": "q"}),
            Acknowledge("s", 4, {"project_id": "q"}),
        ]

    def test_events_sent_before_the_answer_are_refused_for_a_stranger(self, bench: HubBench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        bench.send("join_project", {"project_id": "p"}, ack=3)
        assert bench.give(Identified(identify.ticket, None)) == [  # type: ignore[union-attr]
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED)),
            Emit("s", "error", error(Error.AUTHENTICATION_REQUIRED, "p")),
            Acknowledge("s", 3, {"error": error(Error.AUTHENTICATION_REQUIRED)}),
        ]

    def test_held_events_are_bounded_and_a_flood_of_them_ends_the_session(self) -> None:
        bench = HubBench(Limits(max_events_per_minute=4))
        (identify,) = bench.give(Connected("s", None, "a"))
        for _ in range(1000):
            assert bench.send("x") == []
        effects = bench.give(Identified(identify.ticket, Identity("u", "U")))  # type: ignore[union-attr]
        assert effects[1:] == [Emit("s", "error", error(Error.RATE_LIMITED))] * 2 + [End("s", Ending.STAY_AWAY)]
        assert bench.is_empty()

    def test_of_a_held_event_that_nobody_handles_the_name_is_not_kept(self, bench: HubBench) -> None:
        bench.give(Connected("s", None, "a"))
        with allocated() as held:
            assert bench.give(Received("s", "x" * 100_000, ())) == []
            assert held() < 50_000

    def test_gone_before_the_answer(self, bench: HubBench) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        assert bench.give(Closed("s")) == []
        assert bench.give(Identified(identify.ticket, Identity("u", "U"))) == []  # type: ignore[union-attr]
        assert bench.is_empty()

    @pytest.mark.parametrize(("fails", "which"), [(True, Error.SERVER_ERROR), (False, Error.TIMEOUT)])
    def test_a_failed_lookup_drops_the_transport_so_that_the_client_returns(
        self, bench: HubBench, fails: bool, which: Error
    ) -> None:
        (identify,) = bench.give(Connected("s", None, "a"))
        bench.send("join_project", {"project_id": "p"})
        failure = bench.give(Failed(identify.ticket)) if fails else bench.after(10)  # type: ignore[union-attr]
        assert failure == [Emit("s", "error", error(which)), Emit("s", "error", error(which, "p"))]
        assert bench.after(1) == [End("s", Ending.COME_BACK)]

    def test_one_sid_connects_once(self, live: HubBench) -> None:
        with pytest.raises(HubError, match="already connected"):
            live.give(Connected("s", None, "a"))


class TestConnectionAttempts:
    def test_more_than_allowed_from_one_address(self) -> None:
        bench = HubBench(Limits(max_connections_per_minute=2))
        bench.connect("a")
        bench.connect("b")
        assert bench.give(Connected("c", None, "10.0.0.1")) == [
            Emit("c", "error", error(Error.TOO_MANY_CONNECTIONS)),
        ]
        bench.connect("d", address="10.0.0.2")
        assert bench.send("x", sid="c") == [Emit("c", "error", error(Error.TOO_MANY_CONNECTIONS))]
        assert bench.after(1) == [End("c", Ending.COME_BACK)]
        bench.after(WINDOW)
        bench.connect("e")

    def test_a_quiet_address_is_forgotten(self) -> None:
        bench = HubBench()
        bench.connect("a")
        bench.now += 30
        bench.connect("b")
        bench.give(Closed("a"))
        bench.give(Closed("b"))
        bench.after(30)
        assert bench.hub.counts()["addresses"] == 1
        bench.after(30)
        assert bench.hub.counts()["addresses"] == 0
        assert bench.hub.next_deadline() is None or bench.after(3600) == []

    def test_an_address_that_was_only_ever_refused_is_forgotten(self) -> None:
        bench = HubBench(Limits(max_connections_per_minute=0))
        bench.give(Connected("a", None, "10.0.0.1"))
        bench.after(WINDOW)
        assert bench.hub.counts()["addresses"] == 0
