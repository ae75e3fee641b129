"""Listening sockets: every address of some hosts on one port, a Unix socket, or what systemd has opened."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Collection, MutableMapping, Sequence
from typing import Any

from automoderate._threads import real

BACKLOG = 2048  # after a restart every client comes back within a second or two
SOCKET_MODE = 0o660
"""Who may connect to a Unix socket: its owner and its group."""
FIRST_PASSED = 3
"""The first descriptor that systemd hands over (sd_listen_fds(3))."""


def listen(host: str | Sequence[str], port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Non-blocking listening sockets for every address of each ``host`` ("" for all interfaces), all on one port.

    ``::`` takes IPv4 too, as it does with Node, unless an address of IPv4 is there besides. What ``0.0.0.0`` or ``::``
    takes anyway may be named besides, as with nginx. With ``port`` 0 the first socket's free port is taken for the
    others too. Connections are shared with every other socket on the port where all of them say ``reuse_port``. Raises
    ``OSError`` naming the address.
    """
    sockets = bind(host, port, reuse_port=reuse_port)
    for listener in sockets:
        try:
            listener.listen(BACKLOG)
        except OSError as error:
            address = listener.getsockname()
            for opened in sockets:
                opened.close()
            raise _cannot_listen(error, address) from error
    return sockets


def bind(host: str | Sequence[str], port: int, *, reuse_port: bool) -> list[socket.socket]:
    """The sockets of ``listen`` before they listen: the port is taken, and no client can connect yet."""
    hosts = [host] if isinstance(host, str) else host
    found = _without_covered(dict.fromkeys(address for name in hosts for address in _addresses(name, port)))
    both = not any(family == socket.AF_INET for family, _ in found)
    sockets: list[socket.socket] = []
    try:
        for family, address in found:
            if sockets and not port:
                port = sockets[0].getsockname()[1]
            sockets.append(_bind(family, (address[0], port, *address[2:]), reuse_port, both))
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


class UnixSocket:
    """A listening Unix socket at ``path``, and its file. Raises ``OSError`` naming the path.

    A file that a server has left behind is taken over, one on which somebody listens is not. The file's owner and
    group may connect.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.sock: socket.socket = real(socket).socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _make_way(path)
            self.sock.setblocking(False)
            self.sock.bind(path)
            os.chmod(path, SOCKET_MODE)  # before a program can connect
            self.sock.listen(BACKLOG)
            self._identity = _identity(path)
        except OSError as error:
            self.sock.close()
            raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from error

    def remove(self) -> None:
        """Remove the file, unless it is another server's by now. To be called before the socket is closed."""
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._identity:
                os.unlink(self._path)


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd has opened for this process (sd_listen_fds(3)), most often none.

    What the environment says of them is taken out of it. Raises ``OSError`` where one cannot be listened on.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    if not count.isdecimal():
        raise OSError(errno.EINVAL, f"cannot listen on what systemd has passed: LISTEN_FDS is {count!r}, no number")
    return [_passed(number) for number in range(FIRST_PASSED, FIRST_PASSED + int(count))]


def _passed(number: int) -> socket.socket:
    try:
        sock: socket.socket = real(socket).socket(fileno=number)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen on descriptor {number}, which systemd has passed: {error.strerror}"
        ) from error
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if not listens or sock.type != socket.SOCK_STREAM or sock.family not in families:
        sock.close()
        raise OSError(
            errno.EINVAL,
            f"cannot listen on descriptor {number}, which systemd has passed: it is no listening stream socket; the "
            "socket unit needs ListenStream= and Accept=no",
        )
    sock.set_inheritable(False)
    return sock


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    """Family and address of everything that a host means."""
    try:
        found = real(socket).getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {host!r}: {error.strerror}") from error
    return [(family, address) for family, _, _, _, address in found]


def _without_covered(found: Collection[tuple[int, tuple[Any, ...]]]) -> list[tuple[int, tuple[Any, ...]]]:
    """Leave out each address that another one, which is all of its family, covers: both cannot have the port."""
    whole = {family: address for family, address in found if address[0] in ("0.0.0.0", "::")}
    return [(family, address) for family, address in found if whole.get(family, address) == address]


def _bind(family: int, address: tuple[Any, ...], reuse_port: bool, both: bool) -> socket.socket:
    try:
        listener: socket.socket = real(socket).socket(family, socket.SOCK_STREAM)
    except OSError as error:  # no IPv6 on this machine
        raise _cannot_listen(error, address) from error
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Otherwise "::" would also claim the IPv4 port that the next socket is about to bind.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(error, address) from error
    return listener


def _make_way(path: str) -> None:
    """Remove the file of a socket on which no process listens any more; ``OSError`` for any other file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket; choose another path")
    with real(socket).socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # so many wait for the other server
            pass
    raise OSError(errno.EADDRINUSE, "another server listens there; stop it, or choose another path")


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _cannot_listen(error: OSError, address: tuple[Any, ...]) -> OSError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, f"cannot listen on {address[0]} port {address[1]}: {reason}")
