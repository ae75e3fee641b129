"""What a fault run has shown: the truth, the streams and what each client saw, made into a list of violations.

Pure. The reference is a project's stream as it is at the end. It has everything that was accepted and perhaps some of
what nobody knows to have been; each client must have had a gapless piece of it, in order and once.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from attrs import define, field, frozen

from automoderate.core.hub import parse_event_id

# What is known ------------------------------------------------------------------------------------------------


@frozen
class Entry:
    """One update in a project's stream: its ``number`` is what the publisher called it, ``size`` its bytes."""

    event_id: str
    number: int
    size: int = 0


@frozen
class Accepted:
    """One line of the truth log of a project."""

    number: int
    event_id: str


@frozen
class Attempts:
    """All numbers that were tried to publish, and those among them that may have been stored more than once."""

    tried: frozenset[int]
    repeatable: frozenset[int] = frozenset()


@frozen
class Asked:
    """A client asked to join, saying where it stopped if it had been there before."""

    after: str | None


@frozen
class Joined:
    """It was let in. ``recovered`` is None where nothing was said of it."""

    position: str
    recovered: bool | None = None


@frozen
class Got:
    """It got an update."""

    event_id: str
    number: int


@frozen
class Left:
    """It was told that it is not, or no longer, in the room."""


@frozen
class Cut:
    """Its connection ended."""


Record: TypeAlias = Asked | Joined | Got | Left | Cut


class Role(enum.Enum):
    """What a client is in a project when the run ends."""

    MEMBER = "member"
    OUTSIDER = "outsider"
    """Never was a member."""
    REMOVED = "removed"
    """Was a member until somebody took that away."""
    LEAVER = "leaver"
    """Has left by itself."""


@frozen
class Follower:
    """One client in one project, with all that happened to it."""

    name: str
    role: Role
    records: Sequence[Record]


@frozen
class Limits:
    """How much a client may have missed for the server to say that it cannot make up for it."""

    entries: int
    size: int


class Kind(enum.Enum):
    """What can be wrong."""

    LOST = "lost"
    DOUBLED = "doubled"
    REORDERED = "reordered"
    INVENTED = "invented"
    """An update, or a number, that nobody published."""
    LEAKED = "leaked"
    """Something for members went to somebody who was not one, or was not yet let in."""
    AFTER_LEAVING = "after leaving"
    LET_IN = "let in"
    """A non-member joined."""
    NOT_TOLD = "not told"
    """A client that was to leave the room was never told that it has."""
    SHUT_OUT = "shut out"
    """A member was told that it is none."""
    SILENT_GAP = "silent gap"
    """``recovered: true``, or nothing about it, where something was missing."""
    UNEXPLAINED = "unexplained recovered: false"


@frozen
class Violation:
    kind: Kind
    who: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.who}: {self.detail}"


# The stream against the truth ---------------------------------------------------------------------------------


def judge_stream(
    project: str, truth: Sequence[Accepted], attempts: Attempts, stream: Sequence[Entry]
) -> list[Violation]:
    """Whether what was accepted is in the stream in that order, once, and nothing is that nobody published."""
    return [Violation(kind, f"stream of {project}", detail) for kind, detail in _of_stream(truth, attempts, stream)]


def _of_stream(truth: Sequence[Accepted], attempts: Attempts, stream: Sequence[Entry]) -> Iterator[tuple[Kind, str]]:
    numbers = {entry.event_id: entry.number for entry in stream}
    newest = (-1, -1)
    for accepted in truth:
        if accepted.event_id not in numbers:
            yield Kind.LOST, f"{accepted} is not there"
        elif numbers[accepted.event_id] != accepted.number:
            yield Kind.INVENTED, f"{accepted} is number {numbers[accepted.event_id]} there"
        if place(accepted.event_id) <= newest:
            yield Kind.REORDERED, f"{accepted} was accepted after something newer"
        newest = max(newest, place(accepted.event_id))
    for number, count in Counter(entry.number for entry in stream).items():
        if number not in attempts.tried:
            yield Kind.INVENTED, f"number {number} was never published"
        elif count > 1 and number not in attempts.repeatable:
            yield Kind.DOUBLED, f"number {number} is there {count} times"


def place(event_id: str) -> tuple[int, int]:
    """An event id's place in the order of its project."""
    parsed = parse_event_id(event_id)
    assert parsed is not None, event_id
    return parsed


# A client against the stream ----------------------------------------------------------------------------------


def judge_follower(follower: Follower, stream: Sequence[Entry], limits: Limits) -> list[Violation]:
    """Whether a client got its piece of the stream: all of it, in order, once, and nothing else."""
    reading = _Reading(follower, stream, limits)
    for record in follower.records:
        reading.take(record)
    reading.end()
    return [Violation(kind, follower.name, detail) for kind, detail in reading.found]


