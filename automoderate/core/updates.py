"""What may be published to a project's room: the events of the existing dashboard, and what their data has to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automoderate.core.hub import EVENTS_WITH_STATUS, STATUSES

__all__ = ["EVENTS", "STATUSES", "checked"]

EVENTS = ("moderation_update", "content_received", "stats_update", "rule_update")
"""The events that may be published."""


def checked(project_id: str, event: object, data: object) -> dict[str, Any]:
    """A copy of ``data`` as it goes to the project's room. Unknown keys are kept.

    Raises ValueError, with a message for the sender: an event that may not be published, data that is no object, a
    ``status`` that is none of the four, or another project's ``project_id``.
    """
    if event not in EVENTS:
        raise ValueError(f"event must be one of {', '.join(EVENTS)}")
    if not isinstance(data, Mapping):
        raise ValueError("data must be an object")  # noqa: TRY004 - one kind of error for the sender
    shaped = dict(data)
    if event in EVENTS_WITH_STATUS:
        if shaped.get("project_id") not in (None, project_id):
            raise ValueError("project_id is another project's")
        shaped["project_id"] = project_id
        if "status" in shaped and shaped["status"] not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}")
    return shaped
