"""The load generator where there is no compiler: ``python -m benchmarks.load PORT``, in the words of native/load.c.

Several times slower than that one, so that with fast servers it is what is measured; it says so by its CPU time.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from attrs import define, field

LINGER = 0.02  # seconds in which whatever comes twice has to have come
CONNECT_PATIENCE = 60.0  # seconds without another session having joined
NUMBERS = re.compile(rb'"seq":\s*(\d+).*?"sent":\s*(\d+)')
BOUNDS = [int(1000 * 1.02**step) for step in range(1000)]
"""Upper bounds of a histogram in nanoseconds, from a microsecond on, within 2 %."""


class Failed(Exception):
    """The measurement is worth nothing; the message says why."""


@define
class Histogram:
    counts: Counter[int] = field(factory=Counter)
    longest: int = 0

    def note(self, value: int) -> None:
        self.counts[BOUNDS[min(bisect_left(BOUNDS, value), len(BOUNDS) - 1)]] += 1
        self.longest = max(self.longest, value)

    def as_dict(self) -> dict[str, Any]:
        return {"max": self.longest, "delays": sorted(self.counts.items())}


class Session(asyncio.Protocol):
    """One client: what it is told, and what it still has to get."""

    def __init__(self, load: Load, number: int, room: int, project_id: str, cookie: str) -> None:
        self.load = load
        self.name = f"session {number}"
        self.port = load.port
        self.room = room
        self.project_id = project_id
        self.cookie = cookie
        self.next = self.target = 0
        self.upgraded = self.joined = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {self.cookie}\r\n\r\n".encode()
        )

    def connection_lost(self, _error: Exception | None) -> None:
        self.load.fail(f"{self.name}: the server hung up")

    def data_received(self, data: bytes) -> None:
        received = time.monotonic_ns()
        data = self._rest + data
        try:
            if not self.upgraded:
                data = self._take_response(data)
            while self.upgraded and (size := self._take_frame(data, received)):
                data = data[size:]
        except Failed as failed:
            self.load.fail(str(failed))
        self._rest = data

    def send(self, text: str, opcode: int = 1) -> None:
        """Send one frame. The mask is zero: it is there for proxies, and here are none."""
        data = text.encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2)
        self._transport.write(bytes([0x80 | opcode]) + size + b"\0\0\0\0" + data)

    def join(self) -> None:
        self.send(f"42{json.dumps(['join_project', {'project_id': self.project_id}])}")

    def _take_response(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Failed(f"{self.name}: no upgrade but {head[:100].decode(errors='replace')}")
        self.upgraded = True
        return rest

    def _take_frame(self, data: bytes, received: int) -> int:
        """Take one frame from the beginning of the data; how many bytes it had, 0 where it is not complete."""
        if len(data) < 4 and (len(data) < 2 or data[1] == 126):
            return 0
        begin, length = (4, int.from_bytes(data[2:4])) if data[1] == 126 else (2, data[1])
        if length > 126 and begin == 2:
            raise Failed(f"{self.name}: a masked frame, or one longer than 65,535 bytes")
        if len(data) < begin + length:
            return 0
        if data[0] == 0x81:
            self._take_text(data[begin : begin + length], received)
        elif data[0] == 0x8A:
            self.load.ping.answered(received, self.load.began)
        elif data[0] == 0x89:
            self.send("", 0xA)
        else:
            raise Failed(f"{self.name}: a frame that begins with 0x{data[0]:02x}")
        return begin + length

    def _take_text(self, text: bytes, received: int) -> None:
        if text.startswith(b'42["moderation_update"'):
            self._take_update(text, received)
        elif text == b"2":
            self.send("3")
        elif text.startswith(b"0{"):
            self.send("40")
        elif text.startswith(b'42["connected"'):
            self.join()
        elif text.startswith(b'42["joined_project"'):
            if self.joined:
                self.load.rejoin.answered(received, self.load.began)
            else:
                self.joined = True
                self.load.has_joined(received)
        elif text.startswith((b'42["error"', b"44", b"41", b"1")):
            raise Failed(f"{self.name}: the server said {text[:200].decode(errors='replace')}")

    def _take_update(self, text: bytes, received: int) -> None:
        found = NUMBERS.search(text)
        if found is None:
            raise Failed(f'{self.name}: an update without "seq" and "sent"')
        seq, sent = int(found[1]), int(found[2])
        if seq != self.next or seq >= self.target:
            what = "again" if seq < self.next else "unasked" if seq == self.next else "too early, others are missing"
            raise Failed(f"{self.name}: update {seq} came {what}; {self.next} was due")
        self.next += 1
        self.load.has_got(self.room, seq, sent, received, complete=self.next == self.target)


@define
class Question:
    """One of the probe's two questions, asked at fixed times whether or not the last one has been answered."""

    delays: Histogram = field(factory=Histogram)
    _asked: deque[int] = field(factory=deque)
    """When, in the order of the answers."""

    def answered(self, received: int, began: int) -> None:
        """Note the delay of an answer, unless the question was asked before the measurement began."""
        if self._asked and (asked := self._asked.popleft()) >= began:
            self.delays.note(received - asked)

    async def keep_asking(self, ask: Callable[[], None], interval: float) -> None:
        """Ask every ``interval`` seconds."""
        due = time.monotonic_ns()
        while True:
            await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            self._asked.append(time.monotonic_ns())
            ask()
            due += int(interval * 1e9)


