"""What the layers without sockets cost, one by one: ``make bench-micro``, or

    python -m benchmarks.micro [--fast] [-o FILE]

pyperf runs each piece in several processes and says by how much they differ; its options are ``pyperf``'s own. Data
and frames are those of the fan-out benchmarks.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial

import pyperf
from engineio import packet as engine_packet
from socketio import packet as socket_packet
from websockets.frames import Frame, Opcode

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core import hub
from automoderate.core.hub import Access, History, Hub, Limits, Update
from automoderate.protocol.broadcast import event_packet, object_text
from automoderate.protocol.config import Config
from automoderate.protocol.model import Connection, Peer
from automoderate.protocol.outputs import Fanout, Job, Write
from automoderate.protocol.websocket import WebSocket, text_frame
from automoderate.server import Server
from automoderate.server.api import ApiOptions
from automoderate.server.tracing import Tracer
from automoderate.testing import MemoryDirectory
from benchmarks.world import TEMPLATE, api_key, project_id, user_id

EVENT = "moderation_update"
PROJECT = project_id(0)
ROOM_SIZES = (1, 100, 1000)
POSTED = (1, 100)  # events in a request
MANY = 5000  # rooms, more than the processor's caches know
UNLIMITED = Limits(max_events_per_minute=1_000_000_000, max_connections_per_minute=1_000_000_000, recheck_interval=1e12)
PEER = Peer("127.0.0.1", 40_000)
OTHERS = {"statuses": ["flagged"]}  # than that of the data
DATA = {
    **TEMPLATE,
    "project_id": PROJECT,
    "meta_data": {**TEMPLATE["meta_data"], "seq": 4711, "sent": 1_802_550_600_616},
}


def client_frame(text: str) -> bytes:
    """A masked text frame, as clients send it."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=True)


UPGRADE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:6217\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    f"Cookie: session={user_id(0)}\r\n\r\n"
).encode()
CONNECT = client_frame("40")


def join_frame(project: str, **wishes: object) -> bytes:
    """A client's ``join_project``."""
    return client_frame(f'42["join_project",{json.dumps({"project_id": project, **wishes})}]')


JOIN = join_frame(PROJECT)


