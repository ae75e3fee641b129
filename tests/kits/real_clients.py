"""Unmodified Socket.IO clients behind one interface: python-socketio's two, and two versions of socket.io-client.

What they send and get is held against the documents for machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import shutil
import ssl
import subprocess
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
import requests
import socketio

from kits import PATIENCE, ROOT, contract_documents

TRANSPORTS: dict[str, list[str]] = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}

OPTIONS = {
    "reconnection_delay": 0.2,
    "reconnection_delay_max": 0.5,
    "handle_sigint": False,
    "request_timeout": PATIENCE,
}

Event = tuple[str, Any]

OF_THE_LIBRARY = {"connect", "connect_error", "disconnect", "ready", "upgrade"}
"""What ``report`` is told that the server has not sent. Beside that there is "ack" with a number."""


def cookies(header: str | None) -> dict[str, str]:
    """The one cookie of a ``Cookie`` header."""
    return {} if header is None else dict([header.split("=", 1)])


class RealClient(ABC):
    """One client. What happens to it is kept in ``events``: names, each with its first argument."""

    in_order = True
    """Whether the library hands over events in the order in which they came."""
    keeps = False
    """Whether the library keeps what is emitted while it is away, and sends it when it is back."""
    reasons: ClassVar[dict[str, str]]
    """How the library words the reasons of ``disconnect``."""

    def __init__(self, url: str, cookie: str | None, transports: list[str]) -> None:
        self.url = url
        self.cookie = cookie
        self.transports = transports
        self.events: list[Event] = []
        self.own_events: Collection[str] = ()
        """Events of an application that the server runs in: no document has them."""
        self._changed = threading.Condition()

    def report(self, event: str, data: Any = None) -> None:
        with self._changed:
            self.events.append((event, data))
            self._changed.notify_all()

    def wait(self, event: str, count: int = 1, since: int = 0) -> Any:
        """Wait until ``event`` has come ``count`` times after the first ``since`` events; what came with the last."""
        return self.wait_all(event, count, since)[count - 1]

    def wait_all(self, event: str, count: int, since: int = 0) -> list[Any]:
        """As ``wait``, but everything that came with each of them."""

        def came() -> list[Any]:
            return [data for name, data in self.events[since:] if name == event]

        with self._changed:
            assert self._changed.wait_for(lambda: len(came()) >= count, PATIENCE), (event, count, self.events[since:])
            return came()

    def all(self, event: str) -> list[Any]:
        """What came with each ``event`` so far."""
        return [data for name, data in list(self.events) if name == event]

    def welcomed(self) -> RealClient:
        """Connect, and wait until the server has said who it is and it is on the transport where it ends up."""
        self.connect()
        assert self.wait("connected") == {"message": "Connected to AutoModerate"}
        assert self.wait("ready") == self.transports[-1]
        return self

    @property
    def seen(self) -> int:
        """How many events there were so far, for ``since``."""
        return len(self.events)

    @abstractmethod
    def connect(self) -> None:
        """Begin to connect; ``connect`` or ``connect_error`` says what came of it."""

    def call(self, event: str, data: Any) -> Any:
        """Send an event and wait for its acknowledgement."""
        answer = self._call(event, data)
        if event not in self.own_events:
            contract_documents.acknowledged(event, [data], answer)
        return answer

    def check(self) -> None:
        """Hold what the server has sent against the document of the events."""
        for event, data in self.events:
            if event not in (*OF_THE_LIBRARY, *self.own_events) and not event.startswith("ack "):
                contract_documents.received(event, data)

    @abstractmethod
    def emit(self, event: str, data: Any) -> None:
        """Send an event."""

    @abstractmethod
    def emit_all(self, event: str, all_data: Sequence[Any]) -> None:
        """Send an event with each of these data in one go, with a wish for an acknowledgement of each."""

    @abstractmethod
    def _call(self, event: str, data: Any) -> Any:
        """What the acknowledgement says."""

    @abstractmethod
    def disconnect(self) -> None:
        """Leave on purpose."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""


