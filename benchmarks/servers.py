"""The servers that are measured side by side, and how the harness speaks with one.

A server under test is a process of its own, started as ``<argv> CONFIG`` with standard input and output as pipes.
CONFIG is the path of a JSON file, the same for every server of a run:

``database_url``
    An AutoModerate database (SQLite, made by :mod:`benchmarks.world`). Every server looks up who a session cookie
    names, and whether they may be in the project they want to join, with one query each; Python servers through
    :mod:`automoderate.directory`.
``secret_key``
    What Flask signed the session cookies with.
``projects``
    Project ids. "Room number i" below is the room of ``projects[i]``.
``template``
    The data of a ``moderation_update`` without what differs from one to the next, which are ``project_id``,
    ``event_id`` (``"<milliseconds>-<number>"``) and, in ``meta_data``, ``seq`` and ``sent``.
``ping_interval``
    Seconds between two Engine.IO pings of one session; longer than any run, so that nobody's are in a figure.
``port``
    Of 127.0.0.1, where it listens; 0 for a free one.
``recovery``
    Whether a client that was away for up to two minutes may get what it missed, where that is something to switch on.
``limits``
    ``raised`` beyond what a load from one address runs into, or the server's own ``default``.
``counting``
    Whether it counts the statements that it asks the database.
``window``
    For how many milliseconds updates of a room wait for one another. Only ours are asked to.
``standby``
    Whether it gets ready for listening, says ``{"standing_by": true}`` and waits for a line before it does.

It listens without compression or access log, and prints one line when it takes
connections; everything else it has to say goes to standard error::

    {"port": 40123}

A session behaves as docs/client-reference.md says: ``connected`` after the login, ``joined_project`` after
``join_project``. Then commands come, one line of JSON each, and each is answered with one line before the next comes::

    {"publish": {"rooms": 100, "updates": 6400, "rate": null, "batch": 64}}
    {"published": 6400}

publishes ``updates`` updates as ``moderation_update`` to the rooms number 0 to ``rooms`` - 1 in turn. ``seq`` counts
the updates of each room from 0 and goes on with the next command. ``sent`` is the publisher's CLOCK_MONOTONIC in
nanoseconds just before the update is encoded; every update is encoded when it is published, none beforehand.

``batch`` updates at a time are handed over in one go. Without a ``rate`` the next batch follows as soon as the
previous one has left as far as the server can tell, and with a ``rate`` batches leave at fixed times, so many updates
a second in all. The answer may come before the last update has left.

``{"statements": true}`` is answered with the number of statements that the database was asked so far:
``{"statements": 10004}``.

``POST /api/projects/<id>/events``, with the project's key from ``api_keys`` in ``X-API-Key`` and
``{"event": …, "data": {…}}``, publishes as well; the key is looked up each time. The answer is 202.

Several servers that share a Redis are started as ``<argv> REDIS_URL CONFIG`` and publish nothing: a process of its own
takes those commands and publishes through Redis (:mod:`benchmarks.cluster`).

End of file on standard input ends the process, in two seconds at most; then it is killed. CPU time and resident memory
are what the kernel says of the process; it may have threads, but no children.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from attrs import evolve, field, frozen

from benchmarks import native
from benchmarks.child import Child

STARTING = 120.0  # seconds until a server has to be listening: on a busy machine Python alone takes many
Kind = Literal["adapter", "peer", "floor"]


@frozen
class Contender:
    """A server to measure: ``argv`` starts it, with the path CONFIG added."""

    name: str
    title: str
    kind: Kind
    argv: tuple[str, ...]
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot run on this machine, in one line that names the fix; None where it can."""
    versions: Callable[[], dict[str, str]] = dict
    """What it runs on, by name."""
    most_members: int | None = None
    """With more it is not measured, and a note says so."""
    nodes: int = 0
    """How many of it share a Redis; 0 where it is alone."""
    publisher: tuple[str, ...] = ()
    """Starts who publishes through that Redis, where that is not our own publisher."""
    lacks: Mapping[str, str] = field(factory=dict, hash=False)
    """The kinds of scenarios in which it is not measured, and why."""
    standard: bool = True
    """Whether it is measured where nobody says who is to be."""
    source: Path | None = None
    """The checkout that it is from, where that is another one."""


