"""TLS on every adapter: the same bytes, encrypted, and a certificate that can be renewed while it serves."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from automoderate.adapters.runtime import Certificate
from kits.adapters import PATIENCE, Peerside, Running, Script, Start, Web, left_cleanly, process
from kits.authority import Authority, names_of


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def connected(server: Running, authority: Authority, *, slow: bool = False) -> Iterator[Peerside]:
    plain = server.connect_slow() if slow else server.connect()
    with authority.secure(plain) as client:
        yield client


def test_what_is_said_arrives_and_what_is_answered_too(start: Start, authority: Authority) -> None:
    server = start(Script(), certificate=authority.certificate())
    with connected(server, authority) as client:
        client.send(b"echo hello\necho again\n")
        assert [client.line(), client.line()] == [b"hello", b"again"]
        for byte in b"echo slowly\n":
            client.send(bytes([byte]))
        assert client.line() == b"slowly"
        client.send(b"peer\n")
        assert b"scheme='https'" in client.line()


def test_much_at_once_in_both_directions(start: Start, authority: Authority) -> None:
    server = start(Script(), certificate=authority.certificate(), max_write_buffer=16 * 1024 * 1024)
    with connected(server, authority) as client:
        text = b"x" * 300_000
        client.send(b"echo " + text + b"\n")
        assert client.line() == text
        client.send(b"bye 4000000\n")
        assert len(client.rest()) == 4_000_001


def test_a_peer_that_is_not_read_from_has_to_wait(start: Start, authority: Authority) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate())
    with connected(server, authority) as paused, connected(server, authority) as client:
        paused.send(b"pause\n")
        assert paused.line() == b"paused"
        paused.send(b"echo one\necho two\n")
        client.send(b"echo hello\n")
        assert client.line() == b"hello"
        assert server.call(lambda _: [bytes(line.received) for line in driver.lines]) == [b"", b""]
        client.send(b"resume\n")
        assert [paused.line(), paused.line()] == [b"one", b"two"]


def test_a_broadcast_reaches_every_connection_in_order(start: Start, authority: Authority) -> None:
    server = start(Script(), certificate=authority.certificate(), max_write_buffer=16 * 1024 * 1024)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(server, authority, slow=number == 0)) for number in range(5)]
        for client in clients:
            client.send(b"echo in\n")
            assert client.line() == b"in"
        clients[-1].send(b"broadcast 2000\n")
        for client in reversed(clients):
            assert [int(client.line().partition(b" ")[0]) for _ in range(2000)] == list(range(2000))


def test_a_peer_that_never_reads_is_dropped(start: Start, authority: Authority) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate(), max_write_buffer=256 * 1024)
    with connected(server, authority, slow=True) as deaf, connected(server, authority) as client:
        for each in (deaf, client):
            each.send(b"echo in\n")
            assert each.line() == b"in"
        piece = b"x" * 50_000
        for _ in range(100):  # one by one: on a busy machine the other peer would be late as well
            server.call(lambda _now: driver.shout(piece + b"\n"))
            assert client.line() == piece
        driver.wait_for(lambda: len(driver.lost) == 1)
        deaf.ended()


def test_a_peer_that_is_just_sending_gets_everything_up_to_the_goodbye(start: Start, authority: Authority) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate(), max_write_buffer=16 * 1024 * 1024)
    with connected(server, authority, slow=True) as client:
        client.send(b"over 4000000\n")
        client.exactly(1)
        for _ in range(100):
            client.send(b"drop\n" * 1000)
        assert len(client.rest()) == 4_000_000  # and no SSLEOFError
        assert driver.lost == []
    driver.wait_for(lambda: len(driver.lost) == 1)


@pytest.mark.parametrize("goodbye", [True, False], ids=["close_notify", "without a goodbye"])
def test_the_end_of_the_stream_is_one(start: Start, authority: Authority, goodbye: bool) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate())
    with connected(server, authority) as client:
        client.send(b"echo last words\n")
        assert client.line() == b"last words"
        if goodbye:
            assert isinstance(client.sock, ssl.SSLSocket)
            with contextlib.suppress(ssl.SSLError):  # what the server says at its end comes before its own goodbye
                client.sock.unwrap()
        else:
            client.sock.shutdown(socket.SHUT_WR)
    driver.wait_for(lambda: len(driver.lost) == 1)


def test_a_server_that_leaves_says_goodbye(start: Start, authority: Authority) -> None:
    server = start(Script(), certificate=authority.certificate())
    with connected(server, authority) as client:
        client.send(b"echo in\n")
        assert client.line() == b"in"
        server.stop()
        assert client.rest() == b"draining\n"  # and no SSLEOFError


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 100, b"\x16\x03\x01", b""]
)
def test_a_peer_that_speaks_no_tls_disturbs_no_other(
    start: Start, authority: Authority, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate())
    with connected(server, authority) as other:
        with server.connect() as client:
            client.send(sent)
            client.sock.shutdown(socket.SHUT_WR)
            client.ended()
        driver.wait_for(lambda: len(driver.lost) == 1)
        other.send(b"echo still here\n")
        assert other.line() == b"still here"
    assert not [record for record in caplog.records if record.exc_info]


def test_a_handshake_that_is_never_finished_ends_with_the_time_for_a_request(
    start: Start, authority: Authority
) -> None:
    server = start(Web(header_timeout=0.2), certificate=authority.certificate())
    with server.connect() as client:
        client.send(b"\x16\x03\x01")
        client.ended()


def test_a_reset_in_the_middle_of_the_handshake(start: Start, authority: Authority) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate())
    client = server.connect()
    client.send(b"\x16\x03\x01\x02\x00")
    client.reset()
    driver.wait_for(lambda: len(driver.lost) == 1)


def test_connections_leave_nothing_behind(start: Start, authority: Authority) -> None:
    driver = Script()
    server = start(driver, certificate=authority.certificate())
    for _ in range(20):
        with connected(server, authority) as client:
            client.send(b"echo in\n")
            assert client.line() == b"in"
    driver.wait_for(lambda: len(driver.lost) == 20)
    assert not driver.lines


def test_a_renewed_certificate_is_for_those_who_come_after(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority.make(tmp_path)
    certificate = authority.certificate()
    server = start(Script(), certificate=certificate)
    with connected(server, authority) as before:
        authority.issue("localhost", "renewed.test")
        certificate.reload()
        with connected(server, authority) as after:
            assert names_of(after) == ["localhost", "renewed.test"]
        assert names_of(before) == ["localhost"]
        before.send(b"echo still here\n")
        assert before.line() == b"still here"
        authority.keyfile.write_text("nonsense")
        with caplog.at_level(logging.ERROR):
            certificate.reload()
        assert "the certificate in use stays" in caplog.text
        caplog.clear()
        with connected(server, authority) as after:
            assert names_of(after) == ["localhost", "renewed.test"]


def test_sighup_has_it_read_again(kind: str, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    files = (str(authority.certfile), str(authority.keyfile))
    with process(kind, PATIENCE, *files) as (server, connect), authority.secure(connect()) as before:
        authority.issue("localhost", "renewed.test")
        server.send_signal(signal.SIGHUP)
        assert server.stderr is not None
        assert "read the certificate" in server.stderr.readline()
        with authority.secure(connect()) as after:
            assert names_of(after) == ["localhost", "renewed.test"]
        before.send(b"echo still here\n")
        assert before.line() == b"still here"
        server.send_signal(signal.SIGTERM)
        assert before.rest() == b"draining\n"
        assert left_cleanly(server)


class TestFiles:
    def test_one_file_may_have_both(self, authority: Authority, tmp_path: Path) -> None:
        both = tmp_path / "both.pem"
        both.write_bytes(authority.keyfile.read_bytes() + authority.certfile.read_bytes())
        assert Certificate(str(both)).context is not None

    @pytest.mark.parametrize(
        ("certfile", "keyfile", "said"),
        [
            ("missing.pem", None, "cannot read .*missing.pem: No such file or directory"),
            ("chain.pem", "missing.pem", "cannot read .*missing.pem: No such file or directory"),
            ("chain.pem", None, "no usable certificate: there is no private key in .*chain.pem"),
            ("chain.pem", "other.pem", "no usable certificate: key values mismatch"),
            ("empty.pem", "key.pem", "no usable certificate: there is no certificate in .*empty.pem"),
            ("key.pem", "chain.pem", "no usable certificate: there is no certificate in .*key.pem"),
            ("half.pem", "key.pem", "no usable certificate: the certificate in .*half.pem is not complete"),
            ("chain.pem", "half.pem", "no usable certificate: the private key in .*half.pem is not complete"),
            ("chain.pem", "rsa.pem", "no usable certificate: the key is of another kind than the certificate's"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, tmp_path: Path, certfile: str, keyfile: str | None, said: str) -> None:
        Authority.make(tmp_path)
        other = trustme.CA().issue_cert("localhost")
        (tmp_path / "other.pem").write_bytes(other.private_key_pem.bytes())
        (tmp_path / "empty.pem").touch()
        whole = tmp_path / ("chain.pem" if certfile == "half.pem" else "key.pem")
        (tmp_path / "half.pem").write_bytes(whole.read_bytes()[:150])
        if keyfile == "rsa.pem":
            rsa = trustme.CA().issue_cert("localhost", key_type=trustme.KeyType.RSA)
            (tmp_path / "rsa.pem").write_bytes(rsa.private_key_pem.bytes())
        with pytest.raises(ValueError, match=said) as raised:
            Certificate(str(tmp_path / certfile), None if keyfile is None else str(tmp_path / keyfile))
        assert "\n" not in str(raised.value)

    def test_a_key_behind_a_password_asks_nobody(self, tmp_path: Path) -> None:
        from cryptography.hazmat.primitives import serialization

        authority = Authority.make(tmp_path)
        key = serialization.load_pem_private_key(authority.keyfile.read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"secret")
        authority.keyfile.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        )
        with pytest.raises(ValueError, match="protected by a password"):
            authority.certificate()
