"""A Redis that answers as a test tells it to: for what a real one says in situations that no test can bring about."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO

Answer = Callable[[list[bytes]], bytes]


class ScriptedRedis:
    """Answers each command with what ``answer`` makes of its words, and what a client says of itself with OK."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> ScriptedRedis:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for end in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as said:
            for command in _commands(said):
                connection.sendall(b"+OK\r\n" if command[0] == b"CLIENT" else self.answer(command))


def _commands(said: BinaryIO) -> Iterator[list[bytes]]:
    """The commands that a client sends, each an array of bulk strings."""
    while line := said.readline():
        command = []
        for _ in range(int(line[1:])):
            size = int(said.readline()[1:])
            command.append(said.read(size + 2)[:-2])
        yield command