def needs(**modules: str) -> Callable[[], str | None]:
    """The ``missing`` of a contender that needs Python modules: the distribution of each by the module's name."""

    def missing() -> str | None:
        absent = [distribution for module, distribution in modules.items() if find_spec(module) is None]
        return f"not installed; pip install {' '.join(absent)}" if absent else None

    return missing


def distributions(*names: str) -> Callable[[], dict[str, str]]:
    """The ``versions`` of a contender that runs on Python distributions."""

    def versions() -> dict[str, str]:
        found = {}
        for name in names:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found

    return versions


class Server(Child):
    """A server under test that is listening."""

    receipts: int | None = None
    """Where it wants to be told of what has arrived: nowhere, it knows what it has written."""

    def __init__(self, contender: Contender, config: Path, core: int | None, *, standby: bool = False) -> None:
        """With ``standby``, which CONFIG has to say too, it takes no connections before :meth:`listen`."""
        super().__init__([*contender.argv, str(config)], core)
        self.contender = contender
        self.ports: Sequence[int] = ()
        try:
            if standby:
                self.hear(STARTING)
            else:
                self._hear_port()
        except BaseException:
            self.close()
            raise

    def listen(self) -> None:
        """Have a server that stands by take connections."""
        self.say("go")
        self._hear_port()

    def _hear_port(self) -> None:
        self.ports = [self.hear(STARTING)["port"]]

    def publish(self, *, rooms: int, updates: int, batch: int, rate: float | None) -> None:
        """Begin to publish; ``hear`` has the answer. Raises :exc:`ChildFailed`."""
        self.say(publish_command(rooms=rooms, updates=updates, batch=batch, rate=rate))

    def spent(self) -> dict[str, float]:
        """CPU seconds used so far, by who has used them."""
        return {"server": self.cpu()}


def publish_command(*, rooms: int, updates: int, batch: int, rate: float | None) -> str:
    """The line that has updates published."""
    return json.dumps({"publish": {"rooms": rooms, "updates": updates, "rate": rate, "batch": batch}})


def _ours(name: str, title: str, **modules: str) -> Contender:
    argv = (sys.executable, "-m", "benchmarks.ours", name)
    return Contender(name, title, "adapter", argv, needs(**modules), distributions(*modules.values()))


ADAPTERS = (
    _ours("asyncio", "AutoModerate, asyncio"),
    _ours("uvloop", "AutoModerate, asyncio with uvloop", uvloop="uvloop"),
    _ours("trio", "AutoModerate, trio", trio="trio", anyio="anyio"),
    _ours("eventlet", "AutoModerate, eventlet", eventlet="eventlet"),
)
FLOOR = Contender(
    "floor", "bare send() loop in C", "floor", (sys.executable, "-m", "benchmarks.floor"),
    native.missing, native.versions,
    lacks=dict.fromkeys(
        ("connect", "memory", "stall", "publish", "polling", "stalled", "storm", "jitter", "notifier", "window"),
        "it only sends",
    ),
)  # fmt: skip


def of_checkout(adapter: Contender, path: Path) -> Contender:
    """The same adapter as it is in another checkout of this project, measured by the harness of this one.

    Its name is the adapter's, ``@`` and the folder's, by which tables put a ratio between the two. Python packages are
    those that are installed here. Raises ``ValueError`` where there is no checkout.
    """
    path = Path(os.path.abspath(path))  # not resolved: a link names a checkout as well as a folder does
    if not (path / "automoderate" / "app.py").is_file():
        raise ValueError(f"there is no checkout of AutoModerate in {path}")

    def versions() -> dict[str, str]:
        git = ("git", "-C", str(path), "describe", "--always", "--dirty", "--exclude=*")
        said = subprocess.run(git, capture_output=True, text=True, check=False)
        return {**({"commit": said.stdout.strip()} if not said.returncode else {}), **adapter.versions()}

    argv = (*adapter.argv[:-1], "--source", str(path), adapter.argv[-1])
    name, title = f"{adapter.name}@{path.name}", f"{adapter.title}, {path.name}"
    return evolve(adapter, name=name, title=title, argv=argv, versions=versions, source=path)
