"""Presence across nodes: each tells the others of its own members, messages may be lost, and a node may fall silent."""

from __future__ import annotations

import itertools
import random

import pytest

from automoderate.core.hub import AccessChanged, CheckAccess, PresenceReport, PresenceShared, PresentUser
from kits.hub_bench import of_type
from kits.hub_cluster import Cluster, Watcher


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def users(watcher: Watcher) -> set[str] | None:
    return None if watcher.users is None else set(watcher.users)


class TestComing:
    def test_who_asks_first_is_told_of_the_users_of_every_node(self, cluster: Cluster) -> None:
        cluster[0].enter("s", "u", presence=False)
        watcher = cluster[1].enter("t", "v")
        cluster.advance(0.4)
        assert watcher.told == [], "what other nodes say is waited for"
        cluster.advance(0.2)
        assert watcher.users == {"u": "U", "v": "V"}
        assert len(watcher.told) == 1

    def test_who_asks_later_is_told_at_once(self, cluster: Cluster) -> None:
        cluster[0].enter("s", "u")
        cluster[1].enter("t", "v")
        cluster.advance(10)
        assert users(cluster[1].enter("t2", "w")) == {"u", "v", "w"}

    def test_those_who_asked_before_are_told_of_a_user_on_a_node_without_members(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster.advance(10)
        cluster[1].enter("t", "v", presence=False)
        cluster.advance(0.1)
        assert users(watcher) == {"u", "v"}
        cluster[1].enter("t2", "w", presence=False)
        cluster.advance(1.1)
        assert users(watcher) == {"u", "v", "w"}

    def test_a_user_of_two_nodes_comes_once_and_leaves_with_the_last_session(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[0].enter("a", "v", presence=False)
        cluster.advance(10)
        cluster[1].enter("b", "v", presence=False)
        cluster.advance(10)
        cluster[0].close("a")
        cluster.advance(10)
        assert users(watcher) == {"u", "v"}
        cluster[1].close("b")
        cluster.advance(5)
        assert users(watcher) == {"u", "v"}
        cluster.advance(0.1)
        assert users(watcher) == {"u"}

    def test_who_asks_again_is_not_told_of_changes_more_often(self, cluster: Cluster) -> None:
        node = cluster[0]
        watcher = node.enter("s", "u")
        cluster.advance(10)
        node.enter("t", "v", presence=False)
        node.grant(node.ask(sid="s", presence=True))
        cluster.advance(0.6)
        node.enter("a", "w", presence=False)
        cluster.advance(5)
        assert users(watcher) == {"u", "v", "w"}
        first, *others = watcher.changes()
        assert all(when >= first + 1 for when in others)

    def test_who_goes_to_another_node_in_time_never_left(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[0].enter("a", "v", presence=False)
        cluster[1].enter("t", "w", presence=False)
        cluster.advance(10)
        before = len(watcher.told)
        cluster[0].close("a")
        cluster.advance(4)
        cluster[1].enter("b", "v", presence=False)
        cluster.advance(60)
        assert len(watcher.told) == before

    def test_the_last_member_of_a_node_leaves(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[1].enter("t", "v", presence=False)
        cluster.advance(10)
        cluster[1].close("t")
        cluster.advance(4.9)
        assert users(watcher) == {"u", "v"}
        cluster.advance(0.2)
        assert users(watcher) == {"u"}

    def test_at_most_one_change_a_second(self) -> None:
        cluster = Cluster(3)
        watcher = cluster[0].enter("s", "u")
        cluster.advance(10)
        for number in range(60):
            cluster[1 + number % 2].enter(f"t{number}", f"v{number}", presence=False)
            cluster.advance(0.1)
        cluster.advance(3)
        assert len(watcher.users or ()) == 61
        times = watcher.changes()
        assert all(later - earlier >= 0.999 for earlier, later in itertools.pairwise(times))


class TestLooking:
    def test_it_is_told_on_every_node(self, cluster: Cluster) -> None:
        here, there = cluster[0].enter("s", "u"), cluster[1].enter("t", "v")
        cluster.advance(10)
        cluster[1].look("t", "c1")
        cluster.advance(1.1)
        assert (here.looking, there.looking) == ({"v": "c1"}, {})
        assert cluster[0].enter("s2", "w").looking == {"v": "c1"}
        cluster[1].look("t", None)
        cluster.advance(1.1)
        assert here.looking == {}

    def test_the_newest_word_counts_and_then_the_other(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[0].enter("a", "v")
        cluster[1].enter("b", "v")
        cluster.advance(10)
        for node, sid, content_id, seen in (
            (0, "a", "c1", "c1"),
            (1, "b", "c2", "c2"),
            (0, "a", "c3", "c3"),
            (0, "a", None, "c2"),
            (1, "b", None, None),
        ):
            cluster[node].look(sid, content_id)
            cluster.advance(2.1)
            assert watcher.looking.get("v") == seen

    def test_one_that_looked_ends_while_the_user_is_on_another_node(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[0].enter("a", "v", presence=False)
        cluster[1].enter("b", "v")
        cluster[1].enter("t", "w", presence=False)
        cluster.advance(10)
        cluster[1].look("b", "c1")
        cluster.advance(2)
        cluster[1].close("b")
        cluster.advance(4.9)
        assert watcher.looking == {"v": "c1"}
        cluster.advance(1.2)
        assert watcher.looking == {}


class TestFaults:
    def test_the_users_of_a_node_that_was_killed_are_gone_within_30_seconds(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[1].enter("t", "v")
        cluster.advance(100)
        assert users(watcher) == {"u", "v"}
        cluster.kill(1)
        cluster.advance(15)
        assert users(watcher) == {"u", "v"}
        cluster.advance(15)
        assert users(watcher) == {"u"}

    def test_who_comes_back_on_another_node_never_left(self) -> None:
        cluster = Cluster(3)
        watcher = cluster[0].enter("s", "u")
        cluster[1].enter("t", "v")
        cluster.advance(100)
        before = len(watcher.told)
        cluster.kill(1)
        cluster.advance(4)
        cluster[2].enter("t", "v")
        cluster.advance(100)
        assert len(watcher.told) == before

    def test_a_node_that_is_no_longer_watched_falls_silent(self, cluster: Cluster) -> None:
        cluster[0].enter("s", "u")
        cluster[1].enter("t", "v", presence=False)
        cluster.advance(100)
        cluster[0].close("s")
        cluster.advance(30)
        cluster.sent.clear()
        cluster[1].enter("t2", "w", presence=False)
        cluster.advance(100)
        assert cluster.sent == []
        assert cluster[1].hub._rooms["p"].presence is None

    def test_nobody_asks_and_all_that_is_said_is_one_word_a_node(self, cluster: Cluster) -> None:
        for number in range(20):
            cluster[number % 2].enter(f"s{number}", f"u{number}", presence=False)
        cluster.advance(100)
        assert [effect.report.present for effect in cluster.sent] == [
            (PresentUser("u0", "U0"),),
            (PresentUser("u1", "U1"),),
        ]

    def test_a_change_that_was_lost_is_noticed_and_asked_for(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[1].enter("t", "v", presence=False)
        cluster.advance(10)
        cluster.lost = True
        cluster[1].enter("t2", "w", presence=False)
        cluster.advance(2)
        cluster.lost = False
        cluster[1].enter("t3", "x", presence=False)
        cluster.advance(2.1)
        assert users(watcher) == {"u", "v", "w", "x"}

    def test_without_another_change_it_is_noticed_too(self, cluster: Cluster) -> None:
        watcher = cluster[0].enter("s", "u")
        cluster[1].enter("t", "v", presence=False)
        cluster.advance(10)
        cluster.lost = True
        cluster[1].enter("t2", "w", presence=False)
        cluster.advance(2)
        cluster.lost = False
        cluster.advance(7)
        assert users(watcher) == {"u", "v", "w"}
        assert [data["left"] for _, event, data in watcher.told if event == "presence_change"] == [[]]

    def test_after_a_long_silence_all_is_as_before(self, cluster: Cluster) -> None:
        here, there = cluster[0].enter("s", "u"), cluster[1].enter("t", "v")
        cluster.advance(10)
        cluster.lost = True
        cluster.advance(40)
        assert (users(here), users(there)) == ({"u"}, {"v"})
        cluster.lost = False
        cluster.advance(10)
        assert users(here) == users(there) == {"u", "v"}

    def test_what_a_node_says_that_nobody_here_may_hear_is_ignored(self, cluster: Cluster) -> None:
        report = PresenceReport("p", 1, None, (PresentUser("x", "X"),), wanted=True)
        node = cluster[0]
        assert node.give(PresenceShared("far", report)) == []
        node.connect("s", "u")
        node.ask(sid="s")
        assert node.give(PresenceShared("far", report)) == []
        assert node.hub._rooms["p"].presence is None

    def test_a_node_that_only_answers_keeps_up_with_one_that_asks_later(self, cluster: Cluster) -> None:
        """What it missed while no client of its own wanted to know is asked for when one does."""
        cluster[0].enter("s", "u")
        cluster[1].enter("t", "v", presence=False)
        cluster.advance(10)
        cluster.lost = True
        cluster[0].enter("s2", "w")
        cluster.advance(2)
        cluster.lost = False
        cluster[0].enter("s3", "x")
        cluster.advance(2)
        watcher = cluster[1].enter("t2", "y")
        cluster.advance(1)
        assert users(watcher) == {"u", "v", "w", "x", "y"}


class Visitor:
    """A user with up to two sessions, who come, ask or do not, change their mind, look at something, move and go."""

    def __init__(self, cluster: Cluster, chance: random.Random, user: str, asking: float) -> None:
        """``asking``: how likely a session is to ask who is there."""
        self.cluster, self.chance, self.user, self.asking = cluster, chance, user, asking
        self.sessions: dict[str, tuple[int, Watcher, bool]] = {}
        self.looking: dict[str, str | None] = {}
        """What each session said last."""
        self.count = 0

    def act(self) -> None:
        sid = self.chance.choice(list(self.sessions)) if self.sessions else None
        if sid is not None and self.has_just_heard(sid) and self.chance.random() < 0.5:
            self.ask_again(sid, asks=True)
            return
        if sid is None or (len(self.sessions) < 2 and self.chance.random() < 0.4):
            self.count += 1
            index, asks = self.chance.randrange(len(self.cluster.nodes)), self.chance.random() < self.asking
            sid = f"{self.user}{self.count}"
            self.sessions[sid] = index, self.cluster[index].enter(sid, self.user, presence=asks), asks
        elif self.chance.random() < 0.4:
            self.cluster[self.sessions.pop(sid)[0]].close(sid)
        elif self.chance.random() < 0.5:
            asks = self.chance.random() < (0.7 if self.sessions[sid][2] else self.asking)
            self.ask_again(sid, asks=asks)
        elif self.chance.random() < 0.3:
            node = self.cluster[self.sessions[sid][0]]
            node.give(AccessChanged(self.user, "p"))
        elif self.sessions[sid][2]:
            self.looking[sid] = self.chance.choice(["c1", "c2", None])
            self.cluster[self.sessions[sid][0]].look(sid, self.looking[sid])

    def has_just_heard(self, sid: str) -> bool:
        changes = self.sessions[sid][1].changes()
        return self.sessions[sid][2] and bool(changes) and self.cluster.now < changes[-1] + 0.5

    def ask_again(self, sid: str, *, asks: bool) -> None:
        index, watcher, _ = self.sessions[sid]
        node = self.cluster[index]
        node.confirm()
        for check in of_type(node.send("join_project", {"project_id": "p", "presence": asks}, sid=sid), CheckAccess):
            node.grant(check)  # there is none while its access is looked up
        if not asks:
            self.looking[sid] = None
            watcher = node.watchers[sid] = Watcher()
        self.sessions[sid] = index, watcher, asks

    def looks(self) -> set[str | None]:
        """What may be known of what the user looks at."""
        found = {self.looking.get(sid) for sid in self.sessions} - {None}
        return found or {None}

    def forget(self, index: int) -> None:
        """A node was killed."""
        self.sessions = {sid: session for sid, session in self.sessions.items() if session[0] != index}


def test_whatever_happens_every_client_ends_up_knowing_who_is_there(seed: int) -> None:
    print(f"seed {seed}: python -m pytest tests/core/test_presence_nodes.py --first-seed {seed} --seeds 1")
    chance = random.Random(seed)
    for _ in range(20):
        cluster = Cluster(3)
        asking, pace = chance.choice((0.2, 0.6)), chance.choice((0.3, 2.0))
        visitors = [Visitor(cluster, chance, f"u{number}", asking) for number in range(chance.choice((3, 6)))]
        for _ in range(150):
            chance.choice(visitors).act()
            if chance.random() < 0.02:
                index = chance.randrange(3)
                cluster.kill(index)
                for visitor in visitors:
                    visitor.forget(index)
            if chance.random() < 0.3:
                chance.choice(cluster.nodes).confirm()
            cluster.lost = chance.random() < 0.1
            cluster.delay = chance.random() * 0.2
            cluster.advance(chance.random() * pace)
        cluster.lost = False
        for _ in range(80):
            cluster.advance(0.5)
            for node in cluster.nodes:
                node.confirm()
        there = {visitor.user for visitor in visitors if visitor.sessions}
        watchers = [session[1] for visitor in visitors for session in visitor.sessions.values() if session[2]]
        assert [users(watcher) for watcher in watchers] == [there] * len(watchers)
        others = [session[1] for visitor in visitors for session in visitor.sessions.values() if not session[2]]
        assert not any(watcher.told for watcher in others), "told without having asked"
        for watcher in watchers:
            for other in visitors:
                sessions = {session[1] for session in other.sessions.values()}
                assert watcher in sessions or watcher.looking.get(other.user) in other.looks()
            times = watcher.changes()
            assert all(later - earlier >= 0.999 for earlier, later in itertools.pairwise(times))
        for visitor in visitors:
            for sid, (index, *_) in list(visitor.sessions.items()):
                cluster[index].close(sid)
        cluster.advance(100)
        assert all(node.hub.counts()["rooms"] == 0 and node.hub.next_deadline() is None for node in cluster.nodes)
