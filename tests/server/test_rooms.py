"""Rooms: what each member is sent is what it would be sent if every broadcast happened at once."""

from __future__ import annotations

import os
import random
from typing import cast

import pytest

from automoderate.protocol.model import Client, Connection, Session
from automoderate.server.rooms import MAX_QUEUED, Rooms, Writes


def client(sid: str) -> Client:
    return Client(sid, "/", cast(Session, None))


class Wire:
    """Rooms whose writes are performed: the bytes of every client, by sid, for which the sid stands as connection."""

    def __init__(self, window: float = 0.0) -> None:
        self.rooms = Rooms(window)
        self.now = 0.0
        self.sent: dict[str, bytes] = {}
        self.writes = 0

    def enter(self, room: str, sid: str) -> None:
        self.rooms.enter(room, client(sid), cast(Connection, sid))

    def poll(self, room: str, sid: str) -> None:
        self.rooms.enter(room, client(sid), None)

    def upgrade(self, sid: str) -> None:
        self.rooms.upgrade(sid, cast(Connection, sid))

    def broadcast(self, room: str, frame: bytes) -> int:
        count, overflow, polling = self.rooms.broadcast(room, frame, self.now)
        self.perform([*overflow, *(((cast(Connection, each.sid),), frame) for each in polling)])
        return count + len(polling)

    def broadcast_except(self, room: str, frame: bytes, *sids: str) -> int:
        count, writes, polling = self.rooms.broadcast_except(room, frame, sids, self.now)
        self.perform([*writes, *(((cast(Connection, each.sid),), frame) for each in polling)])
        return count + len(polling)

    def leave(self, room: str, sid: str) -> None:
        self.perform(self.rooms.leave(room, sid))

    def flush(self, sid: str) -> None:
        self.perform(self.rooms.flush(sid))

    def take(self, allowance: int) -> int:
        writes, left = self.rooms.take(allowance)
        self.perform(writes)
        return left

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.rooms.release(self.now)

    def finish(self) -> None:
        while self.rooms.owing:
            if not self.rooms.busy:
                release = self.rooms.next_release()
                assert release is not None
                self.wait(release - self.now)
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


def test_a_client_in_no_room_has_nothing_to_be_sent() -> None:
    wire = Wire()
    wire.flush("a")
    wire.upgrade("a")
    assert not wire.rooms.busy
    assert wire.sent == {}


def test_a_member_that_polls_is_named_with_each_broadcast() -> None:
    wire = Wire()
    wire.poll("r", "a")
    wire.poll("r", "b")
    assert wire.broadcast("r", b"1") == 2
    assert not wire.rooms.busy
    wire.enter("r", "c")
    assert wire.broadcast("r", b"2") == 3
    wire.leave("r", "a")
    wire.leave("r", "c")
    assert wire.broadcast("r", b"3") == 1
    wire.finish()
    assert wire.sent == {"a": b"12", "b": b"123", "c": b"2"}


def test_a_member_that_upgrades_is_sent_by_its_websocket_what_it_was_not_given_by_polling() -> None:
    wire = Wire()
    wire.enter("r", "a")
    for room in ("r", "s"):
        wire.poll(room, "b")
    wire.broadcast("r", b"1")
    wire.upgrade("b")
    wire.broadcast("r", b"2")
    wire.broadcast("s", b"3")
    wire.finish()
    assert wire.sent == {"a": b"12", "b": b"123"}


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
    wire.flush("a")
    assert wire.sent == {}
    wire.broadcast("r", b"1")
    wire.take(1)
    wire.broadcast("r", b"2")
    wire.flush("a")
    wire.flush("a")
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
        wire.flush(sid)
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
    wire = Wire()
    for sid in "abc":
        wire.enter("r", sid)
    wire.broadcast("r", bytes(size))
    assert wire.rooms.backlog == size
    wire.broadcast("r", bytes(size))
    wire.broadcast("r", bytes(10))
    while wire.rooms.busy:
        wire.take(allowance)
    assert wire.rooms.backlog == 0


def test_what_the_last_ones_were_given_out_of_turn_is_not_kept_either() -> None:
    wire = Wire()
    for sid in "ab":
        wire.enter("r", sid)
    wire.broadcast("r", bytes(1000))
    wire.take(1)
    assert wire.rooms.backlog == 1000
    for sid in "ab":
        wire.flush(sid)
    assert wire.rooms.backlog == 0
    wire.broadcast("r", bytes(10))
    for sid in "ab":
        wire.leave("r", sid)
    assert wire.rooms.backlog == 0


def test_what_waited_for_a_member_that_left_is_not_kept_for_those_that_poll() -> None:
    wire = Wire()
    wire.enter("r", "a")
    wire.poll("r", "b")
    wire.broadcast("r", bytes(10))
    wire.leave("r", "a")
    assert wire.rooms.backlog == 0
    wire.take(1)
    wire.enter("r", "a")
    wire.broadcast("r", b"1")
    wire.finish()
    assert wire.sent == {"a": bytes(10) + b"1", "b": bytes(10) + b"1"}


def test_some_members_may_be_left_out() -> None:
    wire = Wire()
    for sid in "abc":
        wire.enter("p", sid)
    for sid in "de":
        wire.poll("p", sid)
    wire.broadcast("p", b"1")
    assert wire.broadcast_except("p", b"2", "a", "d") == 3
    wire.broadcast("p", b"3")
    assert wire.broadcast_except("p", b"4", "a", "b", "e") == 2
    wire.finish()
    assert wire.sent == {"a": b"13", "b": b"123", "c": b"1234", "d": b"134", "e": b"123"}


