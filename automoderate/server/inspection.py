"""What a node knows of itself and says when an operator asks, from this node or from another.

Each question is answered in slices (:mod:`automoderate.server.slices`): however many sessions and rooms there are, none
of them takes more than some milliseconds, and an answer has a bound.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from automoderate.core.hub import Hub
from automoderate.protocol.model import Client
from automoderate.server.agents import client_name
from automoderate.server.meter import Meter
from automoderate.server.refusals import MINUTES, Refusals
from automoderate.server.slices import Work

__all__ = ["MAX_ROWS", "MAX_TEXT", "Inspection", "checked_question"]

SLICE = 500
"""Sessions or rooms that are looked at in one slice: a millisecond or two."""
MAX_ROWS = 1000
"""Rows in one answer."""
MAX_CLIENTS = 50
"""Kinds of clients that are named; the others are counted together."""
MAX_ROOMS = 10
"""Rooms that are named of one session."""
MAX_TEXT = 200
"""Characters of what is searched for."""

T = TypeVar("T")
Ranked = tuple[float, str]
"""What rows are sorted by: the smallest number first, and among equal numbers the smallest text."""


class Inspection:
    """Answers the questions of operators about one node."""

    def __init__(
        self,
        hub: Hub,
        clients: Mapping[str, Client],
        stats: Callable[[], Mapping[str, float]],
        meter: Meter,
        refusals: Refusals,
        about: Mapping[str, Any],
    ) -> None:
        """``clients`` by their sid; ``about`` says which node this is, its name first of all."""
        self._hub = hub
        self._clients = clients
        self._stats = stats
        self.meter = meter
        self._refusals = refusals
        self.about = about
        self._answers: Mapping[str, Callable[[Mapping[str, Any], float], Work]] = {
            "status": self._status,
            "rooms": self._rooms,
            "sessions": self._sessions,
        }

    def work(self, question: Mapping[str, Any], now: float) -> Work:
        """What answers a question that ``checked_question`` has let through; its result is an object for JSON."""
        self.meter.ask(now)
        return self._answers[question["what"]](question, now)

    # The whole node

    def _status(self, _: Mapping[str, Any], now: float) -> Work:
        transports, names, waiting = Counter[str](), Counter[str](), 0
        for sids in _sliced(self._hub.sids()):
            for client in self._present(sids):
                transports[client.session.transport] += 1
                names[client_name(client.session.agent)] += 1
                waiting += client.session.waiting
            yield
        stats = self._stats()
        named = sorted(names.items(), key=lambda item: (-item[1], item[0]))[:MAX_CLIENTS]
        return {
            **self.about,
            **{name: stats[name] for name in ("sessions", "users", "rooms", "memberships")},
            "transports": dict(sorted(transports.items())),
            "clients": [{"client": name, "sessions": count} for name, count in named],
            "other_clients": sum(names.values()) - sum(count for _, count in named),
            "waiting_bytes": waiting,
            **{name: stats[name] for name in ("updates_total", "deliveries_total") if name in stats},
            "deliveries_per_second": self.meter.total(now),
            "backplane": {
                name.removeprefix("backplane_"): stats[name]
                for name in ("backplane_up", "backplane_writable", "backplane_lag_seconds", "backplane_waiting")
                if name in stats
            },
            "refusals": self._refused(now),
        }

    def _refused(self, now: float) -> dict[str, Any]:
        newest = [
            {
                "code": refusal.code, "seconds_ago": round(now - refusal.at, 1), "user_id": refusal.user_id,
                "address": refusal.address, "project_id": refusal.project_id,
            }
            for refusal in self._refusals.newest(20)
        ]  # fmt: skip
        counts = dict(sorted(self._refusals.counts(now).items()))
        return {"minutes": MINUTES, "codes": counts, "newest": newest}

    # Rooms

    def _rooms(self, question: Mapping[str, Any], now: float) -> Work:
        search, by_rate = question["search"], question["sort"] == "deliveries"

        def rank(project_id: str) -> Ranked:
            members = self._hub.members(project_id)
            return (-(self.meter.rate(project_id, now) or 0.0) if by_rate else -members, project_id)

        project_ids = self._hub.project_ids()
        ranked = ((rank(each) for each in some if search in each.lower()) for some in _sliced(project_ids))
        total, first = yield from _first(question["count"], ranked)
        rows = [
            {
                "project_id": project_id,
                "members": self._hub.members(project_id),
                "deliveries_per_second": self.meter.rate(project_id, now),
            }
            for _, project_id in first
        ]
        return {"total": total, "rooms": rows}

    # Sessions

    def _sessions(self, question: Mapping[str, Any], _: float) -> Work:
        search = question["search"]

        def ranked(sids: Iterable[str]) -> Iterator[Ranked]:
            for client in self._present(sids):
                if not search or search in self._words(client):
                    yield -client.session.waiting, client.sid

        sids = self._hub.sids(user_id=question["user_id"], project_id=question["project_id"])
        total, first = yield from _first(question["count"], map(ranked, _sliced(sids)))
        rows: list[dict[str, Any]] = []
        for some in _sliced([sid for _, sid in first]):
            rows.extend(self._row(client) for client in self._present(some))
            yield
        return {"total": total, "sessions": rows}

    def _row(self, client: Client) -> dict[str, Any]:
        session, view = client.session, self._hub.look_at(client.sid)
        rooms = {} if view is None else view.rooms
        user = None if view is None else view.user
        named = [{"project_id": name, "state": state.value} for name, state in list(rooms.items())[:MAX_ROOMS]]
        return {
            "sid": client.sid,
            "user_id": None if user is None else user.user_id,
            "username": None if user is None else user.username,
            "address": session.client_address,
            "transport": session.transport,
            "client": client_name(session.agent),
            "user_agent": session.agent,
            "state": "ending" if view is None else view.state.value,
            "rooms": named,
            "rooms_total": len(rooms),
            "waiting_bytes": session.waiting,
        }

    def _words(self, client: Client) -> str:
        """Everything of a session that is searched."""
        session, view = client.session, self._hub.look_at(client.sid)
        user = None if view is None or view.user is None else view.user
        words = [client.sid, session.client_address, session.transport, client_name(session.agent), session.agent]
        return "\n".join([*words, *([user.user_id, user.username] if user else [])]).lower()

    def _present(self, sids: Iterable[str]) -> Iterator[Client]:
        """Those that are still there: sessions end between two slices."""
        found = (self._clients.get(sid) for sid in sids)
        return (client for client in found if client is not None)


def checked_question(said: object) -> dict[str, Any]:
    """A question as ``Inspection`` takes it, with what it leaves out. Raises ValueError for what is none.

    ``what`` is ``status``, ``rooms`` or ``sessions``.
    """
    if not isinstance(said, dict) or said.get("what") not in ("status", "rooms", "sessions"):
        raise ValueError("there is no such question")
    question = {"search": "", "sort": "members", "count": MAX_ROWS, "user_id": None, "project_id": None, **said}
    count = question["count"]
    texts = [question["search"], question["sort"], question["user_id"] or "", question["project_id"] or ""]
    if type(count) is not int or not 1 <= count <= MAX_ROWS or not all(isinstance(text, str) for text in texts):
        raise ValueError("its details are of another kind")
    return {**question, "search": question["search"][:MAX_TEXT].lower()}


def _sliced(items: list[T]) -> Iterator[list[T]]:
    return (items[start : start + SLICE] for start in range(0, len(items), SLICE))


def _first(count: int, slices: Iterable[Iterable[Ranked]]) -> Generator[None, None, tuple[int, list[Ranked]]]:
    """How many there are, and those that come first."""
    total, first = 0, list[Ranked]()
    for some in slices:
        found = list(some)
        total += len(found)
        first = heapq.nsmallest(count, [*first, *found])
        yield
    return total, first
