"""A PgBouncer in front of a PostgreSQL server of a test's: transaction pooling, as most people run it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time

import psycopg
import pytest

from kits import PATIENCE
from kits.postgresql_server import USER, PostgreSQL, free_port

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 1000
admin_users = {user}
"""


class PgBouncer:
    """One pooler on a loopback port, with so few sessions that all of its clients share them."""

    def __init__(self, server: PostgreSQL, *, size: int = 2, mode: str = "transaction") -> None:
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            pytest.fail("needs PgBouncer: scripts/install-services")
        self.port = free_port()
        self._log = server.folder / f"pgbouncer-{self.port}.log"
        configuration, users = server.folder / f"pgbouncer-{self.port}.ini", server.folder / "pgbouncer-users"
        users.write_text(f'"{USER}" ""\n')
        configuration.write_text(
            CONFIGURATION.format(server=server.port, port=self.port, users=users, mode=mode, size=size, user=USER)
        )
        for path in (users, configuration):
            path.chmod(0o644)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=server.folder,
                **server.account,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres").close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)
            else:
                return

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def cut(self, database: str) -> None:
        """End every connection of clients to a database, and its own."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname="pgbouncer", autocommit=True,
            cursor_factory=psycopg.ClientCursor,
        ) as console:  # fmt: skip
            console.execute(f"KILL {database}".encode())
            console.execute(f"RESUME {database}".encode())

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
