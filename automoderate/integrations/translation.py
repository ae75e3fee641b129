"""What happens on a python-socketio server as the hub's inputs, and the hub's effects as things to do there.

:class:`Translator` knows no runtime. The hub's effects become a list: ``Call``, a method of the server, strictly one
after the other, and ``Question``, which a worker thread asks the directory or the backplane.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeAlias

from attrs import frozen
from socketio import packet

from automoderate.core import hub as rules
from automoderate.core.hub import Access, History, Hub, Identity
from automoderate.protocol.proxies import visitor
from automoderate.server.interfaces import Backplane, ProjectUnusable
from automoderate.server.outages import Outage

__all__ = ["NAMESPACE", "AttachedDirectory", "Call", "Question", "Todo", "Translator"]

logger = logging.getLogger("automoderate.attached")

NAMESPACE = "/"


class AttachedDirectory(Protocol):
    """What is asked here of an :class:`automoderate.server.interfaces.Directory`.

    Blocking; an exception means that there is no answer, and the client is told ``server_error``.
    """

    def identify(self, cookie: str | None) -> Identity | None:
        """The active user a ``Cookie`` header belongs to, or None."""

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether the user may be in the project's room."""

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """The projects still allowed; None where the user is unknown or inactive."""


@frozen
class Call:
    """A method of the server to call, after those before it have returned."""

    perform: partial[Any]
    if_there: bool = False
    """It fails for a session that has just gone, of which the hub hears next."""

    def failed(self) -> None:
        """Called with the exception being handled. The log has the method's name, as its arguments may be content."""
        if not self.if_there:
            name = self.perform.func.__name__
            logger.exception("the server did not perform %s", name, extra={"event": "call_error"})


@frozen
class Question:
    """A blocking question to the directory or the backplane: ``ask`` it in a worker thread, then ``settle`` it."""

    ticket: int
    ask: Callable[[], Any]
    answer: Callable[[Any], rules.Input]


Todo: TypeAlias = Call | Question


