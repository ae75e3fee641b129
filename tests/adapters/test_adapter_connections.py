"""What every adapter owes a driver, told with a scripted driver over real sockets."""

from __future__ import annotations

import errno
import logging
import os
import queue
import socket
import threading
from typing import Any, NoReturn, cast

import pytest

from automoderate._threads import ServerStopped
from automoderate.adapters import _poller, _transport
from automoderate.adapters._poller import EVENTS_PER_TURN
from automoderate.adapters.runtime import Options
from automoderate.protocol.model import Connection
from automoderate.protocol.outputs import Abort, Close, Fanout, ResumeReading, SendEof, Write
from kits import until
from kits.adapters import PATIENCE, Running, Script, Start
from kits.memory import allocated

LARGE = 1_000_000
OBJECT = 16
"""Bytes: the least that an object needs."""


def expect_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """The log has ``text``, and with that is settled."""
    assert text in caplog.text
    caplog.clear()


def test_bytes_arrive_in_order_and_answers_leave_in_order(start: Start) -> None:
    server = start(Script())
    with server.connect() as client:
        client.send(b"".join(b"echo %d\n" % number for number in range(500)))
        assert [client.line() for _ in range(500)] == [b"%d" % number for number in range(500)]


def test_bytes_may_come_one_at_a_time(start: Start) -> None:
    server = start(Script())
    with server.connect() as client:
        for byte in b"echo slowly\n":
            client.send(bytes([byte]))
        assert client.line() == b"slowly"