class SimpleClient(socketio.SimpleClient):  # type: ignore[misc]
    """python-socketio's client for scripts; it closes its socket also where the server left first."""

    def disconnect(self) -> None:
        """Leave. The library closes the socket only of a session that it takes for alive."""
        engine = self.client and self.client.eio
        super().disconnect()
        if engine and engine.ws is not None:
            engine.ws.shutdown()


class PythonClient(RealClient):
    """python-socketio's ``Client``, which runs in threads."""

    in_order = False  # each event gets a thread of its own
    reasons: ClassVar[dict[str, str]] = {"server": "server disconnect", "client": "client disconnect"}

    def __init__(self, url: str, cookie: str | None, transports: list[str]) -> None:
        super().__init__(url, cookie, transports)
        # A cookie given with ``headers=`` would go with the first request only, and belongs with all of them.
        self._session = requests.Session()
        self._session.cookies.update(cookies(cookie))
        self._client = socketio.Client(http_session=self._session, **OPTIONS)
        # Also where it reconnects, for which the library has no option.
        self._client.connect = partial(self._client.connect, wait_timeout=PATIENCE)
        self._client.on("connect", lambda: self.report("connect"))
        self._client.on("connect_error", lambda error=None: self.report("connect_error", error))
        self._client.on("disconnect", lambda reason: self.report("disconnect", reason))
        self._client.on("*", lambda event, *args: self.report(event, args[0] if args else None))

    def connect(self) -> None:
        threading.Thread(target=self._connect, daemon=True).start()

    def _connect(self) -> None:
        try:
            self._client.connect(self.url, transports=self.transports)
        except socketio.exceptions.ConnectionError:
            pass  # reported
        else:
            self.report("ready", self._client.transport())

    def emit(self, event: str, data: Any) -> None:
        self._client.emit(event, data)

    def emit_all(self, event: str, all_data: Sequence[Any]) -> None:
        for data in all_data:
            self._client.emit(event, data, callback=lambda _answer: None)

    def _call(self, event: str, data: Any) -> Any:
        """Ask, and ask again where the connection was lost meanwhile, of which the library's ``call`` knows nothing.

        Over TLS that happens for no reason in one of some 300 connections, behind any server: the library reads and
        writes one TLS socket in two threads, which Python locks from 3.13 on.
        """
        answers: list[Any] = []
        while not answers:
            self._ask(event, data, answers)
        return answers[0]

    def _ask(self, event: str, data: Any, answers: list[Any]) -> None:
        seen = self.seen

        def answered(*args: Any) -> None:
            with self._changed:
                answers.append(args[0] if len(args) == 1 else args or None)
                self._changed.notify_all()

        def lost() -> bool:
            return any(happened == "disconnect" for happened, _ in self.events[seen:])

        with contextlib.suppress(socketio.exceptions.BadNamespaceError):  # it is lost just now
            self._client.emit(event, data, callback=answered)
        with self._changed:
            assert self._changed.wait_for(lambda: answers or lost(), PATIENCE), (event, self.events)
        if not answers:
            self.wait("connected", since=seen)

    def disconnect(self) -> None:
        self._client.disconnect()

    def close(self) -> None:
        self._client.shutdown()
        self._session.close()
        # After a server was killed the library forgets its socket without closing it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del self._client
            gc.collect()