class Translator:
    """What happens on the server to hub inputs, hub effects to things to do. Sans-IO; not thread-safe.

    Sessions are known by two ids: the library's events and acknowledgements go by that of Engine.IO, everything else
    by that of Socket.IO, of which a session has a new one each time it connects to the namespace.
    """

    def __init__(self, server: Any, hub: Hub, directory: AttachedDirectory, backplane: Backplane) -> None:
        self.todo: deque[Todo] = deque()
        self._server = server
        self._hub = hub
        self._directory = directory
        self._backplane = backplane
        self._sids: dict[str, str] = {}
        self._engine_ids: dict[str, str] = {}
        self._outage = Outage(logger, "questions of who may see what, and of what was missed,")

    def handle(self, item: rules.Input, now: float) -> None:
        """Tell the hub; what it wants done is added to ``todo``."""
        effects = deque(self._hub.handle(item, now))
        while effects:
            effect = effects.popleft()
            if isinstance(effect, rules.ReadHistory):
                effects.extend(self._read_history(effect, now))
            else:
                self.todo.extend(_EFFECTS[type(effect)](self, effect))

    def next_deadline(self) -> float | None:
        """When ``handle(Tick())`` is next wanted; None: never."""
        return self._hub.next_deadline()

    def settle(self, question: Question, outcome: object, now: float) -> None:
        """A question was asked; ``outcome`` is what it returned or raised."""
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, ProjectUnusable):
                self._outage.failed(outcome, now)
            self.handle(rules.Failed(question.ticket), now)
        else:
            self._outage.worked(now)
            self.handle(question.answer(outcome), now)

    def publish(self, project_id: str, event: str, text: str, now: float) -> str | Future[str]:
        """Publish an event, whose data was encoded; its ``event_id``, perhaps in a future."""
        published = self._backplane.publish(project_id, event, text)
        if isinstance(published, Future):
            return published
        self.handle(rules.Published(published), now)
        return published.event_id

    def announce(self, item: rules.AccessChanged | rules.LoggedOut, now: float) -> Future[Any] | None:
        """Tell the hub and the other nodes that access changed; the future, if any, is done when they will know."""
        self.handle(item, now)
        return self._backplane.announce(item)

    def take(self, engine_id: str, message: str | bytes, now: float) -> bool:
        """Whether a message of a client is an event the hub knows; then the hub was told."""
        sid = self._sids.get(engine_id)
        event = None if sid is None else self._event(message)
        if sid is None or event is None:
            return False
        name, *args = event.data
        self.handle(rules.Received(sid, name, tuple(args), event.id), now)
        return True

    def look(self, engine_id: str, now: float) -> None:
        """Tell the hub if a session has connected to the namespace, or left it, since it was last looked at."""
        manager = self._server.manager
        sid = manager.sid_from_eio_sid(engine_id, NAMESPACE)
        if sid is not None and not manager.is_connected(sid, NAMESPACE):
            sid = None
        known = self._sids.get(engine_id)
        if known is not None and known != sid:
            self.handle(rules.Closed(known), now)
            del self._sids[engine_id], self._engine_ids[known]
        if sid is not None and sid != known:
            self._sids[engine_id], self._engine_ids[sid] = sid, engine_id
            environ = self._server.get_environ(sid, NAMESPACE)
            self.handle(rules.Connected(sid, environ.get("HTTP_COOKIE"), visitor(_address(environ))), now)

    def close(self, now: float) -> None:
        """Forget every session: each leaves the rooms of its projects and stays connected."""
        for sid in self._engine_ids:
            self.handle(rules.Closed(sid), now)
        self._sids.clear()
        self._engine_ids.clear()

    def _event(self, message: str | bytes) -> Any:
        """The packet of an event the hub knows, or None: the library judges everything else, nonsense included."""
        packet_class = self._server.packet_class
        if isinstance(message, bytes) and packet_class.uses_binary_events:
            return None  # an attachment, whatever it looks like
        try:
            found = packet_class(encoded_packet=message)
        except Exception:
            return None
        mine = found.packet_type == packet.EVENT and (found.namespace or NAMESPACE) == NAMESPACE
        named = mine and isinstance(found.data, list) and found.data and isinstance(found.data[0], str)
        return found if named and found.data[0] in rules.HANDLED_EVENTS else None

    # Effects

    def _identify(self, effect: rules.Identify) -> Iterator[Todo]:
        ask = partial(self._directory.identify, effect.credential)
        yield Question(effect.ticket, ask, partial(rules.Identified, effect.ticket))

    def _check_access(self, effect: rules.CheckAccess) -> Iterator[Todo]:
        ask = partial(self._directory.check_access, effect.user_id, effect.project_id)
        yield Question(effect.ticket, ask, partial(rules.AccessChecked, effect.ticket))

    def _recheck(self, effect: rules.Recheck) -> Iterator[Todo]:
        ask = partial(self._directory.recheck, effect.user_id, effect.project_ids)
        yield Question(effect.ticket, ask, partial(rules.Rechecked, effect.ticket))

    def _read_history(self, effect: rules.ReadHistory, now: float) -> list[rules.Effect]:
        history = self._backplane.read(effect.project_id, effect.after, effect.newest)
        if not isinstance(history, History):
            self.todo.append(Question(effect.ticket, history, partial(rules.HistoryRead, effect.ticket)))
            return []
        answers = rules.answered_at_once(effect, history)
        return [effect for answer in answers for effect in self._hub.handle(answer, now)]

    def _follow(self, effect: rules.Follow) -> Iterator[Todo]:
        self._backplane.follow(effect.project_id)
        return iter(())

    def _unfollow(self, effect: rules.Unfollow) -> Iterator[Todo]:
        self._backplane.unfollow(effect.project_id)
        return iter(())

    def _emit(self, effect: rules.Emit) -> Iterator[Todo]:
        return self._send(effect.event, effect.data, effect.sid)

    def _replay(self, effect: rules.Replay) -> Iterator[Todo]:
        return self._send(effect.update.event, effect.update.data, effect.sid)

    def _broadcast(self, effect: rules.Broadcast) -> Iterator[Todo]:
        return self._send(effect.update.event, effect.update.data, effect.room)

    def _broadcast_except(self, effect: rules.BroadcastExcept) -> Iterator[Todo]:
        return self._send(effect.update.event, effect.update.data, effect.room, list(effect.sids))

    def _share_presence(self, effect: rules.SharePresence) -> Iterator[Todo]:
        self._backplane.share_presence(effect.report)
        return iter(())

    def _send(
        self, event: str, data: Mapping[str, Any], room: str, skip_sid: list[str] | None = None
    ) -> Iterator[Todo]:
        # Past a message queue of the application's: on the other nodes it is their own backplane that says it.
        yield Call(
            partial(
                self._server.emit,
                event,
                dict(data),
                room=room,
                skip_sid=skip_sid,
                namespace=NAMESPACE,
                ignore_queue=True,
            )
        )

    def _acknowledge(self, effect: rules.Acknowledge) -> Iterator[Todo]:
        packet_class = self._server.packet_class
        answer = packet_class(packet.ACK, namespace=NAMESPACE, id=effect.ack, data=[dict(effect.data)])
        yield Call(partial(self._server.eio.send, self._engine_ids[effect.sid], answer.encode()))

    def _enter(self, effect: rules.Enter) -> Iterator[Todo]:
        yield Call(partial(self._server.enter_room, effect.sid, effect.room, namespace=NAMESPACE), if_there=True)

    def _leave(self, effect: rules.Leave) -> Iterator[Todo]:
        yield Call(partial(self._server.leave_room, effect.sid, effect.room, namespace=NAMESPACE))

    def _end(self, effect: rules.End) -> Iterator[Todo]:
        if effect.ending is rules.Ending.STAY_AWAY:
            yield Call(partial(self._server.disconnect, effect.sid, namespace=NAMESPACE, ignore_queue=True))
            return
        connection = self._server.eio.sockets.get(self._engine_ids[effect.sid])
        if connection is not None:
            # Not ``eio.disconnect``: it says goodbye, after which python-socketio's clients do not come back.
            yield Call(partial(connection.close, wait=False, abort=True))
            # The asynchronous server's writer waits on, and keeps the WebSocket open, until this wakes it.
            yield Call(partial(connection.queue.put, None))


_EFFECTS: Mapping[type[Any], Callable[[Translator, Any], Iterator[Todo]]] = {
    rules.Identify: Translator._identify,
    rules.CheckAccess: Translator._check_access,
    rules.Recheck: Translator._recheck,
    rules.Follow: Translator._follow,
    rules.Unfollow: Translator._unfollow,
    rules.Emit: Translator._emit,
    rules.Replay: Translator._replay,
    rules.Acknowledge: Translator._acknowledge,
    rules.Enter: Translator._enter,
    rules.Leave: Translator._leave,
    rules.Broadcast: Translator._broadcast,
    rules.BroadcastExcept: Translator._broadcast_except,
    rules.SharePresence: Translator._share_presence,
    rules.End: Translator._end,
}


def _address(environ: Mapping[str, Any]) -> str:
    """Where a client connects from: under ASGI python-engineio's environ says 127.0.0.1 of everybody."""
    client = environ.get("asgi.scope", {}).get("client")
    return str(client[0] if client else environ.get("REMOTE_ADDR", ""))
