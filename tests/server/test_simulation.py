"""Two hundred clients, four projects and everything that can go wrong, in virtual time, from one seed.

What must hold whatever happens: no update to somebody who may not see it, from the moment on that this was announced.
None twice, none out of order, none lost to a client that catches up or is told that it could not, none that a client
did not choose, also where it joins again and chooses anew, and nothing left behind.

``python -m pytest tests/server/test_simulation.py --first-seed 17 --seeds 1`` runs one seed again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from attrs import define, evolve, field, frozen

from automoderate.core.hub import Limits, parse_event_id
from automoderate.server import outbound
from automoderate.testing import Faults, ReceivedEvent, SimulatedClient, Simulation, TransportName

CLIENTS = 200
PROJECTS = ("red", "green", "blue", "a 'quoted' ünï¢ode project")
SECONDS = 40.0
LIMITS = Limits(
    max_connections_per_minute=100_000, max_events_per_minute=1_000, check_timeout=3.0, recheck_interval=10.0
)
FAULTS = Faults(max_delay=0.3, cut=0.3, max_job_time=0.8, job_failure=0.05)
NOTICE = LIMITS.recheck_interval + 40.0
"""Seconds after which somebody who lost access must have been told, failed re-checks included."""
HISTORY = 50
"""How many updates of each project are kept."""
STATUSES = ("approved", "rejected", "flagged", "pending")
CHOICES: tuple[tuple[str, ...] | None, ...] = (None, None, None, ("flagged",), ("pending", "flagged"), ("approved",))
"""What followers ask for; None: all statuses."""


def status_of(number: int) -> str:
    """The status of an update of that number."""
    return STATUSES[number % len(STATUSES)]


@pytest.fixture(autouse=True)
def _small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few writes a turn that rooms of fifty are served in three slices, between which everything else goes on."""
    monkeypatch.setattr(outbound, "WRITES_PER_TURN", 24)


@frozen
class Wish:
    """What a client asks for when it joins."""

    statuses: tuple[str, ...] | None = None
    recent: int = 0
    """How many it asks for when it does not say where it stopped."""
    presence: bool = False
    """Whether it asks who is in the room."""
    after: int | None = None
    """The number of the update at which it says that it stopped."""

    def chosen(self, numbers: Iterable[int]) -> list[int]:
        """Those of the updates that are to be sent to whoever joined so."""
        return [number for number in numbers if self.statuses is None or status_of(number) in self.statuses]


