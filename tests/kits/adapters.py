"""What the adapter tests share: the kinds of adapters, a server in a thread, a scripted driver, patient sockets.

Run as a program it serves the scripted driver: ``python -m kits.adapters KIND DRAIN_TIMEOUT``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import uvloop
from attrs import define, field

from automoderate.adapters import asyncio as asyncio_adapter
from automoderate.adapters import load, names
from automoderate.adapters.runtime import Certificate, Handle, Options
from automoderate.protocol.config import Config
from automoderate.protocol.driver import Driver
from automoderate.protocol.engineio import EngineIOServer
from automoderate.protocol.events import (
    AppBody,
    AppRequest,
    AppRequestAborted,
    AppRequestEnd,
    EngineIOEvent,
    MessageReceived,
    SessionClosed,
    SessionOpened,
)
from automoderate.protocol.model import Connection, Encoded, Peer, Session, Transport
from automoderate.protocol.outputs import (
    Abort,
    Close,
    Fanout,
    Job,
    Output,
    PauseReading,
    RequestAborted,
    RequestBody,
    RequestFinished,
    RequestStarted,
    ResumeReading,
    SendEof,
    Write,
)
from kits import PYTHONPATH

T = TypeVar("T")

PATIENCE = 60.0  # seconds after which something that should have happened never will
NARROW = 65_536  # bytes that the kernel of a slow peer's server keeps at least: little beside what the tests write


def _run_asyncio(driver: Driver, options: Options, **rest: Any) -> None:
    with asyncio.Runner() as runner:
        runner.run(asyncio_adapter.serve(driver, options, **rest))


def _run_uvloop(driver: Driver, options: Options, **rest: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio_adapter.serve(driver, options, **rest))


def _run_named(name: str, driver: Driver, options: Options, **rest: Any) -> None:
    # Imported late: trio cannot be in a process that eventlet has patched.
    load(name).run(driver, options, **rest)


# The whole suite runs for each of these: a new adapter is one line here.
KINDS: dict[str, Callable[..., None]] = {
    "asyncio": _run_asyncio,
    "asyncio+uvloop": _run_uvloop,
    "trio": partial(_run_named, "trio"),
    "eventlet": partial(_run_named, "eventlet"),
    "gevent": partial(_run_named, "examples.gevent_adapter"),
}


class Start(Protocol):
    """The ``start`` fixture."""

    def __call__(self, driver: object, **options: object) -> Running: ...


class Running:
    """One server on a free loopback port, in a thread of its own."""

    def __init__(self, kind: str, driver: object, options: dict[str, object]) -> None:
        self.driver = driver
        self.error: BaseException | None = None
        self._ready: Future[Handle] = Future()
        settings = Options(**({"port": 0, "drain_timeout": PATIENCE} | options))  # type: ignore[arg-type]
        if kind in names():
            # Not in the thread: eventlet imports threading a second time, which makes the importing thread one that
            # can never be joined.
            load(kind)
        self.thread = threading.Thread(target=self._serve, args=(kind, settings), name=f"server-{kind}")
        self.thread.start()
        self.handle = self._ready.result(PATIENCE)

    def _serve(self, kind: str, options: Options) -> None:
        try:
            KINDS[kind](cast(Driver, self.driver), options, on_ready=self._ready.set_result, handle_signals=False)
        except BaseException as error:
            self.error = error
            if not self._ready.done():
                self._ready.set_exception(error)

    @property
    def port(self) -> int:
        return self.handle.addresses[0][1]

    def connect(self) -> Peerside:
        """A client of this server."""
        return Peerside.connect(self.handle.addresses[0])

    def connect_slow(self) -> Peerside:
        """A client that, while it does not read, soon has something wait for it in the server."""
        client = self.connect()
        client.narrow()
        return client

    def call(self, call: Callable[[float], T]) -> T:
        """Run ``call(now)`` on the server's thread."""
        return self.handle.submit(call).result(PATIENCE)

    def join(self) -> None:
        """Wait until the server has left."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the server did not leave"

    def stop(self) -> None:
        """Drain and leave; idempotent."""
        self.handle.stop()
        self.join()
        if self.error is not None:
            raise self.error


class Peerside:
    """The test's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    @classmethod
    def connect(cls, address: tuple[str, int]) -> Peerside:
        return cls(socket.create_connection(address, PATIENCE))

    def narrow(self) -> None:
        """Have the kernel keep little on the server's end, which has to be in this process.

        A small receive buffer on this end would have that effect too, but be slow to empty: the kernel then sends
        small segments, and waits for a delayed acknowledgement after each.
        """
        with self.their_end() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)

    def their_end(self) -> socket.socket:
        """The server's socket of this connection, where the server is in this process; it may be about to accept it."""
        deadline = time.monotonic() + PATIENCE
        while (found := self._find_their_end()) is None:
            assert time.monotonic() < deadline, "the server has no such connection"
        return found

    def _find_their_end(self) -> socket.socket | None:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # gone meanwhile, or no connected socket
                if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    continue
                sock = socket.socket(fileno=os.dup(int(name)))
                try:
                    if sock.getpeername() == self.sock.getsockname():
                        return sock
                except BaseException:
                    sock.close()
                    raise
                sock.close()
        return None

    def __enter__(self) -> Peerside:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> bytes:
        """The next line without its end; ``b""`` at the end of the stream."""
        return self.until(b"\n").removesuffix(b"\n")

    def until(self, mark: bytes) -> bytes:
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark) + 1)
            data = self.sock.recv(65536)
            if not data:
                return self._take(len(self._buffer))
            self._buffer += data
        return self._take(found + len(mark))

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self.sock.recv(65536)
            assert data, f"the stream ended after {len(self._buffer)} of {count} bytes"
            self._buffer += data
        return self._take(count)

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while data := self.sock.recv(65536):
            self._buffer += data
        return self._take(len(self._buffer))

    def ended(self) -> bool:
        """Read on until the stream ends; True where it was cut off with a reset."""
        try:
            self.rest()
        except ConnectionError:
            return True
        return False

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


