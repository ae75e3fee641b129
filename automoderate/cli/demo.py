"""``automoderate demo``: the whole thing in one command, with users, projects and a pipeline that keeps it busy."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import random
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import define, field, frozen
from sqlalchemy.orm import Session
from werkzeug.security import generate_password_hash

from automoderate import _logs, adapters
from automoderate.adapters.runtime import Handle
from automoderate.cli.common import Unavailable, WrongUsage, program
from automoderate.directory.database import Database
from automoderate.directory.tables import ApiKey, Project, ProjectMember, User
from automoderate.notifier import WebSocketNotifier
from automoderate.settings import OPTIONS, Settings

if TYPE_CHECKING:
    from automoderate.app import Assembly
    from automoderate.realtime import Realtime

# Killing the demo and starting it again must let open pages come back by themselves. Their cookies only stay good
# while the secret and the users' ids stay the same, so the secret is fixed, here for everybody to read, and ids,
# passwords and keys follow from the seed. That is why a demo does not listen beyond this machine unless told to.
_SECRET_KEY = "for-the-demo-only-and-known-to-everybody"
_LARGEST_RATE = 1000.0


@frozen
class DemoUser:
    """A user of the demo, and the password to log in with."""

    id: str
    name: str
    password: str


@frozen
class DemoProject:
    """A project of the demo, its owner and members, and the key that publishes to it."""

    id: str
    name: str
    description: str
    owner: DemoUser
    members: tuple[DemoUser, ...]
    api_key: str


@frozen
class DemoData:
    """All users and projects of the demo, the same for the same seed."""

    users: tuple[DemoUser, ...]
    projects: tuple[DemoProject, ...]

    @classmethod
    def of(cls, seed: int) -> DemoData:
        """The data that follows from a seed."""
        chance = random.Random(f"automoderate demo {seed}")

        def new_id() -> str:
            return str(uuid.UUID(int=chance.getrandbits(128), version=4))

        def user(name: str) -> DemoUser:
            return DemoUser(new_id(), name, f"{name}-{chance.randrange(16**6):06x}")

        alice, bob = user("alice"), user("bob")

        def project(name: str, description: str, owner: DemoUser, *members: DemoUser) -> DemoProject:
            return DemoProject(new_id(), name, description, owner, members, f"am_{chance.randbytes(20).hex()}")

        forum = project("Harbour Forum", "Comments of a town's forum", alice, bob)
        market = project("Night Market", "Offers and questions", bob)
        return cls((alice, bob), (forum, market))

    def save(self, database: Database) -> None:
        """Write it all into an empty database."""
        with Session(database.engine) as session:
            for user in self.users:
                # Hardly any rounds: these passwords are printed on the screen, and a demo should start at once.
                hashed = generate_password_hash(user.password, method="pbkdf2:sha256:1000")
                session.add(
                    User(
                        id=user.id,
                        username=user.name,
                        email=f"{user.name}@example.org",
                        password_hash=hashed,
                        is_admin=False,
                        is_active=True,
                    )
                )
            session.flush()
            for project in self.projects:
                session.add(
                    Project(
                        id=project.id,
                        name=project.name,
                        description=project.description,
                        user_id=project.owner.id,
                        is_active=True,
                    )
                )
                session.flush()
                session.add(
                    ApiKey(
                        id=str(uuid.uuid4()),
                        key=project.api_key,
                        name="demo",
                        project_id=project.id,
                        is_active=True,
                        usage_count=0,
                    )
                )
                for member in project.members:
                    member_id = str(uuid.uuid4())
                    session.add(ProjectMember(id=member_id, project_id=project.id, user_id=member.id, role="member"))
            session.commit()


# The pipeline -------------------------------------------------------------------------------------------------

_FINE = (
    "The ferry runs again from Monday, the 7:40 included.",
    "Has anybody found a grey cat near the old lighthouse? She answers to Minna.",
    "Thanks for the tip, the repair café fixed my radio in ten minutes.",
    "Could we get a bench on the north pier? My knees would be grateful.",
    "Selling a child's bicycle, 20 inches, blue, some scratches, otherwise in good order.",
    (
        "Does the bakery on Mill Lane still have the rye bread with caraway? I went twice this week and it was sold "
        "out both times, so before I walk down there again in the rain I thought I would rather ask."
    ),
    "¿Alguien sabe a qué hora abre la biblioteca el sábado?",
    "Der Flohmarkt war großartig, nächstes Jahr bitte wieder! 🎉",
    "Photo of the sunset from the breakwater, no filter.",
    "Which of the two bus lines is quicker to the hospital?",
)
_SPAM = (
    "Earn 5,000 a week from home!!! Write to me now and I will show you how it is done.",
    "Cheap watches, real brands, free shipping, click click click",
    "Your account is blocked. Confirm your password at the link below within 24 hours.",
    "<b>WIN A PHONE</b> just <script>document.location='//prize.example'</script> one click away",
)
_RUDE = (
    "You must be the dumbest person on this island, and everyone knows it.",
    "People like you should be thrown out of this forum for good.",
    "Shut up already, nobody asked you.",
)
_UNCLEAR = (
    "I know where he lives, and he knows that I know.",
    "That doctor's advice is wrong, take twice the dose and you will be fine.",
    "This party's voters are all the same, you can tell by their faces.",
    "Meet me behind the warehouse, bring the usual.",
)
_RULES = ("Spam Detection", "Blocked links", "Repeated posts", "Insults")
_KINDS = (
    # texts, what is decided how often, who decides (type, rules), seconds it takes from and to, how common it is
    (_FINE, ("approved",), "ai", (), (0.3, 1.9), 50),
    (_FINE, ("approved",), "rule", ("Trusted author",), (0.002, 0.02), 12),
    (_SPAM, ("rejected",), "rule", _RULES[:3], (0.002, 0.03), 16),
    (_RUDE, ("rejected", "rejected", "flagged"), "ai", (), (0.4, 2.2), 9),
    (_RUDE, ("rejected",), "rule", _RULES[3:], (0.002, 0.02), 4),
    (_UNCLEAR, ("flagged",), "ai", (), (0.6, 2.8), 6),
    (_UNCLEAR, ("approved", "rejected"), "manual", (), (3.0, 9.0), 3),
)


@frozen(order=True)
class _Decision:
    """A decision about to be made, ordered by the time when."""

    due: float
    number: int
    content: dict[str, Any] = field(order=False)
    status: str = field(order=False)
    result: dict[str, Any] = field(order=False)
    seconds: float = field(order=False)


@define
class Pipeline:
    """Invents content and decides on it, ``rate`` times a second on average.

    Nothing here looks at a clock: ``step(now)`` does what is due and returns when it wants to be called again.
    """

    notifier: WebSocketNotifier
    projects: Sequence[DemoProject]
    rate: float
    chance: random.Random
    _next_content: float = field(default=0.0, init=False)
    _decisions: list[_Decision] = field(factory=list, init=False)
    _numbers: itertools.count[int] = field(factory=itertools.count, init=False)
    _decided: dict[str, Counter[str]] = field(factory=dict, init=False)

    def step(self, now: float) -> float:
        """Publish what is due at ``now`` (seconds); the time of what comes next."""
        self._next_content = max(self._next_content, now - 0.1)  # after a pause, do not make up for all of it
        while self._next_content <= now:
            self._receive(self._next_content)
            # People do not write to a metronome.
            self._next_content += self.chance.uniform(0.5, 1.5) / self.rate
        while self._decisions and self._decisions[0].due <= now:
            self._decide(heapq.heappop(self._decisions))
        return min([self._next_content, *(decision.due for decision in self._decisions[:1])])

    def _receive(self, now: float) -> None:
        project = self.chance.choices(self.projects, (3, *[2] * (len(self.projects) - 1)))[0]
        texts, statuses, who, rules, (least, most), _ = self.chance.choices(_KINDS, [kind[-1] for kind in _KINDS])[0]
        number = next(self._numbers)
        content = {
            "id": str(uuid.uuid4()),  # not by the seed: after a restart this is other content
            "project_id": project.id,
            "content_type": "text",
            "content_data": self.chance.choice(texts),
            "meta_data": {"author": f"user{self.chance.randrange(100, 1000)}", "source": "demo"},
        }
        result = {"moderator_type": who, **({"rule_name": self.chance.choice(rules)} if rules else {})}
        seconds = round(self.chance.uniform(least, most), 3)
        self.notifier.send_content_created(content)
        heapq.heappush(
            self._decisions,
            _Decision(now + seconds, number, content, self.chance.choice(statuses), result, seconds),
        )
        if number % 40 == 39:
            rule = {"id": str(uuid.uuid4()), "name": self.chance.choice(_RULES), "is_active": True}
            self.notifier.send_rule_update(project.id, rule, self.chance.choice(("created", "updated")))

    def _decide(self, decision: _Decision) -> None:
        self.notifier.send_update_async(decision.content, decision.status, [decision.result], decision.seconds)
        project_id = decision.content["project_id"]
        decided = self._decided.setdefault(project_id, Counter())
        decided[decision.status] += 1
        if decided.total() % 10 == 0:
            self.notifier.send_stats_update(project_id, {"total": decided.total(), **decided})


def _keep_busy(pipeline: Pipeline, stopped: threading.Event, realtime: Realtime) -> None:
    now = time.monotonic()
    while realtime.running and not realtime.draining:
        following = pipeline.step(now)
        if stopped.wait(max(0.0, following - time.monotonic())):
            return
        now = time.monotonic()


# The command --------------------------------------------------------------------------------------------------


def _parsed(_context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """A value as the server's settings take it."""
    try:
        return OPTIONS[str(parameter.name)].parse(value)
    except ValueError as error:
        shown = ", ".join(value) if isinstance(value, tuple) else value
        raise WrongUsage(f"{parameter.opts[0]} {shown}: {error}") from None


