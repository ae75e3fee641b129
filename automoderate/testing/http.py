"""The HTTP side of a simulated client: what it needs for long-polling."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import h11

from automoderate.testing.network import SimulatedConnection


class HttpRequests:
    """A client's HTTP requests, one after the other over one connection, which is opened where there is none."""

    def __init__(
        self,
        dial: Callable[[], SimulatedConnection],
        headers: Mapping[str, str],
        on_failed: Callable[[], None],
    ) -> None:
        """Each request is sent with what ``headers`` has then.

        ``on_failed`` is called when the connection breaks while a request waits for its answer.
        """
        self._dial = dial
        self._headers = headers
        self._on_failed = on_failed
        self._connection: SimulatedConnection | None = None
        self._h11 = h11.Connection(h11.CLIENT)
        self._body = b""
        self._status = 0
        self._done: Callable[[int, bytes], None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._done is not None

    def request(self, method: str, target: str, body: bytes, done: Callable[[int, bytes], None]) -> None:
        """Send one request; ``done(status, body)`` is called with the answer."""
        if self._connection is None:
            self._connection = self._dial()
            self._connection.on_data = self._on_data
            self._connection.on_lost = self._on_lost
            self._h11 = h11.Connection(h11.CLIENT)
        self._done, self._body = done, b""
        headers = [("Host", "localhost:6217"), *self._headers.items(), ("Content-Length", str(len(body)))]
        pieces = [
            self._h11.send(h11.Request(method=method, target=target, headers=headers)),
            self._h11.send(h11.Data(data=body)),
            self._h11.send(h11.EndOfMessage()),
        ]
        self._connection.send(b"".join(piece for piece in pieces if piece))

    def _on_data(self, data: bytes) -> None:
        self._h11.receive_data(data)
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._finish()
                return
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return

    def _on_lost(self) -> None:
        """Forget the connection. Between two requests that is no failure: the next one opens another."""
        self._connection = None
        if self.busy:
            self._on_failed()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if self._h11.our_state is h11.MUST_CLOSE:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.cut()
        else:
            self._h11.start_next_cycle()
        assert done is not None
        done(self._status, self._body)

    def connections(self) -> list[SimulatedConnection]:
        """The one that is open, if any."""
        return [self._connection] if self._connection is not None else []
