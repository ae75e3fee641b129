"""A PostgreSQL that is empty and nobody else's, for the scenarios that are measured with one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.child import ChildFailed
from benchmarks.cluster import free_port
from benchmarks.servers import STARTING, needs

USER = "automoderate"
CONNECTIONS = 200  # that it takes: pools of servers that are stopped keep theirs
ACCOUNT = "postgres"  # as whom it runs where we are root, which it refuses to be
LEAVING = 10.0


def programs() -> Path | None:
    """The folder of its programs: the newest of Debian's, or where ``initdb`` is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def missing() -> str | None:
    """Why there can be none here, in one line that names the fix; None where there can."""
    if programs() is None:
        return "PostgreSQL is not installed; scripts/install-services"
    return needs(psycopg="psycopg")()


class PostgreSQL:
    """A server on a loopback port, of which everybody on this machine is the superuser. Raises :exc:`ChildFailed`."""

    def __init__(self, core: int | None) -> None:
        folder = programs()
        assert folder is not None, "missing() was asked"
        self._programs = folder
        self._folder = Path(tempfile.mkdtemp(prefix="automoderate-postgresql-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        try:
            self._make()
            self._process = self._start(core)
            self._wait(self._process)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def close(self) -> None:
        """End it, and forget what it has kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # in order, without waiting for its clients
            try:
                self._process.wait(LEAVING)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder)

    def _make(self) -> None:
        words = ("--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
        command = [str(self._programs / "initdb"), "--pgdata", str(self._folder / "data"), *words]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, **self._as)
        if done.returncode:
            raise ChildFailed(f"initdb failed: {' '.join(done.stderr.split())[-300:]}")

    def _start(self, core: int | None) -> subprocess.Popen[bytes]:
        options = (
            f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=",
            f"max_connections={CONNECTIONS}", "fsync=off",
        )  # fmt: skip
        words = [word for option in options for word in ("-c", option)]
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, **self._as,
            )  # fmt: skip
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        return process

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it takes connections and has got over starting."""
        deadline = time.monotonic() + STARTING
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text("utf-8", "replace").split("\n")[-2:]
                raise ChildFailed(f"PostgreSQL does not start: {' '.join(said).strip()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg  # here, as hardly any scenario needs it

        try:
            psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
