"""A load generator, in C or in Python, notices whatever goes missing, comes twice or comes out of order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks import generator
from benchmarks.child import ChildFailed
from benchmarks.generator import LoadGenerator
from benchmarks.world import Member
from kits import PATIENCE
from kits.scripted_server import ScriptedServer, frame, update


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


@pytest.mark.usefixtures("load")
def test_answers_pings(server: ScriptedServer) -> None:
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


# What only the one in C does -----------------------------------------------------------------------------------

IN_C = pytest.mark.parametrize("language", ["C"], indirect=True)


@IN_C
def test_everybody_comes_back_after_a_storm(load: LoadGenerator, server: ScriptedServer) -> None:
    load.begin_storm()
    server.hang_up()
    back = load.returned(PATIENCE)
    assert back.back.count == 1
    assert 0.5 <= back.seconds == pytest.approx(back.back.longest / 1e9, abs=0.01)  # the official client's first pause
    assert (back.refused, back.timed_out, back.errors) == (0, 0, 0)
    load.begin(1)
    server.say(update(0))  # the server that came back counts from 0
    assert load.result(PATIENCE).deliveries == 1


@IN_C
def test_a_storm_counts_who_was_not_let_in(load: LoadGenerator, server: ScriptedServer) -> None:
    welcome, server.welcome = server.welcome, {"40": ('42["error",{"message":"Server error occurred"}]',)}
    load.begin_storm()
    server.hang_up()
    server.wait_for_number("40", 2)
    server.welcome = welcome
    back = load.returned(PATIENCE)
    assert back.errors == 1
    assert "Server error occurred" in back.first_error


@IN_C
def test_a_storm_from_which_somebody_does_not_come_back_is_an_error(
    load: LoadGenerator, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "PATIENCE", 2.0)
    server.welcome = {}
    load.begin_storm()
    server.hang_up()
    with pytest.raises(ChildFailed, match="0 of 1 sessions have joined, and nothing more comes"):
        load.returned(PATIENCE)


def come_back(recovered: str) -> tuple[str, ...]:
    """What one who was cut off and missed update 1 is told."""
    return (update(1), f'42["joined_project",{{"project_id":"project","recovered":{recovered}}}]')


@IN_C
def test_who_is_cut_off_has_to_get_what_was_missed(load: LoadGenerator, server: ScriptedServer) -> None:
    server.welcome = server.welcome | {'42["join_project"': come_back("true")}
    load.begin_cutting(2, every=0.05, away=0.05)
    server.say(update(0))
    measured = load.caught_up(PATIENCE)
    assert (measured.deliveries, measured.cuts, measured.replayed, measured.back.count) == (2, 1, 1, 1)
    assert '42["join_project",{"project_id":"project","last_event_id":"1768473000000-0"}]' in server.heard


@IN_C
def test_a_history_that_does_not_reach_back_is_an_error(load: LoadGenerator, server: ScriptedServer) -> None:
    server.welcome = server.welcome | {'42["join_project"': come_back("false")}
    load.begin_cutting(2, every=0.05, away=0.05)
    server.say(update(0))
    with pytest.raises(ChildFailed, match="no longer reached back"):
        load.caught_up(PATIENCE)


@IN_C
def test_who_is_cut_off_takes_up_nodes_session_again(load: LoadGenerator, server: ScriptedServer) -> None:
    load.begin_cutting(2, every=0.05, away=0.05)
    server.say('40{"sid":"a","pid":"secret"}')
    server.welcome = server.welcome | {"40": (with_offset(1, "second"), *server.welcome["40"])}
    server.say(with_offset(0, "first"))
    assert load.caught_up(PATIENCE).replayed == 1
    assert '40{"pid":"secret","offset":"first"}' in server.heard


def with_offset(seq: int, offset: str) -> str:
    """An update as Node's server sends it where sessions can be taken up again."""
    return f'{update(seq)[:-1]},"{offset}"]'


@IN_C
def test_hears_what_somebody_else_publishes_and_counts_what_is_missing(
    load: LoadGenerator, server: ScriptedServer
) -> None:
    load.listen()
    for seq in (0, 2, 1 << 32, 3):
        server.say(update(seq))
    heard = load.heard(4, PATIENCE)
    assert (heard.deliveries, heard.missing) == (4, 1)


@IN_C
def test_what_somebody_else_published_must_not_come_twice(load: LoadGenerator, server: ScriptedServer) -> None:
    load.listen()
    for seq in (0, 1, 1):
        server.say(update(seq))
    with pytest.raises(ChildFailed, match="update 1 of connection 0 came again or too late"):
        load.heard(3, PATIENCE)


class Refusing(BaseHTTPRequestHandler):
    """Accepts nothing."""

    def do_POST(self) -> None:
        """Answer any POST."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(HTTPStatus.UNAUTHORIZED)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@IN_C
@pytest.mark.usefixtures("language")
def test_a_post_that_is_not_accepted_is_an_error() -> None:
    body = f'{{"seq": {generator.SEQ}, "sent": {generator.SENT}}}'
    with HTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever).start()
        load = LoadGenerator([refusing.server_port], None)
        try:
            with pytest.raises(ChildFailed, match=r"connection 0: the server answered HTTP/1.0 401"):
                load.post(1, 1, "/api/projects/project/events", "key", body)
        finally:
            load.close()
            refusing.shutdown()


@IN_C
def test_a_question_without_an_answer_counts_where_members_ask(load: LoadGenerator, server: ScriptedServer) -> None:
    load.let_ask(1)
    load.begin(1, ping_ms=1.0)
    server.wait_for("PING")
    server.say(update(0))
    measured = load.result(PATIENCE)
    assert measured.ping.count >= 1
    assert measured.ping.longest > 0
