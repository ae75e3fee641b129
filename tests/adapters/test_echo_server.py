"""The echo server as a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import echo_server
import pytest
from websockets.sync.client import connect

from kits import PYTHONPATH
from kits.adapters import PATIENCE


@contextmanager
def program(*arguments: str) -> Iterator[str]:
    """A running echo server: its address without the scheme."""
    command = [sys.executable, "-W", "error", "-m", "echo_server", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": PYTHONPATH}
    ) as server:
        try:
            assert server.stdout is not None
            said = re.fullmatch(r"Echo server on http://(\S+)\n", server.stdout.readline())
            assert said
            yield said[1]
            server.terminate()
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


def test_socketio() -> None:
    options = ("--ping-interval", "120", "--ping-timeout", "2.5", "--max-payload", "5000", "--connect-timeout", "30")
    with (
        program(*options) as address,
        connect(f"ws://{address}/socket.io/?EIO=4&transport=websocket", proxy=None, open_timeout=PATIENCE) as client,
    ):
        opened = str(client.recv(PATIENCE))
        for setting in ('"pingInterval":120000', '"pingTimeout":2500', '"maxPayload":5000'):
            assert setting in opened
        client.send("40/custom,")
        assert str(client.recv(PATIENCE)).startswith("40/custom,")
        assert client.recv(PATIENCE) == '42/custom,["auth",{}]'
        client.send("40/other,")
        assert client.recv(PATIENCE) == '44/other,{"message":"Invalid namespace"}'


def test_the_greeting_comes_before_every_answer() -> None:
    with (
        program() as address,
        connect(f"ws://{address}/socket.io/?EIO=4&transport=websocket", proxy=None, open_timeout=PATIENCE) as client,
    ):
        client.recv(PATIENCE)
        client.send("40")
        assert str(client.recv(PATIENCE)).startswith("40")
        client.send('42["message","at once"]')
        assert client.recv(PATIENCE) == '42["auth",{}]'
        assert client.recv(PATIENCE) == '42["message-back","at once"]'


def test_plain_engineio() -> None:
    with (
        program("--engine-only") as address,
        connect(f"ws://{address}/engine.io/?EIO=4&transport=websocket", proxy=None, open_timeout=PATIENCE) as client,
    ):
        assert str(client.recv(PATIENCE)).startswith("0{")
        client.send("4hello")
        assert client.recv(PATIENCE) == "4hello"
        client.send(b"\x01\x02")
        assert client.recv(PATIENCE) == b"\x01\x02"


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with program() as address:
        assert echo_server.main(["--port", address.rpartition(":")[2]]) == 3
    assert re.fullmatch(
        r"echo_server: cannot listen on 127\.0\.0\.1 port \d+: Address already in use\n", capsys.readouterr().err
    )


@pytest.mark.parametrize("arguments", [["--ping-interval", "0"], ["--ping-timeout", "soon"], ["--adapter", "twisted"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        echo_server.main(arguments)
    assert left.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        echo_server.main(["--help"])
    assert left.value.code == 0
    assert "default: 25.0" in capsys.readouterr().out
