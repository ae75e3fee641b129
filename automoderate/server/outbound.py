"""The way out of the server: the order in which its outputs are performed, and the turns in which rooms are served."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from automoderate.core.hub import Update
from automoderate.protocol import outputs
from automoderate.protocol.broadcast import event_packet
from automoderate.protocol.model import Client, Encoded, Session
from automoderate.protocol.outputs import Output, Write
from automoderate.protocol.socketio import SocketIOServer
from automoderate.protocol.websocket import text_frame
from automoderate.server.jobs import AT_ONCE
from automoderate.server.rooms import MAX_QUEUED, Rooms, Writes
from automoderate.server.telemetry import Telemetry
from automoderate.server.tracing import TracedDelivery

__all__ = ["WRITES_PER_TURN", "Outbound"]

WRITES_PER_TURN = 128
"""Writes of broadcasts between two looks at the other sockets: a millisecond or so, and no throughput lost."""


class Outbound:
    """Outputs of the protocol and of the server in one order, which is the order that each client sees.

    A broadcast waits in its room for a turn. Whatever else is written to a member meanwhile goes out behind it.
    """

    def __init__(self, wire: SocketIOServer, sids: Mapping[Session, str], window: float, telemetry: Telemetry) -> None:
        """``sids`` has the id of the client of each session; ``telemetry`` is told how long each broadcast took.

        Updates of a room wait for one another for up to ``window`` seconds.
        """
        self._wire = wire
        self._sids = sids
        self._rooms = Rooms(window, telemetry.written)
        self._telemetry = telemetry
        self._allowance = WRITES_PER_TURN
        self._outputs: list[Output] = []
        self.deliveries = 0
        """Members that broadcasts were sent to, so far."""
        self.counting: dict[str, int] | None = None
        """Members that broadcasts were sent to, by project, while an operator wants to know."""

    def next_deadline(self) -> float | None:
        """When ``turn`` is next wanted: at once where a room waits for its turn."""
        return AT_ONCE if self._rooms.busy else self._rooms.next_release()

    def turn(self, now: float) -> None:
        """The other sockets have been looked at: rooms may be served again."""
        self._allowance = WRITES_PER_TURN
        self._rooms.release(now)

    def queue(self, output: Output) -> None:
        """Queue an output behind everything that the protocol has queued so far."""
        self._drain_wire()
        self._outputs.append(output)

    def outputs(self) -> list[Output]:
        """What is to be done now, in order."""
        self._drain_wire()
        if self._rooms.busy and self._allowance > 0:
            writes, self._allowance = self._rooms.take(self._allowance)
            self._fan_out(writes)
        if not self._rooms.busy:
            self._allowance = WRITES_PER_TURN
        drained, self._outputs = self._outputs, []
        return drained

    def send(self, client: Client, event: str, text: str, now: float) -> None:
        """Send one client an event, whose data ``text`` is."""
        packet = event_packet(event, text)
        self._wire.send_encoded(client, Encoded(packet, text_frame(packet)), now)

    def enter(self, room: str, client: Client) -> None:
        """From here on the client is sent what is broadcast to the room."""
        self._rooms.enter(room, client, self._wire.wire_connection(client.session))

    def leave(self, room: str, sid: str) -> None:
        """The client is sent nothing more of the room but what was broadcast before."""
        self._fan_out(self._rooms.leave(room, sid))

    def upgrade(self, session: Session) -> None:
        """The session has a WebSocket now."""
        sid, connection = self._sids.get(session), self._wire.wire_connection(session)
        if sid is not None and connection is not None:
            self._rooms.upgrade(sid, connection)

    def has_room(self, room: str) -> bool:
        """Whether less than half of what may wait in a room does."""
        return self._rooms.queued(room) <= MAX_QUEUED // 2

    def broadcast(self, room: str, update: Update, now: float) -> None:
        """The same bytes go to every WebSocket, when it is its turn, and the same packet to all that poll, now."""
        packet = event_packet(update.event, update.text)
        frame = text_frame(packet)
        self._drain_wire()  # what was sent before the broadcast must not count as sent after it
        made = now if update.trace is None else self._traced(room, update.trace, update, now)
        members, overflow, polling = self._rooms.broadcast(room, frame, now, made)
        self.deliveries += members
        if self.counting is not None:
            self._count(update, members + len(polling))
        if overflow or polling:
            self._deliver(overflow, polling, Encoded(packet, frame), now)

    def broadcast_except(self, room: str, update: Update, sids: Collection[str], now: float) -> None:
        """As ``broadcast``, to all members but these."""
        packet = event_packet(update.event, update.text)
        frame = text_frame(packet)
        self._drain_wire()
        members, writes, polling = self._rooms.broadcast_except(room, frame, sids, now)
        self.deliveries += members
        if self.counting is not None:
            self._count(update, members + len(polling))
        self._deliver(writes, polling, Encoded(packet, frame), now)

    def _count(self, update: Update, deliveries: int) -> None:
        assert self.counting is not None, "somebody wants to know"
        self.counting[update.project_id] = self.counting.get(update.project_id, 0) + deliveries

    def _traced(self, room: str, trace: str, update: Update, now: float) -> float:
        if self._telemetry.tracer is None:
            return now
        return TracedDelivery.of(now, trace, {"room": room, "event": update.event, "event_id": update.event_id})

    def _deliver(self, writes: Writes, polling: Collection[Client], encoded: Encoded, now: float) -> None:
        """Do what of a broadcast is done at once."""
        self._fan_out(writes)
        self.deliveries += len(polling)
        for client in polling:
            self._wire.send_encoded(client, encoded, now)

    def _drain_wire(self) -> None:
        """Take over the protocol's outputs, each behind the broadcasts that its connection was to be sent before."""
        if not self._wire.has_outputs():
            return
        drained = self._wire.outputs()
        if self._rooms.owing:
            for output in drained:
                if isinstance(output, Write) and output.connection.session is not None:
                    self._flush(output.connection.session)
                self._outputs.append(output)
        else:
            self._outputs.extend(drained)

    def _flush(self, session: Session) -> None:
        sid = self._sids.get(session)
        if sid is not None:
            self._fan_out(self._rooms.flush(sid))

    def _fan_out(self, writes: Writes) -> None:
        if writes:
            self._outputs.append(outputs.Fanout(writes))