@click.command(short_help="Try it: a throw-away server with users, projects and a busy pipeline.")
@click.option(
    "--host", callback=_parsed, default=("127.0.0.1",), multiple=True, show_default=True,
    help="The address to listen on. May be repeated.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65535), default=6217, show_default=True, help="The port; 0 for any free one."
)
@click.option(
    "--adapter", type=click.Choice(adapters.names()), default="asyncio", show_default=True, help="The runtime."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, _LARGEST_RATE, min_open=True),
    default=2.0,
    show_default=True,
    help="Decisions a second.",
)
@click.option(
    "--content-url", callback=_parsed, metavar=OPTIONS["content_url"].metavar, help=OPTIONS["content_url"].help
)
@click.option("--seed", type=int, default=1, show_default=True, help="Ids, passwords and keys follow from it.")
@click.option(
    "--log-format", type=click.Choice((_logs.TEXT, _logs.JSON)), default=_logs.TEXT, show_default=True,
    help="How a line of the log is written.",
)  # fmt: skip
def demo(
    host: tuple[str, ...], port: int, adapter: str, rate: float, content_url: str | None, seed: int, log_format: str
) -> None:
    """Run a server with a throw-away database, two users, two projects and a simulated moderation pipeline.

    Prints where to go and how to log in. Start it again on the same port, and open pages come back by themselves.
    The database is temporary and removed at the end. Exit status: 0 after Ctrl-C, 2 wrong usage, 3 cannot start.

    \b
    automoderate demo --port 8000 --rate 10
    """
    if math.isnan(rate):  # which is in every range, as far as comparing it says
        raise WrongUsage("--rate nan: must be a number of decisions a second")
    from automoderate import app  # the server and its web application take a while to import

    if log_format == _logs.JSON:
        _logs.configure("warning", alone=True, form=log_format)
    data = DemoData.of(seed)
    with tempfile.TemporaryDirectory(prefix="automoderate-demo-") as directory:
        url = f"sqlite:///{Path(directory) / 'demo.sqlite3'}"
        database = Database(url)
        database.create_all()
        data.save(database)
        database.close()
        settings = Settings(
            host=host, port=port, adapter=adapter, database_url=url, secret_key=_SECRET_KEY, content_url=content_url
        )
        try:
            _serve(app.build(settings), data, rate, seed)
        except app.CannotStart as error:
            raise Unavailable(str(error)) from None


