"""The server, still sans-IO: the protocol's events become the hub's inputs, the hub's effects become packets and jobs.

An adapter drives it through the methods of :class:`automoderate.protocol.outputs.Driver`; everything it wants done it
queues, in order, for ``outputs()``. Drain order after every call that takes ``now``: first ``outputs()``, then
``next_deadline()`` for the one timer.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from automoderate.core import hub
from automoderate.core.hub import Access, History, Limits, Update
from automoderate.protocol import events, outputs
from automoderate.protocol.broadcast import event_packet, object_text
from automoderate.protocol.config import Config
from automoderate.protocol.engineio import Encoded, Session
from automoderate.protocol.events import CloseReason, Request
from automoderate.protocol.http import Connection
from automoderate.protocol.outputs import Driver, Output, Peer, Transport, Write
from automoderate.protocol.rooms import Rooms, Writes
from automoderate.protocol.socketio import Client, ClientState, SocketServer
from automoderate.protocol.timers import earliest
from automoderate.protocol.websocket import text_frame

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Backplane", "BackplaneUnavailable", "Directory", "Driver", "LocalBackplane", "NotRunning", "RemoteBackplane",
    "Server",
]  # fmt: skip

logger = logging.getLogger("automoderate.server")

NAMESPACE = "/"
WRITES_PER_TURN = 128
"""Writes of broadcasts between two looks at the other sockets: a millisecond or so, and no throughput lost."""

SHARED_FOR = 1.0
"""Seconds for which who asks the directory what is being asked already waits for that answer."""

T = TypeVar("T")


class NotRunning(RuntimeError):
    """The server is not running, not yet or no longer: nothing was published."""


class BackplaneUnavailable(RuntimeError):
    """What the nodes share cannot be reached, or did not say in time whether it has taken something."""


class Directory(Protocol):
    """Who is who and who may see what. Blocking: each call but ``session_cookie`` runs in a worker thread.

    An exception means that the question could not be answered; the client is told ``server_error``.
    """

    def identify(self, cookie: str | None) -> str | None:
        """The active user a ``Cookie`` header belongs to, or None; logs why somebody counts as anonymous."""

    def session_cookie(self, cookie: str | None) -> str | None:
        """The session cookie's value within a ``Cookie`` header. Pure and fast: called for every request."""

    def session_user(self, cookie: str | None) -> str | None:
        """The user id a signed cookie names, whether or not that user may still log in."""

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether the user may be in the project's room."""

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """The projects still allowed; None where the user is unknown or inactive."""


class Backplane(Protocol):
    """Remembers the recent updates of projects and hands new ones to the hub."""

    def follow(self, project_id: str) -> None:
        """Hand over the project's updates, from where the next ``read`` of it ends. On the loop's thread."""

    def unfollow(self, project_id: str) -> None:
        """Hand them over no more. On the loop's thread."""

    def read(self, project_id: str, after: str | None) -> History:
        """What was published after the event id ``after``; without one, only the present position."""


class LocalBackplane(Backplane, Protocol):
    """Numbers updates itself and hands each to ``listener``. Called on the loop's thread."""

    blocking: Literal[False]
    listener: Callable[[Update], None] | None

    def publish(self, project_id: str, event: str, text: str) -> Update:
        """Number and keep one event, whose data ``text`` is, and call the listener with it before returning."""


class RemoteBackplane(Backplane, Protocol):
    """Shared by several nodes. Thread-safe; what was published anywhere it hands over from a thread of its own.

    ``read`` takes time and runs in a worker thread, where it raises BackplaneUnavailable if it cannot be answered.
    """

    blocking: Literal[True]

    def start(self, receive: Callable[[list[hub.Input]], Future[None]]) -> None:
        """Begin to hand over what the hub is to be told (:meth:`Server.receive`)."""

    def close(self) -> None:
        """Hand over and publish nothing more."""

    def publish(self, project_id: str, event: str, text: str) -> Future[str]:
        """Publish one event, whose data ``text`` is; the future has its ``event_id``, or BackplaneUnavailable."""

    def announce(self, item: hub.AccessChanged | hub.LoggedOut) -> Future[Any]:
        """Tell the other nodes; done when they will hear of it, else BackplaneUnavailable."""

    @property
    def deaf(self) -> bool:
        """Whether something may be published that is not heard here."""

    def stats(self) -> dict[str, float]:
        """Gauges, and counters (names that end in ``_total``)."""


