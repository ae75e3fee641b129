"""What the server needs of others: a directory that knows people and projects, and a backplane that carries updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from attrs import frozen

from automoderate.core import hub
from automoderate.core.hub import Access, History, Identity, PresenceReport, Update


class NotRunning(RuntimeError):
    """The server is not running, not yet or no longer: nothing was published."""


class BackplaneUnavailable(RuntimeError):
    """What the nodes share cannot be reached, or did not say in time whether it has taken something."""


class BackplaneBusy(BackplaneUnavailable):
    """More waits to be published than may: nothing was published, and trying again in a moment may help."""


class BackplaneRefused(BackplaneUnavailable):
    """It was reached and takes nothing: nothing was published. ``reason`` says why in a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ProjectUnusable(BackplaneRefused):
    """What it keeps of one project cannot be used, and of others it can. The backplane has said so in the log."""


@frozen
class Asked:
    """Another node, or the command line, asks this node something."""

    question: str
    """In JSON; :mod:`automoderate.server.inspection` knows what it may be."""
    reply_to: str
    """Where the answer goes."""


@frozen
class NodeAnswer:
    """What one node said when all were asked."""

    node: str
    """Its id, or its name where that is known."""
    text: str | None
    """In JSON; None: it has not answered in time."""
    silent_for: float | None = None
    """Seconds since it last gave a sign of life, where it has not answered and that is known."""


class Directory(Protocol):
    """Who is who and who may see what.

    The methods that end in ``_many`` block and run in worker threads. They answer questions that were waiting together,
    each by itself: an exception in the place of an answer means that this question could not be answered, and one that
    is raised, that none could. The client is told ``server_error``.
    """

    def session_cookie(self, cookie: str | None) -> str | None:
        """The session cookie's value within a ``Cookie`` header. Pure and fast: called for every request."""

    def session_user(self, cookie: str | None) -> str | None:
        """The user id a signed cookie names, whether or not that user may still log in. Runs in a worker thread."""

    def identify_many(self, cookies: Sequence[str | None]) -> Sequence[Identity | Exception | None]:
        """The active user each ``Cookie`` header belongs to, or None; logs why a visitor counts as anonymous."""

    def check_access_many(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Access | Exception]:
        """For each pair of a user and a project, whether the user may be in the project's room."""

    def recheck_many(
        self, questions: Sequence[tuple[str, tuple[str, ...]]]
    ) -> Sequence[frozenset[str] | Exception | None]:
        """For each user with some projects, those still allowed; None where the user is unknown or inactive."""

    def key_projects_many(self, keys: Sequence[str]) -> Sequence[str | Exception | None]:
        """The project that each API key may publish to; None for what is no key, or is not active."""

    def admins_many(self, user_ids: Sequence[str]) -> Sequence[bool | Exception]:
        """Whether each is an active user with ``is_admin``."""

    def ping(self) -> None:
        """Return if the directory can be asked at all. Runs in a worker thread."""


Heard: TypeAlias = hub.Input | Asked
"""What a node hears from others: what its hub is to be told, and questions."""

Receive: TypeAlias = Callable[[Sequence[Heard]], Future[None]]
"""Takes what was heard, in order and from any thread; the future is done when the hub has been told."""


Hear: TypeAlias = Callable[[Callable[[Sequence[Heard]], None]], bool]
"""Takes what has come, and gives it to the function that it is called with; whether it wants to be called again."""

Listen: TypeAlias = Callable[[int, Hear], Future[None]]
"""Has the loop call the one that hears, now and whenever the descriptor can be read; from any thread.

There need not be anything to read each time. That is until it says False, after which the descriptor may be closed. The
future is done after the first time.
"""


class Backplane(Protocol):
    """Numbers the updates of projects, remembers the recent ones, and carries them between nodes where there are any.

    A backplane that keeps everything in the process answers at once. One that several nodes share takes its time, and
    answers with a future or, where somebody has to wait, with what a worker thread is to call. All methods are called
    on the loop's thread, and none of them blocks.
    """

    def start(self, receive: Receive, listen: Listen | None = None) -> None:
        """Begin; what other nodes publish in the followed projects, and announce, is handed to ``receive``.

        Or it is heard on the loop's own thread, where that can ``listen``.
        """

    def drain(self) -> None:
        """The node is about to leave: refuse from here on, with NotRunning, what would be lost with it."""

    def close(self) -> None:
        """Hand over and publish nothing more."""

    def follow(self, project_id: str) -> None:
        """Hand over the project's updates, from where the next ``read`` of it ends."""

    def unfollow(self, project_id: str) -> None:
        """Hand them over no more."""

    def read(
        self, project_id: str, after: str | None, newest: int = 0, before: str | None = None
    ) -> History | Callable[[], History]:
        """What was published after the event id ``after``; without one, so many of the newest updates that are kept.

        With ``before`` they are the newest of those whose event id is smaller, whether or not that id was ever issued.
        A callable is for a worker thread. It raises BackplaneUnavailable where the history cannot be read.
        """

    def publish(self, project_id: str, event: str, text: str, trace: str | None = None) -> Update | Future[str]:
        """Publish one event, whose data ``text`` is; every node gets its ``trace`` with it.

        The update, where it is numbered here: the caller tells the hub itself. Or a future of its
        ``event_id``: the hub hears of the update as all nodes do. The future fails with BackplaneUnavailable.
        """

    def publish_all(
        self, project_id: str, events: Sequence[tuple[str, str]], traces: Sequence[str] = ()
    ) -> Sequence[Update] | Future[Sequence[str]]:
        """Publish several events, each with its data: either all of them, in order, or none. Otherwise as ``publish``.

        There is a trace for each of them, or none at all.
        """

    @property
    def shared(self) -> bool:
        """Whether there may be other nodes."""

    def share_presence(self, report: PresenceReport) -> None:
        """Tell the other nodes that follow the project, as :class:`automoderate.core.hub.PresenceShared`.

        It may be lost with a connection, but never overtakes another one of this node.
        """

    def announce(self, item: hub.AccessChanged | hub.LoggedOut) -> Future[Any] | None:
        """Tell the other nodes; None where there are none.

        The future is done when they will hear of it, else it fails with BackplaneUnavailable.
        """

    def ask(self, question: str) -> Future[Sequence[NodeAnswer]] | Callable[[], Sequence[NodeAnswer]] | None:
        """Ask every other node, which hears it as ``Asked``; None where there are none.

        It takes a few seconds at most: a node that has not answered by then is in the list without an answer. A
        callable is for a worker thread; it raises BackplaneUnavailable where no node can be asked.
        """

    def answer(self, reply_to: str, text: str) -> None:
        """Answer what another node asked. It may be lost."""

    @property
    def hearing(self) -> bool:
        """Whether everything that is published anywhere is heard here."""

    @property
    def writable(self) -> bool:
        """Whether what is published here is taken, as far as is known."""

    def stats(self) -> Mapping[str, float]:
        """Gauges, and counters (names that end in ``_total``). From any thread."""
