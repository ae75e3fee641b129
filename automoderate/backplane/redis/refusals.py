"""What Redis refuses, and what that means for the asker: to look elsewhere, to wait, or to leave one key alone.

A refusal begins with a word in capitals (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
redis-py takes that word away where it has a class for it, and a script hides it in a sentence, or says it in others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

import redis
from redis import exceptions

from automoderate.backplane.redis.connection import FAILURES
from automoderate.server.interfaces import BackplaneRefused, BackplaneUnavailable, ProjectUnusable


class Concern(Enum):
    """What a refusal concerns. In each case nothing was done."""

    ELSEWHERE = "elsewhere"
    """This connection: it leads to a Redis that is not, or not yet, the one to ask. Another may lead to that one."""
    WRITES = "writes"
    """Everything that is written, for now. What is read and told is answered."""
    KEY = "key"
    """The key that was named."""
    OTHER = "other"
    """What was asked."""


_MEANINGS: Mapping[str, tuple[Concern, str]] = {
    "READONLY": (Concern.ELSEWHERE, "Redis is a read-only replica"),
    "MASTERDOWN": (Concern.ELSEWHERE, "Redis is a replica without its master"),
    "CLUSTERDOWN": (Concern.ELSEWHERE, "Redis is part of a cluster"),
    "MOVED": (Concern.ELSEWHERE, "Redis is part of a cluster"),
    "ASK": (Concern.ELSEWHERE, "Redis is part of a cluster"),
    "TRYAGAIN": (Concern.ELSEWHERE, "Redis is part of a cluster"),
    "CROSSSLOT": (Concern.ELSEWHERE, "Redis is part of a cluster"),
    "OOM": (Concern.WRITES, "Redis is full"),
    "MISCONF": (Concern.WRITES, "Redis cannot write to its disk"),
    "NOREPLICAS": (Concern.WRITES, "Redis has too few replicas"),
    "NOPERM": (Concern.WRITES, "Redis does not allow it"),
    "The user executing the script": (Concern.WRITES, "Redis does not allow it"),
    "WRONGTYPE": (Concern.KEY, "Redis has something else under the key"),
}
_WORDS = re.compile(rf"\b({'|'.join(_MEANINGS)})\b")

_CLASSES: Mapping[type[redis.ResponseError], str] = {
    exceptions.ReadOnlyError: "READONLY",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
}


def concern(refusal: redis.ResponseError) -> Concern:
    """What it concerns."""
    return _meaning(refusal)[0]


def reason(refusal: redis.ResponseError) -> str:
    """Why, in a few words for the publisher."""
    return _meaning(refusal)[1]


def described(error: BaseException) -> str:
    """What went wrong, in a line for the log: as Redis says it, or what became of the connection."""
    text, _, _ = str(error).partition(" script: ")  # behind which stands where in it
    word = _CLASSES.get(type(error)) if isinstance(error, redis.ResponseError) else None
    return text if word is None else f"{word} {text}"


def unavailable(error: Exception, *, of_project: bool = False) -> BackplaneUnavailable:
    """What the publisher is told; where one key was refused, whether it is a project's."""
    text = f"Redis has not taken it: {described(error) if isinstance(error, FAILURES) else 'unexpected failure'}"
    if not isinstance(error, redis.ResponseError):
        return BackplaneUnavailable(text)
    refused = ProjectUnusable if of_project and concern(error) is Concern.KEY else BackplaneRefused
    return refused(text, reason(error))


def _meaning(refusal: redis.ResponseError) -> tuple[Concern, str]:
    word = _CLASSES.get(type(refusal))
    if word is None:
        found = _WORDS.search(str(refusal))
        word = found[1] if found else ""
    return _MEANINGS.get(word, (Concern.OTHER, "Redis refused it"))
