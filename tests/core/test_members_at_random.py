"""Members that join again and again, each time with other wishes, while everything around them comes late or fails.

One hub is played against a stream of updates that it hears of late, and against a directory and a history that answer
late, in any order, or not at all. Whatever happens, each member is sent exactly what its joins ask for.

``python -m pytest tests/core/test_members_at_random.py --first-seed 17 --seeds 1`` runs one seed again.
"""

from __future__ import annotations

import random
from typing import Any

from attrs import define, field, frozen

from automoderate.core.hub import (
    EVENTS_WITH_STATUS,
    STATUSES,
    Access,
    AccessChanged,
    AccessChecked,
    Acknowledge,
    Broadcast,
    BroadcastExcept,
    CheckAccess,
    Closed,
    Connected,
    Effect,
    Emit,
    End,
    Enter,
    Failed,
    Follow,
    History,
    HistoryLost,
    HistoryRead,
    Hub,
    Identified,
    Identify,
    Identity,
    Input,
    Leave,
    Limits,
    PositionAdvanced,
    Published,
    ReadHistory,
    Received,
    Recheck,
    Rechecked,
    Replay,
    Tick,
    Unfollow,
    Update,
    answered_at_once,
    parse_event_id,
)
from kits.hub_bench import update

HISTORIES = 500
STEPS = 250
KEPT = 12
"""How many entries of the stream the history remembers."""
USERS = ("u", "v", "w", "x", "late")
EVENTS = ("moderation_update", "moderation_update", "moderation_update", "content_received", "stats_update")

GONE = ("access_denied", "authentication_required")
"""The errors after which a session is no member."""


@frozen
class Join:
    """What a client asked for; ``after`` is the number of the update at which it stopped."""

    statuses: frozenset[str] | None
    recent: int
    after: int | None
    presence: bool

    def chooses(self, item: Update) -> bool:
        """Whether an update is to be sent to whoever joined so."""
        return self.statuses is None or item.event not in EVENTS_WITH_STATUS or item.data["status"] in self.statuses


@define(eq=False)
class Question:
    """What the hub asked, and the answer once it was looked up."""

    effect: CheckAccess | Recheck | ReadHistory
    answer: Input | None = None
    history: History | None = None
    read_at: int = 0


@define(eq=False)
class Member:
    """A session, and what it was sent so far."""

    sid: str
    user: str
    waiting: dict[int, Join] = field(factory=dict)
    """Its joins that were not answered yet, by the acknowledgement that they asked for."""
    rooms: set[str] = field(factory=set)
    question: Question | None = None
    """The history that was last asked for it."""
    replayed: list[int] = field(factory=list)
    """What it was sent again, and belongs to what comes next: an answer to its join, or the end of a pause."""
    join: Join | None = None
    """The join that counts; None: it is no member."""
    choices: set[frozenset[str] | None] = field(factory=set)
    """What it has chosen since it is a member."""
    begin: int = 0
    """When it became a member it was given everything after this that it chose then; a little more may be so."""
    position: int = 0
    """It was given everything that it chose up to this."""
    given: set[int] = field(factory=set)
    users: set[str] | None = None
    """Who is there, as far as it was told since its last join."""
    changed_at: float = 0.0
    """When it was last told of a change."""

    def leave(self) -> None:
        self.join, self.users = None, None
        self.changed_at = 0.0
        self.given.clear()
        self.choices.clear()


