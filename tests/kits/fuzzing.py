"""A server that is fed whatever bytes there are, and what has to hold for all of them.

Any bytes are a script of who does what on which of four connections, and in how many pieces. So a fuzzer that knows
nothing of HTTP, WebSocket or base64 still gets as far as the hub. Whatever the script:

- nothing is raised, the server never asks to be called again without end, and every connection is answered or ended;
- what is sent on a WebSocket are whole frames, of which a close frame is the last;
- memory and the number of calls stay in proportion to the bytes.
"""

from __future__ import annotations

import itertools
import json
import sys
import tracemalloc
from collections.abc import Iterator
from types import FrameType
from typing import Any

from attrs import define, field

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Limits
from automoderate.protocol import (
    Abort,
    Close,
    Config,
    Connection,
    Fanout,
    Job,
    Output,
    PauseReading,
    Peer,
    RequestFinished,
    ResumeReading,
    SendEof,
    Write,
)
from automoderate.protocol.outputs import call_transport
from automoderate.server import Server
from automoderate.testing.directory import MemoryDirectory
from kits.hostile import CASES, POLL, WS, frame, get, post, upgrade

CONNECTIONS = 4
MAX_PAYLOAD = 2_000
SEND_BUFFER = 8_000
COOKIE = "Cookie: session=alice"

MEMORY = 150_000
"""Bytes that the server may hold beside ``MEMORY_PER_BYTE`` for each byte that it was fed."""
MEMORY_PER_BYTE = 20
CALLS = 10_000
"""Calls of functions that may be made beside those for each byte that was fed, each read and each step."""
CALLS_PER_BYTE = 80
CALLS_PER_READ = 200
CALLS_PER_STEP = 2_000
"""A step may let a minute pass, or publish something."""

VERBS = (
    "whole", "whole", "bytes", "sevens", "text", "text", "binary", "frame", "post", "post", "poll", "open", "socket",
    "upgrade", "end", "lose", "wait", "publish",
)  # fmt: skip


def script(*steps: tuple[int, str, bytes]) -> bytes:
    """A script of steps: which connection, a verb, and the bytes it is about."""
    return b"".join(
        bytes([VERBS.index(verb) * CONNECTIONS + number]) + len(data).to_bytes(2, "big") + data
        for number, verb, data in steps
    )


def seeds() -> Iterator[bytes]:
    """Scripts to begin with: every row of the table, and clients that do as they should."""
    for case in CASES:
        data = case.data.replace(b"{sid}", b"id1")
        before: list[tuple[int, str, bytes]] = {
            "http": [],
            "polling": [(1, "open", b"")],
            "websocket": [(0, "socket", b"")],
            "joined": [(0, "socket", b""), (0, "text", b"40")],
            "probe": [(1, "open", b""), (0, "upgrade", b"\0")],
        }[case.stage]
        yield script(*before, (0, "whole", data[:60_000]))
    join = b'42["join_project",{"project_id":"p","last_event_id":"0-0"}]'
    yield script(
        (0, "socket", b""), (0, "text", b"40"), (0, "text", join), (0, "publish", b""), (0, "wait", b"\1"),
        (0, "text", b'421["leave_project",{"project_id":"p"}]'), (0, "frame", b"\x88\x03\xe8"),
    )  # fmt: skip
    yield script(
        (0, "open", b""), (1, "post", b"\x0040"), (0, "poll", b"\0"), (1, "post", b"\0" + join), (0, "poll", b"\0"),
        (2, "upgrade", b"\0"), (2, "text", b"2probe"), (0, "publish", b""), (2, "text", b"5"), (2, "text", b"41"),
    )  # fmt: skip


@define(eq=False)
class Line:
    """One connection, as an adapter has it."""

    stage: Stage
    connection: Connection = field(init=False)
    ended: bool = False
    paused: bool = False
    socket: bool = False
    closed: bool = False
    """The server has sent a close frame."""
    waiting = 0

    def write(self, data: bytes) -> int:
        assert not self.ended
        size = len(data)
        if not self.socket and b"HTTP/1.1 101 " in data:
            self.socket = True
            data = data.partition(b"HTTP/1.1 101 ")[2].partition(b"\r\n\r\n")[2]
        if self.socket:
            self._check_frames(data)
        return size

    def _check_frames(self, data: bytes) -> None:
        while data:
            assert not self.closed, "something is sent behind a close frame"
            length, at = data[1], 2
            if length >= 126:
                at = 4 if length == 126 else 10
                length = int.from_bytes(data[2:at], "big")
            assert length < 0x8000_0000_0000_0000
            assert len(data) >= at + length, "half a frame"
            self.closed = data[0] == 0x88
            data = data[at + length :]

    def keep(self, _rest: memoryview) -> None:
        raise AssertionError("every write takes everything")

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def send_eof(self) -> None:
        """A client ends its stream as soon as it sees the end of the server's."""
        self.close()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.stage.server.connection_lost(self.connection, self.stage.now)

    abort = close


