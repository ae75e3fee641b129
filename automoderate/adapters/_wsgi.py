"""The bridge to a WSGI application (PEP 3333): shared by all adapters, standard library threads only.

The runtime's thread collects a request (``perform``) and hands it to a worker; the worker runs the application and
sends the answer piece by piece through calls on the runtime's thread. At most one piece of a connection is under way
at a time, and after the first none while its peer is slow, so an answer of any size needs memory for two pieces of it,
and an answer of one piece never keeps its thread waiting.
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from typing import IO, TypeAlias
from wsgiref.util import is_hop_by_hop

from attrs import define, field

from automoderate._threads import Call, Inbox, ServerStopped, Workers, real
from automoderate.adapters._environ import Environ, build
from automoderate.protocol.complaints import Complaints
from automoderate.protocol.driver import Driver
from automoderate.protocol.error_pages import ErrorPage, error_page
from automoderate.protocol.model import Connection, Request
from automoderate.protocol.outputs import RequestAborted, RequestBody, RequestFinished, RequestStarted

Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None
# The third argument of start_response is optional, which Callable cannot say.
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WSGIApplication: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]
"""A web application as PEP 3333 has it."""
RequestOutput: TypeAlias = RequestStarted | RequestBody | RequestFinished | RequestAborted

IN_MEMORY = 512 * 1024  # bytes of a request body that are kept in memory; more goes to a temporary file
WAITING = 256  # complete requests that may wait for a thread
STALL_TIMEOUT = 60.0  # seconds a thread or a request waits for a peer that takes nothing at all

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\u0100-\U0010ffff]*")  # section 5.5, as Latin-1

log = logging.getLogger("automoderate.wsgi")


class ClientGone(ConnectionAbortedError):
    """The client went away before its answer was complete."""


@define(eq=False)
class Exchange:
    """One request and what the two threads have to know of each other."""

    connection: Connection
    request: Request
    body: IO[bytes] = field(factory=lambda: tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115
    size: int = 0
    running: bool = False
    gone: bool = False
    writable: threading.Event = field(factory=lambda: real(threading).Event())

    def __attrs_post_init__(self) -> None:
        self.writable.set()

    def abandon(self) -> None:
        """The client is gone: wake the worker, if there is one, to find out."""
        self.gone = True
        self.writable.set()
        if not self.running:
            self.body.close()


class Bridge:
    """Requests in, answers out. All methods are for the runtime's thread."""

    def __init__(
        self, app: WSGIApplication | None, driver: Driver, inbox: Inbox, *, threads: int, piece: int,
        error_pages: Mapping[int, ErrorPage],
    ) -> None:  # fmt: skip
        self.app = app
        self.error_pages = error_pages
        self.driver = driver
        self.inbox = inbox
        self.piece = piece  # bytes of an answer that are handed over at a time
        self._paused: set[Connection] = set()
        # Complete requests of peers that have yet to take the answer before, and until when: the soonest is first.
        self._held: dict[Connection, float] = {}
        self._workers = Workers("automoderate-wsgi", threads, WAITING)
        self._exchanges: dict[Connection, Exchange] = {}
        self._running = 0
        self._complaints = Complaints()

    @property
    def idle(self) -> bool:
        """True when no request is being answered."""
        return not self._running

    def perform(self, output: RequestOutput, now: float) -> None:
        """Take one of the driver's outputs."""
        self._drop_stalled(now)
        connection = output.connection
        if isinstance(output, RequestStarted):
            started = self._exchanges[connection] = Exchange(connection, output.request)
            if connection in self._paused:  # still taking the answer before this one
                started.writable.clear()
        elif isinstance(output, RequestAborted):
            self._give_up(connection)
        elif (exchange := self._exchanges.get(connection)) is None:
            pass  # refused already
        elif isinstance(output, RequestBody):
            self._receive(exchange, output.data, now)
        else:
            self._start(exchange, now)

    def lost(self, connection: Connection) -> None:
        """The connection is gone, with or without a request on it."""
        self._paused.discard(connection)
        self._give_up(connection)

    def pause(self, connection: Connection) -> None:
        """The peer takes no more for now: hold its worker back."""
        self._paused.add(connection)
        if (exchange := self._exchanges.get(connection)) is not None:
            exchange.writable.clear()

    def resume(self, connection: Connection) -> None:
        """The peer takes data again."""
        self._paused.discard(connection)
        if (exchange := self._exchanges.get(connection)) is not None:
            exchange.writable.set()
            if self._held.pop(connection, None) is not None:
                self.inbox.post(lambda now: self._start(exchange, now))

    def close(self) -> None:
        """Give every request up. A thread inside the application stops when it next sends something."""
        for connection in list(self._exchanges):
            self._give_up(connection)
        self._workers.close()

    def _drop_stalled(self, now: float) -> None:
        while self._held:
            connection, until = next(iter(self._held.items()))
            if until > now:
                return
            del self._held[connection]
            self.drop(self._exchanges[connection])

    def _give_up(self, connection: Connection) -> None:
        self._held.pop(connection, None)
        if (exchange := self._exchanges.pop(connection, None)) is not None:
            exchange.abandon()

    def _receive(self, exchange: Exchange, data: bytes, now: float) -> None:
        try:
            exchange.body.write(data)
        except OSError as error:  # the disk is full
            if self._complaints.due("", "body", now):
                log.error(  # noqa: TRY400
                    "Cannot store the body of %s %r (said once a minute): %s",
                    exchange.request.method, exchange.request.path, error,
                    extra={"event": "body_not_stored", "reason": str(error)},
                )  # fmt: skip
            self._refuse(exchange, HTTPStatus.INSUFFICIENT_STORAGE, now)
        else:
            exchange.size += len(data)

    def _start(self, exchange: Exchange, now: float) -> None:
        if exchange.gone:
            return
        if exchange.connection in self._paused:
            # A few peers that ask and never read would otherwise have every thread wait for them.
            self._held[exchange.connection] = now + STALL_TIMEOUT
            return
        if self.app is None:
            self._refuse(exchange, HTTPStatus.NOT_FOUND, now)
            return
        exchange.running = True
        if self._workers.put(lambda: self._run(exchange)):
            self._running += 1
        else:
            exchange.running = False
            if self._complaints.due("", "busy", now):
                log.warning(
                    "Too many requests waiting (said once a minute): refused %s %r",
                    exchange.request.method, exchange.request.path,
                    extra={"event": "request_refused", "reason": "too many requests waiting"},
                )  # fmt: skip
            self._refuse(exchange, HTTPStatus.SERVICE_UNAVAILABLE, now)

    def _refuse(self, exchange: Exchange, status: HTTPStatus, now: float) -> None:
        self._give_up(exchange.connection)
        headers, text = error_answer(self.error_pages, status, exchange.request)
        self.driver.respond(exchange.connection, status, status.phrase, headers, now)
        if exchange.request.method != "HEAD":
            self.driver.respond_body(exchange.connection, text, now)
        self.driver.respond_end(exchange.connection, now)

    def _run(self, exchange: Exchange) -> None:
        """Answer one request; in a worker thread."""
        try:
            if not exchange.gone:
                Answer(exchange, self).run()
        finally:
            exchange.body.close()
            self.inbox.post(lambda _: self._finished())

    def _finished(self) -> None:
        self._running -= 1

    def drop(self, exchange: Exchange) -> None:
        """Cut the connection of an answer that cannot be completed; from any thread."""

        def abort(_now: float) -> None:
            if not exchange.gone:
                exchange.connection.transport.abort()

        self.inbox.post(abort)

    def ended(self, exchange: Exchange) -> None:
        """The answer is complete: the connection may carry its next request."""
        self._exchanges.pop(exchange.connection, None)