def test_a_peer_that_is_not_read_from_has_to_wait(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as paused, server.connect() as client:
        paused.send(b"pause\n")
        assert paused.line() == b"paused"
        paused.send(b"echo one\necho two\n")
        paused.sock.shutdown(socket.SHUT_WR)
        for number in range(3):
            client.send(b"echo %d\n" % number)
            assert client.line() == b"%d" % number
        assert server.call(lambda _: [bytes(line.received) for line in driver.lines]) == [b"", b""]
        client.send(b"resume\nresume\n")
        assert paused.rest() == b"one\ntwo\nend\n"
        client.send(b"resume\necho still\n")
        assert client.line() == b"still"


def test_a_peer_that_is_not_read_from_can_be_dropped(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as paused, server.connect() as client:
        paused.send(b"pause\n")
        assert paused.line() == b"paused"
        paused.send(b"echo one\n")
        line = driver.lines[0]
        server.call(lambda _: driver.queue(Abort(line.itself), ResumeReading(line.itself)))
        assert paused.ended()
        driver.wait_for(lambda: driver.lost == [line])
        client.send(b"echo still\n")
        assert client.line() == b"still"


def test_the_driver_learns_both_ends_of_a_connection(start: Start) -> None:
    server = start(Script())
    with server.connect() as client:
        address, port = client.sock.getsockname()
        client.send(b"peer\n")
        line = client.line().decode()
    assert f"address='{address}', port={port}, scheme='http', local_address='127.0.0.1'" in line
    assert f"local_port={server.port}" in line


def test_ipv6(start: Start) -> None:
    server = start(Script(), host="::1")
    with server.connect() as client:
        client.send(b"peer\n")
        assert b"address='::1'" in client.line()


def test_small_answers_are_not_held_back_to_be_joined(start: Start) -> None:
    server = start(Script())
    with server.connect() as client:
        client.send(b"echo hello\n")
        client.line()
        with client.their_end() as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_half_closed_connection_still_gets_its_answers(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"echo last words\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == b"last words\nend\n"
    driver.wait_for(lambda: len(driver.lost) == 1)


def test_everything_written_before_a_close_arrives(start: Start) -> None:
    server = start(Script(), max_write_buffer=8 * 1024 * 1024)
    with server.connect_slow() as client:
        client.send(b"bye 4000000\n")
        assert len(client.rest()) == 4_000_001


def test_a_closed_connection_does_not_wait_for_ever_for_its_peer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "CLOSE_TIMEOUT", 0.05)
    driver = Script()
    server = start(driver, max_write_buffer=8 * 1024 * 1024)
    with server.connect_slow() as deaf:
        deaf.send(b"bye 4000000\n")
        driver.wait_for(lambda: len(driver.lost) == 1)
        assert deaf.ended()
    gone = driver.lost[0].itself
    server.call(lambda _: driver.queue(Close(gone), Abort(gone)))
    for _ in range(3):  # turns of the loop
        server.call(lambda _: None)
    assert len(driver.lost) == 1


def test_a_peer_that_is_just_sending_gets_everything_up_to_the_end(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=8 * 1024 * 1024)
    with server.connect_slow() as client:
        client.send(b"over 4000000\n")
        client.exactly(1)
        for _ in range(100):
            client.send(b"drop\n" * 1000)
        assert len(client.rest()) == 4_000_000
        client.send(b"drop\n")
        assert driver.lost == []
        assert driver.lines[0].received == b"", "nothing is heard of what is said after the end"
        line = driver.lines[0].itself
        server.call(lambda _: driver.queue(Write(line, b"too late\n"), SendEof(line)))
        client.sock.shutdown(socket.SHUT_WR)
        driver.wait_for(lambda: len(driver.lost) == 1)
        assert client.rest() == b""


def test_an_end_that_its_peer_does_not_take_waits_for_the_driver(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=8 * 1024 * 1024)
    with server.connect_slow() as deaf:
        deaf.send(b"over 4000000\n")
        deaf.exactly(1)
        gone = driver.lines[0].itself
        server.call(lambda _: driver.queue(SendEof(gone), Abort(gone)))
        driver.wait_for(lambda: len(driver.lost) == 1)
        assert deaf.ended()


def test_an_aborted_connection_ends_at_once(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"drop\n")
        assert client.ended()
    driver.wait_for(lambda: len(driver.lost) == 1)


@pytest.mark.parametrize("sent", [b"", b"echo unfinished", b"echo done\n", b"shout to all\n" * 1000, b"job x\n"])
def test_a_reset_at_any_moment_is_a_lost_connection_and_nothing_else(start: Start, sent: bytes) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as other:
        other.send(b"echo here\n")
        assert other.line() == b"here"
        client = server.connect()
        client.send(sent)
        client.reset()
        driver.wait_for(lambda: len(driver.lost) == 1)
        other.send(b"echo still here\n")
        assert other.until(b"still here\n")
    driver.wait_for(lambda: len(driver.lost) == 2)
    assert len(set(map(id, driver.lost))) == 2


def test_writing_to_a_peer_that_has_reset_disturbs_nobody(start: Start) -> None:
    driver = Script()
    server = start(driver)
    clients = [server.connect() for _ in range(20)]
    for client in clients:
        client.send(b"echo in\n")
        assert client.line() == b"in"
    for client in clients[1:]:
        client.reset()
    with clients[0] as survivor:
        for number in range(50):
            server.call(lambda _now, number=number: driver.shout(b"%d\n" % number))  # type: ignore[misc]
        assert [survivor.line() for _ in range(50)] == [b"%d" % number for number in range(50)]
        driver.wait_for(lambda: len(driver.lost) == 19)


def test_a_mistake_in_the_driver_ends_that_connection_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as other, server.connect() as client:
        other.send(b"echo here\n")
        assert other.line() == b"here"
        client.send(b"boom\n")
        assert client.ended()
        driver.wait_for(lambda: len(driver.lost) == 1)
        other.send(b"echo still here\n")
        assert other.line() == b"still here"
    expect_logged(caplog, "a mistake in the driver")


def test_a_connection_that_breaks_on_writing_ends_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    driver = Script()
    server = start(driver)

    def breaks(_data: bytes) -> None:
        raise TypeError("cannot write")

    with server.connect() as broken, server.connect() as client:
        broken.send(b"echo in\n")
        assert broken.line() == b"in"
        client.send(b"echo in\n")
        assert client.line() == b"in"
        server.call(lambda _: setattr(driver.lines[0], "write", breaks))
        client.send(b"shout hello\n")
        assert client.line() == b"hello"
        assert broken.ended()
        driver.wait_for(lambda: len(driver.lost) == 1)
    expect_logged(caplog, "cannot write")


def test_an_output_that_cannot_be_performed_takes_no_other_with_it(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Script()
    server = start(driver)

    class Broken:
        @property
        def transport(self) -> NoReturn:
            raise LookupError("no transport")

    with server.connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"

        def queue(_now: float) -> None:
            broken = cast(Connection, Broken())
            driver.queue(Close(broken), Fanout([([broken], b"x")]), Write(driver.lines[0].itself, b"still here\n"))

        server.call(queue)
        assert client.line() == b"still here"
    expect_logged(caplog, "no transport")


def test_outputs_for_a_connection_that_is_gone_are_ignored(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
    driver.wait_for(lambda: len(driver.lost) == 1)
    gone = driver.lost[0].itself
    server.call(lambda _: driver.queue(Write(gone, b"x"), Fanout([([gone], b"x")]), Close(gone), Abort(gone)))
    server.call(lambda _: None)


def test_mistakes_without_a_connection_are_logged_and_survived(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    driver = Script()
    failed = threading.Event()
    server = start(driver)

    def tick(_now: float) -> None:
        driver.deadline = None
        failed.set()
        raise RuntimeError("a mistake in tick")

    driver.tick = tick  # type: ignore[method-assign, assignment]
    with server.connect() as client:
        client.send(b"alarm 0\n")
        assert failed.wait(PATIENCE)
        client.send(b"echo still here\n")
        assert client.line() == b"still here"
    expect_logged(caplog, "a mistake in tick")


def test_the_timer_fires_at_the_deadline_and_an_earlier_one_overtakes(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"alarm 3600\n" + b"alarm 0.05\n")
        assert client.line() == b"ring"
        client.send(b"alarm 0.01\n")
        assert client.line() == b"ring"
        assert client.line() == b"ring"  # the first alarm's bell was still waiting: it is told once for each


def test_a_deadline_that_has_passed_already_is_no_obstacle(start: Start) -> None:
    driver = Script()
    server = start(driver)
    blocked, go = threading.Event(), threading.Event()

    def block(_now: float) -> None:
        blocked.set()
        go.wait(PATIENCE)

    with server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.send(b"echo in\n")
            assert client.line() == b"in"
        server.handle.submit(block)
        assert blocked.wait(PATIENCE)
        first.send(b"alarm -1\n")  # both are read in one turn of the loop, before the bell can ring
        second.send(b"alarm -2\n")
        go.set()
        assert first.line() == b"ring"
        assert second.line() == b"ring"


def test_jobs_run_in_worker_threads_and_report_back(start: Start) -> None:
    server = start(Script())
    with server.connect() as client:
        client.send(b"job hello\n")
        assert client.line() == b"(b'HELLO', True)"
        client.send(b"badjob\n")
        assert client.line() == b"LookupError('nothing there')"


def test_slow_jobs_do_not_wait_for_each_other(start: Start) -> None:
    driver = Script()
    server = start(driver, threads=4)
    meeting = threading.Barrier(4)
    with server.connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        for _ in range(4):
            server.call(lambda _: driver.job(driver.lines[0], lambda: meeting.wait(PATIENCE)))
        assert sorted(client.line() for _ in range(4)) == [b"0", b"1", b"2", b"3"]


def test_calls_from_many_threads_all_run_on_the_server_thread_in_each_ones_order(start: Start) -> None:
    driver = Script()
    server = start(driver)
    seen: list[tuple[int, int]] = []
    threads: set[str] = set()
    results: dict[int, list[int]] = {}

    def record(who: int, number: int) -> int:
        seen.append((who, number))
        threads.add(threading.current_thread().name)
        return number

    def caller(who: int) -> None:
        futures = [server.handle.submit(lambda _now, n=n: record(who, n)) for n in range(200)]  # type: ignore[misc]
        results[who] = [future.result(PATIENCE) for future in futures]

    callers = [threading.Thread(target=caller, args=(who,)) for who in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(PATIENCE)
    assert results == {who: list(range(200)) for who in range(8)}
    assert threads == {server.thread.name}
    for who in range(8):
        assert [number for caller_, number in seen if caller_ == who] == list(range(200))


def test_a_submitted_call_is_flushed(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        server.handle.submit(lambda _: driver.shout(b"from another thread\n"))
        assert client.line() == b"from another thread"


def test_the_exception_of_a_submitted_call_is_its_callers(start: Start) -> None:
    server = start(Script())

    def fail(_now: float) -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        server.call(fail)
    assert server.call(lambda _: "still running") == "still running"


def test_a_descriptor_of_somebody_elses_is_watched_until_that_wants_no_more(start: Start) -> None:
    driver = Script()
    server = start(driver)
    reading, writing = os.pipe()
    seen: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    os.set_blocking(reading, False)

    def ready(_now: float) -> bool:
        try:
            said = os.read(reading, 100)
        except BlockingIOError:
            said = b""
        driver.shout(said)
        seen.put((threading.current_thread().name, said))
        return said != b"enough\n"

    with server.connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        server.handle.watch(reading, ready).result(PATIENCE)
        assert seen.get(timeout=PATIENCE) == (server.thread.name, b"")
        for said in (b"something\n", b"more\n"):
            os.write(writing, said)
            assert seen.get(timeout=PATIENCE) == (server.thread.name, said)
            assert client.line() + b"\n" == said, "what it brought about was written"
        server.handle.watch(reading, ready).result(PATIENCE)
        assert seen.get(timeout=PATIENCE)[1] == b"", "it is called once more"
        os.write(writing, b"enough\n")
        assert seen.get(timeout=PATIENCE)[1] == b"enough\n"
        os.write(writing, b"too late\n")
        assert server.call(lambda _: "a turn later") == "a turn later"
        assert seen.empty()
        server.handle.watch(reading, ready).result(PATIENCE)
        assert seen.get(timeout=PATIENCE)[1] == b"too late\n"
    server.stop()
    with pytest.raises(ServerStopped):
        server.handle.watch(reading, ready).result(PATIENCE)
    os.close(reading)
    os.close(writing)


def test_a_descriptor_whose_call_fails_is_watched_no_more(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start(Script())
    reading, writing = os.pipe()
    os.write(writing, b"something")
    calls: list[float] = []

    def fail(now: float) -> bool:
        calls.append(now)
        raise KeyError("a mistake")

    server.handle.watch(reading, fail).result(PATIENCE)
    assert server.call(lambda _: "still running") == "still running"
    assert len(calls) == 1
    expect_logged(caplog, "a mistake")
    os.close(reading)
    os.close(writing)


def test_a_call_after_the_end_fails_clearly(start: Start) -> None:
    server = start(Script())
    server.stop()
    with pytest.raises(ServerStopped, match="not running"):
        server.call(lambda _: None)
    server.handle.stop()  # and stopping again is no error


def test_calls_that_wait_at_the_end_fail_instead_of_hanging(start: Start) -> None:
    server = start(Script())
    blocked, go = threading.Event(), threading.Event()

    def block(_now: float) -> None:
        blocked.set()
        go.wait(PATIENCE)

    server.handle.submit(block)
    assert blocked.wait(PATIENCE)
    server.handle.stop()
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    futures = []
    go.set()
    while stopper.is_alive():
        futures.append(server.handle.submit(lambda _: "ran"))
        stopper.join(0.001)
    for future in futures:
        error = future.exception(PATIENCE)
        assert error is None or isinstance(error, ServerStopped)


def test_a_peer_that_never_reads_is_dropped_and_the_others_get_everything(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=256 * 1024)
    with server.connect_slow() as deaf, server.connect() as client:
        for each in (deaf, client):
            each.send(b"echo in\n")
            assert each.line() == b"in"
        padding = b"x" * 50_000
        dropped_at = None
        for number in range(100):
            server.call(lambda _now, number=number: driver.shout(b"%d %s\n" % (number, padding)))  # type: ignore[misc]
            assert client.line() == b"%d %s" % (number, padding)
            if driver.lost and dropped_at is None:
                dropped_at = number
        assert dropped_at is not None, "the peer that never reads was kept"
        assert "takes no data" in caplog.text
        assert deaf.ended()
    driver.wait_for(lambda: len(driver.lost) == 2)


def test_a_slow_peer_within_the_bound_gets_everything_in_order(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=16 * 1024 * 1024)
    with server.connect_slow() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        padding = b"x" * 100_000
        for number in range(100):
            server.call(lambda _now, number=number: driver.shout(b"%d %s\n" % (number, padding)))  # type: ignore[misc]
        assert [client.line().partition(b" ")[0] for _ in range(100)] == [b"%d" % number for number in range(100)]
        assert server.call(lambda _: driver.lines[0].write == driver.lines[0].transport.write)
        client.send(b"echo and on\n")
        assert client.line() == b"and on"
    assert driver.waiting == sorted(driver.waiting), "it is told what waits, each time that more has to"
    assert 100_000 < driver.waiting[-1] < 100 * 100_010


def test_each_turn_is_measured(start: Start) -> None:
    driver = Script()
    with start(driver).connect() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        driver.wait_for(lambda: bool(driver.turns))
    assert all(0 < took < PATIENCE for took in driver.turns)


def test_a_peer_that_stalls_again_and_again_loses_nothing_and_then_is_written_to_directly(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=16 * 1024 * 1024)
    with server.connect_slow() as client, server.connect() as other:
        for each in (client, other):
            each.send(b"echo in\n")
            assert each.line() == b"in"
        line = driver.lines[0]
        direct = line.transport.write

        def stalled(_now: float) -> bool:
            return line.write != direct

        number = 0
        for _ in range(3):
            began = number
            while not server.call(stalled):
                text = b"%d %s\n" % (number, b"x" * 100_000)
                server.call(lambda _now, text=text: driver.shout(text))  # type: ignore[misc]
                assert other.line() == text.rstrip()
                number += 1
            server.call(lambda _: driver.shout(b"behind them\n"))  # waits behind what waits already
            assert other.line() == b"behind them"
            numbers = [b"%d" % each for each in range(began, number)]
            assert [client.line().partition(b" ")[0] for _ in numbers] == numbers
            assert client.line() == b"behind them"
            assert not server.call(stalled)


def test_more_sockets_than_one_turn_looks_at_are_all_served_in_turn(start: Start) -> None:
    driver = Script()
    server = start(driver)
    clients = [server.connect() for _ in range(3 * EVENTS_PER_TURN)]
    for client in clients:
        client.send(b"echo in\n")
    for client in clients:
        assert client.line() == b"in"

    def all_at_once(_now: float) -> None:
        for number, client in enumerate(clients):
            client.send(b"echo %d\n" % number)

    server.call(all_at_once)  # while the server looks at none of them
    for number, client in enumerate(clients):
        assert client.line() == b"%d" % number
        client.sock.close()


def test_two_thousand_connections_leave_nothing_behind(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as first, allocated() as held:
        first.send(b"echo in\n")
        assert first.line() == b"in"
        for _ in range(4):
            come_and_go(driver, server, 250)  # whatever is made once and kept is there now
        (descriptors, threads), memory = left_open(server), held()
        for _ in range(8):
            come_and_go(driver, server, 250)
            assert server.call(lambda _: len(driver.lines)) == 1
        now = left_open(server)  # less where what an earlier test began has ended meanwhile
        assert now[0] <= descriptors
        assert now[1] <= threads
        assert held() - memory < 2000 * OBJECT


def test_nothing_of_a_lost_connection_is_kept_until_the_next_one_comes(start: Start) -> None:
    driver = Script()
    server = start(driver)
    come_and_go(driver, server, 3)
    with allocated(collecting=False) as held:
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(b"x" * LARGE)  # no whole line, which the driver therefore keeps beside the connection
        until(lambda: [len(line.received) for line in driver.lines] == [LARGE] * 3)
        last_came_first_gone = (2, 0, 1)
        for ended, which in enumerate(last_came_first_gone, start=1):
            clients[which].sock.close()
            driver.wait_for(lambda ended=ended: len(driver.lost) == ended)  # type: ignore[misc]
        driver.lost.clear()
        del clients
        left_open(server)
        assert held() < LARGE


def come_and_go(driver: Script, server: Running, count: int) -> None:
    """Open connections, have each say something, and drop them, one half by a reset."""
    clients = [server.connect() for _ in range(count)]
    for client in clients:
        client.send(b"echo in\n")
    for client in clients:
        assert client.line() == b"in"
    for number, client in enumerate(clients):
        if number % 2:
            client.reset()
        else:
            client.sock.close()
    driver.wait_for(lambda: len(driver.lost) == count)
    driver.lost.clear()
    driver.ticks.clear()
    driver.turns.clear()


def left_open(server: Running) -> tuple[int, int]:
    """How many descriptors and threads there are."""
    # Two turns of the loop: a transport closes its socket after it has told the driver.
    server.call(lambda _: None)
    server.call(lambda _: None)
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def test_two_servers_live_side_by_side(start: Start) -> None:
    one, two = Script(), Script()
    first, second = start(one), start(two)
    with first.connect() as here, second.connect() as there:
        for client in (here, there):
            client.send(b"echo in\n")
            assert client.line() == b"in"
        first.call(lambda _: one.shout(b"first\n"))
        second.call(lambda _: two.shout(b"second\n"))
        assert (here.line(), there.line()) == (b"first", b"second")
        first.stop()
        there.send(b"echo still here\n")
        assert there.line() == b"still here"


def test_a_port_that_is_taken_is_an_oserror_that_names_it(start: Start, kind: str) -> None:
    server = start(Script())
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1 port {server.port}: Address already in use"):
        Running(kind, Script(), {"port": server.port})


def test_an_unknown_host_is_an_oserror_that_names_it(kind: str) -> None:
    with pytest.raises(OSError, match=r"cannot listen on 'no-such-host\.invalid'"):
        Running(kind, Script(), {"host": "no-such-host.invalid"})


def test_a_name_with_several_addresses_listens_on_one_port(start: Start) -> None:
    server = start(Script(), host="localhost")
    assert len({port for _, port in server.handle.addresses}) == 1


def test_stopping_tells_the_driver_and_who_comes_back_for_news(start: Start) -> None:
    driver = Script()
    server = start(driver)
    with server.connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.handle.stop()
        assert client.line() == b"draining"
        with server.connect() as other:
            other.send(b"echo news\n")
            assert other.line() == b"news"
            client.send(b"release\n")
            assert client.line() == b"released"
            assert client.rest() == b""
            assert other.rest() == b""
    server.join()
    assert len(driver.lost) == 2
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_stopping_waits_no_longer_than_it_should(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    driver = Script()
    server = start(driver, drain_timeout=0.05)
    with server.connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.stop()
        assert client.ended()
    assert len(driver.lost) == 1
    assert "1 connections are cut" in caplog.text


def test_stopping_delivers_what_was_written(start: Start) -> None:
    driver = Script()
    server = start(driver, max_write_buffer=16 * 1024 * 1024, drain_timeout=PATIENCE)
    with server.connect_slow() as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        server.call(lambda _: driver.shout(b"x" * 4_000_000))
        server.handle.stop()
        assert client.rest() == b"x" * 4_000_000 + b"draining\n"


@pytest.mark.parametrize("quiet", [0.0, 60.0], ids=["over", "perhaps not over"])
def test_that_connections_are_accepted_again_is_said_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, quiet: float
) -> None:
    monkeypatch.setattr(_poller, "PAUSE", 0.01)
    monkeypatch.setattr(_poller, "QUIET", quiet)
    server, accept, failures = start(Script()), socket.socket.accept, [0, 0, 0]

    def fail_at_first(sock: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            failures.pop()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fail_at_first)
    for _ in range(3):
        with server.connect() as client:
            client.send(b"echo in\n")
            assert client.line() == b"in"
    said = [message.partition(" (")[0] for message in caplog.messages if "accept" in message]
    assert said[0] == "Cannot accept connections for now: Too many open files"
    assert said[1:] == ["Connections are accepted again; for 0 seconds some had to wait"][: quiet == 0.0]


def test_an_exception_in_on_ready_ends_the_server(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    from kits.adapters import KINDS

    def refuse(_handle: object) -> None:
        raise LookupError("not ready after all")

    driver = Script()
    with caplog.at_level(logging.INFO), pytest.raises(LookupError, match="not ready"):
        KINDS[kind](driver, Options(port=0), on_ready=refuse, handle_signals=False)
