"""Reading streams: many in one command, of which one that cannot be read spoils the answer only for itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import redis

from automoderate.backplane.redis.connection import RedisConnection
from automoderate.backplane.redis.entries import READ_COUNT, Entry
from automoderate.backplane.redis.refusals import Concern, concern
from automoderate.backplane.redis.troubles import Troubles

BEGINNING = "0-0"
"""Before every entry."""
GROUP = 64
"""Streams asked about at once, as each may have much to say."""


class Streams:
    """Reads streams over one connection, for one thread.

    Raises what the connection fails with, and what Redis refuses of all keys. A key that holds something else than a
    stream is named in the log, and left out.
    """

    def __init__(self, link: RedisConnection, troubles: Troubles) -> None:
        self._link = link
        self._troubles = troubles

    def news(self, positions: Mapping[bytes, str]) -> tuple[dict[bytes, list[Entry]], set[bytes]]:
        """At most READ_COUNT entries of each stream behind its position; and the keys that hold no stream."""
        command = ("XREAD", "COUNT", READ_COUNT, "STREAMS")
        (answer,) = self._link.ask((*command, *positions, *positions.values()))
        if not isinstance(answer, redis.ResponseError):
            self._are_usable(positions)
            return dict(answer or ()), set()
        answers = self._link.ask(*((*command, key, position) for key, position in positions.items()))
        found: dict[bytes, list[Entry]] = {}
        refused: set[bytes] = set()
        for key, answer in zip(positions, answers, strict=True):
            if isinstance(answer, redis.ResponseError):
                self._refuse(key, answer)
                refused.add(key)
            else:
                self._are_usable([key])
                found.update(answer or ())
        return found, refused

    def without(self, positions: Mapping[bytes, str]) -> set[bytes]:
        """Which of these keys have no entry at their position, or hold no stream."""
        missing: set[bytes] = set()
        pairs = list(positions.items())
        for start in range(0, len(pairs), GROUP):
            group = pairs[start : start + GROUP]
            answers = self._link.ask(*(("XRANGE", key, position, position) for key, position in group))
            for (key, _), answer in zip(group, answers, strict=True):
                if isinstance(answer, redis.ResponseError):
                    self._refuse(key, answer)
                if isinstance(answer, redis.ResponseError) or not answer:
                    missing.add(key)
        return missing

    def newest(self, key: str) -> str:
        """The id of a stream's newest entry, or the beginning."""
        (found,) = self._link.ask(("XREVRANGE", key, "+", "-", "COUNT", 1))
        if isinstance(found, redis.ResponseError):
            self._refuse(key.encode(), found)
            found = None
        return found[0][0].decode() if found else BEGINNING

    def _refuse(self, key: bytes, refusal: redis.ResponseError) -> None:
        if concern(refusal) is not Concern.KEY:
            raise refusal
        self._troubles.unusable(key.decode(), refusal)

    def _are_usable(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self._troubles.usable(key.decode())
