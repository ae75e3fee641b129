"""Hostile clients in a process of their own: ``python -m benchmarks.hostile.attacker PORT INPUT CONNECTIONS``.

Says ``{"ready": true}`` when all bytes are made, attacks from the first line it reads to the second, though never
before everybody had a turn, and says what became of it. Up to fifty connections come from an address each in
127.0.0.0/8, more share those. Each sends its megabyte, reads and forgets what is answered, and begins anew, though not
at once and not without end.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator

from attrs import asdict, define, field

from benchmarks.hostile.inputs import HOST, INPUTS, MANY, PATH, Input, frame
from benchmarks.under_test import say

PAUSE = 0.05  # seconds until a client comes again
SILENCE = 0.1  # seconds without an answer after which it does not wait for more
BEGINNING = 5.0  # seconds that everybody has for a first turn
ADDRESSES = 50
MOST_EACH = 6  # megabytes of each client: what a server takes in without end must not fill this machine
UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n" + HOST
    + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)  # fmt: skip


@define
class Count:
    """What all clients together have done."""

    sent: int = 0
    """Bytes that the kernel has taken."""
    answered: int = 0
    """Bytes that came back."""
    rounds: int = 0
    opened: int = 0
    """Connections that came about."""
    ended: int = 0
    """Connections that the server has ended, or did not accept."""


@define(eq=False)
class Attacker:
    """One hostile client."""

    port: int
    input: Input
    payload: bytes
    address: str
    count: Count
    begun: asyncio.Event = field(factory=asyncio.Event)
    """It has sent something, or could not."""

    async def attack(self) -> None:
        """Send the payload again and again, until cancelled."""
        for _ in range(MOST_EACH):
            self.count.rounds += 1
            try:
                await self._attack_once()
            except (OSError, asyncio.IncompleteReadError):
                self.count.ended += 1
            self.begun.set()
            await asyncio.sleep(PAUSE)

    async def _attack_once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.address, 0))
        self.count.opened += 1
        try:
            if self.input.how in ("websocket", "silence"):
                await self._upgrade(reader, writer)
            sid = await self._open_session(reader, writer) if self.input.how in ("post", "chunks") else ""
            sending = asyncio.ensure_future(self._send(writer, sid))
            try:
                await self._forget(reader, sending)
            finally:
                sending.cancel()
        finally:
            writer.transport.abort()

    def _pieces(self, sid: str) -> Iterator[bytes]:
        """What is sent, as it is handed over."""
        head = f"POST {PATH}polling&sid={sid} HTTP/1.1\r\n".encode() + HOST + b"Content-Type: text/plain\r\n"
        if self.input.how == "post":
            yield head + f"Content-Length: {len(self.payload)}\r\n\r\n".encode()
        elif self.input.how == "chunks":
            yield head + b"Transfer-Encoding: chunked\r\n\r\n"
        size = 1 if self.input.slow else 65536
        for start in range(0, len(self.payload), size):
            yield self.payload[start : start + size]
        if self.input.how == "chunks":
            yield b"0\r\n\r\n"

    async def _send(self, writer: asyncio.StreamWriter, sid: str) -> None:
        for piece in self._pieces(sid):
            writer.write(piece)
            await writer.drain()
            self.count.sent += len(piece)
            self.begun.set()
            if self.input.slow:
                await asyncio.sleep(1.0)
        if self.input.how == "silence":
            self.begun.set()
            await asyncio.Event().wait()

    async def _forget(self, reader: asyncio.StreamReader, sending: asyncio.Future[None]) -> None:
        """Read until the server ends the connection, or all is sent and nothing comes any more."""
        patience = None if self.input.slow or self.input.how == "silence" else SILENCE
        while True:
            try:
                data = await asyncio.wait_for(reader.read(65536), patience)
            except TimeoutError:
                if sending.done():
                    return
                continue
            if not data:
                self.count.ended += 1
                return
            self.count.answered += len(data)

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        if self.input.how == "websocket":
            writer.write(frame(b"40"))

    async def _open_session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Open a session by polling and connect it; its sid."""
        writer.write(f"GET {PATH}polling HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        found = re.search(rb'"sid":"([^"]+)"', await self._answer(reader))
        if found is None:
            raise ConnectionError("no session")
        sid = found[1].decode()
        writer.write(
            f"POST {PATH}polling&sid={sid} HTTP/1.1\r\n".encode() + HOST
            + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n40"
        )  # fmt: skip
        await self._answer(reader)
        return sid

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        return await reader.readexactly(int(length[1])) if length else b""


async def attack(port: int, kind: Input, connections: int) -> Count:
    """Attack until a line is read."""
    count, payload = Count(), kind.make()
    say({"ready": True})
    await asyncio.to_thread(sys.stdin.readline)
    attackers = [
        Attacker(port, kind, payload, f"127.0.0.{2 + number % ADDRESSES}", count) for number in range(connections)
    ]
    clients = [asyncio.ensure_future(attacker.attack()) for attacker in attackers]
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.wait([asyncio.ensure_future(attacker.begun.wait()) for attacker in attackers], timeout=BEGINNING)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    return count


def main() -> None:
    """Attack once."""
    os.nice(19)  # on the core of the other clients, whose waiting is not to be for us
    port, name, connections = sys.argv[1:]
    kind = next(kind for kind in (*INPUTS, *MANY) if kind.name == name)
    count = asyncio.run(attack(int(port), kind, int(connections)))
    say(asdict(count))
    sys.stdin.read()


if __name__ == "__main__":
    main()
