"""WebSockets of Engine.IO sessions: the opening handshake, the upgrade from polling, and the closing handshake."""

from __future__ import annotations

from collections import deque

from websockets.frames import CloseCode

from automoderate.protocol import handshake, websocket
from automoderate.protocol.config import Config
from automoderate.protocol.engineio_payload import NOOP, encode_binary
from automoderate.protocol.engineio_polling import Polling
from automoderate.protocol.engineio_requests import Answers, Failure
from automoderate.protocol.events import EngineIOEvent, SessionUpgraded
from automoderate.protocol.http import LINGER, HttpServer
from automoderate.protocol.model import Connection, EngineIOSessionState, Farewell, Request, Session

__all__ = ["Upgrades", "frame"]


class Upgrades:
    """Takes requests for a WebSocket, and moves polling sessions over to it.

    An upgrade is a *probe* first: a second connection, on which the client says ``2probe`` and is answered ``3probe``
    while it goes on polling. With ``5`` the session moves. A client that is sure of its WebSocket may begin with that.
    """

    def __init__(
        self, config: Config, http: HttpServer, answers: Answers, polling: Polling, events: deque[EngineIOEvent]
    ) -> None:
        self._config = config
        self._http = http
        self._answers = answers
        self._polling = polling
        self._events = events

    def accept(self, connection: Connection, request: Request, now: float) -> bool:
        """Make the connection a WebSocket; False where that is refused."""
        if request.header("sec-websocket-version") != handshake.VERSION:
            self._answers.fail(connection, Failure.UPGRADE_REQUIRED, now)
            return False
        headers = handshake.answer(request)
        if headers is None:
            self._answers.fail(connection, Failure.BAD_REQUEST, now)
            return False
        self._http.switch(connection, headers)
        connection.websocket = websocket.WebSocket(self._config.max_payload)
        connection.base64 = bool(request.query.get("b64"))
        return True

    def start(self, connection: Connection, session: Session, now: float) -> None:
        """Let a new WebSocket probe for a session, unless that has one already."""
        if (
            session.transport == "websocket"
            or session.probe is not None
            or session.state is not EngineIOSessionState.OPEN
        ):
            self.close_websocket(connection, Farewell.BROKEN, now)
        else:
            session.probe = connection
            self._http.timers.set(connection, now + self._config.upgrade_timeout)

    def on_message(self, connection: Connection, session: Session, message: str | bytes, now: float) -> None:
        """A message on the WebSocket that probes."""
        if message == "2probe":
            session.probed = True
            self._polling.due[session] = None
            self._http.write(connection, websocket.text_frame("3probe"))
        elif isinstance(message, str) and message.startswith("5"):
            self._complete(connection, session, now)
        else:
            self.cancel(session, now)

    def _complete(self, connection: Connection, session: Session, now: float) -> None:
        self._http.timers.cancel(connection)
        session.probe, session.probed = None, False
        session.connection = connection
        self._polling.release(session, NOOP, now)
        for packet in self._polling.take_queue(session):
            self._http.write(connection, frame(packet, connection))
        self._events.append(SessionUpgraded(session))

    def cancel(self, session: Session, now: float) -> None:
        """Close the WebSocket that probes, if there is one: the upgrade has failed, or the session has ended.

        A client whose upgrade has failed goes on polling.
        """
        connection, session.probe, session.probed = session.probe, None, False
        if connection is not None:
            self.close_websocket(connection, Farewell.BROKEN, now)

    def close_websocket(self, connection: Connection, farewell: Farewell, now: float) -> None:
        """Say farewell by a close frame or by the end of the stream, and wait for the peer's, which comes at once."""
        wire, connection.session = connection.websocket, None
        if wire is None:
            return
        if farewell.close_code == CloseCode.ABNORMAL_CLOSURE:
            connection.websocket = None
            wire.forget()
            self._http.send_eof(connection)
        else:
            wire.close(farewell.close_code)
            self._http.write(connection, wire.data_to_send())
        self._http.connections.add(connection)
        self._http.timers.set(connection, now + LINGER)


def frame(packet: str | bytes, connection: Connection) -> bytes:
    """The frame of one packet on a WebSocket."""
    if isinstance(packet, str):
        return websocket.text_frame(packet)
    return websocket.text_frame(encode_binary(packet)) if connection.base64 else websocket.binary_frame(packet)