def test_one_that_is_left_out_is_so_also_where_too_much_waits() -> None:
    wire = Wire()
    for sid in "abc":
        wire.enter("p", sid)
    wire.broadcast("p", b"1")
    wire.take(2)
    large = b"x" * (MAX_QUEUED + 1)
    wire.broadcast_except("p", large, "a")
    assert wire.sent == {"a": b"1", "b": b"1" + large, "c": b"1" + large}


def test_an_update_after_a_rest_waits_for_nothing_and_those_that_follow_for_one_another() -> None:
    wire = Wire(window=1.0)
    wire.enter("r", "a")
    wire.enter("other", "b")
    wire.broadcast("r", b"1")
    wire.take(10)
    assert wire.sent == {"a": b"1"}
    wire.wait(0.25)
    wire.broadcast("r", b"2")
    wire.broadcast("other", b"x")
    wire.wait(0.5)
    wire.broadcast("r", b"3")
    wire.take(10)
    assert wire.sent == {"a": b"1", "b": b"x"}
    assert wire.rooms.next_release() == 1.0
    wire.wait(0.25)
    wire.take(10)
    assert (wire.sent["a"], wire.writes) == (b"123", 3)
    wire.wait(0.5)
    wire.broadcast("r", b"4")
    assert wire.rooms.next_release() == 2.0
    wire.wait(0.5)
    wire.take(10)
    wire.wait(1.0)
    wire.broadcast("r", b"5")
    wire.take(10)
    assert wire.sent["a"] == b"12345"
    assert not wire.rooms.owing


def test_what_comes_while_slices_are_under_way_waits_from_their_beginning() -> None:
    wire = Wire(window=1.0)
    members = [f"m{number}" for number in range(10)]
    for sid in members:
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    wire.take(4)
    wire.broadcast("r", b"2")
    wire.take(10)
    assert wire.sent == dict.fromkeys(members, b"1")
    assert not wire.rooms.busy
    wire.wait(1.0)
    wire.take(10)
    assert wire.sent == dict.fromkeys(members, b"12")


def test_a_member_that_leaves_or_is_written_to_does_not_wait() -> None:
    wire = Wire(window=1.0)
    for sid in "abc":
        wire.enter("r", sid)
    wire.broadcast("r", b"1")
    wire.take(10)
    wire.broadcast("r", b"2")
    wire.leave("r", "a")
    wire.flush("b")
    assert wire.sent == {"a": b"12", "b": b"12", "c": b"1"}
    wire.leave("r", "b")
    wire.leave("r", "c")
    wire.finish()
    assert wire.sent == {"a": b"12", "b": b"12", "c": b"12"}


STEPS = ("enter", "leave", "upgrade", "broadcast", "broadcast", "except", "flush", "take", "wait")


@pytest.mark.parametrize("window", [0.0, 1.0])
def test_whatever_happens_each_session_sees_what_it_would_see_if_broadcasts_took_no_time(window: float) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    for _ in range(200):
        wire = Wire(window)
        expected: dict[str, dict[str, bytes]] = {}
        members: dict[str, set[str]] = {"p": set(), "q": set()}
        polling = {f"m{number}" for number in range(12) if chance.random() < 0.5}
        for step in range(120):
            room, sid = chance.choice("pq"), f"m{chance.randrange(12)}"
            match chance.choice(
                ("enter", "leave", "upgrade", "broadcast", "broadcast", "except", "flush", "take", "wait")
            ):
                case "enter" if sid not in members[room]:
                    members[room].add(sid)
                    if sid in polling:
                        wire.poll(room, sid)
                    else:
                        wire.enter(room, sid)
                case "leave" if sid in members[room]:
                    members[room].discard(sid)
                    wire.leave(room, sid)
                case "upgrade" if sid in polling:
                    polling.discard(sid)
                    wire.upgrade(sid)
                case "broadcast" if members[room]:
                    frame = f"{room}{step};".encode()
                    assert wire.broadcast(room, frame) == len(members[room])
                    for member in members[room]:
                        mine = expected.setdefault(member, {"p": b"", "q": b""})
                        mine[room] += frame
                case "except" if members[room]:
                    frame = f"{room}{step};".encode()
                    left_out = {member for member in members[room] if chance.random() < 0.3}
                    rest = members[room] - left_out
                    assert wire.broadcast_except(room, frame, *sorted(left_out)) == len(rest)
                    for member in rest:
                        mine = expected.setdefault(member, {"p": b"", "q": b""})
                        mine[room] += frame
                case "flush":
                    wire.flush(sid)
                    assert by_room(wire.sent.get(sid, b"")) == expected.get(sid, {"p": b"", "q": b""})
                case "wait":
                    wire.wait(chance.choice((0.1, 0.5)))
                case "take":
                    wire.take(chance.randrange(1, 8))
        wire.finish()
        assert {sid: by_room(sent) for sid, sent in wire.sent.items()} == expected


def by_room(sent: bytes) -> dict[str, bytes]:
    """What a client was sent, room by room: only there is an order."""
    frames = [frame + b";" for frame in sent.split(b";") if frame]
    return {room: b"".join(frame for frame in frames if frame.startswith(room.encode())) for room in "pq"}