@define
class _Reading:
    """Goes through the records of one client, with a finger on the entry of the stream that is due."""

    follower: Follower
    stream: Sequence[Entry]
    limits: Limits
    found: list[tuple[Kind, str]] = field(factory=list)
    due: int | None = None
    """The index of the entry that has to come next; None until it is let in."""
    inside: bool = False
    asked: Asked | None = None
    """What it has asked on this connection, unless it has left since."""
    left: bool = False
    """It has left for good."""
    missing: dict[int, tuple[Kind, str]] = field(factory=dict)
    """Entries passed over, by index; they may still come late."""
    seen: set[int] = field(factory=set)
    _index: dict[str, int] = field(init=False)
    _places: list[tuple[int, int]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._index = {entry.event_id: index for index, entry in enumerate(self.stream)}
        self._places = [place(entry.event_id) for entry in self.stream]

    def take(self, record: Record) -> None:
        if isinstance(record, Asked):
            self.asked = record
        elif isinstance(record, Joined):
            self._joined(record)
        elif isinstance(record, Got):
            self._got(record)
        elif isinstance(record, Left):
            if self.follower.role is Role.MEMBER:
                self._find(Kind.SHUT_OUT, f"{self.asked}")
            self.asked, self.inside, self.left = None, False, self.follower.role is not Role.MEMBER
        else:
            self.asked, self.inside = None, False

    def end(self) -> None:
        """Nothing more came."""
        role = self.follower.role
        if role is Role.MEMBER and (self.due is None or not self.inside):
            self._find(Kind.LOST, "it is a member and not in the room at the end")
        elif role is Role.MEMBER and self.due is not None:
            self._pass_over(self.due, len(self.stream), Kind.LOST, "at the end")
        elif not self.left:
            self._find(Kind.NOT_TOLD, f"as {role.value}")
        self.found.extend(self.missing.values())

    def _joined(self, joined: Joined) -> None:
        asked, continues = self.asked, bool(joined.recovered)
        if self.follower.role is Role.OUTSIDER or self.left:
            self._find(Kind.LET_IN, f"{joined}")
        if asked is None:
            self._find(Kind.LET_IN, f"{joined} without having asked")
        elif asked.after is not None and joined.recovered is None:
            self._find(Kind.SILENT_GAP, f"{joined} says nothing of what came after {asked.after}")
        first = bisect_right(self._places, place(joined.position))
        if self.due is None:
            self.due = first
        elif continues:
            self._pass_over(self.due, first, Kind.SILENT_GAP, f"before {joined}")
        else:
            self._start_again(joined, first)
        self.inside = True

    def _start_again(self, joined: Joined, first: int) -> None:
        assert self.due is not None
        if joined.recovered is False:
            missed = self.stream[self.due : first]
            size = sum(entry.size for entry in missed)
            if len(missed) <= self.limits.entries and size <= self.limits.size:
                self._find(Kind.UNEXPLAINED, f"{joined} for {len(missed)} updates of {size} bytes")
        self.due = max(self.due, first)

    def _got(self, got: Got) -> None:
        index = self._index.get(got.event_id)
        if self.follower.role is Role.OUTSIDER:
            self._find(Kind.LEAKED, f"{got}")
        elif self.left:
            self._find(Kind.AFTER_LEAVING, f"{got}")
        elif self.asked is None:
            self._find(Kind.LEAKED, f"{got}")
        elif not self.inside and self.asked.after is None:
            self._find(Kind.LEAKED, f"{got} before it was let in")
        elif index is None or self.stream[index].number != got.number:
            self._find(Kind.INVENTED, f"{got}")
        elif index in self.seen:
            self._find(Kind.DOUBLED, f"{got}")
        else:
            self._in_turn(index, got)
            self.seen.add(index)

    def _in_turn(self, index: int, got: Got) -> None:
        if self.missing.pop(index, None):
            self._find(Kind.REORDERED, f"{got} came after something newer")
        elif self.due is None or index < self.due:
            self._find(Kind.LEAKED, f"{got} is older than where it joined")
        else:
            self._pass_over(self.due, index, Kind.LOST, f"before {got}")
            self.due = index + 1

    def _pass_over(self, begin: int, end: int, kind: Kind, when: str) -> None:
        for index in range(begin, end):
            self.missing[index] = kind, f"{self.stream[index]} {when}"
        self.due = max(begin, end)

    def _find(self, kind: Kind, detail: str) -> None:
        self.found.append((kind, detail))


def recoveries(followers: Sequence[Follower]) -> Mapping[bool, int]:
    """How often clients were told that they have got all they had missed, and how often that they have not."""
    return Counter(
        record.recovered
        for follower in followers
        for record in follower.records
        if isinstance(record, Joined) and record.recovered is not None
    )