@define(eq=False)
class Line:
    """One connection of the scripted driver."""

    transport: Transport
    peer: Peer
    write: Callable[[bytes], object] = field()
    received: bytearray = field(factory=bytearray)
    held: bool = False

    @write.default
    def _plain(self) -> Callable[[bytes], object]:
        return self.transport.write

    @property
    def itself(self) -> Connection:
        """This line as outputs take it, which are typed for the real protocol's connections."""
        return cast(Connection, self)


class Script:
    """A driver that does what its peers tell it, one command a line, and keeps account of what the adapter did."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.lost: list[Line] = []
        self.ticks: list[float] = []
        self.jobs: dict[int, Line] = {}
        self.deadline: float | None = None
        self.ringing: list[Line] = []
        self.draining = False
        self.turns: list[float] = []
        self.waiting: list[int] = []
        self.changed = threading.Condition()
        self._outputs: list[Output] = []
        self._tickets = 0

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait, on the test's thread, until ``condition`` holds."""
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), "what the test waits for never happened"

    # The Driver methods ---------------------------------------------------------------------------------------

    def connect(self, transport: Transport, peer: Peer, _now: float) -> Connection:
        line = Line(transport, peer)
        self.lines.append(line)
        return line.itself

    def receive_data(self, connection: Connection, data: bytes, now: float) -> None:
        line = cast(Line, connection)
        line.received += data
        while b"\n" in line.received:
            command, _, line.received = line.received.partition(b"\n")
            verb, _, rest = bytes(command).partition(b" ")
            getattr(self, "do_" + verb.decode())(line, rest, now)

    def receive_eof(self, connection: Connection, _now: float) -> None:
        self._outputs += [Write(connection, b"end\n"), Close(connection)]

    def connection_lost(self, connection: Connection, _now: float) -> None:
        with self.changed:
            self.lost.append(cast(Line, connection))
            self.lines.remove(cast(Line, connection))
            self.changed.notify_all()

    def job_done(self, ticket: int, result: object | BaseException, _now: float) -> None:
        self.say(self.jobs.pop(ticket), repr(result).encode())

    def turned(self, _now: float, took: float) -> None:
        self.turns.append(took)

    def kept(self, waiting: int) -> None:
        self.waiting.append(waiting)

    def tick(self, now: float) -> None:
        with self.changed:
            self.ticks.append(now)
            if self.deadline is not None and now >= self.deadline:
                self.deadline = None
                for line in self.ringing:
                    self.say(line, b"ring")
            self.changed.notify_all()

    def next_deadline(self) -> float | None:
        return self.deadline

    def outputs(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def drain(self, _now: float) -> None:
        with self.changed:
            self.draining = True
            for line in self.lines:
                self.say(line, b"draining")
            self.changed.notify_all()

    def drained(self) -> bool:
        return not any(line.held for line in self.lines)

    def respond(
        self, _connection: Connection, _status: int, _reason: str, _headers: Sequence[tuple[str, str]], _now: float
    ) -> None:
        raise AssertionError("the script speaks no HTTP")

    def respond_body(self, _connection: Connection, _data: bytes, _now: float) -> None:
        raise AssertionError("the script speaks no HTTP")

    def respond_end(self, _connection: Connection, _now: float) -> None:
        raise AssertionError("the script speaks no HTTP")

    # The commands ---------------------------------------------------------------------------------------------

    def say(self, line: Line, text: bytes) -> None:
        self._outputs.append(Write(line.itself, text + b"\n"))

    def queue(self, *outputs: Output) -> None:
        self._outputs += outputs

    def shout(self, data: bytes) -> None:
        self._outputs.append(Fanout([([line.itself for line in self.lines], data)]))

    def do_echo(self, line: Line, text: bytes, _now: float) -> None:
        self.say(line, text)

    def do_shout(self, _line: Line, text: bytes, _now: float) -> None:
        self.shout(text + b"\n")

    def do_peer(self, line: Line, _text: bytes, _now: float) -> None:
        self.say(line, repr(line.peer).encode())

    def do_boom(self, _line: Line, _text: bytes, _now: float) -> None:
        raise RuntimeError("a mistake in the driver")

    def do_bye(self, line: Line, text: bytes, _now: float) -> None:
        self.say(line, b"x" * int(text or b"1"))
        self._outputs.append(Close(line.itself))

    def do_over(self, line: Line, text: bytes, _now: float) -> None:
        self.say(line, b"x" * int(text))
        self._outputs.append(SendEof(line.itself))

    def do_drop(self, line: Line, _text: bytes, _now: float) -> None:
        self._outputs.append(Abort(line.itself))

    def do_broadcast(self, _line: Line, rest: bytes, _now: float) -> None:
        """Send as many numbered pieces as asked for to everybody."""
        for number in range(int(rest)):
            self.shout(b"%d %s\n" % (number, b"x" * 1000))

    def do_pause(self, line: Line, _text: bytes, _now: float) -> None:
        """Hear no more of this peer until another asks to ``resume``."""
        self.say(line, b"paused")
        self._outputs.append(PauseReading(line.itself))

    def do_resume(self, _line: Line, _text: bytes, _now: float) -> None:
        """Hear every peer again."""
        self._outputs += [ResumeReading(line.itself) for line in self.lines]

    def do_hold(self, line: Line, _text: bytes, _now: float) -> None:
        line.held = True
        self.say(line, b"held")

    def do_release(self, line: Line, _text: bytes, _now: float) -> None:
        line.held = False
        self.say(line, b"released")

    def do_alarm(self, line: Line, text: bytes, now: float) -> None:
        self.ringing.append(line)
        self.deadline = now + float(text)

    def job(self, line: Line, call: Callable[[], object]) -> None:
        self._tickets += 1
        self.jobs[self._tickets] = line
        self._outputs.append(Job(self._tickets, call))

    def do_job(self, line: Line, text: bytes, _now: float) -> None:
        self.job(line, lambda: (text.upper(), threading.current_thread() is not server_thread))
        server_thread = threading.current_thread()

    def do_stuck(self, line: Line, _text: bytes, _now: float) -> None:
        self.say(line, b"at it")
        self.job(line, threading.Event().wait)

    def do_badjob(self, line: Line, _text: bytes, _now: float) -> None:
        def fail() -> None:
            raise LookupError("nothing there")

        self.job(line, fail)


class Web:
    """A driver on the real Engine.IO server: messages come back, every other request is the application's."""

    def __init__(self, **settings: Any) -> None:
        ids = itertools.count()
        self.engine = EngineIOServer(Config(path="/engine.io/", **settings), new_id=lambda: f"session-{next(ids)}")
        self.sessions: list[Session] = []
        self._outputs: list[Output] = []

    def outputs(self) -> list[Output]:
        while (event := self.engine.next_event()) is not None:
            self._outputs += self.engine.outputs()
            self.handle(event)
        outputs, self._outputs = self._outputs + self.engine.outputs(), []
        return outputs

    def handle(self, event: EngineIOEvent) -> None:
        match event:
            case SessionOpened(session):
                self.sessions.append(session)
            case SessionClosed(session, _):
                self.sessions.remove(session)
            case MessageReceived(session, data):
                self.engine.send(session, data, 0.0)
            case AppRequest(connection, request):
                self._outputs.append(RequestStarted(connection, request))
            case AppBody(connection, data):
                self._outputs.append(RequestBody(connection, data))
            case AppRequestEnd(connection):
                self._outputs.append(RequestFinished(connection))
            case AppRequestAborted(connection):
                self._outputs.append(RequestAborted(connection))

    def job_done(self, _ticket: int, _result: object | BaseException, _now: float) -> None:
        raise AssertionError("there are no jobs")

    def turned(self, _now: float, _took: float) -> None:
        """Nothing is measured."""

    def kept(self, _waiting: int) -> None:
        """Nor is this."""

    def broadcast(self, text: str, now: float) -> None:
        """Send one message to every session."""
        encoded = Encoded.message(text)
        wired = [wire for session in self.sessions if (wire := self.engine.wire_connection(session)) is not None]
        self._outputs += [*self.engine.outputs(), Fanout([(wired, encoded.frame)])]
        for session in self.sessions:
            if self.engine.wire_connection(session) is None:
                self.engine.send_encoded(session, encoded, now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@contextlib.contextmanager
def process(
    kind: str, drain_timeout: float, *certificate: str
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], Peerside]]]:
    """A server in a process of its own, with the files of a certificate perhaps, and a way to connect to it."""
    command = [sys.executable, "-W", "error", "-m", "kits.adapters", kind, str(drain_timeout), *certificate]
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            yield server, lambda: Peerside.connect(("127.0.0.1", port))
        finally:
            server.kill()


def left_cleanly(server: subprocess.Popen[str]) -> bool:
    """Whether a process that was told to leave did so without complaint."""
    _, complaints = server.communicate(timeout=PATIENCE)
    assert "Traceback" not in complaints
    return server.returncode == 0


def main(kind: str, drain_timeout: str, *certificate: str) -> None:
    def ready(handle: Handle) -> None:
        print(handle.addresses[0][1], flush=True)

    logging.basicConfig(level=logging.INFO if certificate else logging.WARNING)
    with contextlib.suppress(BrokenPipeError):
        KINDS[kind](
            cast(Driver, Script()),
            Options(
                port=0,
                drain_timeout=float(drain_timeout),
                certificate=Certificate(*certificate) if certificate else None,
            ),
            on_ready=ready,
            handle_signals=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
