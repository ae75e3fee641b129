"""One Engine.IO session over a real socket, for an event loop that has hundreds of them: packets in, packets out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import Protocol

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from kits import PATIENCE
from kits.contract_client import target
from kits.soak.plan import Transport

FAILURES = (OSError, EOFError, TimeoutError, InvalidHandshake, InvalidMessage, aiohttp.ClientError)


class Gone(Exception):
    """The session is over, or there is none: whatever the reason, a client comes back and asks for the rest."""


class Wire(Protocol):
    """A session that is open. One task receives, and sends what comes of it."""

    async def send(self, packet: str) -> None:
        """Send one packet. Raises Gone."""

    async def receive(self) -> str:
        """The next packet. While nobody asks for it the server's data stays where it is. Raises Gone."""

    def cut(self) -> None:
        """The connection is lost, without a word."""

    async def close(self) -> None:
        """Give back what is open."""


class WebSocketWire:
    """A WebSocket from the beginning."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, base: str, cookie: str, sid: str = "") -> WebSocketWire:
        """``sid`` is that of a session that is to upgrade. Raises Gone."""
        try:
            connection = await connect(
                f"ws{base.removeprefix('http')}{target('websocket', sid)}", additional_headers={"Cookie": cookie},
                compression=None, proxy=None, ping_interval=None, open_timeout=PATIENCE, close_timeout=1.0,
                max_size=None, max_queue=1,
            )  # fmt: skip
        except FAILURES as error:
            raise Gone(str(error)) from error
        return cls(connection)

    async def send(self, packet: str) -> None:
        try:
            await self._connection.send(packet)
        except ConnectionClosed as closed:
            raise Gone(str(closed)) from closed

    async def receive(self) -> str:
        try:
            packet = await self._connection.recv()
        except ConnectionClosed as closed:
            raise Gone(str(closed)) from closed
        assert isinstance(packet, str), packet
        return packet

    def cut(self) -> None:
        self._connection.transport.abort()

    async def close(self) -> None:
        self.cut()
        await self._connection.wait_closed()


class PollingWire:
    """HTTP long-polling. A request that fails ends the session: nobody knows what its answer would have been."""

    def __init__(self, http: aiohttp.ClientSession, base: str, cookie: str) -> None:
        self._http = http
        self._base = base
        self.sid = ""
        self._headers = {"Cookie": cookie}
        self._packets: deque[str] = deque()
        self._requests: set[asyncio.Task[str]] = set()
        self._posting = asyncio.Lock()
        self._over = False

    @classmethod
    async def open(cls, http: aiohttp.ClientSession, base: str, cookie: str) -> PollingWire:
        """Raises Gone."""
        wire = cls(http, base, cookie)
        wire._packets.appendleft(await wire.receive())
        wire.sid = json.loads(wire._packets[0][1:])["sid"]
        return wire

    async def send(self, packet: str) -> None:
        async with self._posting:
            await self._ask("POST", packet)

    async def pause(self) -> None:
        """Wait for what is being sent; nobody receives meanwhile."""
        async with self._posting:
            pass

    async def receive(self) -> str:
        while not self._packets:
            self._packets.extend((await self._ask("GET", None)).split("\x1e"))
        return self._packets.popleft()

    @property
    def fetched(self) -> bool:
        """Whether it has packets that nobody has received yet."""
        return bool(self._packets)

    def cut(self) -> None:
        self._over = True
        for request in self._requests:
            request.cancel()

    async def close(self) -> None:
        self.cut()

    async def _ask(self, method: str, body: str | None) -> str:
        if self._over:
            raise Gone("cut")
        request = asyncio.create_task(self._answer(method, body))
        self._requests.add(request)
        try:
            return await request
        except FAILURES as error:
            self._over = True
            raise Gone(str(error)) from error
        except asyncio.CancelledError:
            request.cancel()
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Gone("cut") from None
        finally:
            self._requests.discard(request)

    async def _answer(self, method: str, body: str | None) -> str:
        url = self._base + target("polling", self.sid)
        async with self._http.request(method, url, data=body, headers=self._headers) as response:
            if response.status != 200:
                raise aiohttp.ClientError(f"{response.status} {await response.text()}")
            return await response.text()


class UpgradingWire:
    """Polling first, and a WebSocket as soon as the server takes it, as the official clients do."""

    def __init__(self, polling: PollingWire, base: str, cookie: str) -> None:
        self._polling = polling
        self._socket: WebSocketWire | None = None
        self._wire: PollingWire | WebSocketWire = polling
        self._probing = asyncio.create_task(self._probe(base, cookie))

    async def _probe(self, base: str, cookie: str) -> bool:
        """Whether the server answers over a WebSocket, too; where it does not, the session goes on polling."""
        with contextlib.suppress(Gone):
            self._socket = await WebSocketWire.open(base, cookie, self._polling.sid)
            await self._socket.send("2probe")
            return await self._socket.receive() == "3probe"
        return False

    def _probed(self) -> bool:
        return self._probing.done() and self._probing.result()

    async def send(self, packet: str) -> None:
        await self._wire.send(packet)

    async def receive(self) -> str:
        """Between two polls the WebSocket takes over: the server ends a poll that waits for nothing."""
        if self._wire is self._polling and not self._polling.fetched and self._probed():
            assert self._socket is not None
            await self._polling.pause()
            await self._socket.send("5")
            self._wire = self._socket
        return await self._wire.receive()

    def cut(self) -> None:
        self._polling.cut()
        if self._socket is not None:
            self._socket.cut()

    async def close(self) -> None:
        self._probing.cancel()
        await asyncio.gather(self._probing, return_exceptions=True)
        await self._polling.close()
        if self._socket is not None:
            await self._socket.close()


async def open_wire(transport: Transport, http: aiohttp.ClientSession, base: str, cookie: str) -> Wire:
    """Open a session at the node whose address is ``base``. Raises Gone."""
    if transport == "websocket":
        return await WebSocketWire.open(base, cookie)
    polling = await PollingWire.open(http, base, cookie)
    return polling if transport == "polling" else UpgradingWire(polling, base, cookie)


def new_http() -> aiohttp.ClientSession:
    """What all sessions that poll share: as many connections as they need."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=PATIENCE),
        cookie_jar=aiohttp.DummyCookieJar(),
    )  # fmt: skip