class Stage:
    """A server with a few connections, its clock, and the adapter that performs what it wants done."""

    def __init__(self) -> None:
        directory = MemoryDirectory()
        directory.add_user("alice")
        directory.add_project("p", owner="alice")
        numbers = itertools.count(1)
        self.now = 1000.0
        self.fed = self.reads = self.steps = 0
        """Bytes, pieces and steps so far."""
        self.server = Server(
            directory,
            MemoryBackplane(wall=lambda: self.now, entries=20),
            new_id=lambda: f"id{next(numbers)}",
            random=lambda: 0.5,
            protocol=Config(max_payload=MAX_PAYLOAD, send_buffer=SEND_BUFFER, max_request_body=MAX_PAYLOAD),
            limits=Limits(),
        )
        self.lines = [self.connect() for _ in range(CONNECTIONS)]

    def connect(self) -> Line:
        line = Line(self)
        line.connection = self.server.connect(line, Peer("192.0.2.1", 50000), self.now)
        return line

    def act(self, number: int, verb: str, data: bytes) -> None:
        """Do a step of the script."""
        line = self.lines[number]
        self.steps += 1
        getattr(self, f"_{verb}")(line, data)
        self.settle()
        if line.ended:
            del line.connection  # as adapters do: else the two hold each other until Python looks for cycles
            self.lines[number] = self.connect()

    def finish(self) -> None:
        """Let all clients go and time pass; nothing may be left of them."""
        for line in self.lines:
            if not line.ended:
                self.server.receive_eof(line.connection, self.now)
                self.settle()
        self.pass_time(300)
        assert all(line.ended for line in self.lines), "a connection was neither answered nor ended"
        stats = self.server.stats()
        assert {stats[name] for name in ("sessions", "rooms", "memberships", "jobs")} == {0}, stats

    def settle(self) -> None:
        """Perform what the server wants done, and call it again as long as it asks for that now."""
        for _ in range(1_000):
            while outputs := self.server.outputs():
                for output in outputs:
                    self._perform(output)
            self.server.turned(self.now, 0.0)
            deadline = self.server.next_deadline()
            if deadline is None or deadline > self.now:
                return
            self.server.tick(self.now)
        raise AssertionError("the server asks to be called without end")

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.server.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.server.tick(self.now)
            self.settle()
        self.now = end

    def _perform(self, output: Output) -> None:
        if isinstance(output, Write):
            self._write(output.connection, output.data)
        elif isinstance(output, Fanout):
            for connections, data in output.writes:
                for connection in connections:
                    self._write(connection, data)
        elif isinstance(output, SendEof | Close | Abort):
            self._line(output.connection).close()
        elif isinstance(output, PauseReading | ResumeReading):
            call_transport(output)
        elif isinstance(output, Job):
            self.server.job_done(output.ticket, output.call(), self.now)
        elif isinstance(output, RequestFinished):
            self.server.respond(output.connection, 404, "Not Found", [("Content-Length", "0")], self.now)
            self.server.respond_end(output.connection, self.now)

    def _write(self, connection: Connection, data: bytes) -> None:
        if not self._line(connection).ended:  # what is written to one that is gone is ignored, as adapters do
            connection.write(data)

    @staticmethod
    def _line(connection: Connection) -> Line:
        assert isinstance(connection.transport, Line)
        return connection.transport

    # Verbs

    def _feed(self, line: Line, data: bytes, piece: int) -> None:
        for at in range(0, len(data), piece):
            if not line.ended:
                self.fed += len(data[at : at + piece])
                self.reads += 1
                self.server.receive_data(line.connection, data[at : at + piece], self.now)
                self.settle()

    def _whole(self, line: Line, data: bytes) -> None:
        self._feed(line, data, max(1, len(data)))

    def _bytes(self, line: Line, data: bytes) -> None:
        self._feed(line, data, 1)

    def _sevens(self, line: Line, data: bytes) -> None:
        self._feed(line, data, 7)

    def _text(self, line: Line, data: bytes) -> None:
        self._whole(line, frame(data, 1))

    def _binary(self, line: Line, data: bytes) -> None:
        self._whole(line, frame(data, 2))

    def _frame(self, line: Line, data: bytes) -> None:
        """The first byte is the frame's."""
        if data:
            self._whole(line, data[:1] + frame(data[1:], 2)[1:])

    def _post(self, line: Line, data: bytes) -> None:
        body = post(data[1:], COOKIE)
        self._whole(line, body.replace(b"{sid}", self._sid(data)))

    def _poll(self, line: Line, data: bytes) -> None:
        self._whole(line, get(f"{POLL}&sid={self._sid(data).decode()}", COOKIE))

    def _open(self, line: Line, _data: bytes) -> None:
        self._whole(line, get(POLL, COOKIE))

    def _socket(self, line: Line, data: bytes) -> None:
        self._whole(line, upgrade(WS, COOKIE) + data)

    def _upgrade(self, line: Line, data: bytes) -> None:
        self._whole(line, upgrade(f"{WS}&sid={self._sid(data).decode()}", COOKIE) + data[1:])

    def _sid(self, data: bytes) -> bytes:
        return f"id{data[0] + 1 if data else 1}".encode()

    def _end(self, line: Line, _data: bytes) -> None:
        if not line.ended:
            self.server.receive_eof(line.connection, self.now)

    def _lose(self, line: Line, _data: bytes) -> None:
        line.close()

    def _wait(self, _line: Line, data: bytes) -> None:
        self.pass_time(data[0] / 4 if data else 0.01)

    def _publish(self, _line: Line, data: bytes) -> None:
        text = Server.encode({"text": data.decode("latin-1")})
        self.server.publish("p", "stats_update", text, self.now)


