"""What a seed decides, it decides again."""

from __future__ import annotations

import itertools

from kits.soak.plan import BUSY_PROJECTS, CLIENTS, DECK, NODES, PROJECTS, STRANGERS, draw

SECONDS = 120.0


def test_a_seed_gives_the_same_plan_again_and_another_gives_another() -> None:
    assert draw(1, SECONDS) == draw(1, SECONDS)
    assert draw(1, SECONDS).faults != draw(2, SECONDS).faults
    assert draw(1, SECONDS).chance("anything").random() == draw(1, SECONDS).chance("anything").random()


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short, long = draw(3, 20.0), draw(3, SECONDS)
    assert short.clients == long.clients
    assert short.faults == long.faults[: len(short.faults)]


def test_two_minutes_have_faults_of_every_kind_in_time() -> None:
    for seed in range(20):
        faults = draw(seed, SECONDS).faults
        assert {fault.kind for fault in faults} == set(DECK)
        assert all(earlier.at < later.at < SECONDS for earlier, later in itertools.pairwise(faults))


def test_every_run_has_clients_of_every_kind_two_runtimes_and_non_members() -> None:
    for seed in range(20):
        plan = draw(seed, SECONDS)
        assert len(plan.clients) == CLIENTS
        assert [sum(client.kind == kind for client in plan.clients) for kind in ("stalled", "flapping")] == [20, 20]
        assert {client.transport for client in plan.clients} == {"websocket", "polling", "upgrade"}
        assert len(set(plan.adapters.values())) == len(NODES)
        strangers = set(plan.users[-STRANGERS:])
        assert any(client.user in strangers for client in plan.clients)
        assert all(not strangers & plan.members[project] for project in PROJECTS)
        asked_in_vain = [
            client for client in plan.clients for project in client.projects if client.user not in plan.members[project]
        ]
        assert 10 < len(asked_in_vain) < CLIENTS / 2


def test_nobody_is_removed_twice_or_from_where_they_are_not_and_most_members_stay() -> None:
    for seed in range(20):
        plan = draw(seed, 3600.0)
        removed = [(fault.target, fault.user) for fault in plan.faults if fault.kind == "member removed"]
        assert len(set(removed)) == len(removed) > 0
        assert all(user in plan.members[project] for project, user in removed)
        for project in BUSY_PROJECTS:
            assert sum(where == project for where, _ in removed) <= len(plan.members[project]) / 3


def test_a_fault_says_what_it_is() -> None:
    faults = draw(4, SECONDS).faults
    for fault in faults:
        assert str(fault).startswith(fault.kind)
    assert any(str(fault).endswith(" s") for fault in faults if fault.kind == "redis paused")