def _serve(assembly: Assembly, data: DemoData, rate: float, seed: int) -> None:
    notifier = WebSocketNotifier(realtime=assembly.realtime)
    pipeline = Pipeline(notifier, data.projects, rate, random.Random(seed))
    stopped = threading.Event()
    busy = threading.Thread(target=_keep_busy, args=(pipeline, stopped, assembly.realtime), name="demo-pipeline")

    def ready(handle: Handle) -> None:
        hosts = [host for host, _ in handle.addresses]
        click.echo(describe(data, hosts, handle.addresses[0][1], rate, program()))
        # When the server stops, the pipeline may be one step ahead: no news to somebody who just pressed Ctrl-C.
        logging.getLogger("automoderate.notifier").setLevel(logging.ERROR)
        busy.start()

    try:
        assembly.run(ready)
    finally:
        stopped.set()
        if busy.ident is not None:
            busy.join()
        notifier.close(0)


def describe(data: DemoData, hosts: Sequence[str], port: int, rate: float, program: str = "automoderate") -> str:
    """What the demo prints once it listens; ``program`` is how the person calls this command line."""
    remote = [host for host in hosts if not ip_address(host).is_loopback]
    shown = "127.0.0.1" if ip_address(hosts[0]).is_unspecified else hosts[0]
    base = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    where = "" if base == "http://127.0.0.1:6217" else f" --url {base}"
    forum = data.projects[0]
    password = f"AUTOMODERATE_PASSWORD={forum.owner.password}"
    relative = "/" in program and not program.lstrip("'").startswith("/")
    lines = [
        f"AutoModerate demo: {base}/",
        "",
        "Log in as",
        *(f"  {user.name:<6} password {user.password}" for user in data.users),
        "",
        "Projects",
    ]
    for project in data.projects:
        who = ", ".join([f"{project.owner.name} (owner)", *(f"{member.name} (member)" for member in project.members)])
        absent = [user.name for user in data.users if user not in (project.owner, *project.members)]
        denied = f"; {', '.join(absent)} is refused" if absent else ""
        lines += [f"  {project.name}: {who}{denied}", f"    page     {base}/projects/{project.id}"]
        lines += [f"    API key  {project.api_key}"]
    lines += [
        "",
        f"In another terminal{', in this folder' if relative else ''}",
        f"  {program} publish {forum.id}{where} --api-key {forum.api_key} --status flagged --text 'Hello there'",
        f"  {password} {program} watch {forum.id}{where} --username {forum.owner.name}",
        "",
        "For a client of your own",
        f"  export URL={base} PROJECT={forum.id} API_KEY={forum.api_key}",
        f"  export COOKIE=$({password} {program} login{where} --username {forum.owner.name} --print-cookie)",
        "",
        f"{rate:g} decisions a second are made up. Ctrl-C ends the demo and removes its data.",
    ]
    if remote:
        warning = (
            f"WARNING: listening on {', '.join(remote)}. Everybody who reaches this machine can log in as any user: "
            "the demo's secret is public. Never put real data into it."
        )
        lines += ["", click.style(warning, fg="red", bold=True)]
    return "\n".join(lines)