class Load:
    """All sessions, and what is being measured."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ping = Question()
        self.rejoin = Question()
        self.began = 0  # in nanoseconds
        self._sessions: list[Session] = []
        self._probe: Session | None = None
        self._failed = ""
        self._waiting: asyncio.Semaphore | None = None
        self._pending = 0
        self._receipts: int | None = None
        self._room_sizes: Counter[int] = Counter()
        self._got: Counter[tuple[int, int]] = Counter()
        self._deliveries = 0
        self._first = 0  # publication, in nanoseconds
        self._progress = 0  # the last receipt or join, likewise
        self._delays = Histogram()
        self._cpu = 0.0

    def fail(self, why: str) -> None:
        """Note what went wrong; the first is the cause."""
        self._failed = self._failed or why

    def has_joined(self, received: int) -> None:
        """A session is in its room."""
        self._pending -= 1
        self._progress = received
        if self._waiting is not None:
            self._waiting.release()

    def has_got(self, room: int, seq: int, sent: int, received: int, *, complete: bool) -> None:
        """A session got an update, perhaps the last one it was to get."""
        self._deliveries += 1
        self._first = min(self._first or sent, sent)
        self._progress = received
        self._delays.note(received - sent)
        self._pending -= complete
        if self._receipts is not None:
            self._count_receipt(self._receipts, room, seq)

    def _count_receipt(self, receipts: int, room: int, seq: int) -> None:
        """Write a byte when the last member of the room has got an update."""
        self._got[room, seq] += 1
        if self._got[room, seq] == self._room_sizes[room]:
            del self._got[room, seq]
            try:
                os.write(receipts, b"\0")
            except OSError as error:
                raise Failed(f"cannot say what has arrived: {error.strerror}") from error

    async def obey(self, line: str) -> None:
        """Carry out one command and print the answer. Raises :exc:`Failed`."""
        command, *words = line.split(" ", 3)
        if command == "member":
            room = int(words[0])
            self._sessions.append(Session(self, len(self._sessions), room, words[1], words[2]))
            self._room_sizes[room] += 1
        elif command == "probe":
            self._probe = Session(self, len(self._sessions), -1, words[0], " ".join(words[1:]))
        elif command == "port":
            self.port = int(words[0])
        elif command == "receipts":
            self._receipts = int(words[0])
        elif command == "connect":
            await self._connect(int(words[0]))
        elif command == "measure":
            updates, patience, *intervals = (float(word) for word in line.split()[1:])
            await self._measure(int(updates), patience, [interval / 1000 for interval in intervals])
        else:
            raise Failed(f"an unknown command: {line}")

    def _begin(self) -> None:
        self._deliveries = 0
        self._first = 0
        self._delays = Histogram()
        self.began = self._progress = time.monotonic_ns()
        self._cpu = time.process_time()

    async def _connect(self, inflight: int) -> None:
        loop = asyncio.get_running_loop()
        everybody = [*self._sessions, *([self._probe] if self._probe is not None else [])]
        sessions = [session for session in everybody if not session.joined]
        self._pending = len(sessions)
        self._waiting = asyncio.Semaphore(inflight)
        self._begin()
        began = self._progress
        for session in sessions:
            while self._waiting.locked():
                await self._look(CONNECT_PATIENCE)
            await self._waiting.acquire()
            await loop.create_connection(lambda session=session: session, "127.0.0.1", session.port)  # type: ignore[misc]
        await self._wait(CONNECT_PATIENCE)
        say(
            {"joined": len(sessions), "seconds": (self._progress - began) / 1e9, "cpu": time.process_time() - self._cpu}
        )

    async def _measure(self, updates: int, patience: float, intervals: list[float]) -> None:
        for session in self._sessions:
            session.target += updates
        self._pending = len(self._sessions)
        self.ping.delays, self.rejoin.delays = Histogram(), Histogram()
        self._begin()
        say({"ready": True})
        async with asyncio.TaskGroup() as asking:
            tasks = []
            if (probe := self._probe) is not None:
                questions: tuple[tuple[Question, Callable[[], None]], ...] = (
                    (self.ping, partial(probe.send, "", 9)),
                    (self.rejoin, probe.join),
                )
                tasks = [
                    asking.create_task(question.keep_asking(ask, interval))
                    for (question, ask), interval in zip(questions, intervals, strict=True)
                    if interval
                ]
            await self._wait(patience)
            for task in tasks:
                task.cancel()
        await asyncio.sleep(LINGER)
        await self._look(patience)
        say({
            "deliveries": self._deliveries, "seconds": (self._progress - self._first) / 1e9,
            "cpu": time.process_time() - self._cpu, "delivery": self._delays.as_dict(),
            "ping": self.ping.delays.as_dict(), "join": self.rejoin.delays.as_dict(),
        })  # fmt: skip

    async def _wait(self, patience: float) -> None:
        while self._pending:
            await self._look(patience)

    async def _look(self, patience: float) -> None:
        """Let a moment pass, and see whether there is any sense in going on."""
        await asyncio.sleep(0.001)
        if not self._failed and time.monotonic_ns() - self._progress > patience * 1e9 and self._pending:
            self.fail(f"{self._pending} sessions still wait, and nothing more comes")
        if self._failed:
            raise Failed(self._failed)


def say(answer: dict[str, Any]) -> None:
    """Answer with one line."""
    print(json.dumps(answer), flush=True)


async def main() -> None:
    """Obey until standard input ends."""
    load = Load(int(sys.argv[1]))
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            await load.obey(line.rstrip("\n"))
    except* Failed as failed:
        say({"error": str(failed.exceptions[0])})
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
