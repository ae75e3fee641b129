"""Questions about all nodes: how they are asked, answered, and what came of them put together as one answer."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from attrs import frozen

from automoderate.protocol.broadcast import dump_json
from automoderate.server.inspection import Inspection, checked_question
from automoderate.server.interfaces import Asked, Backplane, BackplaneUnavailable, NodeAnswer
from automoderate.server.jobs import Jobs
from automoderate.server.requests import Later, busy
from automoderate.server.slices import Slices

__all__ = ["Gathered", "Gathering", "answered_at_once", "gathered", "rooms_of_all", "sessions_of_all"]

MOST_ASKING = 8
"""Questions to other nodes that may be under way at a time: each may take a worker thread."""

T = TypeVar("T")


class AskedNode(Protocol):
    """The server, as far as it is asked here."""

    backplane: Backplane

    def end_session(self, sid: str, now: float) -> Mapping[str, Any] | None:
        """End a session; whose it was, None where it is not here."""


@frozen
class Gathered:
    """The answers of nodes, by their names, and the nodes that have not answered."""

    answers: Sequence[tuple[str, Mapping[str, Any]]]
    silent: Sequence[Mapping[str, Any]] = ()
    """Each with its ``node``, and for how many ``seconds`` it has said nothing, None where that is not known."""
    problem: str | None = None
    """Why the other nodes could not be asked at all."""

    @property
    def missing(self) -> dict[str, Any]:
        """What an answer says of what it does not have."""
        return {"silent": list(self.silent), "problem": self.problem}


class Gathering:
    """Asks all nodes, this one among them, and answers what others ask."""

    def __init__(self, node: AskedNode, inspection: Inspection, jobs: Jobs) -> None:
        self._node = node
        self._inspection = inspection
        self._jobs = jobs
        self._name = str(inspection.about.get("node", ""))
        self._asking = 0
        self.slices = Slices()

    def next_deadline(self) -> float | None:
        """When ``tick`` is next wanted."""
        if (deadline := self.slices.next_deadline()) is not None:
            return deadline
        return self._inspection.meter.next_deadline()

    def tick(self, now: float) -> None:
        """Go on answering, and counting."""
        self.slices.tick(now)
        self._inspection.meter.tick(now)

    async def ask(self, question: Mapping[str, Any], now: float) -> Gathered:
        """What all nodes answer. Raises HttpError where too much is asked already."""
        if self.slices.full or self._asking >= MOST_ASKING:
            raise busy()
        self._asking += 1
        try:
            return await self._ask(question, now)
        finally:
            self._asking -= 1

    def answer(self, asked: Asked, now: float) -> None:
        """Answer what another node asked; what is no question, or too much, is not answered."""

        def answered(said: Any, _now: float) -> None:
            if not isinstance(said, BaseException):
                text = dump_json({"node": self._name, "answer": said})
                self._node.backplane.answer(asked.reply_to, text)

        try:
            said = json.loads(asked.question)
            if isinstance(said, dict) and said.get("what") == "end" and isinstance(said.get("sid"), str):
                answered(self._end(said["sid"], now), now)
                return
            question = checked_question(said)
        except (ValueError, RecursionError):
            return
        if not self.slices.full:
            self.slices.start(self._inspection.work(question, now), answered)

    async def _ask(self, question: Mapping[str, Any], now: float) -> Gathered:
        mine = self._end(question["sid"], now) if question["what"] == "end" else None
        if mine is not None and mine["ended"] is not None:
            return Gathered([(self._name, mine)])  # it is nowhere else
        asked = self._node.backplane.ask(dump_json(question))
        if mine is None:
            work = self._inspection.work(checked_question(question), now)
            mine = await Later[dict[str, Any]](lambda resume: self.slices.start(work, resume))
        if asked is None:
            return Gathered([(self._name, mine)])
        try:
            others = await self._from_others(asked)
        except BackplaneUnavailable as error:
            return Gathered([(self._name, mine)], problem=str(error))
        found = gathered(question["what"], others)
        return Gathered([(self._name, mine), *found.answers], found.silent)

    def _from_others(
        self, asked: Future[Sequence[NodeAnswer]] | Callable[[], Sequence[NodeAnswer]]
    ) -> Later[Sequence[NodeAnswer]]:
        if isinstance(asked, Future):
            return Later(lambda resume: self._jobs.wait(asked, resume))
        return Later(lambda resume: self._jobs.start(asked, resume))

    def _end(self, sid: str, now: float) -> dict[str, Any]:
        return {"ended": self._node.end_session(sid, now)}


def answered_at_once(inspection: Inspection, asked: Asked) -> str | None:
    """The answer to what another node asked, of a server that does nothing in slices; None where it is no question."""
    try:
        work = inspection.work(checked_question(json.loads(asked.question)), 0.0)
    except (ValueError, RecursionError):
        return None
    while True:
        try:
            next(work)
        except StopIteration as finished:
            return dump_json({"node": inspection.about["node"], "answer": finished.value})


_ROW = {
    "sessions": {"sid": str, "waiting_bytes": int},
    "rooms": {"project_id": str, "members": int},
}  # fmt: skip
"""What has to be in the rows of an answer of another node, which may be of another version."""


def gathered(what: str, others: Sequence[NodeAnswer]) -> Gathered:
    """What nodes said that were asked ``what``; those that said nothing, or nothing of the kind, are silent."""
    answers, silent = list[tuple[str, Mapping[str, Any]]](), list[Mapping[str, Any]]()
    for other in others:
        found = None if other.text is None else _parsed(what, other.text)
        if found is None:
            silent.append({"node": other.node, "seconds": other.silent_for})
        else:
            answers.append(found)
    return Gathered(answers, silent)


def _parsed(what: str, text: str) -> tuple[str, Mapping[str, Any]] | None:
    """An answer and the name of its node; None for what is no answer to such a question."""
    try:
        said = json.loads(text)
        node, answer = str(said["node"]), said["answer"]
        if what in _ROW:
            rows = answer[what]
            right = type(answer["total"]) is int and all(
                isinstance(row[name], kind) for row in rows for name, kind in _ROW[what].items()
            )
        else:
            right = isinstance(answer, dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (node, answer) if right else None


def rooms_of_all(gathered: Gathered, sort: str, offset: int, limit: int) -> dict[str, Any]:
    """The rooms, each once with what all nodes have of it, the largest first or the busiest."""
    rooms: dict[str, dict[str, Any]] = {}
    for _, answer in gathered.answers:
        for row in answer["rooms"]:
            room = rooms.setdefault(row["project_id"], {**row, "members": 0, "deliveries_per_second": None})
            room["members"] += row["members"]
            room["deliveries_per_second"] = _sum(room["deliveries_per_second"], row.get("deliveries_per_second"))
    key = "members" if sort == "members" else "deliveries_per_second"
    ordered = sorted(rooms.values(), key=lambda room: (-(room[key] or 0), room["project_id"]))
    # A node says no more than its first rooms, but how many it has.
    total = max([len(rooms), *(answer["total"] for _, answer in gathered.answers)])
    return {"total": total, "rooms": ordered[offset : offset + limit], **gathered.missing}


def sessions_of_all(gathered: Gathered, offset: int, limit: int) -> dict[str, Any]:
    """The sessions, those for which most waits first."""
    total = sum(answer["total"] for _, answer in gathered.answers)
    first = heapq.nsmallest(offset + limit, _rows(gathered), key=lambda row: (-row["waiting_bytes"], row["sid"]))
    return {"total": total, "sessions": first[offset:], **gathered.missing}


def _rows(gathered: Gathered) -> Iterator[dict[str, Any]]:
    for node, answer in gathered.answers:
        for row in answer["sessions"]:
            yield {**row, "node": node}


def _sum(one: float | None, other: float | None) -> float | None:
    return one if other is None else round((one or 0.0) + other, 1)
