from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from automoderate.protocol.timers import Timers
from kits.memory import allocated


def drain(timers: Timers[str], now: float) -> list[str]:
    due = []
    while (owner := timers.pop_due(now)) is not None:
        due.append(owner)
    return due


def test_due_owners_come_in_the_order_of_their_deadlines() -> None:
    timers: Timers[str] = Timers()
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    timers.set("middle", 2.0)
    assert timers.next() == 1.0
    assert drain(timers, 2.0) == ["early", "middle"]
    assert drain(timers, 3.0) == ["late"]
    assert timers.next() is None


def test_a_deadline_moves_both_ways() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 5.0)
    timers.set("a", 1.0)
    assert drain(timers, 1.0) == ["a"]
    assert drain(timers, 5.0) == []
    timers.set("a", 6.0)
    timers.set("a", 9.0)
    assert drain(timers, 6.0) == []
    assert timers.next() == 9.0
    assert drain(timers, 9.0) == ["a"]


def test_a_cancelled_deadline_does_not_come() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.cancel("a")
    timers.cancel("a")
    assert drain(timers, 1.0) == []


def test_cancelled_entries_do_not_pile_up() -> None:
    timers: Timers[str] = Timers()
    with allocated() as held:
        for number in range(10_000):
            timers.set(f"{number:01000}", 100.0 + number)
            timers.cancel(f"{number:01000}")
        assert held() < 100 * 1100, "of 10,000 owners, each a thousand bytes"
    timers.set("kept", 1.0)
    assert drain(timers, 1.0) == ["kept"]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["set", "cancel", "advance"]), st.sampled_from("abc"), st.integers(0, 9)), max_size=60
)


@settings(print_blob=True, derandomize=True)
@given(ACTIONS)
def test_it_agrees_with_a_plain_table(actions: list[tuple[str, str, int]]) -> None:
    timers: Timers[str] = Timers()
    table: dict[str, float] = {}
    now = 0.0
    for action, owner, amount in actions:
        if action == "set":
            timers.set(owner, now + amount)
            table[owner] = now + amount
        elif action == "cancel":
            timers.cancel(owner)
            table.pop(owner, None)
        else:
            now += amount
            due = drain(timers, now)
            assert sorted(due) == sorted(name for name, deadline in table.items() if deadline <= now)
            table = {name: deadline for name, deadline in table.items() if deadline > now}
        upcoming = timers.next()
        if table:
            assert upcoming is not None
            assert upcoming <= min(table.values())
