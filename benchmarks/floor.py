"""Start the floor as a server under test: ``python -m benchmarks.floor CONFIG`` becomes ``native/floor.c``."""

from __future__ import annotations

import json
import os
import sys

from benchmarks import native
from benchmarks.under_test import Config

SEQ = 6  # digits
SENT = 19


def text(config: Config) -> str:
    """What the frames say, with room for the numbers that differ."""
    meta_data = json.dumps(config.template["meta_data"], separators=(",", ":")).removesuffix("}")
    data = {
        **config.template,
        "project_id": config.projects[0],
        "event_id": "1768473000000-0",
        "meta_data": f'{meta_data},"seq":{" " * SEQ},"sent":{" " * SENT}}}',
    }
    fields = (
        f'"{key}":{value if key == "meta_data" else json.dumps(value, ensure_ascii=False, separators=(",", ":"))}'
        for key, value in data.items()
    )
    return f'42["moderation_update",{{{",".join(fields)}}}]'


def main() -> None:
    """Replace this process by the floor's."""
    config = Config.load(sys.argv[1])
    program = native.build("floor")
    os.execv(program, [str(program), "0", text(config), str(len(config.projects))])


if __name__ == "__main__":
    main()