@define(eq=False)
class Follower:
    """A client that comes back whenever it is cut off, says where it stopped, and joins again when it likes."""

    world: World
    user_id: str | None
    project_id: str
    transport: TransportName
    wish: Wish
    """What counts: that with which it joined, or will."""
    asked: Wish | None = None
    """That of the join which is not answered yet."""
    replayed: list[int] = field(factory=list)
    """What it was sent that belongs to the answer of that join."""
    given: set[int] = field(factory=set)
    """What it was sent since it is in the room."""
    users: set[str] | None = None
    """Who is there, as far as it was told."""
    client: SimulatedClient | None = None
    wants: bool = True
    """Whether it means to be in the room."""
    in_room: bool = False
    last_event_id: str | None = None
    last_number: int | None = None
    """The newest update that it has, or that precedes those it has; None: any may come next."""
    got: int = 0

    def start(self) -> None:
        simulation = self.world.simulation
        self.in_room = False
        self.asked, self.users = None, None
        self.given.clear()
        self.client = simulation.connect(self.user_id, transport=self.transport, run=False)
        self.client.on_event = self.on_event

    def join(self) -> None:
        """Join with what it wished for last, and say where it stopped."""
        known = None if self.last_event_id is None else self.world.number_of(self.project_id, self.last_event_id)
        self.send_join(evolve(self.wish, after=known), self.last_event_id)

    def join_again(self) -> None:
        """Join, as a member, with other wishes."""
        chance, ids = self.world.chance, self.world.ids[self.project_id]
        if self.client is not None and self.client.connected and self.in_room and self.asked is None and ids:
            wish = Wish(chance.choice(CHOICES), chance.choice((0, 1, 5, 200)), chance.random() < 0.5)
            after = max(0, len(ids) - 1 - chance.randrange(12)) if chance.random() < 0.5 else None
            self.send_join(evolve(wish, after=after), None if after is None else ids[after])

    def send_join(self, wish: Wish, last_event_id: str | None) -> None:
        assert self.client is not None
        payload: dict[str, Any] = {"project_id": self.project_id}
        if last_event_id is not None:
            payload["last_event_id"] = last_event_id
        elif wish.recent:
            payload["recent"] = wish.recent
        if wish.statuses is not None:
            payload["statuses"] = wish.statuses
        if wish.presence:
            payload["presence"] = True
        self.asked = wish
        self.replayed.clear()
        self.client.emit("join_project", payload, ack=lambda answer: self.on_answer(wish, answer))

    def on_answer(self, wish: Wish, answer: dict[str, Any]) -> None:
        """A join was answered. What it was told of losing access may have been said before that join was heard."""
        if self.asked is wish:
            assert "room" not in answer, "acknowledged without having joined"
            self.asked = None

    def on_event(self, item: ReceivedEvent) -> None:
        if item.event == "connected":
            if self.wants and self.asked is None:
                self.join()
        elif item.event == "joined_project":
            self.on_joined(item.data)
        elif item.event == "left_project":
            self.forget()
        elif item.event == "error":
            self.on_error(item.data)
        elif item.event == "moderation_update":
            self.on_update(item.data)
        elif item.event == "presence_state":
            assert self.wish.presence
            self.users = {user["user_id"] for user in item.data["users"]}
        elif item.event == "presence_change":
            self.on_presence(item.data)

    def on_presence(self, data: dict[str, Any]) -> None:
        assert self.users is not None, "a change came before the state"
        joined, left = ({user["user_id"] for user in data[key]} for key in ("joined", "left"))
        assert not joined & self.users
        assert left <= self.users
        self.users = (self.users | joined) - left

    def on_joined(self, data: dict[str, Any]) -> None:
        assert self.wants, "joined after it left"
        assert self.asked is not None
        wish, self.asked = self.asked, None
        number = self.world.number_of(self.project_id, data["last_event_id"])
        recovered = data.get("recovered")
        assert (recovered is None) == (wish.after is None)
        if self.in_room:
            self.expect_none_between(number + 1, self.wish)
        kept = self.world.kept(self.project_id, number, wish.recent) if wish.after is None else []
        if recovered and not self.in_room:
            assert wish.after is not None
            kept = list(range(wish.after + 1, number + 1))
        assert self.replayed == wish.chosen(kept), f"{self} was not sent what it asked for"
        self.given.update(self.replayed)
        self.replayed.clear()
        if recovered:
            assert wish.after is not None
            missed = set(wish.chosen(range(wish.after + 1, number + 1))) - self.given
            assert not missed, f"{self} was told that it has everything after {wish.after}, but has not {missed}"
        self.wish, self.users = evolve(wish, after=None), None
        self.last_number = number
        self.last_event_id = data["last_event_id"]
        self.in_room = True

    def on_error(self, data: dict[str, Any]) -> None:
        if data["code"] in ("access_denied", "project_not_found"):
            self.forget()
        elif data["code"] in ("timeout", "server_error") and data.get("project_id"):
            assert not self.replayed
            if self.wants:
                self.world.later(1.0, self.try_again)

    def try_again(self) -> None:
        may = self.client is not None and self.client.connected and self.asked is None
        if may and self.wants and not self.in_room:
            self.join()

    def forget(self) -> None:
        """Out of the room for good: what comes next is no continuation."""
        self.in_room = False
        self.last_event_id = self.last_number = None
        self.given.clear()
        self.replayed.clear()

    def on_update(self, data: dict[str, Any]) -> None:
        assert data["project_id"] == self.project_id
        number = data["n"]
        assert self.wants, f"{self} received an update after it left"
        self.world.check_may_see(self, number)
        self.got += 1
        if self.in_room and not self.replayed and self.follows(number):
            self.last_number, self.last_event_id = number, data["event_id"]
            self.given.add(number)
            return
        assert self.asked is not None, f"{self} was sent {number} after {self.last_number}"
        self.replayed.append(number)
        if not self.in_room:
            if self.asked.after is not None or len(self.replayed) > 1:
                self.expect_none_between(number, self.asked)
            self.last_number, self.last_event_id = number, data["event_id"]

    def follows(self, number: int) -> bool:
        """Whether it chose this update, and all that it chose between the newest it has and this one are there."""
        assert self.last_number is not None
        return self.wish.chosen(range(self.last_number + 1, number + 1)) == [number]

    def expect_none_between(self, number: int, wish: Wish) -> None:
        """Nothing that it chose was missed between the newest it has and this one, which is newer."""
        if self.last_number is not None:
            assert number > self.last_number, f"{self}: {number} came after {self.last_number}"
            missed = wish.chosen(range(self.last_number + 1, number))
            assert not missed, f"{self}: {number} came after {self.last_number}"

    def leave(self) -> None:
        if self.client is not None and self.client.connected:
            self.wants = False
            self.client.emit("leave_project", {"project_id": self.project_id})
            self.forget()
            # Whatever was on its way when it asked to leave may still arrive: a new session starts clean.
            self.client.on_event = lambda _: None
            self.client.cut()

    def __str__(self) -> str:
        return f"{self.user_id or 'nobody'} in {self.project_id} over {self.transport}"