def steps(data: bytes) -> Iterator[tuple[int, str, bytes]]:
    """The steps of a script, which any bytes are."""
    while data:
        verb, size = divmod(data[0], CONNECTIONS)[0] % len(VERBS), int.from_bytes(data[1:3], "big")
        yield data[0] % CONNECTIONS, VERBS[verb], data[3 : 3 + size]
        data = data[3 + size :]


def play(data: bytes) -> None:
    """Play a script. Raises AssertionError, or whatever the server raises, where something does not hold."""
    stage = Stage()
    for number, verb, piece in steps(data):
        stage.act(number, verb, piece)
    stage.finish()


class TooMuchHeld(AssertionError):
    """More memory is in use than what the clients have sent accounts for."""


def play_measured(data: bytes) -> None:
    """Play a script, and ask for memory and calls too, which takes ten times as long.

    What grows beside it in this process counts as well, such as the tables of a tool that measures coverage. So a
    script holds too much when it does so twice.
    """
    try:
        _play_measured(data)
    except TooMuchHeld:
        _play_measured(data)


def is_work(event: str, called: object) -> bool:
    """Whether what a profiler sees is a call of the server's: the fuzzer has one of its own at every branch."""
    module = getattr(called, "__module__", None) or ""
    return event == "call" or (event == "c_call" and not module.startswith("atheris."))


def _play_measured(data: bytes) -> None:
    stage = Stage()
    calls = 0

    def count(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal calls
        calls += is_work(event, called)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number, verb, piece in steps(data):
            sys.setprofile(count)
            try:
                stage.act(number, verb, piece)
            finally:
                sys.setprofile(None)
            held = tracemalloc.get_traced_memory()[0] - before
            if held > MEMORY + MEMORY_PER_BYTE * stage.fed:
                raise TooMuchHeld(f"{held} bytes are held after {stage.fed}")
    finally:
        tracemalloc.stop()
    stage.finish()
    allowed = CALLS + CALLS_PER_BYTE * stage.fed + CALLS_PER_READ * stage.reads + CALLS_PER_STEP * stage.steps
    assert calls <= allowed, f"{calls} calls for {stage.fed} bytes in {stage.reads} reads and {stage.steps} steps"


def described(data: bytes) -> str:
    """A script as somebody can read it."""
    return json.dumps([(number, verb, repr(piece)) for number, verb, piece in steps(data)], indent=1)
