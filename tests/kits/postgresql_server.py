"""A PostgreSQL server of its own in a temporary folder, which tests can crash, stall and start again."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from automoderate.directory.database import Database
from kits import PATIENCE

USER = "automoderate"
# It need not survive a power cut, but what was committed survives a crash.
CARELESS = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "autovacuum=off")


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    program = shutil.which("initdb")
    if program is None:
        pytest.fail("needs PostgreSQL: scripts/install-services")
    return Path(program).resolve().parent


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PostgreSQL:
    """One server on a loopback port, which it keeps. Everybody on this machine may connect as its superuser.

    As root it runs as the user ``postgres``, whom Debian's package made: PostgreSQL refuses to be root.
    """

    def __init__(self) -> None:
        self._programs = _programs()
        self.account: dict[str, Any] = {}
        """The user to run as, for ``Popen``."""
        self.folder = Path(tempfile.mkdtemp(prefix="automoderate-postgresql-"))
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            self.account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._data = self.folder / "data"
        self._names = (f"test_{number}" for number in itertools.count())
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        subprocess.run(
            [self._programs / "initdb", "--pgdata", self._data, "--username", USER, "--auth", "trust",
             "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"],
            check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **self.account,
        )  # fmt: skip

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it and wait until it answers; the first time on a free port, afterwards on the same."""
        for _ in range(5 if not self.port else 1):  # somebody else may take a free port in between
            port = self.port or free_port()
            self._launch(port)
            if self._came_up(port):
                self.port = port
                return
        pytest.fail(f"PostgreSQL did not start: {self.log}")

    def _launch(self, port: int) -> None:
        options = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *CARELESS)
        arguments = [part for option in options for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, **self.account,
            )  # fmt: skip

    def _came_up(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            try:
                psycopg.connect(host="127.0.0.1", port=port, user=USER, dbname="postgres").close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, self.log
                time.sleep(0.02)
            else:
                return True
        return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it and wait: SIGINT in order, without waiting for its clients, SIGQUIT as in a crash. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE)

    def close(self) -> None:
        """Leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder)

    @contextmanager
    def connect(self, database: str = "postgres") -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection of the test's own, every statement a transaction of its own."""
        with closing(
            psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname=database, autocommit=True)
        ) as connection:
            yield connection

    def url(self, database: str, user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, *, template: str = "template0") -> str:
        """A new database with a name of its own: empty, or a copy of another."""
        name = next(self._names)
        with self.connect() as connection:
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template)))
        return name

    def create_with_tables(self) -> str:
        """A new database with AutoModerate's tables."""
        name = self.create()
        database = Database(self.url(name))
        database.create_all()
        database.close()
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
