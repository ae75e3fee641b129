"""The table of hostile inputs over every runtime, beside a client that must not notice."""

from __future__ import annotations

import contextlib
import socket
import threading

from echo_server import SocketEcho

from automoderate.protocol.config import Config
from benchmarks.hostile.inputs import INPUTS, Input
from kits.adapters import PATIENCE, Running, Start
from kits.habits import HABITS
from kits.hostile import CASES, GREETED, POLL, Client, frame, get, open_session, post, run, upgrade


class SocketWire:
    """A connection over a socket."""

    def __init__(self, server: Running) -> None:
        self.socket = socket.create_connection(server.handle.addresses[0], PATIENCE)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes | None:
        return self.socket.recv(65536)

    def end(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)


def test_every_answer_is_the_right_one_and_another_client_notices_nothing(start: Start) -> None:
    server = start(SocketEcho(Config()), drain_timeout=0.0)  # sessions that poll are left behind
    wires: list[SocketWire] = []

    def connect() -> SocketWire:
        wires.append(SocketWire(server))
        return wires[-1]

    control = Client(connect())
    control.send(upgrade() + frame("40"))
    control.hear("101", "text open", *GREETED)
    wrong = {}
    for number, case in enumerate(CASES):
        try:
            run(case, connect)
        except (AssertionError, OSError) as error:
            wrong[case.name] = error
        while len(wires) > 1:
            wires.pop().socket.close()
        control.send(frame(f'42["message",{number}]'))
        control.hear(f'text 42["message-back",{number}]')
    control.wire.end()
    control.hear_end()
    wires.pop().socket.close()
    assert not wrong


def test_native_clients_are_served(start: Start) -> None:
    server = start(SocketEcho(Config()), drain_timeout=0.0)
    wires: list[SocketWire] = []

    def connect() -> SocketWire:
        wires.append(SocketWire(server))
        return wires[-1]

    for habit in HABITS:
        habit(connect)
    for wire in wires:
        wire.socket.close()


SOME = 13 * 7 * 11 * 6 * 16
"""Bytes of each input: whole frames of every kind."""


def hostile(kind: Input, wire: SocketWire) -> bytes:
    """What is to be sent, after the session that it needs has been opened."""
    data = kind.make()
    if not kind.name.startswith("event"):
        data = data[:SOME]
    if kind.how == "websocket":
        client = Client(wire)
        client.send(upgrade() + frame("40"))
        client.hear("101", "text open", *GREETED)
    elif kind.how in ("post", "chunks"):
        polls = f"{POLL}&sid={open_session(wire)}"
        if kind.how == "post":
            return post(data, target=polls)
        return get(polls, "Transfer-Encoding: chunked", method="POST") + data + b"0\r\n\r\n"
    return data


def test_much_that_is_sent_at_once_is_answered_and_so_are_others(start: Start) -> None:
    server = start(SocketEcho(Config()), drain_timeout=0.0)
    ours = SocketWire(server)
    control = Client(ours)
    control.send(upgrade() + frame("40"))
    control.hear("101", "text open", *GREETED)
    for kind in INPUTS:
        wires = [SocketWire(server) for _ in range(3)]
        data = [hostile(kind, wire) for wire in wires]
        threads = [threading.Thread(target=_send, args=sending) for sending in zip(wires, data, strict=True)]
        for thread in threads:
            thread.start()
        for number in range(20):
            control.send(frame(f'42["message","{kind.name}",{number}]'))
            control.hear(f'text 42["message-back","{kind.name}",{number}]')
        for wire, thread in zip(wires, threads, strict=True):
            assert kind.how == "websocket" or wire.receive(), kind.name
            wire.socket.close()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    ours.end()
    control.hear_end()
    ours.socket.close()


def _send(wire: SocketWire, data: bytes) -> None:
    """Send it all, unless the server or the test has heard enough."""
    with contextlib.suppress(OSError):
        wire.send(data)