class World:
    """The hub, its members, and what they are held against."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.at_once = chance.random() < 0.3
        """The backplane is this process's own: the history answers at once, and nothing is heard late."""
        self.roomy = chance.random() < 0.7
        self.hub = Hub(Limits(10, 100_000, 100_000, 3.0, 8.0, 1.0, 1000 if self.roomy else 4), random=chance.random)
        self.now = 100.0
        self.acts = 0
        self.acks = 0
        self.entries: list[Update | None] = []
        """What was published, number 1 first; None: an entry that is no update."""
        self.heard: int | None = None
        """Up to which number the hub was told; None: it follows nothing."""
        self.questions: list[Question] = []
        self.members: dict[str, Member] = {}
        self.allowed = dict.fromkeys(USERS, True)
        self.announced = dict.fromkeys(USERS, 0)
        """When it was last announced that a user's access may have changed."""
        self.granted = dict.fromkeys(USERS, -1)
        """When the newest answer was read by which the hub knows that a user may be in the room."""

    # What there is to be sent

    def chosen(self, join: Join, after: int, last: int) -> list[int]:
        """The numbers after one and up to another of what a join chooses."""
        return [n for n in self.updates(after, last) if join.chooses(self.update(n))]

    def updates(self, after: int, last: int) -> list[int]:
        return [number for number in range(after + 1, last + 1) if self.entries[number - 1] is not None]

    def update(self, number: int) -> Update:
        found = self.entries[number - 1]
        assert found is not None
        return found

    def read(self, question: ReadHistory) -> History:
        last = len(self.entries)
        floor, last_id = max(0, last - KEPT), f"1000-{last}"
        if question.after is None:
            numbers = self.updates(floor, last)[-question.newest :] if question.newest else []
        else:
            after = number_of(question.after)
            if after is None or not floor <= after <= last:
                return History((), False, last_id)
            numbers = self.updates(after, last)
        return History(tuple(self.update(number) for number in numbers), True, last_id)

    # What happens

    def act(self) -> None:
        self.acts += 1
        self.now += self.chance.random() * 0.1
        self.chance.choices(
            (self.publish, self.hear, self.look_up, self.answer, self.join, self.come_or_go, self.change_access,
             self.look_at, self.mishap), (6, 6, 8, 8, 6, 2, 2, 1, 1)
        )[0]()  # fmt: skip

    def publish(self) -> None:
        number, event = len(self.entries) + 1, self.chance.choice(EVENTS)
        status = "pending" if event == "content_received" else self.chance.choice(STATUSES)
        has_update = self.chance.random() < 0.95
        self.entries.append(update(number, event=event, status=status) if has_update else None)
        if self.at_once:
            self.hear()

    def hear(self) -> None:
        """Tell the hub some of what it was not told yet, and repeat some of what it was."""
        if self.heard is None:
            return
        count = len(self.entries) if self.at_once else self.chance.randrange(4)
        begin = self.heard
        if self.chance.random() < 0.1:
            begin = max(0, begin - self.chance.randrange(3))
        for number in range(begin + 1, min(self.heard + count, len(self.entries)) + 1):
            self.tell(number)

    def tell(self, number: int) -> None:
        if self.heard is not None:  # it may have let go of the room at the one before
            self.heard = max(self.heard, number)
            found = self.entries[number - 1]
            self.give(PositionAdvanced("p", f"1000-{number}") if found is None else Published(found))

    def look_up(self) -> None:
        """Let one of the questions be looked up, which is answered later."""
        for question in self.chance.sample(self.questions, len(self.questions)):
            if question.answer is None:
                question.answer = self.look_up_one(question)
                return

    def look_up_one(self, question: Question) -> Input:
        self.acts += 1
        effect, question.read_at = question.effect, self.acts
        if isinstance(effect, CheckAccess):
            return AccessChecked(effect.ticket, Access.GRANTED if self.allowed[effect.user_id] else Access.DENIED)
        if isinstance(effect, Recheck):
            allowed = effect.project_ids if self.allowed[effect.user_id] else ()
            return Rechecked(effect.ticket, frozenset(allowed))
        assert isinstance(effect, ReadHistory)
        question.history = self.read(effect)
        return HistoryRead(effect.ticket, question.history)

    def answer(self) -> None:
        """Give one of the answers, or none, or say that it could not be found out."""
        ready = [question for question in self.questions if question.answer is not None]
        if not ready:
            return
        question, luck = self.chance.choice(ready), self.chance.random()
        if luck < 0.03:
            self.questions.remove(question)
        else:
            self.give_answer(question, failed=luck < 0.1)

    def come_or_go(self) -> None:
        if len(self.members) < 5 and self.chance.random() < 0.7:
            self.come(self.chance.choice(USERS[:-1]))
        elif self.members:
            member = self.chance.choice(list(self.members.values()))
            if self.chance.random() < 0.3:
                self.close(member)
            elif self.chance.random() < 0.3:
                self.give(Received(member.sid, "leave_project", ({"project_id": "p"},)))

    def join(self) -> None:
        if not self.members:
            return
        member = self.chance.choice(list(self.members.values()))
        if member.waiting and self.chance.random() < 0.5:
            return  # so that not all of them share their answers with others
        chosen = frozenset(self.chance.sample(STATUSES, self.chance.randrange(1, 4)))
        before = chosen if member.join is None else member.join.statuses
        after = max(0, len(self.entries) - self.chance.randrange(KEPT + 4)) if self.chance.random() < 0.5 else None
        wants = Join(
            self.chance.choices((chosen, None, before), (2, 2, 1))[0],
            0 if after is not None else self.chance.choice((0, 0, 1, 3, 8, 200)),
            after,
            self.chance.random() < 0.5,
        )
        self.send_join(member, wants)

    def send_join(self, member: Member, wants: Join) -> None:
        payload: dict[str, Any] = {"project_id": "p", "presence": wants.presence}
        if wants.statuses is not None:
            payload["statuses"] = sorted(wants.statuses)
        if wants.after is not None:
            payload["last_event_id"] = f"1000-{wants.after}"
        if wants.recent:
            payload["recent"] = wants.recent
        self.acks += 1
        member.waiting[self.acks] = wants
        self.give(Received(member.sid, "join_project", (payload,), self.acks))

    def come(self, user: str) -> Member:
        member = Member(f"s{self.acts}", user)
        self.members[member.sid] = member
        self.give(Connected(member.sid, user, "10.0.0.1"))
        return member

    def close(self, member: Member) -> None:
        self.give(Closed(member.sid))
        self.members.pop(member.sid, None)

    def look_at(self) -> None:
        """A client says what its user looks at, which whoever asked for presence may."""
        if self.members:
            sid, content_id = self.chance.choice(list(self.members)), self.chance.choice(("c1", "c2", None))
            self.give(Received(sid, "looking_at", ({"project_id": "p", "content_id": content_id},)))

    def change_access(self) -> None:
        user = self.chance.choice(USERS[:-1])
        self.allowed[user] = self.chance.random() < 0.8
        if self.chance.random() < 0.6:
            self.give(Tick())  # what is due takes effect before this
            self.acts += 1
            about = self.chance.choice(((user, "p"), (user, None), (None, "p"), (None, None)))
            for each in USERS if about[0] is None else (user,):
                self.announced[each] = self.acts
            self.give(AccessChanged(*about))

    def mishap(self) -> None:
        """A long time without anything, or entries that are lost on their way to the hub."""
        luck = self.chance.random()
        if luck < 0.3:
            self.pass_time(self.chance.random() * 4)
        elif luck < 0.35 and self.heard is not None:
            self.heard = len(self.entries)
            self.give(HistoryLost("p"))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while (when := self.hub.next_deadline()) is not None and when <= until:
            self.now = max(self.now, when)
            self.give(Tick())
        self.now = until

    def calm_down(self, *, failures: float = 0.0) -> None:
        """Everything is heard, and answered for some time; some of what was under way fails."""
        for _ in range(25):
            while self.questions or (self.heard is not None and self.heard < len(self.entries)):
                self.hear()
                for question in self.questions[:]:
                    question.answer = question.answer or self.look_up_one(question)
                    self.give_answer(question, failed=self.chance.random() < failures)
                failures /= 2
            self.pass_time(1)

    def give_answer(self, question: Question, *, failed: bool) -> None:
        effect, answer = question.effect, question.answer
        assert answer is not None
        self.questions.remove(question)
        if failed:
            self.give(Failed(effect.ticket))
            return
        if isinstance(effect, CheckAccess | Recheck):
            self.granted[effect.user_id] = max(self.granted[effect.user_id], question.read_at)
        self.give(answer)

    def begin_again(self) -> None:
        """After all that somebody comes, and something is published."""
        self.send_join(self.come("late"), Join(None, 0, None, presence=True))
        for _ in range(8):
            self.publish()

    # What the hub wants done

    def give(self, item: Input) -> None:
        effects = self.hub.handle(item, self.now)
        answered: dict[str, list[Join]] = {}
        for effect in effects:
            if isinstance(effect, Acknowledge) and "room" in effect.data:
                answered.setdefault(effect.sid, []).append(self.members[effect.sid].waiting[effect.ack])
        at_once: list[Input] = []
        for effect in effects:
            self.perform(effect, answered, at_once)
        assert not any(member.replayed for member in self.members.values()), "nothing says what this was sent for"
        for answer in at_once:
            self.give(answer)

    def perform(self, effect: Effect, answered: dict[str, list[Join]], at_once: list[Input]) -> None:
        match effect:
            case Identify(ticket, _, credential):
                assert credential is not None
                at_once.append(Identified(ticket, Identity(credential, credential.upper())))
            case CheckAccess() | Recheck():
                self.questions.append(Question(effect))
            case ReadHistory(ticket):
                question = Question(effect)
                asker: Any = self.hub._tickets.get(ticket)
                if asker is not None:
                    self.members[asker.session.sid].question = question
                if self.at_once:
                    question.history = self.read(effect)
                    at_once += answered_at_once(effect, question.history)
                else:
                    self.questions.append(question)
            case Follow():
                self.heard = len(self.entries)
            case Unfollow():
                self.heard = None
            case Enter(sid, room):
                member = self.members[sid]
                assert room not in member.rooms
                member.rooms.add(room)
                if not room.startswith("presence:"):
                    assert len([name for name in member.rooms if not name.startswith("presence:")]) == 1
                    replayed, member.replayed = member.replayed, []
                    for number in replayed:
                        self.receive(member, number)
            case Leave(sid, room):
                self.members[sid].rooms.remove(room)
            case Broadcast(room, item):
                self.broadcast(room, item, ())
            case BroadcastExcept(room, item, sids):
                self.broadcast(room, item, sids)
            case Replay(sid, item):
                member = self.members[sid]
                if item.event_id:
                    self.check_access(member)
                    member.replayed.append(number_in(item))
                else:
                    self.on_presence(member, item)
            case Emit(sid, event, data):
                self.on_event(self.members[sid], event, data, answered.pop(sid, []))
            case Acknowledge(sid, ack, data):
                join = self.members[sid].waiting.pop(ack)
                if "room" in data:
                    self.check_recovered(self.members[sid], join, data.get("recovered"))
            case End(sid):
                del self.members[sid]

    def broadcast(self, room: str, item: Update, but: tuple[str, ...]) -> None:
        for member in self.members.values():
            if room in member.rooms and member.sid not in but:
                if item.event_id:
                    self.receive(member, number_in(item))
                else:
                    self.on_presence(member, item)

    # What each member is sent

    def check_access(self, member: Member) -> None:
        assert self.granted[member.user] > self.announced[member.user], "sent before it was known whether it may see it"

    def receive(self, member: Member, number: int) -> None:
        """An update that follows the one before it."""
        self.check_access(member)
        assert member.join is not None, "sent to somebody who is no member"
        assert member.join.chooses(self.update(number)), "not chosen"
        missed = self.chosen(member.join, member.position, number - 1)
        assert number > member.position, f"{number} came after {member.position}"
        assert not missed, f"{number} came without {missed}"
        member.position = number
        member.given.add(number)

    def on_event(self, member: Member, event: str, data: Any, joins: list[Join]) -> None:
        if event == "joined_project" and joins:  # the first of those that are answered together
            last = number_of(data["last_event_id"])
            assert last is not None
            replayed, member.replayed = member.replayed, []
            if member.join is None:
                self.on_joined_first(member, replayed, last, joins)
            else:
                self.on_joined_again(member, member.join, replayed, last, joins)
            member.join, member.position, member.users = joins[-1], last, None
            member.given.update(replayed)
            member.choices.add(joins[-1].statuses)
            if not joins[-1].presence:
                member.changed_at = 0.0
        elif event == "error" and data["code"] == "presence_required":
            assert member.join is None or not member.join.presence
        elif event == "left_project" or (event == "error" and data["code"] in GONE):
            member.leave()

    def on_joined_first(self, member: Member, replayed: list[int], last: int, joins: list[Join]) -> None:
        question, newest = self.question_of(member)
        afters = [join.after for join in joins if join.after is not None]
        if question.after is None:
            assert replayed == self.chosen_of(joins[-1], self.recent(newest, joins, last, member))
            member.begin = replayed[0] if replayed else last
        elif replayed or self.check_recoverable(member):
            member.begin = afters[0]
            assert question.after == f"1000-{afters[0]}"
            assert replayed == self.chosen(joins[-1], afters[0], last)
        else:
            member.begin = last

    def on_joined_again(self, member: Member, before: Join, replayed: list[int], last: int, joins: list[Join]) -> None:
        assert not self.chosen(before, member.position, last), "answered before it was given what came before that"
        if not any(join.recent for join in joins):
            assert not replayed
            return
        kept, read = [number for number in self.question_of(member)[1] if number <= last], self.last_read(member)
        newest = self.chosen_of(joins[-1], self.recent(kept, joins, last, member))
        # What is newer than the history, and of what it chose before as well, it has just been sent.
        needed = [number for number in newest if number <= read or not before.chooses(self.update(number))]
        # Older ones, which were among the newest when the history was read, may come in place of those.
        older = [number for number in self.chosen_of(joins[-1], kept) if number not in newest]
        more = len(replayed) - len(needed)
        assert replayed == older[len(older) - more :] + needed

    def question_of(self, member: Member) -> tuple[ReadHistory, list[int]]:
        """What was last asked for it, and what the answer was."""
        assert member.question is not None
        effect, history = member.question.effect, member.question.history
        assert isinstance(effect, ReadHistory)
        assert history is not None
        return effect, [number_in(item) for item in history.updates]

    def last_read(self, member: Member) -> int:
        """Where the history ended that was last read for it."""
        assert member.question is not None
        assert member.question.history is not None
        return number_of(member.question.history.last_event_id) or 0

    def recent(self, kept: list[int], joins: list[Join], last: int, member: Member) -> list[int]:
        """The newest of what was kept, and of what has come since, up to a number."""
        wanted = max(join.recent for join in joins)
        found = [number for number in kept if number <= last] + self.updates(self.last_read(member), last)
        return found[-wanted:] if wanted else []

    def chosen_of(self, join: Join, numbers: list[int]) -> list[int]:
        return [number for number in numbers if join.chooses(self.update(number))]

    def check_recoverable(self, member: Member) -> bool:
        """Whether a history that was read makes it certain that what was missed can be told."""
        assert member.question is not None
        assert member.question.history is not None
        return self.roomy and member.question.history.complete

    def check_recovered(self, member: Member, join: Join, recovered: bool | None) -> None:
        """A member was told that it has everything after its id, or that it has not."""
        assert member.join is not None
        assert (recovered is None) == (join.after is None)
        if join.after is None:
            return
        if recovered:
            assert join.after <= member.position
            missed = set(self.chosen(member.join, join.after, member.position)) - member.given
            assert not missed, f"said to have everything after {join.after}, but was not given {missed}"
        else:
            certain = len(member.choices) == 1 and member.begin <= join.after <= member.position
            assert not certain, f"has everything after {join.after}, and was told that it has not"

    def on_presence(self, member: Member, notice: Update) -> None:
        self.check_access(member)
        assert member.join is not None
        assert member.join.presence, "told who is there without having asked"
        data = notice.data
        if notice.event == "presence_state":
            member.users = {user["user_id"] for user in data["users"]}
            return
        assert member.users is not None, "something new came before the state"
        if notice.event == "presence_looking":
            assert data["user_id"] in member.users - {member.user}
            return
        assert notice.event == "presence_change"
        joined, left = ({user["user_id"] for user in data[key]} for key in ("joined", "left"))
        assert joined or left
        assert self.now - member.changed_at > 0.999, "two changes within a second"
        member.changed_at = self.now
        assert not joined & member.users
        assert left <= member.users
        member.users = (member.users | joined) - left

    def check_all(self) -> None:
        """What must hold when nothing is under way any more."""
        assert not any(room.keeping for room in self.hub._rooms.values()), "kept for nobody"
        there = {member.user for member in self.members.values() if member.join is not None}
        for member in self.members.values():
            assert not member.waiting, "not every join was answered"
            if member.join is not None:
                assert not self.chosen(member.join, member.position, len(self.entries)), "never sent what it chose"
                assert member.users == (there if member.join.presence else None)


def number_of(event_id: str) -> int | None:
    place = parse_event_id(event_id)
    return None if place is None else place[1]


def number_in(item: Update) -> int:
    number = number_of(item.event_id)
    assert number is not None
    return number


def test_each_member_is_sent_exactly_what_its_joins_ask_for(seed: int) -> None:
    print(f"seed {seed}: python -m pytest tests/core/test_members_at_random.py --first-seed {seed} --seeds 1")
    chance = random.Random(seed)
    for history in range(HISTORIES):
        print(f"history {history}")
        world = World(chance)
        for _ in range(chance.randrange(STEPS)):
            world.act()
        world.calm_down(failures=0.3)
        world.begin_again()
        world.calm_down()
        world.check_all()
        for member in list(world.members.values()):
            world.close(member)
        world.pass_time(100)
        assert not any(world.hub.counts().values()), "something is left behind"
