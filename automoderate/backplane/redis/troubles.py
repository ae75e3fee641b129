"""What the log says of Redis: that something fails, once; how often, now and then; and that it works again.

All threads of a node say it here, as they all use the same Redis, and what fails for one mostly fails for all.
"""

from __future__ import annotations

import logging
import threading
import time

import redis

from automoderate._threads import real
from automoderate.backplane.redis.connection import FAILURES
from automoderate.backplane.redis.refusals import described
from automoderate.server.interfaces import BackplaneUnavailable
from automoderate.server.outages import Outage

log = logging.getLogger("automoderate.redis")

CONNECTIONS = "connections to Redis"
WRITES = "writes to Redis"
NOTICES = "messages that tell other nodes at once what is new"
ENTRIES = "readings of what stands in Redis"

MAX_KEYS = 1000
"""Keys that cannot be used and are remembered, so that each is named once. Further ones are counted only."""


class Troubles:
    """Everything that fails. Thread-safe."""

    def __init__(self) -> None:
        self._lock: threading.Lock = real(threading).Lock()
        self._outages: dict[str, Outage] = {}
        self._keys: dict[str, int] = {}
        self.refusals = 0
        """How often a key could not be used, as it holds something else."""

    def failed(self, what: str, error: Exception) -> None:
        """Something failed, of which ``what`` is the kind."""
        if isinstance(error, FAILURES):
            error = BackplaneUnavailable(described(error))
        with self._lock:
            outage = self._outages.setdefault(what, Outage(log, what))
            outage.failed(error, time.monotonic())

    def worked(self, what: str) -> None:
        """It works. Costs next to nothing where it always has."""
        if what in self._outages:
            with self._lock:
                self._outages[what].worked(time.monotonic())

    def unusable(self, key: str, refusal: redis.ResponseError) -> None:
        """A key holds something else than we keep there."""
        with self._lock:
            self.refusals += 1
            if key in self._keys:
                self._keys[key] += 1
            elif len(self._keys) < MAX_KEYS:
                self._keys[key] = 1
                why = described(refusal)
                log.error(
                    "%s in Redis cannot be used, and only what needs it fails: %s", key, why,
                    extra={"event": "key_unusable", "reason": why},
                )  # fmt: skip

    def usable(self, key: str) -> None:
        """A key holds what it should. Costs next to nothing where all of them always have."""
        if key in self._keys:
            with self._lock:
                refused = self._keys.pop(key, 0)
            if refused:
                log.warning(
                    "%s in Redis can be used again; it could not %d times", key, refused,
                    extra={"event": "key_usable"},
                )  # fmt: skip