class Answer:
    """One answer of the application; lives in one worker thread."""

    def __init__(self, exchange: Exchange, bridge: Bridge) -> None:
        self._exchange = exchange
        self._bridge = bridge
        self._environ = build(exchange.request, exchange.body, exchange.size)
        self._status: tuple[int, str] | None = None
        self._headers: Headers = []
        self._whole = False  # the application returned exactly one chunk
        self._left: int | None = None  # bytes still owed of the declared Content-Length
        self._sent = False  # the status line is out
        self._ended = False
        self._cut = 0  # bytes of the body that were cut into pieces, and of those that were handed over
        self._handed = 0

    def run(self) -> None:
        """Run the application to the end of its answer, whatever it does."""
        what = f"{self._exchange.request.method} {self._exchange.request.path!r}"
        try:
            self._serve()
        except (ClientGone, ServerStopped) as reason:
            log.debug(
                "%s was not answered in full: %s", what, reason,
                extra={"event": "answer_cut", "reason": str(reason)},
            )  # fmt: skip
        except BaseException:  # sys.exit() in a view ends the request, not the thread
            log.exception("Error in %s", what, extra={"event": "application_error"})
            self._fail()
        finally:
            self._environ["wsgi.errors"].flush()

    def _serve(self) -> None:
        assert self._bridge.app is not None
        self._exchange.body.seek(0)
        chunks = self._bridge.app(self._environ, self.start_response)
        try:
            self._whole = not self._sent and isinstance(chunks, Sequence) and len(chunks) == 1
            for chunk in chunks:
                if chunk:
                    self.write(chunk)
                if self._exchange.gone or (self._sent and self._bodyless):
                    break
            self._finish()
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Callable[[bytes], object]:
        """PEP 3333's ``start_response``, with the names of arguments that other servers give it."""
        if exc_info is not None and exc_info[1] is not None:
            if self._sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._status is not None:
            raise RuntimeError("start_response was called a second time without exc_info")
        code, _, reason = status.partition(" ")
        if not (len(code) == 3 and code.isdigit() and code >= "200"):
            raise ValueError(f"start_response needs a status like '200 OK', not {status!r}")
        for name, value in (("status", status), *headers):
            if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
                raise ValueError(f"start_response got characters that no header may have: {(name, value)!r}")
        self._status = int(code), reason
        # How this hop frames and keeps the connection is the server's business (PEP 3333, "Other HTTP Features").
        self._headers = [(name, value.strip()) for name, value in headers if not is_hop_by_hop(name)]
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333's ``write``: blocks while the peer is slow; ``ClientGone`` when it went away."""
        if not isinstance(data, bytes):
            raise TypeError(f"a WSGI application has to produce bytes, not {type(data).__name__}")
        calls: list[Call] = [] if self._sent else [self._head(len(data) if self._whole else None)]
        excess = 0
        if self._bodyless:
            data, self._left = b"", 0
        elif self._left is not None and len(data) > self._left:
            excess = len(data) - self._left
            data = data[: self._left]
        for start in range(0, len(data), self._bridge.piece):
            if start:
                self._send(*calls)
                calls = []
            calls.append(self._piece(data[start : start + self._bridge.piece]))
        if self._left is not None:
            self._left -= len(data)
            if not self._left and not self._ended:
                # With the last piece, so that a short answer is one call and one write.
                calls.append(self._end)
                self._ended = True
        if calls:
            self._send(*calls)
        if excess:
            raise ValueError(f"the application sends {excess} bytes more than its Content-Length")

    @property
    def _bodyless(self) -> bool:
        assert self._status is not None
        return self._exchange.request.method == "HEAD" or self._status[0] in (204, 304)

    def _head(self, size: int | None) -> Call:
        """The status line and headers, with the length of the body where it is known and not declared."""
        if self._status is None:
            raise RuntimeError("the application did not call start_response")
        code, reason = self._status
        headers = self._headers
        declared = [value for name, value in headers if name.lower() == "content-length"]
        if declared:
            self._left = int(declared[0])
        elif size is not None and not self._bodyless:
            self._left = size
            headers = [*headers, ("Content-Length", str(size))]
        if not any(name.lower() == "date" for name, _ in headers):
            headers = [*headers, ("Date", formatdate(usegmt=True))]
        self._sent = True
        connection, driver = self._exchange.connection, self._bridge.driver
        return lambda now: driver.respond(connection, code, reason, headers, now)

    def _piece(self, data: bytes) -> Call:
        self._cut += len(data)
        return lambda now: self._bridge.driver.respond_body(self._exchange.connection, data, now)

    def _end(self, now: float) -> None:
        self._bridge.ended(self._exchange)
        self._bridge.driver.respond_end(self._exchange.connection, now)

    def _finish(self) -> None:
        """The application produces nothing more."""
        if not self._sent:
            self._whole = True
            self.write(b"")
        if self._ended:
            return
        if self._left:
            raise RuntimeError(f"the application sent {self._left} bytes less than its Content-Length")
        self._ended = True
        self._send(self._end)

    def _fail(self) -> None:
        """Tell the client as much as can still be told: an error page, or a connection cut short."""
        if self._ended:
            return
        if self._sent:
            # A clean end would make half an answer look like a whole one.
            self._bridge.drop(self._exchange)
            return
        try:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self._headers, text = error_answer(self._bridge.error_pages, status, self._exchange.request)
            self._status = status, status.phrase
            self.write(text)
        except (ClientGone, ServerStopped):
            pass

    def _send(self, *calls: Call) -> None:
        """Run ``calls`` on the runtime's thread, once the peer takes data or has been given less than a piece."""
        exchange = self._exchange
        if self._handed >= self._bridge.piece and not exchange.writable.wait(STALL_TIMEOUT):
            self._bridge.drop(exchange)
            raise ClientGone("the peer takes nothing")

        def run(now: float) -> None:
            if exchange.gone:
                raise ClientGone("the client went away")
            try:
                for call in calls:
                    call(now)
            except Exception:  # how much of it was sent cannot be told
                exchange.connection.transport.abort()
                raise

        self._bridge.inbox.submit(run).result()
        self._handed = self._cut


def error_answer(pages: Mapping[int, ErrorPage], status: HTTPStatus, request: Request) -> tuple[Headers, bytes]:
    """Headers and body of an answer about a status: the page for people, or no more than its name."""
    plain = [("Content-Type", "text/plain; charset=utf-8")], f"{status.value} {status.phrase}\n".encode("ascii")
    headers, text = error_page(pages, status, request) or plain
    headers = [*headers, ("Content-Length", str(len(text))), ("Date", formatdate(usegmt=True))]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", "1"))
    return headers, text
