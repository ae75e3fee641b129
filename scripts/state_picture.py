"""Write docs/states.md: the hub's two state machines, drawn from the tables that run them.

``python scripts/state_picture.py`` writes the file, ``--check`` only says (exit status 1) whether it is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from automoderate.core.hub import ROOM_TRANSITIONS, SESSION_TRANSITIONS, LoginState, RoomState, Trigger

TARGET = Path(__file__).parent.parent / "docs" / "states.md"

INTRODUCTION = (
    "Drawn from `SESSION_TRANSITIONS` and `ROOM_TRANSITIONS` in `automoderate/core/hub.py` by"
    " `python scripts/state_picture.py`; a test fails while this page and the tables differ. What is not an arrow"
    " here cannot happen: a pair of state and trigger that is missing from its table raises `HubError`."
)

State = TypeVar("State", LoginState, RoomState)


def edges(table: Mapping[tuple[State, Trigger], Collection[State]]) -> list[str]:
    """One Mermaid edge for each pair of states, with every trigger that leads from the one to the other."""
    triggers: dict[tuple[str, str], list[str]] = {}
    for (state, trigger), targets in table.items():
        for target in sorted(targets, key=lambda target: target.value):
            triggers.setdefault((state.value, target.value), []).append(trigger.value)
    return [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in triggers.items()]


def diagram(first: State, table: Mapping[tuple[State, Trigger], Collection[State]]) -> str:
    """One machine in Mermaid's words."""
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first.value}", *edges(table), "```"])


def render() -> str:
    """The whole page."""
    return "\n\n".join(
        [
            "# The hub's state machines",
            INTRODUCTION,
            "## A session",
            diagram(LoginState.IDENTIFYING, SESSION_TRANSITIONS),
            "## A session's relation to one project's room",
            diagram(RoomState.ABSENT, ROOM_TRANSITIONS),
            "",
        ]
    )


def main() -> int:
    """Write the page, or check it; the exit status."""
    text = render()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
        return 0
    return 0 if TARGET.exists() and TARGET.read_text() == text else 1


if __name__ == "__main__":
    sys.exit(main())
