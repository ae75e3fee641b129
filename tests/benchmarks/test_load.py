"""A load generator, in C or in Python, notices whatever goes missing, comes twice or comes out of order."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from scripted_server import ScriptedServer, frame, update

from benchmarks import generator
from benchmarks.child import ChildFailed
from benchmarks.generator import LoadGenerator
from benchmarks.world import Member

PATIENCE = 60.0


def test_counts_updates_and_their_delays(load: LoadGenerator, server: ScriptedServer) -> None:
    load.begin(3)
    before = time.monotonic_ns()
    for seq in range(3):
        server.say(update(seq))
    measured = load.result(PATIENCE)
    passed = time.monotonic_ns() - before
    assert measured.deliveries == measured.delivery.count == 3
    assert 0 < measured.delivery.percentile(0.5) <= measured.delivery.percentile(1.0) <= measured.delivery.longest / 1e6
    assert 0 < measured.seconds * 1e9 <= passed


@pytest.mark.parametrize("language", ["C, awake"], indirect=True)
def test_looking_for_something_to_do_is_no_work(load: LoadGenerator, server: ScriptedServer) -> None:
    load.begin(1)
    before, patience = load.cpu(), time.monotonic() + PATIENCE
    while (spent := load.cpu() - before) < 0.2:
        assert time.monotonic() < patience, "it sleeps"
        time.sleep(0.01)
    server.say(update(0))
    assert load.result(PATIENCE).cpu < spent / 2


def test_numbers_go_on_with_the_next_measurement(load: LoadGenerator, server: ScriptedServer) -> None:
    for seq in range(2):
        load.begin(1)
        server.say(update(seq))
        assert load.result(PATIENCE).deliveries == 1


def test_takes_frames_however_the_stream_is_cut(load: LoadGenerator, server: ScriptedServer) -> None:
    load.begin(4)
    for byte in frame(update(0)) + frame(update(1)):
        server.send(bytes([byte]))
    server.send(frame(update(2)) + frame(update(3)))
    assert load.result(PATIENCE).deliveries == 4


def test_answers_pings(load: LoadGenerator, server: ScriptedServer) -> None:
    server.say("2")
    server.wait_for("3")


@pytest.mark.parametrize(
    ("seqs", "complaint"),
    [
        pytest.param((0, 2, 3), "update 2 came too early, others are missing; 1 was due", id="lost"),
        pytest.param((0, 2, 1, 3), "update 2 came too early, others are missing; 1 was due", id="out of order"),
        pytest.param((0, 1, 1, 2, 3), "update 1 came again; 2 was due", id="twice"),
        pytest.param((0, 1, 2, 3, 3), "update 3 came again; 4 was due", id="the last one twice"),
        pytest.param((0, 1, 2, 3, 4), "update 4 came unasked; 4 was due", id="one too many"),
    ],
)
def test_a_measurement_in_which_something_went_wrong_is_an_error(
    load: LoadGenerator, server: ScriptedServer, seqs: tuple[int, ...], complaint: str
) -> None:
    load.begin(4)
    server.send(b"".join(frame(update(seq)) for seq in seqs))
    with pytest.raises(ChildFailed, match=complaint):
        load.result(PATIENCE)


def test_the_last_update_is_missed_too(
    load: LoadGenerator, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "PATIENCE", 0.2)
    load.begin(2)
    server.say(update(0))
    with pytest.raises(ChildFailed, match="nothing more comes"):
        load.result(PATIENCE)


def test_an_end_of_the_connection_is_an_error(load: LoadGenerator, server: ScriptedServer) -> None:
    load.begin(2)
    server.say(update(0))
    server.hang_up()
    with pytest.raises(ChildFailed, match="the server hung up"):
        load.result(PATIENCE)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reading and its writing end; a test that closes one gives it another file."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.usefixtures("language")
def test_says_of_each_update_when_the_last_member_has_it_whichever_server_that_is_on(
    server: ScriptedServer, pipe: tuple[int, int]
) -> None:
    reading, writing = pipe
    with ScriptedServer() as other:
        load = LoadGenerator([server.port, other.port], None, receipts=writing)
        try:
            load.connect([Member(0, "project", "session=signed")] * 2)
            load.begin(3)
            for one in (server, other):
                one.send(b"".join(frame(update(seq)) for seq in range(3)))
            assert load.result(PATIENCE).deliveries == 6
            assert os.read(reading, 100) == b"\0" * 3
        finally:
            load.close()


@pytest.mark.usefixtures("language")
def test_nobody_who_wants_to_know_what_has_arrived_is_an_error(server: ScriptedServer, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    load = LoadGenerator([server.port], None, receipts=writing)
    try:
        load.connect([Member(0, "project", "session=signed")])
        load.begin(1)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), reading)
        server.say(update(0))
        with pytest.raises(ChildFailed, match="cannot say what has arrived: Broken pipe"):
            load.result(PATIENCE)
    finally:
        load.close()


@pytest.mark.usefixtures("language")
def test_a_session_that_may_not_join_is_an_error(server: ScriptedServer) -> None:
    server.welcome = {"40": ('40{"sid":"a"}', '42["error",{"message":"Authentication required"}]')}
    load = LoadGenerator([server.port], None)
    try:
        with pytest.raises(ChildFailed, match="Authentication required"):
            load.connect([Member(0, "project", "session=signed")])
    finally:
        load.close()
