"""The server, still sans-IO: the protocol's events become the hub's inputs, the hub's effects become packets and jobs.

An adapter drives it through the methods of :class:`automoderate.protocol.driver.Driver`; everything it wants done it
queues, in order, for ``outputs()``. Drain order after every call that takes ``now``: first ``outputs()``, then
``next_deadline()`` for the one timer.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from hashlib import blake2b
from math import inf
from typing import Any

from automoderate.core import hub
from automoderate.core.hub import Access, History, Identity, Limits
from automoderate.protocol import events, outputs
from automoderate.protocol.broadcast import object_text
from automoderate.protocol.config import Config
from automoderate.protocol.driver import Layer
from automoderate.protocol.model import Client, ClientState, CloseReason, Connection, Request, Session, cookie_of
from automoderate.protocol.outputs import Output
from automoderate.protocol.proxies import visitor
from automoderate.protocol.socketio import SocketIOServer
from automoderate.protocol.timers import earliest
from automoderate.server.api import Api, ApiOptions
from automoderate.server.inspection import Inspection
from automoderate.server.interfaces import Asked, Backplane, Directory, Heard, ProjectUnusable
from automoderate.server.jobs import AT_ONCE, Batches, Jobs
from automoderate.server.meter import Meter
from automoderate.server.outages import Outage
from automoderate.server.outbound import Outbound
from automoderate.server.publications import encoded
from automoderate.server.questions import Questions
from automoderate.server.refusals import Refusal, Refusals
from automoderate.server.telemetry import Telemetry
from automoderate.server.tracing import Tracer, traced

__all__ = ["Server"]

logger = logging.getLogger("automoderate.server")

NAMESPACE = "/"


class Server(Layer[events.SocketIOEvent]):
    """Driver of AutoModerate's Socket.IO endpoint."""

    def __init__(
        self,
        directory: Directory,
        backplane: Backplane,
        *,
        new_id: Callable[[], str],
        random: Callable[[], float],
        protocol: Config | None = None,
        limits: Limits | None = None,
        api: ApiOptions | None = None,
        window: float = 0.0,
        identification: Callable[[Request], str | None] = cookie_of,
        tracer: Tracer | None = None,
    ) -> None:
        """``new_id`` makes unguessable session ids; ``random`` returns floats in [0, 1).

        ``identification`` is what the directory is told of a request, in place of its ``Cookie`` header, to say who
        sends it.

        Updates of a room wait for up to ``window`` seconds for one another, the first after a pause for none. Without
        ``api`` there is no HTTP API: every request that is not the protocol's is the application's. ``tracer`` takes
        spans, where there is one.
        """
        self.identification = identification
        protocol = protocol or Config()
        self._wire = SocketIOServer(protocol, new_id=new_id, credential=self._credential, identification=identification)
        super().__init__(self._wire)
        self._directory = directory
        self.backplane = backplane
        self._hub = hub.Hub(limits, random=random, other_nodes=backplane.shared)
        self._clients: dict[str, Client] = {}
        self._sids: dict[Session, str] = {}
        self.telemetry = Telemetry(tracer)
        self._out = Outbound(self._wire, self._sids, window, self.telemetry)
        self._jobs = Jobs(self._out.queue)
        self._checks = Outage(logger, "checks of who may see what")
        ask = partial(Batches, self._jobs, outage=self._checks, telemetry=self.telemetry)
        self._identities: Batches[str | None, Identity | None] = ask(directory.identify_many, what="who")
        self._accesses: Batches[tuple[str, str], Access] = ask(directory.check_access_many, what="access")
        self._rechecks: Batches[tuple[str, tuple[str, ...]], frozenset[str] | None] = ask(
            directory.recheck_many, what="re-check"
        )
        self._histories = Outage(logger, "readings of the history")
        admins: Batches[str, bool] = ask(directory.admins_many, what="admin")
        keys: Batches[str, str | None] = ask(directory.key_projects_many, what="key")
        pings = Batches(
            self._jobs, partial(_ping, directory), Outage(logger, "signs of life of the database"), patience=inf
        )
        self._questions: Sequence[Batches[Any, Any]] = (
            self._identities, self._accesses, self._rechecks, admins, keys, pings,
        )  # fmt: skip
        self._refusals = Refusals()
        self._api = None
        if api is not None:
            asked = Questions(self._identities, self._accesses, admins, self._rechecks, keys, pings)
            inspection = Inspection(self._hub, self._clients, self.stats, Meter(self._out), self._refusals, api.about)
            self._api = Api(
                self, api, asked, self._jobs, inspection, histories=self._histories, origins=protocol.allowed_origins
            )
        self._effects: deque[hub.Effect] = deque()
        self._performing = False
        self._counters: Counter[str] = Counter(_FROM_THE_START)
        self._updates = 0  # a counter, too, but not looked up by name for every update
        self._replayed = 0  # to the session that is being let in
        self.draining = False

    # What an adapter calls

    def job_done(self, ticket: int, result: object | BaseException, now: float) -> None:
        self._jobs.finish(ticket, result, now)
        self.pump(now)

    def tick(self, now: float) -> None:
        self._out.turn(now)
        super().tick(now)
        self._perform(self._hub.handle(hub.Tick(), now), now)
        self.pump(now)
        if self._api is not None:
            self._api.tick(now)
        if self._jobs.waiting:
            for batches in self._questions:
                batches.tick(now)

    def next_deadline(self) -> float | None:
        deadline = self._out.next_deadline()
        if deadline == AT_ONCE:
            return deadline
        api = None if self._api is None else self._api.next_deadline()
        deadline = earliest(deadline, self._wire.next_deadline(), self._hub.next_deadline(), api)
        if self._jobs.waiting:
            deadline = earliest(deadline, *(batches.next_deadline() for batches in self._questions))
        return deadline

    def outputs(self) -> list[Output]:
        return self._out.outputs()

    def turned(self, now: float, took: float) -> None:
        self.telemetry.turned(now, took)

    def kept(self, waiting: int) -> None:
        self.telemetry.waiting.observe(waiting)

    def drain(self, now: float) -> None:
        self.draining = True
        self.backplane.drain()
        super().drain(now)

    def reply(
        self, connection: Connection, status: int, body: bytes, headers: Sequence[tuple[str, str]], now: float
    ) -> None:
        """Answer a request that is the server's own."""
        self._wire.reply(connection, status, body, headers, now)
        self.pump(now)

    # What the application calls

    @staticmethod
    def encode(data: Mapping[str, Any]) -> str:
        """An event's data as the JSON to publish, without an ``event_id`` of its own.

        From any thread, so that the loop need not. Raises ValueError or TypeError for what JSON cannot say.
        """
        return encoded(data)

    # ... on the loop's thread

    def publish(
        self, project_id: str, event: str, text: str, now: float, trace: str | None = None
    ) -> str | Future[str]:
        """Publish one event, whose data was encoded, to a project's room; its ``event_id``, perhaps in a future.

        ``trace`` is the publisher's traceparent. Raises NotRunning while the server is draining: nothing was
        published.
        """
        if self.telemetry.tracer is None:
            published = self.backplane.publish(project_id, event, text)
        else:
            published = traced(
                self.telemetry.tracer, project_id, [event], [trace],
                lambda traces: self.backplane.publish(project_id, event, text, traces[0]),
            )  # fmt: skip
        if isinstance(published, Future):
            return published
        self._updates += 1
        self._perform(self._hub.handle(hub.Published(published), now), now)
        self.pump(now)
        return published.event_id

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], now: float, traces: Sequence[str | None] = ()
    ) -> Sequence[str] | Future[Sequence[str]]:
        """Publish several events, each with its data: all of them, or none. Otherwise as ``publish``."""
        if self.telemetry.tracer is None:
            published = self.backplane.publish_all(project_id, events)
        else:
            published = traced(
                self.telemetry.tracer, project_id, [event for event, _ in events], traces or [None] * len(events),
                lambda traces: self.backplane.publish_all(project_id, events, traces),
            )  # fmt: skip
        if isinstance(published, Future):
            return published
        for update in published:
            self._updates += 1
            self._perform(self._hub.handle(hub.Published(update), now), now)
        self.pump(now)
        return [update.event_id for update in published]

    def has_room(self, project_id: str) -> bool:
        """Whether the members of a project are not far behind what is published to them."""
        return all(map(self._out.has_room, self._hub.rooms_of(project_id)))

    @property
    def asking(self) -> bool:
        """Whether a question to the directory waits to be asked."""
        return self._jobs.waiting > 0

    def announce(self, item: hub.AccessChanged | hub.LoggedOut, now: float) -> Future[Any] | None:
        """Tell the hub and the other nodes that access changed; the future, if any, is done when they will know."""
        self.receive([item], now)
        return self.backplane.announce(item)

    def end_session(self, sid: str, now: float) -> Mapping[str, str | None] | None:
        """End a session on purpose; whose it was, None where there is no such session."""
        client, view = self._clients.get(sid), self._hub.look_at(sid)
        if client is None or view is None:
            return None
        self._perform(self._hub.handle(hub.Closed(sid), now), now)
        self._clients.pop(sid)
        self._wire.disconnect(client, now)
        self.pump(now)
        user = view.user
        return {"user_id": None if user is None else user.user_id, "username": None if user is None else user.username}

    def receive(self, items: Iterable[Heard], now: float) -> None:
        """Tell the hub, in order, what was heard from other nodes, and answer what they ask."""
        for item in items:
            if isinstance(item, hub.Published):
                self._updates += 1
            elif isinstance(item, Asked):
                if self._api is not None:
                    self._api.asked(item, now)
                continue
            elif self._api is not None:
                self._api.announced(item)
            self._perform(self._hub.handle(item, now), now)
        self.pump(now)

    def stats(self) -> dict[str, float]:
        """Gauges (sessions, users, rooms, memberships, jobs) and counters (names that end in ``_total``).

        Those of the backplane are among them.
        """
        counts = self._hub.counts()
        gauges = {name: counts[name] for name in ("sessions", "users", "rooms", "memberships")}
        counters = {
            "misrouted_requests_total": self._wire.misrouted,
            "updates_total": self._updates,
            "deliveries_total": self._out.deliveries,
            "job_failures_total": self._checks.total + self._histories.total,
        }
        gauges["jobs"] = len(self._jobs)
        return {**gauges, **counters, **self._counters, **self.backplane.stats()}

    # Protocol events to hub inputs

    def _credential(self, request: Request) -> bytes | None:
        """What tells one session cookie from another, and is kept of each: a digest, as the cookie is kept already."""
        value = self._directory.session_cookie(request.header("cookie"))
        return None if value is None else blake2b(value.encode(), digest_size=16).digest()

    def on_event(self, event: events.SocketIOEvent, now: float) -> None:
        _EVENTS[type(event)](self, event, now)

    def _on_connecting(self, event: events.ClientConnecting, now: float) -> None:
        client = event.client
        if client.namespace != NAMESPACE:
            self._wire.refuse(client, "Invalid namespace", None, now)
            return
        if client.state is ClientState.GONE:
            return  # it left again in the same breath: no user is looked up for that, however often it does
        self._wire.accept(client, now)
        self._clients[client.sid] = client
        self._sids[client.session] = client.sid
        self._counters["connections_total"] += 1
        connected = hub.Connected(client.sid, client.session.cookie, visitor(client.session.client_address))
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
        self._out.upgrade(event.session)

    def _on_credential_changed(self, event: events.CredentialChanged, now: float) -> None:
        """Browsers renew the cookie in mid-session: what counts is whether it still names the same user."""
        owner, other = event.session.cookie, self.identification(event.request)
        # A cookie that was good when the session began may have expired since: read now, it would name no user, as
        # does no cookie at all, and any client that knows the sid would be the owner.
        user_id = self._hub.user_of(self._sids.get(event.session, ""))

        def same_user() -> bool:
            owner_id = self._directory.session_user(owner) if user_id is None else user_id
            return owner_id == self._directory.session_user(other)

        def settle(result: object, now: float) -> None:
            self._wire.settle(event.connection, result is True, now)

        self._jobs.start(same_user, settle)

    def _on_closed(self, event: events.SessionClosed, now: float) -> None:
        self._counters[f"endings_{event.reason.name.lower()}_total"] += 1

    def _ignore(self, event: object, now: float) -> None:
        """What means nothing here, such as an Engine.IO session until a client connects."""

    def _on_app_request(self, event: events.AppRequest, now: float) -> None:
        if self._api is None or not self._api.begin(event.connection, event.request, now):
            self._out.queue(outputs.RequestStarted(event.connection, event.request))

    def _on_app_body(self, event: events.AppBody, now: float) -> None:
        if self._api is None or not self._api.receive(event.connection, event.data, now):
            self._out.queue(outputs.RequestBody(event.connection, event.data))

    def _on_app_end(self, event: events.AppRequestEnd, now: float) -> None:
        if self._api is None or not self._api.complete(event.connection, now):
            self._out.queue(outputs.RequestFinished(event.connection))

    def _on_app_aborted(self, event: events.AppRequestAborted, now: float) -> None:
        if self._api is None or not self._api.abandon(event.connection):
            self._out.queue(outputs.RequestAborted(event.connection))

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
        self._identities.put(effect.credential, partial(self._answer, hub.Identified, effect.ticket))

    def _check_access(self, effect: hub.CheckAccess, now: float) -> None:
        question = effect.user_id, effect.project_id
        self._accesses.put(question, partial(self._answer, hub.AccessChecked, effect.ticket))

    def _recheck(self, effect: hub.Recheck, now: float) -> None:
        question = effect.user_id, effect.project_ids
        self._rechecks.put(question, partial(self._answer, hub.Rechecked, effect.ticket))

    def _answer(self, kind: Callable[[int, Any], hub.Input], ticket: int, answer: Any, now: float) -> None:
        """Tell the hub an answer, or that there is none."""
        item = hub.Failed(ticket) if isinstance(answer, BaseException) else kind(ticket, answer)
        self._perform(self._hub.handle(item, now), now)

    def _read_history(self, effect: hub.ReadHistory, now: float) -> None:
        history = self.backplane.read(effect.project_id, effect.after, effect.newest)
        if isinstance(history, History):
            self._note_replay(effect, now, history, now)
            for item in hub.answered_at_once(effect, history):
                self._perform(self._hub.handle(item, now), now)
        else:
            self._jobs.start(history, partial(self._history_read, effect, now))

    def _note_replay(
        self, question: hub.ReadHistory, asked: float, history: History | BaseException, now: float
    ) -> None:
        if question.after is not None or question.newest:
            updates, failure = (0, history) if isinstance(history, BaseException) else (len(history.updates), None)
            self.telemetry.replayed(question.project_id, now - asked, updates, failure)

    def _history_read(
        self, question: hub.ReadHistory, asked: float, history: History | BaseException, now: float
    ) -> None:
        self._note_replay(question, asked, history, now)
        if not isinstance(history, BaseException):
            self._histories.worked(now)
        elif not isinstance(history, ProjectUnusable):
            self._histories.failed(history, now)
        self._answer(hub.HistoryRead, question.ticket, history, now)

    def _follow(self, effect: hub.Follow, now: float) -> None:
        self.backplane.follow(effect.project_id)

    def _unfollow(self, effect: hub.Unfollow, now: float) -> None:
        self.backplane.unfollow(effect.project_id)

    def _emit(self, effect: hub.Emit, now: float) -> None:
        if effect.event == "error":
            self._note_refusal(effect, now)
        elif effect.asked_at is not None:
            self.telemetry.joined(effect.data["project_id"], now - effect.asked_at, self._replayed)
            self._replayed = 0
        self._out.send(self._clients[effect.sid], effect.event, object_text(effect.data), now)

    def _note_refusal(self, effect: hub.Emit, now: float) -> None:
        code, project_id = str(effect.data["code"]), effect.data.get("project_id")
        self._counters[f"errors_{code}_total"] += 1
        address = self._clients[effect.sid].session.client_address
        user_id = self._hub.user_of(effect.sid)
        self._refusals.note(Refusal(now, code, user_id, address, project_id and project_id[:100]))

    def _acknowledge(self, effect: hub.Acknowledge, now: float) -> None:
        self._wire.acknowledge(self._clients[effect.sid], effect.ack, (effect.data,), now)

    def _replay(self, effect: hub.Replay, now: float) -> None:
        self._replayed += 1
        self._out.send(self._clients[effect.sid], effect.update.event, effect.update.text, now)

    def _enter(self, effect: hub.Enter, now: float) -> None:
        self._replayed = 0  # else it was what was kept for a member while its access was looked up again
        self._out.enter(effect.room, self._clients[effect.sid])

    def _leave(self, effect: hub.Leave, now: float) -> None:
        self._out.leave(effect.room, effect.sid)

    def _broadcast(self, effect: hub.Broadcast, now: float) -> None:
        self._out.broadcast(effect.room, effect.update, now)

    def _broadcast_except(self, effect: hub.BroadcastExcept, now: float) -> None:
        self._out.broadcast_except(effect.room, effect.update, effect.sids, now)

    def _share_presence(self, effect: hub.SharePresence, now: float) -> None:
        self.backplane.share_presence(effect.report)

    def _end(self, effect: hub.End, now: float) -> None:
        client = self._clients.pop(effect.sid)
        if effect.ending is hub.Ending.STAY_AWAY:
            self._wire.disconnect(client, now)
        else:
            self._wire.drop(client.session, CloseReason.SERVER_CLOSE, now)


# A counter that appeared only with the first of its kind would never be seen to grow by one.
_FROM_THE_START = {
    "connections_total": 0,
    **{f"errors_{error.value[0]}_total": 0 for error in hub.Error},
    **{f"endings_{reason.name.lower()}_total": 0 for reason in CloseReason},
}


def _ping(directory: Directory, questions: Sequence[None]) -> Sequence[None]:
    directory.ping()
    return questions


_EVENTS: Mapping[type[Any], Callable[[Server, Any, float], None]] = {
    events.SessionOpened: Server._ignore,
    events.SessionUpgraded: Server._on_upgraded,
    events.SessionClosed: Server._on_closed,
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
    hub.BroadcastExcept: Server._broadcast_except,
    hub.SharePresence: Server._share_presence,
    hub.End: Server._end,
}
