"""Rooms: what each member is sent is what it would be sent if every broadcast happened at once."""

from __future__ import annotations

import os
import random
import sys
from typing import cast

import pytest

from automoderate.protocol.http import Connection
from automoderate.protocol.rooms import MAX_QUEUED, Rooms, Writes


class Wire:
    """Rooms whose writes are performed: the bytes of every client, by sid, for which the sid stands as connection."""

    def __init__(self) -> None:
        self.rooms = Rooms()
        self.sent: dict[str, bytes] = {}
        self.writes = 0

    def enter(self, room: str, sid: str) -> None:
        self.rooms.enter(room, sid, cast(Connection, sid))

    def broadcast(self, room: str, frame: bytes) -> int:
        count, overflow = self.rooms.broadcast(room, frame)
        self.perform(overflow)
        return count

    def leave(self, room: str, sid: str) -> None:
        self.perform(self.rooms.leave(room, sid))

    def flush(self, sid: str, *rooms: str) -> None:
        self.perform(self.rooms.flush(rooms, sid))

    def take(self, allowance: int) -> int:
        writes, left = self.rooms.take(allowance)
        self.perform(writes)
        return left

    def finish(self) -> None:
        while self.rooms.busy:
            self.take(256)

    def perform(self, writes: Writes) -> None:
        for connections, data in writes:
            assert data, "nothing is no write"
            for connection in connections:
                sid = str(connection)
                self.sent[sid] = self.sent.get(sid, b"") + data
                self.writes += 1


def test_a_frame_goes_to_everyone_in_the_room_and_nobody_else() -> None:
    wire = Wire()
    wire.enter("r", "a")
    wire.enter("r", "b")
    wire.enter("other", "c")
    assert wire.broadcast("r", b"1") == 2
    assert wire.take(10) == 8
    assert not wire.rooms.busy
    assert wire.sent == {"a": b"1", "b": b"1"}


def test_nobody_is_in_a_room_that_is_not_there() -> None:
    wire = Wire()
    assert wire.broadcast("r", b"1") == 0
    wire.leave("r", "a")
    wire.flush("a", "r")
    assert not wire.rooms.busy
    assert wire.sent == {}


def test_a_backlog_leaves_in_one_write_for_each_member() -> None:
    wire = Wire()
    wire.enter("r", "a")
    wire.enter("r", "b")
    for frame in (b"1", b"2", b"3"):
        wire.broadcast("r", frame)
    wire.finish()
    assert wire.sent == {"a": b"123", "b": b"123"}
    assert wire.writes == 2


def test_a_large_room_is_served_in_slices_and_a_later_frame_waits() -> None:
    wire = Wire()
    members = [f"m{number}" for number in range(10)]
    for sid in members:
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    assert wire.take(4) == 0
    assert len(wire.sent) == 4
    wire.broadcast("r", b"2")
    wire.take(4)
    assert sorted(wire.sent.values()) == [b"1"] * 8
    wire.finish()
    assert wire.sent == dict.fromkeys(members, b"12")


def test_rooms_take_turns() -> None:
    wire = Wire()
    for number in range(10):
        wire.enter("large", f"m{number}")
    wire.enter("small", "s")
    wire.broadcast("large", b"1")
    wire.broadcast("small", b"2")
    wire.take(4)
    wire.take(4)
    assert wire.sent["s"] == b"2"
    assert len(wire.sent) < 11


def test_who_comes_later_is_sent_nothing_older() -> None:
    wire = Wire()
    for sid in ("a", "b", "c"):
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    wire.take(1)
    wire.enter("r", "late")
    wire.broadcast("r", b"2")
    wire.enter("r", "later")
    wire.broadcast("r", b"3")
    wire.enter("r", "last")
    wire.finish()
    assert wire.sent == {"a": b"123", "b": b"123", "c": b"123", "late": b"23", "later": b"3"}


def test_who_leaves_is_given_what_was_published_before() -> None:
    wire = Wire()
    for sid in ("a", "b", "c"):
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    wire.take(1)
    wire.broadcast("r", b"2")
    for sid in ("a", "b"):
        wire.leave("r", sid)
        assert wire.sent[sid] == b"12"
    wire.broadcast("r", b"3")
    wire.finish()
    assert wire.sent == {"a": b"12", "b": b"12", "c": b"123"}
    wire.leave("r", "c")
    assert wire.sent["c"] == b"123"


def test_a_room_that_everybody_left_while_it_waited() -> None:
    wire = Wire()
    wire.enter("r", "a")
    wire.broadcast("r", b"1")
    wire.leave("r", "a")
    wire.enter("r", "b")
    wire.broadcast("r", b"2")
    wire.finish()
    assert wire.sent == {"a": b"1", "b": b"2"}