class AsyncPythonClient(RealClient):
    """python-socketio's ``AsyncClient``, on an event loop in a thread."""

    reasons = PythonClient.reasons

    def __init__(self, url: str, cookie: str | None, transports: list[str]) -> None:
        super().__init__(url, cookie, transports)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = self._on_loop(self._make)

    async def _make(self) -> Any:
        # "unsafe" only means that a numeric address may have cookies.
        jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        # Made now: aiohttp's own knows the authorities of when it was imported.
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
        self._session = aiohttp.ClientSession(cookies=cookies(self.cookie), cookie_jar=jar, connector=connector)
        client = socketio.AsyncClient(http_session=self._session, **OPTIONS)
        client.connect = partial(client.connect, wait_timeout=PATIENCE)
        client.on("connect", lambda: self.report("connect"))
        client.on("connect_error", lambda error=None: self.report("connect_error", error))
        client.on("disconnect", lambda reason: self.report("disconnect", reason))
        client.on("*", lambda event, *args: self.report(event, args[0] if args else None))
        return client

    def _on_loop(self, what: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what(*args, **options), self._loop).result(PATIENCE * 2)

    def connect(self) -> None:
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop)

    async def _connect(self) -> None:
        try:
            await self._client.connect(self.url, transports=self.transports)
        except socketio.exceptions.ConnectionError:
            pass  # reported
        else:
            self.report("ready", self._client.transport())

    def emit(self, event: str, data: Any) -> None:
        self._on_loop(self._client.emit, event, data)

    def emit_all(self, event: str, all_data: Sequence[Any]) -> None:
        self._on_loop(self._emit_all, event, all_data)

    async def _emit_all(self, event: str, all_data: Sequence[Any]) -> None:
        for data in all_data:
            await self._client.emit(event, data, callback=lambda _answer: None)

    def _call(self, event: str, data: Any) -> Any:
        return self._on_loop(self._client.call, event, data, timeout=PATIENCE)

    def disconnect(self) -> None:
        self._on_loop(self._client.disconnect)

    def close(self) -> None:
        self._on_loop(self._client.shutdown)
        self._on_loop(self._finish)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finish(self) -> None:
        await self._session.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # aiohttp closes its sockets one turn of the loop later


class NodeClient(RealClient):
    """The newest socket.io-client in Node."""

    module = "socket.io-client"
    keeps = True
    reasons: ClassVar[dict[str, str]] = {"server": "io server disconnect", "client": "io client disconnect"}

    def __init__(self, url: str, cookie: str | None, transports: list[str]) -> None:
        super().__init__(url, cookie, transports)
        node = shutil.which("node")
        if node is None or not (ROOT / "node_modules" / self.module).exists():
            pytest.fail(f"needs Node and {self.module}: npm ci")
        options = {
            "transports": transports,
            "extraHeaders": {} if cookie is None else {"Cookie": cookie},
            "reconnectionDelay": 200,
            "reconnectionDelayMax": 500,
            "timeout": PATIENCE * 1000,
        }
        command = [node, str(Path(__file__).parent / "driver.mjs"), self.module, url, json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._numbers = itertools.count()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event, *args = json.loads(line)
            if event == "ack":
                event = f"ack {args.pop(0)}"
            self.report(event, args[0] if args else None)
            if event in ("connect", "upgrade") and args[0] == self.transports[-1]:
                self.report("ready", args[0])

    def _tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def connect(self) -> None:
        self._tell(do="connect")

    def emit(self, event: str, data: Any) -> None:
        self._tell(do="emit", event=event, data=data)

    def emit_all(self, event: str, all_data: Sequence[Any]) -> None:
        self._tell(do="emitAll", event=event, all=all_data)

    def _call(self, event: str, data: Any) -> Any:
        number = next(self._numbers)
        self._tell(do="call", event=event, data=data, number=number)
        return self.wait(f"ack {number}")

    def disconnect(self) -> None:
        self._tell(do="disconnect")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._reader.join()
            self._process.stdout.close()


class OldNodeClient(NodeClient):
    """The first socket.io-client of version 4."""

    module = "socket.io-client-4.0.0"


LIBRARIES: dict[str, type[RealClient]] = {
    "python": PythonClient,
    "python-async": AsyncPythonClient,
    "node": NodeClient,
    "node-4.0.0": OldNodeClient,
}
"""Every library, by the name under which its tests run."""


class Clients:
    """Makes clients, and closes those that it has made."""

    def __init__(self, *own_events: str) -> None:
        """``own_events`` are those of an application that the server runs in."""
        self._made: list[RealClient] = []
        self._own_events = own_events

    def __call__(
        self, url: str, cookie: str | None, transports: str = "websocket", library: str = "python-async"
    ) -> RealClient:
        """A client that has not been told to connect yet."""
        made = LIBRARIES[library](url, cookie, TRANSPORTS[transports])
        made.own_events = self._own_events
        self._made.append(made)
        return made

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Have them leave; others may follow. What they were sent has to be what the documents say."""
        left = list[RealClient]()
        while self._made:
            left.append(self._made.pop())
            left[-1].close()
        for client in left:
            client.check()
