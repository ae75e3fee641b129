"""Our own server under test, put together as ``automoderate serve`` does.

    python -m benchmarks.ours ADAPTER CONFIG
    python -m benchmarks.ours ADAPTER REDIS_URL CONFIG        # a node of several, which publishes nothing itself
    python -m benchmarks.ours --source PATH …                 # the server of another checkout, by the same harness

Hub, limits, history and metrics are in every figure. What is different from the default is what the load would run
into by coming from one address: how many connections and events a minute are taken.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, fields

from benchmarks.under_test import Config, Publish, Statements, Updates, ready, serve_commands, stand_by

if TYPE_CHECKING:  # nothing of the server is imported before it is known which checkout's it is
    from automoderate.adapters.runtime import Handle
    from automoderate.app import Assembly

EVENT = "moderation_update"
SOURCE = "--source"
UNLIMITED = 1_000_000
RECHECK_INTERVAL = 3600.0
"""Seconds: no look at who may still see what falls into a run."""


@define(eq=False)
class Publisher:
    """Publishes to a running server, from its own thread or on the server's."""

    assembly: Assembly
    handle: Handle
    updates: Updates

    def publish(self, command: Publish) -> None:
        """Carry out one command; returns when the last update has been published."""
        self.updates.begin()
        if command.rate is None:
            self._as_fast_as_possible(command)
        else:
            self._at_fixed_times(command)

    def _at_fixed_times(self, command: Publish) -> None:
        """As the notifier does in the same process: encoded here, published on the server's thread."""
        for when, size in command.due(time.monotonic()):
            time.sleep(max(0.0, when - time.monotonic()))
            for _ in range(size):
                project_id, data = self.updates.next(command.rooms)
                last = self.assembly.realtime.publish(project_id, EVENT, data)
        last.result()

    def _as_fast_as_possible(self, command: Publish) -> None:
        """On the server's thread, a batch whenever the previous one has been written to every member."""
        batches = command.batches()
        server = self.assembly.server
        finished = threading.Event()

        def step(now: float) -> None:
            size = next(batches, 0)
            for _ in range(size):
                project_id, data = self.updates.next(command.rooms)
                server.publish(project_id, EVENT, server.encode(data), now)
            if size:
                self._when_written(now, lambda: self.handle.submit(step))
            else:
                finished.set()

        self.handle.submit(step)
        finished.wait()

    def _when_written(self, now: float, then: Callable[[], object]) -> None:
        """Call ``then`` once nobody waits for a slice of what was published at ``now``.

        An adapter asks for the next deadline after everything that it does, and as long as somebody waits the server
        wants to be called at once. To go and look in every turn would cost more than many a turn.
        """
        server = self.assembly.server

        def next_deadline() -> float | None:
            deadline = type(server).next_deadline(server)
            if deadline is None or deadline > now:
                del server.next_deadline
                then()
            return deadline

        server.next_deadline = next_deadline  # type: ignore[method-assign]


def use_checkout(words: list[str]) -> list[str]:
    """Have everything of AutoModerate imported from the checkout that the first words name; the others."""
    if words[0] != SOURCE:
        return words
    sys.path.insert(0, words[1])
    return words[2:]


def main() -> None:
    """Serve until standard input ends."""
    name, *redis_url, path = use_checkout(sys.argv[1:])
    if name == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # not found, as where it is not installed
    from automoderate import app
    from automoderate.settings import Settings

    config = Config.load(path)
    limits: dict[str, Any] = {
        field.name: UNLIMITED for field in fields(Settings) if field.name.endswith(("_per_minute", "_per_address"))
    }
    # What an older checkout does not know is not said unless it is wanted.
    window: dict[str, Any] = {"window": config.window} if config.window else {}
    settings = Settings(
        adapter="asyncio" if name == "uvloop" else name,
        port=config.port,
        database_url=config.database_url,
        secret_key=config.secret_key,
        redis_url=redis_url[0] if redis_url else None,
        log_level="warning",
        ping_interval=config.ping_interval,
        recheck_interval=RECHECK_INTERVAL,
        **(limits if config.limits == "raised" else {}),
        **window,
    )
    statements = Statements.counted() if config.counting else None
    assembly = app.build(settings)
    stand_by(config)

    def commands(handle: Handle) -> None:
        publisher = Publisher(assembly, handle, Updates(config, with_event_id=False))
        serve_commands(publisher.publish, statements)
        os._exit(0)  # nobody is left to say goodbye to

    def on_ready(handle: Handle) -> None:
        ready(handle.addresses[0][1])
        threading.Thread(target=commands, args=(handle,), daemon=True).start()

    assembly.run(on_ready)


if __name__ == "__main__":
    main()
