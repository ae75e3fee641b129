"""Leaving on signals: every adapter in a process of its own."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from kits.adapters import PATIENCE, left_cleanly, process


def test_running_out_of_file_descriptors_costs_a_line_in_the_log_and_nobody_who_is_there(kind: str) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as before:
        before.send(b"echo in\n")
        assert before.line() == b"in"
        numbers = [int(name) for name in os.listdir(f"/proc/{server.pid}/fd")]
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, limits[1]))
        # As many as there are numbers free below the limit, and many that have to wait.
        late = [connect() for _ in range(max(numbers) + 20 - len(numbers))]
        assert server.stderr is not None
        assert "Cannot accept connections for now: Too many open files" in server.stderr.readline()
        # Two pauses later there is still nothing to accept with.
        before.send(b"alarm 2.5\necho meanwhile\n")
        assert before.line() == b"meanwhile"
        assert before.line() == b"ring"
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        for client in late:
            with client:
                client.send(b"echo at last\n")
                assert client.line() == b"at last"
        server.send_signal(signal.SIGTERM)
        _, complaints = server.communicate(timeout=PATIENCE)
        assert not complaints, "one line was enough"
        assert server.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_leaves(kind: str, number: signal.Signals) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.send_signal(number)
        assert client.line() == b"draining"
        client.send(b"echo still served\nrelease\n")
        assert client.rest() == b"still served\nreleased\n"
        assert left_cleanly(server)


def test_a_signal_in_the_middle_of_a_broadcast_cuts_nothing_short(kind: str) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as client, connect() as other:
        other.send(b"echo in\n")
        assert other.line() == b"in"
        client.send(b"broadcast 500\n")
        # Half a megabyte for each: more than their kernels take while they do not read.
        assert client.line().startswith(b"0 ")
        server.send_signal(signal.SIGTERM)
        expected = [b"%d" % number for number in range(500)]
        assert [line.partition(b" ")[0] for line in client.rest().splitlines()] == [*expected[1:], b"draining"]
        assert [line.partition(b" ")[0] for line in other.rest().splitlines()] == [*expected, b"draining"]
        assert left_cleanly(server)


def test_a_second_signal_leaves_at_once(kind: str) -> None:
    with process(kind, 3600) as (server, connect), connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.send_signal(signal.SIGTERM)
        assert client.line() == b"draining"
        server.send_signal(signal.SIGINT)
        assert client.ended()
        assert left_cleanly(server)


def test_leaving_takes_no_longer_than_it_may(kind: str) -> None:
    with process(kind, 0.05) as (server, connect), connect() as client:
        client.send(b"hold\n")
        assert client.line() == b"held"
        server.send_signal(signal.SIGTERM)
        assert client.ended()
        assert left_cleanly(server)


def test_a_job_that_never_ends_does_not_keep_the_process(kind: str) -> None:
    with process(kind, PATIENCE) as (server, connect), connect() as client:
        client.send(b"stuck\n")
        assert client.line() == b"at it"
        server.send_signal(signal.SIGTERM)
        client.ended()
        assert left_cleanly(server)
