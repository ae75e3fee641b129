"""Publishes through Redis, as a pipeline in a process of its own does: started by :mod:`benchmarks.cluster`.

    python -m benchmarks.publisher CONFIG REDIS_URL RECEIPTS
    python -m benchmarks.publisher --source PATH …            # that of another checkout, by the same harness

says ``{"ready": true}`` and takes the commands of :mod:`benchmarks.servers`. RECEIPTS is the number of an open pipe in
which it finds a byte for every update that everybody in its room has got.

Without a rate one update of each room is under way, and never fewer than two, so that the next is there when a node is
done: so few that those of one room do not wait together, as they would leave in one write. What Redis accepts is no
measure: that is more than nodes deliver, and what they do not come to is trimmed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from attrs import define, field

from benchmarks.ours import use_checkout
from benchmarks.under_test import Config, Publish, Updates, say, serve_commands

EVENT = "moderation_update"
PATIENCE = 10.0  # seconds that Redis has to take an update
MAX_WAITING = 100_000
FEWEST = 2  # updates under way
MANY = 65_536  # more receipts than are ever read at a time


class Door(Protocol):
    """What takes updates to Redis."""

    def publish(self, project_id: str, event: str, data: dict[str, Any]) -> Future[str]:
        """Publish one; the future is done when Redis has taken it."""


@define(eq=False)
class Publisher:
    """Publishes updates through ``door`` and looks at what has arrived of them."""

    door: Door
    updates: Updates
    receipts: int
    _asked: list[Future[str]] = field(factory=list)

    def publish(self, command: Publish) -> None:
        """Carry out one command; returns when Redis has accepted every update. Raises where it has not."""
        self.updates.begin()
        self._forget_receipts()
        if command.rate is None:
            self._as_fast_as_received(command)
        else:
            self._at_fixed_times(command)
        asked, self._asked = self._asked, []
        for future in asked:
            future.result()

    def _at_fixed_times(self, command: Publish) -> None:
        for when, size in command.due(time.monotonic()):
            time.sleep(max(0.0, when - time.monotonic()))
            for _ in range(size):
                self._publish_one(command.rooms)

    def _as_fast_as_received(self, command: Publish) -> None:
        most, under_way = max(FEWEST, command.rooms), 0
        for _ in range(command.updates):
            if under_way == most:
                under_way -= self._wait_for_receipts()
            self._publish_one(command.rooms)
            under_way += 1

    def _publish_one(self, rooms: int) -> None:
        project_id, data = self.updates.next(rooms)
        self._asked.append(self.door.publish(project_id, EVENT, data))

    def _wait_for_receipts(self) -> int:
        """Wait until at least one update more has arrived; how many have."""
        received = os.read(self.receipts, MANY)
        if not received:
            sys.exit("the load generator has ended")
        return len(received)

    def _forget_receipts(self) -> None:
        """Read off the receipts of the last command, of which not all were waited for."""
        os.set_blocking(self.receipts, False)
        try:
            os.read(self.receipts, MANY)
        except BlockingIOError:
            pass
        finally:
            os.set_blocking(self.receipts, True)


def run(door: Callable[[str], Door], *, with_event_id: bool) -> None:
    """Publish until standard input ends, through a door to the Redis at a URL."""
    path, redis_url, receipts = sys.argv[1:]
    publisher = Publisher(door(redis_url), Updates(Config.load(path), with_event_id), int(receipts))
    say({"ready": True})
    serve_commands(publisher.publish)


def main() -> None:
    """Publish as our notifier does."""
    sys.argv[1:] = use_checkout(sys.argv[1:])
    from automoderate.backplane.redis import RedisPublisher  # of that checkout

    run(lambda url: RedisPublisher(url, patience=PATIENCE, max_waiting=MAX_WAITING), with_event_id=False)


if __name__ == "__main__":
    main()