def test_before_anything_else_a_member_is_given_what_it_has_not_had() -> None:
    wire = Wire()
    for sid in ("a", "b", "c"):
        wire.enter("r", sid)
    wire.enter("quiet", "a")
    wire.flush("a", "r", "quiet")
    assert wire.sent == {}
    wire.broadcast("r", b"1")
    wire.take(1)
    wire.broadcast("r", b"2")
    wire.flush("a", "r", "quiet")
    wire.flush("a", "r", "quiet")
    assert wire.sent["a"] == b"12"
    wire.broadcast("r", b"3")
    wire.finish()
    assert wire.sent == dict.fromkeys("abc", b"123")


def test_a_large_room_whose_members_have_all_been_given_everything() -> None:
    wire = Wire()
    for sid in ("a", "b", "c"):
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    wire.take(1)
    for sid in ("a", "b", "c"):
        wire.flush(sid, "r")
    wire.take(1)
    assert wire.sent == dict.fromkeys("abc", b"1")
    assert not wire.rooms.busy


def test_a_room_with_too_much_waiting_is_served_at_once() -> None:
    wire = Wire()
    for sid in ("a", "b", "c"):
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    wire.take(1)
    wire.broadcast("r", b"x" * MAX_QUEUED)
    assert len(wire.sent) == 1
    wire.broadcast("r", b"2")
    assert wire.sent == dict.fromkeys("abc", b"1" + b"x" * MAX_QUEUED + b"2")
    wire.finish()
    assert wire.writes == 6


@pytest.mark.parametrize("allowance", [1, 2, 100])
@pytest.mark.parametrize("size", [1000, MAX_QUEUED], ids=["small", "overflow"])
def test_what_everybody_has_been_sent_is_not_kept(size: int, allowance: int) -> None:
    rooms = Rooms()
    members = [cast(Connection, object()) for _ in range(3)]
    for sid, member in zip("abc", members, strict=True):
        rooms.enter("r", sid, member)
    rooms.broadcast("r", bytes(size))
    _, writes = rooms.broadcast("r", bytes(size))
    rooms.broadcast("r", bytes(10))
    while rooms.busy:
        writes = [*writes, *rooms.take(allowance)[0]]
    sent = {id(data): data for _, data in writes}
    del writes
    while sent:
        _, data = sent.popitem()
        assert sys.getrefcount(data) == 2, "this variable and the argument"


def test_what_the_last_ones_were_given_out_of_turn_is_not_kept_either() -> None:
    rooms = Rooms()
    for sid in "ab":
        rooms.enter("r", sid, cast(Connection, object()))
    rooms.broadcast("r", bytes(1000))
    ((_, data),), _ = rooms.take(1)
    for sid in "ab":
        rooms.flush(["r"], sid)
    rooms.broadcast("r", bytes(10))
    rooms.take(2)
    assert not rooms.busy
    count = sys.getrefcount(data)
    assert count == 2, "this variable and the argument"


def test_whatever_happens_each_session_sees_what_it_would_see_if_broadcasts_took_no_time() -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    for _ in range(200):
        wire = Wire()
        expected: dict[str, dict[str, bytes]] = {}
        members: dict[str, set[str]] = {"p": set(), "q": set()}
        for step in range(120):
            room, sid = chance.choice("pq"), f"m{chance.randrange(12)}"
            match chance.choice(("enter", "leave", "broadcast", "broadcast", "flush", "take")):
                case "enter" if sid not in members[room]:
                    members[room].add(sid)
                    wire.enter(room, sid)
                case "leave":
                    members[room].discard(sid)
                    wire.leave(room, sid)
                case "broadcast":
                    frame = f"{room}{step};".encode()
                    assert wire.broadcast(room, frame) == len(members[room])
                    for member in members[room]:
                        mine = expected.setdefault(member, {"p": b"", "q": b""})
                        mine[room] += frame
                case "flush":
                    wire.flush(sid, *(name for name in "pq" if sid in members[name]))
                    assert by_room(wire.sent.get(sid, b"")) == expected.get(sid, {"p": b"", "q": b""})
                case "take":
                    wire.take(chance.randrange(1, 8))
        wire.finish()
        assert {sid: by_room(sent) for sid, sent in wire.sent.items()} == expected


def by_room(sent: bytes) -> dict[str, bytes]:
    """What a client was sent, room by room: only there is an order."""
    frames = [frame + b";" for frame in sent.split(b";") if frame]
    return {room: b"".join(frame for frame in frames if frame.startswith(room.encode())) for room in "pq"}
