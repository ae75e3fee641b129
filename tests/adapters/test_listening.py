"""Where a server listens: several hosts, both families of addresses, a Unix socket, sockets that are there already."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from automoderate._listening import listen
from kits.adapters import Peerside, Running, Script, Start


def ask(address: tuple[str, int] | str) -> str:
    """What the server's driver knows of a connection to that address."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
        client = Peerside(sock)
    else:
        client = Peerside.connect(address)
    with client:
        client.send(b"peer\n")
        return client.line().decode()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Short enough for a Unix socket, wherever tests have their folders."""
    return os.path.relpath(tmp_path / "s")


def test_several_hosts_share_one_port(start: Start) -> None:
    server = start(Script(), host=("127.0.0.1", "127.0.0.2", "::1", "127.0.0.1"))
    addresses = server.handle.addresses
    assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2", "::1"]
    assert {port for _, port in addresses} == {server.port}
    for host, port in addresses:
        assert f"local_address='{host}'" in ask((host, port))


@pytest.mark.parametrize(
    ("hosts", "addresses"),
    [
        (("127.0.0.1", "0.0.0.0", "127.0.0.2"), ["0.0.0.0"]),
        (("::1", "::"), ["::"]),
        (("0.0.0.0", "::1", "127.0.0.1"), ["0.0.0.0", "::1"]),
    ],
)
def test_all_addresses_of_a_family_are_each_of_them_too(hosts: tuple[str, ...], addresses: list[str]) -> None:
    """Two sockets for one address would be refused: the port is taken, by ourselves."""
    listening = listen(hosts, 0)
    found = [listener.getsockname()[0] for listener in listening]
    for listener in listening:
        listener.close()
    assert found == addresses


def test_a_host_of_several_that_is_not_ours_is_named_and_the_others_are_let_go(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(OSError, match=rf"cannot listen on 192\.0\.2\.1 port {port}: Cannot assign"):
        Running(kind, Script(), {"host": ("127.0.0.1", "192.0.2.1"), "port": port})
    socket.create_server(("127.0.0.1", port)).close()


def test_all_of_ipv6_is_all_of_ipv4_too(start: Start) -> None:
    """As in Node; and its clients have the addresses that they have on a socket of IPv4."""
    server = start(Script(), host="::")
    assert server.handle.addresses == (("::", server.port),)
    assert "Peer(address='127.0.0.1'" in (seen := ask(("127.0.0.1", server.port)))
    assert "local_address='127.0.0.1'" in seen
    assert "Peer(address='::1'" in ask(("::1", server.port))


def test_all_of_ipv6_beside_ipv4_is_ipv6_alone(start: Start) -> None:
    server = start(Script(), host=("::", "127.0.0.2"))
    assert "Peer(address='::1'" in ask(("::1", server.port))
    assert "local_address='127.0.0.2'" in ask(("127.0.0.2", server.port))
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", server.port))


def test_a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_server(start: Start, path: str) -> None:
    server = start(Script(), uds=path)
    assert server.handle.addresses == ((path, 0),)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert f"Peer(address='', port=0, scheme='http', local_address='{path}'" in ask(path)
    server.stop()
    assert not os.path.exists(path)


def test_a_socket_that_was_left_behind_is_taken_over(start: Start, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()
    start(Script(), uds=path)
    assert "Peer(" in ask(path)


def test_a_socket_on_which_somebody_listens_is_left_to_them(start: Start, kind: str, path: str) -> None:
    start(Script(), uds=path)
    with pytest.raises(OSError, match=f"cannot listen on {path}: another server listens there"):
        Running(kind, Script(), {"uds": path})
    assert "Peer(" in ask(path)


def test_so_is_one_at_which_many_wait(kind: str, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.connect(path)
        with pytest.raises(OSError, match="another server listens there"):
            Running(kind, Script(), {"uds": path})


def test_a_file_that_is_no_socket_is_left_alone(kind: str, path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(OSError, match=f"cannot listen on {path}: there is a file that is no socket"):
        Running(kind, Script(), {"uds": path})
    assert Path(path).read_text() == "precious"


def test_a_socket_that_somebody_has_put_in_its_place_stays(start: Start, path: str) -> None:
    server = start(Script(), uds=path)
    os.rename(path, path + ".old")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        server.stop()
        assert os.path.exists(path)


@pytest.mark.parametrize(("path", "said"), [("no-such-folder/s", "No such file or directory"), ("x" * 200, "too long")])
def test_a_path_that_cannot_be_one_is_named(kind: str, path: str, said: str) -> None:
    with pytest.raises(OSError, match=f"cannot listen on {path}: .*{said}"):
        Running(kind, Script(), {"uds": path})


def test_unix_sockets_that_are_there_already_may_have_no_file(start: Start) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\0automoderate-test-" + str(os.getpid()))
    listening.listen()
    server = start(Script(), sockets=[listening], uds="never-made")
    assert server.handle.addresses == ((f"@automoderate-test-{os.getpid()}", 0),)
    assert "Peer(address='', port=0" in ask("\0" + server.handle.addresses[0][0][1:])
    assert not os.path.exists("never-made")
