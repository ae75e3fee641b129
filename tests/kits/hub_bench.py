"""A hub on its own: a clock, and the answers that a test gives by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import UnionType
from typing import Any

from automoderate.core.hub import (
    Access,
    AccessChecked,
    CheckAccess,
    Connected,
    Effect,
    Enter,
    Error,
    Follow,
    History,
    HistoryRead,
    Hub,
    Identified,
    Identify,
    Identity,
    Input,
    Limits,
    Published,
    ReadHistory,
    Received,
    Recheck,
    Tick,
    Unfollow,
    Update,
    room_name,
    stamped,
)

ORIGIN = "1000-0"
"""Where the history of every project begins."""


def update(sequence: int, project: str = "p", event: str = "moderation_update", **data: Any) -> Update:
    """The update that follows number ``sequence - 1``."""
    event_id = f"1000-{sequence}"
    return Update(project, event, stamped(json.dumps(data, separators=(",", ":")), event_id), event_id)


def error(which: Error, project_id: str | None = None) -> dict[str, Any]:
    """The data of an ``error``."""
    code, message = which.value
    named = {} if project_id is None else {"project_id": project_id}
    return {"message": message, "code": code, **named}


def joined(project: str = "p", last: str = ORIGIN, **more: Any) -> dict[str, Any]:
    """The data of a ``joined_project``."""
    return {"project_id": project, "room": room_name(project), "last_event_id": last, **more}


def of_type(effects: Sequence[Effect], kind: type[Any] | UnionType) -> list[Any]:
    """The effects of this kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


class HubBench:
    """A hub and its clock; each method returns what the hub wants done."""

    def __init__(self, limits: Limits | None = None, *, other_nodes: bool = False) -> None:
        self.hub = Hub(limits, other_nodes=other_nodes)
        self.now = 100.0
        self.following: list[Effect] = []
        """Which projects' updates the backplane was asked for, kept apart from what becomes of sessions."""

    def give(self, item: Input) -> list[Effect]:
        effects = self.hub.handle(item, self.now)
        self.following += [effect for effect in effects if isinstance(effect, Follow | Unfollow)]
        return [effect for effect in effects if not isinstance(effect, Follow | Unfollow)]

    def after(self, seconds: float) -> list[Effect]:
        """Let time pass."""
        self.now += seconds
        return self.give(Tick())

    def connect(self, sid: str = "s", user: str | None = "u", address: str = "10.0.0.1") -> list[Effect]:
        """A session that is logged in as a user; None: not logged in."""
        (identify,) = self.give(Connected(sid, f"cookie of {user}", address))
        assert isinstance(identify, Identify)
        assert (identify.sid, identify.credential) == (sid, f"cookie of {user}")
        return self.give(Identified(identify.ticket, None if user is None else Identity(user, user.upper())))

    def send(self, event: str, *args: Any, sid: str = "s", ack: int | None = None) -> list[Effect]:
        """An event of a client."""
        return self.give(Received(sid, event, args, ack))

    def publish(self, *updates: Update) -> list[Effect]:
        """Updates that arrive from the backplane."""
        return [effect for item in updates for effect in self.give(Published(item))]

    def ask(self, project: str = "p", sid: str = "s", ack: int | None = None, **more: Any) -> CheckAccess:
        """Send a join and return the check it asks for."""
        (check,) = self.send("join_project", {"project_id": project, **more}, sid=sid, ack=ack)
        assert isinstance(check, CheckAccess)
        assert check.project_id == project
        return check

    def grant(self, check: CheckAccess) -> list[Effect]:
        """Say that the user may be in the room."""
        return self.give(AccessChecked(check.ticket, Access.GRANTED))

    def read(
        self, question: ReadHistory, *updates: Update, last: str | None = None, complete: bool = True
    ) -> list[Effect]:
        """Answer with the history that the question asks for; it ends with its last update, or at ``last``."""
        newest = last or (updates[-1].event_id if updates else ORIGIN)
        return self.give(HistoryRead(question.ticket, History(updates, complete, newest)))

    def join(self, project: str = "p", sid: str = "s", last: str = ORIGIN, **more: Any) -> list[Effect]:
        """Make a session a member; what it was sent with the answer to its join."""
        effects = self.read(self.catching_up(None, sid, project=project, **more), last=last)
        assert of_type(effects, Enter)[0].sid == sid
        return effects

    def catching_up(
        self, after: str | None, sid: str = "s", ack: int | None = None, project: str = "p", **more: Any
    ) -> ReadHistory:
        """Bring a join up to where the history is asked for."""
        if after is not None:
            more["last_event_id"] = after
        *_, read = self.grant(self.ask(project, sid, ack, **more))
        assert isinstance(read, ReadHistory)
        return read

    def recheck_due(self) -> Recheck:
        """Let time pass until the next re-check is asked for."""
        for _ in range(10):
            deadline = self.hub.next_deadline()
            assert deadline is not None
            self.now = max(self.now, deadline)
            for effect in self.give(Tick()):
                if isinstance(effect, Recheck):
                    return effect
        raise AssertionError("no re-check became due")

    def is_empty(self) -> bool:
        """Whether nothing is left of any session."""
        counts = self.hub.counts()
        return not any(counts[name] for name in ("sessions", "users", "rooms", "memberships", "tickets"))