@define(eq=False)
class World:
    """The simulation, its followers, and the truth they are checked against."""

    simulation: Simulation
    chance: random.Random
    followers: list[Follower] = field(factory=list)
    published: dict[str, list[float]] = field(factory=lambda: {project_id: [] for project_id in PROJECTS})
    """When each update of each project was published: update ``n`` is the n-th entry."""
    ids: dict[str, list[str]] = field(factory=lambda: {project_id: [] for project_id in PROJECTS})
    """The event id of each update of each project."""
    oldest: dict[str, int] = field(factory=lambda: dict.fromkeys(PROJECTS, 0))
    """The number of the oldest update of each project that is newer than the server."""
    numbers: dict[tuple[str, str], int] = field(factory=dict)
    """That of each update, by its project and event id."""
    lost_access: dict[tuple[str, str], float] = field(factory=dict)
    """Since when a user may not see a project it once could."""
    announced: dict[tuple[str, str], float] = field(factory=dict)
    """When that was announced, if it was."""
    turbulent: bool = True
    over: bool = False

    def later(self, seconds: float, act: Any) -> None:
        self.simulation.at(self.simulation.now + seconds, act)

    def populate(self) -> None:
        directory = self.simulation.directory
        for number in range(40):
            directory.add_user(f"u{number}", active=number % 13 != 12)
        for number, project_id in enumerate(PROJECTS):
            members = [f"u{n}" for n in range(40) if self.chance.random() < 0.5]
            directory.add_project(project_id, owner=f"u{number}", members=members)
        for number in range(CLIENTS):
            user_id = None if number % 20 == 19 else f"u{self.chance.randrange(40)}"
            transport: TransportName = ("websocket", "polling", "upgrade")[number % 3]
            project_id, statuses = self.chance.choice(PROJECTS), self.chance.choice(CHOICES)
            recent = self.chance.choice((0, 0, 1, 5, 200))
            presence = self.chance.random() < 0.5
            wish = Wish(statuses, recent, presence)
            self.followers.append(Follower(self, user_id, project_id, transport, wish))

    def may_see(self, user_id: str | None, project_id: str) -> bool:
        directory = self.simulation.directory
        return bool(directory.users.get(user_id or "")) and user_id in directory.projects[project_id]

    def check_may_see(self, follower: Follower, number: int) -> None:
        key = (follower.user_id or "", follower.project_id)
        if not self.may_see(*key):
            assert key in self.lost_access, f"{follower} was never allowed to see this"
            published = self.published[follower.project_id][number]
            assert published <= self.lost_access[key] + NOTICE, f"{follower} still sees updates"
            assert published <= self.announced.get(key, published), f"{follower} sees what came after the announcement"

    def number_of(self, project_id: str, event_id: str) -> int:
        """The number of an update, or what precedes the next one's: where a history begins that knows none."""
        known = self.numbers.get((project_id, event_id))
        if known is not None:
            return known
        place = parse_event_id(event_id)
        assert place is not None
        older = [
            number
            for (project, other), number in self.numbers.items()
            if project == project_id and (parse_event_id(other) or place) <= place
        ]
        return max(older, default=-1)

    def kept(self, project_id: str, last: int, count: int) -> list[int]:
        """The numbers of the newest updates that are kept when that one is the last; at most so many."""
        return list(range(max(self.oldest[project_id], last + 1 - min(count, HISTORY)), last + 1))

    # What happens

    def begin(self) -> None:
        for follower in self.followers:
            self.later(self.chance.random() * 3.0, follower.start)
        self.later(0.1, self.publish)
        self.later(1.0, self.trouble)
        self.later(0.5, self.revive)

    def publish(self) -> None:
        project_id = self.chance.choice(PROJECTS)
        self.publish_to(project_id)
        if self.turbulent:
            self.later(self.chance.random() * 0.3, self.publish)

    def publish_to(self, project_id: str) -> None:
        numbers = self.published[project_id]
        number = len(numbers)
        data = {"project_id": project_id, "n": number, "status": status_of(number)}
        numbers.append(self.simulation.now)
        event_id = self.simulation.publish(project_id, "moderation_update", data)
        self.numbers[project_id, event_id] = number
        self.ids[project_id].append(event_id)

    def revive(self) -> None:
        """Clients whose session ended come back, as the reference client does."""
        for follower in self.followers:
            ended = follower.client is not None and follower.client.ended is not None
            if ended and not self.over and (follower.wants or self.chance.random() < 0.2):
                follower.wants = True
                follower.start()
        if not self.over:
            self.later(0.5 + self.chance.random(), self.revive)

    def trouble(self) -> None:
        doing = (self.cut, self.cut, self.stall, self.leave, self.change_access, self.change_access)
        what = self.chance.choice((*doing, *[self.join_again] * 6))
        what(self.chance.choice(self.followers))
        if self.chance.random() < 0.005:
            self.simulation.restart()
            self.oldest = {project_id: len(numbers) for project_id, numbers in self.published.items()}
        if self.turbulent:
            self.later(self.chance.random() * 0.1, self.trouble)

    def cut(self, follower: Follower) -> None:
        if follower.client is not None:
            follower.client.cut()

    def stall(self, follower: Follower) -> None:
        if follower.client is not None:
            follower.client.stall()
            self.later(self.chance.random() * 10.0, follower.client.resume)

    def leave(self, follower: Follower) -> None:
        follower.leave()

    def join_again(self, _follower: Follower) -> None:
        members = [follower for follower in self.followers if follower.in_room]
        for follower in self.chance.sample(members, min(2, len(members))):
            follower.join_again()
            if self.chance.random() < 0.3:
                self.later(self.chance.random(), lambda follower=follower: self.doubt(follower))

    def doubt(self, follower: Follower) -> None:
        """Announce that access may have changed, which it has not, while a member joins again."""
        self.simulation.access_changed(user_id=follower.user_id, project_id=follower.project_id)
        self.later(self.chance.random(), follower.join_again)

    def change_access(self, follower: Follower) -> None:
        if follower.user_id is None:
            return
        directory, key = self.simulation.directory, (follower.user_id, follower.project_id)
        members = directory.projects[follower.project_id]
        if follower.user_id in members:
            members.discard(follower.user_id)
            self.lost_access[key] = self.simulation.now
        else:
            members.add(follower.user_id)
            self.lost_access.pop(key, None)
        self.announced.pop(key, None)
        if self.chance.random() < 0.5:
            self.announced[key] = self.simulation.now
            self.simulation.access_changed(user_id=follower.user_id, project_id=follower.project_id)

    def calm_down(self) -> None:
        """No more trouble: everybody finds the way back in, or is told why not."""
        self.turbulent = False
        self.simulation.faults = Faults(max_delay=0.01)
        for follower in self.followers:
            if follower.client is not None:
                follower.client.resume()
        self.simulation.advance(2 * NOTICE)
        for follower in self.followers:
            follower.wants = True
            if follower.client is not None and follower.client.connected and not follower.in_room:
                follower.join()
        self.simulation.advance(5.0)