class Server:
    """Driver of AutoModerate's Socket.IO endpoint."""

    def __init__(
        self,
        directory: Directory,
        backplane: LocalBackplane | RemoteBackplane,
        *,
        new_id: Callable[[], str],
        random: Callable[[], float],
        protocol: Config | None = None,
        limits: Limits | None = None,
    ) -> None:
        """``new_id`` makes unguessable session ids; ``random`` returns floats in [0, 1)."""
        self._directory = directory
        self.backplane = backplane
        self._hub = hub.Hub(limits, random=random)
        self._wire = SocketServer(protocol or Config(), new_id=new_id, credential=self._credential)
        self._clients: dict[str, Client] = {}
        self._sids: dict[Session, str] = {}
        self._rooms = Rooms()
        self._allowance = WRITES_PER_TURN
        self._rooms_of: dict[str, list[str]] = {}
        self._polling: dict[str, dict[str, Client]] = {}
        self._jobs: dict[int, Callable[[Any, float], None]] = {}
        self._shared: dict[Hashable, tuple[float, list[int]]] = {}
        self._last_job = 0
        self._outputs: list[Output] = []
        self._effects: deque[hub.Effect] = deque()
        self._performing = False
        self._counters: Counter[str] = Counter()
        self._updates = self._deliveries = 0  # counters, too, but not looked up by name for every update
        self._now = 0.0
        self.draining = False
        if not backplane.blocking:
            backplane.listener = self._deliver

    # What an adapter calls

    def connect(self, transport: Transport, peer: Peer, now: float) -> Connection:
        return self._wire.connect(transport, peer, now)

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        self._wire.receive_data(connection, data, now)
        self._pump(now)

    def receive_eof(self, connection: Connection, now: float) -> None:
        self._wire.receive_eof(connection, now)
        self._pump(now)

    def connection_lost(self, connection: Connection, now: float) -> None:
        self._wire.connection_lost(connection, now)
        self._pump(now)

    def respond(
        self, connection: Connection, status: int, reason: str, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        self._wire.respond(connection, status, reason, headers, now)
        self._pump(now)

    def respond_body(self, connection: Connection, data: bytes, now: float) -> None:
        self._wire.respond_body(connection, data, now)
        self._pump(now)

    def respond_end(self, connection: Connection, now: float) -> None:
        self._wire.respond_end(connection, now)
        self._pump(now)

    def job_done(self, ticket: int, result: object | BaseException, now: float) -> None:
        self._jobs.pop(ticket)(result, now)
        self._pump(now)

    def tick(self, now: float) -> None:
        self._allowance = WRITES_PER_TURN
        self._wire.tick(now)
        self._pump(now)
        self._perform(self._hub.handle(hub.Tick(), now), now)
        self._pump(now)

    def next_deadline(self) -> float | None:
        if self._rooms.busy:
            return self._now  # the next turn, as soon as the other sockets have been looked at
        return earliest(self._wire.next_deadline(), self._hub.next_deadline())

    def outputs(self) -> list[Output]:
        self._drain_wire()
        if self._rooms.busy and self._allowance > 0:
            writes, self._allowance = self._rooms.take(self._allowance)
            self._fan_out(writes)
        if not self._rooms.busy:
            self._allowance = WRITES_PER_TURN
        drained, self._outputs = self._outputs, []
        return drained

    def drain(self, now: float) -> None:
        self.draining = True
        self._wire.drain(now)
        self._pump(now)

    def drained(self) -> bool:
        return self._wire.drained()

    # What the application calls

    @staticmethod
    def encode(data: Mapping[str, Any]) -> str:
        """An event's data as the JSON to publish. From any thread, so that the loop need not; an ``event_id`` of the
        data's own is left out.

        Raises ValueError or TypeError for what JSON cannot say.
        """
        if "event_id" in data:
            data = {key: value for key, value in data.items() if key != "event_id"}
        return object_text(data)

    # ... on the loop's thread

    def publish(self, project_id: str, event: str, text: str, now: float) -> str:
        """Publish one event, whose data was encoded, to a project's room; returns its ``event_id``.

        :raises NotRunning: while the server is draining; nothing was published.
        """
        if self.draining:
            raise NotRunning("the server is shutting down")
        assert not self.backplane.blocking, "a remote backplane is published to from any thread"
        self._now = now
        update = self.backplane.publish(project_id, event, text)
        self._pump(now)
        return update.event_id

    def receive(self, items: Iterable[hub.Input], now: float) -> None:
        """Tell the hub, in order, what was announced here or heard from other nodes."""
        for item in items:
            if isinstance(item, hub.Published):
                self._updates += 1
            elif isinstance(item, hub.AccessChanged | hub.LoggedOut):
                self._shared.clear()
            self._perform(self._hub.handle(item, now), now)
        self._pump(now)

    def stats(self) -> dict[str, int]:
        """Gauges (sessions, users, rooms, memberships, jobs) and counters (names that end in ``_total``)."""
        counts = self._hub.counts()
        gauges = {name: counts[name] for name in ("sessions", "users", "rooms", "memberships")}
        counters = {
            "misrouted_requests_total": self._wire.misrouted,
            "updates_total": self._updates,
            "deliveries_total": self._deliveries,
        }
        return {**gauges, "jobs": len(self._jobs), **counters, **self._counters}

    # Protocol events to hub inputs

    def _credential(self, request: Request) -> bytes | None:
        """What tells one session cookie from another, and is kept of each: a digest, as the cookie is kept already."""
        value = self._directory.session_cookie(request.header("cookie"))
        return None if value is None else blake2b(value.encode(), digest_size=16).digest()

    def _pump(self, now: float) -> None:
        while (event := self._wire.next_event()) is not None:
            _EVENTS[type(event)](self, event, now)

    def _on_connecting(self, event: events.ClientConnecting, now: float) -> None:
        client = event.client
        if client.namespace != NAMESPACE:
            self._wire.refuse(client, "Invalid namespace", None, now)
            return
        if client.state is ClientState.GONE:
            return  # it left again in the same breath: nobody is looked up for that, however often it does
        self._wire.accept(client, now)
        self._clients[client.sid] = client
        self._sids[client.session] = client.sid
        self._counters["connections_total"] += 1
        connected = hub.Connected(client.sid, client.session.cookie, client.session.client_address)
        self._perform(self._hub.handle(connected, now), now)

    def _on_event(self, event: events.EventReceived, now: float) -> None:
        received = hub.Received(event.client.sid, event.event, event.args, event.ack_id)
        self._perform(self._hub.handle(received, now), now)

    def _on_disconnected(self, event: events.ClientDisconnected, now: float) -> None:
        # Performed while the client is still known: its Leave effects are what empties the rooms.
        self._perform(self._hub.handle(hub.Closed(event.client.sid), now), now)
        self._clients.pop(event.client.sid, None)
        self._sids.pop(event.client.session, None)

    def _on_upgraded(self, event: events.SessionUpgraded, now: float) -> None:
        sid = self._sids.get(event.session)
        if sid is not None:
            for room in self._rooms_of.get(sid, ()):
                self._place(sid, room)

    def _on_credential_changed(self, event: events.CredentialChanged, now: float) -> None:
        """Browsers renew the cookie in mid-session: what counts is whether it still names the same user."""
        owner, other = event.session.cookie, event.request.header("cookie")
        # A cookie that was good when the session began may have expired since: read now, it would name nobody, as
        # does no cookie at all, and anybody who knows the sid would be the owner.
        user_id = self._hub.user_of(self._sids.get(event.session, ""))

        def same_user() -> bool:
            owner_id = self._directory.session_user(owner) if user_id is None else user_id
            return owner_id == self._directory.session_user(other)

        def settle(result: object, now: float) -> None:
            self._wire.settle(event.connection, result is True, now)

        self._start_job(same_user, settle)

    def _ignore(self, event: object, now: float) -> None:
        """Opened and closed Engine.IO sessions mean nothing until a client connects."""

    def _on_app_request(self, event: events.AppRequest, now: float) -> None:
        self._queue(outputs.RequestStarted(event.connection, event.request))

    def _on_app_body(self, event: events.AppBody, now: float) -> None:
        self._queue(outputs.RequestBody(event.connection, event.data))

    def _on_app_end(self, event: events.AppRequestEnd, now: float) -> None:
        self._queue(outputs.RequestFinished(event.connection))

    def _on_app_aborted(self, event: events.AppRequestAborted, now: float) -> None:
        self._queue(outputs.RequestAborted(event.connection))

    # Hub effects to packets, jobs and broadcasts

    def _perform(self, effects: Iterable[hub.Effect], now: float) -> None:
        """Perform effects in the order the hub gave them, also those that performing one of them brings about."""
        self._effects.extend(effects)
        if self._performing:
            return
        self._performing = True
        try:
            while self._effects:
                effect = self._effects.popleft()
                _EFFECTS[type(effect)](self, effect, now)
        finally:
            self._performing = False

    def _identify(self, effect: hub.Identify, now: float) -> None:
        self._share(partial(self._directory.identify, effect.credential), effect.ticket, hub.Identified, now)

    def _check_access(self, effect: hub.CheckAccess, now: float) -> None:
        call = partial(self._directory.check_access, effect.user_id, effect.project_id)
        self._share(call, effect.ticket, hub.AccessChecked, now)

    def _recheck(self, effect: hub.Recheck, now: float) -> None:
        call = partial(self._directory.recheck, effect.user_id, effect.project_ids)
        self._ask(call, [effect.ticket], hub.Rechecked)

    def _read_history(self, effect: hub.ReadHistory, now: float) -> None:
        read = partial(self.backplane.read, effect.project_id, effect.after)
        if self.backplane.blocking:
            self._ask(read, [effect.ticket], hub.HistoryRead)
        else:
            for item in hub.answered_at_once(effect, read()):
                self._perform(self._hub.handle(item, now), now)

    def _follow(self, effect: hub.Follow, now: float) -> None:
        self.backplane.follow(effect.project_id)

    def _unfollow(self, effect: hub.Unfollow, now: float) -> None:
        self.backplane.unfollow(effect.project_id)

    def _emit(self, effect: hub.Emit, now: float) -> None:
        if effect.event == "error":
            self._counters[f"errors_{effect.data['code']}_total"] += 1
        self._send(effect.sid, event_packet(effect.event, object_text(effect.data)), now)

    def _acknowledge(self, effect: hub.Acknowledge, now: float) -> None:
        self._wire.acknowledge(self._clients[effect.sid], effect.ack, (effect.data,), now)

    def _replay(self, effect: hub.Replay, now: float) -> None:
        self._send(effect.sid, event_packet(effect.update.event, effect.update.text), now)

    def _send(self, sid: str, packet: str, now: float) -> None:
        self._wire.send_encoded(self._clients[sid], Encoded(packet, text_frame(packet)), now)

    def _enter(self, effect: hub.Enter, now: float) -> None:
        self._rooms_of.setdefault(effect.sid, []).append(effect.room)
        self._place(effect.sid, effect.room)

    def _place(self, sid: str, room: str) -> None:
        """Put a client where its transport belongs in a room; what waits there to be sent is not for it.

        It has just come, or was given it by polling: in a room where its WebSocket is already, it would miss that.
        """
        client = self._clients[sid]
        connection = self._wire.wire_connection(client.session)
        if connection is None:
            self._polling.setdefault(room, {})[sid] = client
        else:
            self._stop_polling(room, sid)
            self._rooms.enter(room, sid, connection)

    def _stop_polling(self, room: str, sid: str) -> None:
        clients = self._polling.get(room)
        if clients is not None:
            clients.pop(sid, None)
            if not clients:
                del self._polling[room]

    def _leave(self, effect: hub.Leave, now: float) -> None:
        self._fan_out(self._rooms.leave(effect.room, effect.sid))
        self._stop_polling(effect.room, effect.sid)
        rooms = self._rooms_of[effect.sid]
        rooms.remove(effect.room)
        if not rooms:
            del self._rooms_of[effect.sid]

    def _broadcast(self, effect: hub.Broadcast, now: float) -> None:
        """The same bytes go to every WebSocket, when it is their turn, and the same packet to everybody else, now."""
        update = effect.update
        packet = event_packet(update.event, update.text)
        frame = text_frame(packet)
        self._drain_wire()  # what was sent before the broadcast must not count as sent after it
        deliveries, overflow = self._rooms.broadcast(effect.room, frame)
        if overflow:
            self._fan_out(overflow)
        if effect.room in self._polling:
            deliveries += self._broadcast_to_polls(effect.room, Encoded(packet, frame), now)
        self._deliveries += deliveries

    def _broadcast_to_polls(self, room: str, encoded: Encoded, now: float) -> int:
        clients = list(self._polling[room].values())
        for client in clients:
            self._wire.send_encoded(client, encoded, now)
        return len(clients)

    def _end(self, effect: hub.End, now: float) -> None:
        client = self._clients.pop(effect.sid)
        if effect.ending is hub.Ending.DISCONNECT:
            self._wire.disconnect(client, now)
        else:
            self._wire.close(client.session, CloseReason.SERVER_CLOSE, now)

    def _deliver(self, update: Update) -> None:
        self._updates += 1
        self._perform(self._hub.handle(hub.Published(update), self._now), self._now)

    # Jobs and outputs

    def _share(self, call: partial[T], ticket: int, answer: Callable[[int, T], hub.Input], now: float) -> None:
        """Ask, or wait for the answer to the same question where that has just been asked.

        Just: one that is never answered must not keep others from being put. An announcement ends all sharing, as an
        answer may be older than what was announced.
        """
        since, tickets = self._shared.get((call.func, call.args), (-math.inf, []))
        if now < since + SHARED_FOR:
            tickets.append(ticket)
            return
        tickets = [ticket]
        self._shared[call.func, call.args] = now, tickets
        self._ask(call, tickets, answer)

    def _ask(self, call: partial[T], tickets: Sequence[int], answer: Callable[[int, T], hub.Input]) -> None:
        """Run a blocking question in a worker thread; its answer, or its failure, goes to the hub."""

        def done(result: T | BaseException, now: float) -> None:
            self._shared.pop((call.func, call.args), None)
            if isinstance(result, BaseException):
                known = isinstance(result, BackplaneUnavailable)
                logger.error("a question failed: %s", result, exc_info=None if known else result)
                self._counters["job_failures_total"] += 1
            for ticket in tickets:
                item = hub.Failed(ticket) if isinstance(result, BaseException) else answer(ticket, result)
                self._perform(self._hub.handle(item, now), now)

        self._start_job(call, done)

    def _start_job(self, call: Callable[[], object], done: Callable[[Any, float], None]) -> None:
        self._last_job += 1
        self._jobs[self._last_job] = done
        self._queue(outputs.Job(self._last_job, call))

    def _drain_wire(self) -> None:
        """Take over the protocol's outputs, each behind the broadcasts that its connection was to be sent before."""
        if not self._wire.has_outputs():
            return
        drained = self._wire.outputs()
        if self._rooms.busy:
            for output in drained:
                if isinstance(output, Write) and output.connection.session is not None:
                    self._flush(output.connection.session)
                self._outputs.append(output)
        else:
            self._outputs.extend(drained)

    def _flush(self, session: Session) -> None:
        sid = self._sids.get(session)
        if sid is not None:
            self._fan_out(self._rooms.flush(self._rooms_of.get(sid, ()), sid))

    def _fan_out(self, writes: Writes) -> None:
        if writes:
            self._outputs.append(outputs.Fanout(writes))

    def _queue(self, output: Output) -> None:
        """Queue an output behind everything the protocol has queued so far: order is what a session sees."""
        self._drain_wire()
        self._outputs.append(output)


_EVENTS: Mapping[type[Any], Callable[[Server, Any, float], None]] = {
    events.SessionOpened: Server._ignore,
    events.SessionUpgraded: Server._on_upgraded,
    events.SessionClosed: Server._ignore,
    events.CredentialChanged: Server._on_credential_changed,
    events.ClientConnecting: Server._on_connecting,
    events.EventReceived: Server._on_event,
    events.AckReceived: Server._ignore,
    events.ClientDisconnected: Server._on_disconnected,
    events.AppRequest: Server._on_app_request,
    events.AppBody: Server._on_app_body,
    events.AppRequestEnd: Server._on_app_end,
    events.AppRequestAborted: Server._on_app_aborted,
}

_EFFECTS: Mapping[type[Any], Callable[[Server, Any, float], None]] = {
    hub.Identify: Server._identify,
    hub.CheckAccess: Server._check_access,
    hub.Recheck: Server._recheck,
    hub.ReadHistory: Server._read_history,
    hub.Follow: Server._follow,
    hub.Unfollow: Server._unfollow,
    hub.Emit: Server._emit,
    hub.Replay: Server._replay,
    hub.Acknowledge: Server._acknowledge,
    hub.Enter: Server._enter,
    hub.Leave: Server._leave,
    hub.Broadcast: Server._broadcast,
    hub.End: Server._end,
}
