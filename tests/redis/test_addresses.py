"""Addresses of a Redis, tried with a real one: with TLS, with a password, on a Unix socket."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from automoderate.backplane.redis import RedisBackplane
from automoderate.backplane.redis_url import parse
from automoderate.server.interfaces import BackplaneUnavailable
from kits import PATIENCE, until
from kits.processes import steady_port


@frozen
class SecretRedis:
    """A ``redis-server`` that takes a password, with TLS on a loopback port and without on a Unix socket."""

    port: int
    socket: Path
    certificate: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecretRedis]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key, sock = folder / "certificate.pem", folder / "key.pem", folder / "redis.sock"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    command = shutil.which("redis-server")
    assert command is not None, "no redis-server: run scripts/install-services"
    port = steady_port()
    options = {
        "port": "0", "tls-port": str(port), "bind": "127.0.0.1", "tls-cert-file": str(certificate),
        "tls-key-file": str(key), "tls-auth-clients": "no", "unixsocket": str(sock), "requirepass": "hush#/@%",
        "dir": str(folder), "save": "", "logfile": str(folder / "redis.log"),
    }  # fmt: skip
    with subprocess.Popen(
        [command, *(word for pair in options.items() for word in (f"--{pair[0]}", pair[1]))]
    ) as redis:
        try:
            until(sock.exists, "Redis listens")
            yield SecretRedis(port, sock, certificate)
        finally:
            redis.terminate()
            redis.wait(PATIENCE)


def check(url: str) -> None:
    backplane = RedisBackplane(url)
    try:
        backplane.check()
    finally:
        backplane.close()


@pytest.mark.parametrize(
    "url",
    [
        "rediss://:hush%23%2F%40%25@{host}/0?ssl_cert_reqs=CERT_NONE",
        "rediss://default:hush%23%2F%40%25@{host}?ssl_cert_reqs=none",
        "rediss://{host}/1?ssl_ca_certs={certificate}&password=hush%23%2F%40%25",
        "rediss://{host}/?ssl_ca_certs={certificate}&password=hush%23%2F%40%25&ssl_check_hostname=false&socket_timeout=9",
        "unix://{socket}?db=2&password=hush%23%2F%40%25",
        "unix://:hush%23%2F%40%25@{socket}",
    ],
)
def test_what_a_url_may_say_works(url: str, server: SecretRedis) -> None:
    check(url.format(host=f"127.0.0.1:{server.port}", certificate=server.certificate, socket=server.socket))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rediss://:hush%23%2F%40%25@{host}/0", "certificate verify failed"),
        ("rediss://:wrong@{host}/0?ssl_cert_reqs=none", "invalid username-password pair"),
        ("rediss://:hush%23%2F%40%25@{host}/99?ssl_cert_reqs=none", "DB index is out of range"),
        ("rediss://{host}/0?ssl_cert_reqs=none", "Authentication required"),
        ("rediss://{host}/0?ssl_ca_certs=/no/such/file", "No such file"),
        ("redis://:hush%23%2F%40%25@{host}/0", "cannot use Redis at redis://***@"),
        ("unix:///no/such/socket", "cannot use Redis at unix:///no/such/socket: "),
    ],
)
def test_what_does_not_is_one_line(url: str, said: str, server: SecretRedis) -> None:
    url = url.format(host=f"127.0.0.1:{server.port}")
    with pytest.raises(BackplaneUnavailable) as caught:
        check(url)
    message = str(caught.value)
    assert message.startswith(f"cannot use Redis at {parse(url).shown}: ")
    assert said in message
    assert "\n" not in message
    assert "hush" not in message
