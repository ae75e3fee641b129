"""TLS on a connection: what the socket carries is decrypted before the driver sees it (RFC 8446)."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from automoderate._threads import real
from automoderate.adapters._transport import READ_SIZE, Owner, SocketTransport

log = logging.getLogger(__name__)

_UNCLEAR = {"no certificate assigned": "the key is of another kind than the certificate's"}
"""What the library says of a certificate and a key in words that mean something else to everybody."""


class Certificate:
    """A certificate with its chain and its private key, in PEM files.

    Raises ValueError, in one line, where they cannot be used.
    """

    def __init__(self, certfile: str, keyfile: str | None = None) -> None:
        self._certfile = certfile
        self._keyfile = keyfile
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again, for connections that come from here on. Files that cannot be used change nothing."""
        try:
            self.context = self._load()
        except ValueError as error:
            log.error(  # noqa: TRY400
                "%s; the certificate in use stays", error,
                extra={"event": "certificate_unusable", "reason": str(error)},
            )  # fmt: skip
        else:
            log.info("read the certificate %s again", self._certfile, extra={"event": "certificate_renewed"})

    def _load(self) -> ssl.SSLContext:
        context: ssl.SSLContext = real(ssl).SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A browser that may choose otherwise speaks HTTP/2.
        context.set_alpn_protocols(["http/1.1"])
        for path in filter(None, (self._certfile, self._keyfile)):
            try:
                with open(path, "rb"):  # the library names no file when one is missing
                    pass
            except OSError as error:
                raise ValueError(f"cannot read {path}: {error.strerror}") from error
        try:
            context.load_cert_chain(self._certfile, self._keyfile, _no_password)
        except (ssl.SSLError, OSError) as error:
            key = self._keyfile or self._certfile
            why = _what_is_missing(self._certfile, key) or _UNCLEAR.get(_why(error)) or _why(error)
            raise ValueError(f"{self._certfile} with the key {key} is no usable certificate: {why}") from error
        return context


def _no_password() -> str:
    raise OSError("the key is protected by a password")


def _what_is_missing(certfile: str, keyfile: str) -> str | None:
    """Which of the two its file does not have, or not all of: the library says no more than that it is no PEM."""
    for path, what in ((certfile, "certificate"), (keyfile, "private key")):
        with open(path, "rb") as file:
            found = file.read().count(f"{what.upper()}-----".encode())
        if not found:
            return f"there is no {what} in {path}"
        if found % 2:  # its first line is there, and not its last
            return f"the {what} in {path} is not complete"
    return None


def _why(error: OSError) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()


class TLSTransport(SocketTransport):
    """A connection whose bytes are encrypted, each broadcast for each connection anew."""

    __slots__ = ("_incoming", "_outgoing", "_secured", "_tls")

    def __init__(self, owner: Owner, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(owner, sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._secured = False

    @property
    def write(self) -> Callable[[bytes], int]:
        return self._encrypt

    def received(self, data: bytes, now: float) -> None:
        """Decrypt, and hand on what comes out. A peer that breaks TLS is told by an alert and dropped."""
        if self.eof_sent:  # the library decrypts nothing behind its own goodbye
            super().received(data, now)
            return
        self._incoming.write(data)
        if not data:
            self._incoming.write_eof()
        try:
            self._decrypt(now)
        except ssl.SSLEOFError:  # an end without a goodbye; HTTP and WebSocket have lengths of their own
            self._end_of_stream(now)
        except ssl.SSLError as error:
            why = _why(error)
            log.info("Dropped a peer that speaks no TLS we know: %s", why, extra={"event": "tls_failed", "reason": why})
            self._flush()
            self.close()

    def send_eof(self) -> None:
        """Say goodbye (``close_notify``, RFC 8446 section 6.1), and send no more once everything has left."""
        self._say_goodbye()
        super().send_eof()

    def close(self) -> None:
        """Say goodbye, and close once everything has left."""
        self._say_goodbye()
        super().close()

    def _say_goodbye(self) -> None:
        if self._secured and not (self.closing or self.eof_sent):
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()

    def _decrypt(self, now: float) -> None:
        try:
            if not self._secured:
                self._tls.do_handshake()
                self._secured = True
            while not self.closing:
                if not (data := self._tls.read(READ_SIZE)):
                    self._end_of_stream(now)
                    return
                super().received(data, now)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end_of_stream(now)
        finally:
            self._flush()  # of the handshake, and what a change of keys answers

    def _end_of_stream(self, now: float) -> None:
        if not self._secured:
            self.abort()
        elif not self.closing:
            super().received(b"", now)

    def _encrypt(self, data: bytes) -> int:
        if self._secured:  # before, the driver has only an answer to a request that never came
            self._tls.write(data)
            self._flush()
        return len(data)

    def _put(self, data: bytes) -> int:
        if self.waiting + len(data) <= self.owner.max_write_buffer:
            self._tls.write(data)
            self._flush()
            return len(data)
        return super()._put(data)

    def _flush(self) -> None:
        """Send what has been encrypted, or put it behind what waits."""
        data = self._outgoing.read()
        if not data:
            return
        if self.unsent:
            self.unsent.append(data)
            self.waiting += len(data)
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent != len(data):
            self.keep(memoryview(data)[sent:])
