"""What an update looks like on its way to a dashboard, made from the objects a moderation pipeline has at hand.

Those objects are rows of a database, plain dictionaries, or anything with the same attribute names. An attribute
that is missing, or that fails when it is read (a detached row, say), becomes null or an obvious default: a
decision that was made is shown even where some detail of it cannot be.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from automoderate.core.updates import EVENTS, STATUSES, checked

PREVIEW_LENGTH = 100
"""Characters of a content that travel with an update."""

_DEEPEST = 32


def moderation_update(
    content: object, decision: object, results: object, total_time: object
) -> tuple[str, dict[str, Any]]:
    """The project and the data of ``moderation_update``.

    ``content`` has ``id``, ``project_id``, ``content_type``, ``content_data`` (the text) and ``meta_data``;
    ``results`` is a list whose first item tells who decided (``moderator_type``, ``rule_name``); ``total_time`` is
    in seconds. A decision that is none of the four statuses is shown as ``pending``: nothing was decided as far as
    a dashboard can tell. The timestamp is now, because the row still carries the time before the decision.

    Raises ValueError where the content names no project.
    """
    found = _results(results)
    moderator_type, moderator_name, rule_name = _moderator(found)
    status = str(_plain(decision)).lower()
    return _about(
        content,
        status=status if status in STATUSES else "pending",
        results_count=len(found),
        processing_time=_seconds(total_time),
        moderator_type=moderator_type,
        moderator_name=moderator_name,
        rule_name=rule_name,
    )


def trial_update(project_id: str, status: str, by: str) -> dict[str, Any]:
    """The data of a ``moderation_update`` that says that it is a test, and by whom."""
    content = {
        "id": f"test-{uuid.uuid4()}", "project_id": project_id, "content_type": "text",
        "content_data": f"Test update by {by}: nothing was moderated", "meta_data": {"test": True},
    }  # fmt: skip
    _, data = moderation_update(content, status, [{"moderator_type": "manual"}], 0.0)
    return data


def content_received(content: object) -> tuple[str, dict[str, Any]]:
    """The project and the data of ``content_received``: the same shape, before a decision.

    Raises ValueError where the content names no project.
    """
    return _about(
        content,
        status="pending",
        results_count=0,
        processing_time=0.0,
        moderator_type="pending",
        moderator_name="Processing…",
        rule_name=None,
    )


def stats_update(stats: object) -> dict[str, Any]:
    """The data of ``stats_update``: any object, made fit for JSON. Raises ValueError for what is no object."""
    return _fields(stats)


def rule_update(rule: object, action: object = "updated") -> dict[str, Any]:
    """The data of ``rule_update``; ``timestamp`` is the rule's ``updated_at`` where it has one, else now.

    Raises ValueError for a rule that is no object.
    """
    fields = _fields(rule)
    return {"action": _plain(action), "rule": fields, "timestamp": fields.get("updated_at") or _now()}


def preview(content: object) -> str:
    """The first characters of a content, with "..." where there is more."""
    text = _text(content)
    return text if len(text) <= PREVIEW_LENGTH else f"{text[:PREVIEW_LENGTH]}..."


def validate(project_id: str, event: object, data: object) -> dict[str, Any]:
    """A copy of ``data`` ready to be published to a project. Unknown keys are kept.

    Raises ValueError, with a message for the sender: an event that may not be published, data that is no
    object or cannot travel as JSON, a ``status`` that is none of the four, or another project's ``project_id``.
    """
    shaped = checked(project_id, event, data)
    try:
        # Neither NaN nor half a surrogate pair survives the way into a browser.
        json.dumps(shaped, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("data holds a lone surrogate, which is not text") from None
    except RecursionError:
        raise ValueError("data is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"data is not JSON: {error}") from None
    return shaped


def _about(content: object, **decided: Any) -> tuple[str, dict[str, Any]]:
    project_id = _text(_get(content, "project_id"))
    if not project_id:
        raise ValueError("the content names no project")
    content_id = _get(content, "id")
    data = {
        "content_id": None if content_id is None else _text(content_id),
        "project_id": project_id,
        "content_type": _text(_get(content, "content_type")) or "text",
        "content_preview": preview(_get(content, "content_data")),
        "meta_data": _plain(_get(content, "meta_data")),
        "timestamp": _now(),
        **decided,
    }
    return project_id, data


def _moderator(results: list[object]) -> tuple[str, str, str | None]:
    """``moderator_type``, ``moderator_name`` and ``rule_name``, by the first result."""
    moderator_type = _text(_get(results[0], "moderator_type")) if results else ""
    if not moderator_type:
        return "unknown", "Unknown", None
    if moderator_type == "rule":
        return "rule", "Rule", _text(_get(results[0], "rule_name")) or "Unknown Rule"
    if moderator_type == "ai":
        return "ai", "AI", None
    return moderator_type, moderator_type.title(), None


def _results(results: object) -> list[object]:
    """The results as a list; one result by itself counts as a list of it, and what cannot be read as none."""
    if results is None:
        return []
    try:
        if isinstance(results, Iterable) and not isinstance(results, Mapping | str | bytes):
            return list(results)
    except Exception:
        return []
    return [results]


def _seconds(value: object) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except Exception:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _get(item: object, name: str) -> object:
    try:
        return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
    except Exception:
        return None


def _text(value: object) -> str:
    """``value`` as text, "" for None."""
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _fields(item: object) -> dict[str, Any]:
    """The fields of a mapping, or the public attributes of an object (of a row: its loaded columns)."""
    try:
        if isinstance(item, Mapping):
            return _members(item, 0)
        attributes = dict(getattr(item, "__dict__", ()))
    except Exception:
        attributes = {}
    if not attributes:
        raise ValueError(f"an object is needed, not {type(item).__name__}")
    return {name: _plain(value) for name, value in attributes.items() if not name.startswith("_")}


def _plain(value: object, depth: int = 0) -> Any:
    """``value`` as JSON can say it. What it cannot say becomes text; nothing raises."""
    try:
        return _read(value, depth)
    except Exception:
        return _word(value)


def _read(value: object, depth: int) -> Any:
    """``value`` as JSON can say it. Raises what the value raises while it is read."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth + 1)
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    if depth < _DEEPEST and isinstance(value, Mapping):
        return _members(value, depth)
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in list(value)]
    return _word(value)


def _members(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    # At once: another thread of the pipeline may go on changing it.
    return {_word(key): _plain(item, depth + 1) for key, item in list(value.items())}


def _number(value: float | Decimal) -> float | None:
    """The number where JSON has it; None for what no reader could hold."""
    try:
        finite = math.isfinite(value)
    except (OverflowError, ValueError):  # an integer beyond every float; a signalling NaN
        finite = False
    if not finite:
        return None
    return float(value) if isinstance(value, Decimal) else value


def _word(value: object) -> str:
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


__all__ = [
    "EVENTS", "PREVIEW_LENGTH", "STATUSES", "content_received", "moderation_update", "preview", "rule_update",
    "stats_update", "validate",
]  # fmt: skip
