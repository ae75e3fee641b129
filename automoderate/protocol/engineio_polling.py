"""HTTP long-polling: the packets that wait for a client, and the answers to its polls."""

from __future__ import annotations

from automoderate.protocol.config import Config
from automoderate.protocol.engineio_payload import NOOP, join, size_of
from automoderate.protocol.engineio_requests import Answers
from automoderate.protocol.engineio_sessions import Sessions
from automoderate.protocol.http import Header
from automoderate.protocol.model import NOTHING_QUEUED, Connection, ConnectionState, EngineIOSessionState, Session

__all__ = ["NOOP_INTERVAL", "TEXT", "Polling"]

NOOP_INTERVAL = 0.1
"""Seconds between two empty answers to a client that polls on while its upgrade is pending, as the reference server."""

MAX_POLL_PACKETS = 16
"""Packets in one answer to a poll: python-engineio's clients give up a transport that brings them more at once."""

TEXT: tuple[Header, ...] = (("Content-Type", "text/plain; charset=UTF-8"),)
"""The headers of an answer that is a payload."""


class Polling:
    """The polls of all sessions.

    A session that has got something to tell stands in ``due`` until ``answer_due``, so that everything it is sent in
    one go leaves in one answer.
    """

    def __init__(self, config: Config, answers: Answers, sessions: Sessions) -> None:
        self._config = config
        self._answers = answers
        self._sessions = sessions
        self.due: dict[Session, None] = {}
        """Sessions whose poll may have an answer; always this one object."""

    def wait(self, connection: Connection, session: Session) -> None:
        """Let the connection's request wait for something to tell the session's client."""
        session.poll = connection
        connection.state = ConnectionState.POLLING
        self.due[session] = None

    def enqueue(self, session: Session, packet: str | bytes, now: float) -> bool:
        """Queue a packet for the session's next poll; False where more than ``Config.send_buffer`` bytes wait now."""
        size = size_of(packet)
        if session.queued + size > self._config.send_buffer:
            self.answer(session, now)
        if session.queue:
            session.queue.append((packet, size))
        else:
            session.queue = [(packet, size)]
        session.queued += size
        self.due[session] = None
        return session.queued <= self._config.send_buffer

    def take_queue(self, session: Session) -> list[str | bytes]:
        """Empty the session's queue: its packets leave another way, or not at all."""
        packets = [packet for packet, _ in session.queue]
        session.queue, session.queued = NOTHING_QUEUED, 0
        return packets

    def answer_due(self, now: float) -> None:
        """Answer the polls of all sessions that have something to tell."""
        due = list(self.due)
        self.due.clear()
        for session in due:
            self.answer(session, now)

    def answer(self, session: Session, now: float) -> None:
        """Give the poll that waits what there is to say; without anything it goes on waiting."""
        connection = session.poll
        if connection is None:
            return
        # A client that has to ask again keeps its connection also while the server drains: a new one may find no
        # listener any more.
        last: bool | None = False
        if session.queue:
            body = self._bundle(session)
        elif session.state is EngineIOSessionState.CLOSING:
            body, last = session.farewell.payload, None
            self._sessions.forget(session)
        elif session.probed and now >= session.next_noop:
            body = NOOP
            session.next_noop = now + NOOP_INTERVAL
        else:
            if session.probed:
                self._sessions.noops.set(session, session.next_noop)
            return
        session.poll = None
        self._answers.answer(connection, 200, body, TEXT, now, last)

    def release(self, session: Session, body: bytes, now: float) -> None:
        """Answer the poll that waits, if one does, with this body and nothing of the queue."""
        connection, session.poll = session.poll, None
        if connection is not None:
            self._answers.answer(connection, 200, body, TEXT, now)

    def _bundle(self, session: Session) -> bytes:
        """As many queued packets as ``max_payload`` and the clients allow, at least one."""
        items: list[str | bytes] = []
        room = self._config.max_payload
        for item, size in session.queue[:MAX_POLL_PACKETS]:
            if items and size > room:
                break
            session.queued -= size
            room -= size + 1
            items.append(item)
        del session.queue[: len(items)]
        return join(items)
