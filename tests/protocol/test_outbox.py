from __future__ import annotations

from automoderate.protocol import Abort, Close, Connection, Peer, SendEof, Write
from automoderate.protocol.outbox import Outbox


class Nowhere:
    waiting = 0

    def write(self, data: bytes, /) -> int:
        return len(data)

    def keep(self, rest: memoryview, /) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def send_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


def connection() -> Connection:
    transport = Nowhere()
    return Connection(transport, Peer("192.0.2.1", 1), transport.write)


def test_what_one_connection_is_sent_leaves_in_one_write() -> None:
    outbox, one, two = Outbox(), connection(), connection()
    outbox.write(one, b"a")
    outbox.write(two, b"b")
    outbox.write(one, b"")
    outbox.write(one, b"c")
    assert outbox.drain() == [Write(one, b"ac"), Write(two, b"b")]
    assert outbox.drain() == []


def test_the_end_of_a_connection_keeps_its_place() -> None:
    outbox, one, two = Outbox(), connection(), connection()
    outbox.write(one, b"a")
    outbox.send_eof(one)
    outbox.close(one)
    outbox.abort(two)
    outbox.write(one, b"b")
    assert outbox.drain() == [Write(one, b"a"), SendEof(one), Close(one), Abort(two), Write(one, b"b")]
