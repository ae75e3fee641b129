"""Certificates for servers of tests, by an authority that only their clients trust."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import cast

import pytest
import trustme
from attrs import frozen

from automoderate.adapters.runtime import Certificate
from kits.adapters import Peerside


@frozen
class Authority:
    """A certificate authority of the test's own, and the files of the certificate it has issued."""

    ca: trustme.CA
    certfile: Path
    keyfile: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        authority = cls(trustme.CA(), folder / "chain.pem", folder / "key.pem")
        authority.issue("localhost")
        return authority

    def issue(self, *names: str) -> None:
        """Write another certificate into the same files."""
        issued = self.ca.issue_cert(*names, "127.0.0.1")
        self.certfile.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.keyfile.write_bytes(issued.private_key_pem.bytes())

    def trust(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have every client that is started from here on trust it: requests, websocket-client, OpenSSL's, Node."""
        root = self.certfile.with_name("root.pem")
        root.write_bytes(self.ca.cert_pem.bytes())
        for name in ("REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
            monkeypatch.setenv(name, str(root))

    def certificate(self) -> Certificate:
        return Certificate(str(self.certfile), str(self.keyfile))

    def secure(self, peer: Peerside) -> Peerside:
        """The client's end of TLS on a connection."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return Peerside(context.wrap_socket(peer.sock, server_hostname="localhost"))


def names_of(client: Peerside) -> list[str]:
    """The names in the certificate that the server of a connection has shown."""
    assert isinstance(client.sock, ssl.SSLSocket)
    certificate = client.sock.getpeercert()
    assert certificate is not None
    named = cast(list[tuple[str, str]], certificate["subjectAltName"])
    return [name for kind, name in named if kind == "DNS"]
