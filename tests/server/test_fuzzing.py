"""Whatever bytes come: the scripts that ``make fuzz`` begins with, and those that hypothesis makes up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.fuzzing import CONNECTIONS, VERBS, Line, Stage, is_work, play_measured, script, seeds, steps
from kits.hostile import CASES

SEEDS = list(seeds())
PIECES = st.one_of(
    st.sampled_from([case.data[:2000] for case in CASES]),
    st.binary(max_size=60),
    st.builds(lambda number, rest: bytes([number]) + rest, st.integers(0, 3), st.binary(max_size=40)),
    st.sampled_from([
        b"40", b"41", b"5", b"2probe", b"3", b"1", b'42["join_project",{"project_id":"p"}]', b"\x0040", b"\0001",
        b'42["leave_project",{"project_id":"p"}]', b'451-["x",{"_placeholder":true,"num":0}]', b"bAQ==", b"\x0142[]",
    ]),
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_the_first_scripts_of_the_fuzzer_hold(number: int) -> None:
    play_measured(SEEDS[number])


@settings(print_blob=True, derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, CONNECTIONS - 1), st.sampled_from(VERBS), PIECES), max_size=25))
def test_whatever_clients_do_holds(played: list[tuple[int, str, bytes]]) -> None:
    play_measured(script(*played))


@settings(print_blob=True, derandomize=True, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_script(data: bytes) -> None:
    play_measured(data)


def test_a_script_is_read_as_it_was_written() -> None:
    written = [(3, "text", b"40"), (0, "whole", b""), (1, "publish", b"x" * 300)]
    assert list(steps(script(*written))) == written


def line() -> Line:
    """A connection whose WebSocket is open."""
    made = Stage().lines[0]
    made.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x01a")
    return made


def test_half_a_frame_is_found() -> None:
    with pytest.raises(AssertionError, match="half a frame"):
        line().write(b"\x81\x05a")


def test_a_frame_behind_a_close_frame_is_found() -> None:
    with pytest.raises(AssertionError, match="behind a close frame"):
        line().write(b"\x88\x00\x81\x01a")


def test_a_server_that_spins_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    monkeypatch.setattr(stage.server, "next_deadline", lambda: stage.now)
    with pytest.raises(AssertionError, match="without end"):
        stage.settle()


def test_memory_and_work_out_of_proportion_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hoard: list[bytes] = []
    monkeypatch.setattr(Stage, "_publish", lambda *_: hoard.append(bytes(1_000_000)))
    with pytest.raises(AssertionError, match="bytes are held"):
        play_measured(script((0, "publish", b"")))
    monkeypatch.setattr(Stage, "_publish", lambda *_: [len("") for _ in range(100_000)])
    with pytest.raises(AssertionError, match="calls for"):
        play_measured(script((0, "publish", b"")))


def test_calls_of_the_fuzzer_are_not_the_servers_work() -> None:
    assert is_work("call", None)
    assert is_work("c_call", len)
    assert is_work("c_call", b"".split)
    for module in ("atheris.native", "atheris.core_with_libfuzzer"):  # before it begins, and then
        assert not is_work("c_call", SimpleNamespace(__module__=module))
    assert not is_work("return", None)