def test_the_contract_holds_whatever_happens(seed: int) -> None:
    print(f"seed {seed}: python -m pytest tests/server/test_simulation.py --first-seed {seed} --seeds 1")
    window = 0.0 if seed % 2 else 0.05
    simulation = Simulation(seed=seed, faults=FAULTS, limits=LIMITS, history=HISTORY, window=window)
    world = World(simulation, random.Random(seed + 1_000_000))
    world.populate()
    world.begin()
    simulation.advance(SECONDS)
    world.calm_down()
    for project_id in PROJECTS:
        for _ in STATUSES:
            world.publish_to(project_id)
    simulation.advance(30.0)

    inside = [follower for follower in world.followers if world.may_see(follower.user_id, follower.project_id)]
    assert len(inside) > CLIENTS // 8, "a run that lets hardly anybody in says nothing"
    for follower in inside:
        assert follower.last_number is not None
        follower.expect_none_between(len(world.published[follower.project_id]), follower.wish)
        if follower.wish.presence:
            there = {other.user_id for other in inside if other.project_id == follower.project_id}
            assert follower.users == there, f"{follower} knows of others"
    assert sum(follower.got for follower in world.followers) > CLIENTS, "hardly anything was delivered"

    world.over = True
    for follower in world.followers:
        follower.wants = False
        if follower.client is not None:
            follower.client.cut()
    simulation.advance(120.0)
    stats = simulation.server.stats()
    assert {name: stats[name] for name in ("sessions", "users", "rooms", "memberships", "jobs")} == {
        "sessions": 0, "users": 0, "rooms": 0, "memberships": 0, "jobs": 0,
    }  # fmt: skip
