"""The in-memory backplane: numbering, catching up, and never a silent gap where something was forgotten."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from automoderate.backplane import Backplane, History, Update
from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import LoggedOut, parse_event_id
from automoderate.server.interfaces import Heard, NotRunning

P = "project"


class Wall:
    """A wall clock that a test sets."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


def text(length: int) -> str:
    """Data of about so many bytes."""
    return '{"text":"' + "x" * length + '"}'


def ids(history: History) -> list[str]:
    return [update.event_id for update in history.updates]


def test_it_is_a_backplane(wall: Wall) -> None:
    backplane: Backplane = MemoryBackplane(wall=wall)
    assert backplane.hearing


def test_an_update_is_numbered_by_time_and_sequence(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    first = backplane.publish(P, "stats_update", '{"total":1}')
    wall.seconds = 1000.0071
    second = backplane.publish(P, "stats_update", "{}")
    third = backplane.publish(P, "stats_update", "{}")
    other = backplane.publish("another", "stats_update", "{}")
    assert first.event_id == "1000000-1"  # 1000000-0 is where the history began
    assert [second.event_id, third.event_id, other.event_id] == ["1000007-0", "1000007-1", "1000007-0"]
    assert first == Update(P, "stats_update", '{"total":1,"event_id":"1000000-1"}', "1000000-1")
    assert first.data == {"total": 1, "event_id": "1000000-1"}


def test_ids_rise_though_the_clock_steps_back(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    issued = []
    for seconds in (1000.0, 1005.0, 990.0, 3.0, 1005.001, 0.0):
        wall.seconds = seconds
        issued.append(parse_event_id(backplane.publish(P, "stats_update", "{}").event_id))
    assert None not in issued
    assert issued == sorted(set(issued), key=lambda event_id: event_id or (0, 0))
    assert issued[-1] == (1_005_001, 1)


def test_a_clock_before_1970_counts_as_1970() -> None:
    assert MemoryBackplane(wall=lambda: -5.0).publish(P, "stats_update", "{}").event_id == "0-1"


def test_it_has_no_other_nodes_to_hear_or_to_tell(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    told: list[object] = []

    def receive(items: Sequence[Heard]) -> Future[None]:
        told.extend(items)
        return Future()

    backplane.start(receive)
    backplane.follow(P)
    backplane.publish(P, "stats_update", "{}")
    assert backplane.hearing
    backplane.announce(LoggedOut("alice"))
    assert backplane.ask("{}") is None  # type: ignore[func-returns-value]
    backplane.answer("x", "{}")
    assert backplane.stats() == {}
    backplane.unfollow(P)
    backplane.close()
    assert told == []


def test_what_would_be_lost_with_the_process_is_refused_while_it_leaves(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    last = backplane.publish(P, "stats_update", "{}").event_id
    backplane.drain()
    with pytest.raises(NotRunning):
        backplane.publish(P, "stats_update", "{}")
    assert backplane.read(P, None).last_event_id == last


def test_catching_up_gets_what_was_missed_in_order(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    issued = [backplane.publish(P, "stats_update", f'{{"n":{n}}}').event_id for n in range(5)]
    for index, event_id in enumerate(issued):
        assert backplane.read(P, event_id) == History(
            tuple(backplane.read(P, "1000000-0").updates[index + 1 :]), True, issued[-1]
        )
        assert ids(backplane.read(P, event_id)) == issued[index + 1 :]


def test_without_an_id_only_the_position_is_told(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    assert backplane.read(P, None) == History((), True, "1000000-0")
    backplane.publish(P, "stats_update", "{}")
    assert backplane.read(P, None) == History((), True, "1000000-1")


@pytest.mark.parametrize(("newest", "expected"), [(0, []), (1, [4]), (3, [2, 3, 4]), (200, [0, 1, 2, 3, 4])])
def test_without_an_id_the_newest_are_told_oldest_first(wall: Wall, newest: int, expected: list[int]) -> None:
    backplane = MemoryBackplane(wall=wall)
    updates = [backplane.publish(P, "stats_update", f'{{"n":{n}}}') for n in range(5)]
    history = backplane.read(P, None, newest)
    assert history == History(tuple(updates[number] for number in expected), True, updates[-1].event_id)
    assert backplane.read("never published", None, newest).updates == ()


@pytest.mark.parametrize(
    ("before", "newest", "expected"),
    [
        ("1000000-3", 2, [0, 1]),
        ("1000000-4", 2, [1, 2]),
        ("1000000-4", 200, [0, 1, 2]),
        ("1000000-1", 5, []),
        ("999999-9", 5, []),
        ("0-0", 5, []),
        ("none", 5, []),
        ("1000000-3", 0, []),
        ("1000002-0", 2, [2, 3]),  # between two ids: it need not be one
        ("2000000-0", 2, [3, 4]),
    ],
)
def test_of_those_before_an_id_the_newest_are_told_oldest_first(
    wall: Wall, before: str, newest: int, expected: list[int]
) -> None:
    backplane = MemoryBackplane(wall=wall)
    updates = [backplane.publish(P, "stats_update", f'{{"n":{n}}}') for n in range(4)]
    wall.seconds += 5
    updates.append(backplane.publish(P, "stats_update", '{"n":4}'))
    history = backplane.read(P, None, newest, before)
    assert history == History(tuple(updates[number] for number in expected), True, updates[-1].event_id)
    assert backplane.read("never published", None, newest, before).updates == ()


def test_of_the_newest_none_is_told_that_is_too_old(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall, max_age=60)
    backplane.publish(P, "stats_update", "{}")
    wall.seconds += 50
    young = backplane.publish(P, "stats_update", "{}")
    wall.seconds += 20
    assert backplane.read(P, None, 5).updates == (young,)


def test_a_client_that_saw_nothing_yet_gets_everything(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall)
    begin = backplane.read(P, None).last_event_id
    wall.seconds += 60
    update = backplane.publish(P, "stats_update", "{}")
    assert backplane.read(P, begin) == History((update,), True, update.event_id)


@pytest.mark.parametrize("after", ["999999-7", "1000000-2", "1000001-0", "0-0", f"{2**64 - 1}-0"])
def test_an_id_never_issued_here_is_a_gap(wall: Wall, after: str) -> None:
    backplane = MemoryBackplane(wall=wall)
    backplane.publish(P, "stats_update", "{}")
    wall.seconds += 5
    last = backplane.publish(P, "stats_update", "{}").event_id
    assert backplane.read(P, after) == History((), False, last)
    assert backplane.read("never published", after) == History((), False, "1000000-0")


MALFORMED = ["", "-", "1", "1-", "-1", "1-2-3", "a-b", " 1-2", "1-2\n", "+1-2", "1_0-2", "١-٢", "1²-0"]
MALFORMED += ["1" * 40 + "-1", f"{2**64}-0", f"1-{2**64}"]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_id_is_a_gap(wall: Wall, text: str) -> None:
    assert parse_event_id(text) is None
    backplane = MemoryBackplane(wall=wall)
    assert not backplane.read(P, text).complete


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("0-0", (0, 0)), ("1768473000000-12", (1768473000000, 12)), (f"{2**64 - 1}-{2**64 - 1}", (2**64 - 1, 2**64 - 1))],
)
def test_an_id_is_two_numbers(text: str, parsed: tuple[int, int]) -> None:
    assert parse_event_id(text) == parsed


def test_what_was_trimmed_by_number_is_a_gap(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall, entries=3)
    issued = [backplane.publish(P, "stats_update", "{}").event_id for _ in range(5)]
    assert not backplane.read(P, "1000000-0").complete
    assert not backplane.read(P, issued[0]).complete
    assert ids(backplane.read(P, issued[1])) == issued[2:]  # the last one dropped
    assert ids(backplane.read(P, issued[2])) == issued[3:]


def test_what_was_trimmed_by_size_is_a_gap(wall: Wall) -> None:
    """Two updates of about 400 bytes fit; a third pushes the oldest out, and one that is too large itself, all."""
    backplane = MemoryBackplane(wall=wall, max_bytes=1000)
    first, second, third = (backplane.publish(P, "stats_update", text(400)) for _ in range(3))
    assert ids(backplane.read(P, first.event_id)) == [second.event_id, third.event_id]
    assert not backplane.read(P, "1000000-0").complete
    large = backplane.publish(P, "stats_update", text(2000))
    assert not backplane.read(P, third.event_id).complete
    assert backplane.read(P, large.event_id) == History((), True, large.event_id)


def test_what_was_trimmed_by_age_is_a_gap(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall, max_age=60.0)
    issued = []
    for _ in range(4):
        wall.seconds += 20
        issued.append(backplane.publish(P, "stats_update", "{}").event_id)
    wall.seconds += 25
    assert not backplane.read(P, issued[0]).complete
    assert ids(backplane.read(P, issued[1])) == issued[2:]
    wall.seconds += 1000
    assert backplane.read(P, issued[-1]) == History((), True, issued[-1])
    assert backplane.read(P, issued[-2]) == History((), False, issued[-1])


def test_the_least_recently_published_project_is_forgotten(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall, max_projects=2)
    unpublished = backplane.read("c", None).last_event_id
    old_a = backplane.publish("a", "stats_update", "{}").event_id
    wall.seconds += 10
    new_a = backplane.publish("a", "stats_update", "{}").event_id
    wall.seconds += 10
    old_b = backplane.publish("b", "stats_update", "{}").event_id
    backplane.publish("a", "stats_update", "{}")
    wall.seconds += 10
    backplane.publish("c", "stats_update", "{}")  # forgets b
    assert ids(backplane.read("a", new_a)) != []
    assert backplane.read("c", unpublished).complete
    assert backplane.read("b", unpublished) == History((), False, old_b)
    wall.seconds += 10
    backplane.publish("b", "stats_update", "{}")  # forgets a
    for event_id in (old_a, new_a, unpublished):
        assert not backplane.read("a", event_id).complete


def test_all_projects_together_are_bounded_in_bytes(wall: Wall) -> None:
    """Five updates of about 400 bytes fit; the sixth pushes out the project that published longest ago."""
    backplane = MemoryBackplane(wall=wall, max_total_bytes=2200)
    issued: dict[str, list[str]] = {"a": [], "b": []}
    for project in "aabbb":
        issued[project].append(backplane.publish(project, "stats_update", text(400)).event_id)
        wall.seconds += 10
    assert ids(backplane.read("a", issued["a"][0])) == issued["a"][1:]
    issued["b"].append(backplane.publish("b", "stats_update", text(400)).event_id)
    assert not backplane.read("a", issued["a"][0]).complete
    assert ids(backplane.read("b", issued["b"][0])) == issued["b"][1:]


def test_whoever_is_publishing_is_forgotten_last(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall, max_total_bytes=1500)
    first = backplane.publish("a", "stats_update", text(400)).event_id
    other = backplane.publish("b", "stats_update", text(400)).event_id
    published = [backplane.publish("a", "stats_update", text(400)).event_id for _ in range(2)]
    assert ids(backplane.read("a", first)) == published
    assert not backplane.read("b", "1000000-0").complete
    assert backplane.read("b", None).last_event_id == other


def test_a_forgotten_project_publishes_on_without_a_silent_gap() -> None:
    """However many projects are forgotten, an id either leads to exactly what followed it or is refused."""
    seed = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"TEST_SEED={seed}")
    chance = random.Random(seed)
    wall = Wall()
    backplane = MemoryBackplane(wall=wall, entries=4, max_age=30.0, max_projects=3)
    published: dict[str, list[str]] = {name: [] for name in "abcdef"}
    held: list[tuple[str, str, int]] = []  # project, position a client was told, how many it had seen
    told = {True: 0, False: 0}
    for _ in range(3000):
        wall.seconds += chance.choice((0, 0, 0.001, 0.5, 5, -3))
        project = chance.choice("abcdef")
        if chance.random() < 0.6:
            published[project].append(backplane.publish(project, "stats_update", "{}").event_id)
        held.append((project, backplane.read(project, None).last_event_id, len(published[project])))
        name, position, seen = chance.choice(held[-40:])
        history = backplane.read(name, position)
        told[history.complete] += 1
        assert ids(history) == (published[name][seen:] if history.complete else [])
        assert history.last_event_id == backplane.read(name, None).last_event_id
        assert len(history.updates) <= 4
        if published[project]:
            numbers = [parse_event_id(event_id) or (0, 0) for event_id in published[project][-2:]]
            assert numbers == sorted(set(numbers))
    assert told[True] > 300
    assert told[False] > 300


def test_silent_projects_give_their_memory_back(wall: Wall) -> None:
    backplane = MemoryBackplane(wall=wall, max_age=60.0)
    last = backplane.publish("silent", "stats_update", "{}").event_id
    wall.seconds += 61
    backplane.publish(P, "stats_update", "{}")
    assert not backplane.read("silent", "999999-0").complete
    assert backplane.read("silent", None).last_event_id == last


@pytest.mark.parametrize("bound", [{"entries": 0}, {"max_projects": 0}])
def test_bounds_must_leave_room_for_something(bound: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        MemoryBackplane(entries=bound.get("entries", 1), max_projects=bound.get("max_projects", 1))
    with pytest.raises(ValueError, match="must be positive"):
        MemoryBackplane(max_age=0)
