"""Write docs/states.md: the hub's two state machines, drawn from the tables that run them.

``python scripts/state_picture.py`` writes the file, ``--check`` only says (exit status 1) whether it is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from automoderate.core.hub import ROOM_RULES, SESSION_RULES, Cue, RoomState, Rule, SessionState

TARGET = Path(__file__).parent.parent / "docs" / "states.md"

INTRODUCTION = (
    "Drawn from `SESSION_RULES` and `ROOM_RULES` in `automoderate/core/hub.py` by"
    " `python scripts/state_picture.py`; a test fails while this page and the tables differ. What is not an arrow"
    " here cannot happen: a pair of state and cue that is missing from its table raises `HubError`."
)

State = SessionState | RoomState


def edges(rules: Iterable[tuple[State, Cue, Rule]]) -> list[str]:
    """One Mermaid edge for each pair of states, with everything that leads from the one to the other."""
    cues: dict[tuple[str, str], list[str]] = {}
    for state, cue, rule in rules:
        for target in sorted(rule.targets, key=lambda target: target.value):
            cues.setdefault((state.value, target.value), []).append(cue.value)
    return [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in cues.items()]


def diagram(first: State, rules: Mapping[tuple[SessionState, Cue], Rule] | Mapping[tuple[RoomState, Cue], Rule]) -> str:
    rows = [(state, cue, rule) for (state, cue), rule in rules.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first.value}", *edges(rows), "```"])


def render() -> str:
    return "\n\n".join(
        [
            "# The hub's state machines",
            INTRODUCTION,
            "## A session",
            diagram(SessionState.IDENTIFYING, SESSION_RULES),
            "## A session's relation to one project's room",
            diagram(RoomState.ABSENT, ROOM_RULES),
            "",
        ]
    )


def main() -> int:
    text = render()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
        return 0
    return 0 if TARGET.exists() and TARGET.read_text() == text else 1


if __name__ == "__main__":
    sys.exit(main())
