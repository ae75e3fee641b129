"""What may be between a client and a server: a connection that is cut, held up, or loses what was said over it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from attrs import define

from kits import until

KEPT = 65_536
"""Bytes of what a client has said that are remembered of each connection."""


class Cut(Exception):
    """What a watcher raises to have the connection cut, and what came over it lost."""


@define(eq=False)
class _Connection:
    near: socket.socket
    far: socket.socket
    said: bytes = b""
    ended: bool = False
    """Its client says no more: it has closed it."""

    def cut(self) -> None:
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Cable:
    """Forwards TCP connections to a server on loopback until they are cut; more may follow.

    Connections are told apart by what their clients have said: ``word`` is some of it.
    """

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = port
        self._open: list[_Connection] = []
        self._before: dict[bytes, Callable[[], object]] = {}
        self._answered: dict[bytes, Callable[[], object]] = {}
        self._heard: dict[bytes, int] = {}
        self.plugged = threading.Event()
        self.plugged.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What happens to it

    def cut(self) -> None:
        """Cut all connections, and let no other through until ``plugged`` is set."""
        self.plugged.clear()
        while self._open:
            self._open.pop().cut()

    def cut_where(self, word: bytes) -> None:
        """Wait for a connection whose client has said this, and cut it."""
        until(lambda: any(self._with(word)), f"somebody says {word!r}")
        for connection in self._with(word):
            self._open.remove(connection)
            connection.cut()

    def say(self, word: bytes, data: bytes) -> None:
        """Say something to the server as a client that has said ``word``."""
        until(lambda: any(self._with(word)), f"somebody says {word!r}")
        for connection in self._with(word):
            connection.far.sendall(data)

    def before(self, word: bytes, call: Callable[[], object]) -> None:
        """From now on call this each time that a client says ``word``, before the server hears it.

        It may wait, which holds the connection up, or raise :exc:`Cut`.
        """
        self._before[word] = call

    def answered(self, word: bytes, call: Callable[[], object]) -> None:
        """From now on call this each time before an answer reaches a client that has said ``word``."""
        self._answered[word] = call

    def let(self, word: bytes) -> None:
        """Watch for this no longer."""
        self._before.pop(word, None)
        self._answered.pop(word, None)

    def heard(self, word: bytes) -> int:
        """In how many pieces of what clients say ``word`` has been since this was asked for the first time."""
        return self._heard.setdefault(word, 0)

    def close(self) -> None:
        """Cut everything, for good."""
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    # Inside

    def _with(self, word: bytes) -> list[_Connection]:
        return [connection for connection in list(self._open) if word in connection.said and not connection.ended]

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            connection = _Connection(near, far)
            if not self.plugged.is_set():
                connection.cut()
                continue
            self._open.append(connection)
            for copy in (self._copy_there, self._copy_back):
                threading.Thread(target=self._run, args=(copy, connection), daemon=True).start()

    def _run(self, copy: Callable[[_Connection], None], connection: _Connection) -> None:
        try:
            copy(connection)
        except (OSError, Cut):
            connection.cut()
            with contextlib.suppress(ValueError):
                self._open.remove(connection)

    def _copy_there(self, connection: _Connection) -> None:
        for data in _pieces(connection.near):
            connection.said = (connection.said + data)[-KEPT:]
            for word in [word for word in self._heard if word in data]:
                self._heard[word] += 1
            for word, call in list(self._before.items()):
                if word in data:
                    call()
            connection.far.sendall(data)
        connection.ended = True
        connection.far.shutdown(socket.SHUT_WR)

    def _copy_back(self, connection: _Connection) -> None:
        for data in _pieces(connection.far):
            for word, call in list(self._answered.items()):
                if word in connection.said:
                    call()
            connection.near.sendall(data)
        connection.near.shutdown(socket.SHUT_WR)


def _pieces(end: socket.socket) -> Iterator[bytes]:
    while data := end.recv(65536):
        yield data


class NoWebSocket(Cable):
    """A proxy that lets no WebSocket through: ``answer`` is what it says to one, or nothing."""

    def __init__(self, port: int, answer: bytes) -> None:
        self._answer = answer
        super().__init__(port)

    def _copy_there(self, connection: _Connection) -> None:
        # A client that wants one says so in the first request of a connection.
        if b"upgrade: websocket" in connection.near.recv(65536, socket.MSG_PEEK).lower():
            connection.near.sendall(self._answer)
            connection.near.shutdown(socket.SHUT_RDWR)
            return
        super()._copy_there(connection)