def post(said: object) -> bytes:
    """A request to the publishing API on a connection that is kept."""
    body = json.dumps(said, separators=(",", ":"))
    return (
        f"POST /api/projects/{PROJECT}/events HTTP/1.1\r\nHost: 127.0.0.1:6217\r\nX-API-Key: {api_key(0)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


# The hub ------------------------------------------------------------------------------------------------------


def joinable_hub(sessions: int) -> Hub:
    """A hub with logged-in sessions ``"0"``, ``"1"``, … in no room."""
    made = Hub(UNLIMITED, random=random.Random(1).random)
    for number in range(sessions):
        (identify,) = made.handle(hub.Connected(str(number), None, "192.0.2.1"), 0.0)
        assert isinstance(identify, hub.Identify)
        made.handle(hub.Identified(identify.ticket, hub.Identity(user_id(number), f"user {number}")), 0.0)
    return made


def join(made: Hub, sid: str, now: float) -> None:
    """A join with its answers from the directory and the history; the session is a member afterwards."""
    effects = made.handle(hub.Received(sid, "join_project", ({"project_id": PROJECT},)), now)
    while effects:
        questions, effects = effects, []
        for effect in questions:
            if isinstance(effect, hub.CheckAccess):
                effects += made.handle(hub.AccessChecked(effect.ticket, Access.GRANTED), now)
            elif isinstance(effect, hub.ReadHistory):
                history = History((), complete=True, last_event_id="1768473000000-0")
                effects += made.handle(hub.HistoryRead(effect.ticket, history), now)


def hub_join_and_leave() -> Callable[[], object]:
    """One session enters a room and leaves it again."""
    made = joinable_hub(1)
    seconds = itertools.count(1)  # a second each, so that the count of recent events stays as short as a client's

    def both() -> None:
        now = float(next(seconds))
        join(made, "0", now)
        made.handle(hub.Received("0", "leave_project", ({"project_id": PROJECT},)), now)

    return both


def hub_publish() -> Callable[[], object]:
    """An update reaches a room; for the hub it is all the same how many are in it."""
    made = joinable_hub(1)
    join(made, "0", 1.0)
    text = object_text(DATA)
    numbers = itertools.count(1)

    def publish() -> object:
        return made.handle(hub.Published(Update(PROJECT, EVENT, text, f"1768473000001-{next(numbers)}")), 1.0)

    assert publish(), "the room has a member"
    return publish


# Codecs -------------------------------------------------------------------------------------------------------


def encode_with_the_codecs() -> bytes:
    """What python-socketio's and python-engineio's packets make of an update, in a frame."""
    data = {**DATA, "event_id": "1768473000001-1"}
    message = socket_packet.Packet(socket_packet.EVENT, [EVENT, data]).encode()
    text = engine_packet.Packet(engine_packet.MESSAGE, message).encode()
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def encode_fast() -> bytes:
    """The frame of an update by the path that updates take: JSON where it is published, the rest by concatenation."""
    return text_frame(event_packet(EVENT, hub.stamped(object_text(DATA), "1768473000001-1")))


def parse_frame() -> Callable[[], object]:
    """A client's frame to its text."""
    wire = WebSocket(1_000_000)
    return lambda: wire.receive(JOIN, 1)


# The server ---------------------------------------------------------------------------------------------------


class Sink:
    """The transport of an in-memory connection whose kernel takes everything."""

    waiting = 0

    def write(self, data: bytes) -> int:
        return len(data)

    def keep(self, _data: bytes | memoryview) -> None:
        raise AssertionError("everything was taken")

    def pause_reading(self) -> None:
        """Nothing is read from anything."""

    resume_reading = pause_reading

    def send_eof(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        raise AssertionError("the server dropped a connection")


class Loop:
    """An adapter without a runtime: performs the server's outputs, answers its questions at once."""

    def __init__(self, projects: Iterable[str] = (PROJECT,), tracer: Tracer | None = None) -> None:
        directory = MemoryDirectory()
        directory.add_user(user_id(0))
        for project in projects:
            directory.add_project(project, owner=user_id(0))
        directory.keys[api_key(0)] = PROJECT
        ids = itertools.count()
        self.server = Server(
            directory, MemoryBackplane(), new_id=lambda: f"{next(ids):020}", random=random.Random(1).random,
            protocol=Config(), limits=UNLIMITED, api=ApiOptions(), tracer=tracer,
        )  # fmt: skip
        self.written = 0

    def open(self) -> Connection:
        """A connection with its handshake done."""
        connection = self.server.connect(Sink(), PEER, 1.0)
        self.server.receive_data(connection, UPGRADE, 1.0)
        self.flush()
        return connection

    def open_member(self, join: bytes = JOIN) -> Connection:
        """A connection whose session is logged in and in the room that it joins."""
        connection = self.open()
        for frame in (CONNECT, join):
            self.server.receive_data(connection, frame, 1.0)
            self.flush()
        return connection

    def publish(self, project: str = PROJECT) -> None:
        """One update, to the last member."""
        self.server.publish(project, EVENT, self.server.encode(DATA), 1.0)
        self.flush()

    def flush(self) -> None:
        """Perform what is to be done, in order, with the turns of a loop that has nothing else to do."""
        self._perform()
        while (deadline := self.server.next_deadline()) is not None and deadline <= 1.0:
            self.server.tick(1.0)
            self._perform()
        self.server.turned(1.0, 0.0)

    def _perform(self) -> None:
        while outputs := self.server.outputs():
            for output in outputs:
                if isinstance(output, Fanout):
                    for connections, data in output.writes:
                        for connection in connections:
                            connection.write(data)
                        self.written += len(connections)
                elif isinstance(output, Write):
                    output.connection.write(output.data)
                elif isinstance(output, Job):
                    self.server.job_done(output.ticket, output.call(), 1.0)


def handshake() -> Callable[[], object]:
    """A connection from its first byte to the Engine.IO session, and its end."""
    loop = Loop()

    def open_and_lose() -> None:
        loop.server.connection_lost(loop.open(), 1.0)
        loop.flush()

    return open_and_lose


def log_in_and_join() -> Callable[[], object]:
    """A connection from its first byte to the room, with a directory that knows everything, and its end."""
    loop = Loop()

    def join_and_lose() -> None:
        loop.server.connection_lost(loop.open_member(), 1.0)
        loop.flush()

    return join_and_lose


def publish_by_post(events: int) -> Callable[[], object]:
    """A POST that publishes so many events to a room of one: from its bytes to those of the answer."""
    loop = Loop()
    loop.open_member()
    event = {"event": EVENT, "data": DATA}
    request = post({"events": [event] * events} if events > 1 else event)
    connection = loop.server.connect(Sink(), PEER, 1.0)

    def post_it() -> None:
        loop.server.receive_data(connection, request, 1.0)
        loop.flush()

    post_it()
    assert loop.written == 1, "the member was written to"
    return post_it


def broadcast(members: int) -> Callable[[], object]:
    """An update through the whole server: encoded, numbered, kept, and written to every member."""
    loop = Loop()
    for _ in range(members):
        loop.open_member()
    loop.publish()
    assert loop.written == members, "every member was written to"
    return loop.publish


def broadcast_beside(wishes: Mapping[str, object], written: int) -> Callable[[], object]:
    """An update to a hundred members and ten more who have joined with ``wishes``; ``written`` of all get it."""
    loop = Loop()
    for _ in range(100):
        loop.open_member()
    for _ in range(10):
        loop.open_member(join_frame(PROJECT, **wishes))
    loop.written = 0
    loop.publish()
    assert loop.written == written, "everybody got what they wished"
    return loop.publish


class Idle:
    """A tracer, and each of its spans, that does nothing: what is left is what the server does for it."""

    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def start(self, *_: object, **__: object) -> Idle:
        return self

    def record(self, *_: object, **__: object) -> None:
        """Nothing."""

    def end(self, _error: BaseException | None) -> None:
        """Nothing."""


def broadcast_traced() -> Callable[[], object]:
    """An update to a room of one while somebody takes spans."""
    loop = Loop(tracer=Idle())
    loop.open_member()
    return loop.publish


@cache  # making them takes seconds
def broadcast_to_many_rooms() -> Callable[[], object]:
    """Updates to many rooms of one in turn: whatever belongs to a room is long out of the processor's caches."""
    projects = [project_id(number) for number in range(MANY)]
    loop = Loop(projects)
    for project in projects:
        loop.open_member(join_frame(project))
    turns = itertools.cycle(projects)
    loop.publish(next(turns))
    assert loop.written == 1, "the room has one member"
    return lambda: loop.publish(next(turns))


def timed(loops: int, make: Callable[[], Callable[[], object]]) -> float:
    """Seconds that many calls take; what is called is made first, in the process that measures it."""
    call = make()
    begin = time.perf_counter()
    for _ in range(loops):
        call()
    return time.perf_counter() - begin


PIECES: dict[str, Callable[[], Callable[[], object]]] = {
    "hub: join and leave a room": hub_join_and_leave,
    "hub: publish to a room": hub_publish,
    "encode an update with the packet codecs": lambda: encode_with_the_codecs,
    "encode an update by the fast path": lambda: encode_fast,
    "parse a client's frame": parse_frame,
    "server: handshake": handshake,
    "server: handshake, login and join": log_in_and_join,
    **{f"server: POST of {events:,} to a room of one": partial(publish_by_post, events) for events in POSTED},
    **{f"server: broadcast to {members:,} in memory": partial(broadcast, members) for members in ROOM_SIZES},
    "server: broadcast to 100 beside 10 who want other statuses": partial(
        broadcast_beside, {"statuses": ["flagged"]}, 10
    ),
    "server: broadcast to 1 with a tracer that does nothing": broadcast_traced,
    f"server: broadcast to one of {MANY:,} rooms of one in memory": broadcast_to_many_rooms,
}


def main() -> None:
    """Measure every piece."""
    # Worker processes are started by module name, too: by path they would not find this package.
    runner = pyperf.Runner(program_args=("-m", "benchmarks.micro"))
    for name, make in PIECES.items():
        runner.bench_time_func(name, timed, make)


if __name__ == "__main__":
    main()
